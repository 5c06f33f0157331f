//! Who is the client really? Behind a proxy every connection comes from the proxy. The PROXY protocol puts a header
//! before the first byte of the stream that says where the connection came from: a line of text in version 1, a binary
//! block in version 2 (HAProxy, doc/proxy-protocol.txt, of 2020-03-05; "the specification" below).
//!
//! Pure: [`parse`] takes the bytes that came so far, [`Header::encode`] gives the bytes to send. [`read`] is the loop
//! around the one, and takes no byte that comes after the header: that is the stream's.
//!
//! ```
//! use sockeye::proxy_protocol::{Header, Parsed, Version, parse};
//!
//! let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\nGET / HTTP/1.0\r\n";
//! let Parsed::Complete { header, bytes } = parse(line)? else {
//!     panic!("the line is complete");
//! };
//! assert_eq!(header.client(), Some(([192, 0, 2, 7], 51_000).into()));
//! assert!(line[bytes..].starts_with(b"GET"));
//!
//! let header = Header::proxied(
//!     Version::V2,
//!     ([192, 0, 2, 7], 51_000).into(),
//!     ([198, 51, 100, 1], 443).into(),
//! );
//! assert_eq!(header.encode()?.len(), 16 + 12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A header is believed, so ask for it only where the sender is trusted, and there always: whether there is one must
//! never be guessed from the bytes, or every client could say that it is someone else (section 2 of the
//! specification). What a header says, names and identifiers included, may come from the client; escape it before it is
//! shown.

mod tlv;
mod v1;
mod v2;

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};

pub use self::tlv::{MAX_TLVS, MAX_UNIQUE_ID_BYTES, RawTlv, Ssl, Tlv};
use crate::addr::Addr;

/// What a proxy says of the connection that it passes on.
///
/// Whether the client's own connection was a stream or datagrams is not kept: the one that carries the header is a
/// stream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// The form that it came in, or is to be sent in.
    pub version: Version,
    /// On whose behalf the connection was made.
    pub command: Command,
    /// Both ends of the client's connection to the proxy.
    pub addresses: Addresses,
    /// What else the proxy says, in the order of the header; version 2 only. Padding (`NOOP`) is not kept.
    pub tlvs: Vec<Tlv>,
}

/// The form of a header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// A line of text of at most 107 bytes (section 2.1).
    V1,
    /// Binary, of at most 16 + 65,535 bytes (section 2.2).
    V2,
}

/// On whose behalf a proxy has connected (section 2.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Command {
    /// Its own, for a health check for example: the ends of the connection are the real ones. Version 2 only.
    Local,
    /// A client's.
    Proxy,
}

/// The ends of the connection between client and proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Addresses {
    /// Not told: `UNKNOWN` in version 1, `AF_UNSPEC` or an unspecified transport in version 2, and always with
    /// [`Command::Local`].
    Unspecified,
    /// Of IPv4 or IPv6, as the header has them: an IPv4-mapped IPv6 address is left as it is.
    Ip {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
    /// The paths of Unix sockets, without the NUL bytes that pad them; empty for an unnamed socket. Version 2 only.
    Unix {
        /// The client's, at most 108 bytes.
        source: Vec<u8>,
        /// Where the client connected to, at most 108 bytes.
        destination: Vec<u8>,
    },
}

impl Header {
    /// A client's connection from `source` to `destination`.
    pub fn proxied(version: Version, source: SocketAddr, destination: SocketAddr) -> Self {
        let addresses = Addresses::Ip {
            source,
            destination,
        };
        Self::new(version, Command::Proxy, addresses)
    }

    /// A client's connection between Unix sockets; in version 2, the only one that can say so.
    pub fn unix(source: impl Into<Vec<u8>>, destination: impl Into<Vec<u8>>) -> Self {
        let addresses = Addresses::Unix {
            source: source.into(),
            destination: destination.into(),
        };
        Self::new(Version::V2, Command::Proxy, addresses)
    }

    /// A client's connection of which nothing is told. Some receivers refuse it.
    pub fn unspecified(version: Version) -> Self {
        Self::new(version, Command::Proxy, Addresses::Unspecified)
    }

    /// A connection of the proxy's own, in version 2, the only one that can say so.
    pub fn local() -> Self {
        Self::new(Version::V2, Command::Local, Addresses::Unspecified)
    }

    fn new(version: Version, command: Command, addresses: Addresses) -> Self {
        Self {
            version,
            command,
            addresses,
            tlvs: Vec::new(),
        }
    }

    /// Adds a TLV at the end.
    pub fn with_tlv(mut self, tlv: Tlv) -> Self {
        self.tlvs.push(tlv);
        self
    }

    /// The client's address, an IPv4-mapped one as IPv4. `None` if the real peer is to be taken for the client
    /// ([`Command::Local`], [`Addresses::Unspecified`]), and for Unix sockets.
    pub fn client(&self) -> Option<SocketAddr> {
        match (self.command, &self.addresses) {
            (Command::Proxy, Addresses::Ip { source, .. }) => match Addr::from(*source) {
                Addr::Tcp(address) => Some(address),
                Addr::Unix(_) => None,
            },
            _ => None,
        }
    }

    /// The host name that the client asked for, of TLS the server name (`AUTHORITY`, section 2.2.2); `None` also if it
    /// is not UTF-8. Of several the first, as with all that follow.
    pub fn authority(&self) -> Option<&str> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Authority(name) => std::str::from_utf8(name).ok(),
            _ => None,
        })
    }

    /// The protocol that client and proxy agreed on (`ALPN`, section 2.2.1; RFC 7301), such as `h2`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Alpn(protocol) => Some(protocol.as_slice()),
            _ => None,
        })
    }

    /// What the proxy calls this connection (`UNIQUE_ID`, section 2.2.5), at most [`MAX_UNIQUE_ID_BYTES`].
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::UniqueId(id) => Some(id.as_slice()),
            _ => None,
        })
    }

    /// What the proxy knows of the client's TLS (`SSL`, section 2.2.6).
    pub fn ssl(&self) -> Option<&Ssl> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Ssl(ssl) => Some(ssl),
            _ => None,
        })
    }

    /// The network namespace (`NETNS`, section 2.2.7); `None` also if it is not UTF-8.
    pub fn netns(&self) -> Option<&str> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Netns(name) => std::str::from_utf8(name).ok(),
            _ => None,
        })
    }

    /// The value of a type that has no meaning here, such as those for the use of applications, 0xE0 to 0xEF.
    pub fn other(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Other(raw) if raw.kind == kind => Some(raw.value.as_slice()),
            _ => None,
        })
    }

    /// The header's bytes, to be sent at once and before anything else.
    ///
    /// Version 1 has no word for Unix sockets or [`Command::Local`] and says `UNKNOWN` instead. Of an IPv4 and an IPv6
    /// address the IPv4 one is written as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2), for a header has one family.
    /// Version 2 says `STREAM`. An IPv6 address loses its scope and flow, for which a header has no place.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        if self.command == Command::Local && self.addresses != Addresses::Unspecified {
            return Err(EncodeError::LocalWithAddresses);
        }
        match self.version {
            Version::V1 => v1::encode(self),
            Version::V2 => v2::encode(self),
        }
    }
}

/// Why a header cannot be written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// TLVs, which version 1 does not have.
    #[error("version 1 has no TLVs")]
    TlvsInV1,
    /// TLVs where a receiver skips the whole block, as it cannot know where they begin.
    #[error("a header without addresses has no TLVs")]
    TlvsWithoutAddresses,
    /// Addresses in a header that says to use the real ones.
    #[error("a local connection has no addresses in its header")]
    LocalWithAddresses,
    /// More than the 65,535 bytes that version 2 can declare.
    #[error("the header is longer than its length field can say")]
    TooLong,
    /// The path of a Unix socket is longer than its place.
    #[error("a Unix path of {bytes} bytes; a header has place for 108")]
    UnixPathTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A unique ID of more than [`MAX_UNIQUE_ID_BYTES`].
    #[error("a unique ID of {bytes} bytes; the maximum is {MAX_UNIQUE_ID_BYTES}")]
    UniqueIdTooLong {
        /// Its length.
        bytes: usize,
    },
    /// [`Tlv::Other`] with a type that means something: it has a variant of its own, or is padding.
    #[error("TLV type {kind:#04x} has a meaning of its own")]
    KnownKind {
        /// The type.
        kind: u8,
    },
    /// [`Tlv::Crc32c`] more than once.
    #[error("more than one checksum")]
    ChecksumTwice,
    /// More than [`MAX_TLVS`].
    #[error("more than {MAX_TLVS} TLVs")]
    TooManyTlvs,
}

/// What the bytes that came so far are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// A header, and perhaps more.
    Complete {
        /// The header.
        header: Header,
        /// Its length; what comes after it is the stream.
        bytes: usize,
    },
    /// The beginning of a header.
    Incomplete {
        /// How many more bytes it has for certain, at least one: who waits for no more never takes a byte of the
        /// stream.
        at_least: usize,
    },
}

/// Bytes that no valid header begins with, whatever came after them. Offsets count from 0, the header's first byte.
///
/// The same bytes give the same error, however they were cut; and the first byte at which it is certain gives it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Neither "PROXY " nor the signature of version 2: something else was sent, and no header.
    #[error("not a PROXY header: byte {byte:#04x} at offset {at}")]
    NotAHeader {
        /// Where it can no longer be one.
        at: usize,
        /// The byte there.
        byte: u8,
    },
    /// Version 1: none of `TCP4`, `TCP6` and `UNKNOWN`.
    #[error("no known protocol at offset {at}")]
    Protocol {
        /// Where the word begins.
        at: usize,
    },
    /// Version 1: a byte that has no place there, such as a sign, a second space, a CR or LF alone, or a letter of the
    /// other family's addresses.
    #[error("unexpected byte {byte:#04x} at offset {at}")]
    UnexpectedByte {
        /// Where.
        at: usize,
        /// The byte there.
        byte: u8,
    },
    /// Version 1: no address of the line's family, or an octet with leading zeros.
    #[error("no valid address at offset {at}")]
    Address {
        /// Where the field begins.
        at: usize,
    },
    /// Version 1: not a number from 0 to 65535, or one with leading zeros.
    #[error("no valid port at offset {at}")]
    Port {
        /// Where the field begins.
        at: usize,
    },
    /// Version 1: 107 bytes, and no CRLF among them.
    #[error("a line of more than 107 bytes")]
    LineTooLong,
    /// Version 2: the upper half of byte 12 is not 2.
    #[error("version {version}, which is not 2")]
    Version {
        /// What is there instead.
        version: u8,
    },
    /// Version 2: the lower half of byte 12 is neither 0 nor 1.
    #[error("unknown command {command}")]
    Command {
        /// What is there instead.
        command: u8,
    },
    /// Version 2: the upper half of byte 13 is over 3.
    #[error("unknown address family {family}")]
    Family {
        /// What is there instead.
        family: u8,
    },
    /// Version 2: the lower half of byte 13 is over 2.
    #[error("unknown transport protocol {transport}")]
    Transport {
        /// What is there instead.
        transport: u8,
    },
    /// Version 2: the declared length has no room for the family's addresses.
    #[error("addresses of {needed} bytes in a block of {declared}")]
    BlockTooShort {
        /// The declared length.
        declared: usize,
        /// What the family needs.
        needed: usize,
    },
    /// Version 2: a TLV that is longer than what holds it, or the beginning of one.
    #[error("the TLV at offset {at} goes past the end")]
    TlvPastEnd {
        /// Where its type is.
        at: usize,
    },
    /// Version 2: a TLV whose length its type does not allow: a checksum of other than 4 bytes, a unique ID of more
    /// than 128, an `SSL` of less than 5.
    #[error("the TLV at offset {at} has a length of {bytes}, wrong for type {kind:#04x}")]
    TlvLength {
        /// Where its type is.
        at: usize,
        /// Its type.
        kind: u8,
        /// The length of its value.
        bytes: usize,
    },
    /// Version 2: more than [`MAX_TLVS`].
    #[error("more than {MAX_TLVS} TLVs")]
    TooManyTlvs,
    /// Version 2: a second checksum. One of them would be wrong for certain, as each covers the other.
    #[error("a second checksum at offset {at}")]
    ChecksumTwice {
        /// Where its type is.
        at: usize,
    },
    /// Version 2: the header is not what its sender wrote.
    #[error("the checksum at offset {at} is wrong")]
    Checksum {
        /// Where its type is.
        at: usize,
    },
}

/// Why no header could be read. After it the stream is of no use: where it begins is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no header.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The stream ended first.
    #[error("the stream ended after {after} bytes of a PROXY header")]
    EndOfStream {
        /// How many bytes came.
        after: usize,
    },
}

/// Parses the header that `bytes` begin with. Pure: to go on when more bytes have come, give it all of them.
///
/// The work for bytes that are not enough is bounded by 107 bytes, however many there are.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete {
            at_least: SHORTEST_BYTES,
        }),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(byte) => Err(Invalid::NotAHeader { at: 0, byte: *byte }),
    }
}

/// Reads a header, and not one byte more: what follows it stays in `reader`. A line of version 1 takes 1 to 7 reads with
/// IPv4 and up to 14 with IPv6, for its end is not known before it comes; a header of version 2 takes 3, and one more
/// for every 4,096 bytes.
///
/// Waits for as long as the peer takes. Put a deadline around it, of at least 3 s, so that one lost segment can be sent
/// again (section 2 of the specification).
///
/// # Cancel safety
///
/// Not cancel safe: the bytes read so far are lost with the future, and with them the connection.
pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Header, ReadError> {
    let mut bytes = Vec::new();
    loop {
        let at_least = match parse(&bytes)? {
            Parsed::Complete { header, .. } => return Ok(header),
            Parsed::Incomplete { at_least } => at_least,
        };
        // No memory for what is only declared: a peer that sends nothing more costs one step.
        let step = at_least.min(READ_STEP_BYTES);
        bytes.reserve(step);
        let read = reader.take(step as u64).read_buf(&mut bytes).await?;
        if read == 0 {
            return Err(ReadError::EndOfStream { after: bytes.len() });
        }
    }
}

/// Checks that `bytes`, as far as they go, are those of `signature`.
fn check_signature(bytes: &[u8], signature: &[u8]) -> Result<(), Invalid> {
    let pairs = bytes.iter().zip(signature);
    match pairs.enumerate().find(|(_, (byte, due))| byte != due) {
        Some((at, (&byte, _))) => Err(Invalid::NotAHeader { at, byte }),
        None => Ok(()),
    }
}

/// "PROXY UNKNOWN" and CRLF.
const SHORTEST_BYTES: usize = 15;

/// Most headers have a few hundred bytes; the longest takes 16 steps.
const READ_STEP_BYTES: usize = 4096;
