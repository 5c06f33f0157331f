//! Where a socket is, or is to be: [`Addr`] for one end of a connection, [`BindAddr`] for a listener.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// One end of a connection.
///
/// `Display` gives `127.0.0.1:7000`, `[::1]:7000` or `unix:/run/x.sock`. The path of a Unix peer is chosen by
/// that peer, so control characters in it are shown escaped.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Addr {
    /// An IP address and port. An IPv4 peer of a dual-stack listener is shown as IPv4, not as `::ffff:a.b.c.d`.
    Tcp(SocketAddr),
    /// A Unix socket; `None` for the unnamed end, which most clients have.
    Unix(Option<Box<Path>>),
}

impl Addr {
    /// The IP address, or `None` for a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The port, or `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => fmt_unix(path, f),
            Self::Unix(None) => f.write_str("unix:(unnamed)"),
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(address: SocketAddr) -> Self {
        let mapped = match address {
            SocketAddr::V6(address) => address.ip().to_ipv4_mapped(),
            SocketAddr::V4(_) => None,
        };
        // Any other IPv6 address is kept whole: without its scope a link-local one leads nowhere.
        Self::Tcp(mapped.map_or(address, |ip| SocketAddr::from((ip, address.port()))))
    }
}

impl From<&tokio::net::unix::SocketAddr> for Addr {
    fn from(address: &tokio::net::unix::SocketAddr) -> Self {
        Self::Unix(address.as_pathname().map(Into::into))
    }
}

/// Where a server is to listen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BindAddr {
    /// Exactly this address. Port 0 lets the kernel choose one. An IPv6 address takes IPv6 only, `[::]` included.
    Tcp(SocketAddr),
    /// Every interface, IPv6 and IPv4 on one dual-stack socket; IPv4 alone where IPv6 is switched off.
    AllInterfaces {
        /// The port; 0 lets the kernel choose one.
        port: u16,
    },
    /// A Unix stream socket at this path. A socket file that nobody listens on any more is replaced; any other
    /// file is left alone and is an error. The file is removed when the server ends.
    Unix(PathBuf),
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::AllInterfaces { port } => write!(f, ":{port}"),
            Self::Unix(path) => fmt_unix(path, f),
        }
    }
}

impl From<SocketAddr> for BindAddr {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<([u8; 4], u16)> for BindAddr {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Tcp(address.into())
    }
}

fn fmt_unix(path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("unix:")?;
    for c in path.to_string_lossy().chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            fmt::Write::write_char(f, c)?;
        }
    }
    Ok(())
}
