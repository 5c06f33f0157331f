//! Many connections opened at once, each of which may have to exchange one message before it counts as open.

use crate::report::Report;
use crate::sys::{self, EDGE, Epoll, Events, FAILED, READABLE, WRITABLE};
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// How to open them.
#[derive(Debug)]
pub struct Opening {
    pub count: usize,
    /// How many may be begun and not yet open. As many as `count` is a burst.
    pub in_flight: usize,
    pub patience: Duration,
}

/// One connection on its way to being open, with all that has to be said on it before it counts as such.
pub trait Newcomer: AsRawFd {
    /// What it is when it is open.
    type Stream;

    /// Does what can be done after what happened, and tells whether it is open by now. It is told of every change
    /// once, so it has to read and write until the socket has had enough.
    fn proceed(&mut self, happened: u32) -> io::Result<bool>;

    fn into_stream(self) -> Self::Stream;

    /// Adds to a report what was agreed with the server, if anything was.
    #[must_use]
    fn describe(_: &Self::Stream, report: Report) -> Report {
        report
    }
}

/// What became of them.
#[derive(Debug)]
pub struct Crowd<S> {
    pub streams: Vec<S>,
    pub errors: u64,
    pub first_error: Option<String>,
}

impl Opening {
    /// Opens them all, or as many as can be within the patience. Only the loop itself can fail, never one connection.
    pub fn run<N: Newcomer>(
        &self,
        begin: impl Fn() -> io::Result<N>,
    ) -> io::Result<Crowd<N::Stream>> {
        let epoll = Epoll::new()?;
        let mut events = Events::with_room_for(1024);
        let mut newcomers: Vec<Option<N>> = Vec::with_capacity(self.count);
        let mut crowd = Crowd::default();
        let mut settled = 0;
        let deadline = Instant::now() + self.patience;
        while settled < self.count {
            while newcomers.len() < self.count && newcomers.len() - settled < self.in_flight {
                let begun = begin().and_then(|newcomer| {
                    // Edge-triggered for both directions costs the client one registration instead of two.
                    let interest = READABLE | WRITABLE | EDGE;
                    epoll.add(&newcomer, newcomers.len(), interest)?;
                    Ok(newcomer)
                });
                settled += usize::from(begun.is_err());
                newcomers.push(begun.map_err(|error| crowd.fail(&error)).ok());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            epoll.wait(&mut events, Some(left))?;
            for (token, happened) in events.iter() {
                let Some(newcomer) = &mut newcomers[token] else {
                    continue;
                };
                match newcomer.proceed(happened) {
                    Ok(false) => continue,
                    Ok(true) => crowd
                        .streams
                        .extend(newcomers[token].take().map(N::into_stream)),
                    Err(error) => {
                        crowd.fail(&error);
                        newcomers[token] = None;
                    }
                }
                settled += 1;
            }
        }
        for _ in settled..self.count {
            crowd.fail(&io::ErrorKind::TimedOut.into());
        }
        Ok(crowd)
    }
}

/// A connection that is open when it is connected and its message, if there is one, has come back.
#[derive(Debug)]
pub struct Plain<'a> {
    stream: TcpStream,
    message: &'a [u8],
    sent: bool,
    received: usize,
}

impl<'a> Plain<'a> {
    pub fn begin(address: SocketAddrV4, message: &'a [u8]) -> io::Result<Self> {
        Ok(Self {
            stream: sys::begin_connect(address)?,
            message,
            sent: false,
            received: 0,
        })
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 256];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if self.message[self.received..].get(..count) != Some(&buffer[..count]) {
            return Err(not_an_echo());
        }
        self.received += count;
        Ok(())
    }
}

impl Newcomer for Plain<'_> {
    type Stream = TcpStream;

    fn proceed(&mut self, happened: u32) -> io::Result<bool> {
        connected(&self.stream, happened)?;
        if happened & WRITABLE != 0 && !self.sent {
            // A new socket has room for far more than these messages.
            self.stream.write_all(self.message)?;
            self.sent = true;
        }
        if happened & READABLE != 0 && self.received < self.message.len() {
            self.receive()?;
        }
        Ok(self.sent && self.received == self.message.len())
    }

    fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsRawFd for Plain<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// The error of a connection that was not to be, if that is what happened.
pub fn connected(stream: &TcpStream, happened: u32) -> io::Result<()> {
    if happened & FAILED != 0
        && let Some(error) = stream.take_error()?
    {
        return Err(error);
    }
    Ok(())
}

impl<S> Default for Crowd<S> {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            errors: 0,
            first_error: None,
        }
    }
}

impl<S> Crowd<S> {
    pub fn fail(&mut self, error: &io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

/// The server sent something else than it was sent, or more.
#[must_use]
pub fn not_an_echo() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "what came back is not what was sent",
    )
}
