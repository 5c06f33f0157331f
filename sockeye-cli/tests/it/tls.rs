//! TLS between the program and itself; what others wrote is in `peers_of_tls.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::authority::Authority;
use crate::support::{PATIENCE, Serving, finish, json, line_with, lines, run, sockeye, text};

fn connect(arguments: &[&str], input: &[u8]) -> Output {
    run(sockeye(&[&["connect"], arguments].concat()), input)
}

/// A server over TLS with the certificate `name` of the authority.
fn serve(authority: &Authority, name: &str, arguments: &[&str]) -> Serving {
    let (certificate, key) = (
        authority.path(&format!("{name}.pem")),
        authority.path(&format!("{name}.key")),
    );
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    Serving::start(&[&tls, arguments].concat())
}

fn tls_address(serving: &Serving) -> String {
    format!("tls://localhost:{}", serving.port())
}

/// Says five bytes and wants them back.
fn talk(arguments: &[&str], address: &str) -> Output {
    let say = ["--send", "hello", "--recv-bytes", "5", address];
    connect(&[arguments, &say].concat(), b"")
}

fn is_served(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello");
}

/// Exit code 60, nothing on stdout, and the reason in words.
fn is_not_trusted(output: &Output, why: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(60), "{said}");
    assert_eq!(text(&output.stdout), "");
    assert!(said.contains(why), "no '{why}' in: {said}");
}

#[test]
fn a_certificate_of_a_given_authority_for_the_typed_name_is_trusted() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost", "127.0.0.1", "::1"]);
    let serving = serve(&authority, "server", &["-l", ":0"]);
    let port = serving
        .address
        .rsplit_once(':')
        .expect("a port")
        .1
        .to_owned();
    let ca = authority.path("ca.pem");
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        is_served(&talk(&["--ca", &ca], &format!("tls://{host}:{port}")));
    }
    let by_option = ["--tls", "--ca", &ca, "--send", "hello", "--recv-bytes", "5"];
    is_served(&connect(
        &[&by_option[..], &["localhost", &port]].concat(),
        b"",
    ));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_goes_in_comes_back_byte_for_byte_over_tls() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &[]);
    let every_byte: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    let ca = authority.path("ca.pem");
    let address = tls_address(&serving);
    let output = connect(&["--ca", &ca, "--on-eof", "fin", &address], &every_byte);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        output.stdout == every_byte,
        "{} bytes came back",
        output.stdout.len()
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_server_that_is_not_to_be_trusted_is_exit_code_60_with_the_reason() {
    let authority = Authority::new();
    let names = ["localhost"];
    authority.certificate("server", &names);
    authority.certificate("other", &["other.example", "127.0.0.9"]);
    authority.valid_for("expired", &names, -30, -1);
    authority.valid_for("early", &names, 1, 30);
    authority.revoked("revoked", &names);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let stranger = Authority::new();
    let other_ca = stranger.path("ca.pem");
    let cases: [(&str, &[&str], &str); 6] = [
        (
            "server",
            &["--ca", &other_ca],
            "signed by nobody who is trusted",
        ),
        ("server", &[], "signed by nobody who is trusted"),
        (
            "other",
            &["--ca", &ca],
            "it is for other.example, 127.0.0.9, not for localhost",
        ),
        ("expired", &["--ca", &ca], "expired on"),
        ("early", &["--ca", &ca], "not valid before"),
        ("revoked", &["--ca", &ca, "--crl", &crl], "revoked"),
    ];
    for (certificate, arguments, why) in cases {
        let serving = serve(&authority, certificate, &[]);
        let output = talk(arguments, &tls_address(&serving));
        is_not_trusted(&output, why);
        // A way around it is only for what nobody has vouched for.
        let way_around = text(&output.stderr).contains("--pin sha256:");
        assert_eq!(way_around, why.contains("nobody"), "{why}");
        assert_eq!(serving.stop(), 0);
    }
    // The list takes nothing from a certificate that is not on it.
    let serving = serve(&authority, "server", &[]);
    let address = tls_address(&serving);
    is_served(&talk(&["--ca", &ca, "--crl", &crl], &address));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_platforms_authorities_are_trusted_unless_others_are_given() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &[]);
    let address = tls_address(&serving);
    let with_roots = |roots: &str| {
        let arguments = ["connect", "--send", "hello", "--recv-bytes", "5", &address];
        let mut command = sockeye(&arguments);
        command
            .env("SSL_CERT_FILE", roots)
            .env_remove("SSL_CERT_DIR");
        run(command, b"")
    };
    is_served(&with_roots(&authority.path("ca.pem")));
    let stranger = Authority::new();
    is_not_trusted(&with_roots(&stranger.path("ca.pem")), "signed by nobody");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_self_signed_server_prints_the_pin_by_which_it_is_trusted() {
    let serving = Serving::start(&["--tls-self-signed", "example.com,127.0.0.1"]);
    let told = line_with(&serving.stderr, "certificate for example.com, 127.0.0.1");
    let pin = told.rsplit_once(", ").expect("a fingerprint").1;
    let address = tls_address(&serving);
    is_served(&talk(&["--pin", pin], &address));
    let as_openssl = pin.trim_start_matches("sha256:").to_uppercase();
    let bytes: Vec<&str> = (0..32).map(|at| &as_openssl[2 * at..2 * at + 2]).collect();
    is_served(&talk(
        &["--pin", &format!("sha256:{}", bytes.join(":"))],
        &address,
    ));
    let other = format!("sha256:{}", "0".repeat(64));
    is_not_trusted(&talk(&["--pin", &other], &address), "not the pinned one");
    is_served(&talk(&["--pin", &other, "--pin", pin], &address));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn insecure_trusts_anyone_and_warns_with_the_fingerprint_even_if_quiet() {
    let serving = Serving::start(&["--tls-self-signed", "example.com"]);
    let told = line_with(&serving.stderr, "certificate for example.com");
    let pin = told.rsplit_once(", ").expect("a fingerprint").1;
    let output = talk(&["--insecure", "--quiet"], &tls_address(&serving));
    is_served(&output);
    let said = text(&output.stderr);
    assert!(
        said.starts_with("warning: --insecure") && said.contains(pin),
        "{said}"
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_verified_name_is_the_typed_one_whatever_name_is_sent() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    authority.certificate("other", &["other.example"]);
    let (other, key) = (authority.path("other.pem"), authority.path("other.key"));
    let serving = serve(
        &authority,
        "server",
        &["--tls-cert", &other, "--tls-key", &key, "--json"],
    );
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    is_served(&talk(&["--ca", &ca], &address));
    // The server shows the certificate for the name that is sent, and that is not the one that was typed.
    let output = talk(&["--ca", &ca, "--sni", "other.example"], &address);
    is_not_trusted(&output, "it is for other.example, not for localhost");
    let output = talk(&["--ca", &ca, "--sni", "unknown.example"], &address);
    is_served(&output);
    line_with(&serving.stdout, r#""server_name":"localhost""#);
    line_with(&serving.stdout, r#""server_name":"unknown.example""#);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_typed_host_is_verified_over_a_unix_socket_by_the_name_that_is_given() {
    let authority = Authority::new();
    authority.certificate("server", &["service.example"]);
    let unix = format!("unix:{}", authority.path("echo.sock"));
    let serving = serve(&authority, "server", &["-l", &unix]);
    let ca = authority.path("ca.pem");
    is_served(&talk(
        &["--tls", "--ca", &ca, "--server-name", "service.example"],
        &unix,
    ));
    let other = ["--ca", &ca, "--server-name", "other.example"];
    let output = talk(&other, &format!("tls://{unix}"));
    is_not_trusted(&output, "not for other.example");
    assert_eq!(serving.stop(), 0);
}

/// A Unix socket has room for a fixed number of bytes, and what is beyond them TLS holds, if it is not too much: that is so
/// for some of these sizes, whichever the room is.
#[test]
fn what_tls_holds_is_sent_though_nothing_is_read_any_more() {
    let authority = Authority::new();
    let script = authority.path("server.script");
    // It reads when all is written that can be.
    let talk = "timeout 3s\nshutdown\ndelay 300ms\nexpect until \"\\n\"\n";
    fs::write(&script, talk).expect("written");
    let unix = format!("unix:{}", authority.path("script.sock"));
    let options = ["--tls-self-signed", "localhost", "--json", "-l", &unix];
    let serving = Serving::start(&[&["script", &script][..], &options].concat());
    let mut talking = Vec::new();
    for kib in (64..=352).step_by(32) {
        let address = format!("tls://{unix}");
        let connect = ["connect", "-q", "--insecure", "--server-name", "localhost"];
        let mut child = sockeye(&[&connect[..], &["--keep-open", &address]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        let mut words = vec![b'a'; kib * 1024];
        words.push(b'\n');
        stdin.write_all(&words).expect("taken");
        talking.push((child, stdin));
    }
    for _ in &talking {
        let event = json(&line_with(&serving.stdout, "\"close\""));
        assert_eq!(event["reason"], "finished", "{event}");
    }
    for (child, stdin) in talking {
        drop(stdin);
        finish(child, Vec::new());
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn clients_must_show_a_certificate_of_the_given_authority() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    authority.certificate("client", &["client.example"]);
    authority.revoked("gone", &["gone.example"]);
    let stranger = Authority::new();
    stranger.certificate("client", &["client.example"]);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    for version in ["1.2", "1.3"] {
        let serving = serve(
            &authority,
            "server",
            &["--tls-client-ca", &ca, "--tls-client-crl", &crl, "--json"],
        );
        let address = tls_address(&serving);
        let show = |by: &Authority, name: &str| {
            let (cert, key) = (
                by.path(&format!("{name}.pem")),
                by.path(&format!("{name}.key")),
            );
            talk(
                &[
                    "--ca",
                    &ca,
                    "--cert",
                    &cert,
                    "--key",
                    &key,
                    "--tls-min",
                    version,
                ],
                &address,
            )
        };
        is_served(&show(&authority, "client"));
        let handshake = json(&line_with(&serving.stdout, "\"handshake\""));
        let shown = &handshake["tls"]["certificates"][0];
        assert_eq!(shown["names"][0], "client.example", "{handshake}");
        for (refused, why) in [
            (
                talk(&["--ca", &ca, "--tls-min", version], &address),
                "shows no certificate",
            ),
            (show(&stranger, "client"), "signed by nobody"),
            (show(&authority, "gone"), "revoked"),
        ] {
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(35), "{said}");
            assert!(said.contains("the peer refused"), "{said}");
            let close = json(&line_with(&serving.stdout, "\"tls_handshake\""));
            let told = close["error"].as_str().expect("told");
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(serving.stop(), 0);
    }
}

#[test]
fn versions_and_protocols_that_do_not_meet_are_exit_code_35() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let ca = authority.path("ca.pem");
    let serving = serve(
        &authority,
        "server",
        &["--alpn", "h2,echo", "--tls-min", "1.3", "--json"],
    );
    let address = tls_address(&serving);
    is_served(&talk(&["--ca", &ca, "--alpn", "echo"], &address));
    let handshake = json(&line_with(&serving.stdout, "\"handshake\""));
    assert_eq!(handshake["tls"]["alpn"], "echo");
    assert_eq!(handshake["tls"]["version"], "TLSv1.3");
    let refused = talk(&["--ca", &ca, "--alpn", "smtp"], &address);
    assert_eq!(refused.status.code(), Some(35));
    assert!(
        text(&refused.stderr).contains("ALPN"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_host_can_be_asked_for_by_another_name_than_it_is_reached_by() {
    let authority = Authority::new();
    authority.certificate("server", &["db.internal"]);
    let serving = serve(&authority, "server", &["--json"]);
    let ca = authority.path("ca.pem");
    let by_name = ["--ca", &ca, "--server-name", "db.internal"];
    is_served(&talk(&by_name, &format!("tls://{}", serving.address)));
    let handshake = json(&line_with(&serving.stdout, "\"handshake\""));
    assert_eq!(handshake["tls"]["server_name"], "db.internal");
    assert_eq!(serving.stop(), 0);
}

/// A reset that a write has met, which the kernel tells only once, must not look like an end.
#[test]
fn a_reset_is_no_end_of_tls_however_lax() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &[]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let mut child = sockeye(&["connect", "-v", "--tls-eof", "lax", "--ca", &ca, &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let stderr = lines(child.stderr.take().expect("piped"));
    line_with(&stderr, "tls        TLSv1.3");
    // Stopped, the server leaves unread what comes; killed with that, its kernel resets. A thread that still runs could
    // read it, and then its end would be a FIN.
    serving.signal(Signal::STOP);
    while !is_stopped(serving.pid()) {
        thread::yield_now();
    }
    let mut stdin = child.stdin.take().expect("piped");
    let feed = thread::spawn(move || {
        let _ = stdin.write_all(&vec![b'x'; 30_000_000]);
    });
    let port = serving.port();
    // More than the end of the handshake, so that the client is writing when it is reset.
    while unread(&port) < 10_000 {
        thread::yield_now();
    }
    serving.signal(Signal::KILL);
    let output = finish(child, Vec::new());
    let said = stderr.iter().collect::<Vec<_>>().join("\n");
    assert_eq!(output.status.code(), Some(56), "{said}");
    assert!(!said.contains("truncated"), "{said}");
    feed.join().expect("no panic");
}

/// Whether no thread of a process runs (proc(5), /proc/pid/task/tid/stat: the state follows the name in parentheses).
fn is_stopped(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("there");
    threads.into_iter().all(|thread| {
        let stat = thread.expect("there").path().join("stat");
        let stat = fs::read_to_string(stat).expect("there");
        stat.rsplit_once(") ").expect("a name").1.starts_with('T')
    })
}

/// Bytes that wait in the kernel for the server on this port (proc(5), /proc/net/tcp: the receive queue).
fn unread(port: &str) -> u64 {
    let port = format!(":{:04X}", port.parse::<u16>().expect("a port"));
    let table = fs::read_to_string("/proc/net/tcp").expect("there");
    let connections = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    connections
        .filter(|fields| fields.len() > 4 && fields[1].ends_with(&port) && fields[3] == "01")
        .filter_map(|fields| u64::from_str_radix(fields[4].split_once(':')?.1, 16).ok())
        .sum()
}

#[test]
fn an_interrupt_in_the_handshake_still_tells_what_happened() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = format!("tls://{}", listener.local_addr().expect("bound"));
    let child = sockeye(&["connect", "--explain", "--json", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let (mut client, _) = listener.accept().expect("accepts");
    client.read_exact(&mut [0]).expect("a hello");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = finish(child, Vec::new());
    assert_eq!(output.status.code(), Some(130));
    let account = json(&text(&output.stderr));
    assert_eq!(
        (&account["ending"], &account["tls"]),
        (&json("\"interrupted\""), &json("null"))
    );
}

#[test]
fn that_tls_stays_open_at_the_end_of_our_input_is_said_where_nobody_asked_for_it() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &["--idle-timeout", "100ms"]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let said = text(&connect(&["--ca", &ca, &address], b"hello").stderr);
    assert!(said.contains("--on-eof fin"), "{said}");
    let said = text(&connect(&["--ca", &ca, "--on-eof", "keep", &address], b"hello").stderr);
    assert_eq!(said, "");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_server_that_speaks_something_else_is_named() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = format!("tls://{}", listener.local_addr().expect("bound"));
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("accepts");
        client.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").expect("sent");
        let _ = client.read_to_end(&mut Vec::new());
    });
    let output = connect(&[&address], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(35), "{said}");
    assert!(
        said.contains("does not speak TLS") && said.contains("SSH"),
        "{said}"
    );
    server.join().expect("no panic");
}

#[test]
fn a_server_that_wants_tls_and_is_not_spoken_to_in_it_is_named() {
    let serving = Serving::start(&["--tls-self-signed", "localhost"]);
    let output = connect(&[&serving.address], b"hello\r\n");
    assert!(
        text(&output.stderr).contains("may want tls://"),
        "{}",
        text(&output.stderr)
    );
    let output = connect(&["--explain", "--json", &serving.address], b"hello\r\n");
    assert_eq!(
        json(&text(&output.stderr))["ending"],
        "peer_closed",
        "all there is"
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_exit_code_28() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = format!("tls://{}", listener.local_addr().expect("bound"));
    let output = connect(&["--handshake-timeout", "100ms", &address], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(28), "{said}");
    assert!(said.contains("100ms"), "{said}");
}

#[test]
fn the_end_of_our_input_keeps_tls_open_unless_it_is_asked_for() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &["--json"]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let output = connect(
        &["--ca", &ca, "--idle-timeout", "100ms", &address],
        b"hello",
    );
    assert_eq!(output.status.code(), Some(28), "it waits for more");
    assert_eq!(text(&output.stdout), "hello");
    let output = connect(&["--ca", &ca, "--on-eof", "fin", &address], b"hello");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "hello");
    for _ in 0..2 {
        let close = json(&line_with(&serving.stdout, "\"event\":\"close\""));
        assert_eq!(
            close["reason"], "peer_closed",
            "close_notify was sent: {close}"
        );
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_stream_that_ends_without_close_notify_is_truncated_and_exit_code_56() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &["daytime"]);
    let ca = authority.path("ca.pem");
    for (arguments, code) in [(&[][..], 56), (&["--tls-eof", "lax"][..], 0)] {
        let address = cutting(&serving);
        let output = connect(&[arguments, &["--ca", &ca, &address]].concat(), b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            text(&output.stdout).ends_with("GMT\r\n"),
            "what came is delivered"
        );
        assert_eq!(said.contains("truncated"), code == 56, "{said}");
    }
    assert_eq!(serving.stop(), 0);
}

/// Somebody on the way, for one connection, who passes on all that the server says but close_notify: in TLS 1.3 that is a
/// record of two bytes, its type and 16 bytes of checksum, and nothing else here is.
fn cutting(serving: &Serving) -> String {
    const CLOSE_NOTIFY_BYTES: usize = 2 + 1 + 16;
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = listener.local_addr().expect("bound");
    let mut server = serving.connect();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("accepts");
        let (mut from_client, mut to_server) = (
            client.try_clone().expect("cloned"),
            server.try_clone().expect("cloned"),
        );
        let up = thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
        });
        let mut header = [0; 5];
        while server.read_exact(&mut header).is_ok() {
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let mut record = [&header[..], &vec![0; length]].concat();
            server.read_exact(&mut record[5..]).expect("a record");
            if length != CLOSE_NOTIFY_BYTES {
                client.write_all(&record).expect("passed on");
            }
        }
        client.shutdown(Shutdown::Both).expect("cut");
        up.join().expect("no panic");
    });
    format!("tls://localhost:{}", address.port())
}

#[test]
fn explain_tells_of_the_session_and_the_chain() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &["--alpn", "echo"]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let output = talk(&["--explain", "--ca", &ca, "--alpn", "echo"], &address);
    is_served(&output);
    let said = text(&output.stderr);
    for word in [
        "TLSv1.3, TLS_",
        "ALPN echo",
        "a full handshake; 2 tickets",
        "for localhost, valid until 20",
        "issued by CN=An authority for tests, ",
        "trusted by ca",
    ] {
        assert!(said.contains(word), "no '{word}' in: {said}");
    }
    let output = talk(&["--explain", "--json", "--ca", &ca], &address);
    let account = json(&text(&output.stderr));
    let tls = &account["tls"];
    assert_eq!(tls["certificates"][0]["names"][0], "localhost", "{account}");
    assert_eq!(
        (&tls["resumed"], &tls["trusted_by"]),
        (&json("false"), &json("\"ca\""))
    );
    assert!(tls["handshake_ms"].as_f64().is_some_and(|ms| ms > 0.0));

    let stranger = Authority::new();
    let output = talk(
        &["--explain", "--json", "--ca", &stranger.path("ca.pem")],
        &address,
    );
    let account = json(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(60));
    assert_eq!(account["ending"], "not_secured");
    assert_eq!(account["rejected_certificates"][0]["names"][0], "localhost");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_probe_over_tls_shakes_hands() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &["--json"]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let output = connect(&["--probe", "--ca", &ca, &address], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("open after") && text(&output.stdout).contains("TLSv1.3")
    );
    let close = json(&line_with(&serving.stdout, "\"event\":\"close\""));
    assert_eq!(close["reason"], "peer_closed", "{close}");
    let output = connect(&["--probe", "--json", &address], b"");
    assert_eq!(output.status.code(), Some(60));
    let answer = json(&text(&output.stdout));
    assert_eq!(
        (&answer["open"], &answer["tls"]),
        (&json("true"), &json("null"))
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_scheme_of_a_listener_decides_and_a_certificate_where_there_is_none() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(
        &authority,
        "server",
        &[
            "-l",
            "127.0.0.1:0",
            "-l",
            "tcp://127.0.0.1:0",
            "-l",
            "tls://127.0.0.1:0",
        ],
    );
    let ca = authority.path("ca.pem");
    let port = |line: String| {
        let address = line.split(' ').nth(2).expect("an address").to_owned();
        address.rsplit_once(':').expect("a port").1.to_owned()
    };
    let plain = port(line_with(&serving.stderr, "(echo)"));
    let over_tls = port(line_with(&serving.stderr, "(echo over TLS)"));
    for port in [&serving.port(), &over_tls] {
        is_served(&talk(&["--ca", &ca], &format!("tls://localhost:{port}")));
    }
    is_served(&talk(&[], &format!("localhost:{plain}")));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn secrets_are_written_only_where_they_are_asked_for() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let (servers, clients) = (
        authority.path("servers.keys"),
        authority.path("clients.keys"),
    );
    let serving = serve(&authority, "server", &["--keylog", &servers]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let never = authority.path("never.keys");
    let arguments = ["--send", "x", "--recv-bytes", "1", "--ca", &ca, &address];
    let mut command = sockeye(&[&["connect"], &arguments[..]].concat());
    command.env("SSLKEYLOGFILE", &never);
    assert_eq!(run(command, b"").status.code(), Some(0));
    assert!(!Path::new(&never).exists());
    let before = fs::read_to_string(&servers).expect("written");
    is_served(&talk(&["--ca", &ca, "--keylog", &clients], &address));
    let (servers, clients) = (
        fs::read_to_string(&servers).expect("written"),
        fs::read_to_string(&clients).expect("written"),
    );
    let mut expected: Vec<&str> = servers[before.len()..].lines().collect();
    let mut written: Vec<&str> = clients.lines().collect();
    expected.sort_unstable();
    written.sort_unstable();
    assert_eq!(written, expected, "both ends have the same secrets");
    assert!(clients.contains("CLIENT_TRAFFIC_SECRET_0 "));
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(authority.path("clients.keys"))
        .expect("there")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_files_of_a_certificate_are_checked_before_anything_is_bound() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    authority.certificate("other", &["localhost"]);
    let (cert, key, other) = (
        authority.path("server.pem"),
        authority.path("server.key"),
        authority.path("other.key"),
    );
    let half = authority.path("half.pem");
    let locked = authority.path("locked.key");
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(&locked, encrypted).expect("written");
    let whole = fs::read_to_string(&cert).expect("read");
    fs::write(&half, &whole[..whole.len() / 2]).expect("written");
    for (arguments, why) in [
        (
            vec!["--tls-cert", &cert, "--tls-key", &other],
            "does not belong",
        ),
        (vec!["--tls-cert", &half, "--tls-key", &key], "half.pem"),
        (
            vec!["--tls-cert", &key, "--tls-key", &key],
            "no certificate",
        ),
        (vec!["--tls-cert", &cert], "no private key"),
        (
            vec!["--tls-cert", &cert, "--tls-cert", &cert, "--tls-key", &key],
            "2 certificates and 1 key",
        ),
        (vec!["--tls-cert", "/no/such/file"], "/no/such/file"),
        (
            vec!["--tls-self-signed", "a name"],
            "--tls-self-signed a name",
        ),
        (
            vec!["--tls-cert", &cert, "--tls-key", &locked],
            "is encrypted",
        ),
    ] {
        let output = run(
            sockeye(&[&["serve", "-l", "127.0.0.1:0"], &arguments[..]].concat()),
            b"",
        );
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(why) && !said.contains("listening"),
            "no '{why}' in: {said}"
        );
    }
    // In one file, as HAProxy wants it.
    let both = authority.path("both.pem");
    fs::write(&both, whole + &fs::read_to_string(&key).expect("read")).expect("written");
    let serving = Serving::start(&["--tls-cert", &both]);
    is_served(&talk(
        &["--ca", &authority.path("ca.pem")],
        &tls_address(&serving),
    ));
    assert_eq!(serving.stop(), 0);
}

/// The fingerprint of what the server shows now.
fn shown(address: &str) -> String {
    let output = talk(&["--insecure", "--explain", "--json"], address);
    let said = text(&output.stderr);
    let account = said.lines().find(|line| line.starts_with('{'));
    let account = json(account.unwrap_or_else(|| panic!("{said}")));
    account["tls"]["certificates"][0]["fingerprint"]
        .as_str()
        .expect("shown")
        .to_owned()
}

#[test]
fn certificates_follow_their_files_however_those_are_exchanged() {
    let authority = Authority::new();
    let folder = authority.folder();
    for version in ["one", "two", "three", "four"] {
        authority.certificate("server", &["localhost"]);
        fs::create_dir(folder.join(version)).expect("a folder");
        for kind in ["pem", "key"] {
            let file = format!("server.{kind}");
            fs::rename(folder.join(&file), folder.join(version).join(&file)).expect("moved");
        }
    }
    let link = |to: &str, from: &str| {
        let new = folder.join("new");
        std::os::unix::fs::symlink(to, &new).expect("linked");
        fs::rename(new, folder.join(from)).expect("renamed");
    };
    // As Kubernetes has it: a link to a file in a folder that is a link.
    link("one", "..data");
    link("..data/server.pem", "server.pem");
    link("..data/server.key", "server.key");
    let serving = serve(&authority, "server", &["--json"]);
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    let first = shown(&address);
    let mut held = Serving::start_client(&["--ca", &ca, &address]);
    held.say(b"before");

    let reloaded = |what: &str| {
        let line = line_with(&serving.stdout, "\"event\":\"reload\"");
        let reload = json(&line);
        assert_eq!(
            (&reload["changed"], &reload["cause"]),
            (&json("true"), &json("\"files\"")),
            "{what}: {line}"
        );
        shown(&address)
    };
    link("two", "..data");
    let second = reloaded("a link to the folder");
    assert_ne!(second, first);
    // As certbot has it: links to the files.
    link("three/server.pem", "server.pem");
    link("three/server.key", "server.key");
    let third = reloaded("links to the files");
    assert!(third != first && third != second);
    // A file renamed over the old one, and its key after it.
    fs::rename(folder.join("four/server.pem"), folder.join("server.pem")).expect("renamed");
    fs::rename(folder.join("four/server.key"), folder.join("server.key")).expect("renamed");
    let fourth = reloaded("renamed files");
    assert!(fourth != third);

    held.say(b"an open connection goes on");
    drop(held);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_bad_certificate_changes_nothing_and_is_told_once() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(&authority, "server", &["--json"]);
    let address = tls_address(&serving);
    let before = shown(&address);
    let key = fs::read(authority.path("server.key")).expect("read");
    // A certificate without its key.
    authority.certificate("server", &["localhost"]);
    let new_key = fs::read(authority.path("server.key")).expect("read");
    fs::write(authority.path("server.key"), &key).expect("written");
    let failed = json(&line_with(&serving.stdout, "\"event\":\"reload\""));
    assert_eq!(failed["changed"], false, "{failed}");
    let why = failed["error"].as_str().expect("told");
    assert!(
        why.contains("server.key") && why.contains("does not belong"),
        "{why}"
    );
    line_with(&serving.stderr, "warning: nothing is changed");
    assert_eq!(shown(&address), before);
    serving.signal(Signal::HUP);
    let failed = json(&line_with(&serving.stdout, "\"event\":\"reload\""));
    assert_eq!(
        (&failed["changed"], &failed["cause"]),
        (&json("false"), &json("\"hup\""))
    );
    assert_eq!(shown(&address), before);
    fs::write(authority.path("server.key"), new_key).expect("written");
    let reload = json(&line_with(&serving.stdout, "\"event\":\"reload\""));
    assert_eq!(reload["changed"], true, "{reload}");
    assert_ne!(shown(&address), before);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_certificate_comes_through_a_pipe_once() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let (pipe, key) = (authority.path("pipe"), authority.path("server.key"));
    let made = Command::new("mkfifo").arg(&pipe).status().expect("starts");
    assert!(made.success());
    let certificate = fs::read(authority.path("server.pem")).expect("read");
    let writer = thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, certificate).expect("read by the server")
    });
    let serving = Serving::start(&["--json", "--tls-cert", &pipe, "--tls-key", &key]);
    writer.join().expect("no panic");
    serving.signal(Signal::HUP);
    let reload = json(&line_with(&serving.stdout, "\"event\":\"reload\""));
    assert_eq!(
        (&reload["changed"], &reload["error"]),
        (&json("false"), &json("null"))
    );
    is_served(&talk(
        &["--ca", &authority.path("ca.pem")],
        &tls_address(&serving),
    ));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let authority = Authority::new();
    authority.valid_for("server", &["localhost"], -30, -1);
    let serving = serve(&authority, "server", &["--json"]);
    line_with(&serving.stderr, "warning: certificate for localhost");
    let told = json(&line_with(&serving.stdout, "\"event\":\"certificate\""));
    assert!(
        told["warning"]
            .as_str()
            .is_some_and(|w| w.contains("expired")),
        "{told}"
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_stalled_handshake_ends_at_its_deadline_and_a_crowd_of_them_keeps_nobody_out() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let serving = serve(
        &authority,
        "server",
        &[
            "--json",
            "--handshake-timeout",
            "20s",
            "--max-connections",
            "2000",
        ],
    );
    let stalled: Vec<_> = (0..900).map(|_| serving.connect()).collect();
    let (ca, address) = (authority.path("ca.pem"), tls_address(&serving));
    // Beyond the start of early refusal chance decides, and trying again helps.
    let served = (0..50).find(|_| talk(&["--ca", &ca], &address).status.success());
    assert!(served.is_some());
    drop(stalled);
    assert_eq!(serving.stop(), 0);

    let serving = serve(
        &authority,
        "server",
        &["--json", "--handshake-timeout", "50ms"],
    );
    let mut stalled = serving.connect();
    let mut rest = Vec::new();
    stalled.set_read_timeout(Some(PATIENCE)).expect("set");
    let _ = stalled.read_to_end(&mut rest);
    let close = json(&line_with(&serving.stdout, "\"event\":\"close\""));
    assert_eq!(close["reason"], "tls_handshake_timeout");
    assert_eq!(serving.stop(), 0);
}
