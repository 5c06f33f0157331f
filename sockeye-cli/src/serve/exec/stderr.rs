//! What a program says on stderr, into the log.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::read;
use rustix::pipe::{PipeFlags, pipe_with};
use sockeye::hot_buffer;
use tokio::net::unix::pipe::Receiver;

use crate::serve::exec::lines::Lines;
use crate::serve::reporter::Reporter;

/// Our end of a program's stderr.
pub(super) struct Stderr {
    pipe: Receiver,
    lines: Lines,
    id: u64,
    reporter: Arc<Reporter>,
}

impl Stderr {
    /// A pipe: our end, and the program's.
    pub(super) fn pipe(id: u64, reporter: &Arc<Reporter>) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        let stderr = Self {
            pipe: Receiver::from_owned_fd(ours)?,
            lines: Lines::default(),
            id,
            reporter: Arc::clone(reporter),
        };
        Ok((stderr, theirs))
    }

    /// Tells what is said, line by line, until nobody can say anything any more.
    ///
    /// Cancel safe.
    pub(super) async fn tell(&mut self) {
        let Self {
            pipe,
            lines,
            id,
            reporter,
        } = self;
        // An error of a pipe is its end, too.
        while let Ok(1..) = hot_buffer::read(pipe, |bytes| {
            lines.push(bytes, |line| reporter.said(*id, line));
        })
        .await
        {}
    }

    /// Tells what is left, when the program has ended: as much as a pipe holds, and the half of a line at the end.
    pub(super) fn tell_rest(&mut self) {
        let Self {
            pipe,
            lines,
            id,
            reporter,
        } = self;
        let mut left = [0; 4096];
        for _ in 0..PIPE_BYTES / left.len() {
            match read(pipe.as_fd(), &mut left) {
                Ok(bytes) if bytes > 0 => {
                    lines.push(&left[..bytes], |line| reporter.said(*id, line));
                }
                _ => break,
            }
        }
        if let Some(line) = lines.rest() {
            reporter.said(*id, line);
        }
    }
}

/// What a pipe holds unless it was asked to hold more (pipe(7)).
const PIPE_BYTES: usize = 64 * 1024;
