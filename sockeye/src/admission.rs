//! May one more connection come in? Pure: the clock and the source are passed in, nothing is waited for.
//!
//! Two limits, two answers. At the **global** limit the server does not accept at all: the kernel's listen queue
//! holds the clients, and they are served when others leave. At the **per-source** limit it accepts and closes at
//! once: leaving one greedy source in the queue would hold up everyone behind it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many connections a server holds at once.
///
/// ```
/// use sockeye::admission::{Limits, PerSource};
///
/// let limits = Limits { max_connections: Some(500), per_source: PerSource::AtMost(20) };
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Open connections over all listeners and workers. At the limit, accepting is deferred.
    ///
    /// `None`, the default, takes what the process's descriptor limit allows, less a reserve for everything
    /// else that the process opens: see [`default_max_connections`].
    pub max_connections: Option<usize>,
    /// Open connections from one source. At the limit, a connection is accepted and closed at once.
    pub per_source: PerSource,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            per_source: PerSource::RemoteAtMost(DEFAULT_PER_SOURCE),
        }
    }
}

/// The limit for one source: an IPv4 address, or the /64 network of an IPv6 address, which is what one
/// subscriber usually gets (RFC 6177) and can choose addresses in at will. All link-local IPv6 clients are one source.
///
/// Clients of a Unix socket have no source and are never limited by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PerSource {
    /// No limit.
    Unlimited,
    /// At most so many from every source, loopback included.
    AtMost(usize),
    /// At most so many from every source but loopback, which has no limit. The default, with
    /// [`DEFAULT_PER_SOURCE`].
    RemoteAtMost(usize),
}

impl PerSource {
    fn limit_for(self, source: IpAddr) -> Option<usize> {
        match self {
            Self::Unlimited => None,
            Self::AtMost(limit) => Some(limit),
            Self::RemoteAtMost(_) if source.is_loopback() => None,
            Self::RemoteAtMost(limit) => Some(limit),
        }
    }
}

/// Connections from one remote source: enough for a large office behind one address, too few for one machine to
/// take a server of 10,000 connections for itself.
pub const DEFAULT_PER_SOURCE: usize = 1_000;

/// Connections when the descriptor limit is not known.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;

/// The connections that a descriptor limit allows: the limit less a reserve of 32 and 8 for each worker (its
/// listener, its epoll and wake-up descriptors), but never less than half of it, and never more than
/// [`MOST_BY_DEFAULT`].
pub fn default_max_connections(descriptor_limit: Option<u64>, workers: usize) -> usize {
    let Some(limit) = descriptor_limit else {
        return DEFAULT_MAX_CONNECTIONS;
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let reserve = workers.saturating_mul(8).saturating_add(32).min(limit / 2);
    (limit - reserve).min(MOST_BY_DEFAULT)
}

/// Connections by default however large the descriptor limit is: in containers it can be a billion, which is no bound.
pub const MOST_BY_DEFAULT: usize = 1_000_000;

/// Why a connection was accepted and closed at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RefuseReason {
    /// Its source holds as many connections as [`Limits::per_source`] allows.
    PerSource,
}

impl RefuseReason {
    /// The name in events: `per_source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PerSource => "per_source",
        }
    }
}

/// The state of admission: what is open now, in total and by source.
///
/// The server asks in two steps, for a connection has no source before it is accepted: [`reserve`](Self::reserve)
/// before the accept, [`decide`](Self::decide) after it. Each reservation and each admitted connection is given
/// back by [`release`](Self::release).
#[derive(Debug)]
pub struct Admission {
    max_connections: usize,
    per_source: PerSource,
    held: usize,
    by_source: HashMap<Source, usize>,
    deferring_since: Option<Instant>,
    deferrals: u64,
    deferred: Duration,
}

impl Admission {
    /// Nothing open. `max_connections` must be at least 1, and is taken as 1 if it is not.
    pub fn new(max_connections: usize, per_source: PerSource) -> Self {
        Self {
            max_connections: max_connections.max(1),
            per_source,
            held: 0,
            by_source: HashMap::new(),
            deferring_since: None,
            deferrals: 0,
            deferred: Duration::ZERO,
        }
    }

    /// Takes a place under the global limit, or says that there is none: then do not accept.
    pub fn reserve(&mut self, now: Instant) -> bool {
        if self.held >= self.max_connections {
            if self.deferring_since.is_none() {
                self.deferring_since = Some(now);
                self.deferrals += 1;
            }
            return false;
        }
        self.held += 1;
        if let Some(since) = self.deferring_since.take() {
            self.deferred += now.saturating_duration_since(since);
        }
        true
    }

    /// Decides about a connection that was accepted on a reserved place. Refusing leaves the place reserved.
    ///
    /// `ip` is `None` for a Unix socket.
    pub fn decide(&mut self, ip: Option<IpAddr>) -> Result<Option<Source>, RefuseReason> {
        let Some(ip) = ip.map(|ip| ip.to_canonical()) else {
            return Ok(None);
        };
        let Some(limit) = self.per_source.limit_for(ip) else {
            return Ok(None);
        };
        let source = Source::of(ip);
        let open = self.by_source.get(&source).copied().unwrap_or(0);
        if open >= limit {
            return Err(RefuseReason::PerSource);
        }
        self.by_source.insert(source, open + 1);
        Ok(Some(source))
    }

    /// Gives back a reserved place, and with it what [`decide`](Self::decide) counted for its source.
    pub fn release(&mut self, source: Option<Source>) {
        self.held = self.held.saturating_sub(1);
        let Some(source) = source else { return };
        if let Some(open) = self.by_source.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// Whether [`reserve`](Self::reserve) would find a place.
    pub fn has_room(&self) -> bool {
        self.held < self.max_connections
    }

    /// Whether the global limit stops the accepting now.
    pub fn is_deferring(&self) -> bool {
        self.deferring_since.is_some()
    }

    /// How often the global limit stopped the accepting, and for how long in sum until `now`.
    pub fn deferrals(&self, now: Instant) -> (u64, Duration) {
        let running = self
            .deferring_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (self.deferrals, self.deferred + running)
    }

    /// Sources counted now: the size of the table, which never outgrows the connections that are open.
    pub fn sources(&self) -> usize {
        self.by_source.len()
    }
}

/// What the per-source limit counts by: see [`PerSource`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Source(u64);

impl Source {
    /// The source that an address belongs to.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // No IPv6 /64 in use begins with 32 zero bits and is not this: ::/32 is reserved (RFC 4291).
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits())),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}
