//! What the kernel knew of connections at their end: sums over all of them, and spreads over a part.

use sockeye::tcp_info::TcpInfo;

use crate::bench::report::{Spread, TcpSummary};

/// A number of connections that has no limit, in memory that has one.
#[derive(Clone, Debug)]
pub(crate) struct TcpAccount {
    connections: usize,
    retransmitted: u64,
    retransmitted_bytes: u64,
    sent_segments: u64,
    /// From the first to the last, evenly.
    sample: Vec<TcpInfo>,
    /// One of so many is in the sample.
    stride: usize,
}

/// The largest sample: 5 MB.
const MOST: usize = 20_000;

impl TcpAccount {
    pub(crate) fn new() -> Self {
        Self {
            connections: 0,
            retransmitted: 0,
            retransmitted_bytes: 0,
            sent_segments: 0,
            sample: Vec::new(),
            stride: 1,
        }
    }

    pub(crate) fn add(&mut self, info: TcpInfo) {
        if self.connections.is_multiple_of(self.stride) {
            self.sample.push(info);
            self.thin();
        }
        self.connections += 1;
        self.retransmitted += u64::from(info.total_retrans.unwrap_or(0));
        self.retransmitted_bytes += info.bytes_retrans.unwrap_or(0);
        self.sent_segments += u64::from(info.data_segs_out.unwrap_or(0));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        // A connection of one thread counts as one of another.
        while self.stride < other.stride {
            self.halve();
        }
        while other.stride < self.stride {
            other.halve();
        }
        self.connections += other.connections;
        self.retransmitted += other.retransmitted;
        self.retransmitted_bytes += other.retransmitted_bytes;
        self.sent_segments += other.sent_segments;
        self.sample.append(&mut other.sample);
        self.thin();
    }

    fn thin(&mut self) {
        while self.sample.len() > MOST {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let mut number = 0;
        self.sample.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.stride *= 2;
    }

    pub(crate) fn summary(&self) -> Option<TcpSummary> {
        let spread =
            |field: fn(&TcpInfo) -> Option<f64>| Spread::of(self.sample.iter().filter_map(field));
        (self.connections > 0).then(|| TcpSummary {
            connections: self.connections,
            retransmitted: self.retransmitted,
            retransmitted_bytes: self.retransmitted_bytes,
            sent_segments: self.sent_segments,
            rtt_us: spread(|info| info.rtt_us.map(f64::from)),
            rttvar_us: spread(|info| info.rttvar_us.map(f64::from)),
            min_rtt_us: spread(|info| info.min_rtt_us.filter(|us| *us != u32::MAX).map(f64::from)),
            cwnd: spread(|info| info.snd_cwnd.map(f64::from)),
            delivery_rate_bytes_per_s: spread(|info| {
                info.delivery_rate_bytes_per_s.map(|rate| rate as f64)
            }),
            rwnd_limited_share: spread(|info| share_of_busy(info, info.rwnd_limited_us)),
            sndbuf_limited_share: spread(|info| share_of_busy(info, info.sndbuf_limited_us)),
        })
    }
}

impl Extend<TcpInfo> for TcpAccount {
    fn extend<I: IntoIterator<Item = TcpInfo>>(&mut self, all: I) {
        for info in all {
            self.add(info);
        }
    }
}

fn share_of_busy(info: &TcpInfo, limited_us: Option<u64>) -> Option<f64> {
    let busy_us = info.busy_us.filter(|us| *us > 0)?;
    Some(limited_us? as f64 / busy_us as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_rtt(rtt_us: u32) -> TcpInfo {
        let mut info = TcpInfo::default();
        info.rtt_us = Some(rtt_us);
        info.total_retrans = Some(1);
        info
    }

    #[test]
    fn the_last_of_very_many_connections_count_as_the_first() {
        const ALL: usize = 5 * MOST + 7;
        let mut thread = TcpAccount::new();
        thread.extend((0..ALL).map(|number| with_rtt(number as u32)));
        let mut both = TcpAccount::new();
        both.merge(&thread);
        both.merge(&thread);
        for (account, connections) in [(&thread, ALL), (&both, 2 * ALL)] {
            assert!(account.sample.len() <= MOST);
            let summary = account.summary().expect("there are some");
            assert_eq!(summary.connections, connections);
            assert_eq!(summary.retransmitted, connections as u64);
            let median = summary.rtt_us.expect("known").median;
            let share = median / ALL as f64;
            assert!((0.49..0.51).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_thread_with_few_connections_weighs_as_many_as_it_has() {
        let (mut busy, mut idle) = (TcpAccount::new(), TcpAccount::new());
        busy.extend((0..8 * MOST).map(|_| with_rtt(1)));
        idle.extend((0..MOST).map(|_| with_rtt(9)));
        for (mut first, second) in [(busy.clone(), &idle), (idle.clone(), &busy)] {
            first.merge(second);
            let idle = first.sample.iter().filter(|info| info.rtt_us == Some(9));
            let share = idle.count() as f64 / first.sample.len() as f64;
            assert!((0.10..0.12).contains(&share), "{share}");
        }
    }

    #[test]
    fn of_no_connection_there_is_nothing_to_tell() {
        assert!(TcpAccount::new().summary().is_none());
    }
}
