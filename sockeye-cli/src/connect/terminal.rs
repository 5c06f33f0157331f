//! What a server sends, on a terminal: text is shown, control characters are shown and not obeyed.
//!
//! A terminal obeys escape sequences from whoever writes to it: they move the cursor over what stands there, set the
//! title, and on some terminals type for the user.

use std::io::{self, Write};

/// Passes text on; shows control characters as `^X`, those of Unicode's second block and bytes that are no UTF-8 as
/// `\xHH`. Line ends, CRLF included, and tabs are obeyed.
///
/// A character that was cut by the network is held until its rest comes.
pub(crate) struct Shown<W> {
    to: W,
    /// At most a CR, or three bytes of a character.
    held: Vec<u8>,
}

impl<W: Write> Shown<W> {
    pub(crate) fn new(to: W) -> Self {
        Self {
            to,
            held: Vec::new(),
        }
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.held);
        let keep = held_back(&all);
        let (now, later) = all.split_at(all.len() - keep);
        self.held = later.to_vec();
        self.to.write_all(shown(now).as_bytes())?;
        Ok(bytes.len())
    }

    /// The stream is over: what was held has no rest to come.
    fn flush(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        self.to.write_all(shown(&held).as_bytes())?;
        self.to.flush()
    }
}

/// How many bytes at the end are not decided yet.
fn held_back(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    match bytes.utf8_chunks().last() {
        Some(last) if is_cut_character(last.invalid()) => last.invalid().len(),
        _ => 0,
    }
}

/// Whether more bytes could make a character of it.
fn is_cut_character(bytes: &[u8]) -> bool {
    match str::from_utf8(bytes) {
        Err(error) => error.error_len().is_none(),
        Ok(_) => false,
    }
}

fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut characters = chunk.valid().chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '\n' | '\t' => text.push(c),
                '\r' if characters.peek() == Some(&'\n') => {}
                '\0'..='\x1f' => text.extend(['^', char::from(c as u8 ^ 0x40)]),
                '\x7f' => text.push_str("^?"),
                '\u{80}'..='\u{9f}' => text.push_str(&format!("\\x{:02x}", c as u32)),
                _ => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut shown = Shown::new(&mut out);
        for piece in pieces {
            shown.write_all(piece).expect("a Vec takes all");
        }
        shown.flush().expect("a Vec takes all");
        String::from_utf8(out).expect("what is shown is text")
    }

    #[test]
    fn text_passes_and_control_characters_are_shown() {
        let cases: [(&[u8], &str); 7] = [
            (
                "Gr\u{fc}\u{df}e \u{1f41f}\tok\r\n".as_bytes(),
                "Gr\u{fc}\u{df}e \u{1f41f}\tok\n",
            ),
            (b"\x1b]0;title\x07", "^[]0;title^G"),
            (b"over\rwritten", "over^Mwritten"),
            (b"\x7f\x00", "^?^@"),
            ("\u{9b}31m".as_bytes(), "\\x9b31m"),
            (b"\xff\xc3(", "\\xff\\xc3("),
            (b"\xf0\x9f", "\\xf0\\x9f"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(show(&[bytes]), expected);
        }
    }

    proptest! {
        #[test]
        fn every_cut_shows_the_same_and_nothing_to_obey(
            bytes in prop::collection::vec(
                prop::sample::select(&b"a\r\n\x1b\xf0\x9f\x90\x9f\xc3\xbc\xc2\x9b"[..]), 0..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = show(&[&bytes]);
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(&show(&[head, tail]), &whole);
            prop_assert!(whole.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        }
    }
}
