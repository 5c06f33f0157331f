//! The address forms of the program, the same for every verb. Pure, but for the lookup of a name to listen on, and of the
//! name of a port.

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;

use anyhow::anyhow;
use sockeye::BindAddr;
use sockeye::client::Target;

use crate::exit::{Code, Failure};
use crate::port::{is_several, parse_port, parse_ports};

/// An address, as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    pub(crate) scheme: Option<Scheme>,
    place: Place,
}

/// What is spoken, where the address says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// `tcp://`, also before `unix:`: no TLS.
    Tcp,
    /// `tls://`, also before `unix:`.
    Tls,
}

impl Scheme {
    /// In capitals as well (RFC 3986, section 3.1).
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "tls" => Some(Self::Tls),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    /// `HOST:PORT`, `[::1]:PORT`.
    Host(String, u16),
    /// `:PORT`.
    Port(u16),
    /// `unix:PATH`.
    Unix(PathBuf),
}

const FORMS: &str =
    "write HOST:PORT, [::1]:PORT, :PORT or unix:PATH, the first three perhaps after tls://";

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong =
            |why: &str| Failure::usage(anyhow!("bad address '{text}': {why}")).with_hint(FORMS);
        let (scheme, rest) = match text.split_once("://") {
            _ if text.starts_with("unix:") => (None, text),
            Some((scheme, rest)) => {
                let known = Scheme::parse(scheme);
                let unknown = || format!("'{scheme}://' is not something this version speaks");
                (Some(known.ok_or_else(|| wrong(&unknown()))?), rest)
            }
            None => (None, text),
        };
        if let Some(path) = rest.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(wrong("the path is missing"));
            }
            let place = Place::Unix(path.into());
            return Ok(Self { scheme, place });
        }
        let Some((host, port)) = rest.rsplit_once(':') else {
            return Err(wrong("the port is missing"));
        };
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => host,
            None if rest.starts_with('[') && rest.ends_with(']') => {
                return Err(wrong("the port is missing"));
            }
            None if host.contains(':') => {
                return Err(wrong("an IPv6 address needs brackets before its port"));
            }
            None if host.contains(['[', ']']) => {
                return Err(wrong("the port is missing, or a bracket"));
            }
            None => host,
        };
        let port = parse_port(port).map_err(|why| wrong(&why.to_string()))?;
        let place = match host {
            "" if bracketed.is_none() => Place::Port(port),
            "" => return Err(wrong("the host is missing")),
            host => Place::Host(host.to_owned(), port),
        };
        Ok(Self { scheme, place })
    }

    /// Where to listen. A name gives each address that it has.
    pub(crate) fn bind_addresses(&self) -> Result<Vec<BindAddr>, Failure> {
        match &self.place {
            Place::Port(port) => Ok(vec![BindAddr::AllInterfaces { port: *port }]),
            Place::Unix(path) => Ok(vec![BindAddr::Unix(path.clone())]),
            Place::Host(host, port) => {
                let mut found: Vec<SocketAddr> = (host.as_str(), *port)
                    .to_socket_addrs()
                    .map_err(|error| {
                        let error = anyhow!(error).context(format!("cannot resolve '{host}'"));
                        Failure::new(Code::Resolve, error)
                    })?
                    .collect();
                found.sort();
                found.dedup();
                // A name may have an address, usually ::1, of a family that is switched off here. If none is ours, the
                // server says so.
                let ours = |address: &SocketAddr| TcpListener::bind((address.ip(), 0)).is_ok();
                if found.iter().any(ours) {
                    found.retain(ours);
                }
                Ok(found.into_iter().map(BindAddr::Tcp).collect())
            }
        }
    }
}

/// What to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) target: Target,
    /// Whether the address asks for TLS.
    pub(crate) tls: bool,
    /// The host as it was typed, whose name a certificate must have. A Unix socket has none.
    pub(crate) host: Option<String>,
}

/// One word with the port in it, or a host and a port.
pub(crate) fn parse_destination(words: &[String]) -> Result<Destination, Failure> {
    let (scheme, host, port) = match words {
        [address] => {
            let address = Address::parse(address).map_err(|failure| {
                failure.with_hint(
                    "write HOST PORT, HOST:PORT, [::1]:PORT, tls://HOST:PORT or unix:PATH",
                )
            })?;
            match address.place {
                Place::Unix(path) => {
                    return Ok(Destination {
                        target: Target::Unix(path),
                        tls: address.scheme == Some(Scheme::Tls),
                        host: None,
                    });
                }
                Place::Port(port) => (address.scheme, "localhost".to_owned(), port),
                Place::Host(host, port) => (address.scheme, host, port),
            }
        }
        [host, port] => {
            let why = |why| Failure::usage(anyhow!("bad port '{port}': {why}"));
            let port = parse_port(port).map_err(why)?;
            let (scheme, host) = match host.split_once("://") {
                Some((scheme, host)) if Scheme::parse(scheme).is_some() => {
                    (Scheme::parse(scheme), host)
                }
                _ => (None, host.as_str()),
            };
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host = bare.unwrap_or(host);
            let is_ip = host.parse::<IpAddr>().is_ok();
            if host.is_empty() || (!is_ip && host.contains([':', '/']) && !host.contains('%')) {
                return Err(Failure::usage(anyhow!("bad host '{host}'"))
                    .with_hint("before a PORT write just a name or an IP address"));
            }
            (scheme, host.to_owned(), port)
        }
        _ => return Err(Failure::usage(anyhow!("no address to connect to"))),
    };
    if port == 0 {
        return Err(Failure::usage(anyhow!(
            "nobody can be connected to on port 0"
        )));
    }
    Ok(Destination {
        target: Target::Host(host.clone(), port),
        tls: scheme == Some(Scheme::Tls),
        host: Some(host),
    })
}

/// As [`parse_destination`], with several ports where one would stand: the destination at the first of them, and all.
pub(crate) fn parse_destinations(words: &[String]) -> Result<(Destination, Vec<u16>), Failure> {
    let several = match words {
        [address] => address
            .rsplit_once(':')
            .filter(|_| !address.contains("unix:")),
        [host, ports] => Some((host.as_str(), ports.as_str())),
        _ => None,
    };
    let Some((before, ports)) = several.filter(|(_, ports)| is_several(ports)) else {
        let destination = parse_destination(words)?;
        let port = destination.port();
        return Ok((destination, port.into_iter().collect()));
    };
    let why = |why| Failure::usage(anyhow!("bad ports '{ports}': {why}"));
    let ports = parse_ports(ports).map_err(why)?;
    let first = ports[0].to_string();
    let first = match words {
        [_] => vec![format!("{before}:{first}")],
        _ => vec![before.to_owned(), first],
    };
    Ok((parse_destination(&first)?, ports))
}

impl Destination {
    fn port(&self) -> Option<u16> {
        match self.target {
            Target::Host(_, port) => Some(port),
            _ => None,
        }
    }
}
