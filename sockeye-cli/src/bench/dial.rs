//! How a connection is opened: from which address, and with what before the talk.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use sockeye::Stream;
use sockeye::client::{ConnectError, Connector, Failure as Reason, Outcome, Target};

use crate::bench::recorder::Kind;
use crate::exit::{Code, Failure};
use crate::secure::{Secured, Securing};

/// Opens connections to one place.
pub(crate) struct Dialer {
    connector: Connector,
    target: Target,
    securing: Securing,
    sources: Option<IpNet>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    Connect(ConnectError),
    /// The PROXY header or TLS.
    Secure(Failure),
}

impl Dialer {
    pub(crate) fn new(
        target: Target,
        securing: Securing,
        sources: Option<IpNet>,
        timeout: Duration,
    ) -> Self {
        let mut connector = Connector::default();
        connector.timeout = timeout;
        // A peer that is lost is noticed by the time that a message takes.
        connector.options.keepalive = None;
        Self {
            connector,
            target,
            securing,
            sources,
        }
    }

    /// Opens one, with what there is to be said before the talk. `number` chooses among the source addresses.
    pub(crate) async fn dial(&self, number: usize) -> Result<Stream, DialError> {
        let mut secured = Secured::default();
        self.dial_telling(number, &mut secured).await
    }

    async fn dial_telling(
        &self,
        number: usize,
        secured: &mut Secured,
    ) -> Result<Stream, DialError> {
        let connected = match self.source(number) {
            None => self.connector.connect(self.target.clone()).await,
            source => {
                let mut connector = self.connector.clone();
                connector.source = source;
                connector.connect(self.target.clone()).await
            }
        };
        let connected = connected.map_err(DialError::Connect)?;
        let stream = self.securing.secure(connected.stream, secured).await;
        stream.map_err(DialError::Secure)
    }

    /// Opens one and closes it again, to know whether it can be done, and what to say if not; then the name need not be
    /// looked up any more.
    pub(crate) async fn try_once(&mut self, secured: &mut Secured) -> Result<(), DialError> {
        let stream = self.dial_telling(0, secured).await?;
        if let (Target::Host(..), Ok(sockeye::Addr::Tcp(peer))) = (&self.target, stream.peer_addr())
        {
            self.target = peer.into();
        }
        stream.close(Duration::from_secs(1)).await;
        Ok(())
    }

    fn source(&self, number: usize) -> Option<SocketAddr> {
        let net = self.sources?;
        Some(SocketAddr::new(nth_host(net, number), 0))
    }

    /// How many connections there can be at a time, if the ports are what limits it.
    pub(crate) fn ports(&self) -> Option<Ports> {
        if matches!(self.target, Target::Unix(_)) {
            return None;
        }
        let addresses = self.sources.map_or(1, hosts);
        Some(Ports {
            range: port_range().ok()?,
            addresses,
        })
    }
}

/// What the kernel has to make a connection from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ports {
    /// `net.ipv4.ip_local_port_range`.
    range: (u16, u16),
    addresses: u64,
}

impl Ports {
    pub(crate) fn count(&self) -> u64 {
        let each = u64::from(self.range.1) + 1 - u64::from(self.range.0);
        each.saturating_mul(self.addresses)
    }

    /// The arithmetic.
    pub(crate) fn text(&self) -> String {
        let (low, high) = self.range;
        let each = u64::from(high) + 1 - u64::from(low);
        let addresses = match self.addresses {
            1 => "1 source address".to_owned(),
            many => format!("{many} source addresses"),
        };
        format!(
            "{addresses} with {each} ports each (net.ipv4.ip_local_port_range, {low} to {high}) make {} connections to one server at a time",
            self.count()
        )
    }

    pub(crate) const HINT: &'static str = "--source 127.0.0.0/24 spreads them over 254 addresses, --close reset keeps no port after the end";
}

fn port_range() -> io::Result<(u16, u16)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low <= high => Ok((low, high)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The addresses of a network that a host can have.
fn hosts(net: IpNet) -> u64 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    let all = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    match net {
        // The first is the network's own name, the last its broadcast address.
        IpNet::V4(_) if all > 2 => all - 2,
        _ => all,
    }
}

fn nth_host(net: IpNet, number: usize) -> IpAddr {
    let number = number as u64 % hosts(net);
    match net {
        IpNet::V4(v4) => {
            let skipped = u64::from(v4.prefix_len() < 31);
            IpAddr::from((u32::from(v4.network()) + (number + skipped) as u32).to_be_bytes())
        }
        IpNet::V6(v6) => {
            IpAddr::from((u128::from(v6.network()) + u128::from(number)).to_be_bytes())
        }
    }
}

impl DialError {
    pub(crate) fn kind(&self) -> Kind {
        let error = match self {
            Self::Secure(failure) => {
                return Kind::Borrowed(match failure.code {
                    Code::Timeout => "handshake_timeout",
                    Code::Certificate => "certificate",
                    _ => "handshake",
                });
            }
            Self::Connect(error) => error,
        };
        match &error.failure {
            Reason::TimedOut(_) => "connect_timeout".into(),
            Reason::Resolve(_) | Reason::NoUsableAddress => "resolve".into(),
            Reason::Unix(error) => kind_of(error),
            _ => last_error(error).map_or(Kind::Borrowed("connect"), kind_of),
        }
    }
}

fn last_error(error: &ConnectError) -> Option<&io::Error> {
    let outcomes = error.report.attempts.iter().rev();
    outcomes
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        })
        .next()
}

/// A name for what happened to a socket.
pub(crate) fn kind_of(error: &io::Error) -> Kind {
    use io::ErrorKind::{
        AddrInUse, AddrNotAvailable, BrokenPipe, ConnectionRefused, ConnectionReset, TimedOut,
        UnexpectedEof,
    };
    Kind::Borrowed(match error.kind() {
        ConnectionRefused => "refused",
        ConnectionReset | BrokenPipe => "reset",
        UnexpectedEof => "closed",
        TimedOut => "timeout",
        // connect(2): with the first a range of ports is used up, with the second all of it.
        AddrNotAvailable | AddrInUse => "ports_exhausted",
        _ => match error.raw_os_error() {
            Some(libc_emfile) if libc_emfile == EMFILE => "descriptors_exhausted",
            _ => "other",
        },
    })
}

/// Too many open files (errno(3), Linux).
const EMFILE: i32 = 24;
