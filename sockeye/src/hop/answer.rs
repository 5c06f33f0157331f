//! What an answer of a proxy can lead to: the next step, or one of the errors.

use std::fmt;

use super::http_connect::MAX_HEAD_BYTES;

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "the negotiation goes on only when its step is taken"]
pub enum Step {
    /// Send all of these bytes, and then give [`receive`](super::Negotiation::receive) what comes.
    Send(Vec<u8>),
    /// The proxy has not said enough: give [`receive`](super::Negotiation::receive) what comes.
    Receive,
    /// The proxy has connected, and the very next byte in each direction is the destination's.
    Open,
}

/// What a byte has led to.
#[derive(Debug)]
pub(super) enum Pushed {
    More,
    Send(Vec<u8>),
    Open,
}

/// A no of the proxy, in the words of its protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The reply of SOCKS5 (RFC 1928 section 6), from 1.
    Socks5(u8),
    /// The reply of SOCKS4, 91 to 93.
    Socks4(u8),
    /// The answer to CONNECT.
    Http {
        /// From 300; 407 is [`HopError::CredentialsWanted`] or one of its kin.
        status: u16,
        /// Its words, unauthenticated: at most [`MAX_SAID_CHARS`](crate::starttls::MAX_SAID_CHARS), and what is not
        /// printable is escaped. May be empty.
        reason: String,
    },
}

impl Refusal {
    /// Whether the proxy could not, rather than would not.
    pub fn is_temporary(&self) -> bool {
        match self {
            // 2: its rules; 7 and 8: what it cannot do at all.
            Self::Socks5(reply) => matches!(reply, 1 | 3..=6),
            // 91 has any reason.
            Self::Socks4(reply) => *reply == 91,
            // 501: it does not know CONNECT.
            Self::Http { status, .. } => *status >= 500 && *status != 501,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Socks5(1) => "general failure",
            Self::Socks5(2) => "its rules do not allow it",
            Self::Socks5(3) => "network unreachable",
            Self::Socks5(4) => "host unreachable",
            Self::Socks5(5) => "connection refused",
            Self::Socks5(6) => "TTL expired",
            Self::Socks5(7) => "it does not know how to connect",
            Self::Socks5(8) => "it does not know this kind of address",
            Self::Socks5(reply) => return write!(f, "reply {reply}, which has no meaning"),
            Self::Socks4(91) => "rejected or failed",
            Self::Socks4(92) => "it cannot ask identd on this machine who we are",
            Self::Socks4(93) => "identd on this machine says that we are somebody else",
            Self::Socks4(reply) => return write!(f, "reply {reply}, which has no meaning"),
            Self::Http { status, reason } if reason.is_empty() => return write!(f, "{status}"),
            Self::Http { status, reason } => return write!(f, "{status} {reason}"),
        };
        f.write_str(words)
    }
}

/// Why there is no way through the proxy. After any of these the connection is of no use.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HopError {
    /// The proxy does not connect us.
    #[error("the proxy refused: {0}")]
    Refused(Refusal),
    /// The proxy wants credentials, and we have none.
    #[error("the proxy wants credentials")]
    CredentialsWanted,
    /// The proxy does not take our credentials.
    #[error("the proxy does not accept our credentials")]
    CredentialsRejected,
    /// The proxy wants to know who we are in a way that is not spoken here.
    #[error("the proxy wants {offered}, and of credentials only a user and a password are spoken")]
    UnknownCredentials {
        /// What it wants: at most [`MAX_SAID_CHARS`](crate::starttls::MAX_SAID_CHARS), and what is not printable is escaped.
        offered: String,
    },
    /// What came is not what the protocol has in this place.
    #[error("{due} was due, and the proxy sent {said}")]
    Malformed {
        /// What should have come.
        due: &'static str,
        /// What came instead: at most [`MAX_SAID_CHARS`](crate::starttls::MAX_SAID_CHARS), and what is not printable is escaped.
        said: String,
    },
    /// The stream ended before the proxy's consent.
    #[error("the proxy closed the connection when {due} was due")]
    Ended {
        /// What should have come.
        due: &'static str,
    },
    /// More than [`MAX_HEAD_BYTES`] in answer to CONNECT.
    #[error("the proxy sent a head of more than {} bytes", MAX_HEAD_BYTES)]
    HeadTooLong,
}

impl HopError {
    /// Whether the proxy could not, rather than would not: the same may be possible later, or with another address.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_temporary(),
            // Some proxies say no by a close.
            Self::Ended { .. } => true,
            _ => false,
        }
    }
}
