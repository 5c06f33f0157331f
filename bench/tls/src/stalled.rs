//! Connections that begin a handshake and never go on with it.

use rustls::{ClientConfig, ClientConnection};
use sockeye_limits::crowd::{self, Newcomer};
use sockeye_limits::sys;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// One such connection, which says so much and no more.
#[derive(Debug)]
pub struct Stalled<'a> {
    stream: TcpStream,
    words: &'a [u8],
}

impl<'a> Stalled<'a> {
    pub fn begin(address: SocketAddrV4, words: &'a [u8]) -> io::Result<Self> {
        let stream = sys::begin_connect(address)?;
        Ok(Self { stream, words })
    }
}

impl Newcomer for Stalled<'_> {
    type Stream = TcpStream;

    fn proceed(&mut self, happened: u32) -> io::Result<bool> {
        crowd::connected(&self.stream, happened)?;
        self.stream.write_all(self.words)?;
        Ok(true)
    }

    fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsRawFd for Stalled<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// The first half of a ClientHello.
pub fn half_a_hello(config: &Arc<ClientConfig>) -> io::Result<Vec<u8>> {
    let name = crate::config::NAME.try_into().map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    tls.write_tls(&mut hello)?;
    hello.truncate(hello.len() / 2);
    Ok(hello)
}

/// Whether the server still holds it, and has not said anything either.
#[must_use]
pub fn is_held(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
