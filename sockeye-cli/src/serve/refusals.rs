//! A flood of refused clients must not become a flood of lines: some are told one by one, the rest in numbers. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sockeye::admission::RefuseReason;

/// Refusals that are told one by one in each [`WINDOW`].
const ONE_BY_ONE: u32 = 20;

/// The rest is told in numbers, once in this time.
const WINDOW: Duration = Duration::from_secs(1);

/// Failures of one kind, told once in a [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Failures {
    told_at: Option<Instant>,
    untold: u64,
}

impl Failures {
    /// One more. How many there were since they were last told, if they are told now.
    pub(super) fn failed(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        let due = self
            .told_at
            .is_none_or(|told| now.saturating_duration_since(told) >= WINDOW);
        due.then(|| {
            self.told_at = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

/// What is told of refusals now, and what was only counted.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    window_began: Option<Instant>,
    told: u32,
    counted: BTreeMap<&'static str, u64>,
}

impl Refusals {
    /// Whether this one is told by itself; if not it is counted.
    pub(super) fn may_tell(&mut self, reason: RefuseReason, now: Instant) -> bool {
        if self.is_over(now) {
            self.window_began = Some(now);
            self.told = 0;
        }
        if self.told < ONE_BY_ONE {
            self.told += 1;
            return true;
        }
        *self.counted.entry(reason.as_str()).or_default() += 1;
        false
    }

    /// What was only counted, if there is any and the window is over, or nobody asks for the time.
    pub(super) fn take(&mut self, now: Option<Instant>) -> Option<BTreeMap<&'static str, u64>> {
        let due = now.is_none_or(|now| self.is_over(now));
        (due && !self.counted.is_empty()).then(|| std::mem::take(&mut self.counted))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.window_began
            .is_none_or(|began| now.saturating_duration_since(began) >= WINDOW)
    }
}
