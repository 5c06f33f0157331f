//! A request without a body. What a user gave for its parts cannot end a line, and so not smuggle in another.

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
}

/// The bytes of a request. `path` is sent as it is, with its query: it must begin with `/`, or be `*` with OPTIONS, and
/// what is no visible character of ASCII must be percent-encoded. `host` is what [`host_field`] gives.
pub(crate) fn request(method: &str, path: &str, host: &str) -> Result<Vec<u8>, BadRequest> {
    check_method(method)?;
    check_path(method, path)?;
    check_host(host)?;
    let agent = concat!("sockeye/", env!("CARGO_PKG_VERSION"));
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n"
    );
    // These are expected to have a body, and are to say that there is none (RFC 9110, section 8.6).
    if matches!(method, "POST" | "PUT" | "PATCH") {
        request.push_str("Content-Length: 0\r\n");
    }
    request.push_str("\r\n");
    Ok(request.into_bytes())
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
