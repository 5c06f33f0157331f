//! Why a connection closed.

use std::fmt;

/// Why a connection closed: each has exactly one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client sent FIN, and then the service ended.
    PeerClosed,
    /// The service ended first.
    Finished,
    /// The client reset the connection.
    Reset,
    /// The client was not heard from any more: the kernel gave up (`ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`).
    PeerLost,
    /// TLS ended without close_notify (RFC 8446, section 6.1): the stream may have been cut by somebody else.
    Truncated,
    /// [`Timeouts::delivery`](crate::Timeouts::delivery): the client did not take the end of what was sent to it.
    Unread,
    /// The PROXY header was none, or was not whole when the stream ended.
    ProxyHeader,
    /// [`Timeouts::proxy_header`](crate::Timeouts::proxy_header).
    ProxyHeaderTimeout,
    /// The TLS handshake failed.
    TlsHandshake,
    /// [`Timeouts::handshake`](crate::Timeouts::handshake).
    TlsHandshakeTimeout,
    /// [`Timeouts::first_byte`](crate::Timeouts::first_byte).
    FirstByteTimeout,
    /// [`Timeouts::idle`](crate::Timeouts::idle).
    Idle,
    /// [`Timeouts::lifetime`](crate::Timeouts::lifetime).
    Lifetime,
    /// The service returned an error of its own.
    Error,
    /// The service panicked.
    Panic,
    /// The service broke it off with a reset: [`Conn::abort`](crate::Conn::abort).
    ResetSent,
    /// The server was shut down before the connection was over.
    Aborted,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::PeerClosed,
        Self::Finished,
        Self::Reset,
        Self::PeerLost,
        Self::Truncated,
        Self::Unread,
        Self::ProxyHeader,
        Self::ProxyHeaderTimeout,
        Self::TlsHandshake,
        Self::TlsHandshakeTimeout,
        Self::FirstByteTimeout,
        Self::Idle,
        Self::Lifetime,
        Self::Error,
        Self::Panic,
        Self::ResetSent,
        Self::Aborted,
    ];

    /// The name in events: `peer_closed`, `finished`, `reset` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Finished => "finished",
            Self::Reset => "reset",
            Self::PeerLost => "peer_lost",
            Self::Truncated => "truncated",
            Self::Unread => "unread",
            Self::ProxyHeader => "proxy_header",
            Self::ProxyHeaderTimeout => "proxy_header_timeout",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsHandshakeTimeout => "tls_handshake_timeout",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::ResetSent => "reset_sent",
            Self::Aborted => "aborted",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Whether the peer is to learn of it by a reset.
    pub(crate) fn is_abrupt(self) -> bool {
        matches!(self, Self::Panic | Self::ResetSent | Self::Aborted)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
