//! Bytes for people, in the form in which a script writes them: no byte of a peer reaches a terminal or a log otherwise.

use std::fmt;

/// How many bytes of what came are shown, and so kept for that.
pub(crate) const SHOWN_BYTES: usize = 64;

/// Bytes in quotes, the first of them if they are many.
pub(crate) struct Quoted<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, more) = match self.0.split_at_checked(SHOWN_BYTES) {
            Some((shown, rest)) if !rest.is_empty() => (shown, "..."),
            _ => (self.0, ""),
        };
        write!(f, "\"{}\"{more}", escape(shown))
    }
}

/// As within the quotes of a script.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}
