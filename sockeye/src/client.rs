//! The connect side: from a name to a connected [`Stream`], or to an error that says what was tried.
//!
//! The name is resolved, and its addresses raced as RFC 8305 ("Happy Eyeballs") has it: IPv6 and IPv4 in turn, the
//! next one 250 ms after the last or as soon as that has failed, and the first to connect wins. With a [`Proxy`] that is
//! done with the proxy's name, and then the proxy is asked for the target.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::addr::Addr;
use crate::listener::{SocketOptions, set_tcp_options};
use crate::stream::Stream;
use crate::sys;

mod error;
mod through;

pub use error::{ConnectError, Failure};
pub use through::{Hop, HopOutcome, Proxy};

/// Connects with default settings: see [`Connector`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let connected = sockeye::client::connect(("example.com", 80)).await?;
/// println!("connected to {}", connected.peer);
/// # Ok(()) }
/// ```
pub async fn connect(target: impl Into<Target>) -> Result<Connected, ConnectError> {
    Connector::default().connect(target).await
}

/// What to connect to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// A name or an IP address, and a port.
    Host(String, u16),
    /// Addresses that are known already, the preferred one first.
    Addresses(Vec<SocketAddr>),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Addresses(addresses) => {
                for (index, address) in addresses.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    address.fmt(f)?;
                }
                Ok(())
            }
            Self::Unix(path) => Addr::Unix(Some(path.as_path().into())).fmt(f),
        }
    }
}

impl<H: Into<String>> From<(H, u16)> for Target {
    fn from((host, port): (H, u16)) -> Self {
        Self::Host(host.into(), port)
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Addresses(vec![address])
    }
}

/// Which addresses of a name to use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

/// How to connect. Clones share the bound on lookups in progress.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use sockeye::client::{Connector, Family};
///
/// let mut connector = Connector::default();
/// connector.timeout = Duration::from_secs(3);
/// connector.family = Some(Family::V4);
/// let connected = connector.connect(("example.com", 80)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connector {
    /// For the lookup, all addresses and the proxy together. Default 10 s: three SYNs are lost before it ends.
    pub timeout: Duration,
    /// From the start of one attempt to that of the next. Default 250 ms (RFC 8305, section 8).
    pub attempt_delay: Duration,
    /// Default `None`: both.
    pub family: Option<Family>,
    /// The address, and the port if it is not 0, to connect from; only addresses of its family are tried. Default
    /// `None`: the kernel chooses. With port 0 one local port can serve many destinations
    /// (`IP_BIND_ADDRESS_NO_PORT`).
    pub source: Option<SocketAddr>,
    /// Options of the socket; its backlog means nothing here.
    pub options: SocketOptions,
    /// What to connect through. Family, source and options are then those of the connection to the proxy. Default `None`.
    pub proxy: Option<Proxy>,
    lookups: Arc<Semaphore>,
}

/// Lookups in progress per connector: each keeps a thread busy for as long as the resolver wants, deadline or not.
const MAX_LOOKUPS: usize = 16;

/// A full listen queue of a Unix socket is not waited for by the kernel; it is asked again this often.
const UNIX_RETRY: Duration = Duration::from_millis(10);

impl Default for Connector {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            attempt_delay: Duration::from_millis(250),
            family: None,
            source: None,
            options: SocketOptions::default(),
            proxy: None,
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

impl Connector {
    /// Connects. Cancel safe: dropped, it closes every socket that it has opened.
    ///
    /// A lookup that was begun goes on in its thread, for getaddrinfo(3) cannot be stopped; a runtime that is shut
    /// down waits for it.
    pub async fn connect(&self, target: impl Into<Target>) -> Result<Connected, ConnectError> {
        let target = target.into();
        let started = Instant::now();
        let mut report = Report::default();
        let connecting = async {
            match &self.proxy {
                None => self.direct(&target, started, &mut report).await,
                Some(proxy) => self.through(proxy, &target, started, &mut report).await,
            }
        };
        let failure = match tokio::time::timeout(self.timeout, connecting).await {
            Ok(Ok((stream, peer))) => {
                return Ok(Connected {
                    stream,
                    peer,
                    report,
                });
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::TimedOut(self.timeout),
        };
        Err(ConnectError {
            target,
            proxy: self.proxy.as_ref().map(|proxy| proxy.address.clone()),
            failure,
            report,
        })
    }

    async fn direct(
        &self,
        target: &Target,
        started: Instant,
        report: &mut Report,
    ) -> Result<(Stream, Addr), Failure> {
        match target {
            Target::Host(host, port) => {
                let found = match host.parse::<IpAddr>() {
                    Ok(ip) => vec![SocketAddr::new(ip, *port)],
                    Err(_) => {
                        let found = self.resolve(host, *port).await;
                        report.resolved_in = Some(started.elapsed());
                        found.map_err(Failure::Resolve)?
                    }
                };
                self.tcp(found, started, report).await
            }
            Target::Addresses(known) => self.tcp(known.clone(), started, report).await,
            Target::Unix(path) => unix(path).await,
        }
    }

    async fn tcp(
        &self,
        found: Vec<SocketAddr>,
        started: Instant,
        report: &mut Report,
    ) -> Result<(Stream, Addr), Failure> {
        report.addresses = in_turn(found, |address| self.may_use(address.ip()));
        if report.addresses.is_empty() {
            return Err(Failure::NoUsableAddress);
        }
        self.race(started, report).await
    }

    fn may_use(&self, ip: IpAddr) -> bool {
        self.family.is_none_or(|family| family.has(ip))
            && self.source.is_none_or(|s| s.is_ipv4() == ip.is_ipv4())
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let lookups = Arc::clone(&self.lookups);
        let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, not only until somebody stops waiting for it.
            let _permit = permit;
            (host.as_str(), port)
                .to_socket_addrs()
                .map(|found| found.collect())
        });
        lookup.await.map_err(io::Error::other)?
    }

    /// RFC 8305, section 5.
    async fn race(&self, started: Instant, report: &mut Report) -> Result<(Stream, Addr), Failure> {
        let Report {
            addresses,
            attempts,
            ..
        } = report;
        let mut waiting = addresses.iter().copied();
        let mut running = FuturesUnordered::new();
        let mut next_start = Box::pin(tokio::time::sleep(self.attempt_delay));
        // Not a timer of no length: those end with the next tick of the clock, and that is a millisecond lost.
        let mut start_now = true;
        loop {
            tokio::select! {
                biased;
                Some((index, result)) = running.next() => {
                    let attempt: &mut Attempt = &mut attempts[index];
                    attempt.ended_at = Some(started.elapsed());
                    match result {
                        Ok(stream) => {
                            attempt.outcome = Outcome::Connected;
                            return Ok((Stream::Tcp(stream), attempt.address.into()));
                        }
                        Err(error) => attempt.outcome = Outcome::Failed(error),
                    }
                    start_now = true;
                }
                () = async { if !start_now { next_start.as_mut().await } }, if waiting.len() > 0 => {
                    start_now = false;
                    let Some(address) = waiting.next() else { continue };
                    let index = attempts.len();
                    attempts.push(Attempt {
                        address,
                        started_at: started.elapsed(),
                        ended_at: None,
                        outcome: Outcome::Unfinished,
                    });
                    running.push(async move { (index, self.attempt(address).await) });
                    next_start.set(tokio::time::sleep(self.attempt_delay));
                }
                else => return Err(Failure::AllFailed),
            }
        }
    }

    async fn attempt(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        set_tcp_options(&socket, &self.options)?;
        if let Some(source) = self.source {
            if source.port() == 0 {
                sys::bind_address_no_port(socket.as_fd())?;
            }
            socket.bind(&source.into())?;
        }
        let stream = TcpSocket::from_std_stream(socket.into())
            .connect(address)
            .await?;
        // Two SYNs that cross open a connection, too (RFC 9293, section 3.5), and a port that the kernel chose for us may
        // be the very one that we ask for: then they are both ours, and nobody listens.
        if stream.local_addr()? == stream.peer_addr()? {
            Stream::Tcp(stream).abort();
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }
}

/// A connection, and how it came about.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// Connected.
    pub stream: Stream,
    /// The address that won: the proxy's, if there is one.
    pub peer: Addr,
    /// What was tried.
    pub report: Report,
}

/// What was tried, in order. Times are since the start of the connect.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// When the lookup ended; `None` if it did not, or there was nothing to look up.
    pub resolved_in: Option<Duration>,
    /// The usable addresses, in the order of trying: the proxy's, if there is one.
    pub addresses: Vec<SocketAddr>,
    /// The attempts that were begun.
    pub attempts: Vec<Attempt>,
    /// What the proxy was asked for, in order; empty without one.
    pub hops: Vec<Hop>,
    /// What is being connected to is the proxy.
    is_of_proxy: bool,
}

/// An attempt at one address.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The address.
    pub address: SocketAddr,
    /// When it was begun.
    pub started_at: Duration,
    /// When it was decided.
    pub ended_at: Option<Duration>,
    /// How it went.
    pub outcome: Outcome,
}

/// How an attempt went.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It won.
    Connected,
    /// The kernel or the peer said no.
    Failed(io::Error),
    /// Another one won, or the time was up.
    Unfinished,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.address)?;
        self.fmt_outcome(f)
    }
}

impl Attempt {
    fn fmt_outcome(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Connected => f.write_str("connected"),
            Outcome::Failed(error) => fmt::Display::fmt(error, f),
            Outcome::Unfinished => f.write_str("no answer yet"),
        }
    }
}

/// The usable addresses, each once, families in turn, beginning with that of the first (RFC 8305, section 4). Within a
/// family the resolver's order is kept (RFC 6724).
fn in_turn(found: Vec<SocketAddr>, usable: impl Fn(&SocketAddr) -> bool) -> Vec<SocketAddr> {
    let mut seen = HashSet::new();
    let found: Vec<_> = found
        .into_iter()
        .filter(|address| usable(address) && seen.insert(*address))
        .collect();
    let Some(first) = found.first().copied() else {
        return found;
    };
    let (leading, other): (Vec<SocketAddr>, Vec<SocketAddr>) = found
        .iter()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut ordered = Vec::with_capacity(found.len());
    let (mut leading, mut other) = (leading.into_iter(), other.into_iter());
    while ordered.len() < found.len() {
        ordered.extend(leading.next());
        ordered.extend(other.next());
    }
    ordered
}

async fn unix(path: &Path) -> Result<(Stream, Addr), Failure> {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok((Stream::Unix(stream), Addr::Unix(Some(path.into())))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(UNIX_RETRY).await;
            }
            Err(error) => return Err(Failure::Unix(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_alternate_between_families_each_once_in_the_resolvers_order() {
        let all = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|t| t.parse().expect("valid")).collect()
        };
        let found = all(&[
            "[::1]:1",
            "[::2]:1",
            "[::1]:1",
            "1.1.1.1:1",
            "[::3]:1",
            "2.2.2.2:1",
        ]);
        let ordered = in_turn(found.clone(), |_| true);
        let expected = all(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(ordered, expected);
        assert_eq!(
            in_turn(found, |a| a.is_ipv4()),
            all(&["1.1.1.1:1", "2.2.2.2:1"])
        );
        assert_eq!(in_turn(Vec::new(), |_| true), []);
    }
}
