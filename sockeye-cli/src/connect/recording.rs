//! What both sides of a connection said, and when, as lines of JSON: written by `--record`, read by `--replay`, described
//! in docs/record.md. Pure.

use std::io::{self, BufRead, Read};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the form, which the first line names.
const VERSION: u64 = 1;

/// The longest line: what 128 KiB, the most that is moved at once, can become, with as much again for editors.
pub(crate) const LINE_BYTES: usize = 1 << 20;

/// Well below what the arithmetic of clocks can take: ten years.
const LONGEST_MS: f64 = 10.0 * 365.0 * 86_400_000.0;

/// Who said it: `client` is who connected, `server` whom it connected to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Client,
    Server,
}

/// What was said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Bytes(Vec<u8>),
    /// Nothing more: FIN, and over TLS close_notify.
    End,
}

/// A line of a recording after its first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// Since the connection was there, and with TLS, since that was agreed.
    pub(crate) at: Duration,
    pub(crate) from: Side,
    pub(crate) said: Said,
}

/// Why a file is no recording that can be replayed.
#[derive(Debug, Error)]
pub(crate) enum BadRecording {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is no recording: the first line is not {{\"record\":1}} or more")]
    NotARecording,
    #[error("it is a recording in a form that this version does not know, {0}")]
    Version(u64),
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
}

#[derive(Deserialize, Serialize)]
struct Head {
    record: u64,
    #[serde(default)]
    peer: String,
    #[serde(default)]
    time: String,
}

#[derive(Deserialize, Serialize)]
struct Line {
    at_ms: f64,
    from: Side,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<bool>,
}

/// The first line of a recording, with its line end.
pub(crate) fn first_line(peer: &str, time: SystemTime) -> Vec<u8> {
    json_line(&Head {
        record: VERSION,
        peer: peer.to_owned(),
        time: humantime::format_rfc3339_millis(time).to_string(),
    })
}

impl Entry {
    /// As a line, with its line end. What is text stays text, so that a recording can be read, compared and edited.
    pub(crate) fn line(&self) -> Vec<u8> {
        let (mut text, mut base64, mut end) = (None, None, None);
        match &self.said {
            Said::End => end = Some(true),
            Said::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(valid) if valid.chars().all(is_readable) => text = Some(valid.to_owned()),
                _ => base64 = Some(STANDARD.encode(bytes)),
            },
        }
        json_line(&Line {
            // Microseconds are exact for 285 years.
            at_ms: self.at.as_micros() as f64 / 1e3,
            from: self.from,
            text,
            base64,
            end,
        })
    }

    fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| shown(&error.to_string()))?;
        if !(0.0..=LONGEST_MS).contains(&line.at_ms) {
            return Err("at_ms is from 0 to ten years".to_owned());
        }
        let said = match (line.text, line.base64, line.end) {
            (Some(text), None, None) => Said::Bytes(text.into_bytes()),
            (None, Some(base64), None) => {
                let bytes = STANDARD.decode(base64);
                Said::Bytes(bytes.map_err(|error| format!("base64: {error}"))?)
            }
            (None, None, Some(true)) => Said::End,
            _ => return Err("one of text, base64 and \"end\":true has to be in it".to_owned()),
        };
        Ok(Self {
            at: Duration::from_micros((line.at_ms * 1e3).round() as u64),
            from: line.from,
            said,
        })
    }
}

/// Whether a character can be shown as it is, or JSON writes it so that it can: nothing in a recording moves the cursor,
/// or turns the direction of writing.
fn is_readable(c: char) -> bool {
    match c {
        '\t' | '\r' | '\n' | '\x1b' => true,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        _ => !c.is_control(),
    }
}

/// What an error shows of a line can be anything.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if is_readable(c) && !c.is_control() => shown.push(c),
            _ => shown.extend(c.escape_default()),
        }
    }
    shown
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value)
        .unwrap_or_else(|error| unreachable!("only numbers and text: {error}"));
    line.push(b'\n');
    line
}

/// Reads a recording, an entry at a time, and a line of [`LINE_BYTES`] at most.
#[derive(Debug)]
pub(crate) struct Recording<R> {
    from: R,
    lines: u64,
    head_seen: bool,
    last: Duration,
    ended: [bool; 2],
}

impl<R: BufRead> Recording<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            lines: 0,
            head_seen: false,
            last: Duration::ZERO,
            ended: [false; 2],
        }
    }

    /// The next entry; `None` at the end. After an error there is no sense in going on.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, BadRecording> {
        while let Some(line) = self.line()? {
            if line.trim_ascii().is_empty() {
                continue;
            }
            if !self.head_seen {
                let head: Head =
                    serde_json::from_slice(&line).map_err(|_| BadRecording::NotARecording)?;
                if head.record != VERSION {
                    return Err(BadRecording::Version(head.record));
                }
                self.head_seen = true;
                continue;
            }
            let entry = Entry::parse(&line).map_err(|why| self.wrong(why))?;
            self.check(&entry)?;
            return Ok(Some(entry));
        }
        if self.head_seen {
            Ok(None)
        } else {
            Err(BadRecording::NotARecording)
        }
    }

    /// Whether an entry can follow those before it.
    fn check(&mut self, entry: &Entry) -> Result<(), BadRecording> {
        if entry.at < self.last {
            return Err(self.wrong("at_ms is less than on the line before".to_owned()));
        }
        if self.ended[entry.from as usize] {
            return Err(self.wrong("that side has ended before".to_owned()));
        }
        self.last = entry.at;
        self.ended[entry.from as usize] = entry.said == Said::End;
        Ok(())
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, BadRecording> {
        let mut line = Vec::new();
        self.lines += 1;
        let most = LINE_BYTES as u64 + 1;
        let read = (&mut self.from).take(most).read_until(b'\n', &mut line);
        if read.map_err(BadRecording::Read)? as u64 == most && !line.ends_with(b"\n") {
            return Err(self.wrong("it is longer than 1 MiB".to_owned()));
        }
        Ok((!line.is_empty()).then_some(line))
    }

    fn wrong(&self, why: String) -> BadRecording {
        BadRecording::Line {
            line: self.lines,
            why,
        }
    }
}

#[cfg(test)]
mod tests;
