//! Whether what comes is what is expected. Pure: bytes in, and the answer is the same however they were cut.
//!
//! A pattern stands at the place that the stream has come to, and nothing is skipped. Its answer depends only on the bytes
//! from there on, never on how many of them happen to be here: more are waited for until it is certain. Of several
//! patterns the first is taken, in the order of the script, that is what comes; a later one waits until all before it
//! have failed.

use std::borrow::Cow;

use crate::script::quoted::SHOWN_BYTES;
use crate::script::syntax::{Captures, Expression};

/// The longest line, with its end, and the most that is looked at to choose between several patterns. One pattern that is no
/// line can be of any length.
pub(crate) const HELD_BYTES: usize = 64 * 1024;

/// What is known of the rest of the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rest {
    /// More may come.
    Open,
    /// The peer has sent its end.
    Closed,
    Reset,
}

/// Something to wait for.
#[derive(Clone, Debug)]
pub(crate) enum Goal<'a> {
    Exactly {
        expected: Cow<'a, [u8]>,
        /// How many of them have come.
        known: usize,
    },
    Line {
        expression: Option<&'a Expression>,
        /// How many bytes are known to have no end of a line among them.
        searched: usize,
    },
    Until(Search<'a>),
    Bytes(u64),
    Close,
    Reset,
}

/// What came of looking at bytes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// More must come first.
    Undecided,
    Matched {
        /// Which of the goals.
        which: usize,
        captures: Captures,
    },
    Failed(Mismatch),
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Mismatch {
    /// Other bytes came.
    Differs,
    /// More than [`HELD_BYTES`] would be needed to know.
    TooLong,
    /// The stream ended before that.
    Ended,
}

/// Looks for one of several goals.
#[derive(Debug)]
pub(crate) struct Matcher<'a> {
    candidates: Vec<Candidate<'a>>,
    /// The first bytes that were consumed, for people.
    begun: Vec<u8>,
    consumed: u64,
}

#[derive(Debug)]
struct Candidate<'a> {
    goal: Goal<'a>,
    /// How many of the bytes that are held it has done with.
    done: usize,
    failed: Option<Mismatch>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(goals: impl IntoIterator<Item = Goal<'a>>) -> Self {
        let candidate = |goal| Candidate {
            goal,
            done: 0,
            failed: None,
        };
        Self {
            candidates: goals.into_iter().map(candidate).collect(),
            begun: Vec::new(),
            consumed: 0,
        }
    }

    pub(crate) fn goals(&self) -> impl Iterator<Item = &Goal<'a>> {
        self.candidates.iter().map(|candidate| &candidate.goal)
    }

    /// Bytes that it has consumed.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The first bytes that it has consumed.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Looks at what is held from the place on that the stream has come to, and takes out what it consumes.
    pub(crate) fn look(&mut self, held: &mut Held, rest: Rest) -> Verdict {
        let alone = self.candidates.len() == 1;
        let most = if alone { usize::MAX } else { HELD_BYTES };
        let view = held.bytes();
        let view = &view[..view.len().min(most)];
        let mut matched = None;
        let mut undecided = false;
        for (which, candidate) in self.candidates.iter_mut().enumerate() {
            match candidate.look(view, rest, view.len() == most) {
                Progress::Failed => {}
                Progress::Undecided => undecided = true,
                Progress::Matched(captures) => matched = Some((which, candidate.done, captures)),
            }
            if undecided || matched.is_some() {
                break;
            }
        }
        if let Some((which, bytes, captures)) = matched {
            self.consume(held, bytes);
            return Verdict::Matched { which, captures };
        }
        if alone && let [candidate] = &mut self.candidates[..] {
            // What it has done with is needed by nobody else; also what was right before the first byte that is wrong.
            let done = std::mem::take(&mut candidate.done);
            let bytes = match &candidate.goal {
                Goal::Exactly { known, .. } => known - self.consumed as usize,
                _ => done,
            };
            self.consume(held, bytes);
        }
        if undecided {
            return Verdict::Undecided;
        }
        let failures = self.candidates.iter().filter_map(|one| one.failed);
        Verdict::Failed(failures.max().unwrap_or(Mismatch::Differs))
    }

    fn consume(&mut self, held: &mut Held, bytes: usize) {
        // One more than is shown tells that there are more.
        let room = (SHOWN_BYTES + 1).saturating_sub(self.begun.len());
        self.begun
            .extend_from_slice(&held.bytes()[..bytes.min(room)]);
        self.consumed += bytes as u64;
        held.consume(bytes);
    }
}

enum Progress {
    Undecided,
    Matched(Captures),
    Failed,
}

impl Candidate<'_> {
    /// Looks at what it has not done with. `is_most` is that no more will be shown than this, whatever comes.
    fn look(&mut self, view: &[u8], rest: Rest, is_most: bool) -> Progress {
        if self.failed.is_some() {
            return Progress::Failed;
        }
        let rest = if is_most { Rest::Open } else { rest };
        let (done, progress) = match self.goal.look(&view[self.done..], rest) {
            Ok((done, progress)) => (done, progress),
            Err(failure) => {
                self.failed = Some(failure);
                return Progress::Failed;
            }
        };
        self.done += done;
        if is_most && matches!(progress, Progress::Undecided) {
            self.failed = Some(Mismatch::TooLong);
            return Progress::Failed;
        }
        progress
    }
}

impl Goal<'_> {
    /// Looks at the bytes that follow those that it has done with: how many it has done with now, and what it knows.
    fn look(&mut self, bytes: &[u8], rest: Rest) -> Result<(usize, Progress), Mismatch> {
        let found = |bytes| Ok((bytes, Progress::Matched(Captures::new())));
        let done = match self {
            Self::Exactly { expected, known } => {
                let missing = &expected[*known..];
                let most = missing.len().min(bytes.len());
                let same = same_bytes(&missing[..most], &bytes[..most]);
                *known += same;
                if same < most {
                    return Err(Mismatch::Differs);
                }
                if same == missing.len() {
                    return found(same);
                }
                same
            }
            Self::Line {
                expression,
                searched,
            } => {
                let shown = &bytes[..bytes.len().min(HELD_BYTES)];
                let end = shown[*searched..].iter().position(|byte| *byte == b'\n');
                if let Some(end) = end {
                    let end = *searched + end;
                    let captures = match_line(*expression, &shown[..end]);
                    let captures = captures.ok_or(Mismatch::Differs)?;
                    return Ok((end + 1, Progress::Matched(captures)));
                }
                if shown.len() == HELD_BYTES {
                    return Err(Mismatch::TooLong);
                }
                *searched = shown.len();
                0
            }
            Self::Until(search) => match search.feed(bytes) {
                Some(end) => return found(end),
                None => bytes.len(),
            },
            Self::Bytes(left) => match usize::try_from(*left) {
                Ok(left) if left <= bytes.len() => return found(left),
                _ => {
                    *left -= bytes.len() as u64;
                    bytes.len()
                }
            },
            Self::Close | Self::Reset if !bytes.is_empty() => return Err(Mismatch::Differs),
            Self::Close if rest == Rest::Closed => return found(0),
            Self::Reset if rest == Rest::Reset => return found(0),
            Self::Close | Self::Reset => 0,
        };
        match rest {
            Rest::Open => Ok((done, Progress::Undecided)),
            Rest::Closed | Rest::Reset => Err(Mismatch::Ended),
        }
    }
}

/// How many bytes are the same at the beginning of two that are equally long.
fn same_bytes(one: &[u8], other: &[u8]) -> usize {
    if one == other {
        return one.len();
    }
    let pairs = one.iter().zip(other);
    pairs.take_while(|(one, other)| one == other).count()
}

/// What an expression captures in a line, which may still have the first half of its end.
fn match_line(expression: Option<&Expression>, line: &[u8]) -> Option<Captures> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match expression {
        None => Some(Captures::new()),
        Some(expression) => expression.match_whole(line),
    }
}

/// Bytes that came and are not consumed.
#[derive(Debug, Default)]
pub(crate) struct Held {
    all: Vec<u8>,
    /// How many of them are consumed: they are moved away when others come, and not for each line of many.
    consumed: usize,
}

impl Held {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.all[self.consumed..]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.all.drain(..self.consumed);
        self.consumed = 0;
        self.all.extend_from_slice(bytes);
    }

    fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
        if self.bytes().is_empty() {
            // Who waits holds no memory.
            *self = Self::default();
        }
    }
}

/// Looks for bytes in a stream, each byte once, however it is cut (Knuth, Morris and Pratt, 1977).
#[derive(Clone, Debug)]
pub(crate) struct Search<'a> {
    wanted: Cow<'a, [u8]>,
    /// For each length of a beginning of what is wanted: the longest shorter beginning that it ends with.
    shorter: Vec<usize>,
    /// How much of what is wanted the stream ends with.
    matched: usize,
}

impl<'a> Search<'a> {
    /// `wanted` must not be empty.
    pub(crate) fn new(wanted: Cow<'a, [u8]>) -> Self {
        let mut shorter = vec![0; wanted.len()];
        let mut length = 0;
        for at in 1..wanted.len() {
            while length > 0 && wanted[at] != wanted[length] {
                length = shorter[length - 1];
            }
            length += usize::from(wanted[at] == wanted[length]);
            shorter[at] = length;
        }
        Self {
            wanted,
            shorter,
            matched: 0,
        }
    }

    /// Where in these bytes, which follow those before, the first one ends.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            while self.matched > 0 && self.wanted[self.matched] != *byte {
                self.matched = self.shorter[self.matched - 1];
            }
            self.matched += usize::from(self.wanted[self.matched] == *byte);
            if self.matched == self.wanted.len() {
                return Some(at + 1);
            }
        }
        None
    }
}
