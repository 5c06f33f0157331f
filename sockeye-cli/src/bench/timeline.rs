//! The run piece by piece, while it goes on and for the charts. Pure.

use std::collections::BTreeMap;

use sockeye::tcp_info::TcpInfo;

use crate::bench::recorder::{INTERVAL, Interval, Kind};
use crate::bench::report::{Point, Spread, TcpPoint};

/// Pieces, each with its beginning in nanoseconds since the origin.
#[derive(Debug)]
pub(crate) struct Timeline {
    pieces: Vec<Piece>,
    /// What has come since the last tick.
    current: Interval,
    /// What the kernel knew at last of the connections of each thread that are looked at, and of their other ends.
    tcp: BTreeMap<usize, (Vec<TcpInfo>, Vec<TcpInfo>)>,
    begun_ns: u64,
    measure_ns: u64,
    /// Ticks that make a piece, and those of the current one.
    ticks_per_piece: u32,
    ticks: u32,
}

#[derive(Debug)]
struct Piece {
    at_ns: u64,
    length_ns: u64,
    interval: Interval,
}

impl Piece {
    /// With the one that follows.
    fn extend(&mut self, next: Self) {
        self.length_ns += next.length_ns;
        self.interval.merge(&next.interval);
        if !next.interval.tcp.is_empty() {
            self.interval.tcp = next.interval.tcp;
            self.interval.server_tcp = next.interval.server_tcp;
        }
    }
}

/// More are merged by twos: a page shows no more, and a run may last for days.
const MOST_PIECES: usize = 300;

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            current: Interval::new(),
            tcp: BTreeMap::new(),
            begun_ns: 0,
            measure_ns: 0,
            ticks_per_piece: 1,
            ticks: 0,
        }
    }

    /// What came before, while connections were opened, is of no piece.
    pub(crate) fn begin(&mut self, now_ns: u64, measure_ns: u64) {
        self.current = Interval::new();
        self.begun_ns = now_ns;
        self.measure_ns = measure_ns;
    }

    pub(crate) fn take(&mut self, thread: usize, interval: Interval) {
        self.current.merge(&interval);
        if !interval.tcp.is_empty() {
            self.tcp.insert(thread, (interval.tcp, interval.server_tcp));
        }
    }

    /// Ends a piece, if it is time.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        if now_ns <= self.begun_ns {
            return;
        }
        self.ticks += 1;
        if self.ticks >= self.ticks_per_piece {
            self.end_piece(now_ns);
        }
    }

    /// Ends the last piece. What is left is a piece of its own only if it is no splinter.
    pub(crate) fn finish(&mut self, now_ns: u64) {
        let whole = INTERVAL.as_nanos() as u64 * u64::from(self.ticks_per_piece);
        let begun_ns = self.begun_ns;
        self.end_piece(now_ns.max(begun_ns));
        let is_splinter = now_ns.saturating_sub(begun_ns) < whole / 2;
        // The warm-up is another matter.
        if is_splinter
            && begun_ns != self.measure_ns
            && let Some(splinter) = self.pieces.pop()
        {
            match self.pieces.last_mut() {
                Some(last) => last.extend(splinter),
                None => self.pieces.push(splinter),
            }
        }
    }

    fn end_piece(&mut self, now_ns: u64) {
        self.ticks = 0;
        for (ours, servers) in std::mem::take(&mut self.tcp).into_values() {
            self.current.tcp.extend(ours);
            self.current.server_tcp.extend(servers);
        }
        self.pieces.push(Piece {
            at_ns: self.begun_ns,
            length_ns: now_ns - self.begun_ns,
            interval: std::mem::replace(&mut self.current, Interval::new()),
        });
        self.begun_ns = now_ns;
        if self.pieces.len() > MOST_PIECES {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let mut all = std::mem::take(&mut self.pieces).into_iter();
        while let Some(mut first) = all.next() {
            if let Some(second) = all.next() {
                first.extend(second);
            }
            self.pieces.push(first);
        }
        self.ticks_per_piece *= 2;
    }

    /// The last piece that is complete.
    pub(crate) fn last(&self) -> Option<Point> {
        self.pieces.last().map(|piece| self.point(piece))
    }

    /// Since the beginning of the warm-up.
    pub(crate) fn errors(&self) -> BTreeMap<Kind, u64> {
        let mut all = self.current.errors.clone();
        for piece in &self.pieces {
            for (kind, count) in &piece.interval.errors {
                *all.entry(kind.clone()).or_default() += count;
            }
        }
        all
    }

    /// Of the pieces within the last second.
    pub(crate) fn last_second_rate(&self) -> Option<f64> {
        let (mut messages, mut ns) = (0, 0);
        for piece in self.pieces.iter().rev() {
            messages += piece.interval.messages;
            ns += piece.length_ns;
            if ns >= 950_000_000 {
                break;
            }
        }
        (ns > 0).then(|| messages as f64 * 1e9 / ns as f64)
    }

    pub(crate) fn points(&self) -> Vec<Point> {
        self.pieces.iter().map(|piece| self.point(piece)).collect()
    }

    fn point(&self, piece: &Piece) -> Point {
        let interval = &piece.interval;
        let us = |quantile| {
            let some = !interval.latency.is_empty();
            some.then(|| interval.latency.value_at_quantile(quantile) as f64 / 1e3)
        };
        Point {
            at_ms: (piece.at_ns as f64 - self.measure_ns as f64) / 1e6,
            length_ms: piece.length_ns as f64 / 1e6,
            messages: interval.messages,
            messages_per_s: interval.messages as f64 * 1e9 / piece.length_ns as f64,
            errors: interval.errors.values().sum(),
            p50_us: us(0.5),
            p99_us: us(0.99),
            max_us: us(1.0),
            tcp: tcp_point(&interval.tcp),
            server_tcp: tcp_point(&interval.server_tcp),
        }
    }
}

fn tcp_point(all: &[TcpInfo]) -> Option<TcpPoint> {
    let median = |field: fn(&TcpInfo) -> Option<u32>| {
        Spread::of(all.iter().filter_map(field).map(f64::from)).map(|spread| spread.median)
    };
    Some(TcpPoint {
        rtt_us: median(|info| info.rtt_us)?,
        cwnd: median(|info| info.snd_cwnd)?,
        retransmitted: all
            .iter()
            .filter_map(|info| info.total_retrans)
            .map(u64::from)
            .sum(),
    })
}
