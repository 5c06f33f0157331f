//! `sockeye connect`: one connection, by hand or from a script.

mod crlf;
pub(crate) mod escape;
mod exchange;
mod explain;
mod hex;
mod pipe;
mod terminal;

use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use sockeye::Stream;
use sockeye::client::{
    ConnectError, Connected, Connector, Failure as Reason, Family, Outcome, Target,
};
use sockeye::tls::HandshakeError;

use crate::address::parse_destination;
use crate::cli::connect::{Connect, OnEof, TlsEof};
use crate::connect::exchange::{Ending, Exchange, exchange, say_the_end};
use crate::connect::explain::Account;
use crate::connect::pipe::{Input, Output};
use crate::exit::{Code, Failure, Warning};
use crate::output::{data, talk};
use crate::secure::{self, Secured, Securing};
use crate::session::Tls;

pub(crate) fn run(arguments: Connect) -> Result<Code, Failure> {
    let destination = parse_destination(&arguments.address)?;
    let securing = Securing::new(&arguments.securing, &destination)?;
    if arguments.tls_eof.is_some() && !securing.has_tls() {
        return Err(Failure::usage(anyhow!("--tls-eof is for TLS"))
            .with_hint("write tls://HOST:PORT, or --tls"));
    }
    let input = input(&arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot start")))?;
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            ended = talk_to(&arguments, &destination.target, &securing, input) => ended,
            // While connected, the exchange sees the signal first, and tells what has happened so far.
            _ = tokio::signal::ctrl_c() => Ok(Code::Interrupted),
        }
    });
    // A thread may still wait for stdin or for the resolver, and neither can be stopped but by the end of the process.
    let code = ended.unwrap_or_else(|failure| {
        talk(&failure);
        failure.code
    });
    process::exit(code as i32)
}

async fn talk_to(
    arguments: &Connect,
    target: &Target,
    securing: &Securing,
    input: Box<dyn Read + Send>,
) -> Result<Code, Failure> {
    let connector = connector(arguments);
    let started = Instant::now();
    let connected = connect(arguments, &connector, target).await;
    if arguments.probe {
        return probe(arguments, target, securing, connected, started).await;
    }
    let connected = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let account = Account::of_failure(&error);
            return tell(arguments, account, Err(failure(arguments, error)));
        }
    };
    if arguments.verbose {
        for line in explain::steps(&connected.report) {
            talk(&line);
        }
        talk(&format!("connected to {}", connected.peer));
    }
    let mut account = Account::of_success(&connected);
    let stream = secure(arguments, securing, connected.stream, &mut account).await;
    let stream = match stream {
        Ok(Some(stream)) => stream,
        Ok(None) => {
            account.not_secured("interrupted");
            return tell(arguments, account, Ok(Code::Interrupted));
        }
        Err(failure) => {
            account.not_secured("not_secured");
            return tell(arguments, account, Err(failure));
        }
    };
    let exchanged = exchange(
        stream,
        rules(arguments, securing),
        Input::start(input).map_err(no_thread)?,
        Output::start(output(arguments)?).map_err(no_thread)?,
    )
    .await;
    account.ended(&exchanged);
    if !account.ends_a_line && stdout().is_terminal() {
        talk("");
    }
    let quiet = arguments.quiet || arguments.json;
    if exchanged.progress.is_alert.get() && !securing.has_tls() && !quiet {
        let refused =
            "what came looks like a TLS alert: the server may want tls:// before its address";
        talk(&Warning(refused));
    }
    if arguments.verbose {
        talk(&account.ending());
    }
    let ended = finish(arguments, exchanged.ending, &account);
    tell(arguments, account, ended)
}

/// The PROXY header and TLS, as far as they are asked for; `None` after an interrupt.
async fn secure(
    arguments: &Connect,
    securing: &Securing,
    stream: Stream,
    account: &mut Account,
) -> Result<Option<Stream>, Failure> {
    let mut secured = Secured::default();
    let stream = tokio::select! {
        biased;
        stream = securing.secure(stream, &mut secured) => stream.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
    };
    // As JSON the account is all there is on stderr, and has it in it.
    if !(arguments.explain && arguments.json) {
        warn(&secured);
    }
    account.secured(secured, securing.trusted_by());
    if arguments.verbose {
        for line in account.security() {
            talk(&line);
        }
    }
    stream
}

fn warn(secured: &Secured) {
    if let Some(warning) = &secured.warning {
        talk(&Warning(warning));
    }
}

/// When the talk ends.
fn rules(arguments: &Connect, securing: &Securing) -> Exchange {
    // An end of our side is no end of a TLS connection to many servers, but of all of it.
    let on_eof = if securing.has_tls() {
        OnEof::Keep
    } else {
        OnEof::Fin
    };
    Exchange {
        on_eof: arguments.on_eof.unwrap_or(on_eof),
        // With one of these the end is near, or is no question.
        tell_kept: arguments.on_eof.is_none()
            && arguments.recv_bytes.is_none()
            && arguments.idle_timeout.is_none()
            && !arguments.quiet
            && !arguments.json,
        tls_eof_lax: arguments.tls_eof == Some(TlsEof::Lax),
        keep_open: arguments.keep_open,
        idle: arguments.idle_timeout.and_then(|timeout| timeout.0),
        receive_at_most: arguments.recv_bytes.map(NonZeroU64::get),
        crlf: arguments.crlf,
    }
}

/// Prints the account if it was asked for. As JSON it has the error in it, and is all there is on stderr.
fn tell(
    arguments: &Connect,
    mut account: Account,
    ended: Result<Code, Failure>,
) -> Result<Code, Failure> {
    if !arguments.explain {
        return ended;
    }
    if !arguments.json {
        account.print();
        return ended;
    }
    let code = ended.unwrap_or_else(|failure| {
        account.error = Some(format!("{:#}", failure.error));
        failure.code
    });
    talk(&account.json());
    Ok(code)
}

/// The exit code for the way in which the connection ended.
fn finish(arguments: &Connect, ending: Ending, account: &Account) -> Result<Code, Failure> {
    let wanted = arguments.recv_bytes.map_or(0, NonZeroU64::get);
    let got = account.bytes_received;
    match ending {
        Ending::PeerClosed | Ending::InputEnded if got < wanted => Err(Failure::new(
            Code::Receive,
            anyhow!("{} closed after {got} of {wanted} bytes", account.peer),
        )),
        Ending::PeerClosed | Ending::InputEnded | Ending::Received | Ending::OutputClosed => {
            Ok(Code::Done)
        }
        Ending::Interrupted => Ok(Code::Interrupted),
        Ending::Idle(limit) => Err(Failure::new(
            Code::Timeout,
            anyhow!(
                "nothing moved to or from {} for {}",
                account.peer,
                humantime::format_duration(limit)
            ),
        )),
        Ending::Truncated => Err(Failure::new(
            Code::Receive,
            anyhow!(
                "truncated: {} ended TLS without close_notify, so what came may not be all",
                account.peer
            ),
        )
        .with_hint("--tls-eof lax is for servers that are known to end so")),
        Ending::ReceiveFailed(error) => Err(match HandshakeError::refusal(&error) {
            // In TLS 1.3 a server can refuse our certificate only after the handshake.
            Some(refused) if got == 0 => secure::failure(refused, &account.peer),
            _ => Failure::new(
                Code::Receive,
                anyhow!(error).context(format!("cannot receive from {}", account.peer)),
            ),
        }),
        Ending::SendFailed(error) => Err(Failure::new(
            Code::Receive,
            anyhow!(error).context(format!("{} does not take what we send", account.peer)),
        )),
        Ending::OutputFailed(error) => Err(Failure::new(
            Code::Receive,
            anyhow!(error).context("cannot write to stdout"),
        )),
        Ending::InputFailed(error) => Err(Failure::usage(
            anyhow!(error).context("cannot read the input"),
        )),
    }
}

fn connector(arguments: &Connect) -> Connector {
    let mut connector = Connector::default();
    connector.timeout = arguments.timeout;
    connector.source = arguments.source.map(|ip| SocketAddr::new(ip, 0));
    connector.family = match (arguments.ipv4, arguments.ipv6) {
        (true, _) => Some(Family::V4),
        (_, true) => Some(Family::V6),
        _ => None,
    };
    connector
}

/// Connects, with `--wait-for` again and again until it works or the time is up.
async fn connect(
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
        if left.is_zero() {
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

/// Prints whether it is open, which is the answer asked for: not an error. That TLS fails where it is asked for is one.
async fn probe(
    arguments: &Connect,
    target: &Target,
    securing: &Securing,
    connected: Result<Connected, ConnectError>,
    started: Instant,
) -> Result<Code, Failure> {
    let mut code = Code::No;
    let (mut secured, mut insecure) = (Secured::default(), None);
    let (open, peer, why) = match connected {
        Ok(connected) => {
            code = Code::Done;
            let stream = securing.secure(connected.stream, &mut secured);
            match stream.await {
                Ok(mut stream) => say_the_end(&mut stream).await,
                Err(failure) => insecure = Some(failure),
            }
            (true, connected.peer.to_string(), None)
        }
        Err(error) => {
            // Without an address nobody was asked, and nobody has said no.
            let asked = !error.report.attempts.is_empty() || matches!(target, Target::Unix(_));
            if !asked {
                if !arguments.json {
                    return Err(failure(arguments, error));
                }
                code = match error.failure {
                    Reason::TimedOut(_) => Code::Timeout,
                    _ => Code::Resolve,
                };
            }
            (false, target.to_string(), Some(explain::why_not(&error)))
        }
    };
    let took = started.elapsed();
    warn(&secured);
    let session = secured.tls.as_ref().map(|(session, _)| session);
    let line = if arguments.json {
        let why = match &insecure {
            Some(failure) => Some(format!("{:#}", failure.error)),
            None => why,
        };
        explain::probe_json(target, open, &peer, session, took, why.as_deref())
    } else {
        let ms = explain::ms(took);
        match (&why, session.map(Tls::from)) {
            (None, None) => format!("{peer} open after {ms} ms"),
            (None, Some(tls)) => format!("{peer} open after {ms} ms, {}", tls.line()),
            (Some(why), _) => format!("{peer} closed after {ms} ms: {why}"),
        }
    };
    let quiet = arguments.quiet && !arguments.json;
    if !quiet {
        // A closed pipe does not change the answer.
        let _ = data(&line);
    }
    match insecure {
        Some(failure) if arguments.json => Ok(failure.code),
        Some(failure) => Err(failure),
        None => Ok(code),
    }
}

/// The exit code and the hint for a connect that failed.
fn failure(arguments: &Connect, error: ConnectError) -> Failure {
    let refused = error.report.attempts.iter().any(|attempt| {
        matches!(&attempt.outcome, Outcome::Failed(e) if e.kind() == io::ErrorKind::ConnectionRefused)
    });
    let no_source = arguments.source.is_some()
        && error.report.attempts.iter().any(|attempt| {
            matches!(&attempt.outcome, Outcome::Failed(e) if e.kind() == io::ErrorKind::AddrNotAvailable)
        });
    if no_source {
        return Failure::usage(error).with_hint("--source takes an IP address of this machine");
    }
    let code = code_of(&error);
    if let (Some(wait_for), Code::Connect | Code::Timeout) = (arguments.wait_for, code) {
        let limit = humantime::format_duration(wait_for);
        let error = anyhow!(error).context(format!("not up within {limit}"));
        return Failure::new(Code::Timeout, error);
    }
    let failure = Failure::new(code, error);
    match code {
        Code::Connect if refused => {
            failure.with_hint("nobody listens there; --wait-for 30s tries until somebody does")
        }
        Code::Timeout => failure.with_hint("a host or firewall that drops; --timeout waits longer"),
        _ => failure,
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
        _ if timed_out(&error.report.attempts) => Code::Timeout,
        _ => Code::Connect,
    }
}

/// What is to be sent.
fn input(arguments: &Connect) -> Result<Box<dyn Read + Send>, Failure> {
    if !arguments.send.is_empty() {
        let texts = arguments.send.iter().map(|text| text.0.as_slice());
        return Ok(Box::new(Cursor::new(texts.collect::<Vec<_>>().concat())));
    }
    match &arguments.send_file {
        Some(path) => {
            let cannot = || format!("cannot read '{}'", path.display());
            let file = File::open(path).with_context(cannot);
            let file = file.map_err(Failure::usage)?;
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                let error = anyhow!(io::Error::from(io::ErrorKind::IsADirectory));
                return Err(Failure::usage(error.context(cannot())));
            }
            Ok(Box::new(file))
        }
        None => Ok(Box::new(stdin())),
    }
}

/// Where what is received goes, and in what form.
fn output(arguments: &Connect) -> Result<Box<dyn Write + Send>, Failure> {
    let plain = pipe::unbuffered_stdout()
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot write to stdout")))?;
    Ok(if arguments.hex {
        Box::new(hex::Dump::new(plain))
    } else if stdout().is_terminal() && !arguments.raw {
        Box::new(terminal::Shown::new(plain))
    } else {
        plain
    })
}

fn no_thread(error: io::Error) -> Failure {
    Failure::usage(anyhow!(error).context("cannot start a thread"))
}
