//! How many connections one source may begin in a time. Pure: the clock is passed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::source::Source;

/// How often one source may connect: so many in a time, and so many at once after a rest.
///
/// ```
/// use std::time::Duration;
/// use sockeye::admission::Rate;
///
/// // 10 a second, 20 at once.
/// let rate = Rate { accepts: 10, per: Duration::from_secs(1), burst: 20 };
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Connections, 0 being taken as 1.
    pub accepts: u32,
    /// In this time.
    pub per: Duration,
    /// As many may come at once from a source that was silent; 0 is taken as 1. More is kinder to browsers and to
    /// networks behind one address, and lets an attacker begin with as many.
    pub burst: u32,
}

/// Who has connected how often lately, by source.
///
/// The leaky bucket of "GCRA" (ITU-T I.371): all that is kept of a source is the moment from which its bucket will be
/// empty. A refused attempt changes nothing, so whoever keeps to the rate is let in again however much it has tried before.
///
/// The table is bounded: what has recovered is swept out, and beyond [`RATE_MAX_SOURCES`] sources a new one is let in
/// without a count. Who can use so many addresses is not held by a limit per address; the limit in total holds.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// Between two connections at the steady rate.
    interval: Duration,
    /// How far ahead of the steady rate a source may be.
    tolerance: Duration,
    empty_at: HashMap<Source, Instant>,
    /// The size of the table at which it is swept next, and the moment before which it is not.
    sweep_at: usize,
    sweep_after: Option<Instant>,
}

/// Sources that the rate limit knows at a time; each costs about 30 bytes.
pub const RATE_MAX_SOURCES: usize = 262_144;

/// The first sweep; later ones wait until the table has doubled, so that sweeping costs a constant per connection.
const FIRST_SWEEP: usize = 1024;

/// A table that is full of sources which have not recovered must not be swept for each of them.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

impl RateLimiter {
    pub(crate) fn new(rate: Rate) -> Self {
        let interval = rate.per / rate.accepts.max(1);
        Self {
            interval,
            tolerance: interval.saturating_mul(rate.burst.max(1) - 1),
            empty_at: HashMap::new(),
            sweep_at: FIRST_SWEEP,
            sweep_after: None,
        }
    }

    /// Whether a connection from this source is within the rate; if so it is counted.
    pub(crate) fn lets_in(&mut self, source: Source, now: Instant) -> bool {
        if self.empty_at.len() >= self.sweep_at && self.sweep_after.is_none_or(|at| now >= at) {
            self.empty_at.retain(|_, empty_at| *empty_at > now);
            self.sweep_at = (self.empty_at.len() * 2).clamp(FIRST_SWEEP, RATE_MAX_SOURCES);
            self.sweep_after = now.checked_add(BETWEEN_SWEEPS);
        }
        let empty_at = self.empty_at.get(&source).map_or(now, |at| (*at).max(now));
        if empty_at.saturating_duration_since(now) > self.tolerance {
            return false;
        }
        if self.empty_at.len() < RATE_MAX_SOURCES || self.empty_at.contains_key(&source) {
            // A moment past the end of the clock would be a rate of less than one in 500 years.
            let next = empty_at.checked_add(self.interval).unwrap_or(empty_at);
            self.empty_at.insert(source, next);
        }
        true
    }

    /// Sources in the table.
    pub(crate) fn sources(&self) -> usize {
        self.empty_at.len()
    }
}
