//! What a peer may be speaking, in words for an error message.

use std::fmt;

/// How much is looked at: the longest line that SMTP allows for a greeting (RFC 5321 section 4.5.3.1.5).
const FIRST_BYTES: usize = 512;

/// How the header of the PROXY protocol, version 2, begins (its specification, section 2.2).
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a peer that was to speak TLS seems to speak instead. It is for people to read: nothing should depend on it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Guess {
    /// No byte has come.
    Nothing,
    /// A TLS handshake.
    Tls,
    /// A TLS alert: the peer speaks TLS and refused.
    TlsAlert,
    /// A hello of SSL 2.0.
    Ssl2,
    /// HTTP, a request or a response, or the first frame of an HTTP/2 server.
    Http,
    /// SSH.
    Ssh,
    /// A header of the PROXY protocol, which a proxy sends before what it relays.
    ProxyProtocol,
    /// SMTP.
    Smtp,
    /// FTP.
    Ftp,
    /// The greeting that SMTP and FTP have in common.
    SmtpOrFtp,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// The error that POP3 and Redis have in common.
    Pop3OrRedis,
    /// XMPP.
    Xmpp,
    /// RFB, the protocol of VNC.
    Rfb,
    /// MySQL or MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
    /// Telnet.
    Telnet,
    /// Text of an unknown protocol.
    PlainText,
    /// Anything else.
    Binary,
}

impl Guess {
    /// From the first bytes of a client or of a server. More bytes make a better guess; a line is enough in nearly
    /// every case, and no more than the first 512 bytes count.
    pub fn of(bytes: &[u8]) -> Self {
        let bytes = bytes.get(..FIRST_BYTES).unwrap_or(bytes);
        let known = Self::of_binary(bytes).or_else(|| Self::of_text(bytes));
        known.unwrap_or_else(|| match is_text(bytes) {
            true => Self::PlainText,
            false => Self::Binary,
        })
    }

    fn of_binary(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => Some(Self::Nothing),
            [22, 3, ..] => Some(Self::Tls),
            [21, 3, ..] => Some(Self::TlsAlert),
            // IAC, and WILL, WONT, DO or DONT (RFC 854).
            [0xff, 0xfb..=0xfe, ..] => Some(Self::Telnet),
            // A length with the highest bit set, then CLIENT-HELLO and a version (RFC 6101 appendix E.1).
            [0x80..=0xff, _, 1, 0 | 3, ..] => Some(Self::Ssl2),
            // SSLRequest, and the start of version 3.
            [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f, ..] => Some(Self::Postgres),
            [0, 0, _, _, 0, 3, 0, 0, ..] => Some(Self::Postgres),
            // The first packet, of version 10, which begins with the server's version in text; or an error.
            [_, _, 0, 0, 10, b'0'..=b'9', ..] | [_, _, 0, 0, 0xff, ..] => Some(Self::MySql),
            // A SETTINGS frame of stream 0 (RFC 9113 sections 3.4 and 6.5).
            [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => Some(Self::Http),
            _ if bytes.starts_with(PROXY_V2) => Some(Self::ProxyProtocol),
            _ => None,
        }
    }

    fn of_text(bytes: &[u8]) -> Option<Self> {
        let beginnings: &[(&[u8], Self)] = &[
            (b"SSH-", Self::Ssh),
            (b"PROXY ", Self::ProxyProtocol),
            (b"RFB 0", Self::Rfb),
            (b"* OK", Self::Imap),
            (b"* PREAUTH", Self::Imap),
            (b"* BYE", Self::Imap),
            (b"+OK", Self::Pop3),
            (b"-ERR", Self::Pop3OrRedis),
            (b"EHLO ", Self::Smtp),
            (b"HELO ", Self::Smtp),
            (b"HTTP/", Self::Http),
            (b"PRI * HTTP/2", Self::Http),
            (b"GET ", Self::Http),
            (b"HEAD ", Self::Http),
            (b"POST ", Self::Http),
            (b"PUT ", Self::Http),
            (b"DELETE ", Self::Http),
            (b"CONNECT ", Self::Http),
            (b"OPTIONS ", Self::Http),
            (b"TRACE ", Self::Http),
            (b"PATCH ", Self::Http),
        ];
        let known = beginnings.iter().find(|(text, _)| bytes.starts_with(text));
        if let Some((_, guess)) = known {
            return Some(*guess);
        }
        let says = |word: &[u8]| {
            let mut parts = bytes.windows(word.len());
            parts.any(|part| part.eq_ignore_ascii_case(word))
        };
        match bytes {
            [b'<', ..] if says(b"<stream:stream") => Some(Self::Xmpp),
            _ if !is_greeting(bytes) => None,
            _ if says(b"SMTP") => Some(Self::Smtp),
            _ if says(b"FTP") => Some(Self::Ftp),
            _ => Some(Self::SmtpOrFtp),
        }
    }
}

/// A reply with a code of SMTP or FTP that a server may begin with, or answer nonsense with.
fn is_greeting(bytes: &[u8]) -> bool {
    let codes: [&[u8]; 6] = [b"220", b"421", b"500", b"501", b"502", b"554"];
    let is_end = |after: Option<&u8>| matches!(after, Some(b' ' | b'-'));
    codes.iter().any(|code| bytes.starts_with(code)) && is_end(bytes.get(3))
}

/// Text, even if a character is cut off at its end.
fn is_text(bytes: &[u8]) -> bool {
    let whole = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_some() => return false,
        Err(error) => {
            let whole = bytes.get(..error.valid_up_to()).unwrap_or_default();
            str::from_utf8(whole).unwrap_or_default()
        }
    };
    whole
        .chars()
        .all(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\n'))
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Tls => "TLS",
            Self::TlsAlert => "a TLS alert",
            Self::Ssl2 => "SSL 2.0",
            Self::Http => "HTTP",
            Self::Ssh => "SSH",
            Self::ProxyProtocol => "a PROXY header",
            Self::Smtp => "SMTP",
            Self::Ftp => "FTP",
            Self::SmtpOrFtp => "SMTP or FTP",
            Self::Imap => "IMAP",
            Self::Pop3 => "POP3",
            Self::Pop3OrRedis => "POP3 or Redis",
            Self::Xmpp => "XMPP",
            Self::Rfb => "RFB (VNC)",
            Self::MySql => "MySQL",
            Self::Postgres => "PostgreSQL",
            Self::Telnet => "Telnet",
            Self::PlainText => "plain text",
            Self::Binary => "an unknown binary protocol",
        })
    }
}
