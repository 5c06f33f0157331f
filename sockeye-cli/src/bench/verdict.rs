//! Whether a run says what it seems to say. Pure.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::bench::recorder::Kind;
use crate::bench::report::{Connections, Cost, Finding, Latency};
use crate::bench::threshold::shown_us;
use crate::cli::bench::Mode;

/// What is judged.
pub(crate) struct Evidence<'a> {
    /// Of an open loop.
    pub(crate) asked_per_s: Option<f64>,
    /// If it is their number that ends the run.
    pub(crate) asked_messages: Option<u64>,
    pub(crate) got_per_s: f64,
    pub(crate) measured_ns: f64,
    pub(crate) latency: &'a Histogram<u64>,
    pub(crate) service: &'a Histogram<u64>,
    pub(crate) send_lag: &'a Histogram<u64>,
    pub(crate) connections: &'a Connections,
    pub(crate) own: &'a Cost,
    pub(crate) errors: &'a BTreeMap<Kind, u64>,
    pub(crate) unanswered: u64,
    /// Of those, the ones whose connection failed, or was not to be had.
    pub(crate) lost: u64,
    /// The percentiles that somebody asked for.
    pub(crate) percentiles: &'a [f64],
    /// The arithmetic of ports, where they are what there can be too few of.
    pub(crate) ports: Option<String>,
    pub(crate) interrupted: bool,
    pub(crate) mode: Mode,
    /// Whether messages are sent at all.
    pub(crate) sends: bool,
}

/// What a generator may be late at the 99th percentile without a word: 0.1 ms. Wake-ups on a virtual machine cost half of it.
const LATE_NS: u64 = 100_000;

/// Or this share of the median latency, if that is more.
const LATE_SHARE: f64 = 0.1;

/// A thread that is busy for this share of the time may be what limits the rate.
const BUSY_SHARE: f64 = 0.98;

/// A generator's threads may wait for a CPU for this share of the time without a word,
const WAIT_SHARE: f64 = 0.05;

/// and beyond this share it is not the server that is measured.
const MOST_WAIT_SHARE: f64 = 0.25;

/// A server keeps up if so much of what is asked is answered in time.
const KEEPS_UP_SHARE: f64 = 0.98;

/// So many messages may be lost with their connections without a word: what is told of 99 in 100 is still told of them.
const MOST_FAILED_SHARE: f64 = 0.01;

/// A closed loop hides a stall if somebody who asks at a random moment waits so many times as long at the 99th percentile as
/// the loop's messages did. For exponential times it is 1.4.
const HIDDEN_FACTOR: f64 = 4.0;

/// And for at least so long: 10 ms.
const HIDDEN_NS: f64 = 1e7;

impl Evidence<'_> {
    /// Why the figures are not what they are taken for.
    pub(crate) fn invalid(&self) -> Vec<Finding> {
        let found = [
            self.nothing_answered(),
            self.late(),
            self.busy(),
            self.waited()
                .filter(|_| self.own.cpu_wait_share > MOST_WAIT_SHARE),
            self.few_served(),
            self.ports_exhausted(),
            self.failed(),
            self.given_up(),
            self.hidden_stall(),
        ];
        let samples = self.percentiles.iter().filter_map(|p| self.few_samples(*p));
        found.into_iter().flatten().chain(samples).collect()
    }

    /// What one should know besides.
    pub(crate) fn warnings(&self) -> Vec<Finding> {
        let found = [
            self.stopped(),
            self.behind(),
            self.waited()
                .filter(|_| self.own.cpu_wait_share <= MOST_WAIT_SHARE),
            self.paused(),
            self.not_answered().filter(|_| self.failed().is_none()),
        ];
        found.into_iter().flatten().collect()
    }

    fn nothing_answered(&self) -> Option<Finding> {
        let nothing = self.got_per_s == 0.0 && self.sends;
        nothing.then(|| {
            finding(
                "nothing_answered",
                "no message was answered in the measured time",
            )
        })
    }

    fn late(&self) -> Option<Finding> {
        self.asked_per_s?;
        let lag = self.send_lag.value_at_quantile(0.99);
        let median = self.latency.value_at_quantile(0.5) as f64;
        let limit = (LATE_NS as f64).max(LATE_SHARE * median);
        (lag as f64 > limit).then(|| {
            let (lag, limit) = (shown_us(lag as f64 / 1e3), shown_us(limit / 1e3));
            let text = format!(
                "the generator was late: one message in 100 was sent {lag} or more after it could have been, and {limit} is \
                 what may be; ask for a lower rate, more --threads, or a quieter machine"
            );
            finding("generator_late", &text)
        })
    }

    fn busy(&self) -> Option<Finding> {
        let share = self.own.busiest_thread_share;
        (share >= BUSY_SHARE).then(|| {
            let text = format!(
                "the generator was the limit: a thread of it was busy {:.0} % of the time, so the server may be able to do \
                 more; use more --threads, or fewer --connections",
                100.0 * share
            );
            finding("generator_busy", &text)
        })
    }

    fn few_served(&self) -> Option<Finding> {
        let Connections {
            asked, due, served, ..
        } = *self.connections;
        (served < due).then(|| {
            let whom = if due < asked {
                format!("{due} connections that had their turn, of {asked},")
            } else {
                format!("{asked} connections")
            };
            let text = format!(
                "only {served} of the {whom} were served: the figures are those of a smaller load"
            );
            finding("few_served", &text)
        })
    }

    fn ports_exhausted(&self) -> Option<Finding> {
        let count = self.errors.get("ports_exhausted")?;
        let arithmetic = self.ports.clone().unwrap_or_default();
        let text = format!(
            "{count} connections could not be opened, for there was no port for them: {arithmetic}; {}",
            crate::bench::dial::Ports::HINT
        );
        Some(finding("ports_exhausted", &text))
    }

    /// A server that stalls is not asked meanwhile by a closed loop. What somebody would wait who asks at any moment is had
    /// by counting each message as often as it is long.
    fn hidden_stall(&self) -> Option<Finding> {
        // A message of a stream waits for the kernel's buffers, not for an answer.
        let answers = self.mode != Mode::Stream;
        if self.asked_per_s.is_some() || !answers || self.service.len() < Latency::count_for(99.0) {
            return None;
        }
        let counted = self.service.value_at_quantile(0.99) as f64;
        let felt = felt_p99(self.service);
        (felt > HIDDEN_FACTOR * counted && felt - counted > HIDDEN_NS).then(|| {
            let (counted, felt) = (shown_us(counted / 1e3), shown_us(felt / 1e3));
            let text = format!(
                "the server stalled, and a closed loop does not ask a server that stalls: of the messages 99 % took {counted} \
                 at most, but who had come at any moment would have waited {felt} in 1 of 100 cases; use --rate"
            );
            finding("closed_loop_stall", &text)
        })
    }

    fn few_samples(&self, percentile: f64) -> Option<Finding> {
        let (have, need) = (self.latency.len(), Latency::count_for(percentile));
        (have < need).then(|| {
            let text = format!(
                "{have} messages are too few for p{percentile}: it takes {need}, to have {} beyond it",
                Latency::LEAST_BEYOND
            );
            finding("few_samples", &text)
        })
    }

    fn stopped(&self) -> Option<Finding> {
        self.interrupted.then(|| {
            finding(
                "interrupted",
                "interrupted: these are the figures until then",
            )
        })
    }

    fn behind(&self) -> Option<Finding> {
        let asked = self.asked_per_s?;
        // At low rates a message more or less is within the time or not.
        let tolerance = 3.0 * (asked * self.measured_ns / 1e9).sqrt() / self.measured_ns * 1e9;
        let least = (KEEPS_UP_SHARE * asked).min(asked - tolerance);
        (self.got_per_s < least).then(|| {
            let text = format!(
                "the server did not keep up: {:.0} messages/s were answered of {asked:.0} that were due",
                self.got_per_s
            );
            finding("behind", &text)
        })
    }

    fn waited(&self) -> Option<Finding> {
        let share = self.own.cpu_wait_share;
        (share > WAIT_SHARE).then(|| {
            let text = format!(
                "the generator waited for a CPU {:.0} % of the time: others, the server among them perhaps, run on the same",
                100.0 * share
            );
            finding("generator_waited", &text)
        })
    }

    fn paused(&self) -> Option<Finding> {
        let lag = self.send_lag.max();
        let is_paused = lag > 10 * LATE_NS && lag as f64 > LATE_SHARE * self.latency.max() as f64;
        (self.asked_per_s.is_some() && is_paused).then(|| {
            let text = format!(
                "the generator itself paused for up to {}; the longest latencies have that in them",
                shown_us(lag as f64 / 1e3)
            );
            finding("generator_paused", &text)
        })
    }

    /// Connections broke under many messages. What those had waited until then is little, and no latency.
    fn failed(&self) -> Option<Finding> {
        let due = self.latency.len();
        let many = self.lost as f64 > MOST_FAILED_SHARE * due as f64;
        (many && self.got_per_s > 0.0).then(|| {
            let text = format!(
                "{} of {due} messages got no answer because their connections failed: the latencies are those of the others, \
                 and of the time until then",
                self.lost
            );
            finding("connections_failed", &text)
        })
    }

    /// A thread that had no connection any more.
    fn given_up(&self) -> Option<Finding> {
        let (asked, sent) = (self.asked_messages?, self.latency.len());
        (sent < asked && !self.interrupted).then(|| {
            let text = format!(
                "only {sent} of the {asked} messages were sent: a thread had no connection any more, and got none within --timeout"
            );
            finding("given_up", &text)
        })
    }

    fn not_answered(&self) -> Option<Finding> {
        (self.unanswered > 0).then(|| {
            let text = format!(
                "{} messages were not answered; they are in the latencies with the time that they had waited, so that these \
                 are too low",
                self.unanswered
            );
            finding("unanswered", &text)
        })
    }
}

fn finding(kind: &str, text: &str) -> Finding {
    Finding {
        kind: kind.to_owned(),
        text: text.to_owned(),
    }
}

/// The 99th percentile of a distribution in which each value counts as often as it is long.
fn felt_p99(service: &Histogram<u64>) -> f64 {
    let weights = || {
        let values = service.iter_recorded();
        values.map(|value| {
            let ns = value.value_iterated_to() as f64;
            (ns, ns * value.count_at_value() as f64)
        })
    };
    let limit: f64 = 0.99 * weights().map(|(_, weight)| weight).sum::<f64>();
    let mut sum = 0.0;
    for (ns, weight) in weights() {
        sum += weight;
        if sum >= limit {
            return ns;
        }
    }
    service.max() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::recorder::histogram;

    /// What a good run has; each test spoils one thing.
    struct Run {
        latency: Histogram<u64>,
        send_lag: Histogram<u64>,
        connections: Connections,
        own: Cost,
        errors: BTreeMap<Kind, u64>,
        asked_per_s: Option<f64>,
        got_per_s: f64,
        percentiles: Vec<f64>,
    }

    impl Run {
        fn good(asked_per_s: Option<f64>) -> Self {
            let all = |ns: u64| {
                let mut histogram = histogram();
                (0..10_000).for_each(|number| histogram.saturating_record(ns + number));
                histogram
            };
            Self {
                latency: all(200_000),
                send_lag: all(1_000),
                connections: Connections {
                    asked: 64,
                    opened: 64,
                    due: 64,
                    served: 64,
                    reopened: 0,
                },
                own: Cost {
                    cpu_ns_per_message: Some(1_000.0),
                    cpu_share: 0.5,
                    cpu_wait_share: 0.0,
                    busiest_thread_share: 0.5,
                },
                errors: BTreeMap::new(),
                asked_per_s,
                got_per_s: 1_000.0,
                percentiles: vec![99.0],
            }
        }

        fn evidence(&self) -> Evidence<'_> {
            Evidence {
                asked_per_s: self.asked_per_s,
                asked_messages: None,
                got_per_s: self.got_per_s,
                measured_ns: 1e10,
                latency: &self.latency,
                service: &self.latency,
                send_lag: &self.send_lag,
                connections: &self.connections,
                own: &self.own,
                errors: &self.errors,
                unanswered: 0,
                lost: 0,
                percentiles: &self.percentiles,
                ports: None,
                interrupted: false,
                mode: Mode::Echo,
                sends: true,
            }
        }

        fn invalid(&self) -> Vec<String> {
            let found = self.evidence().invalid();
            found.into_iter().map(|finding| finding.kind).collect()
        }

        fn warnings(&self) -> Vec<String> {
            let found = self.evidence().warnings();
            found.into_iter().map(|finding| finding.kind).collect()
        }
    }

    const NOTHING: [String; 0] = [];

    #[test]
    fn a_good_run_has_nothing_to_be_said_of_it() {
        for pace in [None, Some(1_000.0)] {
            assert_eq!(Run::good(pace).invalid(), NOTHING);
            assert_eq!(Run::good(pace).warnings(), NOTHING);
        }
    }

    #[test]
    fn a_generator_is_late_when_one_message_in_a_hundred_is_and_only_on_a_schedule() {
        for (late, expected) in [(90, 0), (120, 1)] {
            let mut run = Run::good(Some(1_000.0));
            (0..late).for_each(|_| run.send_lag.saturating_record(150_000));
            assert_eq!(run.invalid().len(), expected, "{late}");
            run.asked_per_s = None;
            assert_eq!(run.invalid(), NOTHING);
        }
        // Where answers take long, the same lag is little.
        let mut run = Run::good(Some(1_000.0));
        (0..200).for_each(|_| run.send_lag.saturating_record(150_000));
        run.latency = histogram();
        (0..10_000).for_each(|_| run.latency.saturating_record(20_000_000));
        assert_eq!(run.invalid(), NOTHING);
    }

    #[test]
    fn a_thread_that_is_never_idle_is_the_limit_itself() {
        let mut run = Run::good(None);
        run.own.busiest_thread_share = 0.99;
        assert_eq!(run.invalid(), ["generator_busy"]);
    }

    #[test]
    fn a_generator_without_a_cpu_is_told_and_with_hardly_any_is_none() {
        let mut run = Run::good(None);
        run.own.cpu_wait_share = 0.1;
        assert_eq!(
            (run.invalid(), run.warnings()),
            (vec![], vec!["generator_waited".to_owned()])
        );
        run.own.cpu_wait_share = 0.3;
        assert_eq!(
            (run.invalid(), run.warnings()),
            (vec!["generator_waited".to_owned()], vec![])
        );
    }

    #[test]
    fn connections_that_were_not_served_are_missed_only_if_they_had_their_turn() {
        let mut run = Run::good(None);
        run.connections.served = 63;
        assert_eq!(run.invalid(), ["few_served"]);
        run.connections.due = 63;
        assert_eq!(run.invalid(), NOTHING);
    }

    #[test]
    fn a_stall_that_a_closed_loop_hides_is_found_and_a_slow_server_is_none() {
        // 10,000 messages of 0.2 ms, and 8 that met one stall of a second.
        let mut run = Run::good(None);
        (0..8).for_each(|_| run.latency.saturating_record(1_000_000_000));
        assert_eq!(run.invalid(), ["closed_loop_stall"]);
        // An open loop shows it.
        run.asked_per_s = Some(1_000.0);
        assert_eq!(run.invalid(), NOTHING);
        // All take a second: nothing is hidden.
        let mut run = Run::good(None);
        run.latency = histogram();
        (0..10_000).for_each(|_| run.latency.saturating_record(1_000_000_000));
        assert_eq!(run.invalid(), NOTHING);
        // A wide distribution without a stall: exponential, 20 ms in the mean.
        let mut run = Run::good(None);
        run.latency = histogram();
        (1..10_000).for_each(|number| {
            let ns = -2e7 * (f64::from(number) / 10_000.0).ln();
            run.latency.saturating_record(ns as u64);
        });
        assert_eq!(run.invalid(), NOTHING);
    }

    #[test]
    fn a_server_behind_its_schedule_is_told_and_a_message_more_or_less_is_not() {
        let mut run = Run::good(Some(1_000.0));
        run.got_per_s = 990.0;
        assert_eq!(run.warnings(), NOTHING);
        run.got_per_s = 900.0;
        assert_eq!(run.warnings(), ["behind"]);
        // One of ten in ten seconds.
        run.asked_per_s = Some(1.0);
        run.got_per_s = 0.9;
        assert_eq!(run.warnings(), NOTHING);
    }

    #[test]
    fn percentiles_of_few_messages_are_worth_nothing_and_that_is_said_of_those_asked_for() {
        let mut run = Run::good(None);
        run.percentiles = vec![50.0, 99.9];
        assert_eq!(run.invalid(), NOTHING);
        run.percentiles.push(99.99);
        assert_eq!(run.invalid(), ["few_samples"]);
    }
}
