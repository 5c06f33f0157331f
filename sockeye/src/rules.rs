//! Who is let in by address: networks that are allowed or denied, the most specific one deciding. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Which clients are let in, by their IP address.
///
/// The most specific rule that holds an address decides; where the same network is both allowed and denied, it is denied.
/// An address that no rule holds is let in, unless somebody was allowed ([`Rules::allow`], [`Rules::allow_listed_only`]):
/// to allow some is to deny the others. Clients of a Unix socket have no address and are always let in.
///
/// An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is the IPv4 address that it holds, in rules and in clients, so
/// `::/0` is every IPv6 client and no IPv4 client.
///
/// ```
/// use sockeye::rules::Rules;
///
/// let mut rules = Rules::default();
/// rules.allow("10.0.0.0/8".parse()?);
/// rules.deny("10.1.0.0/16".parse()?);
/// assert!(rules.lets_in("10.2.3.4".parse()?));
/// assert!(!rules.lets_in("10.1.2.3".parse()?));
/// assert!(!rules.lets_in("192.0.2.1".parse()?), "somebody else is allowed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    verdicts: HashMap<Network, Verdict>,
    /// The prefix lengths in use, longest first: a lookup costs one step for each.
    v4_lengths: Vec<u8>,
    v6_lengths: Vec<u8>,
    listed_only: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Allow,
    Deny,
}

impl Rules {
    /// Lets clients of this network in, and of the addresses that no rule holds nobody any more.
    pub fn allow(&mut self, network: Network) {
        self.listed_only = true;
        self.set_length(network);
        self.verdicts.entry(network).or_insert(Verdict::Allow);
    }

    /// Refuses clients of this network.
    pub fn deny(&mut self, network: Network) {
        self.set_length(network);
        self.verdicts.insert(network, Verdict::Deny);
    }

    /// Lets in only who is allowed, also if that is nobody: a list of friends that is empty must not open the door.
    pub fn allow_listed_only(&mut self) {
        self.listed_only = true;
    }

    /// Whether a client with this address is let in.
    pub fn lets_in(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let lengths = match ip {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        let verdict = lengths
            .iter()
            .filter_map(|length| IpNet::new(ip, *length).ok())
            .find_map(|network| self.verdicts.get(&Network(network.trunc())));
        match verdict {
            Some(verdict) => *verdict == Verdict::Allow,
            None => !self.listed_only,
        }
    }

    /// How many networks there are rules for.
    pub fn len(&self) -> usize {
        self.verdicts.len()
    }

    /// Whether there is no rule. (If only the listed are allowed, nobody is.)
    pub fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }

    fn set_length(&mut self, network: Network) {
        let lengths = match network.0 {
            IpNet::V4(_) => &mut self.v4_lengths,
            IpNet::V6(_) => &mut self.v6_lengths,
        };
        let length = network.0.prefix_len();
        if let Err(at) = lengths.binary_search_by(|other| length.cmp(other)) {
            lengths.insert(at, length);
        }
    }
}

/// A set of addresses that begin alike: `192.0.2.0/24`, `2001:db8::/32`, or a single address, which is a /32 or a /128.
///
/// Bits after the prefix must be 0: whoever writes `10.1.2.3/8` may have meant one address, and would get 16 million. An
/// IPv4-mapped network, `::ffff:192.0.2.0/120`, is the IPv4 network that it holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is in the network; an IPv4-mapped one counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl fmt::Display for Network {
    /// In the form that it is read in: an address alone where it is only one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        Self(ip.to_canonical().into())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let Some((ip, length)) = text.split_once('/') else {
            return Ok(text
                .parse::<IpAddr>()
                .map_err(|_| NetworkError::NoAddress)?
                .into());
        };
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError::NoAddress)?;
        // `parse` would take a sign.
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse::<u8>().ok().filter(|_| digits);
        let network = length.and_then(|length| IpNet::new(ip, length).ok());
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let network = network.ok_or(NetworkError::Prefix { most })?;
        if network.trunc() != network {
            return Err(NetworkError::HostBits {
                network: Self(network.trunc()),
                address: ip,
            });
        }
        let IpNet::V6(v6) = network else {
            return Ok(Self(network));
        };
        let v4 = v6.addr().to_ipv4_mapped();
        let v4 = v4.and_then(|ip| IpNet::new(ip.into(), v6.prefix_len().checked_sub(96)?).ok());
        Ok(Self(v4.unwrap_or(network)))
    }
}

/// A text is no network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// What stands before the prefix length, or alone, is no IP address.
    #[error("not an IP address or a network such as 192.0.2.0/24")]
    NoAddress,
    /// The prefix length is no number, or too large.
    #[error("the prefix length is not a number from 0 to {most}")]
    Prefix {
        /// The largest for this family.
        most: u8,
    },
    /// There are bits after the prefix.
    #[error("{address} has bits after the prefix: write {network} or {address}")]
    HostBits {
        /// The network without them.
        network: Network,
        /// The address as it was written.
        address: IpAddr,
    },
}

/// Reads a list of networks: one a line; what follows a `#` is a comment; empty lines mean nothing. At most
/// [`LIST_MAX_NETWORKS`].
pub fn parse_list(text: &str) -> Result<Vec<Network>, ListError> {
    let mut networks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let written = line.split('#').next().unwrap_or_default().trim();
        if written.is_empty() {
            continue;
        }
        if networks.len() == LIST_MAX_NETWORKS {
            return Err(ListError::TooLong);
        }
        networks.push(written.parse().map_err(|error| {
            ListError::Line {
                line: line_number,
                written: written
                    .chars()
                    .take(50)
                    .flat_map(char::escape_default)
                    .collect(),
                error,
            }
        })?);
    }
    Ok(networks)
}

/// Networks in one list: enough for the large public block lists; about 100 MB of memory when it is used up.
pub const LIST_MAX_NETWORKS: usize = 1_000_000;

/// A list of networks cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// A line is no network.
    #[error("line {line}: '{written}': {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The first 50 characters of it, escaped.
        written: String,
        /// What is wrong with it.
        error: NetworkError,
    },
    /// It has more than [`LIST_MAX_NETWORKS`].
    #[error("more than {LIST_MAX_NETWORKS} networks")]
    TooLong,
}

/// Who may speak for others: from these sources a PROXY header is required, from all others it is forbidden, for
/// whoever is believed without being trusted can claim to be anybody. Never guessed from what a connection sends.
///
/// A trusted proxy is the user's own, so its address is held against no rule and no limit per source; they look at the
/// client that its header declares. A header without a client (`LOCAL`: the proxy's own health check, `UNKNOWN`) lets the
/// proxy itself in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<Network>,
    /// Whether clients of Unix sockets are trusted. Default `false`.
    pub unix: bool,
    /// Whether everybody else is refused. By default they are not: others are served as the clients that they are, and bytes that look
    /// like a header are bytes like any others.
    pub only: bool,
}

impl TrustedProxies {
    /// `None` is a client of a Unix socket.
    pub(crate) fn trust(&self, ip: Option<IpAddr>) -> bool {
        match ip {
            Some(ip) => self.networks.iter().any(|network| network.contains(ip)),
            None => self.unix,
        }
    }
}
