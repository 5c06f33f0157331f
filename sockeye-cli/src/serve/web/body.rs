//! The body of an answer: bytes that are at hand, stretches of a file, or bytes that come with time.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior};

use crate::serve::web::visit::{Account, Hole, Visit};
use crate::serve::web::wire::{HOLE, HOLE_BYTES, shortened};

/// What is read from a file at once, where the kernel does not send it by itself.
const READ_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Body {
    content: Content,
    account: Option<Account>,
}

enum Content {
    Known(Known),
    Slow(Box<Slow>),
}

/// A body whose length is known.
#[derive(Default)]
struct Known {
    segments: VecDeque<Segment>,
    left: u64,
}

enum Segment {
    Bytes(Bytes),
    File(Stretch),
}

/// A stretch of a file.
pub(crate) struct Stretch {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Whose connection sends files by itself.
    pub(crate) visit: Option<Arc<Visit>>,
}

/// Pieces one after the other, with time between them.
struct Slow {
    pieces: Peekable<Box<dyn Iterator<Item = Bytes> + Send>>,
    ticks: Interval,
    /// `None` if it is not to be told in advance.
    left: Option<u64>,
}

impl Default for Content {
    fn default() -> Self {
        Self::Known(Known::default())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        let mut body = Self::default();
        body.push(Bytes::from(bytes));
        body
    }
}

impl Body {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let length = bytes.len() as u64;
        self.add(Segment::Bytes(bytes), length);
    }

    pub(crate) fn push_file(&mut self, stretch: Stretch) {
        let length = stretch.length;
        self.add(Segment::File(stretch), length);
    }

    fn add(&mut self, segment: Segment, length: u64) {
        if let (Content::Known(known), 1..) = (&mut self.content, length) {
            known.segments.push_back(segment);
            known.left += length;
        }
    }

    /// A piece each `every`, the first one at once. `length` is of all of them, if it is to be told.
    pub(crate) fn slow(
        pieces: impl Iterator<Item = Bytes> + Send + 'static,
        every: Duration,
        length: Option<u64>,
    ) -> Self {
        // It must not be 0.
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pieces: Box<dyn Iterator<Item = Bytes> + Send> = Box::new(pieces);
        let slow = Slow {
            pieces: pieces.peekable(),
            ticks,
            left: length,
        };
        Self {
            content: Content::Slow(Box::new(slow)),
            account: None,
        }
    }

    /// How long it is, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Known(known) => Some(known.left),
            Content::Slow(slow) => slow.left,
        }
    }

    pub(crate) fn account_to(&mut self, account: Account) {
        self.account = Some(account);
    }
}

impl Known {
    fn next(&mut self) -> Option<io::Result<Piece>> {
        let piece = match self.segments.pop_front()? {
            Segment::Bytes(bytes) => Piece::Bytes(bytes),
            Segment::File(mut stretch) => match stretch.next() {
                Ok(piece) => {
                    if stretch.length > 0 {
                        self.segments.push_front(Segment::File(stretch));
                    }
                    piece
                }
                Err(error) => return Some(Err(error)),
            },
        };
        self.left -= piece.remaining() as u64;
        Some(Ok(piece))
    }
}

impl Stretch {
    fn next(&mut self) -> io::Result<Piece> {
        let piece = match &self.visit {
            Some(visit) => {
                let left = self.length.min(HOLE_BYTES as u64) as usize;
                visit.holes().push_back(Hole {
                    file: Arc::clone(&self.file),
                    offset: self.offset,
                    left,
                });
                Piece::Hole(left)
            }
            None => {
                let mut bytes = vec![0; self.length.min(READ_BYTES as u64) as usize];
                let read = self.file.read_at(&mut bytes, self.offset)?;
                if read == 0 {
                    return Err(shortened());
                }
                bytes.truncate(read);
                Piece::Bytes(bytes.into())
            }
        };
        self.offset += piece.remaining() as u64;
        self.length -= piece.remaining() as u64;
        Ok(piece)
    }
}

impl Slow {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // After the last piece nothing is left to wait for.
        if self.pieces.peek().is_none() {
            return Poll::Ready(None);
        }
        ready!(self.ticks.poll_tick(cx));
        let piece = self.pieces.next();
        if let (Some(left), Some(piece)) = (&mut self.left, &piece) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece)
    }
}

/// A piece of a body. hyper only counts the bytes of a hole, see `wire.rs`.
pub(crate) enum Piece {
    Bytes(Bytes),
    Hole(usize),
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::Hole(left) => *left,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::Hole(left) => &HOLE[..*left],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Hole(left) => *left -= count,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Piece>>>> {
        let this = self.get_mut();
        let piece = match &mut this.content {
            Content::Known(known) => known.next(),
            Content::Slow(slow) => ready!(slow.poll_next(cx)).map(|bytes| Ok(Piece::Bytes(bytes))),
        };
        if let (Some(account), Some(Ok(piece))) = (&mut this.account, &piece) {
            account.sent += piece.remaining() as u64;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
