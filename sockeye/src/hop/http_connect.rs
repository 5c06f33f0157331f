//! CONNECT: the request for a tunnel, and the head of the answer (RFC 9110 section 9.3.6, RFC 9112).
//!
//! A tunnel begins after the empty line that ends the head of a 2xx, whatever `Content-Length` or `Transfer-Encoding` say
//! there. The body of any other answer is not read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer::{HopError, Pushed, Refusal};
use super::request::{Credentials, Destination, RequestError};
use crate::starttls::shown;

/// The longest answer to CONNECT, interim answers (1xx) included, in bytes. Real ones are shorter than 1,000.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

pub(super) const DUE: &str = "an answer to CONNECT";

const PROTOCOL: &[u8] = b"HTTP/1.";

/// `HTTP/1.1 200`: up to the status, which nothing has to follow but the end of the line.
const STATUS_LINE_BYTES: usize = PROTOCOL.len() + 5;

/// For both together; a password may be a long token.
const MAX_CREDENTIAL_BYTES: usize = 4096;

pub(super) fn request(
    destination: &Destination,
    credentials: Option<&Credentials>,
) -> Result<Vec<u8>, RequestError> {
    let authorization = match credentials {
        None => String::new(),
        Some(credentials) => {
            let basic = STANDARD.encode(user_pass(credentials)?);
            format!("Proxy-Authorization: Basic {basic}\r\n")
        }
    };
    let request =
        format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n{authorization}\r\n");
    Ok(request.into_bytes())
}

/// RFC 7617 section 2.
fn user_pass(credentials: &Credentials) -> Result<String, RequestError> {
    let Credentials { user, password } = credentials;
    let wrong = |why| Err(RequestError::Credentials { why });
    if user.contains(':') {
        return wrong("HTTP has no user with a colon");
    }
    let user_pass = format!("{user}:{password}");
    if user_pass.contains(char::is_control) {
        return wrong("HTTP takes no control characters in them");
    }
    if user_pass.len() > MAX_CREDENTIAL_BYTES {
        return wrong("they are longer than 4096 bytes");
    }
    Ok(user_pass)
}

#[derive(Debug)]
pub(super) struct Response {
    has_credentials: bool,
    /// Of all heads so far.
    bytes: usize,
    /// The line that has not ended.
    line: Vec<u8>,
    /// What the status line of this head has said.
    status: Option<(u16, String)>,
    challenges: Challenges,
}

/// The schemes of authentication that a proxy has named.
#[derive(Debug, Default)]
struct Challenges {
    basic: bool,
    first: Option<String>,
}

impl Response {
    pub(super) fn new(has_credentials: bool) -> Self {
        Self {
            has_credentials,
            bytes: 0,
            line: Vec::new(),
            status: None,
            challenges: Challenges::default(),
        }
    }

    /// A line may end with LF alone (RFC 9112 section 2.2), and so may the head.
    pub(super) fn needs(&self) -> usize {
        const LINE_AND_HEAD_END: usize = 2;
        match (&self.status, self.line.as_slice()) {
            (None, line) => STATUS_LINE_BYTES.saturating_sub(line.len()) + LINE_AND_HEAD_END,
            // The next one can end the head.
            (Some(_), [] | [b'\r']) => 1,
            (Some(_), _) => LINE_AND_HEAD_END,
        }
    }

    pub(super) fn push(&mut self, byte: u8) -> Result<Pushed, HopError> {
        if self.bytes == MAX_HEAD_BYTES {
            return Err(HopError::HeadTooLong);
        }
        self.bytes += 1;
        if byte != b'\n' {
            self.line.push(byte);
            // Who does not speak HTTP may not end a line at all.
            if self.status.is_none() && self.line.len() == PROTOCOL.len() && self.line != PROTOCOL {
                return Err(malformed(&self.line));
            }
            return Ok(Pushed::More);
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match self.status.take() {
            None => self.status = Some(status_line(line).ok_or_else(|| malformed(line))?),
            Some((status, reason)) if line.is_empty() => return self.end(status, reason),
            Some(status) => {
                self.status = Some(status);
                self.challenges.note(line);
            }
        }
        Ok(Pushed::More)
    }

    /// After a whole head.
    fn end(&self, status: u16, reason: String) -> Result<Pushed, HopError> {
        match status {
            // An interim answer; that to another protocol than asked for is none.
            100 | 102..200 => Ok(Pushed::More),
            200..300 => Ok(Pushed::Open),
            407 => Err(match (&self.challenges.first, self.has_credentials) {
                (Some(first), _) if !self.challenges.basic => HopError::UnknownCredentials {
                    offered: format!("{first} credentials"),
                },
                (_, true) => HopError::CredentialsRejected,
                (_, false) => HopError::CredentialsWanted,
            }),
            // It is the origin's status, and yet tinyproxy's word for a wrong password.
            401 if self.has_credentials => Err(HopError::CredentialsRejected),
            _ => Err(HopError::Refused(Refusal::Http { status, reason })),
        }
    }
}

impl Challenges {
    /// RFC 9110 section 11.7.1. Only for words: a comma in quotes may show more schemes than there are.
    fn note(&mut self, field: &[u8]) {
        let Some(colon) = field.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = field.split_at(colon);
        if !name.eq_ignore_ascii_case(b"Proxy-Authenticate") {
            return;
        }
        let value = value.get(1..).unwrap_or_default();
        for challenge in value.split(|byte| *byte == b',') {
            let mut words = challenge.trim_ascii().split(|byte| *byte == b' ');
            let scheme = words.next().unwrap_or_default();
            self.basic |= scheme.eq_ignore_ascii_case(b"Basic");
            if self.first.is_none() && !scheme.is_empty() {
                self.first = Some(shown(scheme));
            }
        }
    }
}

/// The status and its words. Those may be missing, and the space before them with them.
fn status_line(line: &[u8]) -> Option<(u16, String)> {
    let rest = line.strip_prefix(PROTOCOL)?;
    let [minor, b' ', status @ ..] = rest else {
        return None;
    };
    let (status, reason) = status.split_first_chunk::<3>()?;
    let reason = match reason {
        [] => reason,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    if !minor.is_ascii_digit() || !status.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = status
        .iter()
        .fold(0, |number, digit| 10 * number + u16::from(digit - b'0'));
    (number >= 100).then(|| (number, shown(reason.trim_ascii())))
}

fn malformed(line: &[u8]) -> HopError {
    HopError::Malformed {
        due: DUE,
        said: shown(line),
    }
}
