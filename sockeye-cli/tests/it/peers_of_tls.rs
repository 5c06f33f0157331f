//! TLS of `serve` and `connect`, and peers that no one here wrote: OpenSSL, GnuTLS, and what is built on them.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

use crate::authority::Authority;
use crate::peers::{
    MEGABYTE, Process, command, curl, folder_with_files, free_port, nginx_http, nginx_with, noise,
};
use crate::support::{Serving, json, line_with, run, sockeye, text};

const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// An authority with `server` for localhost and `client` for client.example.
fn authority() -> Authority {
    let authority = Authority::new();
    authority.certificate("server", &["localhost", "127.0.0.1"]);
    authority.certificate("client", &["client.example"]);
    for name in ["server", "client"] {
        let read = |kind| fs::read_to_string(authority.path(&format!("{name}.{kind}")));
        let both = read("pem").expect("read") + &read("key").expect("read");
        fs::write(authority.path(&format!("{name}-both.pem")), both).expect("written");
    }
    for version in VERSIONS {
        let configuration = format!(
            "openssl_conf = all\n[all]\nssl_conf = kinds\n[kinds]\nsystem_default = versions\n\
             [versions]\nMinProtocol = TLSv{version}\nMaxProtocol = TLSv{version}\n"
        );
        fs::write(authority.path(version), configuration).expect("written");
    }
    authority
}

/// An echo over TLS that tells what happens.
fn serve(authority: &Authority, arguments: &[&str]) -> Serving {
    let both = authority.path("server-both.pem");
    Serving::start(&[&["--tls-cert", &both, "--json"], arguments].concat())
}

fn event(serving: &Serving, name: &str) -> Value {
    json(&line_with(
        &serving.stdout,
        &format!("\"event\":\"{name}\""),
    ))
}

/// A peer by its command line, in which `PORT`, `VERSION` and `FOLDER` are filled in. What is built on OpenSSL and has no
/// option for the version takes it from a file.
fn peer(line: &str, authority: &Authority, port: &str, version: &str) -> Command {
    let folder = authority.folder().display().to_string();
    let underscored = format!("tls{}", version.replace('.', "_"));
    let line = line
        .replace("PORT", port)
        .replace("tls_VERSION", &underscored)
        .replace("VERSION", version)
        .replace("FOLDER", &folder);
    let mut command = command(&line.split_whitespace().collect::<Vec<_>>());
    command.env("OPENSSL_CONF", authority.path(version));
    command
}

const OPENSSL_CLIENT: &str = "openssl s_client -connect localhost:PORT -tls_VERSION -CAfile FOLDER/ca.pem \
     -verify_return_error -verify_hostname localhost -servername localhost -quiet -no_ign_eof";
const OPENSSL_CERTIFICATE: &str = " -cert FOLDER/client.pem -key FOLDER/client.key";

const GNUTLS_CLIENT: &str = "gnutls-cli -p PORT --priority NORMAL:-VERS-ALL:+VERS-TLSVERSION \
     --x509cafile FOLDER/ca.pem --logfile FOLDER/log localhost";
const GNUTLS_CERTIFICATE: &str =
    " --x509certfile FOLDER/client.pem --x509keyfile FOLDER/client.key";

const NCAT_CLIENT: &str = "ncat --ssl --ssl-verify --ssl-trustfile FOLDER/ca.pem localhost PORT";
const NCAT_CERTIFICATE: &str = " --ssl-cert FOLDER/client.pem --ssl-key FOLDER/client.key";

const SOCAT_CLIENT: &str = "socat -t 30 - OPENSSL:localhost:PORT,cafile=FOLDER/ca.pem,\
     openssl-min-proto-version=TLSVERSION,openssl-max-proto-version=TLSVERSION";
const SOCAT_CERTIFICATE: &str = ",cert=FOLDER/client-both.pem";

/// With each version a client gets a megabyte back, ends by itself, and is closed for this reason.
fn is_served_over_each_version(line: &str, reason: &str) {
    let authority = authority();
    let serving = serve(&authority, &[]);
    let payload = noise(MEGABYTE);
    for version in VERSIONS {
        let mut client = Process::start(peer(line, &authority, &serving.port(), version));
        client.feed(&payload);
        assert!(client.take(MEGABYTE) == payload, "{version}: {line}");
        client.end_input();
        assert_eq!(client.end(), b"", "{version}: {line}");
        let tls = &event(&serving, "handshake")["tls"];
        assert_eq!(tls["version"], format!("TLSv{version}"), "{line}");
        assert_eq!(tls["server_name"], "localhost", "{line}");
        assert_eq!(tls["certificates"], json("[]"), "{line}");
        assert_eq!(tls["resumed"], false, "{line}");
        let close = event(&serving, "close");
        assert_eq!(close["reason"], reason, "{line}: {close}");
        assert_eq!(close["bytes_in"], MEGABYTE, "{line}: {close}");
        assert_eq!(close["bytes_out"], MEGABYTE, "{line}: {close}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs openssl"]
fn openssl_s_client_gets_its_echo_and_says_goodbye() {
    is_served_over_each_version(OPENSSL_CLIENT, "peer_closed");
}

#[test]
#[ignore = "needs gnutls-bin"]
fn gnutls_cli_gets_its_echo_and_says_goodbye() {
    is_served_over_each_version(GNUTLS_CLIENT, "peer_closed");
}

#[test]
#[ignore = "needs socat"]
fn socat_gets_its_echo_over_tls_and_says_goodbye() {
    is_served_over_each_version(SOCAT_CLIENT, "peer_closed");
}

/// With each version, when its input ends at once: all comes back all the same.
fn is_served_after_its_end(line: &str, reason: &str) {
    let authority = authority();
    let serving = serve(&authority, &[]);
    let payload = noise(MEGABYTE);
    for version in VERSIONS {
        let client = peer(line, &authority, &serving.port(), version);
        let output = run(client, &payload);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(output.stdout == payload, "{version}: {line}");
        let tls = &event(&serving, "handshake")["tls"];
        assert_eq!(tls["version"], format!("TLSv{version}"), "{line}");
        let close = event(&serving, "close");
        assert_eq!(close["reason"], reason, "{line}: {close}");
        assert_eq!(close["bytes_out"], MEGABYTE, "{line}: {close}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs ncat"]
fn ncat_gets_its_echo_over_tls_though_it_ends_without_goodbye() {
    // At the end of its input it sends FIN, and no close_notify before it. Until then it may keep the last bytes that it
    // got to itself, so nobody can wait for them.
    is_served_after_its_end(NCAT_CLIENT, "truncated");
}

#[test]
#[ignore = "needs socat"]
fn socat_that_half_closes_at_once_still_gets_all_of_its_echo() {
    is_served_after_its_end(SOCAT_CLIENT, "peer_closed");
}

#[test]
#[ignore = "needs curl"]
fn curl_gets_its_request_back_and_the_end_of_the_stream_when_we_close() {
    let authority = authority();
    let serving = serve(&authority, &["--idle-timeout", "1s"]);
    let ca = authority.path("ca.pem");
    let address = format!("localhost:{}", serving.port());
    for version in VERSIONS {
        let only = format!("--tlsv{version}");
        let options = ["--http0.9", "--cacert", &ca, &only, "--tls-max", version];
        let output = run(curl(&options, "https", &address, "hello"), b"");
        assert_eq!(text(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        let request = text(&output.stdout);
        assert!(request.starts_with("GET /hello HTTP/1.1\r\n"), "{request}");
        let tls = &event(&serving, "handshake")["tls"];
        assert_eq!(tls["version"], format!("TLSv{version}"));
        assert_eq!(event(&serving, "close")["reason"], "idle");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs curl"]
fn curl_that_does_not_know_our_authority_says_so_to_both() {
    let authority = authority();
    let serving = serve(&authority, &[]);
    let stranger = Authority::new();
    let other = stranger.path("ca.pem");
    let address = format!("localhost:{}", serving.port());
    let output = run(curl(&["--cacert", &other], "https", &address, ""), b"");
    assert_eq!(output.status.code(), Some(60));
    let close = event(&serving, "close");
    assert_eq!(close["reason"], "tls_handshake", "{close}");
    let error = close["error"].as_str().expect("told");
    assert!(error.contains("the peer refused"), "{error}");
    assert_eq!(serving.stop(), 0);
}

/// A client in Python that has `s`, over TLS, and may read and write.
const PYTHON_CLIENT: &str = r#"
import asyncio, hashlib, os, socket, ssl, sys
port, version, folder, how = sys.argv[1:]
context = ssl.create_default_context(cafile=folder + "/ca.pem")
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
data = sys.stdin.buffer.read()

async def with_streams():
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(data)
    got = await reader.readexactly(len(data))
    writer.close()
    await writer.wait_closed()
    return got

def with_a_socket():
    s = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname="localhost")
    s.settimeout(30)
    got = b""
    for at in range(0, len(data), 16384):
        s.sendall(data[at:at + 16384])
        while len(got) < min(at + 16384, len(data)):
            got += s.recv(65536)
    if how == "unwrap":
        # Sends close_notify and waits for ours.
        s.unwrap()
    s.close()
    return got

sys.stdout.buffer.write(asyncio.run(with_streams()) if how == "streams" else with_a_socket())
"#;

#[test]
#[ignore = "needs python3"]
fn python_gets_its_echo_and_its_end_is_told_as_it_was() {
    let authority = authority();
    let serving = serve(&authority, &[]);
    let folder = authority.folder().display().to_string();
    let payload = noise(MEGABYTE);
    for (how, reason) in [
        ("unwrap", "peer_closed"),
        ("streams", "peer_closed"),
        // A socket that is just closed sends FIN, and no close_notify before it.
        ("close", "truncated"),
    ] {
        for version in VERSIONS {
            let port = serving.port();
            let line = ["python3", "-c", PYTHON_CLIENT, &port, version, &folder, how];
            let output = run(command(&line), &payload);
            assert_eq!(text(&output.stderr), "", "{how}");
            assert!(output.stdout == payload, "{how}");
            let tls = &event(&serving, "handshake")["tls"];
            assert_eq!(tls["version"], format!("TLSv{version}"), "{how}");
            let close = event(&serving, "close");
            assert_eq!(close["reason"], reason, "{how}: {close}");
        }
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs python3"]
fn python_sees_a_clean_end_however_we_come_to_ours() {
    // It takes an end without close_notify for an error here, which it does not by default.
    let client = r#"
import socket, ssl, sys
port, version, folder = sys.argv[1:]
context = ssl.create_default_context(cafile=folder + "/ca.pem")
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
s = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname="localhost",
                        suppress_ragged_eofs=False)
s.settimeout(30)
got = b""
while data := s.recv(65536):
    got += data
print(len(got))
"#;
    let authority = authority();
    let folder = authority.folder().display().to_string();
    for (service, reason, bytes) in [
        (&["daytime"][..], "finished", "31\n"),
        (&["echo", "--idle-timeout", "100ms"], "idle", "0\n"),
        (&["echo", "--max-lifetime", "100ms"], "lifetime", "0\n"),
    ] {
        let serving = serve(&authority, service);
        for version in VERSIONS {
            let line = ["python3", "-c", client, &serving.port(), version, &folder];
            let output = run(command(&line), b"");
            assert_eq!(text(&output.stderr), "", "{service:?}");
            assert_eq!(text(&output.stdout), bytes, "{service:?}");
            assert_eq!(event(&serving, "close")["reason"], reason);
        }
        assert_eq!(serving.stop(), 0);
    }
}

/// With its certificate a client is served and known by it; without it, or with another authority's, it is refused.
fn shows_its_certificate(line: &str, certificate: &str) {
    let authority = authority();
    let ca = authority.path("ca.pem");
    let serving = serve(&authority, &["--tls-client-ca", &ca]);
    let stranger = Authority::new();
    let other_serving = serve(&authority, &["--tls-client-ca", &stranger.path("ca.pem")]);
    let with_certificate = format!("{line}{certificate}").replace(
        " localhost PORT --ssl-cert FOLDER/client.pem --ssl-key FOLDER/client.key",
        " --ssl-cert FOLDER/client.pem --ssl-key FOLDER/client.key localhost PORT",
    );
    for version in VERSIONS {
        let port = serving.port();
        let mut client = Process::start(peer(&with_certificate, &authority, &port, version));
        client.feed(b"hello\n");
        assert_eq!(text(&client.take(6)), "hello\n", "{line}");
        client.end_input();
        client.end();
        let tls = &event(&serving, "handshake")["tls"];
        assert_eq!(tls["version"], format!("TLSv{version}"), "{line}");
        let names = &tls["certificates"][0]["names"];
        assert_eq!(names, &json("[\"client.example\"]"), "{line}");
        event(&serving, "close");
        for (serving, line, why) in [
            (&serving, line, "shows no certificate"),
            (&other_serving, &with_certificate, "signed by nobody"),
        ] {
            // In TLS 1.3 a client may take the handshake for done; its echo does not come.
            let client = peer(line, &authority, &serving.port(), version);
            assert_eq!(text(&run(client, b"hello\n").stdout), "", "{line}");
            let close = event(serving, "close");
            assert_eq!(close["reason"], "tls_handshake", "{line}: {close}");
            let error = close["error"].as_str().expect("told");
            assert!(error.contains(why), "{line}: no '{why}' in: {error}");
        }
    }
    assert_eq!(serving.stop(), 0);
    assert_eq!(other_serving.stop(), 0);
}

#[test]
#[ignore = "needs openssl"]
fn openssl_s_client_is_known_by_its_certificate() {
    shows_its_certificate(OPENSSL_CLIENT, OPENSSL_CERTIFICATE);
}

#[test]
#[ignore = "needs gnutls-bin"]
fn gnutls_cli_is_known_by_its_certificate() {
    shows_its_certificate(GNUTLS_CLIENT, GNUTLS_CERTIFICATE);
}

#[test]
#[ignore = "needs ncat"]
fn ncat_is_known_by_its_certificate() {
    shows_its_certificate(NCAT_CLIENT, NCAT_CERTIFICATE);
}

#[test]
#[ignore = "needs socat"]
fn socat_is_known_by_its_certificate() {
    shows_its_certificate(SOCAT_CLIENT, SOCAT_CERTIFICATE);
}

#[test]
#[ignore = "needs openssl"]
fn a_revoked_certificate_of_openssl_s_client_is_refused() {
    let authority = authority();
    authority.revoked("gone", &["gone.example"]);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let serving = serve(
        &authority,
        &["--tls-client-ca", &ca, "--tls-client-crl", &crl],
    );
    let gone = format!("{OPENSSL_CLIENT}{OPENSSL_CERTIFICATE}").replace("/client.", "/gone.");
    for version in VERSIONS {
        let client = peer(&gone, &authority, &serving.port(), version);
        assert_eq!(text(&run(client, b"hello\n").stdout), "");
        let close = event(&serving, "close");
        let error = close["error"].as_str().expect("told");
        assert!(error.contains("revoked"), "{error}");
    }
    assert_eq!(serving.stop(), 0);
}

/// What `s_client` tells of a handshake when it is not quiet: it hears nothing, says nothing and ends.
fn told_by_s_client(serving: &Serving, options: &str) -> (bool, String) {
    let port = serving.port();
    let line = format!("openssl s_client -connect localhost:{port} {options}");
    let output = run(command(&line.split_whitespace().collect::<Vec<_>>()), b"");
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.success(), said)
}

#[test]
#[ignore = "needs openssl"]
fn openssl_s_client_gets_the_certificate_of_its_name_and_the_preferred_protocol() {
    let authority = authority();
    authority.certificate("other", &["other.example"]);
    let (other, key) = (authority.path("other.pem"), authority.path("other.key"));
    let server = authority.path("server-both.pem");
    fs::write(
        authority.path("other-both.pem"),
        fs::read_to_string(&other).expect("read") + &fs::read_to_string(&key).expect("read"),
    )
    .expect("written");
    let serving = serve(
        &authority,
        &[
            "--tls-cert",
            &authority.path("other-both.pem"),
            "--alpn",
            "h2,echo",
        ],
    );
    let ca = authority.path("ca.pem");
    for (name, shown) in [
        ("localhost", &server),
        ("other.example", &other),
        ("unknown.example", &server),
    ] {
        let options = format!("-CAfile {ca} -showcerts -servername {name} -alpn smtp,echo,h2");
        let (good, said) = told_by_s_client(&serving, &options);
        assert!(good, "{said}");
        let pem = fs::read_to_string(shown).expect("read").replace('\r', "");
        let (certificate, _) = pem.split_once("-----END").expect("PEM");
        assert!(said.contains(certificate.trim()), "{name}: {said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        let tls = &event(&serving, "handshake")["tls"];
        assert_eq!(
            (&tls["server_name"], &tls["alpn"]),
            (&Value::from(name), &json("\"h2\""))
        );
    }
    let (good, said) = told_by_s_client(&serving, "-alpn smtp");
    assert!(!good && said.contains("no application protocol"), "{said}");
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs openssl"]
fn versions_that_are_too_low_are_refused_to_openssl_s_client() {
    let authority = authority();
    // OpenSSL itself speaks the old versions only without its minimum of security.
    let old = ["-tls1", "-tls1_1"].map(|version| format!("{version} -cipher ALL:@SECLEVEL=0"));
    let serving = serve(&authority, &[]);
    for options in &old {
        let (good, said) = told_by_s_client(&serving, options);
        assert!(!good && said.contains("alert "), "{options}: {said}");
        let close = event(&serving, "close");
        let error = close["error"].as_str().expect("told");
        assert!(error.contains("no version of TLS in common"), "{error}");
    }
    assert!(told_by_s_client(&serving, "-tls1_2").0);
    assert_eq!(serving.stop(), 0);
    let serving = serve(&authority, &["--tls-min", "1.3"]);
    let (good, said) = told_by_s_client(&serving, "-tls1_2");
    assert!(!good && said.contains("alert protocol version"), "{said}");
    assert!(told_by_s_client(&serving, "-tls1_3").0);
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs openssl"]
fn openssl_s_client_goes_on_with_its_session() {
    let authority = authority();
    let serving = serve(&authority, &[]);
    for version in VERSIONS {
        for (options, resumed) in [("-sess_out", false), ("-sess_in", true)] {
            let line = OPENSSL_CLIENT.replace("-quiet", "");
            let line = format!("{line} {options} FOLDER/session");
            let mut client = Process::start(peer(&line, &authority, &serving.port(), version));
            // The tickets come before the echo does.
            client.feed(b"hello\n");
            let mut said = String::new();
            while !said.contains("\nhello\n") {
                said += &text(&client.take(1));
            }
            client.end_input();
            client.end();
            assert_eq!(said.contains("\nReused, TLS"), resumed, "{said}");
            let tls = &event(&serving, "handshake")["tls"];
            assert_eq!(tls["resumed"], resumed, "{version}: {tls}");
            assert_eq!(tls["version"], format!("TLSv{version}"));
        }
    }
    assert_eq!(serving.stop(), 0);
}

/// The secrets of a key log, without the remarks that some begin it with, which OpenSSL writes in capitals.
fn secrets(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).expect("written");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut lines: Vec<String> = lines.map(str::to_lowercase).collect();
    lines.sort();
    assert!(!lines.is_empty(), "{path} is empty");
    lines
}

#[test]
#[ignore = "needs openssl"]
fn both_ends_with_openssl_write_the_same_secrets() {
    let authority = authority();
    let (ours, theirs) = (authority.path("ours"), authority.path("theirs"));
    for version in VERSIONS {
        let serving = serve(&authority, &["--keylog", &ours]);
        let line = format!("{OPENSSL_CLIENT} -keylogfile FOLDER/theirs");
        let mut client = Process::start(peer(&line, &authority, &serving.port(), version));
        client.feed(b"hello\n");
        client.take(6);
        client.end_input();
        client.end();
        event(&serving, "close");
        assert_eq!(secrets(&ours), secrets(&theirs), "serve, {version}");
        assert_eq!(serving.stop(), 0);
        fs::remove_file(&ours).expect("removed");
        fs::remove_file(&theirs).expect("removed");

        let line = format!("{OPENSSL_SERVER} -www -keylogfile FOLDER/theirs");
        let (_server, port) = listening(&line, &authority, version);
        let output = get(&authority, &port, &["--keylog", &ours]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(secrets(&ours), secrets(&theirs), "connect, {version}");
        fs::remove_file(&ours).expect("removed");
        fs::remove_file(&theirs).expect("removed");
    }
}

#[test]
#[ignore = "needs openssl"]
fn fingerprints_are_those_of_openssl() {
    let authority = authority();
    let serving = serve(&authority, &[]);
    let certificate = event(&serving, "certificate");
    let of_server = fingerprint(&authority.path("server.pem"));
    assert_eq!(certificate["fingerprint"], of_server);
    let address = format!("tls://localhost:{}", serving.port());
    let talk = |pin: &str| {
        let say = ["--send", "hello", "--recv-bytes", "5", &address];
        let output = run(
            sockeye(&[&["connect", "--pin", pin], &say[..]].concat()),
            b"",
        );
        output.status.code()
    };
    let pin = |pem: &str| format!("sha256:{}", fingerprint_as_told(&authority.path(pem)));
    assert_eq!(talk(&pin("server.pem")), Some(0));
    assert_eq!(talk(&pin("ca.pem")), Some(60));
    assert_eq!(serving.stop(), 0);
}

const OPENSSL_SERVER: &str = "openssl s_server -accept 127.0.0.1:0 -tls_VERSION \
     -cert FOLDER/server.pem -key FOLDER/server.key";

const GNUTLS_SERVER: &str = "gnutls-serv --echo -p 0 --priority NORMAL:-VERS-ALL:+VERS-TLSVERSION \
     --x509certfile FOLDER/server.pem --x509keyfile FOLDER/server.key --x509cafile FOLDER/ca.pem";

const NCAT_SERVER: &str = "ncat -v --ssl --ssl-cert FOLDER/server.pem --ssl-key FOLDER/server.key \
     -l 127.0.0.1 0";

const SOCAT_SERVER: &str = "socat -t 30 - OPENSSL-LISTEN:0,bind=127.0.0.1,cert=FOLDER/server-both.pem,\
     openssl-min-proto-version=TLSVERSION,openssl-max-proto-version=TLSVERSION,";

/// A server that listens, and its port.
fn listening(line: &str, authority: &Authority, version: &str) -> (Process, String) {
    let mut server = Process::start(peer(line, authority, "", version));
    // That of GnuTLS has another one for IPv6, and maybe has it first.
    let number = if line == GNUTLS_SERVER { 2 } else { 1 };
    let ports = server.ports(number).expect("listens");
    (server, ports[0].clone())
}

fn connect_command(authority: &Authority, port: &str, options: &[&str]) -> Command {
    let (ca, address) = (authority.path("ca.pem"), format!("tls://localhost:{port}"));
    let all = ["connect", "-4", "--ca", &ca, "--explain", "--json"];
    sockeye(&[&all[..], options, &[&address]].concat())
}

/// Asks a server of HTTP for a page; the account is on stderr.
fn get(authority: &Authority, port: &str, options: &[&str]) -> Output {
    let request = ["--send", "GET / HTTP/1.0\\r\\n\\r\\n"];
    let options = [&request[..], options].concat();
    run(connect_command(authority, port, &options), b"")
}

/// A megabyte in each direction, with each version; then our input ends, which the server is told, and it ends.
fn serves_over_each_version(line: &str, ending: &str) {
    let authority = authority();
    let mut payload = noise(MEGABYTE);
    for version in VERSIONS {
        let (mut server, port) = listening(line, &authority, version);
        let mut client = Process::start(connect_command(&authority, &port, &["--on-eof", "fin"]));
        server.feed(&payload);
        assert!(client.take(MEGABYTE) == payload, "{version}: {line}");
        payload.reverse();
        client.feed(&payload);
        assert!(server.take(MEGABYTE) == payload, "{version}: {line}");
        client.end_input();
        server.end_input();
        let (code, rest) = client.wait();
        let account = json(&client.stderr.iter().collect::<String>());
        assert_eq!(account["ending"], ending, "{line}: {account}");
        let expected = if ending == "truncated" { 56 } else { 0 };
        assert_eq!((code, rest), (Some(expected), vec![]), "{line}: {account}");
        let tls = &account["tls"];
        assert_eq!(tls["version"], format!("TLSv{version}"), "{line}");
        assert_eq!(tls["resumed"], false, "{line}");
        let tickets = if version == "1.3" { 2 } else { 0 };
        assert_eq!(tls["tickets"], tickets, "{line}");
        server.wait();
    }
}

#[test]
#[ignore = "needs openssl"]
fn openssl_s_server_hears_and_tells_all_and_says_goodbye() {
    serves_over_each_version(
        &format!("{OPENSSL_SERVER} -quiet -naccept 1"),
        "peer_closed",
    );
}

#[test]
#[ignore = "needs socat"]
fn socat_as_a_server_over_tls_hears_and_tells_all_and_says_goodbye() {
    serves_over_each_version(&format!("{SOCAT_SERVER}verify=0"), "peer_closed");
}

#[test]
#[ignore = "needs ncat"]
fn ncat_as_a_server_over_tls_hears_and_tells_all() {
    let authority = authority();
    let mut payload = noise(MEGABYTE);
    for version in VERSIONS {
        let (mut server, port) = listening(NCAT_SERVER, &authority, version);
        let mut client = Process::start(connect_command(&authority, &port, &["--on-eof", "fin"]));
        server.feed(&payload);
        assert!(client.take(MEGABYTE) == payload, "{version}");
        payload.reverse();
        client.feed(&payload);
        client.end_input();
        let (code, rest) = client.wait();
        let account = json(&client.stderr.iter().collect::<String>());
        assert_eq!((code, rest), (Some(0), vec![]), "{account}");
        assert_eq!(account["ending"], "peer_closed", "{account}");
        // It may keep the last bytes that it got to itself until its own end.
        server.end_input();
        assert!(server.wait().1 == payload, "{version}");
    }
}

#[test]
#[ignore = "needs ncat"]
fn ncat_as_a_server_that_ends_first_says_no_goodbye() {
    let authority = authority();
    let payload = noise(MEGABYTE);
    for version in VERSIONS {
        for (lax, code, ending) in [
            (&[][..], 56, "truncated"),
            (&["--tls-eof", "lax"], 0, "peer_closed"),
        ] {
            let (mut server, port) = listening(NCAT_SERVER, &authority, version);
            let mut client = Process::start(connect_command(&authority, &port, lax));
            server.feed(&payload);
            server.end_input();
            let (ended, received) = client.wait();
            let account = json(&client.stderr.iter().collect::<String>());
            assert_eq!(ended, Some(code), "{account}");
            assert_eq!(account["ending"], ending, "{account}");
            assert!(received == payload, "{version}: what came is delivered");
        }
    }
}

#[test]
#[ignore = "needs gnutls-bin"]
fn gnutls_serv_gives_a_line_back() {
    // Its echo is for lines: what it got in one read, up to the first NUL.
    let authority = authority();
    for version in VERSIONS {
        let (_server, port) = listening(GNUTLS_SERVER, &authority, version);
        for on_eof in ["fin", "keep"] {
            let say = [
                "--send",
                "hello\\n",
                "--on-eof",
                on_eof,
                "--recv-bytes",
                "6",
            ];
            let output = run(connect_command(&authority, &port, &say), b"");
            let account = json(&text(&output.stderr));
            assert_eq!(output.status.code(), Some(0), "{account}");
            assert_eq!(text(&output.stdout), "hello\n");
            assert_eq!(account["tls"]["version"], format!("TLSv{version}"));
        }
    }
}

/// Python servers, which have `s`, over TLS, and end it in each way.
const PYTHON_SERVER: &str = r#"
import socket, ssl, sys
folder, version, how = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
context.load_cert_chain(folder + "/server-both.pem")
listener = socket.create_server(("127.0.0.1", 0))
s = context.wrap_socket(listener.accept()[0], server_side=True)
s.settimeout(30)
assert s.recv(5) == b"hello"
s.sendall(bytes(range(250)) * 4000)
if how == "unwrap":
    try:
        s.unwrap()
    except OSError:
        # The client has closed instead of an answer.
        pass
s.close()
"#;

#[test]
#[ignore = "needs python3"]
fn a_python_server_that_ends_without_goodbye_is_truncated_unless_we_are_lax() {
    let authority = authority();
    let folder = authority.folder().display().to_string();
    let expected: Vec<u8> = (0..250).cycle().take(1_000_000).collect();
    for version in VERSIONS {
        for (how, options, code, ending) in [
            ("unwrap", &[][..], 0, "peer_closed"),
            ("close", &[], 56, "truncated"),
            ("close", &["--tls-eof", "lax"], 0, "peer_closed"),
        ] {
            let line = ["python3", "-c", PYTHON_SERVER, &folder, version, how];
            let mut server = Process::start(command(&line));
            let port = server.ports(1).expect("listens").remove(0);
            let options = [&["--send", "hello"], options].concat();
            let output = run(connect_command(&authority, &port, &options), b"");
            let account = json(&text(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "{how}: {account}");
            assert_eq!(account["ending"], ending, "{how}: {account}");
            assert_eq!(account["closed_first"], "peer", "{how}: {account}");
            assert!(output.stdout == expected, "{how}: what came is delivered");
            server.end();
        }
    }
}

#[test]
#[ignore = "needs openssl and socat"]
fn servers_that_want_a_certificate_get_ours() {
    let authority = authority();
    let (cert, key) = (authority.path("client.pem"), authority.path("client.key"));
    let stranger = Authority::new();
    stranger.certificate("client", &["client.example"]);
    let other = (stranger.path("client.pem"), stranger.path("client.key"));
    let openssl =
        format!("{OPENSSL_SERVER} -www -Verify 1 -verify_return_error -CAfile FOLDER/ca.pem");
    for version in VERSIONS {
        let (_server, port) = listening(&openssl, &authority, version);
        let output = get(&authority, &port, &["--cert", &cert, "--key", &key]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let page = text(&output.stdout);
        assert!(page.contains("Client certificate"), "{page}");
        for (options, why) in [
            (vec![], "it wants a certificate of ours"),
            (
                vec!["--cert", other.0.as_str(), "--key", &other.1],
                "it does not take our certificate",
            ),
        ] {
            let output = get(&authority, &port, &options);
            let account = json(&text(&output.stderr));
            assert_eq!(output.status.code(), Some(35), "{account}");
            assert_eq!(text(&output.stdout), "");
            let error = account["error"].as_str().expect("told");
            // In TLS 1.2 OpenSSL has only one alert for both.
            let either = version == "1.2" && error.contains("nothing that we offer suits it");
            assert!(error.contains(why) || either, "no '{why}' in: {error}");
        }
        let socat = format!("{SOCAT_SERVER}verify=1,cafile=FOLDER/ca.pem");
        let (server, port) = listening(&socat, &authority, version);
        let options = [
            "--send", "hello", "--on-eof", "exit", "--cert", &cert, "--key", &key,
        ];
        let output = run(connect_command(&authority, &port, &options), b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&server.end()), "hello");
    }
}

#[test]
#[ignore = "needs openssl"]
fn an_openssl_s_server_that_is_not_to_be_trusted_is_exit_code_60_with_the_reason() {
    let authority = authority();
    let names = ["localhost"];
    authority.certificate("other", &["other.example"]);
    authority.valid_for("expired", &names, -30, -1);
    authority.valid_for("early", &names, 1, 30);
    authority.revoked("revoked", &names);
    self_signed(&authority, "own", "FALSE");
    self_signed(&authority, "ca-as-own", "TRUE");
    let stranger = Authority::new();
    stranger.certificate("server", &names);
    for kind in ["pem", "key"] {
        let (from, to) = (format!("server.{kind}"), format!("strange.{kind}"));
        fs::copy(stranger.path(&from), authority.path(&to)).expect("copied");
    }
    let crl = authority.path("crl.pem");
    for (certificate, options, why) in [
        ("expired", &[][..], "it expired on "),
        ("early", &[], "it is not valid before "),
        ("other", &[], "it is for other.example, not for localhost"),
        ("own", &[], "signed by nobody who is trusted here"),
        (
            "ca-as-own",
            &[],
            "marked as the certificate of an authority",
        ),
        ("strange", &[], "signed by nobody who is trusted here"),
        ("revoked", &["--crl", &crl], "was revoked by its authority"),
    ] {
        for version in VERSIONS {
            let server = OPENSSL_SERVER.replace("/server.", &format!("/{certificate}."));
            let (_server, port) = listening(&format!("{server} -www"), &authority, version);
            let output = get(&authority, &port, options);
            let account = json(&text(&output.stderr));
            assert_eq!(output.status.code(), Some(60), "{certificate}: {account}");
            assert_eq!(text(&output.stdout), "");
            assert_eq!(account["ending"], "not_secured");
            let error = account["error"].as_str().expect("told");
            assert!(error.contains(why), "no '{why}' in: {error}");
            let rejected = &account["rejected_certificates"][0]["fingerprint"];
            let pem = authority.path(&format!("{certificate}.pem"));
            assert_eq!(rejected, &fingerprint(&pem), "{certificate}");
            // Its pin makes up for all of that, where nobody asks for more.
            let (pin, address) = (
                rejected.as_str().expect("text"),
                format!("tls://localhost:{port}"),
            );
            let say = ["--send", "GET / HTTP/1.0\\r\\n\\r\\n", &address];
            let output = run(
                sockeye(&[&["connect", "-4", "--pin", pin], &say[..]].concat()),
                b"",
            );
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
    }
    // The list takes nothing from the certificate that is not on it.
    let (_server, port) = listening(&format!("{OPENSSL_SERVER} -www"), &authority, "1.3");
    let output = get(&authority, &port, &["--crl", &crl]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// Makes a certificate for localhost that has signed itself, by OpenSSL.
fn self_signed(authority: &Authority, name: &str, is_authority: &str) {
    let [configuration, pem, key] =
        ["cnf", "pem", "key"].map(|kind| authority.path(&format!("{name}.{kind}")));
    let extensions = format!(
        "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\n\
         subjectAltName = DNS:localhost\nbasicConstraints = CA:{is_authority}\n"
    );
    fs::write(&configuration, extensions).expect("written");
    let line = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -config {configuration} \
         -keyout {key} -out {pem}"
    );
    let made = run(command(&line.split_whitespace().collect::<Vec<_>>()), b"");
    assert!(made.status.success(), "{}", text(&made.stderr));
}

/// Of a certificate in a file, by OpenSSL, as we write it.
fn fingerprint(pem: &str) -> String {
    let told = fingerprint_as_told(pem);
    format!("sha256:{}", told.replace(':', "").to_lowercase())
}

/// As OpenSSL writes it: `AB:CD:...`.
fn fingerprint_as_told(pem: &str) -> String {
    let line = format!("openssl x509 -noout -fingerprint -sha256 -in {pem}");
    let told = run(command(&line.split(' ').collect::<Vec<_>>()), b"").stdout;
    let told = text(&told);
    let (_, fingerprint) = told.trim().rsplit_once('=').expect("a fingerprint");
    fingerprint.to_owned()
}

#[test]
#[ignore = "needs openssl"]
fn explain_tells_what_openssl_s_server_agreed_to() {
    let authority = authority();
    for (options, version, tickets) in [
        ("-num_tickets 0", "1.3", 0),
        ("-num_tickets 4", "1.3", 4),
        // In TLS 1.2 the ticket is part of the handshake, and is not counted.
        ("", "1.2", 0),
    ] {
        let line = format!("{OPENSSL_SERVER} -www -alpn h2,http/1.0 {options}");
        let (_server, port) = listening(&line, &authority, version);
        let output = get(&authority, &port, &["--alpn", "http/1.0,h2"]);
        let page = text(&output.stdout);
        let account = json(&text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{account}");
        let tls = &account["tls"];
        assert_eq!(tls["tickets"], tickets, "{options}: {account}");
        assert_eq!(tls["resumed"], false, "{account}");
        assert_eq!(tls["alpn"], "h2", "the server prefers it: {account}");
        // The page has OpenSSL's words for the session, and its name for the cipher in TLS 1.3 is the registry's.
        let cipher = tls["cipher"].as_str().expect("text");
        assert!(
            version == "1.2" || page.contains(cipher),
            "{cipher}: {page}"
        );
        let protocol = format!("    Protocol  : TLSv{version}");
        assert!(page.contains(&protocol), "{page}");
        let group = tls["group"].as_str().expect("text");
        assert_eq!(group, "X25519", "{account}");
    }
    // Nothing in common is an alert of the server's.
    let line = format!("{OPENSSL_SERVER} -www -alpn h2");
    let (_server, port) = listening(&line, &authority, "1.3");
    let output = get(&authority, &port, &["--alpn", "smtp"]);
    let account = json(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(35), "{account}");
}

#[test]
#[ignore = "needs openssl"]
fn openssl_s_server_sees_the_name_that_is_sent() {
    let authority = authority();
    authority.certificate("other", &["other.example", "localhost"]);
    let line = format!(
        "{OPENSSL_SERVER} -naccept 1 -servername other.example -servername_fatal \
         -cert2 FOLDER/other.pem -key2 FOLDER/other.key"
    );
    let (server, port) = listening(&line, &authority, "1.3");
    let options = ["--sni", "other.example", "--send", "x", "--on-eof", "fin"];
    let output = run(connect_command(&authority, &port, &options), b"");
    let account = json(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{account}");
    let names = &account["tls"]["certificates"][0]["names"];
    assert_eq!(names[0], "other.example", "{account}");
    let said = text(&server.end());
    assert!(
        said.contains("Hostname in TLS extension: \"other.example\""),
        "{said}"
    );

    let (_server, port) = listening(&line, &authority, "1.3");
    let output = run(connect_command(&authority, &port, &[]), b"");
    let account = json(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(35), "{account}");
    let error = account["error"].as_str().expect("told");
    assert!(error.contains("no certificate for this name"), "{error}");
}

#[test]
#[ignore = "needs openssl"]
fn an_openssl_s_server_of_the_past_is_exit_code_35() {
    let authority = authority();
    let old = OPENSSL_SERVER.replace("-tls_VERSION", "-tls1_1 -cipher ALL:@SECLEVEL=0 -www");
    for (line, options) in [
        (old.as_str(), &[][..]),
        (&format!("{OPENSSL_SERVER} -www"), &["--tls-min", "1.3"]),
    ] {
        let (_server, port) = listening(line, &authority, "1.2");
        let output = get(&authority, &port, options);
        let account = json(&text(&output.stderr));
        assert_eq!(output.status.code(), Some(35), "{account}");
        let error = account["error"].as_str().expect("told");
        assert!(error.contains("our versions of TLS"), "{error}");
    }
}

#[test]
#[ignore = "needs nginx"]
fn nginx_serves_files_over_tls_and_knows_who_we_are() {
    let authority = authority();
    let folder = folder_with_files();
    let root = folder.path().to_str().expect("UTF-8");
    let (ca, both) = (authority.path("ca.pem"), authority.path("server-both.pem"));
    let (cert, key) = (authority.path("client.pem"), authority.path("client.key"));
    for version in VERSIONS {
        let started = || {
            let port = free_port();
            let servers = format!(
                "server {{
                    listen 127.0.0.1:{port} ssl http2; ssl_protocols TLSv{version};
                    ssl_certificate {both}; ssl_certificate_key {both};
                    ssl_client_certificate {ca}; ssl_verify_client optional;
                    location / {{ return 200 \"$ssl_protocol $ssl_server_name $ssl_client_verify $ssl_client_s_dn\"; }}
                    location /large {{ }}
                }}"
            );
            Some((nginx_with(root, &nginx_http(root, &servers))?, port))
        };
        let (_nginx, port) = (0..5).find_map(|_| started()).expect("a free port");
        let output = get(
            &authority,
            &port,
            &["--cert", &cert, "--key", &key, "--alpn", "http/1.1"],
        );
        let account = json(&text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{account}");
        assert_eq!(account["tls"]["alpn"], "http/1.1", "{account}");
        let page = text(&output.stdout);
        let known = format!("TLSv{version} localhost SUCCESS CN=a certificate for tests");
        assert!(page.ends_with(&known), "{page}");
        let output = get(&authority, &port, &["--alpn", "http/1.1"]);
        let page = text(&output.stdout);
        assert!(
            page.ends_with(&format!("TLSv{version} localhost NONE ")),
            "{page}"
        );

        let request = ["--send", "GET /large HTTP/1.0\\r\\n\\r\\n"];
        let output = run(connect_command(&authority, &port, &request), b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(output.stdout.ends_with(&noise(MEGABYTE)), "{version}");
    }
}

/// About the certificate and what a public authority has besides, which one made for a test has not.
const NOT_OF_OURS: [&str; 2] = ["cert_revocation", "DNS_CAArecord"];

/// The client's order of ciphers holds. All that we offer are strong, and a client knows which are fast for it: that is
/// what Mozilla's "Server Side TLS" advises, too. Later testssl.sh do not count it against a server with such ciphers.
const OF_NO_HARM: [&str; 1] = ["cipher_order"];

#[test]
#[ignore = "needs testssl.sh and openssl"]
fn testssl_finds_nothing_wrong_with_a_server() {
    let authority = authority();
    // Shorter ones are warned of.
    authority.valid_for("server", &["localhost"], -1, 90);
    let (pem, key, ca) = (
        authority.path("server.pem"),
        authority.path("server.key"),
        authority.path("ca.pem"),
    );
    let serving = Serving::start(&[
        "discard",
        "--idle-timeout",
        "1s",
        "--tls-cert",
        &pem,
        "--tls-key",
        &key,
    ]);
    let address = format!("localhost:{}", serving.port());
    let file = authority.path("findings.json");
    let program = if run(command(&["sh", "-c", "command -v testssl"]), b"")
        .status
        .success()
    {
        "testssl"
    } else {
        "testssl.sh"
    };
    // Protocols, kinds of ciphers, forward secrecy, preferences, defaults, vulnerabilities. It takes half a minute, most of
    // which it waits.
    let line = format!(
        "{program} -p -s -f -P -S -U --quiet --color 0 --warnings batch --ip 127.0.0.1 \
         --add-ca {ca} --jsonfile {file} {address}"
    );
    let mut scan = Process::start(command(&line.split_whitespace().collect::<Vec<_>>()));
    scan.end_input();
    let (_, _) = scan.wait();
    let findings = json(&fs::read_to_string(&file).expect("written"));
    let findings = findings.as_array().expect("a list");
    let mut severities = BTreeMap::new();
    for finding in findings {
        let (id, severity) = (&finding["id"], &finding["severity"]);
        let (id, severity) = (id.as_str().expect("text"), severity.as_str().expect("text"));
        severities.insert(id, severity);
        let excused = NOT_OF_OURS.contains(&id) || OF_NO_HARM.contains(&id);
        // Others are of no weight, or about the scan itself.
        let grave = ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&severity);
        assert!(!grave || excused, "{finding}");
    }
    // It did look.
    for id in [
        "SSLv2",
        "SSLv3",
        "TLS1_2",
        "TLS1_3",
        "cipherlist_NULL",
        "cipherlist_EXPORT",
        "cipherlist_STRONG",
        "cert_trust",
        "cert_chain_of_trust",
        "heartbleed",
        "CCS",
        "ROBOT",
        "secure_renego",
        "secure_client_renego",
        "CRIME_TLS",
        "POODLE_SSL",
        "SWEET32",
        "FREAK",
        "DROWN",
        "LOGJAM",
        "BEAST",
        "LUCKY13",
        "RC4",
    ] {
        assert_eq!(severities.get(id), Some(&"OK"), "{id} in {severities:?}");
    }
    assert_eq!(serving.stop(), 0);
}
