//! Reports to test what shows them: a small simulation makes figures that hang together as those of a run do.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::bench::report::{
    Asked, BothEnds, Connections, Cost, Finding, Found, Latency, Loop, Pair, Point, Report, Spread,
    TcpPoint, TcpSummary, Trial, Verdict,
};
use crate::cli::bench::{Arrivals, Close, Mode};

/// What is simulated; times in microseconds, and the measured time begins at 0.
struct Load {
    connections: usize,
    /// `None` is a closed loop.
    rate_per_s: Option<f64>,
    duration_us: f64,
    warmup_us: f64,
    /// When the server does nothing.
    stall: Option<(f64, f64)>,
    piece_us: f64,
}

/// One message and its answer.
struct Message {
    due: f64,
    /// When it could have been sent.
    could: f64,
    sent: f64,
    answered: f64,
}

impl Load {
    fn usual() -> Self {
        Self {
            connections: 64,
            rate_per_s: Some(10_000.0),
            duration_us: 10e6,
            warmup_us: 1e6,
            stall: None,
            piece_us: 100e3,
        }
    }

    fn messages(&self) -> Vec<Message> {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut free = vec![-self.warmup_us; self.connections];
        let mut messages = Vec::new();
        let mut next_due = -self.warmup_us;
        let mut turn = 0;
        loop {
            let connection = match self.rate_per_s {
                Some(_) => turn % self.connections,
                None => (0..self.connections)
                    .min_by(|a, b| free[*a].total_cmp(&free[*b]))
                    .expect("there"),
            };
            let due = if self.rate_per_s.is_some() {
                next_due
            } else {
                free[connection]
            };
            if due >= self.duration_us {
                return messages;
            }
            let could = due.max(free[connection]);
            let sent = could
                + if self.rate_per_s.is_some() {
                    chance.f64() * 4.0
                } else {
                    0.0
                };
            let answered = self.answered(sent, service_us(&mut chance));
            free[connection] = answered;
            messages.push(Message {
                due,
                could,
                sent,
                answered,
            });
            next_due += 1e6 / self.rate_per_s.unwrap_or(1.0);
            turn += 1;
        }
    }

    fn answered(&self, sent: f64, service: f64) -> f64 {
        match self.stall {
            Some((from, to)) if sent < to && sent + service > from => to + service,
            _ => sent + service,
        }
    }

    /// What both loops have in common.
    fn report(&self) -> Report {
        let messages = self.messages();
        let of =
            |time: fn(&Message) -> f64| latency(messages.iter().filter(|m| m.due >= 0.0).map(time));
        let answered = |m: &&Message| (0.0..self.duration_us).contains(&m.answered);
        let count = messages.iter().filter(answered).count() as u64;
        let seconds = self.duration_us / 1e6;
        let rate = count as f64 / seconds;
        Report {
            sockeye: "0.1.0".to_owned(),
            target: "127.0.0.1:7000".to_owned(),
            mode: Mode::Echo,
            loop_kind: if self.rate_per_s.is_some() {
                Loop::Open
            } else {
                Loop::Closed
            },
            valid: true,
            invalid: Vec::new(),
            warnings: Vec::new(),
            asked: self.asked(),
            connections: Connections {
                asked: self.connections,
                opened: self.connections,
                due: self.connections,
                served: self.connections,
                reopened: 0,
            },
            measured_ms: self.duration_us / 1e3,
            messages: count,
            messages_per_s: rate,
            unanswered: 0,
            sent_bytes: count * 64,
            received_bytes: count * 64,
            sent_bytes_per_s: rate * 64.0,
            received_bytes_per_s: rate * 64.0,
            errors: BTreeMap::new(),
            latency: of(|m| m.answered - m.due),
            service: of(|m| m.answered - m.sent),
            connect: latency((0..self.connections).map(|n| 80.0 + n as f64)),
            send_lag: self.rate_per_s.map(|_| of(|m| m.sent - m.could)),
            own: cost(1_830.0, 0.0183),
            server: None,
            tcp: Some(tcp_summary(self.connections, 3)),
            timeline: self.timeline(&messages),
            both_ends: None,
            thresholds: Vec::new(),
            found: None,
        }
    }

    fn asked(&self) -> Asked {
        Asked {
            connections: self.connections,
            threads: 1,
            rate_per_s: self.rate_per_s,
            arrivals: self.rate_per_s.map(|_| Arrivals::Constant),
            seed: Some(7),
            size_bytes: 64,
            pipeline: 1,
            duration_ms: Some(self.duration_us / 1e3),
            messages: None,
            warmup_ms: self.warmup_us / 1e3,
            lifetime_ms: None,
            timeout_ms: 10_000.0,
            close: Close::Fin,
            http: None,
            source: None,
            tls: false,
            send_proxy: false,
            verify: false,
        }
    }

    fn timeline(&self, messages: &[Message]) -> Vec<Point> {
        let pieces = ((self.warmup_us + self.duration_us) / self.piece_us).round() as usize;
        let mut latencies: Vec<Vec<f64>> = vec![Vec::new(); pieces];
        for message in messages {
            let piece = ((message.answered + self.warmup_us) / self.piece_us) as usize;
            if let Some(piece) = latencies.get_mut(piece) {
                piece.push(message.answered - message.due);
            }
        }
        let point = |(index, mut latencies): (usize, Vec<f64>)| {
            latencies.sort_by(f64::total_cmp);
            let at = |share: f64| {
                latencies
                    .get((latencies.len() as f64 * share) as usize)
                    .copied()
            };
            let tcp = TcpPoint {
                rtt_us: 28.0 + (index % 7) as f64,
                cwnd: 10.0 + (index / 30) as f64,
                retransmitted: (index / 45) as u64,
            };
            Point {
                at_ms: (index as f64 * self.piece_us - self.warmup_us) / 1e3,
                length_ms: self.piece_us / 1e3,
                messages: latencies.len() as u64,
                messages_per_s: latencies.len() as f64 / self.piece_us * 1e6,
                errors: 0,
                p50_us: at(0.5),
                p99_us: at(0.99),
                max_us: latencies.last().copied(),
                tcp: Some(tcp),
                server_tcp: None,
            }
        };
        latencies.into_iter().enumerate().map(point).collect()
    }
}

/// A server that takes 40 µs and seldom much longer.
fn service_us(chance: &mut fastrand::Rng) -> f64 {
    let usual = 40.0 - 12.0 * (1.0 - chance.f64()).ln();
    match chance.u32(..400) {
        0 => usual + 200.0 + 900.0 * chance.f64(),
        _ => usual,
    }
}

fn latency(values_us: impl Iterator<Item = f64>) -> Latency {
    let mut histogram = Histogram::new(3).expect("there");
    for value in values_us {
        histogram
            .record((value * 1e3).round() as u64)
            .expect("there");
    }
    Latency::of(&histogram)
}

fn cost(ns: f64, share: f64) -> Cost {
    Cost {
        cpu_ns_per_message: Some(ns),
        cpu_share: share,
        cpu_wait_share: 0.0012,
        busiest_thread_share: share,
    }
}

fn tcp_summary(connections: usize, retransmitted: u64) -> TcpSummary {
    let spread = |min, median, max| Some(Spread { min, median, max });
    TcpSummary {
        connections,
        retransmitted,
        retransmitted_bytes: retransmitted * 64,
        sent_segments: 110_423,
        rtt_us: spread(22.0, 31.0, 58.0),
        rttvar_us: spread(4.0, 9.0, 21.0),
        min_rtt_us: spread(11.0, 14.0, 19.0),
        cwnd: spread(10.0, 10.0, 13.0),
        delivery_rate_bytes_per_s: spread(2.1e6, 4.4e6, 5.2e6),
        rwnd_limited_share: spread(0.0, 0.0, 0.0),
        sndbuf_limited_share: None,
    }
}

fn finding(kind: &str, text: &str) -> Finding {
    Finding {
        kind: kind.to_owned(),
        text: text.to_owned(),
    }
}

/// On schedule, with a server that stands still for a second.
pub(crate) fn open_loop() -> Report {
    let mut report = Load {
        stall: Some((4e6, 5e6)),
        ..Load::usual()
    }
    .report();
    report.server = Some(cost(2_410.0, 0.0241));
    report.thresholds = vec![
        Verdict {
            threshold: "p99>5ms".to_owned(),
            value: report.latency.p99_us,
            broken: true,
            text: "p99 is 904 ms".to_owned(),
        },
        Verdict {
            threshold: "errors>0".to_owned(),
            value: Some(0.0),
            broken: false,
            text: "errors is 0".to_owned(),
        },
    ];
    report
}

/// The same stall, seen by a closed loop: it hardly shows.
pub(crate) fn closed_loop() -> Report {
    Load {
        connections: 4,
        rate_per_s: None,
        duration_us: 3e6,
        stall: Some((1e6, 2e6)),
        ..Load::usual()
    }
    .report()
}

/// With `--serve`.
pub(crate) fn both_ends() -> Report {
    let mut report = Load {
        duration_us: 3e6,
        ..Load::usual()
    }
    .report();
    let mut chance = fastrand::Rng::with_seed(9);
    let mut of = |least: f64, more: f64| latency((0..30_000).map(|_| least + more * chance.f64()));
    let tcp = |rtt: u32| json!({"state": "established", "rtt_us": rtt, "snd_cwnd": 10, "total_retrans": 0});
    report.server = Some(cost(2_050.0, 0.0205));
    report.both_ends = Some(BothEnds {
        to_server: of(14.0, 9.0),
        in_server: of(4.0, 3.0),
        to_client: of(19.0, 12.0),
        server_tcp: Some(tcp_summary(64, 1)),
        pairs: vec![
            Pair {
                client: "127.0.0.1:41000".to_owned(),
                server: "127.0.0.1:7000".to_owned(),
                client_tcp: tcp(31),
                server_tcp: tcp(29),
            },
            Pair {
                client: "127.0.0.1:41002".to_owned(),
                server: "127.0.0.1:7000".to_owned(),
                client_tcp: tcp(33),
                server_tcp: json!(null),
            },
        ],
    });
    for (index, point) in report.timeline.iter_mut().enumerate() {
        point.server_tcp = Some(TcpPoint {
            rtt_us: 24.0 + (index % 5) as f64,
            cwnd: 10.0,
            retransmitted: 0,
        });
    }
    report
}

/// With `--find-max`.
pub(crate) fn find_max() -> Report {
    let mut report = Load {
        duration_us: 2e6,
        ..Load::usual()
    }
    .report();
    let trial = |rate_per_s: f64, value: f64, held, confirms| Trial {
        rate_per_s,
        value: Some(value),
        held,
        valid: true,
        by_generator: false,
        confirms,
    };
    report.found = Some(Found {
        objective: "p99<5ms".to_owned(),
        rate_per_s: Some(84_000.0),
        fails_at_per_s: Some(88_000.0),
        confirmed: Some(Spread {
            min: 2_300.0,
            median: 2_450.0,
            max: 3_900.0,
        }),
        limited_by_generator: false,
        trials: vec![
            trial(10_000.0, 110.0, true, false),
            trial(20_000.0, 130.0, true, false),
            trial(40_000.0, 180.0, true, false),
            trial(80_000.0, 1_400.0, true, false),
            trial(160_000.0, 812_000.0, false, false),
            trial(96_000.0, 31_000.0, false, false),
            trial(88_000.0, 7_100.0, false, false),
            trial(84_000.0, 2_600.0, true, false),
            trial(84_000.0, 2_300.0, true, true),
            trial(84_000.0, 3_900.0, true, true),
            trial(84_000.0, 2_450.0, true, true),
        ],
    });
    report
}

/// Worth nothing, and says so.
pub(crate) fn invalid() -> Report {
    let mut report = Load {
        duration_us: 1e6,
        ..Load::usual()
    }
    .report();
    report.valid = false;
    report.invalid = vec![
        finding(
            "generator_late",
            "the generator was late: p99 of the send lag is 2.10 ms, and p50 of the latency 51.4 µs; use fewer messages \
             per second, or more --threads",
        ),
        finding("few_served", "61 of 64 connections were served"),
    ];
    report.warnings = vec![finding(
        "time_wait",
        "2,113 local ports are kept in TIME_WAIT",
    )];
    report.connections.served = 61;
    report.connections.reopened = 14;
    report.unanswered = 3;
    report.errors = [("reset", 11), ("timeout", 2), ("closed", 1)]
        .map(|(kind, count)| (kind.to_owned(), count))
        .into();
    for (index, errors) in [(13, 9), (14, 2), (17, 3)] {
        report.timeline[index].errors = errors;
    }
    report
}

/// Nobody answered.
pub(crate) fn silent() -> Report {
    let mut report = Load {
        connections: 1,
        duration_us: 0.0,
        warmup_us: 0.0,
        ..Load::usual()
    }
    .report();
    report.connections.served = 0;
    report.messages_per_s = 0.0;
    report.sent_bytes_per_s = 0.0;
    report.received_bytes_per_s = 0.0;
    report.own.cpu_ns_per_message = None;
    report.tcp = None;
    report.valid = false;
    report.invalid = vec![finding("nothing_answered", "no message was answered")];
    report
}

/// All that others choose has something in it that a terminal or a browser would obey.
pub(crate) fn hostile() -> Report {
    let evil = "\x1b[2J\u{202e}<script>alert('x')</script>\"&\n";
    let mut report = invalid();
    report.target = evil.to_owned();
    report.sockeye = evil.to_owned();
    report.errors = BTreeMap::from([(evil.to_owned(), 3)]);
    report.invalid = vec![finding(evil, evil)];
    report.warnings = vec![finding(evil, evil)];
    report.thresholds = vec![Verdict {
        threshold: evil.to_owned(),
        value: None,
        broken: true,
        text: evil.to_owned(),
    }];
    report.both_ends = both_ends().both_ends;
    if let Some(both_ends) = &mut report.both_ends {
        both_ends.pairs = vec![Pair {
            client: evil.to_owned(),
            server: evil.to_owned(),
            client_tcp: json!({ evil: evil, "state": evil }),
            server_tcp: json!(evil),
        }];
    }
    report.found = find_max().found;
    if let Some(found) = &mut report.found {
        found.objective = evil.to_owned();
    }
    report
}

/// All of them.
pub(crate) fn all() -> Vec<Report> {
    vec![
        open_loop(),
        closed_loop(),
        both_ends(),
        find_max(),
        invalid(),
        silent(),
        hostile(),
    ]
}
