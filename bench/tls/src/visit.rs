//! A short connection: hands are shaken, one byte comes back, both sides say that this was all.

use crate::newcomer::Secured;
use crate::session::Session;
use rustls::ClientConfig;
use sockeye_limits::crowd::Newcomer;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

const MESSAGE: &[u8] = b"x";

/// The client says the end first and waits for the server's. Then it closes with a reset: the server has said all that
/// it has to say, and neither side is left with a socket in TIME_WAIT.
#[derive(Debug)]
pub struct Visit {
    state: State,
    served: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Arriving(Secured<'static>),
    Leaving(Session),
    /// Between the two.
    Gone,
}

impl Visit {
    pub fn begin(address: SocketAddrV4, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Ok(Self {
            state: State::Arriving(Secured::begin(address, config, MESSAGE)?),
            served: None,
        })
    }

    /// Goes on until the socket has had enough. Whether the visit is over.
    pub fn proceed(&mut self, happened: u32) -> io::Result<bool> {
        if let State::Arriving(arriving) = &mut self.state {
            if !arriving.proceed(happened)? {
                return Ok(false);
            }
            self.served = Some(Instant::now());
            if let State::Arriving(arrived) = std::mem::replace(&mut self.state, State::Gone) {
                let mut session = arrived.into_stream();
                session.say_the_end()?;
                self.state = State::Leaving(session);
            }
        }
        match self.session() {
            Some(session) => await_the_end(session),
            None => Ok(true),
        }
    }

    /// When the byte came back.
    #[must_use]
    pub fn served(&self) -> Option<Instant> {
        self.served
    }

    /// The session, when hands are shaken and the byte has come back.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.state {
            State::Leaving(session) => Some(session),
            State::Arriving(_) | State::Gone => None,
        }
    }
}

/// Whether the server has said its end. One that just closes has failed: the client could not tell that from an attack
/// (RFC 8446, section 6.1).
fn await_the_end(session: &mut Session) -> io::Result<bool> {
    let mut buffer = [0; 256];
    match session.read(&mut buffer) {
        Ok(0) => Ok(true),
        Ok(_) => Err(sockeye_limits::crowd::not_an_echo()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

impl AsRawFd for Visit {
    fn as_raw_fd(&self) -> RawFd {
        match &self.state {
            State::Arriving(arriving) => arriving.as_raw_fd(),
            State::Leaving(session) => session.as_raw_fd(),
            State::Gone => -1,
        }
    }
}
