//! Many connections opened at once, each of which may have to exchange one message before it counts as open.

use crate::sys::{self, EDGE, Epoll, Events, FAILED, READABLE, WRITABLE};
use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// How to open them.
#[derive(Debug)]
pub struct Opening<'a> {
    pub address: SocketAddrV4,
    pub count: usize,
    /// How many may be begun and not yet open. As many as `count` is a burst.
    pub in_flight: usize,
    /// Sent on each and awaited back; empty to wait for the connection only.
    pub message: &'a [u8],
    pub patience: Duration,
}

/// What became of them.
#[derive(Debug, Default)]
pub struct Crowd {
    pub streams: Vec<TcpStream>,
    pub errors: u64,
    pub first_error: Option<String>,
}

struct Member {
    stream: TcpStream,
    sent: bool,
    received: usize,
}

impl Opening<'_> {
    /// Opens them all, or as many as can be within the patience. Only the loop itself can fail, never one connection.
    pub fn run(&self) -> io::Result<Crowd> {
        let epoll = Epoll::new()?;
        let mut events = Events::with_room_for(1024);
        let mut members: Vec<Option<Member>> = Vec::with_capacity(self.count);
        let mut crowd = Crowd::default();
        let mut settled = 0;
        let deadline = Instant::now() + self.patience;
        while settled < self.count {
            while members.len() < self.count && members.len() - settled < self.in_flight {
                let begun = self.begin(&epoll, members.len());
                settled += usize::from(begun.is_err());
                members.push(begun.map_err(|error| crowd.fail(&error)).ok());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            epoll.wait(&mut events, Some(left))?;
            for (token, happened) in events.iter() {
                let Some(member) = &mut members[token] else {
                    continue;
                };
                match self.proceed(member, happened) {
                    Ok(false) => continue,
                    Ok(true) => crowd
                        .streams
                        .extend(members[token].take().map(|m| m.stream)),
                    Err(error) => {
                        crowd.fail(&error);
                        members[token] = None;
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

    /// Edge-triggered for both directions costs the client one registration per connection instead of two.
    fn begin(&self, epoll: &Epoll, token: usize) -> io::Result<Member> {
        let stream = sys::begin_connect(self.address)?;
        epoll.add(&stream, token, READABLE | WRITABLE | EDGE)?;
        Ok(Member {
            stream,
            sent: false,
            received: 0,
        })
    }

    /// Does what can be done on one connection, and tells whether it is open by now.
    fn proceed(&self, member: &mut Member, happened: u32) -> io::Result<bool> {
        if happened & FAILED != 0
            && let Some(error) = member.stream.take_error()?
        {
            return Err(error);
        }
        if happened & WRITABLE != 0 && !member.sent {
            // A new socket has room for far more than these messages.
            member.stream.write_all(self.message)?;
            member.sent = true;
        }
        if happened & READABLE != 0 && member.received < self.message.len() {
            member.receive(self.message)?;
        }
        Ok(member.sent && member.received == self.message.len())
    }
}

impl Member {
    fn receive(&mut self, message: &[u8]) -> io::Result<()> {
        let mut buffer = [0; 256];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if message[self.received..].get(..count) != Some(&buffer[..count]) {
            return Err(not_an_echo());
        }
        self.received += count;
        Ok(())
    }
}

impl Crowd {
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
