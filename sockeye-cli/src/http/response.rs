//! Answers found in a stream, however it is cut.
//!
//! An answer with both `Transfer-Encoding` and `Content-Length` is refused: RFC 9112, section 6.3, would have the first
//! override the second, but says that it ought to be handled as an error, and no server that is in order sends it.
//! A coding other than `chunked`, for which nobody asked, is left on the body.

use std::mem;

use super::chunked::Chunked;
use super::error::BadResponse;
use super::head::{self, Body, Head, MAX_HEAD_BYTES};

/// A head that came in pieces is put together in steps of this many bytes, so that of a large read only its beginning
/// is copied.
const PIECE_BYTES: usize = 1024;

/// As long as this little has come, each byte is looked at, so that a server that does not speak HTTP, and waits after its
/// greeting, is found out at once: version and status are in it. Later a head is looked at when it may have ended, so that
/// one that comes byte by byte costs no more than twice the work.
const GREETING_BYTES: usize = 16;

/// Finds the answers in what a server sends on one connection.
///
/// It keeps no more than the head of one answer, of at most 64 KiB, while that is incomplete, and the last one if that was
/// short; with [`ResponseReader::keep_heads`] also those that nobody has taken. It knows nothing of time, so the caller has
/// to limit how long an answer may take.
#[derive(Debug)]
pub(crate) struct ResponseReader {
    to_head: bool,
    state: State,
    /// The answer that is read; of no meaning in `State::Head`.
    response: Response,
    /// The beginning of a head that is incomplete.
    pub(super) held: Vec<u8>,
    /// The last head that came in one piece, and what it said. A server that answers the same request again and again does
    /// it with the same head, but for the date, and what is the same byte for byte need not be read again.
    last: Option<(Vec<u8>, Head)>,
    /// Interim answers that have come, after which the final one is owed.
    interim: usize,
    /// Heads as they came, for whoever wants to see them.
    heads: Option<Vec<u8>>,
}

/// Servers send none or one; those that tell of progress (103, 102) some.
const MAX_INTERIM: usize = 100;

/// An answer that has been read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    /// From 100; all beyond 599 are invalid, and to be taken for 500 (RFC 9110, section 15).
    pub(crate) status: u16,
    /// Whether another request may be sent on the connection.
    pub(crate) keep_alive: bool,
    /// Without chunk sizes and the like.
    pub(crate) body_bytes: u64,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// All bytes are used, and the answer is not complete.
    More,
    /// The answer is complete.
    Complete {
        /// How many of the bytes belong to it. Those after them are the next answer's.
        used: usize,
        response: Response,
    },
}

#[derive(Debug)]
enum State {
    Head,
    Length { left: u64 },
    Chunked(Chunked),
    UntilClose,
}

impl ResponseReader {
    /// `to_head`: the requests on this connection have the method HEAD, and their answers no body.
    pub(crate) fn new(to_head: bool) -> Self {
        Self {
            to_head,
            state: State::Head,
            response: NONE_YET,
            held: Vec::new(),
            last: None,
            interim: 0,
            heads: None,
        }
    }

    /// From here on keeps each head, interim answers' as well, until [`ResponseReader::take_heads`].
    pub(crate) fn keep_heads(&mut self) {
        self.heads.get_or_insert_default();
    }

    /// The heads since the last call, as they came, with the empty line that ends each.
    pub(crate) fn take_heads(&mut self) -> Vec<u8> {
        self.heads.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Takes what has come, up to the end of an answer at most, and gives its body to `body` in pieces as it comes. Interim
    /// answers (status 1xx) are skipped. After an answer it is ready for the next; after an error it must not be used again.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<Progress, BadResponse> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (used, is_complete) = match &mut self.state {
                State::Head => self.take_head(rest)?,
                State::Length { left } => {
                    let some = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    body(rest.get(..some).unwrap_or(rest));
                    *left -= some as u64;
                    self.response.body_bytes += some as u64;
                    (some, *left == 0)
                }
                State::Chunked(chunked) => {
                    let body_bytes = &mut self.response.body_bytes;
                    chunked.take(rest, &mut |data| {
                        *body_bytes += data.len() as u64;
                        body(data);
                    })?
                }
                State::UntilClose => {
                    body(rest);
                    self.response.body_bytes += rest.len() as u64;
                    (rest.len(), false)
                }
            };
            rest = rest.get(used..).unwrap_or_default();
            if is_complete {
                return Ok(Progress::Complete {
                    used: bytes.len() - rest.len(),
                    response: self.complete(),
                });
            }
        }
        Ok(Progress::More)
    }

    /// The server has closed its side: the end of an answer that ends so, nothing between two answers, and an error in the
    /// midst of any other.
    pub(crate) fn end(&mut self) -> Result<Option<Response>, BadResponse> {
        let received = self.response.body_bytes;
        match &self.state {
            State::Head if self.held.is_empty() && self.interim == 0 => Ok(None),
            State::Head => {
                // What is wrong in a head that has not ended was perhaps not looked for yet.
                head::parse(&self.held, self.to_head)?;
                Err(BadResponse::CutHead)
            }
            State::Length { left } => Err(BadResponse::CutBody {
                received,
                length: left.saturating_add(received),
            }),
            State::Chunked(_) => Err(BadResponse::CutChunks { received }),
            State::UntilClose => Ok(Some(self.complete())),
        }
    }

    /// How many bytes were used, and whether the answer is complete with its head.
    fn take_head(&mut self, bytes: &[u8]) -> Result<(usize, bool), BadResponse> {
        if self.held.is_empty() {
            // As nearly always: the head has come in one piece, and is read where it lies.
            if let Some((last, head)) = &self.last
                && bytes.starts_with(last)
            {
                let (head, length) = (*head, last.len());
                note(&mut self.heads, bytes.get(..length));
                return self.begin(&head, length);
            }
            return match head::parse(bytes, self.to_head)? {
                Some((head, length)) => {
                    self.remember(bytes.get(..length), head);
                    note(&mut self.heads, bytes.get(..length));
                    self.begin(&head, length)
                }
                None => {
                    self.held.extend_from_slice(bytes);
                    Ok((bytes.len(), false))
                }
            };
        }
        let piece = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        let before = self.held.len();
        self.held.extend_from_slice(piece);
        let is_worth_a_look = before < GREETING_BYTES
            || has_empty_line(&self.held, before)
            || self.held.len() >= MAX_HEAD_BYTES;
        if is_worth_a_look && let Some((head, length)) = head::parse(&self.held, self.to_head)? {
            note(&mut self.heads, self.held.get(..length));
            self.held = Vec::new();
            return self.begin(&head, length.saturating_sub(before));
        }
        Ok((piece.len(), false))
    }

    fn remember(&mut self, bytes: Option<&[u8]>, head: Head) {
        let Some(bytes) = bytes.filter(|bytes| bytes.len() <= PIECE_BYTES) else {
            return;
        };
        let (last, known) = self.last.get_or_insert_with(|| (Vec::new(), head));
        last.clear();
        last.extend_from_slice(bytes);
        *known = head;
    }

    /// What comes after a head, of which `used` bytes were in this piece.
    fn begin(&mut self, head: &Head, used: usize) -> Result<(usize, bool), BadResponse> {
        match head.status {
            101 => return Err(BadResponse::Switched),
            100..200 => {
                if self.interim == MAX_INTERIM {
                    return Err(BadResponse::TooManyInterim { max: MAX_INTERIM });
                }
                self.interim += 1;
                return Ok((used, false));
            }
            _ => {}
        }
        self.response = Response {
            status: head.status,
            keep_alive: head.keep_alive,
            body_bytes: 0,
        };
        self.state = match head.body {
            Body::Length(0) => return Ok((used, true)),
            Body::Length(left) => State::Length { left },
            Body::Chunked => State::Chunked(Chunked::new()),
            Body::UntilClose => State::UntilClose,
        };
        Ok((used, false))
    }

    fn complete(&mut self) -> Response {
        self.state = State::Head;
        self.interim = 0;
        mem::replace(&mut self.response, NONE_YET)
    }
}

fn note(heads: &mut Option<Vec<u8>>, head: Option<&[u8]>) {
    if let (Some(heads), Some(head)) = (heads, head) {
        heads.extend_from_slice(head);
    }
}

/// Whether the empty line that ends a head has come after the first `before` bytes.
fn has_empty_line(held: &[u8], before: usize) -> bool {
    let new = held.get(before.saturating_sub(2)..).unwrap_or(held);
    // Of the first only the end is there.
    let mut lines = new.split_inclusive(|&byte| byte == b'\n').skip(1);
    lines.any(|line| matches!(line, b"\n" | b"\r\n"))
}

const NONE_YET: Response = Response {
    status: 0,
    keep_alive: false,
    body_bytes: 0,
};
