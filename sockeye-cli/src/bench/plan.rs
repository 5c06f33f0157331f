//! What is to be measured: the same for all threads, decided before the first of them starts.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bench::both_ends::Ends;
use crate::bench::cycle::Cycle;
use crate::bench::dial::Dialer;
use crate::bench::recorder::INTERVAL;
use crate::cli::bench::{Arrivals, Close, Mode};

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) pace: Pace,
    /// Of a message, as it is sent.
    pub(crate) size: usize,
    pub(crate) pipeline: usize,
    pub(crate) warmup: Duration,
    pub(crate) extent: Extent,
    pub(crate) timeout: Duration,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) close: Close,
    pub(crate) verify: bool,
    /// What is sent.
    pub(crate) cycle: Cycle,
    pub(crate) dialer: Arc<Dialer>,
    /// With both ends here, and one message under way on each connection: where the two meet.
    pub(crate) ends: Option<Ends>,
    /// All times are nanoseconds since then.
    pub(crate) origin: Instant,
}

/// Who decides when the next message is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The server.
    Closed,
    /// A schedule.
    Open {
        rate_per_s: f64,
        arrivals: Arrivals,
        seed: u64,
    },
}

/// How long is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    Time(Duration),
    Messages(NonZeroU64),
}

/// What the connections are to do. It only goes forward.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Be opened, and wait.
    Opening,
    /// Send.
    Running(Times),
    /// Send nothing new, wait for what is under way.
    Draining(Times),
    /// Wait for nothing.
    Ended,
}

/// In nanoseconds since the origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Times {
    /// When the schedule begins, and the warm-up.
    pub(crate) start_ns: u64,
    pub(crate) measure_ns: u64,
    /// `u64::MAX` if it is a number of messages that ends it.
    pub(crate) end_ns: u64,
}

impl Times {
    /// Whether a message that is due then counts.
    pub(crate) fn counts(&self, due_ns: u64) -> bool {
        (self.measure_ns..self.end_ns).contains(&due_ns)
    }

    /// When the next piece of the timeline begins after then. One begins with the measured time, whatever the warm-up is.
    pub(crate) fn next_piece_ns(&self, now_ns: u64) -> u64 {
        const PIECE_NS: u64 = INTERVAL.as_nanos() as u64;
        let phase = self.measure_ns % PIECE_NS;
        let since = (now_ns + PIECE_NS - phase) % PIECE_NS;
        now_ns + PIECE_NS - since
    }
}

impl Plan {
    /// How long a connection may live. The first ones end at different times, or all would be opened anew at once.
    pub(crate) fn lifetime_ns(&self, index: usize) -> u64 {
        let Some(lifetime) = self.lifetime else {
            return u64::MAX;
        };
        let share = 0.5 + 0.5 * (index + 1) as f64 / self.connections as f64;
        (lifetime.as_nanos() as f64 * share) as u64
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// How many messages a thread may measure.
    pub(crate) fn share_of(&self, thread: usize) -> u64 {
        let Extent::Messages(all) = self.extent else {
            return u64::MAX;
        };
        let threads = self.threads as u64;
        all.get() / threads + u64::from((thread as u64) < all.get() % threads)
    }
}
