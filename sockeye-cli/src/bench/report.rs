//! What a run found: the object that `--json` prints and `--compare` reads. Names carry their units; docs/bench.md tells
//! what each means.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::cli::bench::{Arrivals, Close, Mode};

/// One run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// The version of this program.
    pub(crate) sockeye: String,
    /// The address as it was typed.
    pub(crate) target: String,
    pub(crate) mode: Mode,
    #[serde(rename = "loop")]
    pub(crate) loop_kind: Loop,
    /// Whether the figures are what they are taken for; if not, `invalid` tells why.
    pub(crate) valid: bool,
    pub(crate) invalid: Vec<Finding>,
    /// What does not make the run worthless, and should be known.
    pub(crate) warnings: Vec<Finding>,
    pub(crate) asked: Asked,
    pub(crate) connections: Connections,
    /// How long was measured: from the end of the warm-up to the last message that was due.
    pub(crate) measured_ms: f64,
    /// Answered within the measured time, whenever they were due.
    pub(crate) messages: u64,
    pub(crate) messages_per_s: f64,
    /// Due within the measured time and never answered. They are in `latency` with the time that they had waited by then,
    /// which is less than what they would have taken.
    pub(crate) unanswered: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes_per_s: f64,
    pub(crate) received_bytes_per_s: f64,
    /// By kind: `reset`, `closed`, `refused`, `timeout`, `http_503`, ... and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// In an open loop from the instant a message was due, in a closed loop from its sending, to its whole answer.
    pub(crate) latency: Latency,
    /// From the sending, in both.
    pub(crate) service: Latency,
    /// From the first SYN until a connection could be used: with it the PROXY header and the TLS handshake.
    pub(crate) connect: Latency,
    /// How much later than it could a message was sent: the generator's own lateness. Of an open loop only.
    pub(crate) send_lag: Option<Latency>,
    pub(crate) own: Cost,
    /// With `--pid`, or `--serve`.
    pub(crate) server: Option<Cost>,
    /// Of all connections at their end.
    pub(crate) tcp: Option<TcpSummary>,
    pub(crate) timeline: Vec<Point>,
    /// With `--serve`.
    pub(crate) both_ends: Option<BothEnds>,
    /// With `--fail-if`.
    pub(crate) thresholds: Vec<Verdict>,
    /// With `--find-max`; the rest of the report is then that of the last run at the rate found.
    pub(crate) found: Option<Found>,
}

/// Who decides when the next message is sent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Loop {
    /// A schedule.
    Open,
    /// The server, with its answer to the one before: a server that stalls is asked less.
    Closed,
}

/// One thing that was noticed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// For programs: `generator_late`, `generator_busy`, `few_served`, ...
    pub(crate) kind: String,
    /// For people.
    pub(crate) text: String,
}

/// What the command line asked for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Asked {
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) rate_per_s: Option<f64>,
    pub(crate) arrivals: Option<Arrivals>,
    /// Of a random schedule.
    pub(crate) seed: Option<u64>,
    pub(crate) size_bytes: usize,
    pub(crate) pipeline: usize,
    pub(crate) duration_ms: Option<f64>,
    pub(crate) messages: Option<NonZeroU64>,
    pub(crate) warmup_ms: f64,
    pub(crate) lifetime_ms: Option<f64>,
    pub(crate) timeout_ms: f64,
    pub(crate) close: Close,
    /// The path of the requests.
    pub(crate) http: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) tls: bool,
    pub(crate) send_proxy: bool,
    pub(crate) verify: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Connections {
    pub(crate) asked: usize,
    /// Were open when the warm-up began.
    pub(crate) opened: usize,
    /// Were to have sent something in the measured time: at a low rate not all have their turn.
    pub(crate) due: usize,
    /// Had at least one message answered in the measured time.
    pub(crate) served: usize,
    /// Opened again, after an error or their `--lifetime`.
    pub(crate) reopened: u64,
}

/// A distribution of times. A percentile is `None` where fewer than [`Latency::LEAST_BEYOND`] values lie beyond it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) stddev_us: f64,
    pub(crate) min_us: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p75_us: Option<f64>,
    pub(crate) p90_us: Option<f64>,
    pub(crate) p95_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p99_9_us: Option<f64>,
    pub(crate) p99_99_us: Option<f64>,
    pub(crate) max_us: f64,
    /// All of it, in nanoseconds: HdrHistogram V2, deflated, in base64, as the log analysers of HdrHistogram read it.
    pub(crate) histogram: String,
}

/// What a process used of its CPUs in the measured time.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Cost {
    /// For each message answered in the measured time. Waiting for the next message that is due, which an open loop does
    /// by spinning, is not in it.
    pub(crate) cpu_ns_per_message: Option<f64>,
    /// Of the measured time, all threads together: 1.0 is one whole CPU. Without the spinning.
    pub(crate) cpu_share: f64,
    /// The time that its threads were ready to run and had no CPU, as a share of the measured time.
    pub(crate) cpu_wait_share: f64,
    /// Of the busiest thread: 1.0 is a CPU that it never left.
    pub(crate) busiest_thread_share: f64,
}

/// Of several connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// What the kernel knows of the connections, see docs/events.md, `tcp_info`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct TcpSummary {
    pub(crate) connections: usize,
    /// Segments, of all connections together.
    pub(crate) retransmitted: u64,
    pub(crate) retransmitted_bytes: u64,
    pub(crate) sent_segments: u64,
    pub(crate) rtt_us: Option<Spread>,
    pub(crate) rttvar_us: Option<Spread>,
    pub(crate) min_rtt_us: Option<Spread>,
    /// Segments.
    pub(crate) cwnd: Option<Spread>,
    pub(crate) delivery_rate_bytes_per_s: Option<Spread>,
    /// The share of the time that they had something to send in which the peer's window kept them from it.
    pub(crate) rwnd_limited_share: Option<Spread>,
    /// As above, and their own send buffer did.
    pub(crate) sndbuf_limited_share: Option<Spread>,
}

/// A piece of the measured time, or of the warm-up.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Point {
    /// Its beginning. The measured time begins at 0, so that those of the warm-up are negative.
    pub(crate) at_ms: f64,
    pub(crate) length_ms: f64,
    pub(crate) messages: u64,
    pub(crate) messages_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    /// Of a few connections, at the end of the piece.
    pub(crate) tcp: Option<TcpPoint>,
    /// Of the other ends of the same, with `--serve`.
    pub(crate) server_tcp: Option<TcpPoint>,
}

/// What the kernel knows of a few connections at one moment: medians, and the sum of the retransmissions so far.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct TcpPoint {
    pub(crate) rtt_us: f64,
    pub(crate) cwnd: f64,
    pub(crate) retransmitted: u64,
}

/// Both ends of the same connections, on one clock.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct BothEnds {
    /// From the sending until the server had read the message.
    pub(crate) to_server: Latency,
    /// From there until it wrote the answer.
    pub(crate) in_server: Latency,
    /// From there until we had read it.
    pub(crate) to_client: Latency,
    pub(crate) server_tcp: Option<TcpSummary>,
    /// A few of the connections, with what the kernel knew of both sockets.
    pub(crate) pairs: Vec<Pair>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Pair {
    pub(crate) client: String,
    pub(crate) server: String,
    /// `tcp_info` as in docs/events.md.
    pub(crate) client_tcp: serde_json::Value,
    pub(crate) server_tcp: serde_json::Value,
}

/// What became of a `--fail-if`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Verdict {
    /// As it was typed: `p99>5ms`.
    pub(crate) threshold: String,
    /// In the unit of the threshold; `None` if it is not known, which breaks it.
    pub(crate) value: Option<f64>,
    pub(crate) broken: bool,
    /// For people: `p99 is 7.1 ms`.
    pub(crate) text: String,
}

/// The highest rate at which what `--find-max` asks for holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Found {
    pub(crate) objective: String,
    /// The highest rate that held in every confirmation run; `None` if none did.
    pub(crate) rate_per_s: Option<f64>,
    /// The lowest rate above it that did not hold.
    pub(crate) fails_at_per_s: Option<f64>,
    /// What the objective is about, in the confirmation runs, in its unit.
    pub(crate) confirmed: Option<Spread>,
    /// Whether the generator, and not the server, was what did not hold.
    pub(crate) limited_by_generator: bool,
    pub(crate) trials: Vec<Trial>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Trial {
    pub(crate) rate_per_s: f64,
    pub(crate) value: Option<f64>,
    pub(crate) held: bool,
    pub(crate) valid: bool,
    /// Whether it is the generator's fault that it is not valid.
    pub(crate) by_generator: bool,
    /// Of the search, or of its confirmation.
    pub(crate) confirms: bool,
}

impl Report {
    pub(crate) fn has_warning(&self, kind: &str) -> bool {
        self.warnings.iter().any(|finding| finding.kind == kind)
    }
}

impl Latency {
    /// Fewer values beyond a percentile say nothing of it: the next run finds another one.
    pub(crate) const LEAST_BEYOND: u64 = 10;

    /// Of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: f64| ns / 1000.0;
        let at = |percentile| at(histogram, percentile);
        Self {
            count: histogram.len(),
            mean_us: us(histogram.mean()),
            stddev_us: us(histogram.stdev()),
            min_us: us(histogram.min() as f64),
            p50_us: at(50.0),
            p75_us: at(75.0),
            p90_us: at(90.0),
            p95_us: at(95.0),
            p99_us: at(99.0),
            p99_9_us: at(99.9),
            p99_99_us: at(99.99),
            max_us: us(histogram.max() as f64),
            histogram: encoded(histogram),
        }
    }

    /// All of it, in nanoseconds; `None` if it is not what we write.
    pub(crate) fn distribution(&self) -> Option<Histogram<u64>> {
        let bytes = base64::Engine::decode(&BASE64, &self.histogram).ok()?;
        Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
    }

    /// In microseconds, if there are enough values to tell.
    pub(crate) fn percentile(&self, percentile: f64) -> Option<f64> {
        at(&self.distribution()?, percentile)
    }

    /// How many values are needed for a percentile.
    pub(crate) fn count_for(percentile: f64) -> u64 {
        let beyond = (100.0 - percentile) / 100.0;
        // 1 - 0.99 is a little more than 0.01: without rounding it would take one value too many.
        (Self::LEAST_BEYOND as f64 / beyond - 1e-6).ceil() as u64
    }
}

const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

fn at(histogram: &Histogram<u64>, percentile: f64) -> Option<f64> {
    let enough = histogram.len() >= Latency::count_for(percentile);
    enough.then(|| histogram.value_at_percentile(percentile) as f64 / 1000.0)
}

fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail, and there is no count that the format does not hold.
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    debug_assert!(written.is_ok(), "a histogram that cannot be written");
    base64::Engine::encode(&BASE64, &bytes)
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            min: *values.first()?,
            median: values[values.len() / 2],
            max: *values.last()?,
        })
    }
}
