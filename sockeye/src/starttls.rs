//! STARTTLS: what a client and a server say in plain text before they begin the handshake, on the client's side.
//!
//! [`negotiate`] holds the conversation over a stream; [`Negotiation`] is the conversation alone, a function of bytes.
//! Neither knows TLS: when the server has consented, the handshake is the caller's.
//!
//! Nothing of what is read before the handshake is authenticated, so nothing of it is handed on: what the server can do
//! and what it is called are forgotten, and have to be asked for again. If as much as one byte came with the
//! server's consent, or with an answer before the next command, that is an error and not the beginning of something
//! ([`StarttlsError::EarlyData`], [`StarttlsError::EarlyAnswer`]): whoever sits in between could have put it there.
//!
//! Everything that a server sends has a maximum: [`MAX_LINE_BYTES`], [`MAX_REPLY_LINES`], [`MAX_XMPP_BYTES`],
//! [`MAX_LDAP_BYTES`]. Every way in which its answers can be cut gives the same result.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

mod answer;
mod ldap;
mod text;
mod xmpp;

pub(crate) use answer::shown;
pub use answer::{
    MAX_LDAP_BYTES, MAX_LINE_BYTES, MAX_REPLY_LINES, MAX_SAID_CHARS, MAX_XMPP_BYTES, StarttlsError,
    Step,
};

/// More than any answer of a real server.
const READ_BYTES: usize = 4096;

/// The request for TLS: its own length, and a version of the protocol that there will never be (PostgreSQL, "Message
/// Formats", SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The protocols that can change to TLS in the midst of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// RFC 3207.
    Smtp,
    /// RFC 9051 section 6.2.1, RFC 2595 section 3.
    Imap,
    /// RFC 2595 section 4.
    Pop3,
    /// PostgreSQL, "Message Flow", "SSL Session Encryption".
    Postgres,
    /// RFC 6120 section 5.
    Xmpp,
    /// RFC 4511 section 4.14.
    Ldap,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Smtp,
        Self::Imap,
        Self::Pop3,
        Self::Postgres,
        Self::Xmpp,
        Self::Ldap,
    ];

    /// The name, which is also what it is parsed from: `smtp`, `imap`, `pop3`, `postgres`, `xmpp`, `ldap`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Postgres => "postgres",
            Self::Xmpp => "xmpp",
            Self::Ldap => "ldap",
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
#[error("not one of smtp, imap, pop3, postgres, xmpp and ldap")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        let found = Self::ALL.into_iter().find(|known| known.as_str() == name);
        found.ok_or(UnknownProtocol)
    }
}

/// The conversation, without a connection. Take the step that [`begin`](Self::begin) and then each
/// [`receive`](Self::receive) returns, until it is [`Step::Agreed`] or an error.
#[derive(Debug)]
pub struct Negotiation {
    state: State,
}

#[derive(Debug)]
enum State {
    Lines(text::Dialogue),
    Postgres,
    Xmpp(xmpp::Stream),
    Ldap(ldap::Response),
    Agreed,
    Failed(StarttlsError),
}

impl Negotiation {
    /// Begins, and says what to do first. `host` is the name of the server; only XMPP says it to the server.
    pub fn begin(protocol: Protocol, host: &str) -> (Self, Step) {
        let lines = |dialect| State::Lines(text::Dialogue::new(dialect));
        let (state, step) = match protocol {
            Protocol::Smtp => (lines(text::Dialect::Smtp), Step::Wait),
            Protocol::Imap => (lines(text::Dialect::Imap), Step::Wait),
            Protocol::Pop3 => (lines(text::Dialect::Pop3), Step::Wait),
            Protocol::Postgres => (State::Postgres, Step::Send(SSL_REQUEST.to_vec())),
            Protocol::Xmpp => {
                let header = xmpp::stream_header(host);
                (State::Xmpp(xmpp::Stream::default()), Step::Send(header))
            }
            Protocol::Ldap => {
                let request = ldap::REQUEST.to_vec();
                (State::Ldap(ldap::Response::default()), Step::Send(request))
            }
        };
        (Self { state }, step)
    }

    /// Takes what has come from the server, in whatever pieces, and says what to do next. All that has come before the
    /// next step is taken belongs in one call.
    ///
    /// # Errors
    ///
    /// See [`StarttlsError`]. Whatever comes after an error gives the same error again, and whatever comes after
    /// [`Step::Agreed`] is [`StarttlsError::EarlyData`].
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Step, StarttlsError> {
        let step = self.advance(bytes);
        match &step {
            Ok(Step::Agreed) => self.state = State::Agreed,
            Ok(_) => {}
            Err(error) => self.state = State::Failed(error.clone()),
        }
        step
    }

    /// What it means that the stream ends here.
    pub fn ended(&self) -> StarttlsError {
        let due = match &self.state {
            State::Lines(dialogue) => dialogue.due(),
            State::Postgres => "an answer to SSLRequest",
            State::Xmpp(stream) => stream.due(),
            State::Ldap(_) => ldap::DUE,
            State::Agreed => "the handshake",
            State::Failed(error) => return error.clone(),
        };
        StarttlsError::Ended { due }
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<Step, StarttlsError> {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Agreed => {
                return self
                    .nothing_early(&Step::Agreed, bytes)
                    .map(|()| Step::Agreed);
            }
            _ => {}
        }
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            let step = self.push(*byte)?;
            if step != Step::Wait {
                self.nothing_early(&step, rest)?;
                return Ok(step);
            }
        }
        Ok(Step::Wait)
    }

    fn push(&mut self, byte: u8) -> Result<Step, StarttlsError> {
        match &mut self.state {
            State::Lines(dialogue) => dialogue.push(byte),
            State::Postgres => postgres_answer(byte),
            State::Xmpp(stream) => stream.push(byte),
            State::Ldap(response) => response.push(byte),
            State::Agreed => Err(StarttlsError::EarlyData { bytes: 1 }),
            State::Failed(error) => Err(error.clone()),
        }
    }

    /// That nothing came before `step` is taken.
    fn nothing_early(&self, step: &Step, bytes: &[u8]) -> Result<(), StarttlsError> {
        // Before a command, but not before the handshake, XMPP may keep a connection alive with space.
        let between_elements = matches!(self.state, State::Xmpp(_)) && *step != Step::Agreed;
        if between_elements && bytes.iter().all(|byte| xmpp::is_space(*byte)) {
            return Ok(());
        }
        let bytes = bytes.len();
        match step {
            _ if bytes == 0 => Ok(()),
            Step::Agreed => Err(StarttlsError::EarlyData { bytes }),
            Step::Send(_) | Step::Wait => Err(StarttlsError::EarlyAnswer { bytes }),
        }
    }
}

/// One byte. `E` begins an error, which is not read: nobody knows who sends it, and so it shall not be shown
/// (CVE-2024-10977).
fn postgres_answer(byte: u8) -> Result<Step, StarttlsError> {
    match byte {
        b'S' => Ok(Step::Agreed),
        b'N' => Err(StarttlsError::NotOffered),
        b'E' => Err(StarttlsError::Refused {
            said: "an error, not shown because anybody could have sent it".to_owned(),
        }),
        _ => Err(StarttlsError::Malformed {
            due: "an answer to SSLRequest",
            said: shown(&[byte]),
        }),
    }
}

/// Why [`negotiate`] came to no agreement. The connection is of no use then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiateError {
    /// What the server said, or did not say.
    #[error(transparent)]
    Starttls(#[from] StarttlsError),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Holds the conversation over `stream`. After `Ok` the very next byte in each direction is the handshake's; nothing
/// that was read before is left anywhere.
///
/// `host` is the name of the server; only XMPP says it to the server.
///
/// It waits for the server without a deadline: put one around it. Not cancel safe: when it is dropped, it is not known
/// how far the conversation came, and the connection has to be closed.
///
/// # Errors
///
/// See [`NegotiateError`].
pub async fn negotiate<S>(
    stream: &mut S,
    protocol: Protocol,
    host: &str,
) -> Result<(), NegotiateError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut negotiation, mut step) = Negotiation::begin(protocol, host);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        // What is there already was sent before its time, even if it was not read together with the rest.
        if step != Step::Wait {
            let early = read_now(stream, &mut buffer).await?;
            negotiation.nothing_early(&step, buffer.get(..early).unwrap_or_default())?;
        }
        match step {
            Step::Agreed => return Ok(()),
            Step::Send(command) => {
                stream.write_all(&command).await?;
                stream.flush().await?;
            }
            Step::Wait => {}
        }
        step = match stream.read(&mut buffer).await? {
            0 => return Err(negotiation.ended().into()),
            bytes => negotiation.receive(buffer.get(..bytes).unwrap_or_default())?,
        };
    }
}

/// Reads what has come already and waits for nothing. The end of the stream is no bytes as well: whoever reads next
/// finds it again.
async fn read_now<S>(stream: &mut S, buffer: &mut [u8]) -> io::Result<usize>
where
    S: AsyncRead + Unpin,
{
    poll_fn(|context| {
        let mut into = ReadBuf::new(buffer);
        match Pin::new(&mut *stream).poll_read(context, &mut into) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(into.filled().len())),
        }
    })
    .await
}
