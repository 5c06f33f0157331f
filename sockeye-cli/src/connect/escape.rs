//! The text of `--send`: bytes that a shell's quotes cannot hold are written with a backslash.

use std::str::FromStr;

/// The bytes that a text stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Text(pub(crate) Vec<u8>);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            let Some((&kind, after)) = rest.split_first() else {
                return Err("it ends with a single \\; write \\\\ for one".to_owned());
            };
            rest = after;
            bytes.push(match kind {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'\\' => b'\\',
                b'x' => {
                    let digits = rest.get(..2).and_then(hex_byte);
                    rest = rest.get(2..).unwrap_or_default();
                    digits.ok_or("\\x needs two hexadecimal digits")?
                }
                _ => {
                    return Err(format!(
                        "unknown escape at byte {}; known are \\r \\n \\t \\0 \\\\ \\xHH",
                        text.len() - after.len() - 2
                    ));
                }
            });
        }
        Ok(Self(bytes))
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    // `from_str_radix` would take a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}
