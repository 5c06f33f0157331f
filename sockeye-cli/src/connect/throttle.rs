//! `--throttle`: how many bytes may move now. A token bucket; pure, but for the wait.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What a burst may have: as much as comes in this time.
const BURST: Duration = Duration::from_millis(100);

/// Fills at a constant rate, to the bytes of 100 ms at most, and to one byte at least.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_s: u64,
    /// In bytes times nanoseconds: whole numbers, so that nothing is lost to rounding however often it is asked.
    filled: u128,
    at: Instant,
}

const NANOS_PER_S: u128 = 1_000_000_000;

impl Throttle {
    /// Empty: the first byte waits, too, so that many short connections move no more than one long one.
    pub(crate) fn new(bytes_per_s: NonZeroU64, now: Instant) -> Self {
        Self {
            bytes_per_s: bytes_per_s.get(),
            filled: 0,
            at: now,
        }
    }

    /// How many of `wanted` bytes, which are not 0, may move now; or when to ask again. It is worth to wait for a whole
    /// burst, or for all that is wanted: else each byte would be moved alone.
    pub(crate) fn grant(&mut self, wanted: usize, now: Instant) -> Result<usize, Instant> {
        self.fill(now);
        let wanted = (wanted as u128).min(self.burst() / NANOS_PER_S).max(1);
        let missing = (wanted * NANOS_PER_S).saturating_sub(self.filled);
        if missing == 0 {
            return Ok(wanted as usize);
        }
        let nanos = missing.div_ceil(u128::from(self.bytes_per_s));
        let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Err(now + wait)
    }

    /// So many bytes have moved, no more than were granted.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_sub(bytes as u128 * NANOS_PER_S);
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let filled = self.filled + passed.as_nanos() * u128::from(self.bytes_per_s);
        self.filled = filled.min(self.burst());
    }

    fn burst(&self) -> u128 {
        (BURST.as_nanos() * u128::from(self.bytes_per_s)).max(NANOS_PER_S)
    }
}

/// Waits until some of `wanted` bytes may move, and says how many; without a throttle all may. Cancel safe.
pub(crate) async fn granted(throttle: &mut Option<Throttle>, wanted: usize) -> usize {
    let Some(throttle) = throttle else {
        return wanted;
    };
    loop {
        match throttle.grant(wanted, Instant::now()) {
            Ok(granted) => return granted,
            Err(then) => sleep_until(then).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(bytes_per_s: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes_per_s).expect("not 0")
    }

    #[test]
    fn ten_kib_per_second_are_1024_bytes_every_tenth_of_a_second() {
        let start = Instant::now();
        let mut throttle = Throttle::new(rate(10 * 1024), start);
        let mut now = start;
        for tenth in 1..=20_u32 {
            now = throttle.grant(1 << 20, now).expect_err("empty");
            assert_eq!(now, start + BURST * tenth);
            assert_eq!(throttle.grant(1 << 20, now), Ok(1024));
            throttle.spend(1024);
        }
        // What was not used in a second is not kept for later.
        now += Duration::from_secs(1);
        assert_eq!(throttle.grant(1 << 20, now), Ok(1024));
        throttle.spend(1024);
        assert_eq!(
            throttle.grant(10, now),
            Err(now + Duration::from_nanos(976_563))
        );
    }

    #[test]
    fn one_byte_per_second_is_one_byte_per_second() {
        let start = Instant::now();
        let mut throttle = Throttle::new(rate(1), start);
        let then = throttle.grant(5, start).expect_err("empty");
        assert_eq!(then, start + Duration::from_secs(1));
        assert_eq!(throttle.grant(5, then), Ok(1));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_no_more_moves_than_the_rate_and_a_burst_and_who_waits_gets_some(
            bytes_per_s in 1..10_000_000_000_u64,
            asked in prop::collection::vec((1..1_000_000_usize, 0..3_000_000_000_u64, 0..=100_u64), 1..50),
        ) {
            let start = Instant::now();
            let mut throttle = Throttle::new(rate(bytes_per_s), start);
            let (mut now, mut moved) = (start, 0_u128);
            for (wanted, later, part) in asked {
                now += Duration::from_nanos(later);
                let granted = match throttle.grant(wanted, now) {
                    Ok(granted) => granted,
                    Err(then) => {
                        prop_assert!(then > now);
                        now = then;
                        throttle.grant(wanted, now).expect("as told")
                    }
                };
                prop_assert!((1..=wanted).contains(&granted));
                let used = granted as u64 * part / 100;
                throttle.spend(used as usize);
                moved += u128::from(used);
                let passed = (now - start).as_nanos();
                prop_assert!(moved * NANOS_PER_S <= passed * u128::from(bytes_per_s));
            }
        }
    }
}
