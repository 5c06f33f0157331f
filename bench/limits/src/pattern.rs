//! Messages that cannot be mistaken for one another.

/// Bytes without order. A message is a window into them, elsewhere for every connection and every turn, so that an
/// old, a swapped or a foreign echo is noticed, and neither a copy nor a buffer of its own is needed to check it.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
    size: usize,
}

/// A prime, so that the steps below reach every window.
const WINDOWS: u64 = 4093;

impl Pattern {
    #[must_use]
    pub fn for_size(size: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = (0..size + WINDOWS as usize)
            .map(|_| {
                // A xorshift: enough disorder, and the same in every run.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        Self { bytes, size }
    }

    #[must_use]
    pub fn message(&self, connection: usize, turn: u64) -> &[u8] {
        let window = (connection as u64 * 1009 + turn * 61) % WINDOWS;
        &self.bytes[window as usize..][..self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_neighbouring_turns_and_connections_differ() {
        let pattern = Pattern::for_size(64);
        for turn in 0..WINDOWS {
            assert_ne!(pattern.message(7, turn), pattern.message(7, turn + 1));
            assert_ne!(pattern.message(7, turn), pattern.message(8, turn));
        }
    }
}
