//! A PROXY header is the same for every cut, takes no byte of the stream behind it, and is written as it was read.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use sockeye::proxy_protocol::{Command, Header, Parsed, ReadError, parse, read};
use tokio::io::{AsyncRead, ReadBuf};

pub(crate) fn check(data: &[u8]) {
    let whole = parse(data);
    check_prefixes(data);
    for pieces in [&[1][..], &[2, 3, 5], &[usize::MAX], &pieces_of(data)] {
        check_read(data, pieces);
    }
    if let Ok(Parsed::Complete { header, .. }) = whole {
        check_encode(&header);
        check_client(&header);
    }
}

/// What is decided of a prefix is decided of the whole, and no prefix asks for more than the header has.
fn check_prefixes(data: &[u8]) {
    let whole = parse(data);
    let end = match &whole {
        Ok(Parsed::Complete { bytes, .. }) => *bytes,
        // No more is looked at before the declared length is there.
        _ => data.len().min(1_000),
    };
    assert!(end <= data.len());
    for (held, prefix) in (0..=end).map(|held| (held, &data[..held])) {
        match parse(prefix) {
            Ok(Parsed::Incomplete { at_least }) => {
                assert!(at_least > 0);
                if let Ok(Parsed::Complete { bytes, .. }) = whole {
                    assert!(held + at_least <= bytes, "asks for bytes of the stream");
                }
            }
            decided => {
                assert_eq!(decided, whole, "decided after {held} bytes");
                assert!(decided.is_err() || held == end);
            }
        }
    }
}

/// Reading gives the same, and leaves the stream where the header ends.
fn check_read(data: &[u8], pieces: &[usize]) {
    let mut reader = Pieces {
        left: data,
        pieces: pieces.iter().copied().cycle(),
    };
    let polled = pin!(read(&mut reader)).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(read) = polled else {
        panic!("waits, though all is there");
    };
    let taken = data.len() - reader.left.len();
    match (parse(data), read) {
        (Ok(Parsed::Complete { header, bytes }), Ok(read)) => {
            assert_eq!(read, header);
            assert_eq!(taken, bytes);
        }
        (Ok(Parsed::Incomplete { .. }), Err(ReadError::EndOfStream { after })) => {
            assert_eq!(after, data.len());
        }
        (Err(invalid), Err(ReadError::Invalid(read))) => assert_eq!(read, invalid),
        (parsed, read) => panic!("parsed as {parsed:?}, read as {read:?}"),
    }
}

fn check_encode(header: &Header) {
    let bytes = header.encode().expect("what was read can be written");
    let again = Parsed::Complete {
        header: header.clone(),
        bytes: bytes.len(),
    };
    assert_eq!(parse(&bytes), Ok(again));
}

fn check_client(header: &Header) {
    let client = header.client();
    if let Some(client) = client {
        assert_eq!(client.ip(), client.ip().to_canonical());
    }
    assert!(client.is_none() || header.command == Command::Proxy);
}

/// Sizes that depend on the data, so that the fuzzer can look for the cut that matters.
fn pieces_of(data: &[u8]) -> Vec<usize> {
    let sizes = data.iter().rev().take(4);
    sizes
        .map(|byte| usize::from(*byte) + 1)
        .chain([7])
        .collect()
}

/// Gives its bytes in pieces of at most these sizes.
struct Pieces<'a, I> {
    left: &'a [u8],
    pieces: I,
}

impl<I: Iterator<Item = usize> + Unpin> AsyncRead for Pieces<'_, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = self.pieces.next().unwrap_or(1);
        let size = piece.min(buffer.remaining()).min(self.left.len());
        let (now, later) = self.left.split_at(size);
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}
