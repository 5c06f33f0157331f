//! `--hex`: what is received as hexadecimal and text, in the form of `hexdump -C`.
//!
//! A row ends where a read ended, so that what came together stands together; the offset counts on.

use std::fmt::Write as _;
use std::io::{self, Write};

const ROW_BYTES: usize = 16;

/// Writes a dump of what is written to it.
pub(crate) struct Dump<W> {
    to: W,
    offset: u64,
}

impl<W: Write> Dump<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, offset: 0 }
    }
}

impl<W: Write> Write for Dump<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rows = String::with_capacity(bytes.len() * 5);
        for row in bytes.chunks(ROW_BYTES) {
            push_row(&mut rows, self.offset, row);
            self.offset += row.len() as u64;
        }
        self.to.write_all(rows.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn push_row(rows: &mut String, offset: u64, row: &[u8]) {
    // Writing to a string cannot fail.
    let _ = write!(rows, "{offset:08x} ");
    for column in 0..ROW_BYTES {
        rows.push_str(if column == ROW_BYTES / 2 { "  " } else { " " });
        match row.get(column) {
            Some(byte) => {
                let _ = write!(rows, "{byte:02x}");
            }
            None => rows.push_str("  "),
        }
    }
    rows.push_str("  |");
    rows.extend(row.iter().map(|&byte| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '.',
    }));
    rows.push_str("|\n");
}
