//! The report of a run, from what was asked and what was measured. Pure.

use std::num::NonZeroU64;

use crate::bench::cpu::ThreadCpu;
use crate::bench::measure::{Measured, Own};
use crate::bench::plan::{Extent, Pace, Plan};
use crate::bench::recorder::Record;
use crate::bench::report::{
    Asked, BothEnds, Connections, Cost, Latency, Loop, Pair, Report, Verdict,
};
use crate::bench::schedule::due_connections;
use crate::bench::setup::request_path;
use crate::bench::tcp_account::TcpAccount;
use crate::bench::threshold::Threshold;
use crate::bench::verdict::Evidence;
use crate::cli::bench::{Arrivals, Bench, Mode};

/// What is known of a run beforehand and is none of the threads' business.
pub(crate) struct Frame<'a> {
    pub(crate) target: &'a str,
    pub(crate) both_ends: bool,
    pub(crate) fail_if: &'a [Threshold],
    pub(crate) percentiles: &'a [f64],
}

/// What of the plan is in the report: the threads own the plan while they run.
pub(crate) fn asked(plan: &Plan, arguments: &Bench, tls: bool) -> Asked {
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    let (rate_per_s, arrivals, seed) = match plan.pace {
        Pace::Closed => (None, None, None),
        Pace::Open {
            rate_per_s,
            arrivals,
            seed,
        } => (
            Some(rate_per_s),
            Some(arrivals),
            (arrivals == Arrivals::Poisson).then_some(seed),
        ),
    };
    let (duration_ms, messages) = match plan.extent {
        Extent::Time(time) => (Some(ms(time)), None),
        Extent::Messages(messages) => (None, Some(messages)),
    };
    Asked {
        connections: plan.connections,
        threads: plan.threads,
        rate_per_s,
        arrivals,
        seed,
        size_bytes: plan.size,
        pipeline: plan.pipeline,
        duration_ms,
        messages,
        warmup_ms: ms(plan.warmup),
        lifetime_ms: plan.lifetime.map(ms),
        timeout_ms: ms(plan.timeout),
        close: plan.close,
        http: (plan.mode == Mode::Http).then(|| request_path(arguments).to_owned()),
        source: arguments.source.map(|source| source.to_string()),
        tls,
        send_proxy: arguments.securing.send_proxy.is_some(),
        verify: plan.verify,
    }
}

/// The whole of it.
pub(crate) fn report(
    frame: &Frame<'_>,
    mode: Mode,
    asked: Asked,
    ports: Option<String>,
    measured: Measured,
) -> Report {
    let Measured {
        record, timeline, ..
    } = &measured;
    let seconds = (measured.measured_ns / 1e9).max(1e-9);
    let connections = connections(&asked, &measured);
    let own = own_cost(&measured);
    let messages_per_s = record.messages as f64 / seconds;
    let evidence = Evidence {
        asked_per_s: asked.rate_per_s,
        asked_messages: asked.messages.map(NonZeroU64::get),
        got_per_s: messages_per_s,
        measured_ns: measured.measured_ns.max(1.0),
        latency: &record.latency,
        service: &record.service,
        send_lag: &record.send_lag,
        connections: &connections,
        own: &own,
        errors: &record.errors,
        unanswered: record.unanswered,
        lost: record.lost,
        percentiles: frame.percentiles,
        ports,
        interrupted: measured.interrupted,
        mode,
        sends: mode != Mode::Stream || asked.size_bytes > 0,
    };
    let (invalid, warnings) = (evidence.invalid(), evidence.warnings());
    let errors = record.errors.iter();
    let errors = errors.map(|(kind, count)| (kind.to_string(), *count));
    let server = measured.server.as_ref();
    let mut report = Report {
        sockeye: env!("CARGO_PKG_VERSION").to_owned(),
        target: frame.target.to_owned(),
        mode,
        loop_kind: asked.rate_per_s.map_or(Loop::Closed, |_| Loop::Open),
        valid: invalid.is_empty(),
        invalid,
        warnings,
        connections,
        measured_ms: measured.measured_ns / 1e6,
        messages: record.messages,
        messages_per_s,
        unanswered: record.unanswered,
        sent_bytes: record.sent_bytes,
        received_bytes: record.received_bytes,
        sent_bytes_per_s: record.sent_bytes as f64 / seconds,
        received_bytes_per_s: record.received_bytes as f64 / seconds,
        errors: errors.collect(),
        latency: Latency::of(&record.latency),
        service: Latency::of(&record.service),
        connect: Latency::of(&record.connect),
        send_lag: asked.rate_per_s.map(|_| Latency::of(&record.send_lag)),
        own,
        server: server.map(|server| cost(server.ran_ns, &server.threads(), &measured)),
        tcp: record.tcp.summary(),
        timeline: timeline.points(),
        both_ends: frame.both_ends.then(|| both_ends(frame, record)),
        thresholds: Vec::new(),
        found: None,
        asked,
    };
    report.thresholds = verdicts(&report, frame.fail_if);
    report
}

fn verdicts(report: &Report, fail_if: &[Threshold]) -> Vec<Verdict> {
    let verdicts = fail_if.iter().map(|threshold| threshold.verdict(report));
    verdicts.collect()
}

/// So many connections are shown with both their sockets.
const PAIRS_SHOWN: usize = 16;

fn both_ends(frame: &Frame<'_>, record: &Record) -> BothEnds {
    let pairs = record.pairs.iter().take(PAIRS_SHOWN);
    let value = |info| serde_json::to_value(info).unwrap_or_default();
    let mut servers = TcpAccount::new();
    servers.extend(record.pairs.iter().map(|pair| pair.server_tcp));
    BothEnds {
        to_server: Latency::of(&record.to_server),
        in_server: Latency::of(&record.in_server),
        to_client: Latency::of(&record.to_client),
        server_tcp: servers.summary(),
        pairs: pairs
            .map(|pair| Pair {
                client: pair.client.to_string(),
                server: frame.target.to_owned(),
                client_tcp: value(pair.client_tcp),
                server_tcp: value(pair.server_tcp),
            })
            .collect(),
    }
}

fn connections(asked: &Asked, measured: &Measured) -> Connections {
    let all = asked.connections;
    let measured_s = measured.measured_ns / 1e9;
    let from_ns = (asked.warmup_ms * 1e6).round() as u64;
    let turns = from_ns..from_ns + measured.measured_ns as u64;
    let by_rate = asked.rate_per_s.map_or(all, |rate| match asked.arrivals {
        Some(Arrivals::Constant) => due_connections(rate, all, turns),
        // By chance some have no turn, unless there are very many turns.
        _ if rate * measured_s > 20.0 * all as f64 => all,
        _ => measured.served,
    });
    let by_count = asked.messages.map_or(all, |messages| {
        if asked.rate_per_s.is_some() || messages.get() < 20 * all as u64 {
            // Whoever is quick takes from the slow ones.
            measured.served
        } else {
            all
        }
    });
    Connections {
        asked: all,
        opened: measured.opened,
        due: by_rate.min(by_count),
        served: measured.served,
        reopened: measured.record.reopened,
    }
}

fn own_cost(measured: &Measured) -> Cost {
    let busy = |own: &Own| ThreadCpu {
        ran_ns: own.cpu.ran_ns.saturating_sub(own.spun_ns),
        waited_ns: own.cpu.waited_ns,
    };
    let threads: Vec<ThreadCpu> = measured.own.iter().map(busy).collect();
    let all_ns = threads.iter().map(|thread| thread.ran_ns).sum();
    let mut cost = cost(all_ns, &threads, measured);
    // Of one thread: that another one waited does not make it less true of each.
    cost.cpu_wait_share /= threads.len().max(1) as f64;
    cost
}

fn cost(all_ns: u64, threads: &[ThreadCpu], measured: &Measured) -> Cost {
    let messages = measured.record.messages;
    let waited_ns: u64 = threads.iter().map(|thread| thread.waited_ns).sum();
    let busiest = threads.iter().map(|thread| thread.ran_ns).max();
    let share = |ns: u64| ns as f64 / measured.measured_ns.max(1.0);
    Cost {
        cpu_ns_per_message: (messages > 0).then(|| all_ns as f64 / messages as f64),
        cpu_share: share(all_ns),
        cpu_wait_share: share(waited_ns),
        busiest_thread_share: share(busiest.unwrap_or(0)),
    }
}
