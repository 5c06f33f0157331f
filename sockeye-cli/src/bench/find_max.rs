//! The highest rate at which a condition holds.
//!
//! First up by doubling until it does not hold, then between the two by halves of the ratio, until they are 2 % apart; then
//! the rate found is confirmed. One trial that held may have been luck: if a confirmation does not hold, the rate below is
//! next.

use std::time::Duration;

use crate::bench::percentiles;
use crate::bench::report::{Finding, Found, Latency, Report, Spread, Trial};
use crate::bench::setup::Setup;
use crate::bench::threshold::Threshold;
use crate::exit::Failure;
use crate::output::talk;

/// Searches from what a closed loop gets, which is near what there is to be had.
pub(crate) async fn find_max(setup: &Setup<'_>, objective: &Threshold) -> Result<Report, Failure> {
    let needed = needed(&percentiles(setup.arguments));
    let first = setup.measure(None, FIRST).await?;
    if first.messages == 0 || first.has_warning("interrupted") {
        return Ok(first);
    }
    let mut search = Search::from(first.messages_per_s / 2.0);
    let mut trials = Vec::new();
    let mut best = None;
    let mut stopped = None;
    let found = loop {
        let (rate_per_s, confirms) = match search.next() {
            Step::Found(found) => break found,
            Step::Try {
                rate_per_s,
                confirms,
            } => (rate_per_s, confirms),
        };
        let duration = long_enough(setup.duration(), needed, rate_per_s);
        if duration > setup.duration().saturating_mul(MOST_TIMES) {
            stopped = Some(too_slow(needed, rate_per_s, duration));
            break None;
        }
        let report = setup.measure(Some(rate_per_s), duration).await?;
        if report.has_warning("interrupted") {
            return Ok(report);
        }
        let trial = trial(objective, &report, rate_per_s, confirms);
        if !setup.arguments.quiet {
            talk(&said(objective, &report, &trial));
        }
        search.tried(match (trial.held, trial.by_generator) {
            (true, _) => Outcome::Held,
            (false, false) => Outcome::Failed,
            (false, true) => Outcome::Void,
        });
        if trial.held {
            best = Some(report);
        }
        trials.push(trial);
    };
    // The last that held is a confirmation of the rate found, if one was found.
    let mut report = best.unwrap_or(first);
    report.warnings.extend(stopped);
    report.found = Some(sum_up(objective, found, trials));
    Ok(report)
}

/// How long the closed loop is watched.
const FIRST: Duration = Duration::from_secs(1);

/// A trial takes at most so many times as long as was asked for.
const MOST_TIMES: u32 = 10;

/// How many messages these percentiles take.
fn needed(percentiles: &[f64]) -> u64 {
    let counts = percentiles.iter().map(|p| Latency::count_for(*p));
    counts.max().unwrap_or(0)
}

/// How long a trial takes that is to tell something: too few messages would say of a rate that it fails, and the lower it
/// is the fewer they are.
fn long_enough(asked: Duration, needed: u64, rate_per_s: f64) -> Duration {
    // By chance some are fewer (Poisson), and some are due a moment too late.
    const SPARE: f64 = 1.2;
    let seconds = SPARE * needed as f64 / rate_per_s;
    asked.max(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn too_slow(needed: u64, rate_per_s: f64, duration: Duration) -> Finding {
    Finding {
        kind: "search_stopped".to_owned(),
        text: format!(
            "{rate_per_s:.1}/s and less was not tried: the {needed} messages that the percentiles take would take {:.0} s there; \
             a longer --duration allows that",
            duration.as_secs_f64()
        ),
    }
}

fn sum_up(objective: &Threshold, found: Option<f64>, trials: Vec<Trial>) -> Found {
    let confirmations = trials.iter().rev().take_while(|trial| trial.confirms);
    let above = trials
        .iter()
        .filter(|trial| !trial.held && found.is_none_or(|found| trial.rate_per_s > found));
    let nearest = above.min_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
    Found {
        objective: objective.to_string(),
        rate_per_s: found,
        fails_at_per_s: nearest.map(|trial| trial.rate_per_s),
        confirmed: Spread::of(
            confirmations
                .filter(|trial| trial.held)
                .filter_map(|trial| trial.value),
        ),
        limited_by_generator: nearest.is_some_and(|trial| trial.by_generator),
        trials,
    }
}

/// What becomes of one rate.
fn trial(objective: &Threshold, report: &Report, rate_per_s: f64, confirms: bool) -> Trial {
    let keeps_up = !report.has_warning("behind");
    let no_errors = report.errors.is_empty() && report.unanswered == 0;
    let holds = objective.holds(report) == Some(true);
    Trial {
        rate_per_s,
        value: objective.metric().of(report),
        held: holds && report.valid && keeps_up && no_errors,
        valid: report.valid,
        by_generator: report
            .invalid
            .iter()
            .any(|finding| finding.kind.starts_with("generator_")),
        confirms,
    }
}

fn said(objective: &Threshold, report: &Report, trial: &Trial) -> String {
    let what = if trial.confirms { "confirm" } else { "try" };
    let metric = objective.metric();
    let value = trial.value.map_or_else(
        || format!("{metric} unknown"),
        |value| format!("{metric} {}", metric.shown(value)),
    );
    let verdict = match report.invalid.first() {
        None if trial.held => "holds".to_owned(),
        None => "does not hold".to_owned(),
        Some(why) => format!("does not count: {}", why.kind.replace('_', " ")),
    };
    format!("{what} {:.0}/s: {value}, {verdict}", trial.rate_per_s)
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Run this rate, to search or to confirm.
    Try { rate_per_s: f64, confirms: bool },
    /// This is it, or nothing holds.
    Found(Option<f64>),
}

/// How a trial went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Held,
    Failed,
    /// The generator was disturbed, or was the limit itself.
    Void,
}

/// Decides what is tried next. Pure.
#[derive(Debug)]
struct Search {
    /// The highest that has held, and the lowest that has not.
    holds: Option<f64>,
    fails: Option<f64>,
    next: f64,
    /// Confirmations of `holds` so far.
    confirmed: Option<u32>,
    /// Void trials of the same rate, one after the other.
    voids: u32,
    trials: u32,
}

/// How near the two are in the end.
const APART: f64 = 1.02;

/// How often the rate found has to hold again.
const CONFIRMATIONS: u32 = 3;

/// What a neighbour on the machine spoils is tried again; a rate that is beyond the generator itself is so each time.
const MOST_VOIDS: u32 = 3;

/// A search that goes on for ever tells nothing: 1/s and 1,000M/s are 30 doublings apart.
const MOST_TRIALS: u32 = 90;

/// Below one message in ten seconds it is no load.
const LEAST: f64 = 0.1;

impl Search {
    /// Begins at a rate that is probably near.
    fn from(start_per_s: f64) -> Self {
        Self {
            holds: None,
            fails: None,
            next: start_per_s.max(LEAST),
            confirmed: None,
            voids: 0,
            trials: 0,
        }
    }

    fn next(&self) -> Step {
        let found = self.confirmed == Some(CONFIRMATIONS);
        if found || self.trials >= MOST_TRIALS || self.next < LEAST {
            return Step::Found(self.holds.filter(|_| found));
        }
        Step::Try {
            rate_per_s: self.next,
            confirms: self.confirmed.is_some(),
        }
    }

    /// How the trial went that [`Self::next`] asked for.
    fn tried(&mut self, outcome: Outcome) {
        self.trials += 1;
        self.voids = if outcome == Outcome::Void {
            self.voids + 1
        } else {
            0
        };
        if (1..MOST_VOIDS).contains(&self.voids) {
            return;
        }
        self.voids = 0;
        let held = outcome == Outcome::Held;
        match (self.confirmed, held) {
            (Some(times), true) => self.confirmed = Some(times + 1),
            (Some(_), false) => {
                // It held once and does not again: look below, closely.
                self.fails = Some(self.next);
                self.holds = None;
                self.confirmed = None;
                self.next /= APART;
            }
            (None, true) => self.holds = Some(self.next),
            (None, false) => self.fails = Some(self.next),
        }
        if self.confirmed.is_none() {
            self.choose();
        }
    }

    fn choose(&mut self) {
        match (self.holds, self.fails) {
            (Some(holds), Some(fails)) if fails / holds <= APART * 1.001 => {
                self.confirmed = Some(0);
                self.next = holds;
            }
            (Some(holds), Some(fails)) => self.next = (holds * fails).sqrt(),
            (Some(holds), None) => self.next = holds * 2.0,
            (None, Some(fails)) if self.next >= fails => self.next = fails / 2.0,
            // Set already, just below a rate that was not confirmed.
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_as_long_as_its_percentile_takes() {
        let s = Duration::from_secs;
        assert_eq!(needed(&[50.0, 99.9, 99.0]), 10_000);
        assert_eq!(needed(&[]), 0);
        assert_eq!(long_enough(s(3), 10_000, 2_500.0).as_millis(), 4_800);
        assert_eq!(long_enough(s(3), 10_000, 100_000.0), s(3));
        assert_eq!(long_enough(s(3), 0, 0.1), s(3));
        assert_eq!(long_enough(s(3), u64::MAX, 1e-300), Duration::MAX);
    }

    /// Runs a search against a server that holds up to a limit, as long as `luck` says so.
    fn search(start: f64, mut holds: impl FnMut(f64) -> bool) -> (Option<f64>, u32) {
        let mut search = Search::from(start);
        loop {
            match search.next() {
                Step::Found(found) => return (found, search.trials),
                Step::Try { rate_per_s, .. } => search.tried(if holds(rate_per_s) {
                    Outcome::Held
                } else {
                    Outcome::Failed
                }),
            }
        }
    }

    #[test]
    fn the_limit_is_found_within_two_percent_from_below_and_from_above() {
        for limit in [3.0, 950.0, 123_456.0] {
            for start in [limit / 50.0, limit * 0.99, limit * 1.01, limit * 50.0] {
                let (found, trials) = search(start, |rate| rate <= limit);
                let found = found.expect("holds");
                assert!(
                    found <= limit && found >= limit / 1.021,
                    "{found} of {limit}"
                );
                assert!(trials <= 20, "{trials}");
            }
        }
    }

    #[test]
    fn a_rate_that_held_by_luck_is_not_the_one_found() {
        let mut lucky = true;
        let (found, _) = search(1000.0, |rate| {
            rate <= 800.0 || rate <= 1000.0 && std::mem::take(&mut lucky)
        });
        let found = found.expect("holds");
        assert!((780.0..=800.0).contains(&found), "{found}");
    }

    #[test]
    fn a_trial_that_was_disturbed_is_tried_again_and_a_limit_of_the_generator_is_one() {
        let mut search = Search::from(1000.0);
        let mut number = 0_u32;
        let found = loop {
            let rate = match search.next() {
                Step::Found(found) => break found,
                Step::Try { rate_per_s, .. } => rate_per_s,
            };
            number += 1;
            search.tried(match rate {
                _ if number % 2 == 1 => Outcome::Void,
                _ if rate > 3000.0 => Outcome::Failed,
                _ => Outcome::Held,
            });
        };
        assert!(
            (2940.0..=3000.0).contains(&found.expect("holds")),
            "{found:?}"
        );

        let mut search = Search::from(1000.0);
        let found = loop {
            match search.next() {
                Step::Found(found) => break found,
                Step::Try { rate_per_s, .. } if rate_per_s > 3000.0 => search.tried(Outcome::Void),
                Step::Try { .. } => search.tried(Outcome::Held),
            }
        };
        assert!(
            (2940.0..=3000.0).contains(&found.expect("holds")),
            "{found:?}"
        );
    }

    #[test]
    fn where_nothing_holds_nothing_is_found() {
        let (found, trials) = search(1000.0, |_| false);
        assert_eq!(found, None);
        assert!(trials < 20);
    }

    #[test]
    fn a_search_ends_also_where_everything_holds() {
        let (_, trials) = search(1000.0, |_| true);
        assert_eq!(trials, MOST_TRIALS);
    }
}
