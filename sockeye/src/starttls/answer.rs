//! What an answer of the server can lead to: the next step, or one of the errors; and the limits that every answer
//! has to keep.

/// The longest line of an answer, in bytes with what ends it. The standards allow less: SMTP 512 (RFC 5321 section
/// 4.5.3.1.5), POP3 512 (RFC 2449 section 4); IMAP names no number. Servers are known to go over it.
pub const MAX_LINE_BYTES: usize = 4096;

/// The most lines of one answer. Real servers list 10 to 30 capabilities.
pub const MAX_REPLY_LINES: usize = 100;

/// The most bytes of XMPP between two of our own messages: the stream header with its features, or the answer to
/// `starttls`. Real servers send less than 2 KiB.
pub const MAX_XMPP_BYTES: usize = 64 * 1024;

/// The longest LDAP response, in bytes with its header. Real ones are shorter than 100.
pub const MAX_LDAP_BYTES: usize = 64 * 1024;

/// The most characters that are kept of what a server said, once it is escaped.
pub const MAX_SAID_CHARS: usize = 200;

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "the negotiation goes on only when its step is taken"]
pub enum Step {
    /// Send all of these bytes, and then give [`receive`](super::Negotiation::receive) what comes.
    Send(Vec<u8>),
    /// The server has not said enough: give [`receive`](super::Negotiation::receive) what comes.
    Wait,
    /// The server has consented, and the very next byte in each direction is the handshake's.
    Agreed,
}

/// Why there will be no handshake. After any of these the connection is of no use.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StarttlsError {
    /// The server speaks the protocol and does not list STARTTLS among what it can do.
    #[error("the server does not offer STARTTLS")]
    NotOffered,
    /// The server said no: to STARTTLS, to the command before it, or to the connection.
    #[error("the server refused: {said}")]
    Refused {
        /// Its words, unauthenticated: at most [`MAX_SAID_CHARS`], and what is not printable is escaped.
        said: String,
    },
    /// What came is not what the protocol has in this place.
    #[error("{due} was due, and the server sent {said}")]
    Malformed {
        /// What should have come.
        due: &'static str,
        /// What came instead: at most [`MAX_SAID_CHARS`], and what is not printable is escaped.
        said: String,
    },
    /// Bytes came with the server's consent. Whoever sits in between could have put them there, and a client that
    /// keeps them takes them for data that came encrypted (CVE-2011-0411, CVE-2021-23222, CVE-2026-1642).
    #[error("the server sent {} after its consent and before the handshake", counted(*bytes))]
    EarlyData {
        /// How many are known of.
        bytes: usize,
    },
    /// Bytes came before the command that they would answer, so they are no answer to it.
    #[error("the server sent {} before it was asked", counted(*bytes))]
    EarlyAnswer {
        /// How many are known of.
        bytes: usize,
    },
    /// The stream ended before the server's consent.
    #[error("the server closed the connection when {due} was due")]
    Ended {
        /// What should have come.
        due: &'static str,
    },
    /// A line longer than [`MAX_LINE_BYTES`].
    #[error("the server sent a line of more than {} bytes", MAX_LINE_BYTES)]
    LineTooLong,
    /// More lines than [`MAX_REPLY_LINES`] in one answer.
    #[error("the server sent an answer of more than {} lines", MAX_REPLY_LINES)]
    TooManyLines,
    /// More XMPP than [`MAX_XMPP_BYTES`] in one answer.
    #[error("the server sent more than {} bytes of XMPP", MAX_XMPP_BYTES)]
    XmppTooLong,
    /// An LDAP response longer than [`MAX_LDAP_BYTES`].
    #[error(
        "the server sent an LDAP response of more than {} bytes",
        MAX_LDAP_BYTES
    )]
    LdapTooLong,
}

fn counted(bytes: usize) -> String {
    let unit = if bytes == 1 { "byte" } else { "bytes" };
    format!("{bytes} {unit}")
}

/// What a server said, fit for an error message: at most [`MAX_SAID_CHARS`], and nothing in it that a terminal obeys.
pub(crate) fn shown(said: &[u8]) -> String {
    // No character has more than 4 bytes, so what is cut off here would not have been shown.
    let said = said.get(..4 * MAX_SAID_CHARS).unwrap_or(said);
    let mut shown = String::new();
    for chunk in said.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\'' => shown.push(c),
                _ => shown.extend(c.escape_debug()),
            }
        }
        shown.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    match shown.char_indices().nth(MAX_SAID_CHARS) {
        None => shown,
        Some(_) => shown
            .chars()
            .take(MAX_SAID_CHARS - 1)
            .chain(['…'])
            .collect(),
    }
}
