//! The body of a request as it goes over the wire: as many bytes as were announced, or in chunks.

use std::io::{self, Read, Write};

/// A body of the length that its head has announced. One that ends before is an error, for nobody could tell where the
/// request ends; what is beyond is not sent.
#[derive(Debug)]
pub(crate) struct Exactly<R> {
    from: R,
    left: u64,
}

impl<R> Exactly<R> {
    pub(crate) fn new(from: R, length: u64) -> Self {
        Self { from, left: length }
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        let bytes = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        if bytes == 0 && most > 0 {
            let error = format!("the body ends {} bytes before its length", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
        }
        self.left = self.left.saturating_sub(bytes as u64);
        Ok(bytes)
    }
}

/// Data per chunk at the most, so that what surrounds it is next to nothing.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body in chunks (RFC 9112, section 7.1): a chunk for each read, so that nothing waits for more.
#[derive(Debug)]
pub(crate) struct InChunks<R> {
    from: R,
    data: Vec<u8>,
    chunk: Vec<u8>,
    /// How much of `chunk` has been read.
    at: usize,
    has_ended: bool,
}

impl<R> InChunks<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            data: vec![0; CHUNK_BYTES],
            chunk: Vec::new(),
            at: 0,
            has_ended: false,
        }
    }
}

impl<R: Read> Read for InChunks<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.has_ended {
            let bytes = self.from.read(&mut self.data)?;
            // The last chunk is the one without data.
            self.has_ended = bytes == 0;
            self.at = 0;
            self.chunk.clear();
            write!(self.chunk, "{bytes:x}\r\n")?;
            self.chunk.extend(self.data.iter().take(bytes));
            self.chunk.extend_from_slice(b"\r\n");
        }
        let mut rest = self.chunk.get(self.at..).unwrap_or_default();
        let bytes = rest.read(into)?;
        self.at += bytes;
        Ok(bytes)
    }
}
