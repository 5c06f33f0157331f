//! SOCKS5: a greeting with the methods of authentication, perhaps a password, and the request (RFC 1928, RFC 1929).

use std::net::SocketAddr;

use super::answer::{HopError, Pushed, Refusal};
use super::request::{Credentials, Destination, MAX_FIELD_BYTES, RequestError};
use crate::starttls::shown;

const VERSION: u8 = 5;

const NO_CREDENTIALS: u8 = 0;
const PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;

/// The version of the negotiation with a password.
const PASSWORD_VERSION: u8 = 1;

/// A reply begins with version, reply and a reserved byte, and then has an address and a port.
const REPLY_HEAD_BYTES: usize = 3;
const PORT_BYTES: usize = 2;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

#[derive(Debug)]
pub(super) struct Dialogue {
    stage: Stage,
    /// Of the answer that is due.
    held: Vec<u8>,
    request: Vec<u8>,
    /// The message with the password, if there is one.
    password: Option<Vec<u8>>,
}

/// What is due now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Method,
    Verdict,
    Reply,
}

impl Dialogue {
    /// The dialogue, and the greeting.
    pub(super) fn begin(
        destination: &Destination,
        credentials: Option<&Credentials>,
    ) -> Result<(Self, Vec<u8>), RequestError> {
        let greeting = match credentials {
            None => vec![VERSION, 1, NO_CREDENTIALS],
            Some(_) => vec![VERSION, 2, NO_CREDENTIALS, PASSWORD],
        };
        let dialogue = Self {
            stage: Stage::Method,
            held: Vec::new(),
            request: request(destination)?,
            password: credentials.map(password).transpose()?,
        };
        Ok((dialogue, greeting))
    }

    pub(super) fn due(&self) -> &'static str {
        match self.stage {
            Stage::Method => "the choice of a SOCKS5 method",
            Stage::Verdict => "a verdict on our credentials",
            Stage::Reply => "a SOCKS5 reply",
        }
    }

    pub(super) fn needs(&self) -> usize {
        self.answer_bytes().saturating_sub(self.held.len())
    }

    /// How long the answer is, as far as is known: at least one byte more than is held, for what is complete is acted upon.
    fn answer_bytes(&self) -> usize {
        match self.stage {
            Stage::Method | Stage::Verdict => 2,
            Stage::Reply => {
                let address = match self.held.get(REPLY_HEAD_BYTES..) {
                    Some([IPV4, ..]) => 1 + 4,
                    Some([IPV6, ..]) => 1 + 16,
                    Some([_, length, ..]) => 2 + usize::from(*length),
                    // The shortest there is: a name without characters.
                    _ => 2,
                };
                REPLY_HEAD_BYTES + address + PORT_BYTES
            }
        }
    }

    pub(super) fn push(&mut self, byte: u8) -> Result<Pushed, HopError> {
        self.held.push(byte);
        match self.stage {
            Stage::Method => self.method(),
            Stage::Verdict => self.verdict(),
            Stage::Reply => self.reply(),
        }
    }

    fn method(&mut self) -> Result<Pushed, HopError> {
        match (self.held.as_slice(), &self.password) {
            ([VERSION], _) => Ok(Pushed::More),
            ([VERSION, NO_CREDENTIALS], _) => Ok(self.go_on(Stage::Reply, self.request.clone())),
            ([VERSION, PASSWORD], Some(password)) => {
                Ok(self.go_on(Stage::Verdict, password.clone()))
            }
            ([VERSION, NO_METHOD], None) => Err(HopError::CredentialsWanted),
            ([VERSION, NO_METHOD], Some(_)) => Err(HopError::UnknownCredentials {
                offered: "another kind of authentication".to_owned(),
            }),
            _ => Err(self.malformed()),
        }
    }

    fn verdict(&mut self) -> Result<Pushed, HopError> {
        match self.held.as_slice() {
            // Some proxies say the version of the protocol around it.
            [PASSWORD_VERSION | VERSION] => Ok(Pushed::More),
            [PASSWORD_VERSION | VERSION, 0] => Ok(self.go_on(Stage::Reply, self.request.clone())),
            [PASSWORD_VERSION | VERSION, _] => Err(HopError::CredentialsRejected),
            _ => Err(self.malformed()),
        }
    }

    /// The address in it is the proxy's own, and is of no use to us.
    fn reply(&self) -> Result<Pushed, HopError> {
        match self.held.as_slice() {
            [VERSION] | [VERSION, 0] | [VERSION, 0, _] => Ok(Pushed::More),
            // Not every proxy sends the rest then.
            [VERSION, reply] => Err(HopError::Refused(Refusal::Socks5(*reply))),
            [VERSION, 0, _, IPV4 | NAME | IPV6, ..] if self.needs() == 0 => Ok(Pushed::Open),
            [VERSION, 0, _, IPV4 | NAME | IPV6, ..] => Ok(Pushed::More),
            _ => Err(self.malformed()),
        }
    }

    fn go_on(&mut self, stage: Stage, say: Vec<u8>) -> Pushed {
        self.stage = stage;
        self.held.clear();
        Pushed::Send(say)
    }

    fn malformed(&self) -> HopError {
        HopError::Malformed {
            due: self.due(),
            said: shown(&self.held),
        }
    }
}

/// RFC 1929 section 2. It wants a password of one byte at least; some proxies have users without one.
fn password(credentials: &Credentials) -> Result<Vec<u8>, RequestError> {
    let Credentials { user, password } = credentials;
    let wrong = |why| Err(RequestError::Credentials { why });
    let length = |text: &str| u8::try_from(text.len());
    let (user_length, password_length) = match (length(user), length(password)) {
        (Ok(0), _) => return wrong("the user is missing"),
        (Ok(user), Ok(password)) => (user, password),
        _ => return wrong("SOCKS5 takes 255 bytes for the user and 255 for the password"),
    };
    let mut message = vec![PASSWORD_VERSION, user_length];
    message.extend(user.bytes());
    message.push(password_length);
    message.extend(password.bytes());
    Ok(message)
}

/// RFC 1928 sections 4 and 5.
fn request(destination: &Destination) -> Result<Vec<u8>, RequestError> {
    const CONNECT: u8 = 1;
    let mut request = vec![VERSION, CONNECT, 0];
    let port = match destination {
        Destination::Name(name, port) => {
            let length = u8::try_from(name.len()).ok();
            let length = length.filter(|length| usize::from(*length) <= MAX_FIELD_BYTES);
            let length = length.ok_or_else(|| RequestError::Name { name: name.clone() })?;
            request.extend([NAME, length]);
            request.extend(name.bytes());
            *port
        }
        Destination::Address(SocketAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.ip().octets());
            address.port()
        }
        Destination::Address(SocketAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.ip().octets());
            address.port()
        }
    };
    request.extend(port.to_be_bytes());
    Ok(request)
}
