//! LDAP: one request and one response (RFC 4511 section 4.14), in the restricted BER of its section 5.1.

use super::answer::{MAX_LDAP_BYTES, StarttlsError, Step, shown};

/// The name of StartTLS (RFC 4511 section 4.14.1).
const OID: &[u8] = b"1.3.6.1.4.1.1466.20037";

/// The request: message 1, an extended request that carries [`OID`] and nothing else.
pub(super) const REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

pub(super) const DUE: &str = "an answer to StartTLS";

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
/// `[APPLICATION 24]`, constructed.
const EXTENDED_RESPONSE: u8 = 0x78;
/// `[0]` of a message: controls.
const CONTROLS: u8 = 0xa0;
/// `[3]` of a result: referrals.
const REFERRAL: u8 = 0xa3;
/// `[10]` and `[11]` of an extended response.
const RESPONSE_NAME: u8 = 0x8a;
const RESPONSE_VALUE: u8 = 0x8b;

#[derive(Debug, Default)]
pub(super) struct Response {
    bytes: Vec<u8>,
}

impl Response {
    pub(super) fn push(&mut self, byte: u8) -> Result<Step, StarttlsError> {
        self.bytes.push(byte);
        if self.bytes.first() != Some(&SEQUENCE) {
            return Err(self.malformed());
        }
        let header = match header(&self.bytes) {
            Header::Incomplete => return Ok(Step::Wait),
            Header::Malformed => return Err(self.malformed()),
            Header::Known(header) => header,
        };
        // Refused by what it says of itself, before it has come.
        let whole = header.bytes.saturating_add(header.content);
        if whole > MAX_LDAP_BYTES {
            return Err(StarttlsError::LdapTooLong);
        }
        if self.bytes.len() < whole {
            return Ok(Step::Wait);
        }
        let result = parse(&self.bytes).ok_or_else(|| self.malformed())?;
        if result.code == 0 && result.message_id == 1 {
            return Ok(Step::Agreed);
        }
        if result.code == 0 {
            return Err(self.malformed());
        }
        Err(StarttlsError::Refused {
            said: result.shown(),
        })
    }

    fn malformed(&self) -> StarttlsError {
        StarttlsError::Malformed {
            due: DUE,
            said: shown(&self.bytes),
        }
    }
}

/// What counts of a response.
struct LdapResult<'a> {
    message_id: u32,
    code: u32,
    diagnostic: &'a [u8],
}

impl LdapResult<'_> {
    /// `52 unavailable: TLS is off`: the code, its name if it is one to be met here (RFC 4511 section 4.1.9), the
    /// server's words.
    fn shown(&self) -> String {
        let name = match self.code {
            1 => " operationsError",
            2 => " protocolError",
            8 => " strongerAuthRequired",
            10 => " referral",
            50 => " insufficientAccessRights",
            51 => " busy",
            52 => " unavailable",
            53 => " unwillingToPerform",
            80 => " other",
            _ => "",
        };
        let mut said = format!("{}{name}", self.code).into_bytes();
        if !self.diagnostic.is_empty() {
            said.extend(b": ");
            said.extend(self.diagnostic);
        }
        shown(&said)
    }
}

/// A whole LDAPMessage with an extended response to StartTLS, or the server's notice that it disconnects, which has
/// the message id 0 (RFC 4511 section 4.4.1).
fn parse(message: &[u8]) -> Option<LdapResult<'_>> {
    let (message, []) = expect(message, SEQUENCE)? else {
        return None;
    };
    let (message_id, rest) = expect(message, INTEGER)?;
    let (response, rest) = expect(rest, EXTENDED_RESPONSE)?;
    let (_, []) = optional(rest, CONTROLS)? else {
        return None;
    };
    let (code, rest) = expect(response, ENUMERATED)?;
    let (_matched_dn, rest) = expect(rest, OCTET_STRING)?;
    let (diagnostic, rest) = expect(rest, OCTET_STRING)?;
    let (_, rest) = optional(rest, REFERRAL)?;
    let (name, rest) = optional(rest, RESPONSE_NAME)?;
    let (_, []) = optional(rest, RESPONSE_VALUE)? else {
        return None;
    };
    let message_id = number(message_id)?;
    let ours = message_id == 1 && name.is_none_or(|name| name == OID);
    (ours || message_id == 0).then_some(LdapResult {
        message_id,
        code: number(code)?,
        diagnostic,
    })
}

struct Known {
    tag: u8,
    /// How long the header itself is.
    bytes: usize,
    content: usize,
}

enum Header {
    Incomplete,
    Malformed,
    Known(Known),
}

/// Tag and length. Lengths are definite (RFC 4511 section 5.1) and may be longer written than need be: Active
/// Directory always takes four bytes.
fn header(bytes: &[u8]) -> Header {
    let &[tag, first, ref rest @ ..] = bytes else {
        return Header::Incomplete;
    };
    let (length, content) = match first {
        0..=0x7f => (0, usize::from(first)),
        0x81..=0x84 => {
            let length = usize::from(first & 0x7f);
            let Some(bytes) = rest.get(..length) else {
                return Header::Incomplete;
            };
            let content = bytes
                .iter()
                .fold(0, |all: u32, byte| all << 8 | u32::from(*byte));
            (length, usize::try_from(content).unwrap_or(usize::MAX))
        }
        // Indefinite, reserved, or longer than anything that is taken here.
        _ => return Header::Malformed,
    };
    Header::Known(Known {
        tag,
        bytes: 2 + length,
        content,
    })
}

/// The content of the element that begins here, which has this tag, and what follows it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let Header::Known(header) = header(bytes) else {
        return None;
    };
    let rest = bytes.get(header.bytes..)?;
    let content = rest.get(..header.content)?;
    (header.tag == tag).then_some((content, rest.get(header.content..)?))
}

/// As [`expect`], but the element may be missing.
fn optional(bytes: &[u8], tag: u8) -> Option<(Option<&[u8]>, &[u8])> {
    if bytes.first() != Some(&tag) {
        return Some((None, bytes));
    }
    expect(bytes, tag).map(|(content, rest)| (Some(content), rest))
}

/// A number that is not negative and fits; all that LDAP has here do.
fn number(content: &[u8]) -> Option<u32> {
    if content.is_empty() || content.len() > 4 || content.first()? & 0x80 != 0 {
        return None;
    }
    Some(
        content
            .iter()
            .fold(0, |all, byte| all << 8 | u32::from(*byte)),
    )
}
