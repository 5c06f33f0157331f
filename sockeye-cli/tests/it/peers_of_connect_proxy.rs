//! `sockeye connect --proxy`, and proxies that no one here wrote.

use std::fs;
use std::process::{Command, Output};

use crate::peers::{MEGABYTE, Process, command, noise, on_free_ports};
use crate::support::{Serving, run, sockeye, text};

const AUTH: &str = "alice:s3cret";

/// `connect` through this proxy, with these credentials.
fn connect(proxy: &str, auth: Option<&str>, arguments: &[&str], input: &[u8]) -> Output {
    let mut connect: Command = sockeye(&[&["connect", "--proxy", proxy], arguments].concat());
    match auth {
        Some(auth) => connect.env("SOCKEYE_PROXY_AUTH", auth),
        None => connect.env_remove("SOCKEYE_PROXY_AUTH"),
    };
    run(connect, input)
}

/// The proxy passes all on, by name and by address and with TLS behind it.
fn passes_all_on(proxy: &str, auth: Option<&str>) {
    let serving = Serving::start(&["-l", "127.0.0.1:0"]);
    let secure = Serving::start(&["--tls-self-signed", "localhost"]);
    let payload = noise(MEGABYTE);
    // None of them passes FIN on.
    let all = MEGABYTE.to_string();
    let all = ["--recv-bytes", &all];
    for host in ["127.0.0.1", "localhost"] {
        let output = connect(
            proxy,
            auth,
            &[&all[..], &[host, &serving.port()]].concat(),
            &payload,
        );
        assert_eq!(text(&output.stderr), "", "{proxy} {host}");
        assert_eq!(output.status.code(), Some(0), "{proxy} {host}");
        assert!(output.stdout == payload, "{proxy} {host}: other bytes came");
    }
    let tls = ["-q", "--insecure", "--tls", "localhost"];
    let output = connect(
        proxy,
        auth,
        &[&all[..], &tls, &[&secure.port()]].concat(),
        &payload,
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        output.stdout == payload,
        "{proxy}: other bytes came over TLS"
    );
}

/// Nobody listens there: the proxy says so, and in which words.
fn tells_of_a_closed_port(proxy: &str, auth: Option<&str>, words: &str) {
    let gone = Serving::start(&[]);
    let address = gone.address.clone();
    assert_eq!(gone.stop(), 0);
    let output = connect(proxy, auth, &[&address], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains(words), "{said}");
    let probe = connect(proxy, auth, &["--probe", &address], b"");
    assert_eq!(probe.status.code(), Some(1), "{}", text(&probe.stderr));
}

/// Without credentials and with false ones.
fn wants_credentials(proxy: &str) {
    for (auth, words) in [
        (None, "the proxy wants credentials"),
        (
            Some("alice:wrong"),
            "the proxy does not accept our credentials",
        ),
    ] {
        let output = connect(proxy, auth, &["127.0.0.1:9"], b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains(words), "{proxy}: {said}");
    }
}

fn microsocks(options: &[&str]) -> (Process, String) {
    let mut proxy = Process::start(command(
        &[&["microsocks", "-i", "127.0.0.1", "-p", "0"], options].concat(),
    ));
    let ports = proxy.ports(1).expect("runs");
    let address = format!("127.0.0.1:{}", ports[0]);
    (proxy, address)
}

#[test]
#[ignore = "needs microsocks"]
fn microsocks_is_gone_through() {
    let (_proxy, address) = microsocks(&[]);
    passes_all_on(&format!("socks5h://{address}"), None);
    passes_all_on(&format!("socks5://{address}"), None);
    tells_of_a_closed_port(
        &format!("socks5://{address}"),
        None,
        "the proxy refused: connection refused",
    );
}

#[test]
#[ignore = "needs microsocks"]
fn microsocks_is_told_who_we_are() {
    let (_proxy, address) = microsocks(&["-u", "alice", "-P", "s3cret"]);
    passes_all_on(&format!("socks5h://{address}"), Some(AUTH));
    wants_credentials(&format!("socks5://{address}"));
}

fn tinyproxy(lines: &str) -> (Process, String, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("conf");
    let (proxy, [port]) = on_free_ports(|[port]| {
        let conf = format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\n{lines}\n");
        fs::write(&path, conf).expect("written");
        command(&["tinyproxy", "-d", "-c", path.to_str().expect("UTF-8")])
    });
    (proxy, format!("http://127.0.0.1:{port}"), folder)
}

#[test]
#[ignore = "needs tinyproxy"]
fn tinyproxy_is_gone_through() {
    let (_proxy, url, _folder) = tinyproxy("");
    passes_all_on(&url, None);
    tells_of_a_closed_port(&url, None, "the proxy refused: 5");
    let (_proxy, url, _folder) = tinyproxy("ConnectPort 563");
    let output = connect(&url, None, &["127.0.0.1:9"], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("the proxy refused: 403"), "{said}");
    // What its rules forbid is no answer of the target.
    let probe = connect(&url, None, &["--probe", "127.0.0.1:9"], b"");
    assert_eq!(probe.status.code(), Some(7));
}

#[test]
#[ignore = "needs tinyproxy"]
fn tinyproxy_is_told_who_we_are() {
    let (_proxy, url, _folder) = tinyproxy("BasicAuth alice s3cret");
    passes_all_on(&url, Some(AUTH));
    wants_credentials(&url);
}
