//! The head of a request. What a user gave for its parts cannot end a line, and so not smuggle in another.

use std::str::FromStr;

use super::head::is_token_byte;

/// Why a request cannot be sent as it was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the method {method:?} is not a word of letters, as GET is")]
    Method { method: String },
    #[error("CONNECT asks for a tunnel, and not for an answer")]
    Tunnel,
    #[error("the path {path:?} does not begin with /")]
    NoSlash { path: String },
    #[error("the path holds {found:?}, which must be written as {written}")]
    Path { found: char, written: String },
    #[error("the host is missing")]
    NoHost,
    #[error("the host {host:?} holds {found:?}, which no host's name has")]
    Host { host: String, found: char },
    #[error("{text:?} has no path; write /PATH, or 'METHOD /PATH' in quotes")]
    NoPath { text: String },
    #[error("there is no colon in it; write 'Name: value'")]
    NoColon,
    #[error("{name:?} is not the name of a field, as Accept is")]
    FieldName { name: String },
    #[error("the value of {name} holds a control character")]
    FieldValue { name: String },
    #[error("the length of the body is its own affair; --send can send whatever you write")]
    Length,
    #[error("a body can be sent with its length or as 'Transfer-Encoding: chunked'")]
    Coding,
    #[error("a request has one Host")]
    TwoHosts,
}

/// The method and the path, from `METHOD /PATH` or, for GET, from the path alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RequestLine {
    pub(crate) method: String,
    pub(crate) path: String,
}

impl FromStr for RequestLine {
    type Err = BadRequest;

    fn from_str(text: &str) -> Result<Self, BadRequest> {
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) if !text.starts_with('/') => (method, path.trim_start()),
            _ if !text.is_empty() && text.bytes().all(is_token_byte) => {
                let text = text.to_owned();
                return Err(BadRequest::NoPath { text });
            }
            _ => ("GET", text),
        };
        check_method(method)?;
        check_path(method, path)?;
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// A field of the head that a user has given, from `Name: value`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Field {
    name: String,
    value: String,
}

impl Field {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether it asks for a body in chunks.
    pub(crate) fn is_chunked(&self) -> bool {
        self.is("Transfer-Encoding")
    }
}

impl FromStr for Field {
    type Err = BadRequest;

    /// What frames the body is not to be contradicted (RFC 9112, section 6).
    fn from_str(text: &str) -> Result<Self, BadRequest> {
        let (name, value) = text.split_once(':').ok_or(BadRequest::NoColon)?;
        let (name, value) = (name.to_owned(), value.trim().to_owned());
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            return Err(BadRequest::FieldName { name });
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(BadRequest::FieldValue { name });
        }
        let field = Self { name, value };
        if field.is("Content-Length") {
            return Err(BadRequest::Length);
        }
        if field.is_chunked() && !field.value.eq_ignore_ascii_case("chunked") {
            return Err(BadRequest::Coding);
        }
        Ok(field)
    }
}

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// There is none.
    NoBody,
    Length(u64),
    Chunked,
}

/// The bytes of a request without a body. `path` is sent as it is, with its query: it must begin with `/`, or be `*` with
/// OPTIONS, and what is no visible character of ASCII must be percent-encoded. `host` is what [`host_field`] gives.
pub(crate) fn request(method: &str, path: &str, host: &str) -> Result<Vec<u8>, BadRequest> {
    request_head(method, path, host, &[], Framing::NoBody)
}

/// The head of a request, after which comes its body as `framing` says. A field that a user has given stands for the one
/// that would be sent else.
pub(crate) fn request_head(
    method: &str,
    path: &str,
    host: &str,
    fields: &[Field],
    framing: Framing,
) -> Result<Vec<u8>, BadRequest> {
    check_method(method)?;
    check_path(method, path)?;
    check_host(host)?;
    if fields.iter().filter(|field| field.is("Host")).count() > 1 {
        return Err(BadRequest::TwoHosts);
    }
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    let agent = concat!("sockeye/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [("Host", host), ("User-Agent", agent), ("Accept", "*/*")] {
        if !fields.iter().any(|field| field.is(name)) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for Field { name, value } in fields.iter().filter(|field| !field.is_chunked()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match framing {
        Framing::Length(bytes) => head.push_str(&format!("Content-Length: {bytes}\r\n")),
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        // These are expected to have a body, and are to say that there is none (RFC 9110, section 8.6).
        Framing::NoBody if has_body(method) => head.push_str("Content-Length: 0\r\n"),
        Framing::NoBody => {}
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

/// Whether a request with this method is expected to have a body.
pub(crate) fn has_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

/// The value of the field `Host`: the name or address as it was typed, and the port unless it is that of the scheme, 443
/// with TLS and else 80 (RFC 9110, section 7.2). The zone of an IPv6 address means nothing to the server and is left out.
pub(crate) fn host_field(host: &str, port: u16, tls: bool) -> String {
    let host = match host.split_once('%') {
        Some((address, _)) if address.contains(':') => address,
        _ => host,
    };
    let port_of_scheme = if tls { 443 } else { 80 };
    let port = match port {
        port if port == port_of_scheme => String::new(),
        port => format!(":{port}"),
    };
    match host.contains(':') {
        true => format!("[{host}]{port}"),
        false => format!("{host}{port}"),
    }
}

fn check_method(method: &str) -> Result<(), BadRequest> {
    if method.is_empty() || !method.bytes().all(is_token_byte) {
        return Err(BadRequest::Method {
            method: method.to_owned(),
        });
    }
    if method.eq_ignore_ascii_case("CONNECT") {
        return Err(BadRequest::Tunnel);
    }
    Ok(())
}

/// More than RFC 3986 lets a path and a query have: browsers and curl send `[` or `|` as well.
fn check_path(method: &str, path: &str) -> Result<(), BadRequest> {
    let is_server = path == "*" && method == "OPTIONS";
    if !path.starts_with('/') && !is_server {
        return Err(BadRequest::NoSlash {
            path: path.to_owned(),
        });
    }
    // A fragment is not for the server (RFC 9110, section 7.1).
    let wrong = path.chars().find(|c| !c.is_ascii_graphic() || *c == '#');
    match wrong {
        None => Ok(()),
        Some(found) => {
            let bytes = found.to_string().into_bytes();
            let written = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
            Err(BadRequest::Path { found, written })
        }
    }
}

/// The characters of RFC 3986, section 3.2.2, and the colon of the port.
fn check_host(host: &str) -> Result<(), BadRequest> {
    if host.is_empty() || host.starts_with(':') {
        return Err(BadRequest::NoHost);
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=[]:".contains(c);
    match host.chars().find(|c| !known(*c)) {
        None => Ok(()),
        Some(found) => Err(BadRequest::Host {
            host: host.to_owned(),
            found,
        }),
    }
}
