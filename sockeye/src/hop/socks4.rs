//! SOCKS4 and SOCKS4a: one request with a user id, and one reply of eight bytes.

use std::net::{Ipv4Addr, SocketAddr};

use super::answer::{HopError, Pushed, Refusal};
use super::request::{Credentials, Destination, MAX_FIELD_BYTES, RequestError};
use crate::starttls::shown;

pub(super) const DUE: &str = "a SOCKS4 reply";

const VERSION: u8 = 4;
const REPLY_BYTES: usize = 8;

/// The reply that it is open.
const GRANTED: u8 = 90;

/// An address that nobody has: after the user id comes a name (SOCKS 4A).
const NAME_FOLLOWS: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 1);

#[derive(Debug, Default)]
pub(super) struct Reply {
    held: Vec<u8>,
}

impl Reply {
    pub(super) fn needs(&self) -> usize {
        REPLY_BYTES.saturating_sub(self.held.len())
    }

    /// The address and the port in it mean nothing for CONNECT.
    pub(super) fn push(&mut self, byte: u8) -> Result<Pushed, HopError> {
        self.held.push(byte);
        match self.held.as_slice() {
            // The version of the reply is 0; some proxies say that of the protocol.
            [0 | VERSION] => Ok(Pushed::More),
            [0 | VERSION, GRANTED, ..] if self.needs() == 0 => Ok(Pushed::Open),
            [0 | VERSION, GRANTED, ..] => Ok(Pushed::More),
            // Not every proxy sends the rest then.
            [0 | VERSION, reply @ 91..=93] => Err(HopError::Refused(Refusal::Socks4(*reply))),
            _ => Err(HopError::Malformed {
                due: DUE,
                said: shown(&self.held),
            }),
        }
    }
}

pub(super) fn request(
    destination: &Destination,
    credentials: Option<&Credentials>,
    with_names: bool,
) -> Result<Vec<u8>, RequestError> {
    const CONNECT: u8 = 1;
    let (ip, port, name) = match destination {
        Destination::Address(SocketAddr::V4(address)) => (*address.ip(), address.port(), None),
        Destination::Address(SocketAddr::V6(_)) => return Err(RequestError::Ipv4Only),
        Destination::Name(name, port) if with_names => (NAME_FOLLOWS, *port, Some(name)),
        Destination::Name(..) => return Err(RequestError::NoNames),
    };
    let mut request = vec![VERSION, CONNECT];
    request.extend(port.to_be_bytes());
    request.extend(ip.octets());
    request.extend(user_id(credentials)?.bytes());
    request.push(0);
    if let Some(name) = name {
        request.extend(name.bytes());
        request.push(0);
    }
    Ok(request)
}

fn user_id(credentials: Option<&Credentials>) -> Result<&str, RequestError> {
    let Some(Credentials { user, password }) = credentials else {
        return Ok("");
    };
    let wrong = |why| Err(RequestError::Credentials { why });
    if !password.is_empty() {
        return wrong("SOCKS4 has a user id and no password");
    }
    if user.contains('\0') || user.len() > MAX_FIELD_BYTES {
        return wrong("SOCKS4 takes a user id of 255 bytes, without NUL");
    }
    Ok(user)
}
