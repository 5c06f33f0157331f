//! `--proxy`: which proxy to go through, who we are to it, and what its answer means.

use std::env;
use std::path::Path;

use anyhow::{Context, anyhow};
use sockeye::client::{ConnectError, Failure as Reason, HopOutcome, Proxy, Report};
use sockeye::hop::{Credentials, HopError, OpenError, Protocol};

use crate::address::parse_destination;
use crate::cli::connect::Connect;
use crate::exit::Failure;
use crate::tls_files::read_at_most;

const FORMS: &str = "write SCHEME://HOST:PORT, and for SCHEME socks5 (names are resolved here), socks5h (by the proxy), \
    socks4, socks4a or http";

/// `USER:PASSWORD`.
const VARIABLE: &str = "SOCKEYE_PROXY_AUTH";

const WHO_WE_ARE: &str = "SOCKEYE_PROXY_AUTH=USER:PASSWORD in the environment, or --proxy-auth-file FILE, says who we are";

/// The largest file with credentials: a line of it is read, and no device without end.
const MOST_BYTES: u64 = 64 * 1024;

/// What the options name, if they name one.
pub(crate) fn proxy(arguments: &Connect) -> Result<Option<Proxy>, Failure> {
    let Some(text) = &arguments.proxy else {
        return Ok(None);
    };
    let mut proxy = parse(text)?;
    proxy.credentials = credentials(arguments.proxy_auth_file.as_deref())?;
    Ok(Some(proxy))
}

/// Errors do not show the text: a password may be in it, though it must not.
fn parse(text: &str) -> Result<Proxy, Failure> {
    let wrong = |why: &str| Failure::usage(anyhow!("--proxy: {why}")).with_hint(FORMS);
    if text.contains('@') {
        let error = anyhow!("--proxy with a user in it: everybody here can read a command line");
        return Err(Failure::usage(error).with_hint(WHO_WE_ARE));
    }
    let (scheme, place) = text
        .split_once("://")
        .ok_or_else(|| wrong("the scheme is missing"))?;
    let (protocol, resolve_here) = match scheme.to_ascii_lowercase().as_str() {
        "socks5" => (Protocol::Socks5, true),
        "socks5h" => (Protocol::Socks5, false),
        "socks4" => (Protocol::Socks4, true),
        "socks4a" => (Protocol::Socks4a, false),
        "http" => (Protocol::Http, false),
        "https" => return Err(wrong("TLS to a proxy is not spoken")),
        _ => return Err(wrong(&format!("'{scheme}' is no kind of proxy"))),
    };
    let place = place.strip_suffix('/').unwrap_or(place);
    let destination = parse_destination(&[place.to_owned()])
        .map_err(|failure| wrong(&failure.error.to_string()))?;
    if destination.tls {
        return Err(wrong("TLS to a proxy is not spoken"));
    }
    let mut proxy = Proxy::new(protocol, destination.target);
    proxy.resolve_here = resolve_here;
    Ok(proxy)
}

/// From the first line of the file, or from the environment.
fn credentials(file: Option<&Path>) -> Result<Option<Credentials>, Failure> {
    let text = match file {
        Some(path) => {
            let cannot = || format!("cannot use '{}'", path.display());
            let bytes = read_at_most(path, MOST_BYTES).with_context(cannot);
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).with_context(cannot));
            let text = text.map_err(Failure::usage)?;
            let line = text.lines().next().unwrap_or_default().to_owned();
            if line.is_empty() {
                let error = anyhow!("the first line is empty").context(cannot());
                return Err(Failure::usage(error).with_hint("write USER:PASSWORD there"));
            }
            line
        }
        None => match env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) | Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                return Err(Failure::usage(anyhow!("{VARIABLE} is not UTF-8")));
            }
        },
    };
    let (user, password) = text.split_once(':').unwrap_or((&text, ""));
    Ok(Some(Credentials::new(user, password)))
}

/// Whom we are connected to: what the proxy was asked for, if there is one.
pub(crate) fn destination(report: &Report) -> Option<String> {
    report.hops.last().map(|hop| hop.destination.to_string())
}

/// Why the proxy did not connect us, if that is what has failed.
pub(crate) fn reason(error: &ConnectError) -> Option<&OpenError> {
    match (&error.failure, error.report.hops.last()?) {
        (Reason::Proxy, hop) => match &hop.outcome {
            HopOutcome::Failed(error) => Some(error),
            _ => None,
        },
        _ => None,
    }
}

/// Whether there is no sense in asking again.
pub(crate) fn is_final(error: &ConnectError) -> bool {
    match &error.failure {
        Reason::Request(_) => true,
        _ => reason(error).is_some_and(|reason| !reason.is_temporary()),
    }
}

/// Whether somebody was asked for the target, and it is known that it cannot be had.
pub(crate) fn has_asked(error: &ConnectError) -> bool {
    !error.is_of_proxy() && !is_final(error)
}

/// Whether the proxy does not connect us to this one, and may well to another.
pub(crate) fn has_refused(error: &ConnectError) -> bool {
    matches!(reason(error), Some(OpenError::Hop(HopError::Refused(_))))
}

/// What can be done about it.
pub(crate) fn hint(error: &ConnectError) -> Option<&'static str> {
    if error.is_of_proxy() {
        return Some("--proxy says where it is, --timeout how long it may take");
    }
    match reason(error)? {
        OpenError::Hop(HopError::CredentialsWanted) => Some(WHO_WE_ARE),
        OpenError::Hop(HopError::Malformed { .. }) => Some(
            "is it a proxy of this kind? --proxy takes socks5, socks5h, socks4, socks4a and http",
        ),
        _ => None,
    }
}
