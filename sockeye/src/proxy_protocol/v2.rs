//! Version 2: binary (section 2.2 of the specification).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    Addresses, Command, EncodeError, Header, Invalid, Parsed, Version, check_signature, tlv,
};

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    check_signature(bytes, SIGNATURE)?;
    let Some(fixed) = Fixed::parse(bytes)? else {
        return Ok(Parsed::Incomplete {
            at_least: FIXED_BYTES - bytes.len(),
        });
    };
    let length = FIXED_BYTES + fixed.block_bytes;
    // Addresses must not be looked at before the whole block is there.
    let Some(whole) = bytes.get(..length) else {
        return Ok(Parsed::Incomplete {
            at_least: length - bytes.len(),
        });
    };
    let block = whole.get(FIXED_BYTES..).unwrap_or_default();
    let addresses = addresses(fixed.layout, block).ok_or_else(|| fixed.too_short())?;
    let tlvs = match fixed.layout {
        Layout::Skipped => Vec::new(),
        layout => tlv::parse(whole, FIXED_BYTES + layout.bytes())?,
    };
    Ok(Parsed::Complete {
        header: Header {
            version: Version::V2,
            command: fixed.command,
            addresses,
            tlvs,
        },
        bytes: length,
    })
}

/// The first 16 bytes.
struct Fixed {
    command: Command,
    layout: Layout,
    block_bytes: usize,
}

impl Fixed {
    /// `None` if more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Invalid> {
        let Some(&byte) = bytes.get(12) else {
            return Ok(None);
        };
        let command = match (byte >> 4, byte & 0x0f) {
            (2, 0) => Command::Local,
            (2, 1) => Command::Proxy,
            (2, command) => return Err(Invalid::Command { command }),
            (version, _) => return Err(Invalid::Version { version }),
        };
        let Some(&byte) = bytes.get(13) else {
            return Ok(None);
        };
        let layout = match command {
            Command::Local => Layout::Skipped,
            Command::Proxy => Layout::of(byte >> 4, byte & 0x0f)?,
        };
        let Some(&[high, low]) = bytes.get(14..16) else {
            return Ok(None);
        };
        let fixed = Self {
            command,
            layout,
            block_bytes: usize::from(u16::from_be_bytes([high, low])),
        };
        if fixed.block_bytes < layout.bytes() {
            return Err(fixed.too_short());
        }
        Ok(Some(fixed))
    }

    fn too_short(&self) -> Invalid {
        Invalid::BlockTooShort {
            declared: self.block_bytes,
            needed: self.layout.bytes(),
        }
    }
}

/// What the block after the first 16 bytes begins with.
#[derive(Clone, Copy)]
enum Layout {
    /// Nothing that is to be looked at. After `LOCAL` the block must be discarded, "including the family which is
    /// ignored". Without a family, nobody can tell where its TLVs begin, so its checksum, if it has one, is not sought
    /// either: nothing of what it covers is used, and to refuse a health check would break what must be accepted.
    ///
    /// With an unspecified family or transport the length of the addresses is not specified either, so there, too, what
    /// seems to be a TLV might be an address.
    Skipped,
    Ipv4,
    Ipv6,
    Unix,
}

impl Layout {
    fn of(family: u8, transport: u8) -> Result<Self, Invalid> {
        match (family, transport) {
            (4.., _) => Err(Invalid::Family { family }),
            (_, 3..) => Err(Invalid::Transport { transport }),
            (0, _) | (_, 0) => Ok(Self::Skipped),
            // `STREAM` or `DGRAM`; the addresses are the same.
            (1, _) => Ok(Self::Ipv4),
            (2, _) => Ok(Self::Ipv6),
            (3, _) => Ok(Self::Unix),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Skipped => 0,
            Self::Ipv4 => 2 * (4 + 2),
            Self::Ipv6 => 2 * (16 + 2),
            Self::Unix => 2 * UNIX_PATH_BYTES,
        }
    }
}

/// `None` if the block is too short for its layout.
fn addresses(layout: Layout, block: &[u8]) -> Option<Addresses> {
    match layout {
        Layout::Skipped => Some(Addresses::Unspecified),
        Layout::Ipv4 => ip::<4>(block),
        Layout::Ipv6 => ip::<16>(block),
        Layout::Unix => {
            let (source, rest) = block.split_at_checked(UNIX_PATH_BYTES)?;
            let destination = rest.get(..UNIX_PATH_BYTES)?;
            Some(Addresses::Unix {
                source: without_padding(source),
                destination: without_padding(destination),
            })
        }
    }
}

fn ip<const BYTES: usize>(block: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; BYTES]>,
{
    let (source, rest) = block.split_first_chunk::<BYTES>()?;
    let (destination, rest) = rest.split_first_chunk::<BYTES>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    Some(Addresses::Ip {
        source: SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    })
}

/// Only at the end: the name of an abstract socket begins with a NUL (unix(7)).
fn without_padding(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte != 0);
    let end = end.map_or(0, |last| last + 1);
    path.get(..end).unwrap_or_default().to_vec()
}

pub(super) fn encode(header: &Header) -> Result<Vec<u8>, EncodeError> {
    if header.addresses == Addresses::Unspecified && !header.tlvs.is_empty() {
        return Err(EncodeError::TlvsWithoutAddresses);
    }
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(match header.command {
        Command::Local => 0x20,
        Command::Proxy => 0x21,
    });
    match &header.addresses {
        // Its length is filled in at the end, as that of the others.
        Addresses::Unspecified => bytes.extend([0x00, 0, 0]),
        Addresses::Ip {
            source,
            destination,
        } => put_ip(&mut bytes, *source, *destination),
        Addresses::Unix {
            source,
            destination,
        } => {
            bytes.extend([0x31, 0, 0]);
            put_unix_path(&mut bytes, source)?;
            put_unix_path(&mut bytes, destination)?;
        }
    }
    let checksum = tlv::put(&mut bytes, &header.tlvs)?;
    let block_bytes = u16::try_from(bytes.len() - FIXED_BYTES).map_err(|_| EncodeError::TooLong)?;
    put_at(&mut bytes, FIXED_BYTES - 2, &block_bytes.to_be_bytes());
    if let Some(at) = checksum {
        // Over the whole header, with zeros for itself, which are there already.
        let sum = crc32c::crc32c(&bytes);
        put_at(&mut bytes, at, &sum.to_be_bytes());
    }
    Ok(bytes)
}

fn put_ip(bytes: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x11, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (source, destination) => {
            bytes.extend([0x21, 0, 0]);
            bytes.extend(as_ipv6(source).octets());
            bytes.extend(as_ipv6(destination).octets());
        }
    }
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn put_unix_path(bytes: &mut Vec<u8>, path: &[u8]) -> Result<(), EncodeError> {
    let padding = UNIX_PATH_BYTES
        .checked_sub(path.len())
        .ok_or(EncodeError::UnixPathTooLong { bytes: path.len() })?;
    bytes.extend(path);
    bytes.extend(std::iter::repeat_n(0, padding));
    Ok(())
}

/// Writes over bytes that are there.
fn put_at(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and transport, and the length of what follows.
const FIXED_BYTES: usize = 16;

/// `sun_path` of `struct sockaddr_un`.
const UNIX_PATH_BYTES: usize = 108;
