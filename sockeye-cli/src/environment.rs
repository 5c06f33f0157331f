//! What a program is told of its connection: environment variables under the names of several tools, so that what was
//! written for one of them finds its own. docs/exec.md has the table. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use sockeye::Addr;

/// What is known of a connection. The texts may be the client's own choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) remote: Option<Addr>,
    pub(crate) local: Option<Addr>,
    /// The user and group of the process at the other end of a Unix socket.
    pub(crate) credentials: Option<(u32, u32)>,
    pub(crate) tls: Option<TlsFacts>,
    /// The name that the client asked for, as a trusted proxy says.
    pub(crate) authority: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFacts {
    pub(crate) version: Option<String>,
    pub(crate) cipher: Option<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) fingerprint: Option<String>,
}

/// Variables of a program.
pub(crate) type Variables = Vec<(&'static str, Option<String>)>;

/// Every variable that is ours, with its value or without: one without must not be inherited from whoever started the
/// server, for the program would take it for the client's.
pub(crate) fn variables(facts: &Facts) -> Variables {
    let mut variables = Vec::with_capacity(32);
    let (remote, local) = (tcp(&facts.remote), tcp(&facts.local));
    let is_tcp = remote.is_some();
    variables.push(("PROTO", Some(if is_tcp { "TCP" } else { "IPC" }.to_owned())));
    variables.push(("NCAT_PROTO", is_tcp.then(|| "TCP".to_owned())));
    for (address, port, end) in [
        ("TCPREMOTEIP", "TCPREMOTEPORT", remote),
        ("TCPLOCALIP", "TCPLOCALPORT", local),
        ("NCAT_REMOTE_ADDR", "NCAT_REMOTE_PORT", remote),
        ("NCAT_LOCAL_ADDR", "NCAT_LOCAL_PORT", local),
        ("REMOTE_ADDR", "REMOTE_PORT", remote),
    ] {
        variables.push((address, end.map(|end| end.ip().to_string())));
        variables.push((port, end.map(|end| end.port().to_string())));
    }
    for (address, port, end) in [
        ("SOCAT_PEERADDR", "SOCAT_PEERPORT", &facts.remote),
        ("SOCAT_SOCKADDR", "SOCAT_SOCKPORT", &facts.local),
    ] {
        variables.push((address, end.as_ref().map(of_socat)));
        let port_number = end.as_ref().and_then(Addr::port);
        variables.push((port, port_number.map(|port| port.to_string())));
    }
    // Nobody is looked up, and nobody is asked: names of that kind are not to be trusted.
    variables.extend([
        ("TCPREMOTEHOST", None),
        ("TCPLOCALHOST", None),
        ("TCPREMOTEINFO", None),
    ]);
    let (user, group) = facts.credentials.unzip();
    variables.push(("IPCREMOTEEUID", user.map(|id| id.to_string())));
    variables.push(("IPCREMOTEEGID", group.map(|id| id.to_string())));
    variables.push(("IPCREMOTEPATH", path(&facts.remote)));
    variables.push(("IPCLOCALPATH", path(&facts.local)));
    let tls = facts.tls.clone().unwrap_or_default();
    variables.extend([
        ("SSL_PROTOCOL", tls.version),
        ("SSL_CIPHER", tls.cipher),
        ("SSL_TLS_SNI_SERVERNAME", tls.server_name),
        ("SSL_CLIENT_S_DN", tls.subject),
        ("SSL_CLIENT_I_DN", tls.issuer),
        ("SSL_CLIENT_FINGERPRINT", tls.fingerprint),
        ("PROXY_AUTHORITY", facts.authority.clone()),
    ]);
    for (_, value) in &mut variables {
        *value = value.take().map(|value| stripped(&value));
    }
    variables
}

fn tcp(end: &Option<Addr>) -> Option<SocketAddr> {
    match end {
        Some(Addr::Tcp(address)) => Some(*address),
        _ => None,
    }
}

fn path(end: &Option<Addr>) -> Option<String> {
    match end {
        Some(Addr::Unix(Some(path))) => Some(path.to_string_lossy().into_owned()),
        _ => None,
    }
}

/// As socat writes an address: of IPv6 all the digits, in brackets; of a Unix socket its path, empty if it has none.
fn of_socat(end: &Addr) -> String {
    match end {
        Addr::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{}]", all_digits(ip)),
        },
        _ => path(&Some(end.clone())).unwrap_or_default(),
    }
}

fn all_digits(ip: Ipv6Addr) -> String {
    ip.segments()
        .map(|segment| format!("{segment:04x}"))
        .join(":")
}

/// Without control characters, and not longer than anything that is meant: a value of the client's choice can end up in a
/// log or on a terminal, and a NUL byte would keep the program from being started.
fn stripped(text: &str) -> String {
    let seen = text.chars().filter(|c| !c.is_control());
    seen.take(LONGEST_CHARACTERS).collect()
}

/// A name of DNS has 253 bytes at most, the path of a Unix socket 108.
const LONGEST_CHARACTERS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn value(facts: &Facts, name: &str) -> Option<String> {
        let variables = variables(facts);
        let mut found = variables.iter().filter(|(key, _)| *key == name);
        let value = found.next().unwrap_or_else(|| panic!("{name} is ours"));
        assert!(found.next().is_none(), "{name} is there once");
        value.1.clone()
    }

    fn over_tcp(remote: &str, local: &str) -> Facts {
        let address = |text: &str| Some(Addr::Tcp(text.parse().expect("an address")));
        Facts {
            remote: address(remote),
            local: address(local),
            ..Facts::default()
        }
    }

    #[test]
    fn both_ends_of_tcp_are_told_under_all_names() {
        let facts = over_tcp("192.0.2.7:50112", "192.0.2.1:443");
        for (name, expected) in [
            ("PROTO", "TCP"),
            ("TCPREMOTEIP", "192.0.2.7"),
            ("TCPREMOTEPORT", "50112"),
            ("TCPLOCALIP", "192.0.2.1"),
            ("TCPLOCALPORT", "443"),
            ("NCAT_PROTO", "TCP"),
            ("NCAT_REMOTE_ADDR", "192.0.2.7"),
            ("NCAT_LOCAL_PORT", "443"),
            ("SOCAT_PEERADDR", "192.0.2.7"),
            ("SOCAT_SOCKPORT", "443"),
            ("REMOTE_ADDR", "192.0.2.7"),
            ("REMOTE_PORT", "50112"),
        ] {
            assert_eq!(value(&facts, name).as_deref(), Some(expected), "{name}");
        }
        for name in [
            "TCPREMOTEHOST",
            "TCPREMOTEINFO",
            "IPCREMOTEEUID",
            "SSL_CIPHER",
        ] {
            assert_eq!(value(&facts, name), None, "{name}");
        }
    }

    #[test]
    fn an_ipv6_address_is_written_as_each_tool_writes_it() {
        let facts = over_tcp("[2001:db8::1]:1", "[::1]:2");
        assert_eq!(value(&facts, "TCPREMOTEIP").as_deref(), Some("2001:db8::1"));
        assert_eq!(
            value(&facts, "SOCAT_PEERADDR").as_deref(),
            Some("[2001:0db8:0000:0000:0000:0000:0000:0001]")
        );
    }

    #[test]
    fn a_unix_socket_has_paths_and_a_user_and_no_address() {
        let facts = Facts {
            remote: Some(Addr::Unix(None)),
            local: Some(Addr::Unix(Some(Path::new("/run/x.sock").into()))),
            credentials: Some((1000, 100)),
            ..Facts::default()
        };
        assert_eq!(value(&facts, "PROTO").as_deref(), Some("IPC"));
        assert_eq!(value(&facts, "IPCREMOTEEUID").as_deref(), Some("1000"));
        assert_eq!(value(&facts, "IPCREMOTEEGID").as_deref(), Some("100"));
        assert_eq!(
            value(&facts, "IPCLOCALPATH").as_deref(),
            Some("/run/x.sock")
        );
        assert_eq!(value(&facts, "SOCAT_PEERADDR").as_deref(), Some(""));
        assert_eq!(value(&facts, "TCPREMOTEIP"), None);
    }

    proptest! {
        #[test]
        fn no_control_character_reaches_a_program(hostile in any::<String>()) {
            let facts = Facts {
                remote: Some(Addr::Unix(Some(Path::new(&hostile).into()))),
                tls: Some(TlsFacts {
                    server_name: Some(hostile.clone()),
                    subject: Some(hostile.clone()),
                    ..TlsFacts::default()
                }),
                authority: Some(hostile),
                ..Facts::default()
            };
            for (name, value) in variables(&facts) {
                let value = value.unwrap_or_default();
                prop_assert!(!value.contains(char::is_control), "{}", name);
                prop_assert!(value.chars().count() <= LONGEST_CHARACTERS);
            }
        }
    }
}
