//! A recording has the same entries however it is read, and these, written, are read again; what cannot be read is told
//! without a control character.

use std::io::BufReader;
use std::time::SystemTime;

use crate::connect::recording::{Entry, Recording, first_line};

pub(crate) fn check(data: &[u8]) {
    let (whole, error) = read(data, 64 * 1024);
    for capacity in [1, 2, 7] {
        assert_eq!(read(data, capacity), (whole.clone(), error.clone()));
    }
    if let Some(error) = error {
        assert!(!error.chars().any(char::is_control), "{error}");
    }
    let mut written = first_line("", SystemTime::UNIX_EPOCH);
    for entry in &whole {
        let line = entry.line();
        assert!(line.len() < 1_000 || line.len() < 8 * data.len());
        assert!(str::from_utf8(&line).is_ok_and(|line| line.trim_end().chars().all(is_seen)));
        written.extend(line);
    }
    assert_eq!(read(&written, 64 * 1024), (whole, None));
}

fn is_seen(c: char) -> bool {
    !c.is_control() && c != '\u{202e}'
}

/// What could be read, and why no more.
fn read(data: &[u8], capacity: usize) -> (Vec<Entry>, Option<String>) {
    let mut recording = Recording::new(BufReader::with_capacity(capacity, data));
    let mut entries = Vec::new();
    loop {
        match recording.next() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, None),
            Err(error) => return (entries, Some(error.to_string())),
        }
    }
}
