//! A proxy on the way: what a client says to a SOCKS or HTTP proxy so that it connects to a destination, and what the
//! proxy answers.
//!
//! [`open`] holds the conversation over a stream; [`Negotiation`] is the conversation alone, a function of bytes. When
//! it is over, what carries the bytes is as good as a connection to the destination: TLS and all else come after it.
//! [`client::Connector`](crate::client::Connector) does it all, from the proxy's name on, if it is given a
//! [`client::Proxy`](crate::client::Proxy).
//!
//! No byte too many is read: the one after the proxy's consent is the destination's. So the conversation says how many
//! bytes of an answer are still to come for certain ([`Negotiation::needs`]), and [`open`] reads no more than these.
//!
//! What a proxy may say has a maximum: a SOCKS answer cannot be longer than 262 bytes, and the answer to CONNECT is
//! [`MAX_HEAD_BYTES`] at most. Every way in which its answers can be cut gives the same result.
//!
//! **Credentials are sent in plain text**, to whoever is the proxy or on the way to it: SOCKS5 and Basic know no other
//! way.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

mod answer;
mod http_connect;
mod request;
mod socks4;
mod socks5;

pub use answer::{HopError, Refusal, Step};
pub use http_connect::MAX_HEAD_BYTES;
pub use request::{Credentials, Destination, RequestError};

use answer::Pushed;

/// More than a proxy is ever certain to say at once.
const READ_BYTES: usize = 512;

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// RFC 1928, without credentials or with a password (RFC 1929). GSSAPI is not spoken.
    Socks5,
    /// "SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee): IPv4 addresses, and a user id without a password.
    Socks4,
    /// "SOCKS 4A: A Simple Extension to SOCKS 4 Protocol" (Ying-Da Lee): names as well.
    Socks4a,
    /// The method CONNECT of HTTP/1.1 (RFC 9110 section 9.3.6), with Basic credentials (RFC 7617). Digest is not spoken.
    Http,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Socks5, Self::Socks4, Self::Socks4a, Self::Http];

    /// The name, which is also what it is parsed from: `socks5`, `socks4`, `socks4a`, `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Socks4 => "socks4",
            Self::Socks4a => "socks4a",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of no [`Protocol`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not one of socks5, socks4, socks4a and http")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        let found = Self::ALL.into_iter().find(|known| known.as_str() == name);
        found.ok_or(UnknownProtocol)
    }
}

/// The conversation, without a connection. Take the step that [`begin`](Self::begin) and then each
/// [`receive`](Self::receive) returns, until it is [`Step::Open`] or an error.
#[derive(Debug)]
pub struct Negotiation {
    state: State,
}

#[derive(Debug)]
enum State {
    Socks5(socks5::Dialogue),
    Socks4(socks4::Reply),
    Http(http_connect::Response),
    Open,
    Failed(HopError),
}

impl Negotiation {
    /// Begins, and says what to send first.
    ///
    /// # Errors
    ///
    /// See [`RequestError`]: that cannot be asked in this protocol. Nobody has to be connected to, to know that.
    pub fn begin(
        protocol: Protocol,
        destination: &Destination,
        credentials: Option<&Credentials>,
    ) -> Result<(Self, Step), RequestError> {
        destination.check()?;
        let (state, first) = match protocol {
            Protocol::Socks5 => {
                let (dialogue, greeting) = socks5::Dialogue::begin(destination, credentials)?;
                (State::Socks5(dialogue), greeting)
            }
            Protocol::Socks4 | Protocol::Socks4a => {
                let with_names = protocol == Protocol::Socks4a;
                let request = socks4::request(destination, credentials, with_names)?;
                (State::Socks4(socks4::Reply::default()), request)
            }
            Protocol::Http => {
                let request = http_connect::request(destination, credentials)?;
                let response = http_connect::Response::new(credentials.is_some());
                (State::Http(response), request)
            }
        };
        Ok((Self { state }, Step::Send(first)))
    }

    /// How many bytes the proxy has still to say at the least, once all is sent that was to be sent. Whoever reads no more
    /// than these reads nothing that is the destination's. At least 1 until the conversation is over, and 0 then.
    pub fn needs(&self) -> usize {
        match &self.state {
            State::Socks5(dialogue) => dialogue.needs(),
            State::Socks4(reply) => reply.needs(),
            State::Http(response) => response.needs(),
            State::Open | State::Failed(_) => 0,
        }
    }

    /// Takes what has come from the proxy, in whatever pieces. Says how many bytes of it belong to the conversation so far,
    /// and what to do next: bytes that it has not used are for the next call or, after [`Step::Open`], from the destination.
    ///
    /// # Errors
    ///
    /// See [`HopError`]. Whatever comes after an error gives the same error again.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(usize, Step), HopError> {
        let taken = self.advance(bytes);
        match &taken {
            Ok((_, Step::Open)) => self.state = State::Open,
            Ok(_) => {}
            Err(error) => self.state = State::Failed(error.clone()),
        }
        taken
    }

    /// What it means that the stream ends here.
    pub fn ended(&self) -> HopError {
        let due = match &self.state {
            State::Socks5(dialogue) => dialogue.due(),
            State::Socks4(_) => socks4::DUE,
            State::Http(_) => http_connect::DUE,
            State::Open => "the destination",
            State::Failed(error) => return error.clone(),
        };
        HopError::Ended { due }
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<(usize, Step), HopError> {
        for (index, byte) in bytes.iter().enumerate() {
            let pushed = match &mut self.state {
                State::Socks5(dialogue) => dialogue.push(*byte)?,
                State::Socks4(reply) => reply.push(*byte)?,
                State::Http(response) => response.push(*byte)?,
                State::Open => return Ok((0, Step::Open)),
                State::Failed(error) => return Err(error.clone()),
            };
            match pushed {
                Pushed::More => {}
                Pushed::Send(bytes) => return Ok((index + 1, Step::Send(bytes))),
                Pushed::Open => return Ok((index + 1, Step::Open)),
            }
        }
        match &self.state {
            State::Open => Ok((0, Step::Open)),
            State::Failed(error) => Err(error.clone()),
            _ => Ok((bytes.len(), Step::Receive)),
        }
    }
}

/// Why [`open`] came to nothing. The connection is of no use then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What the proxy said, or did not say.
    #[error(transparent)]
    Hop(#[from] HopError),
    /// The connection to the proxy failed.
    #[error("the connection to the proxy failed: {0}")]
    Io(#[from] io::Error),
}

impl OpenError {
    /// Whether the proxy could not, rather than would not: the same may be possible later, or with another address.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Request(_) => false,
            Self::Hop(error) => error.is_temporary(),
            Self::Io(_) => true,
        }
    }
}

/// Has the proxy at the other end of `stream` connect to a destination. After `Ok` the very next byte in each direction is
/// the destination's.
///
/// It waits for the proxy without a deadline: put one around it. Not cancel safe: when it is dropped, it is not known how
/// far the conversation came, and the connection has to be closed.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn open<S>(
    stream: &mut S,
    protocol: Protocol,
    destination: &Destination,
    credentials: Option<&Credentials>,
) -> Result<(), OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (negotiation, step) = Negotiation::begin(protocol, destination, credentials)?;
    hold(stream, negotiation, step).await
}

/// [`open`], once it has begun.
pub(crate) async fn hold<S>(
    stream: &mut S,
    mut negotiation: Negotiation,
    mut step: Step,
) -> Result<(), OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match step {
            Step::Open => return Ok(()),
            Step::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Step::Receive => {}
        }
        let room = negotiation.needs().min(buffer.len());
        let into = buffer.get_mut(..room).unwrap_or_default();
        step = match stream.read(into).await? {
            0 => return Err(negotiation.ended().into()),
            bytes => {
                let (used, step) = negotiation.receive(buffer.get(..bytes).unwrap_or_default())?;
                debug_assert_eq!(used, bytes, "no byte too many is read");
                step
            }
        };
    }
}

/// `HOST:PORT` of an address, without the zone of an IPv6 address, which means nothing elsewhere.
fn written(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.to_string(),
        SocketAddr::V6(address) => format!("[{}]:{}", address.ip(), address.port()),
    }
}
