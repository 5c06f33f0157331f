//! One connection of a closed loop: a message, its whole echo, the next message.

use crate::crowd;
use crate::sys::{Epoll, READABLE, WRITABLE};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    /// How many messages have come back.
    pub turn: u64,
    sent: usize,
    received: usize,
    begun: Instant,
    awaits_room: bool,
    /// Whether a message was completed within the measured window.
    pub served: bool,
}

impl<S: Read + Write + AsRawFd> Client<S> {
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            turn: 0,
            sent: 0,
            received: 0,
            begun: Instant::now(),
            awaits_room: false,
            served: false,
        }
    }

    /// Sends what is left of the message, as far as the socket takes it, and asks to be told of room for the rest.
    pub fn send(&mut self, message: &[u8], epoll: &Epoll, token: usize) -> io::Result<()> {
        let awaits_room = !self.push(message)?;
        if awaits_room != self.awaits_room {
            self.awaits_room = awaits_room;
            let writable = if awaits_room { WRITABLE } else { 0 };
            epoll.change(&self.stream, token, READABLE | writable)?;
        }
        Ok(())
    }

    /// Sends what is left of the message, as far as the socket takes it. Whether that was all.
    pub fn push(&mut self, message: &[u8]) -> io::Result<bool> {
        if self.sent == 0 {
            self.begun = Instant::now();
        }
        if self.sent < message.len() {
            match self.stream.write(&message[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.sent == message.len())
    }

    /// Reads what is there, and returns how long the round trip took when that completes the echo.
    ///
    /// Without `verify` the bytes are counted and not compared. More than was sent is wrong either way.
    pub fn receive(
        &mut self,
        message: &[u8],
        verify: bool,
        buffer: &mut [u8],
    ) -> io::Result<Option<Duration>> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = self.received + count;
        if end > self.sent || verify && message[self.received..end] != buffer[..count] {
            return Err(crowd::not_an_echo());
        }
        self.received = end;
        if end < message.len() {
            return Ok(None);
        }
        self.turn += 1;
        (self.sent, self.received) = (0, 0);
        Ok(Some(self.begun.elapsed()))
    }
}
