//! TLS on a non-blocking socket, with the manners of a socket.

use crate::config::NAME;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use sockeye_limits::report::Report;
use sockeye_limits::sys;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// A client's connection: reads and writes what is inside, and says `WouldBlock` where the socket does.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
    tls: ClientConnection,
    /// What has been encrypted and is not yet all in the socket. Written anew, it is not encrypted anew.
    taken: usize,
}

impl Session {
    /// Begins to connect. The handshake begins when the socket can be written to, see [`Session::shake`].
    pub fn begin(address: SocketAddrV4, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self {
            stream: sys::begin_connect(address)?,
            tls,
            taken: 0,
        })
    }

    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Goes on with the handshake, until it is over or the socket has had enough. Whether it is over.
    pub fn shake(&mut self) -> io::Result<bool> {
        loop {
            if !passing(self.send_records())? {
                return Ok(false);
            }
            if !self.tls.is_handshaking() {
                return Ok(true);
            }
            if !passing(self.receive_records())? {
                return Ok(false);
            }
        }
    }

    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Says that this was all, as far as the socket takes it at once: it has room for so little.
    pub fn say_the_end(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.send_records()
    }

    /// Adds what was agreed to a report.
    #[must_use]
    pub fn describe(&self, report: Report) -> Report {
        let version = self.tls.protocol_version().and_then(|v| v.as_str());
        let suite = self.tls.negotiated_cipher_suite();
        let suite = suite.and_then(|suite| suite.suite().as_str());
        let group = self.tls.negotiated_key_exchange_group();
        let group = group.and_then(|group| group.name().as_str());
        let agreed = [version, suite, group].map(|name| name.unwrap_or("unknown"));
        report.text("agreed", &agreed.join(", "))
    }

    /// Writes all records there are, or says `WouldBlock`.
    fn send_records(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads once.
    fn receive_records(&mut self) -> io::Result<()> {
        if self.tls.read_tls(&mut self.stream)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let processed = self.tls.process_new_packets();
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(())
    }
}

impl Read for Session {
    /// Reads from the socket once, unless something is left from before: as long as the buffer has room for whatever
    /// the server may have sent, a poll of the socket tells of everything.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
        self.receive_records()?;
        self.tls.reader().read(buffer)
    }
}

impl Write for Session {
    /// Says how much is in the socket, and before all of it is, that it would block: then the same bytes are to be
    /// written again, so that none stay behind here unnoticed.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.taken == 0 {
            self.taken = self.tls.writer().write(bytes)?;
        }
        self.send_records()?;
        Ok(std::mem::take(&mut self.taken))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_records()
    }
}

impl AsRawFd for Session {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Whether it was done; if it only has to be tried again, that is no error.
fn passing(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
