//! The raw limit: one thread, one epoll set, and nothing else between the kernel and the echo.
//!
//! Level-triggered, because it needs the fewest calls here: one read per event, and bytes left in the socket are
//! simply reported again. Every connection is read into the same buffer, which therefore stays in the cache, and is
//! answered at once.

use sockeye_limits::sys::{self, Epoll, Events, READABLE, WRITABLE};
use sockeye_limits::{announce, exit_code};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// No connection has this descriptor: it is standard input's, which Rust's start-up opens if it has to.
const LISTENER: usize = 0;

struct Connection {
    stream: TcpStream,
    /// What the socket would not take, none of it allocated while there is nothing.
    rest: Vec<u8>,
}

enum Turn {
    Goes,
    Ended,
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    /// By descriptor: the kernel hands out the lowest free one, so the table is dense and needs no hashing.
    connections: Vec<Option<Connection>>,
}

fn main() -> ExitCode {
    exit_code("epoll_echo", run())
}

fn run() -> io::Result<bool> {
    sys::raise_descriptor_limit()?;
    let mut server = Server {
        epoll: Epoll::new()?,
        listener: sys::listen()?,
        connections: Vec::new(),
    };
    server.epoll.add(&server.listener, LISTENER, READABLE)?;
    announce(&server.listener)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_room_for(1024);
    loop {
        server.epoll.wait(&mut events, None)?;
        // A descriptor is at most once in a batch, so one that is closed and handed out again within it has no stale
        // event.
        for (token, _) in events.iter() {
            if token == LISTENER {
                server.accept_all()?;
            } else {
                server.proceed(token, &mut buffer)?;
            }
        }
    }
}

impl Server {
    /// Empties the queue, since it overflows in a burst. An error ends the program: a limit that lost connections is
    /// none.
    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let stream = match sys::accept(&self.listener) {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The peer has given up before its turn came.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let token = stream.as_raw_fd() as usize;
            self.epoll.add(&stream, token, READABLE)?;
            if token >= self.connections.len() {
                self.connections.resize_with(token + 1, || None);
            }
            let rest = Vec::new();
            self.connections[token] = Some(Connection { stream, rest });
        }
    }

    fn proceed(&mut self, token: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(connection) = &mut self.connections[token] else {
            return Ok(());
        };
        let was_blocked = !connection.rest.is_empty();
        let turn = if was_blocked {
            connection.write_rest()
        } else {
            connection.echo(buffer)
        };
        if let Turn::Ended = turn {
            // Closing takes the socket out of the epoll set too.
            self.connections[token] = None;
            return Ok(());
        }
        let is_blocked = !connection.rest.is_empty();
        if is_blocked != was_blocked {
            // Not reading meanwhile is what bounds the memory: a peer that does not read is not read from.
            let interest = if is_blocked { WRITABLE } else { READABLE };
            self.epoll.change(&connection.stream, token, interest)?;
        }
        Ok(())
    }
}

impl Connection {
    fn echo(&mut self, buffer: &mut [u8]) -> Turn {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Turn::Ended,
            Ok(count) => count,
            Err(error) if is_passing(&error) => return Turn::Goes,
            Err(_) => return Turn::Ended,
        };
        let written = match self.stream.write(&buffer[..count]) {
            Ok(written) => written,
            Err(error) if is_passing(&error) => 0,
            Err(_) => return Turn::Ended,
        };
        if written < count {
            self.rest = buffer[written..count].to_vec();
        }
        Turn::Goes
    }

    fn write_rest(&mut self) -> Turn {
        match self.stream.write(&self.rest) {
            Ok(written) if written == self.rest.len() => self.rest = Vec::new(),
            Ok(written) => drop(self.rest.drain(..written)),
            Err(error) if is_passing(&error) => {}
            Err(_) => return Turn::Ended,
        }
        Turn::Goes
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
