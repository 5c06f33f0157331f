//! What do the first bytes of a connection say? Whether they begin TLS, and if so, whom the client wants to talk to,
//! before anything has been answered: to choose a certificate or a backend, or to say what a peer speaks that does not
//! speak TLS.
//!
//! Pure. [`peek`] looks at all bytes that have come so far, and consumes none. What it says of a ClientHello is what
//! the client claims; nothing of it is authenticated. What follows the ClientHello is not looked at.
//!
//! The result for the beginning of a stream is [`Peek::Incomplete`] or the same as for the whole. Everything has a
//! maximum: [`MAX_HELLO_BYTES`], [`MAX_RECORDS`], [`MAX_ALPN_NAMES`]; and no memory is set aside for what has only been
//! announced.

use std::borrow::Cow;
use std::net::IpAddr;

mod guess;

pub use guess::Guess;

/// The longest handshake message that is taken for a ClientHello, in bytes with its header of 4. The standard allows
/// 16 MiB; real ones have 200 to 2,000, with post-quantum key shares.
pub const MAX_HELLO_BYTES: usize = 64 * 1024;

/// The most records that a ClientHello may be spread over: enough for a real one at a byte each. Each call of [`peek`]
/// passes over all of them, so this also limits what a client that sends byte by byte costs.
pub const MAX_RECORDS: usize = 4096;

/// The most names in a list of application protocols. Real clients send one to three.
pub const MAX_ALPN_NAMES: usize = 64;

/// Type, version and length (RFC 8446 section 5.1).
const RECORD_HEADER_BYTES: usize = 5;

/// The longest fragment of a record that is not encrypted (RFC 8446 section 5.1).
const MAX_FRAGMENT_BYTES: usize = 1 << 14;

/// Type and length (RFC 8446 section 4).
const MESSAGE_HEADER_BYTES: usize = 4;

/// `ContentType` handshake.
const HANDSHAKE: u8 = 22;

/// `HandshakeType` client_hello.
const CLIENT_HELLO: u8 = 1;

/// Extensions: RFC 6066 section 3, RFC 7301 section 3.1, RFC 8446 section 4.2.1.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// What the bytes are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Peek {
    /// The beginning of a ClientHello, or nothing yet.
    Incomplete {
        /// With fewer bytes than this in all, more than there are now, the ClientHello cannot be complete. That it is
        /// not one may show before.
        at_least: usize,
    },
    /// A whole ClientHello.
    ClientHello(ClientHello),
    /// Not TLS, which the first or the second byte shows. An SSL 2.0 hello is not TLS either. [`Guess::of`] says what
    /// it may be.
    NotTls,
    /// TLS, and no ClientHello that can be accepted.
    Invalid(HelloError),
}

/// What a client says of itself, and of whom it wants to talk to (RFC 8446 section 4.1.2).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClientHello {
    /// The name of the server, in lower case and without a dot at its end. `None` if there is none, and for an IP
    /// address, which some clients send though RFC 6066 does not allow it.
    pub server_name: Option<String>,
    /// The application protocols, the preferred first: `h2`, `http/1.1`. They are bytes, and at most
    /// [`MAX_ALPN_NAMES`].
    pub alpn: Vec<Vec<u8>>,
    /// The versions offered, in the client's order: 0x0304 is TLS 1.3, 0x0303 TLS 1.2. A client that has no list of
    /// them (RFC 8446 section 4.2.1) says only its highest. Reserved values, which only keep servers used to unknown
    /// ones (RFC 8701), are left out.
    pub versions: Vec<u16>,
}

/// Why a ClientHello is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// It says to be longer than [`MAX_HELLO_BYTES`].
    #[error("a ClientHello of more than {} bytes", MAX_HELLO_BYTES)]
    TooLarge,
    /// It is spread over more than [`MAX_RECORDS`].
    #[error("a ClientHello in more than {} records", MAX_RECORDS)]
    TooManyRecords,
    /// A record with nothing in it, which is forbidden here (RFC 8446 section 5.1): a client could send them forever.
    #[error("an empty TLS record")]
    EmptyRecord,
    /// A record with more in it than the 16 KiB that the standard allows.
    #[error("a TLS record of {bytes} bytes")]
    RecordTooLong {
        /// What it says of itself.
        bytes: usize,
    },
    /// A record of another type, or of no version of TLS, amid the ClientHello.
    #[error("a ClientHello with something else in its midst")]
    Interrupted,
    /// Another handshake message. 2 is what a server sends.
    #[error("a TLS handshake message of type {message_type} where a ClientHello was due")]
    NotClientHello {
        /// The `HandshakeType` of RFC 8446 section 4.
        message_type: u8,
    },
    /// Lengths that do not fit, or a list that must not be empty.
    #[error("a ClientHello with a malformed {part}")]
    Malformed {
        /// Where.
        part: &'static str,
    },
    /// An extension that is there twice (RFC 8446 section 4.2): two readers could take two different ones.
    #[error("a ClientHello with extension {extension} twice")]
    DuplicateExtension {
        /// Its number.
        extension: u16,
    },
    /// The name of the server is no DNS name: not of letters, digits, hyphens and underscores, in labels of 1 to 63
    /// bytes and 253 in all, the last of them not a number.
    #[error("a ClientHello with a server name that is no DNS name")]
    ServerName,
    /// More application protocols than [`MAX_ALPN_NAMES`].
    #[error(
        "a ClientHello with more than {} application protocols",
        MAX_ALPN_NAMES
    )]
    TooManyProtocols,
}

/// Looks at all that has come so far.
///
/// ```
/// use sockeye::tls_peek::{Guess, Peek, peek};
///
/// assert_eq!(peek(b"\x16\x03"), Peek::Incomplete { at_least: 9 });
/// assert_eq!(peek(b"GET / HTTP/1.1\r\n"), Peek::NotTls);
/// assert_eq!(Guess::of(b"GET / HTTP/1.1\r\n"), Guess::Http);
/// ```
pub fn peek(bytes: &[u8]) -> Peek {
    match bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => {}
        _ => return Peek::NotTls,
    }
    match assemble(bytes) {
        Ok(Assembled::Missing(missing)) => Peek::Incomplete {
            at_least: bytes.len() + missing,
        },
        Ok(Assembled::Message(body)) => match parse(&body) {
            Ok(hello) => Peek::ClientHello(hello),
            Err(error) => Peek::Invalid(error),
        },
        Err(error) => Peek::Invalid(error),
    }
}

enum Assembled<'a> {
    /// At least this many bytes are still to come.
    Missing(usize),
    /// What is in the handshake message, without its header.
    Message(Cow<'a, [u8]>),
}

/// Puts the ClientHello together again: the records have nothing to do with its borders (RFC 8446 section 5.1).
fn assemble(bytes: &[u8]) -> Result<Assembled<'_>, HelloError> {
    let mut head = MessageHead::default();
    let mut rest = bytes;
    for count in 1..=MAX_RECORDS {
        let Some(record) = next_record(rest)? else {
            let header = RECORD_HEADER_BYTES - rest.len();
            return Ok(Assembled::Missing(header + head.missing()));
        };
        head.take(record.fragment)?;
        if head.missing() == 0 {
            let whole = head.bytes();
            let message = match record.fragment.get(MESSAGE_HEADER_BYTES..whole) {
                Some(body) if count == 1 => Cow::Borrowed(body),
                _ => Cow::Owned(gather(bytes, whole)),
            };
            return Ok(Assembled::Message(message));
        }
        if record.missing >= head.missing() {
            return Ok(Assembled::Missing(head.missing()));
        }
        if record.missing > 0 {
            let header = RECORD_HEADER_BYTES;
            return Ok(Assembled::Missing(header + head.missing()));
        }
        rest = record.rest;
    }
    Err(HelloError::TooManyRecords)
}

/// The body of a message of `whole` bytes, from records that are known to hold it.
fn gather(mut bytes: &[u8], whole: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(whole);
    while let Ok(Some(record)) = next_record(bytes) {
        let missing = whole - message.len();
        message.extend(record.fragment.iter().take(missing));
        if message.len() == whole {
            break;
        }
        bytes = record.rest;
    }
    message.drain(..MESSAGE_HEADER_BYTES.min(message.len()));
    message
}

/// The header of the handshake message, as far as it has come, and how much of the message has.
#[derive(Default)]
struct MessageHead {
    header: [u8; MESSAGE_HEADER_BYTES],
    held: usize,
}

impl MessageHead {
    fn take(&mut self, fragment: &[u8]) -> Result<(), HelloError> {
        let unknown = self.header.iter_mut().skip(self.held);
        for (known, byte) in unknown.zip(fragment) {
            *known = *byte;
        }
        self.held += fragment.len();
        let [message_type, ..] = self.header;
        if self.held > 0 && message_type != CLIENT_HELLO {
            return Err(HelloError::NotClientHello { message_type });
        }
        if self.bytes() > MAX_HELLO_BYTES {
            return Err(HelloError::TooLarge);
        }
        Ok(())
    }

    /// How long the message is; as long as that is not known, how long its header is.
    fn bytes(&self) -> usize {
        let [_, high, middle, low] = self.header.map(usize::from);
        match self.held {
            0..MESSAGE_HEADER_BYTES => MESSAGE_HEADER_BYTES,
            _ => MESSAGE_HEADER_BYTES + (high << 16 | middle << 8 | low),
        }
    }

    fn missing(&self) -> usize {
        self.bytes().saturating_sub(self.held)
    }
}

struct Record<'a> {
    /// As far as it has come.
    fragment: &'a [u8],
    /// What is missing of it.
    missing: usize,
    rest: &'a [u8],
}

/// The record that begins here, or `None` if its header is not complete.
fn next_record(bytes: &[u8]) -> Result<Option<Record<'_>>, HelloError> {
    // The second half of the version says nothing, and is to be ignored (RFC 8446 section 5.1).
    let (high, low, rest) = match bytes {
        [HANDSHAKE, 3, _, high, low, rest @ ..] => (*high, *low, rest),
        [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => return Ok(None),
        _ => return Err(HelloError::Interrupted),
    };
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    if bytes == 0 {
        return Err(HelloError::EmptyRecord);
    }
    if bytes > MAX_FRAGMENT_BYTES {
        return Err(HelloError::RecordTooLong { bytes });
    }
    let (fragment, rest) = rest.split_at(bytes.min(rest.len()));
    Ok(Some(Record {
        fragment,
        missing: bytes - fragment.len(),
        rest,
    }))
}

/// The body of a ClientHello.
fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let (version, extensions) = split_hello(body).ok_or_else(malformed("structure"))?;
    let mut hello = ClientHello {
        server_name: None,
        alpn: Vec::new(),
        versions: vec![version],
    };
    let mut seen = Vec::new();
    let mut reader = Reader(extensions);
    while !reader.is_empty() {
        let extension = reader.extension();
        let (kind, data) = extension.ok_or_else(malformed("list of extensions"))?;
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = server_name(data)?,
            ALPN => hello.alpn = alpn(data)?,
            SUPPORTED_VERSIONS => {
                let versions = versions(data);
                hello.versions = versions.ok_or_else(malformed("list of versions"))?;
            }
            _ => {}
        }
    }
    seen.sort_unstable();
    let twice = seen.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    });
    match twice {
        Some(extension) => Err(HelloError::DuplicateExtension { extension }),
        None => Ok(hello),
    }
}

fn malformed(part: &'static str) -> impl FnOnce() -> HelloError {
    move || HelloError::Malformed { part }
}

/// The version and the extensions; what is in between only has to fit.
fn split_hello(body: &[u8]) -> Option<(u16, &[u8])> {
    let mut reader = Reader(body);
    let version = reader.number()?;
    let _random = reader.take(32)?;
    let session_id = reader.short_vector()?;
    let cipher_suites = reader.vector()?;
    let compression_methods = reader.short_vector()?;
    // Until TLS 1.2 a client may have none, not even an empty list (RFC 5246 section 7.4.1.2).
    let extensions = match reader.is_empty() {
        true => &[],
        false => reader.vector()?,
    };
    let fits = version >> 8 == 3
        && session_id.len() <= 32
        && !cipher_suites.is_empty()
        && cipher_suites.len().is_multiple_of(2)
        && !compression_methods.is_empty()
        && reader.is_empty();
    fits.then_some((version, extensions))
}

/// RFC 6066 section 3: a list of names, at most one of each type. Types other than 0, a host's, are passed over.
fn server_name(data: &[u8]) -> Result<Option<String>, HelloError> {
    let host = || {
        let mut names = Reader(Reader(data).only_vector()?);
        let mut host = None;
        while !names.is_empty() {
            let kind = names.byte()?;
            let name = names.vector()?;
            if kind == 0 && host.replace(name).is_some() {
                return None;
            }
        }
        Some(host)
    };
    match host().ok_or_else(malformed("server name"))? {
        None => Ok(None),
        Some(name) => dns_name(name),
    }
}

/// The name in lower case, or `None` for an IP address.
fn dns_name(name: &[u8]) -> Result<Option<String>, HelloError> {
    let name = str::from_utf8(name).map_err(|_| HelloError::ServerName)?;
    if name.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        matches!(label.len(), 1..=63)
            && label.bytes().all(of_a_name)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is an address to some readers, in forms that are none to others.
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > 253 || is_number || !name.split('.').all(is_label) {
        return Err(HelloError::ServerName);
    }
    Ok(Some(name.to_ascii_lowercase()))
}

/// RFC 7301 section 3.1: a list of names, neither it nor any of them empty.
fn alpn(data: &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    let list = Reader(data).only_vector();
    let mut reader = Reader(list.ok_or_else(malformed("list of protocols"))?);
    let mut names = Vec::new();
    while !reader.is_empty() {
        let name = reader.short_vector().filter(|name| !name.is_empty());
        let name = name.ok_or_else(malformed("list of protocols"))?;
        if names.len() == MAX_ALPN_NAMES {
            return Err(HelloError::TooManyProtocols);
        }
        names.push(name.to_vec());
    }
    Ok(names)
}

/// RFC 8446 section 4.2.1: at least one, at most 127.
fn versions(data: &[u8]) -> Option<Vec<u16>> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.short_vector()?);
    if list.is_empty() || !reader.is_empty() {
        return None;
    }
    let mut versions = Vec::new();
    while !list.is_empty() {
        let version = list.number()?;
        // Both bytes are the same and end in a (RFC 8701 section 2).
        let is_reserved = version >> 8 == version & 0xff && version & 0x0f == 0x0a;
        if !is_reserved {
            versions.push(version);
        }
    }
    Some(versions)
}

/// Reads what RFC 8446 section 3 describes. `None` where that is not there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    /// Bytes behind a length of one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let bytes = self.byte()?;
        self.take(usize::from(bytes))
    }

    /// Bytes behind a length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let bytes = self.number()?;
        self.take(usize::from(bytes))
    }

    /// The same, with nothing after them, and at least one.
    fn only_vector(mut self) -> Option<&'a [u8]> {
        let vector = self.vector()?;
        (self.is_empty() && !vector.is_empty()).then_some(vector)
    }

    fn extension(&mut self) -> Option<(u16, &'a [u8])> {
        Some((self.number()?, self.vector()?))
    }
}
