//! A TLS connection on its way to being open.

use crate::session::Session;
use rustls::ClientConfig;
use sockeye_limits::crowd::{self, Newcomer};
use sockeye_limits::report::Report;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// A connection that is open when hands are shaken and its message, if there is one, has come back.
#[derive(Debug)]
pub struct Secured<'a> {
    session: Session,
    message: &'a [u8],
    sent: bool,
    received: usize,
}

impl<'a> Secured<'a> {
    pub fn begin(
        address: SocketAddrV4,
        config: &Arc<ClientConfig>,
        message: &'a [u8],
    ) -> io::Result<Self> {
        Ok(Self {
            session: Session::begin(address, config)?,
            message,
            sent: message.is_empty(),
            received: 0,
        })
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 256];
        while self.received < self.message.len() {
            let count = match self.session.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.message[self.received..].get(..count) != Some(&buffer[..count]) {
                return Err(crowd::not_an_echo());
            }
            self.received += count;
        }
        Ok(())
    }
}

impl Newcomer for Secured<'_> {
    type Stream = Session;

    fn proceed(&mut self, happened: u32) -> io::Result<bool> {
        crowd::connected(self.session.socket(), happened)?;
        if !self.session.shake()? {
            return Ok(false);
        }
        if !self.sent {
            // The socket has sent a handshake and nothing else: it has room for far more than these messages.
            self.session.write_all(self.message)?;
            self.sent = true;
        }
        self.receive()?;
        Ok(self.received == self.message.len())
    }

    fn into_stream(self) -> Session {
        self.session
    }

    fn describe(session: &Session, report: Report) -> Report {
        session.describe(report)
    }
}

impl AsRawFd for Secured<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.session.as_raw_fd()
    }
}
