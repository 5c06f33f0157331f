//! What one thread has seen. Threads share nothing while they measure; their records are merged at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;
use sockeye::tcp_info::TcpInfo;

use crate::bench::tcp_account::TcpAccount;

/// Why a message was not answered, or a connection not opened, as a name for people and programs.
pub(crate) type Kind = Cow<'static, str>;

/// Times are nanoseconds.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) latency: Histogram<u64>,
    pub(crate) service: Histogram<u64>,
    pub(crate) connect: Histogram<u64>,
    pub(crate) send_lag: Histogram<u64>,
    pub(crate) to_server: Histogram<u64>,
    pub(crate) in_server: Histogram<u64>,
    pub(crate) to_client: Histogram<u64>,
    /// Answered within the measured time.
    pub(crate) messages: u64,
    pub(crate) unanswered: u64,
    /// Of those, the ones whose connection failed under them, or was not to be had.
    pub(crate) lost: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) errors: BTreeMap<Kind, u64>,
    pub(crate) reopened: u64,
    pub(crate) tcp: TcpAccount,
    pub(crate) pairs: Vec<BothSockets>,
    /// When the last message that counts was answered.
    pub(crate) last_ns: u64,
}

/// What the kernel knew of both sockets of a connection at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BothSockets {
    pub(crate) client: SocketAddr,
    pub(crate) client_tcp: TcpInfo,
    pub(crate) server_tcp: TcpInfo,
}

/// The longest time that is told from a longer one: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Of all connections that were ever open so many are kept with both their sockets.
const MOST_PAIRS: usize = 20_000;

/// Nanoseconds to an hour, to three digits: an answer can be told from one that took 0.1 % longer.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds")
}

/// As [`histogram`], to two digits: one is sent to the display several times in a second.
pub(crate) fn coarse_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("valid bounds")
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            latency: histogram(),
            service: histogram(),
            connect: histogram(),
            send_lag: histogram(),
            to_server: histogram(),
            in_server: histogram(),
            to_client: histogram(),
            messages: 0,
            unanswered: 0,
            lost: 0,
            sent_bytes: 0,
            received_bytes: 0,
            errors: BTreeMap::new(),
            reopened: 0,
            tcp: TcpAccount::new(),
            pairs: Vec::new(),
            last_ns: 0,
        }
    }

    pub(crate) fn error(&mut self, kind: Kind) {
        *self.errors.entry(kind).or_default() += 1;
    }

    pub(crate) fn pair(&mut self, pair: BothSockets) {
        if self.pairs.len() < MOST_PAIRS {
            self.pairs.push(pair);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.connect, &other.connect),
            (&mut self.send_lag, &other.send_lag),
            (&mut self.to_server, &other.to_server),
            (&mut self.in_server, &other.in_server),
            (&mut self.to_client, &other.to_client),
        ] {
            ours.add(theirs).expect("all have the same bounds");
        }
        self.messages += other.messages;
        self.unanswered += other.unanswered;
        self.lost += other.lost;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.reopened += other.reopened;
        self.last_ns = self.last_ns.max(other.last_ns);
        add_errors(&mut self.errors, &other.errors);
        self.tcp.merge(&other.tcp);
        for pair in &other.pairs {
            self.pair(*pair);
        }
    }
}

/// What one thread has seen since it was asked last.
#[derive(Debug)]
pub(crate) struct Interval {
    /// To two digits.
    pub(crate) latency: Histogram<u64>,
    pub(crate) messages: u64,
    pub(crate) errors: BTreeMap<Kind, u64>,
    /// Of a few connections, now.
    pub(crate) tcp: Vec<TcpInfo>,
    pub(crate) server_tcp: Vec<TcpInfo>,
}

impl Interval {
    pub(crate) fn new() -> Self {
        Self {
            latency: coarse_histogram(),
            messages: 0,
            errors: BTreeMap::new(),
            tcp: Vec::new(),
            server_tcp: Vec::new(),
        }
    }

    pub(crate) fn answered(&mut self, latency_ns: u64) {
        self.messages += 1;
        self.latency.saturating_record(latency_ns);
    }

    pub(crate) fn error(&mut self, kind: Kind) {
        *self.errors.entry(kind).or_default() += 1;
    }

    /// But for what the kernel knows, which is of one moment and cannot be added.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.latency
            .add(&other.latency)
            .expect("all have the same bounds");
        self.messages += other.messages;
        add_errors(&mut self.errors, &other.errors);
    }
}

fn add_errors(to: &mut BTreeMap<Kind, u64>, from: &BTreeMap<Kind, u64>) {
    for (kind, count) in from {
        *to.entry(kind.clone()).or_default() += count;
    }
}

/// How often the threads tell.
pub(crate) const INTERVAL: Duration = Duration::from_millis(250);
