//! A body in chunks (RFC 9112, section 7.1), byte by byte but for the data. What is in extensions and trailer fields is
//! checked for its form and dropped.

use super::error::BadResponse;
use super::head::is_token_byte;

/// The size of a chunk with its extensions. Servers send none or short ones; the chunks themselves may be many, so that
/// this is all that a server can have read for each byte of data.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// All trailer fields together: as much as a head.
const MAX_TRAILER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    /// Of the size that is read, and then of the data that is still to come.
    size: u64,
    /// Of the line with the size, or of the trailer fields.
    line_bytes: usize,
}

/// Which byte is to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    FirstDigit,
    Digit,
    /// White space after the size: old servers fill it up to a fixed width.
    Padding,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first of a line, in which a field cannot go on from the line before.
    FirstField,
    Field,
    Name,
    Value,
    ValueLf,
    LastLf,
    End,
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self {
            at: At::FirstDigit,
            size: 0,
            line_bytes: 0,
        }
    }

    /// How many bytes were used, and whether the body is complete; before it is, all are used.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<(usize, bool), BadResponse> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.at == At::Data {
                let size = usize::try_from(self.size).unwrap_or(usize::MAX);
                let (data, after) = rest.split_at(size.min(rest.len()));
                body(data);
                self.size -= data.len() as u64;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                rest = after;
                continue;
            }
            rest = after;
            self.at = match self.at {
                At::FirstDigit | At::Digit | At::Padding | At::Extension | At::SizeLf => {
                    self.size_line(byte)?
                }
                At::DataCr | At::DataLf | At::Data => self.data_end(byte)?,
                _ => self.trailers(byte)?,
            };
            if self.at == At::End {
                return Ok((bytes.len() - rest.len(), true));
            }
        }
        Ok((bytes.len(), false))
    }

    /// Ends with CRLF only: that a bare LF may end a line is not said of these (section 2.2).
    fn size_line(&mut self, byte: u8) -> Result<At, BadResponse> {
        self.count(MAX_LINE_BYTES, |max_bytes| BadResponse::ChunkLineTooLong {
            max_bytes,
        })?;
        match (self.at, byte) {
            (At::FirstDigit | At::Digit, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = self.size.checked_mul(16);
                let size = size.and_then(|size| size.checked_add(digit.into()));
                self.size = size.ok_or(BadResponse::ChunkTooLarge)?;
                Ok(At::Digit)
            }
            (At::Digit | At::Padding, b' ' | b'\t') => Ok(At::Padding),
            (At::Digit | At::Padding, b';') => Ok(At::Extension),
            (At::Digit | At::Padding | At::Extension, b'\r') => Ok(At::SizeLf),
            (At::Extension, byte) if is_text(byte) => Ok(At::Extension),
            (At::SizeLf, b'\n') => {
                self.line_bytes = 0;
                Ok(match self.size {
                    0 => At::FirstField,
                    _ => At::Data,
                })
            }
            _ => Err(BadResponse::ChunkSize),
        }
    }

    fn data_end(&self, byte: u8) -> Result<At, BadResponse> {
        match (self.at, byte) {
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::FirstDigit),
            _ => Err(BadResponse::ChunkEnd),
        }
    }

    /// The form of each field is looked at, though it is dropped: a server that forgets the last line would else have its
    /// next answer taken for a field.
    fn trailers(&mut self, byte: u8) -> Result<At, BadResponse> {
        self.count(MAX_TRAILER_BYTES, |max_bytes| {
            BadResponse::TrailersTooLong { max_bytes }
        })?;
        match (self.at, byte) {
            (At::FirstField | At::Field, b'\r') => Ok(At::LastLf),
            (At::FirstField | At::Field | At::LastLf, b'\n') => Ok(At::End),
            // The value of the field before goes on (section 5.2).
            (At::Field, b' ' | b'\t') => Ok(At::Value),
            (At::FirstField | At::Field | At::Name, byte) if is_token_byte(byte) => Ok(At::Name),
            (At::Name, b':') => Ok(At::Value),
            (At::Value, b'\r') => Ok(At::ValueLf),
            (At::Value | At::ValueLf, b'\n') => Ok(At::Field),
            (At::Value, byte) if is_text(byte) => Ok(At::Value),
            _ => Err(BadResponse::Trailer),
        }
    }

    fn count(
        &mut self,
        max: usize,
        too_long: impl FnOnce(usize) -> BadResponse,
    ) -> Result<(), BadResponse> {
        self.line_bytes += 1;
        if self.line_bytes > max {
            return Err(too_long(max));
        }
        Ok(())
    }
}

/// What a field's value may hold (RFC 9110, section 5.5): no control characters but the tab.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}
