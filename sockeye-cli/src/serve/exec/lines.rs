//! What a program says on stderr, cut into lines for the log. Pure.

use crate::exit::escaped;

/// Bytes of a line that are told; the rest of it is not.
pub(super) const LINE_BYTES: usize = 1000;

/// Cuts a stream into lines, however it comes. Holds nothing while there is no half of a line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// More of the line has come than is told.
    is_cut: bool,
}

impl Lines {
    /// Hands on each line that these bytes end.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut told: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            told(self.take());
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    /// What is left when nothing more comes: a line that was not ended.
    pub(super) fn rest(&mut self) -> Option<String> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LINE_BYTES - self.begun.len();
        self.is_cut |= bytes.len() > room;
        self.begun.extend(&bytes[..bytes.len().min(room)]);
    }

    /// The line as text, with nothing in it for a terminal to obey.
    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.begun);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let mut text = escaped(&String::from_utf8_lossy(line));
        if std::mem::take(&mut self.is_cut) {
            text.push_str(" [cut]");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| told.push(line));
        }
        told.extend(lines.rest());
        told
    }

    #[test]
    fn lines_are_told_one_by_one_and_the_last_without_its_end() {
        assert_eq!(
            lines(&[b"one\r\ntwo\n\nthr", b"ee"]),
            ["one", "two", "", "three"]
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(lines(&[b"\x1b[31mred\x07\n"]), ["\\u{1b}[31mred\\u{7}"]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let mut stream = vec![b'x'; 5000];
        stream.extend(b"\nnext\n");
        let told = lines(&[&stream]);
        assert_eq!(told[0], format!("{} [cut]", "x".repeat(LINE_BYTES)));
        assert_eq!(told[1], "next");
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same_lines(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..3000),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(stream.len());
            let mut began = 0;
            let pieces: Vec<&[u8]> = ends
                .into_iter()
                .map(|end| &stream[std::mem::replace(&mut began, end)..end])
                .collect();
            let told = lines(&pieces);
            prop_assert_eq!(&told, &lines(&[&stream]));
            prop_assert!(told.iter().all(|line| !line.contains(char::is_control)));
        }
    }
}
