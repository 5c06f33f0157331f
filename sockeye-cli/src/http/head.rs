//! The head of an answer: its status, how its body ends (RFC 9112, section 6.3), and whether the connection may carry
//! another (section 9.3).

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

use super::error::{BadResponse, shown};

/// Servers and proxies allow 8 KiB to 32 KiB in all.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// As many as common servers allow.
const MAX_FIELDS: usize = 100;

const PROTOCOL: &[u8] = b"HTTP/";

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) keep_alive: bool,
    pub(super) body: Body,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    /// With the connection.
    UntilClose,
}

/// The head at the beginning of `bytes`, and its length; `None` if more of it must come. What is malformed is found
/// with its first byte. `to_head`: the answer is to a request with the method HEAD.
///
/// A line may also end with a bare LF (RFC 9112, section 2.2), and a field go on in the next line (section 5.2). No empty
/// lines are skipped before an answer: only servers are to do so, and here they would be a body longer than was said.
pub(super) fn parse(bytes: &[u8], to_head: bool) -> Result<Option<(Head, usize)>, BadResponse> {
    let beginning = bytes.get(..PROTOCOL.len()).unwrap_or(bytes);
    if !PROTOCOL.starts_with(beginning) {
        let line = bytes.split(|&byte| matches!(byte, b'\r' | b'\n')).next();
        let begins = shown(line.filter(|line| !line.is_empty()).unwrap_or(bytes));
        return Err(BadResponse::NotHttp { begins });
    }
    let bytes = bytes.get(..MAX_HEAD_BYTES).unwrap_or(bytes);
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default()
        .allow_obsolete_multiline_headers_in_responses(true)
        .parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
    match parsed.map_err(malformed)? {
        Status::Partial if bytes.len() == MAX_HEAD_BYTES => Err(BadResponse::HeadTooLong {
            max_bytes: MAX_HEAD_BYTES,
        }),
        Status::Partial => Ok(None),
        Status::Complete(length) => {
            let (Some(minor), Some(status)) = (response.version, response.code) else {
                return Err(BadResponse::StatusLine);
            };
            let head = Head::new(minor, status, response.headers, to_head)?;
            Ok(Some((head, length)))
        }
    }
}

fn malformed(error: httparse::Error) -> BadResponse {
    match error {
        httparse::Error::Version => BadResponse::Version,
        httparse::Error::Status => BadResponse::StatusLine,
        httparse::Error::TooManyHeaders => BadResponse::TooManyFields { max: MAX_FIELDS },
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Token => BadResponse::Field,
    }
}

impl Head {
    fn new(
        minor: u8,
        status: u16,
        fields: &[Header<'_>],
        to_head: bool,
    ) -> Result<Self, BadResponse> {
        if status < 100 {
            return Err(BadResponse::Status { status });
        }
        // These have no body, whatever their fields say (section 6.3, rule 1).
        let is_bare = to_head || matches!(status, 100..=199 | 204 | 304);
        let mut options = Options::default();
        let mut length = None;
        let mut codings = Codings::default();
        for field in fields {
            if field.name.eq_ignore_ascii_case("connection") {
                options.add(field.value);
            } else if is_bare {
                continue;
            } else if field.name.eq_ignore_ascii_case("content-length") {
                length = Some(content_length(field.value, length)?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                codings.add(field.value)?;
            }
        }
        let body = match (codings.last, length) {
            _ if is_bare => Body::Length(0),
            (Some(_), Some(_)) => return Err(BadResponse::Ambiguous),
            (Some(Coding::Chunked), None) => Body::Chunked,
            (Some(Coding::Other), None) | (None, None) => Body::UntilClose,
            (None, Some(length)) => Body::Length(length),
        };
        // HTTP/1.0 knows no transfer codings: the framing is faulty, and nothing may follow it (section 6.1).
        let is_faulty = minor == 0 && codings.last.is_some();
        let keep_alive = options.keep_alive(minor) && !is_faulty && body != Body::UntilClose;
        Ok(Self {
            status,
            keep_alive,
            body,
        })
    }
}

/// The options of the fields `Connection` that matter here.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
}

impl Options {
    fn add(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn keep_alive(&self, minor: u8) -> bool {
        !self.close && (minor > 0 || self.keep_alive)
    }
}

/// One value, or the same one several times (section 6.3, rule 5).
fn content_length(value: &[u8], before: Option<u64>) -> Result<u64, BadResponse> {
    let mut agreed = before;
    for number in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        let number = decimal(number).ok_or_else(|| BadResponse::ContentLength {
            value: shown(value),
        })?;
        if agreed.is_some_and(|agreed| agreed != number) {
            return Err(BadResponse::ContentLengthsDiffer);
        }
        agreed = Some(number);
    }
    // Even an empty value has one part, which is no number.
    agreed.ok_or(BadResponse::ContentLengthsDiffer)
}

/// Digits only: `parse` would take a sign.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Coding {
    Chunked,
    Other,
}

/// The transfer codings of an answer, of which the last says how the body ends.
#[derive(Default)]
struct Codings {
    last: Option<Coding>,
    is_chunked: bool,
}

impl Codings {
    /// A body is put in chunks once, and `chunked` has no parameters (section 7). A quoted string, which no coding that is
    /// registered has, could hide a comma.
    fn add(&mut self, value: &[u8]) -> Result<(), BadResponse> {
        let wrong = || BadResponse::TransferEncoding {
            value: shown(value),
        };
        if value.contains(&b'"') {
            return Err(wrong());
        }
        let parts = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        // A list may have empty elements (RFC 9110, section 5.6.1.2), but not only such.
        for part in parts.filter(|part| !part.is_empty()) {
            let name = part.split(|&byte| byte == b';').next().unwrap_or(part);
            let name = name.trim_ascii();
            if name.is_empty() || !name.iter().copied().all(is_token_byte) {
                return Err(wrong());
            }
            let chunked = name.eq_ignore_ascii_case(b"chunked");
            if chunked && (self.is_chunked || name.len() != part.len()) {
                return Err(wrong());
            }
            self.is_chunked |= chunked;
            self.last = Some(if chunked {
                Coding::Chunked
            } else {
                Coding::Other
            });
        }
        if self.last.is_none() {
            return Err(wrong());
        }
        Ok(())
    }
}

/// Of a method, or of the name of a field (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
