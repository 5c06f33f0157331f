//! `--probe`: is it open? Of one port, or of many at a time.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use futures_util::stream::{FuturesUnordered, StreamExt};
use sockeye::client::{Connector, Target};

use crate::cli::connect::Connect;
use crate::connect::dial::{code_of, connect, failure};
use crate::connect::exchange::say_the_end;
use crate::connect::{explain, proxy, warn};
use crate::exit::{Code, Failure, escaped};
use crate::output::{data, talk};
use crate::secure::{Secured, Securing};
use crate::session::Tls;

/// Ports that are asked at the same time: few enough for a firewall not to take us for an attack, and for the 1,024
/// descriptors that a process has by default.
const AT_ONCE: usize = 64;

/// Prints whether it is open, which is the answer asked for: not an error. That TLS fails where it is asked for is one.
pub(crate) async fn one(
    arguments: &Connect,
    connector: &Connector,
    target: &Target,
    securing: &Securing,
) -> Result<Code, Failure> {
    let answer = ask(arguments, connector, target, target, securing).await;
    if let Some(failure) = answer.unasked {
        if !arguments.json {
            return Err(failure);
        }
        tell(arguments, &answer.line);
        return Ok(failure.code);
    }
    tell(arguments, &answer.line);
    match answer.insecure {
        Some(failure) if arguments.json => Ok(failure.code),
        Some(failure) => Err(failure),
        None => Ok(if answer.open { Code::Done } else { Code::No }),
    }
}

/// As [`one`] for each of several ports of a host, some at a time, told in the order of the ports. The answer to all of
/// it is yes if one of them is open, as `nc -z` has it; with TLS, if one of them has agreed on that.
pub(crate) async fn several(
    arguments: &Connect,
    connector: &Connector,
    target: &Target,
    ports: &[u16],
    securing: &Securing,
) -> Result<Code, Failure> {
    let Target::Host(host, _) = target else {
        unreachable!("only a host has several ports");
    };
    // A proxy is asked by name, and resolves it or not.
    let addresses = match connector.proxy {
        None => resolve(host, arguments.timeout).await?,
        Some(_) => Vec::new(),
    };
    // If it stays low, a port that could not be asked says so.
    let _ = sockeye::raise_descriptor_limit();
    let asked = |index: usize, port: u16| {
        let there = |address: &SocketAddr| SocketAddr::new(address.ip(), port);
        let name = Target::Host(host.clone(), port);
        let target = match connector.proxy {
            None => Target::Addresses(addresses.iter().map(there).collect()),
            Some(_) => name.clone(),
        };
        async move {
            (
                index,
                ask(arguments, connector, &target, &name, securing).await,
            )
        }
    };
    let mut waiting = ports.iter().copied().enumerate();
    let mut running = FuturesUnordered::new();
    let mut early = BTreeMap::new();
    let (mut told, mut open) = (0, 0);
    loop {
        let room = AT_ONCE - running.len();
        running.extend(
            waiting
                .by_ref()
                .take(room)
                .map(|(index, port)| asked(index, port)),
        );
        let Some((index, answer)) = running.next().await else {
            break;
        };
        // To what a proxy says of one port there is an answer of each other.
        if let Some(failure) = answer.unasked
            && !answer.refused
        {
            return Err(failure);
        }
        open += usize::from(answer.open && answer.insecure.is_none());
        early.insert(index, answer.line);
        while let Some(line) = early.remove(&told) {
            tell(arguments, &line);
            told += 1;
        }
    }
    if !arguments.quiet && !arguments.json {
        talk(&format!("{open} of {} ports are open", ports.len()));
    }
    Ok(if open > 0 { Code::Done } else { Code::No })
}

/// What came of asking a port.
struct Answer {
    line: String,
    open: bool,
    /// It is open, and there is no TLS.
    insecure: Option<Failure>,
    /// Without an address nobody was asked, and nobody has said no.
    unasked: Option<Failure>,
    /// A proxy did not try it, as it said.
    refused: bool,
}

async fn ask(
    arguments: &Connect,
    connector: &Connector,
    target: &Target,
    name: &Target,
    securing: &Securing,
) -> Answer {
    let started = Instant::now();
    let (mut secured, mut insecure, mut unasked) = (Secured::default(), None, None);
    let mut refused = false;
    let (open, peer, why) = match connect(arguments, connector, target).await {
        Ok(connected) => {
            let peer = explain::peer(&connected);
            match securing.secure(connected.stream, &mut secured).await {
                Ok(mut stream) => say_the_end(&mut stream).await,
                Err(failure) => insecure = Some(failure),
            }
            (true, peer, None)
        }
        Err(error) => {
            let why = explain::why_not(&error);
            refused = proxy::has_refused(&error);
            let nobody = error.report.attempts.is_empty() && !matches!(target, Target::Unix(_));
            if nobody || !proxy::has_asked(&error) {
                let code = code_of(&error);
                unasked = Some(Failure {
                    code,
                    ..failure(arguments, error)
                });
            }
            (false, name.to_string(), Some(why))
        }
    };
    let took = started.elapsed();
    warn(&secured);
    let session = secured.tls.as_ref().map(|(session, _)| session);
    let no_tls = insecure
        .as_ref()
        .map(|failure| format!("{:#}", failure.error));
    let line = if arguments.json {
        let why = no_tls.or(why);
        explain::probe_json(name, open, &peer, session, took, why.as_deref())
    } else {
        let ms = explain::ms(took);
        match (&why, session.map(Tls::from)) {
            (None, None) if no_tls.is_some() => format!("{peer} open after {ms} ms, no TLS"),
            (None, None) => format!("{peer} open after {ms} ms"),
            (None, Some(tls)) => format!("{peer} open after {ms} ms, {}", tls.line()),
            (Some(why), _) => format!("{peer} closed after {ms} ms: {}", escaped(why)),
        }
    };
    Answer {
        line,
        open,
        insecure,
        unasked,
        refused,
    }
}

/// The name's addresses, once for all ports; the port of each is to be set.
async fn resolve(host: &str, limit: Duration) -> Result<Vec<SocketAddr>, Failure> {
    let name = host.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        found.map(|found| found.collect::<Vec<_>>())
    });
    match tokio::time::timeout(limit, lookup).await {
        Ok(Ok(Ok(addresses))) => Ok(addresses),
        Ok(Ok(Err(error))) => {
            let error = anyhow!(error).context(format!("cannot resolve '{host}'"));
            Err(Failure::new(Code::Resolve, error))
        }
        Ok(Err(error)) => Err(Failure::new(Code::Resolve, error)),
        Err(_) => {
            let limit = humantime::format_duration(limit);
            let error = anyhow!("'{host}' was not resolved within {limit}");
            Err(Failure::new(Code::Timeout, error))
        }
    }
}

fn tell(arguments: &Connect, line: &str) {
    if arguments.json || !arguments.quiet {
        // A closed pipe does not change the answer.
        let _ = data(line);
    }
}
