//! The way to a connection: retries with `--wait-for`, and the exit code and the hint if there is none.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use sockeye::client::{
    ConnectError, Connected, Connector, Failure as Reason, Family, Outcome, Target,
};

use crate::cli::connect::Connect;
use crate::connect::proxy;
use crate::exit::{Code, Failure};
use crate::output::talk;

pub(crate) fn connector(arguments: &Connect) -> Result<Connector, Failure> {
    let mut connector = Connector::default();
    connector.proxy = proxy::proxy(arguments)?;
    connector.timeout = arguments.timeout;
    connector.source = arguments.source.map(|ip| SocketAddr::new(ip, 0));
    connector.family = match (arguments.ipv4, arguments.ipv6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    Ok(connector)
}

/// Connects, with `--wait-for` again and again until it works or the time is up.
pub(crate) async fn connect(
    arguments: &Connect,
    connector: &Connector,
    target: &Target,
) -> Result<Connected, ConnectError> {
    let Some(wait_for) = arguments.wait_for else {
        return connector.connect(target.clone()).await;
    };
    let until = Instant::now() + wait_for;
    let mut connector = connector.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        connector.timeout = arguments.timeout.min(left).max(SHORTEST_ATTEMPT);
        let error = match connector.connect(target.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || proxy::is_final(&error) {
            return Err(error);
        }
        // The last attempt is when the time is up.
        let pause_now = pause.min(left);
        if arguments.verbose {
            talk(&format!("{error}; trying again in {pause_now:?}"));
        }
        tokio::time::sleep(pause_now).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(50);

/// The exit code and the hint for a connect that failed.
pub(crate) fn failure(arguments: &Connect, error: ConnectError) -> Failure {
    let refused = error.report.attempts.iter().any(|attempt| {
        matches!(&attempt.outcome, Outcome::Failed(e) if e.kind() == io::ErrorKind::ConnectionRefused)
    });
    let hint = proxy::hint(&error);
    let no_source = arguments.source.is_some()
        && error.report.attempts.iter().any(|attempt| {
            matches!(&attempt.outcome, Outcome::Failed(e) if e.kind() == io::ErrorKind::AddrNotAvailable)
        });
    if no_source {
        return Failure::usage(error).with_hint("--source takes an IP address of this machine");
    }
    let code = code_of(&error);
    if proxy::is_final(&error) {
        return with_hint(Failure::new(code, error), hint);
    }
    if let (Some(wait_for), Code::Connect | Code::Timeout) = (arguments.wait_for, code) {
        let limit = humantime::format_duration(wait_for);
        let error = anyhow!(error).context(format!("not up within {limit}"));
        return Failure::new(Code::Timeout, error);
    }
    let failure = Failure::new(code, error);
    match code {
        _ if hint.is_some() => with_hint(failure, hint),
        Code::Connect if refused => {
            failure.with_hint("nobody listens there; --wait-for 30s tries until somebody does")
        }
        Code::Timeout => failure.with_hint("a host or firewall that drops; --timeout waits longer"),
        _ => failure,
    }
}

fn with_hint(failure: Failure, hint: Option<&str>) -> Failure {
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The exit code for a connect that failed.
pub(crate) fn code_of(error: &ConnectError) -> Code {
    let timed_out = |attempts: &[sockeye::client::Attempt]| {
        !attempts.is_empty()
            && attempts.iter().all(|attempt| match &attempt.outcome {
                Outcome::Failed(error) => error.kind() == io::ErrorKind::TimedOut,
                _ => false,
            })
    };
    match &error.failure {
        Reason::Resolve(_) | Reason::NoUsableAddress => Code::Resolve,
        Reason::TimedOut(_) => Code::Timeout,
        Reason::Request(_) => Code::Usage,
        _ if timed_out(&error.report.attempts) => Code::Timeout,
        _ => Code::Connect,
    }
}
