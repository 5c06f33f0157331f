//! When a message is due. Pure: a schedule is fixed before the first message, and nothing that happens moves it.

use std::ops::Range;

use crate::cli::bench::Arrivals;

/// The instants at which one connection is to send, since the start.
///
/// Each connection has its own: N constant ones of a rate R/N, each a step later than the one before, are together constant
/// at R; N independent Poisson processes of R/N are together one of R. So nothing has to be shared, and a message that is
/// late waits for its own connection and for no other.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    period_ns: f64,
    arrivals: Arrivals,
    random: fastrand::Rng,
    /// Of the constant schedule, which is counted and not summed: sums drift.
    index: u64,
    first_ns: f64,
    due_ns: f64,
}

/// One connection of several on the same schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) of: usize,
}

impl Schedule {
    /// `rate` is that of all connections together.
    pub(crate) fn new(rate_per_s: f64, arrivals: Arrivals, place: Place, seed: u64) -> Self {
        let period_ns = 1e9 * place.of as f64 / rate_per_s;
        // Neighbouring seeds must not give similar sequences, and this generator's do in their first values.
        let mut random = fastrand::Rng::with_seed(seed ^ splitmix(place.index as u64));
        let first_ns = match arrivals {
            Arrivals::Constant => 1e9 * place.index as f64 / rate_per_s,
            Arrivals::Poisson => exponential(&mut random, period_ns),
        };
        Self {
            period_ns,
            arrivals,
            random,
            index: 0,
            first_ns,
            due_ns: first_ns,
        }
    }

    /// When the next message is due, in nanoseconds since the start.
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns as u64
    }

    /// Of a constant schedule: on to the first message that is due then or later.
    fn skip_to(&mut self, ns: u64) {
        let periods = (ns as f64 - self.first_ns) / self.period_ns;
        // One before, for a quotient may be rounded up; a negative one becomes 0.
        self.index = (periods as u64).saturating_sub(1);
        self.due_ns = self.first_ns + self.index as f64 * self.period_ns;
        while self.due_ns() < ns {
            self.advance();
        }
    }

    pub(crate) fn advance(&mut self) {
        self.index += 1;
        self.due_ns = match self.arrivals {
            Arrivals::Constant => self.first_ns + self.index as f64 * self.period_ns,
            Arrivals::Poisson => self.due_ns + exponential(&mut self.random, self.period_ns),
        };
    }
}

/// How many of `connections` on a constant schedule have a turn between two instants, in nanoseconds since its start.
pub(crate) fn due_connections(rate_per_s: f64, connections: usize, between: Range<u64>) -> usize {
    let has_turn = |index: &usize| {
        let place = Place {
            index: *index,
            of: connections,
        };
        let mut schedule = Schedule::new(rate_per_s, Arrivals::Constant, place, 0);
        schedule.skip_to(between.start);
        schedule.due_ns() < between.end
    };
    (0..connections).filter(has_turn).count()
}

fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    // From (0, 1], for there is no logarithm of 0.
    -mean * (1.0 - random.f64()).ln()
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, 2014): every bit of the result depends on every bit of the seed.
fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rate: f64, arrivals: Arrivals, of: usize, until_ns: u64) -> Vec<u64> {
        let mut dues = Vec::new();
        for index in 0..of {
            let mut schedule = Schedule::new(rate, arrivals, Place { index, of }, 7);
            while schedule.due_ns() < until_ns {
                dues.push(schedule.due_ns());
                schedule.advance();
            }
        }
        dues.sort_unstable();
        dues
    }

    #[test]
    fn constant_schedules_of_many_connections_are_one_constant_schedule() {
        let dues = all(1000.0, Arrivals::Constant, 7, 3_600_000_000_000);
        assert_eq!(dues.len(), 3_600_000);
        for (index, due) in dues.iter().enumerate() {
            // Nanoseconds are rounded down.
            assert!(
                due.abs_diff(index as u64 * 1_000_000) <= 1,
                "{index}: {due}"
            );
        }
    }

    #[test]
    fn poisson_schedules_have_the_rate_and_the_spread_of_independent_arrivals() {
        let dues = all(1000.0, Arrivals::Poisson, 10, 100_000_000_000);
        // 100,000 are expected with a standard deviation of 316.
        assert!(dues.len().abs_diff(100_000) < 1500, "{}", dues.len());
        let gaps: Vec<f64> = dues.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The standard deviation of exponential gaps is their mean.
        let ratio = variance.sqrt() / mean;
        assert!((0.97..1.03).contains(&ratio), "{ratio}");
        let longer_than_mean = gaps.iter().filter(|gap| **gap > mean).count() as f64;
        let share = longer_than_mean / gaps.len() as f64;
        assert!((share - (-1.0_f64).exp()).abs() < 0.01, "{share}");
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        let first = |seed| {
            let place = Place { index: 3, of: 8 };
            Schedule::new(100.0, Arrivals::Poisson, place, seed).due_ns()
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn at_a_low_rate_not_every_connection_has_its_turn() {
        const S: u64 = 1_000_000_000;
        assert_eq!(due_connections(10.0, 64, 0..2 * S), 20);
        assert_eq!(due_connections(10.0, 64, 0..60 * S), 64);
        // From 2 s to 12 s there are 22 multiples of 4/9 s, from 0 s to 10 s there are 23.
        assert_eq!(due_connections(2.25, 64, 2 * S..12 * S), 22);
        assert_eq!(due_connections(2.25, 64, 0..10 * S), 23);
    }

    #[test]
    fn who_has_a_turn_is_whose_schedule_says_so() {
        for (rate, from, to) in [
            (100.07, 2_000_000_000, 12_000_000_000),
            (7.3, 123_456_789, 3_123_456_789),
            (0.5, 0, 1),
        ] {
            let has_turn = |index: &usize| {
                let place = Place {
                    index: *index,
                    of: 2_000,
                };
                let mut schedule = Schedule::new(rate, Arrivals::Constant, place, 0);
                while schedule.due_ns() < from {
                    schedule.advance();
                }
                schedule.due_ns() < to
            };
            let expected = (0..2_000).filter(has_turn).count();
            assert_eq!(due_connections(rate, 2_000, from..to), expected, "{rate}");
        }
    }
}
