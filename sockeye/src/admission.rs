//! May one more connection come in? Pure: the clock, the source and chance are passed in, nothing is waited for.
//!
//! Two kinds of limits, two answers. At the **global** limit the server does not accept at all: the kernel's listen
//! queue holds the clients, and they are served when others leave. Whoever a **rule** or a limit of its **source** keeps
//! out is accepted and closed at once: leaving one greedy source in the queue would hold up everyone behind it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::rate::RateLimiter;
pub use crate::rate::{RATE_MAX_SOURCES, Rate};
use crate::rules::Rules;
pub use crate::source::Source;

/// How many connections a server holds at once.
///
/// ```
/// use sockeye::admission::{Limits, PerSource};
///
/// let limits = Limits {
///     max_connections: Some(500),
///     per_source: PerSource::AtMost(20),
///     ..Limits::default()
/// };
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
    /// New connections from one source in a time, loopback included. Beyond it a connection is accepted and closed at
    /// once. Default `None`: no limit, for what is too fast depends on the service.
    pub rate: Option<Rate>,
    /// Connections before their PROXY header and TLS handshake are done. Default `None`: [`Handshakes::for_limit`] of
    /// `max_connections`.
    pub handshakes: Option<Handshakes>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            per_source: PerSource::RemoteAtMost(DEFAULT_PER_SOURCE),
            rate: None,
            handshakes: None,
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

/// How many connections may be in their handshake, that is before the PROXY header is read and TLS agreed, and who is
/// turned away when they are many.
///
/// A client that begins a handshake and does not go on holds a place until the deadline. When many do, to refuse each new
/// one would be to serve the attacker's and nobody else's: he always has the next one ready. So beyond `start` a new
/// connection is refused by chance, and whoever tries a few times gets in (OpenSSH's `MaxStartups`, sshd_config(5)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Handshakes {
    /// With so many in progress refusal begins.
    pub start: usize,
    /// The chance of it there, in percent; it grows evenly to 100 at `full`.
    pub percent: u8,
    /// With so many in progress every new one is refused.
    pub full: usize,
}

impl Handshakes {
    /// At most so many, and none refused before.
    pub fn at_most(full: usize) -> Self {
        Self {
            start: full,
            percent: 100,
            full,
        }
    }

    /// The default: 4,096, or `max_connections` where that is less; from half of it on refusal begins, at 30 percent. A
    /// server of fewer than 128 connections refuses nobody early: a small burst is no attack.
    pub fn for_limit(max_connections: usize) -> Self {
        let full = max_connections.min(4096);
        if full < 128 {
            return Self::at_most(full);
        }
        Self {
            start: full / 2,
            percent: 30,
            full,
        }
    }

    /// The chance that one more is refused, from 0 to 1.
    fn refusal(&self, in_progress: usize) -> f64 {
        if in_progress >= self.full {
            return 1.0;
        }
        let Some(beyond) = in_progress.checked_sub(self.start) else {
            return 0.0;
        };
        let first = f64::from(self.percent.min(100)) / 100.0;
        let way = beyond as f64 / (self.full - self.start) as f64;
        first + (1.0 - first) * way
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

/// Why a connection was accepted and not served.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RefuseReason {
    /// A rule keeps its address out ([`Rules`]).
    Denied,
    /// It does not come from a trusted proxy, and only those are served
    /// ([`TrustedProxies::only`](crate::rules::TrustedProxies::only)).
    NoProxy,
    /// Its source connects more often than [`Limits::rate`] allows.
    Rate,
    /// Its source holds as many connections as [`Limits::per_source`] allows.
    PerSource,
    /// Too many handshakes are in progress ([`Limits::handshakes`]).
    Handshakes,
}

impl RefuseReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Denied,
        Self::NoProxy,
        Self::Rate,
        Self::PerSource,
        Self::Handshakes,
    ];

    /// The name in events: `denied`, `no_proxy`, `rate`, `per_source`, `handshakes`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NoProxy => "no_proxy",
            Self::Rate => "rate",
            Self::PerSource => "per_source",
            Self::Handshakes => "handshakes",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for RefuseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of admission: what is open now, in total and by source.
///
/// The server asks in steps, for a connection has no source before it is accepted: [`reserve`](Self::reserve)
/// before the accept, [`decide`](Self::decide) once the client is known, [`begin_handshake`](Self::begin_handshake) if
/// there is one. Each reservation and each admitted connection is given back by [`release`](Self::release), each
/// handshake by [`end_handshake`](Self::end_handshake).
#[derive(Debug)]
pub struct Admission {
    max_connections: usize,
    per_source: PerSource,
    handshakes: Handshakes,
    held: usize,
    in_handshake: usize,
    by_source: HashMap<Source, usize>,
    rate: Option<RateLimiter>,
    deferring_since: Option<Instant>,
    deferrals: u64,
    deferred: Duration,
}

impl Admission {
    /// Nothing open. `max_connections`, which takes the place of that in `limits`, must be at least 1, and is taken as 1
    /// if it is not.
    pub fn new(max_connections: usize, limits: &Limits) -> Self {
        let max_connections = max_connections.max(1);
        Self {
            max_connections,
            per_source: limits.per_source,
            handshakes: limits
                .handshakes
                .unwrap_or_else(|| Handshakes::for_limit(max_connections)),
            held: 0,
            in_handshake: 0,
            by_source: HashMap::new(),
            rate: limits.rate.map(RateLimiter::new),
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

    /// Decides about a client that was accepted on a reserved place, by the rules, then the rate, then what its source
    /// holds already. Refusing leaves the place reserved.
    ///
    /// `ip` is `None` for a Unix socket.
    pub fn decide(
        &mut self,
        rules: &Rules,
        ip: Option<IpAddr>,
        now: Instant,
    ) -> Result<Option<Source>, RefuseReason> {
        let Some(ip) = ip.map(|ip| ip.to_canonical()) else {
            return Ok(None);
        };
        if !rules.lets_in(ip) {
            return Err(RefuseReason::Denied);
        }
        let source = Source::of(ip);
        if let Some(rate) = &mut self.rate
            && !rate.lets_in(source, now)
        {
            return Err(RefuseReason::Rate);
        }
        let Some(limit) = self.per_source.limit_for(ip) else {
            return Ok(None);
        };
        let open = self.by_source.get(&source).copied().unwrap_or(0);
        if open >= limit {
            return Err(RefuseReason::PerSource);
        }
        self.by_source.insert(source, open + 1);
        Ok(Some(source))
    }

    /// Takes a place among the handshakes in progress, or refuses the connection. `random` is from 0 to below 1, each
    /// number as likely as any other; it is only asked for when it decides.
    pub fn begin_handshake(&mut self, random: impl FnOnce() -> f64) -> Result<(), RefuseReason> {
        let refusal = self.handshakes.refusal(self.in_handshake);
        if refusal > 0.0 && random() < refusal {
            return Err(RefuseReason::Handshakes);
        }
        self.in_handshake += 1;
        Ok(())
    }

    /// A handshake is over, well or not.
    pub fn end_handshake(&mut self) {
        self.in_handshake = self.in_handshake.saturating_sub(1);
    }

    /// Handshakes in progress.
    pub fn handshakes(&self) -> usize {
        self.in_handshake
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

    /// Sources that the rate limit knows: those that have not recovered, and some that have; at most
    /// [`RATE_MAX_SOURCES`].
    pub fn rated_sources(&self) -> usize {
        self.rate.as_ref().map_or(0, RateLimiter::sources)
    }
}
