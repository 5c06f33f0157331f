//! What a proxy is asked for, and by whom.

use std::fmt;
use std::net::SocketAddr;

/// What a proxy is to connect to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Destination {
    /// A name that the proxy resolves, and a port.
    Name(String, u16),
    /// An address.
    Address(SocketAddr),
}

impl Destination {
    /// A name that cannot end a line of HTTP or a string of SOCKS4: the characters that RFC 3986, section 3.2.2, has for a
    /// registered name, and as many as SOCKS5 and DNS can take.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        let Self::Name(name, _) = self else {
            return Ok(());
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
        if name.is_empty() || name.len() > MAX_FIELD_BYTES || !name.bytes().all(known) {
            return Err(RequestError::Name { name: name.clone() });
        }
        Ok(())
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Address(address) => f.write_str(&super::written(address)),
        }
    }
}

/// Who we are, to the proxy. `Debug` shows no password.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
}

impl Credentials {
    /// A user and a password, which may be empty.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The longest name, user or password in SOCKS: its length is a byte.
pub(super) const MAX_FIELD_BYTES: usize = 255;

/// Why something cannot be asked of a proxy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the name of a host, or longer than 255 bytes.
    #[error("{name:?} is no name of a host that a proxy can be asked for")]
    Name {
        /// The name.
        name: String,
    },
    /// SOCKS4 has IPv4 addresses only.
    #[error("SOCKS4 reaches IPv4 addresses only")]
    Ipv4Only,
    /// Plain SOCKS4 has no names: they have to be resolved before.
    #[error("SOCKS4 has no names, only SOCKS4a has")]
    NoNames,
    /// A proxy connects to TCP addresses.
    #[error("a proxy cannot connect to a Unix socket")]
    UnixSocket,
    /// The user or the password cannot be said in this protocol.
    #[error("these credentials cannot be sent: {why}")]
    Credentials {
        /// Why not.
        why: &'static str,
    },
}
