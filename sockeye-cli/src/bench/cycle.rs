//! The bytes that are sent: the same ones over and over, so that what comes back can be compared without being kept. Pure.

/// An endless stream of bytes that repeats itself.
#[derive(Debug)]
pub(crate) struct Cycle {
    /// Some periods, so that a piece of any length up to [`PIECE`] lies in one.
    table: Vec<u8>,
    period: usize,
}

/// What is written or compared at once, at most: as much as is read at once.
const PIECE: usize = 64 * 1024;

impl Cycle {
    /// Random bytes. The period is a prime, so that no message of a usual size can be taken for its neighbour; and short,
    /// so that it stays in the processor's cache.
    pub(crate) fn noise(seed: u64) -> Self {
        const PERIOD: usize = 4093;
        let mut random = fastrand::Rng::with_seed(seed);
        Self::of((0..PERIOD).map(|_| random.u8(..)).collect())
    }

    /// One message, again and again. It must not be empty.
    pub(crate) fn of(message: Vec<u8>) -> Self {
        let period = message.len();
        let table = message.iter().copied().cycle();
        Self {
            table: table.take(PIECE + period).collect(),
            period,
        }
    }

    /// What stands at a position of the stream: at most so many bytes, at least one if any is asked for.
    pub(crate) fn at(&self, position: u64, most: u64) -> &[u8] {
        let start = (position % self.period as u64) as usize;
        let length = (PIECE as u64).min(most) as usize;
        &self.table[start..start + length]
    }

    /// Whether these bytes stand at a position of the stream. At most [`PIECE`] of them, which is what a read gives.
    pub(crate) fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        bytes
            .chunks(PIECE)
            .scan(position, |at, chunk| {
                let same = self.at(*at, chunk.len() as u64) == chunk;
                *at += chunk.len() as u64;
                Some(same)
            })
            .all(|same| same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_the_stream_is_the_same_stream() {
        let cycle = Cycle::noise(1);
        let mut whole = Vec::new();
        while whole.len() < 300_000 {
            whole.extend_from_slice(cycle.at(whole.len() as u64, 7919));
        }
        for (start, length) in [
            (0, 1),
            (1, 64),
            (4092, 2),
            (4093, 65_536),
            (100_000, 200_000),
        ] {
            assert!(cycle.matches(start as u64, &whole[start..start + length]));
        }
    }

    #[test]
    fn a_lost_a_doubled_and_a_changed_byte_are_seen() {
        let cycle = Cycle::noise(1);
        let sent = cycle.at(0, 64).to_vec();
        let (lost, doubled) = (&sent[1..], [&sent[..1], &sent[..]].concat());
        assert!(!cycle.matches(0, lost));
        assert!(!cycle.matches(0, &doubled));
        let mut changed = sent.clone();
        changed[63] ^= 1;
        assert!(!cycle.matches(0, &changed));
        // The next message is another one.
        assert!(!cycle.matches(64, &sent));
    }
}
