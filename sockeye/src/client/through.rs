//! A connection through a proxy: connect to the proxy as to anybody, then ask it for the destination ([`crate::hop`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::{ConnectError, Connector, Failure, Report, Target, in_turn};
use crate::addr::Addr;
use crate::hop::{self, Credentials, Destination, Negotiation, OpenError, Protocol, RequestError};
use crate::stream::Stream;

/// A proxy to connect through.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sockeye::client::{Connector, Proxy};
/// use sockeye::hop::Protocol;
///
/// let mut connector = Connector::default();
/// connector.proxy = Some(Proxy::new(Protocol::Socks5, ("proxy.internal", 1080)));
/// let connected = connector.connect(("example.com", 80)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Proxy {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it is.
    pub address: Target,
    /// Who we are to it. Default `None`.
    pub credentials: Option<Credentials>,
    /// Resolve the destination's name here, and ask for its addresses one after the other until the proxy can connect to
    /// one. Default: the proxy resolves it, except with plain SOCKS4, which has no names.
    pub resolve_here: bool,
}

impl Proxy {
    /// A proxy without credentials that resolves names if it can.
    pub fn new(protocol: Protocol, address: impl Into<Target>) -> Self {
        Self {
            protocol,
            address: address.into(),
            credentials: None,
            resolve_here: protocol == Protocol::Socks4,
        }
    }
}

/// What was asked of a proxy.
#[derive(Debug)]
#[non_exhaustive]
pub struct Hop {
    /// In which protocol.
    pub protocol: Protocol,
    /// The proxy's address.
    pub proxy: Addr,
    /// What it was to connect to.
    pub destination: Destination,
    /// When it was asked, since the start of the connect: the connection to the proxy was there.
    pub started_at: Duration,
    /// When it had answered.
    pub ended_at: Option<Duration>,
    /// How it went.
    pub outcome: HopOutcome,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.destination)?;
        match &self.outcome {
            HopOutcome::Open => f.write_str("connected"),
            HopOutcome::Failed(error) => write!(f, "{error}"),
            HopOutcome::Unfinished => f.write_str("no answer yet"),
        }
    }
}

/// What the proxy has to do with a failure, if it was reached; and whether it had.
pub(super) fn fmt_answer(
    error: &ConnectError,
    f: &mut fmt::Formatter<'_>,
) -> Result<bool, fmt::Error> {
    let target = &error.target;
    let [.., Hop { proxy, .. }] = error.report.hops.as_slice() else {
        return Ok(false);
    };
    match error.failure {
        Failure::TimedOut(after) if !error.is_of_proxy() => {
            write!(
                f,
                "the proxy {proxy} did not reach {target} within {after:?}"
            )?;
        }
        Failure::Proxy => {
            write!(f, "no connection to {target} through the proxy {proxy}")?;
            for (index, hop) in error.report.hops.iter().enumerate() {
                f.write_str(if index == 0 { ": " } else { ", " })?;
                match &hop.outcome {
                    // The target was named.
                    HopOutcome::Failed(why)
                        if hop.destination.to_string() == target.to_string() =>
                    {
                        write!(f, "{why}")?;
                    }
                    _ => write!(f, "{hop}")?,
                }
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// What the proxy said.
#[derive(Debug)]
#[non_exhaustive]
pub enum HopOutcome {
    /// It has connected.
    Open,
    /// It has not.
    Failed(OpenError),
    /// The time was up.
    Unfinished,
}

impl Connector {
    /// Asks for each of the destinations, over a connection of its own, until one is reached or the proxy will not.
    pub(super) async fn through(
        &self,
        proxy: &Proxy,
        target: &Target,
        started: Instant,
        report: &mut Report,
    ) -> Result<(Stream, Addr), Failure> {
        for destination in self.destinations(proxy, target).await? {
            let credentials = proxy.credentials.as_ref();
            let begun = Negotiation::begin(proxy.protocol, &destination, credentials);
            let (negotiation, first) = begun.map_err(Failure::Request)?;
            report.is_of_proxy = true;
            let (mut stream, peer) = self.direct(&proxy.address, started, report).await?;
            report.is_of_proxy = false;
            let place = report.hops.len();
            report.hops.push(Hop {
                protocol: proxy.protocol,
                proxy: peer.clone(),
                destination,
                started_at: started.elapsed(),
                ended_at: None,
                outcome: HopOutcome::Unfinished,
            });
            let opened = hop::hold(&mut stream, negotiation, first).await;
            let hop: &mut Hop = &mut report.hops[place];
            hop.ended_at = Some(started.elapsed());
            match opened {
                Ok(()) => {
                    hop.outcome = HopOutcome::Open;
                    return Ok((stream, peer));
                }
                Err(error) => {
                    let is_final = !error.is_temporary();
                    hop.outcome = HopOutcome::Failed(error);
                    if is_final {
                        break;
                    }
                }
            }
        }
        Err(Failure::Proxy)
    }

    /// What to ask for, one or more. The family and the source of the connector are those of the connection to the proxy.
    async fn destinations(
        &self,
        proxy: &Proxy,
        target: &Target,
    ) -> Result<Vec<Destination>, Failure> {
        let found = match target {
            Target::Host(host, port) => match host.parse::<IpAddr>() {
                Ok(ip) => vec![SocketAddr::new(ip, *port)],
                Err(_) if proxy.resolve_here => {
                    let found = self.resolve(host, *port).await;
                    in_turn(found.map_err(Failure::Resolve)?, |_| true)
                }
                Err(_) => return Ok(vec![Destination::Name(host.clone(), *port)]),
            },
            Target::Addresses(known) => in_turn(known.clone(), |_| true),
            Target::Unix(_) => return Err(Failure::Request(RequestError::UnixSocket)),
        };
        if found.is_empty() {
            return Err(Failure::NoUsableAddress);
        }
        let only_ipv4 = matches!(proxy.protocol, Protocol::Socks4 | Protocol::Socks4a);
        let usable = found.iter().filter(|found| found.is_ipv4() || !only_ipv4);
        let usable: Vec<_> = usable.copied().map(Destination::Address).collect();
        if usable.is_empty() {
            return Err(Failure::Request(RequestError::Ipv4Only));
        }
        Ok(usable)
    }
}
