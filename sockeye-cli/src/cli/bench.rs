//! `sockeye bench`: its options.

use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bench::threshold::Threshold;
use crate::cli::TEMPLATE;
use crate::cli::quantity::{at_least_one, bytes, rate};
use crate::cli::securing::SecuringOptions;
use crate::cli::time::{duration, positive};

const BENCH_EXAMPLES: &str = "\
Examples:
  sockeye bench :7000                                 as fast as it goes, 10 s
  sockeye bench --rate 20k --fail-if 'p99>5ms' :7000  on schedule; exit code 1 if it is slower
  sockeye bench --http /index.html -c 100 --html page.html example.com:80
  sockeye bench --find-max 'p99<5ms' :7000            the highest rate that holds
  sockeye bench --serve                               both ends here: where does the time go?

";

const BENCH_NOTES: &str = "\
Without --rate each connection sends its next message when it has the answer to the last one: a closed loop. A server \
that stalls is asked less meanwhile, so the stall hardly shows. With --rate there is a schedule, and every latency is \
counted from the instant at which the message was due, whatever kept it.

A run that cannot be trusted says so, with the reason, and has \"valid\": false in --json; with --fail-if and --find-max \
it is exit code 1. docs/bench.md tells what every figure means.

Exit codes: 0 done, 1 a threshold is broken or nothing holds, 2 usage, 6 the name does not resolve, 7 no connection, \
28 timeout, 35 no TLS, 60 the certificate is not to be trusted, 130 interrupted.";

const LOAD: &str = "Load";
const RESULT: &str = "Result";

/// Measure a server: how much it takes, how fast it answers.
#[derive(Clone, Debug, Args)]
#[command(
    help_template = TEMPLATE,
    before_help = BENCH_EXAMPLES,
    after_long_help = BENCH_NOTES
)]
pub(crate) struct Bench {
    /// HOST PORT, HOST:PORT, [::1]:PORT, :PORT (this machine), tls://HOST:PORT or unix:PATH
    #[arg(value_name = "ADDRESS", required_unless_present = "serve", num_args = 1..=2)]
    pub(crate) address: Vec<String>,

    /// What a message is: echo, stream, connect, http [default: echo]
    ///
    /// echo: --size bytes, and as many back. stream: --size bytes, of which only the sending is waited for; what comes is
    /// read and counted. connect: a new connection, with --size more than 0 also an echo on it, and its end. http: a GET
    /// and its answer.
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = true, help_heading = LOAD)]
    pub(crate) mode: Option<Mode>,

    /// Connections at a time
    #[arg(short, long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>, default_value = "64", help_heading = LOAD)]
    pub(crate) connections: NonZeroUsize,

    /// Measure for so long [default: 10s; --find-max: 3s]
    #[arg(short, long, value_name = "TIME", value_parser = positive, help_heading = LOAD)]
    pub(crate) duration: Option<Duration>,

    /// Measure so many messages instead
    #[arg(short = 'n', long, value_name = "N", value_parser = at_least_one::<NonZeroU64>, conflicts_with = "duration", help_heading = LOAD)]
    pub(crate) messages: Option<NonZeroU64>,

    /// Messages per second in all, on schedule [default: as fast as answers come]
    #[arg(short, long, value_name = "RATE", value_parser = rate, help_heading = LOAD)]
    pub(crate) rate: Option<f64>,

    /// How the schedule is spaced: constant, poisson
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Arrivals::Constant, hide_possible_values = true, help_heading = LOAD, hide_short_help = true)]
    pub(crate) arrivals: Arrivals,

    /// Bytes in a message [default: 64; connect: 0]
    #[arg(short, long, value_name = "SIZE", value_parser = bytes, help_heading = LOAD)]
    pub(crate) size: Option<usize>,

    /// Messages under way on a connection at most
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>, default_value = "1", help_heading = LOAD)]
    pub(crate) pipeline: NonZeroUsize,

    /// What is sent before the measured time, and not counted
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s", help_heading = LOAD, hide_short_help = true)]
    pub(crate) warmup: Duration,

    /// Threads [default: half of the CPUs]
    #[arg(short, long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>, help_heading = LOAD, hide_short_help = true)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// GET this over HTTP/1.1, as --mode http does [default: /]
    #[arg(long, value_name = "PATH", help_heading = LOAD)]
    pub(crate) http: Option<String>,

    /// Compare every byte that comes back
    #[arg(long, help_heading = LOAD)]
    pub(crate) verify: bool,

    /// Close each connection after so long, and open a new one
    #[arg(long, value_name = "TIME", value_parser = positive, hide_short_help = true, help_heading = LOAD)]
    pub(crate) lifetime: Option<Duration>,

    /// How we end a connection: fin, reset
    ///
    /// After a FIN of ours the port is kept for a minute (TIME_WAIT), on loopback for a second; a reset frees it at once, and many servers count it as an
    /// error.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Close::Fin, hide_possible_values = true, hide_short_help = true, help_heading = LOAD)]
    pub(crate) close: Close,

    /// Connect from all addresses of this network in turn: past 28,000 connections
    #[arg(long, value_name = "CIDR", value_parser = source, hide_short_help = true, help_heading = LOAD)]
    pub(crate) source: Option<IpNet>,

    /// An answer that takes longer is an error, and its connection is opened again
    #[arg(long, value_name = "TIME", value_parser = positive, default_value = "10s", hide_short_help = true, help_heading = LOAD)]
    pub(crate) timeout: Duration,

    /// Of the poisson schedule [default: another one each time]
    #[arg(long, value_name = "N", hide_short_help = true, help_heading = LOAD)]
    pub(crate) seed: Option<u64>,

    /// Both ends in this process, over TCP: an echo server here, or at ADDRESS
    #[arg(long, help_heading = LOAD)]
    pub(crate) serve: bool,

    /// The server's process, to count its CPU time
    #[arg(long, value_name = "PID", conflicts_with = "serve", help_heading = RESULT)]
    pub(crate) pid: Option<u32>,

    /// Exit code 1 if so: 'p99>5ms', 'rate<10k', 'errors>0'; may be repeated
    ///
    /// Of latency: pN (p50, p99.9, ...), mean, max. Also rate (messages per second), errors (of all kinds), unanswered,
    /// retransmitted (segments), cpu and server-cpu (per message).
    #[arg(long, value_name = "CONDITION", help_heading = RESULT)]
    pub(crate) fail_if: Vec<Threshold>,

    /// Look for the highest rate at which it holds: 'p99<5ms'
    ///
    /// Each rate is tried for --duration; the one found is tried three times more.
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["rate", "messages"], help_heading = RESULT)]
    pub(crate) find_max: Option<Threshold>,

    /// One JSON object on stdout (docs/bench.md)
    #[arg(long, help_heading = RESULT)]
    pub(crate) json: bool,

    /// Write the latencies as HdrHistogram's plotter reads them
    #[arg(long, value_name = "FILE", help_heading = RESULT, hide_short_help = true)]
    pub(crate) hgrm: Option<PathBuf>,

    /// Write a page with charts
    #[arg(long, value_name = "FILE", help_heading = RESULT)]
    pub(crate) html: Option<PathBuf>,

    /// Compare with an earlier run's --json
    #[arg(long, value_name = "OLD.json", help_heading = RESULT, hide_short_help = true)]
    pub(crate) compare: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) securing: SecuringOptions,

    /// Say nothing but errors and the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What a message is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Echo,
    Stream,
    Connect,
    Http,
}

/// How a schedule is spaced.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Always the same time between two messages.
    Constant,
    /// Independent of one another, as those of many users are.
    Poisson,
}

/// How we end a connection.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Close {
    Fin,
    Reset,
}

/// A network, or an address alone.
fn source(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "write an IP address, or a network such as 127.0.0.0/24".to_owned())
}
