//! Version 1: a line of text (section 2.1 of the specification).
//!
//! The line is scanned from its beginning, and each verdict rests on the bytes before it alone. So a line that is
//! refused is refused for the same reason however it was cut, and one that is not yet refused says how many bytes it
//! still needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Addresses, Command, EncodeError, Header, Invalid, Parsed, Version, check_signature};

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    check_signature(bytes, SIGNATURE)?;
    let line = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    let mut cursor = Cursor { line, at: 0 };
    match cursor.addresses() {
        Ok(addresses) => Ok(Parsed::Complete {
            header: Header::new(Version::V1, Command::Proxy, addresses),
            bytes: cursor.at,
        }),
        Err(Stop::Invalid(invalid)) => Err(invalid),
        Err(Stop::Missing(missing)) => match MAX_BYTES - line.len() {
            0 => Err(Invalid::LineTooLong),
            // A line that cannot end in time is refused when its time is over, and not for one cut sooner than for
            // another.
            room => Ok(Parsed::Incomplete {
                at_least: missing.min(room),
            }),
        },
    }
}

/// A line as far as it came, and how far it is understood.
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

/// Why there is no more to understand.
enum Stop {
    /// At least so many bytes are still to come.
    Missing(usize),
    Invalid(Invalid),
}

impl From<Invalid> for Stop {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl<'a> Cursor<'a> {
    fn addresses(&mut self) -> Result<Addresses, Stop> {
        if self.line.len() < SIGNATURE.len() {
            return Err(Stop::Missing(super::SHORTEST_BYTES - self.line.len()));
        }
        self.at = SIGNATURE.len();
        match self.protocol()? {
            Protocol::Tcp4 => self.tcp::<Ipv4Addr>(Field::Ipv4),
            Protocol::Tcp6 => self.tcp::<Ipv6Addr>(Field::Ipv6),
            Protocol::Unknown => self.ignored(),
        }
    }

    fn protocol(&mut self) -> Result<Protocol, Stop> {
        let rest = self.rest();
        let mut missing = None;
        for protocol in [Protocol::Unknown, Protocol::Tcp6, Protocol::Tcp4] {
            let word = protocol.word();
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(protocol);
            }
            if word.starts_with(rest) && missing.is_none() {
                // The first is the one with the least to come.
                missing = Some(word.len() - rest.len() + protocol.least_after());
            }
        }
        Err(match missing {
            Some(missing) => Stop::Missing(missing),
            None => Invalid::Protocol { at: self.at }.into(),
        })
    }

    fn tcp<A: FromStr + Into<IpAddr>>(&mut self, family: Field) -> Result<Addresses, Stop> {
        let source: A = self.address(family, family.shortest() + 6)?;
        let destination: A = self.address(family, 5)?;
        let source_port = self.port(b' ', 3)?;
        let destination_port = self.port(b'\r', 1)?;
        self.line_feed()?;
        Ok(Addresses::Ip {
            source: SocketAddr::new(source.into(), source_port),
            destination: SocketAddr::new(destination.into(), destination_port),
        })
    }

    /// After `UNKNOWN`: the receiver must ignore what stands before the CRLF. A CR or LF alone is refused all the same:
    /// another receiver may take it for the end of the line, and what follows for the stream.
    fn ignored(&mut self) -> Result<Addresses, Stop> {
        let mut first = true;
        for &byte in self.rest() {
            let at = self.at;
            self.at += 1;
            match byte {
                b'\r' => {
                    self.line_feed()?;
                    return Ok(Addresses::Unspecified);
                }
                b'\n' => return Err(Invalid::UnexpectedByte { at, byte }.into()),
                _ if first && byte != b' ' => {
                    return Err(Invalid::UnexpectedByte { at, byte }.into());
                }
                _ => first = false,
            }
        }
        Err(Stop::Missing(2))
    }

    fn address<A: FromStr>(&mut self, family: Field, least_after: usize) -> Result<A, Stop> {
        let at = self.at;
        let text = self.field(family, b' ', least_after)?;
        // The standard library has the same idea: no leading zeros in an octet, no scope, one "::" at most.
        let address = std::str::from_utf8(text).ok().and_then(|a| a.parse().ok());
        address.ok_or(Stop::Invalid(Invalid::Address { at }))
    }

    fn port(&mut self, end: u8, least_after: usize) -> Result<u16, Stop> {
        let at = self.at;
        let text = self.field(Field::Port, end, least_after)?;
        if text.len() > 1 && text.starts_with(b"0") {
            return Err(Invalid::Port { at }.into());
        }
        let port = std::str::from_utf8(text).ok().and_then(|p| p.parse().ok());
        port.ok_or(Stop::Invalid(Invalid::Port { at }))
    }

    /// Takes a field and the byte that ends it, after which at least `least_after` bytes come.
    fn field(&mut self, field: Field, end: u8, least_after: usize) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        for (length, &byte) in rest.iter().enumerate() {
            let at = self.at + length;
            if byte == end {
                self.at = at + 1;
                return Ok(rest.get(..length).unwrap_or_default());
            }
            if length == field.longest() || !field.allows(byte) {
                return Err(Invalid::UnexpectedByte { at, byte }.into());
            }
        }
        Err(Stop::Missing(field.missing(rest) + 1 + least_after))
    }

    fn line_feed(&mut self) -> Result<(), Stop> {
        match self.rest().first() {
            Some(b'\n') => {
                self.at += 1;
                Ok(())
            }
            Some(&byte) => Err(Invalid::UnexpectedByte { at: self.at, byte }.into()),
            None => Err(Stop::Missing(1)),
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.line.get(self.at..).unwrap_or_default()
    }
}

#[derive(Clone, Copy)]
enum Protocol {
    Tcp4,
    Tcp6,
    Unknown,
}

impl Protocol {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Tcp4 => b"TCP4 ",
            Self::Tcp6 => b"TCP6 ",
            Self::Unknown => b"UNKNOWN",
        }
    }

    /// The fewest bytes that come after the word.
    fn least_after(self) -> usize {
        match self {
            // Two addresses, a space after each, two ports of a digit, a space, CRLF.
            Self::Tcp4 => 2 * Field::Ipv4.shortest() + 7,
            Self::Tcp6 => 2 * Field::Ipv6.shortest() + 7,
            Self::Unknown => 2,
        }
    }
}

#[derive(Clone, Copy)]
enum Field {
    Ipv4,
    Ipv6,
    Port,
}

impl Field {
    /// "0.0.0.0", "::", "0".
    fn shortest(self) -> usize {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 2,
            Self::Port => 1,
        }
    }

    /// For IPv6 with the last 32 bits in the form of IPv4, which `inet_ntop` gives for IPv4-mapped addresses.
    fn longest(self) -> usize {
        match self {
            Self::Ipv4 => 15,
            Self::Ipv6 => 45,
            Self::Port => 5,
        }
    }

    fn allows(self, byte: u8) -> bool {
        match self {
            Self::Ipv4 => byte.is_ascii_digit() || byte == b'.',
            Self::Ipv6 => byte.is_ascii_hexdigit() || byte == b':' || byte == b'.',
            Self::Port => byte.is_ascii_digit(),
        }
    }

    /// The fewest bytes that can make a field of what came of it.
    fn missing(self, begun: &[u8]) -> usize {
        let count = |wanted| begun.iter().filter(|byte| **byte == wanted).count();
        let ends_with = |end: &[u8]| begun.ends_with(end);
        match self {
            Self::Port => usize::from(begun.is_empty()),
            Self::Ipv6 if count(b'.') == 0 => match begun {
                [] => 2,
                _ if ends_with(b":") && !ends_with(b"::") => 1,
                // Whole, or perhaps whole.
                _ if begun.windows(2).any(|two| two == b"::") || count(b':') >= 7 => 0,
                _ => 2,
            },
            // A digit for the octet that has none, and a dot and a digit for each that is to come.
            _ => {
                let no_digit = begun.is_empty() || ends_with(b".");
                usize::from(no_digit) + 2 * 3_usize.saturating_sub(count(b'.'))
            }
        }
    }
}

pub(super) fn encode(header: &Header) -> Result<Vec<u8>, EncodeError> {
    if !header.tlvs.is_empty() {
        return Err(EncodeError::TlvsInV1);
    }
    let Addresses::Ip {
        source,
        destination,
    } = header.addresses
    else {
        return Ok(b"PROXY UNKNOWN\r\n".to_vec());
    };
    let ports = format!("{} {}", source.port(), destination.port());
    let line = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            format!("PROXY TCP4 {source} {destination} {ports}\r\n")
        }
        (source, destination) => format!(
            "PROXY TCP6 {} {} {ports}\r\n",
            hexadecimal(source),
            hexadecimal(destination)
        ),
    };
    Ok(line.into_bytes())
}

/// As IPv6, in hexadecimal to its end: the specification knows no dots in IPv6 addresses, and they are what `Display`
/// gives for IPv4-mapped ones.
fn hexadecimal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            format!("::ffff:{:x}:{:x}", bits >> 16, bits & 0xffff)
        }
        IpAddr::V6(address) => address.to_string(),
    }
}

/// With the space, of which there is exactly one.
const SIGNATURE: &[u8] = b"PROXY ";

/// With CRLF: `UNKNOWN`, two IPv6 addresses and two ports at their longest.
const MAX_BYTES: usize = 107;
