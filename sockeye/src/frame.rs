//! Where does a message end? TCP carries bytes and keeps no borders: what was written at once may arrive in pieces,
//! and what was written apart may arrive together. These codecs find the messages again, and put their borders in.
//!
//! Each has a hard maximum, checked before memory is set aside, and gives the same messages and the same error for
//! every way in which the stream can be cut. Use them with [`tokio_util::codec::Framed`]:
//!
//! ```
//! # async fn example(conn: sockeye::Conn) -> Result<(), sockeye::frame::FrameError> {
//! use futures_util::{SinkExt, StreamExt};
//! use sockeye::frame::Lines;
//! use tokio_util::codec::Framed;
//!
//! let mut lines = Framed::new(conn, Lines::default());
//! while let Some(line) = lines.next().await {
//!     lines.send(line?).await?;
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Framed`](tokio_util::codec::Framed) keeps a buffer of 8 KiB or more for as long as it lives, idle or not.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The longest line unless another maximum is given: far above what protocols of lines allow (SMTP 998 bytes, HTTP
/// heads 8 KiB), and 10,000 clients cannot fill a machine's memory with it.
pub const DEFAULT_MAX_LINE_BYTES: usize = 64 * 1024;

/// Why a stream cannot be read as frames, or a frame not be written. After it the stream is of no use for reading:
/// where the next frame would begin is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame longer than the codec's maximum, read or to be written.
    #[error("a frame of more than {max_bytes} bytes")]
    TooLong {
        /// The maximum.
        max_bytes: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// A frame to be written holds what ends a frame: the reader would see two.
    #[error("a frame holds its own delimiter")]
    HoldsDelimiter,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Lines: ended by LF or CRLF when read, by LF, or CRLF if asked for, when written. The last line of a stream needs
/// no end. Lines are bytes; whether they are UTF-8 is for the caller to ask.
#[derive(Clone, Debug)]
pub struct Lines {
    by_newline: Delimited,
    max_bytes: usize,
    end: &'static [u8],
}

impl Lines {
    /// Lines of at most `max_bytes`, without what ends them.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            // One more for the CR, which is not part of the line.
            by_newline: Delimited::new(&b"\n"[..], max_bytes.saturating_add(1)),
            max_bytes,
            end: b"\n",
        }
    }

    /// Ends the lines that are written with CRLF, as the protocols of the Internet do.
    pub fn with_crlf(mut self) -> Self {
        self.end = b"\r\n";
        self
    }

    fn checked(&self, line: Bytes) -> Result<Bytes, FrameError> {
        if line.len() > self.max_bytes {
            return Err(self.too_long());
        }
        Ok(line)
    }

    fn too_long(&self) -> FrameError {
        FrameError::TooLong {
            max_bytes: self.max_bytes,
        }
    }

    /// The inner codec's maximum is one more than the one to be told of.
    fn own_maximum(&self, error: FrameError) -> FrameError {
        match error {
            FrameError::TooLong { .. } => self.too_long(),
            error => error,
        }
    }
}

impl Default for Lines {
    /// [`DEFAULT_MAX_LINE_BYTES`].
    fn default() -> Self {
        Self::new(DEFAULT_MAX_LINE_BYTES)
    }
}

impl Decoder for Lines {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let line = self.by_newline.decode(source);
        let Some(mut line) = line.map_err(|error| self.own_maximum(error))? else {
            return Ok(None);
        };
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        self.checked(line).map(Some)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if let Some(line) = self.decode(source)? {
            return Ok(Some(line));
        }
        let last = self.by_newline.decode_eof(source)?;
        last.map(|line| self.checked(line)).transpose()
    }
}

impl<L: AsRef<[u8]>> Encoder<L> for Lines {
    type Error = FrameError;

    fn encode(&mut self, line: L, into: &mut BytesMut) -> Result<(), FrameError> {
        let line = line.as_ref();
        if line.len() > self.max_bytes {
            return Err(self.too_long());
        }
        // A CR at the end would be taken for a part of the line's end.
        if line.contains(&b'\n') || line.ends_with(b"\r") {
            return Err(FrameError::HoldsDelimiter);
        }
        into.reserve(line.len() + self.end.len());
        into.put_slice(line);
        into.put_slice(self.end);
        Ok(())
    }
}

/// Frames that end with a delimiter of one or more bytes, which is not part of them. The last frame of a stream needs
/// none.
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Bytes,
    max_bytes: usize,
    /// How far the source has been searched, so that a frame that comes byte by byte is not searched anew for each.
    searched: usize,
}

impl Delimited {
    /// Frames of at most `max_bytes`, without the delimiter.
    ///
    /// # Panics
    ///
    /// If `delimiter` is empty.
    pub fn new(delimiter: impl Into<Bytes>, max_bytes: usize) -> Self {
        let delimiter = delimiter.into();
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        Self {
            delimiter,
            max_bytes,
            searched: 0,
        }
    }

    fn too_long(&self) -> FrameError {
        FrameError::TooLong {
            max_bytes: self.max_bytes,
        }
    }
}

impl Decoder for Delimited {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if let Some(found) = find(&source[self.searched..], &self.delimiter) {
            let length = self.searched + found;
            if length > self.max_bytes {
                return Err(self.too_long());
            }
            self.searched = 0;
            let frame = source.split_to(length).freeze();
            source.advance(self.delimiter.len());
            return Ok(Some(frame));
        }
        // The end may be the beginning of a delimiter; everything before it is sure to be part of the frame.
        self.searched = source.len().saturating_sub(self.delimiter.len() - 1);
        if self.searched > self.max_bytes {
            return Err(self.too_long());
        }
        Ok(None)
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        if let Some(frame) = self.decode(source)? {
            return Ok(Some(frame));
        }
        self.searched = 0;
        if source.len() > self.max_bytes {
            return Err(self.too_long());
        }
        let last = source.split().freeze();
        Ok((!last.is_empty()).then_some(last))
    }
}

impl<F: AsRef<[u8]>> Encoder<F> for Delimited {
    type Error = FrameError;

    fn encode(&mut self, frame: F, into: &mut BytesMut) -> Result<(), FrameError> {
        let frame = frame.as_ref();
        if frame.len() > self.max_bytes {
            return Err(self.too_long());
        }
        let start = into.len();
        into.reserve(frame.len() + self.delimiter.len());
        into.put_slice(frame);
        into.put_slice(&self.delimiter);
        // Searched with the delimiter behind it: the frame's end and the delimiter's beginning can make one, too.
        if find(&into[start..], &self.delimiter) != Some(frame.len()) {
            into.truncate(start);
            return Err(FrameError::HoldsDelimiter);
        }
        Ok(())
    }
}

/// How many bytes hold a frame's length, in network byte order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prefix {
    /// One byte: frames of up to 255 bytes.
    U8,
    /// Two: up to 65,535 (DNS over TCP, RFC 1035 section 4.2.2).
    U16,
    /// Four.
    U32,
}

impl Prefix {
    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    fn most(self) -> usize {
        match self {
            Self::U8 => usize::from(u8::MAX),
            Self::U16 => usize::from(u16::MAX),
            Self::U32 => usize::try_from(u32::MAX).unwrap_or(usize::MAX),
        }
    }
}

/// Frames that begin with their length, which counts the bytes after it.
#[derive(Clone, Debug)]
pub struct LengthPrefixed {
    prefix: Prefix,
    max_bytes: usize,
}

impl LengthPrefixed {
    /// Frames of at most `max_bytes`, without the length; no more than `prefix` can say.
    pub fn new(prefix: Prefix, max_bytes: usize) -> Self {
        Self {
            prefix,
            max_bytes: max_bytes.min(prefix.most()),
        }
    }

    fn check(&self, length: usize) -> Result<(), FrameError> {
        if length > self.max_bytes {
            return Err(FrameError::TooLong {
                max_bytes: self.max_bytes,
            });
        }
        Ok(())
    }
}

impl Decoder for LengthPrefixed {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let prefix = self.prefix.bytes();
        let Some(head) = source.get(..prefix) else {
            return Ok(None);
        };
        let length = head
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        self.check(length)?;
        let missing = (prefix + length).saturating_sub(source.len());
        if missing > 0 {
            source.reserve(missing);
            return Ok(None);
        }
        source.advance(prefix);
        Ok(Some(source.split_to(length).freeze()))
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.decode(source)? {
            None if !source.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl<F: AsRef<[u8]>> Encoder<F> for LengthPrefixed {
    type Error = FrameError;

    fn encode(&mut self, frame: F, into: &mut BytesMut) -> Result<(), FrameError> {
        let frame = frame.as_ref();
        self.check(frame.len())?;
        into.reserve(self.prefix.bytes() + frame.len());
        into.put_uint(frame.len() as u64, self.prefix.bytes());
        into.put_slice(frame);
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [byte] => haystack.iter().position(|other| other == byte),
        _ => haystack.windows(needle.len()).position(|w| w == needle),
    }
}
