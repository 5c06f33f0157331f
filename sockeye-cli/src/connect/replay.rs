//! `--replay`: one side of a recording is said again, and the other is what is expected to be answered.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::num::NonZeroU64;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::connect::progress::Progress;
use crate::connect::recording::{BadRecording, Entry, Recording, Said, Side};
use crate::exit::Failure;

/// Pieces that are read ahead, 1 MiB each at most.
const PIECES: usize = 4;

/// Beyond the longest pause of a recording, how long an answer may take by default.
const PATIENCE: Duration = Duration::from_secs(10);

/// A recording that was read to its end once, so that nobody is connected to for half of one. It is read again, twice at
/// the same time, while it is replayed: it can be larger than the memory.
#[derive(Debug)]
pub(crate) struct Recorded {
    ours: File,
    theirs: File,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) client_ended: bool,
    pub(crate) server_ended: bool,
    talks_on: bool,
    longest_pause: Duration,
}

impl Recorded {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let what = || format!("cannot replay '{}'", path.display());
        let open = || File::open(path).with_context(what).map_err(Failure::usage);
        let mut recorded = Self {
            ours: open()?,
            theirs: open()?,
            sent_bytes: 0,
            received_bytes: 0,
            client_ended: false,
            server_ended: false,
            talks_on: false,
            longest_pause: Duration::ZERO,
        };
        if !recorded
            .ours
            .metadata()
            .is_ok_and(|metadata| metadata.is_file())
        {
            let error = anyhow!("it is no file, and has to be read more than once");
            return Err(Failure::usage(error.context(what())));
        }
        let read = recorded
            .sum_up()
            .map_err(|error| anyhow!(error).context(what()));
        read.map_err(|error| Failure::usage(error).with_hint("docs/record.md has the form"))?;
        Ok(recorded)
    }

    fn sum_up(&mut self) -> Result<(), BadRecording> {
        let mut recording = Recording::new(BufReader::new(&self.theirs));
        let mut last = Duration::ZERO;
        while let Some(Entry { at, from, said }) = recording.next()? {
            self.longest_pause = self.longest_pause.max(at - last);
            last = at;
            match (from, said) {
                (Side::Client, Said::Bytes(bytes)) => {
                    self.sent_bytes += bytes.len() as u64;
                    self.talks_on = self.server_ended;
                }
                (Side::Server, Said::Bytes(bytes)) => self.received_bytes += bytes.len() as u64,
                (Side::Client, Said::End) => self.client_ended = true,
                (Side::Server, Said::End) => self.server_ended = true,
            }
        }
        (&self.theirs).rewind().map_err(BadRecording::Read)
    }

    /// How long nothing may move, if the user does not say: nothing did for so long when it was recorded, and then some.
    pub(crate) fn patience(&self) -> Duration {
        self.longest_pause + PATIENCE
    }

    /// After how many bytes the talk is over, if it was not the server who ended it.
    pub(crate) fn receive_at_most(&self) -> Option<u64> {
        (!self.server_ended).then_some(self.received_bytes)
    }

    /// After how many bytes the end of the server's side is not yet that of ours, for it said more after that.
    pub(crate) fn talks_on_after(&self, checked: bool) -> Option<u64> {
        let bytes = if checked { self.received_bytes } else { 0 };
        self.talks_on.then_some(bytes)
    }

    /// Starts to read: what is to be said, and what is to be answered.
    ///
    /// If it is not to be checked, no answer is waited for: the times alone say when something is said.
    pub(crate) fn start(self, checked: bool) -> io::Result<(Script, Option<Expected>)> {
        let (say, lines) = mpsc::channel(PIECES);
        let ours = Recording::new(BufReader::new(self.ours));
        spawn(move || {
            let mut received = 0;
            read(ours, |Entry { at, from, said }| match (from, said) {
                (Side::Server, Said::Bytes(bytes)) => {
                    received += bytes.len() as u64;
                    true
                }
                (Side::Client, Said::Bytes(bytes)) => {
                    let after = received;
                    say.blocking_send(Ok(Line { at, after, bytes })).is_ok()
                }
                // Also the end has its time.
                (Side::Client, Said::End) => {
                    let (after, bytes) = (received, Vec::new());
                    say.blocking_send(Ok(Line { at, after, bytes })).is_ok()
                }
                (Side::Server, Said::End) => true,
            })
            .unwrap_or_else(|error| drop(say.blocking_send(Err(error))));
        })?;
        let waits = checked;
        let script = Script { lines, waits };
        if !checked {
            return Ok((script, None));
        }
        let (answer, pieces) = mpsc::channel(PIECES);
        let theirs = Recording::new(BufReader::new(self.theirs));
        spawn(move || {
            read(theirs, |Entry { from, said, .. }| match (from, said) {
                (Side::Server, Said::Bytes(bytes)) => answer.blocking_send(Ok(bytes)).is_ok(),
                _ => true,
            })
            .unwrap_or_else(|error| drop(answer.blocking_send(Err(error))));
        })?;
        let expected = Expected {
            pieces,
            piece: Vec::new(),
            at: 0,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
        };
        Ok((script, Some(expected)))
    }
}

fn spawn(read: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("replay".to_owned());
    thread.spawn(read).map(drop)
}

/// Reads until nobody wants more.
fn read(
    mut recording: Recording<BufReader<File>>,
    mut wants_more: impl FnMut(Entry) -> bool,
) -> io::Result<()> {
    // It was read before without an error: now it is another file.
    while let Some(entry) = recording.next().map_err(io::Error::other)? {
        if !wants_more(entry) {
            return Ok(());
        }
    }
    Ok(())
}

struct Line {
    at: Duration,
    /// How many bytes had come before it was said.
    after: u64,
    bytes: Vec<u8>,
}

/// What is to be said.
pub(crate) struct Script {
    lines: mpsc::Receiver<io::Result<Line>>,
    waits: bool,
}

impl Script {
    /// The next piece when it is due: at its time, and not before as much has come as had come when it was recorded.
    pub(crate) async fn next(&mut self, progress: &Progress) -> Option<io::Result<Vec<u8>>> {
        let line = match self.lines.recv().await? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let moment = progress.started + line.at;
        // A faster server than the recorded one has nothing more to say until then.
        progress.idle_from(moment);
        sleep_until(moment).await;
        if self.waits {
            progress.has_received(line.after).await;
        }
        Some(Ok(line.bytes))
    }
}

/// What is to be answered: the same bytes, in whatever pieces.
pub(crate) struct Expected {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    received_bytes: u64,
    sent_bytes: u64,
}

/// How an answer differs from the recorded one.
#[derive(Debug)]
pub(crate) enum Difference {
    /// The first byte that is another one, counted from 1.
    Byte(NonZeroU64),
    /// There is more than so many bytes, which were recorded with the end after them.
    Longer(u64),
    /// So many bytes came, of so many.
    Shorter(u64, u64),
    /// All came, and ended before all was said: so many bytes, of so many.
    Unsaid(u64, u64),
    /// The recording could not be read a second time.
    Unknown(io::Error),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(at) => write!(f, "byte {at} is another one than was recorded"),
            Self::Longer(bytes) => write!(f, "it has more than the {bytes} bytes recorded"),
            Self::Shorter(got, all) => {
                write!(f, "it ended after {got} of the {all} bytes recorded")
            }
            Self::Unsaid(sent, all) => write!(
                f,
                "it ended when {sent} of the {all} bytes of our side were said"
            ),
            Self::Unknown(error) => write!(f, "the recording cannot be read any more: {error}"),
        }
    }
}

impl Expected {
    /// What is missing at the end, if it came without a difference so far.
    pub(crate) fn missing(&self, progress: &Progress) -> Option<Difference> {
        let (received, sent) = (progress.received.get(), progress.sent.get());
        if received < self.received_bytes {
            return Some(Difference::Shorter(received, self.received_bytes));
        }
        (sent < self.sent_bytes).then_some(Difference::Unsaid(sent, self.sent_bytes))
    }

    /// Compares what has come, `before` bytes after the first.
    pub(crate) async fn compare(&mut self, before: u64, came: &[u8]) -> Result<(), Difference> {
        let mut compared = 0;
        while compared < came.len() {
            if self.at == self.piece.len() {
                self.piece = match self.pieces.recv().await {
                    Some(Ok(piece)) => piece,
                    Some(Err(error)) => return Err(Difference::Unknown(error)),
                    None => return Err(Difference::Longer(self.received_bytes)),
                };
                self.at = 0;
            }
            let (theirs, ours) = (&came[compared..], &self.piece[self.at..]);
            let both = theirs.len().min(ours.len());
            let same = theirs
                .iter()
                .zip(ours)
                .take_while(|(one, other)| one == other);
            let same = same.count();
            if same < both {
                let at = before + (compared + same) as u64;
                return Err(Difference::Byte(NonZeroU64::MIN.saturating_add(at)));
            }
            compared += both;
            self.at += both;
        }
        Ok(())
    }
}
