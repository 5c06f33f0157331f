use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{PATIENCE, Serving, echoes, json, line_with, run, sockeye, text};

/// Exit code 2, nothing on stdout, and these words on stderr.
fn is_usage_error(arguments: &[&str], words: &[&str]) {
    let output = run(sockeye(arguments), b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(text(&output.stdout), "");
    for word in words {
        assert!(said.contains(word), "no '{word}' in: {said}");
    }
    assert!(!said.contains("listening on"), "half-started: {said}");
}

#[test]
fn every_service_answers_as_its_rfc_says() {
    let answer = |service: &str, send: &[u8], bytes: usize| {
        let serving = Serving::start(&[service]);
        let mut client = serving.connect();
        client.write_all(send).expect("sent");
        client.shutdown(Shutdown::Write).expect("FIN");
        let mut answer = Vec::new();
        client
            .take(bytes as u64)
            .read_to_end(&mut answer)
            .expect("read");
        assert_eq!(serving.stop(), 0);
        answer
    };
    assert_eq!(answer("echo", b"hello", 100), b"hello");
    assert_eq!(answer("discard", b"hello", 100), b"");
    assert_eq!(answer("time", b"", 100).len(), 4);
    assert!(answer("daytime", b"", 100).ends_with(b"GMT\r\n"));
    let serving = Serving::start(&["chargen"]);
    let mut line = [0; 74];
    serving.connect().read_exact(&mut line).expect("read");
    assert!(line.starts_with(b" !\"#$%&'()") && line.ends_with(b"\r\n"));
}

#[test]
fn the_ready_lines_name_every_listener_and_its_real_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    let unix = format!("unix:{}", path.display());
    let serving = Serving::start(&[
        "-l",
        "127.0.0.1:0",
        "--listen",
        "tcp://[::1]:0",
        "-l",
        &unix,
        "-l",
        ":0",
        "--workers",
        "2",
    ]);
    assert_ne!(serving.socket_address().port(), 0);
    let v6 = line_with(&serving.stderr, "listening on [::1]:");
    assert!(v6.ends_with(" (echo)"));
    line_with(&serving.stderr, &format!("listening on {unix} (echo)"));
    let all = line_with(&serving.stderr, "listening on [::]:");
    let port: u16 = all
        .trim_start_matches("listening on [::]:")
        .trim_end_matches(" (echo)")
        .parse()
        .expect("a port");
    echoes(&mut serving.connect(), b"v4");
    echoes(&mut UnixStream::connect(&path).expect("connects"), b"unix");
    for host in ["127.0.0.1", "::1"] {
        echoes(
            &mut TcpStream::connect((host, port)).expect("connects"),
            host.as_bytes(),
        );
    }
    assert_eq!(serving.stop(), 0);
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn bad_input_is_a_clear_error_and_nothing_half_started() {
    is_usage_error(&["serve", "ecco"], &["invalid value 'ecco'", "echo"]);
    is_usage_error(
        &["serve", "-l", "nonsense"],
        &["'nonsense'", "port is missing", "hint:"],
    );
    is_usage_error(&["serve", "-l", "::1:80"], &["'::1:80'", "brackets"]);
    is_usage_error(&["serve", "-l", "127.0.0.1:99999"], &["65535"]);
    is_usage_error(
        &["serve", "-l", "127.0.0.1:+80"],
        &["'+80' is not a port number"],
    );
    is_usage_error(
        &["serve", "-l", "tls://127.0.0.1:0"],
        &["no certificate", "--tls-cert"],
    );
    is_usage_error(&["serve", "-l", "ssl://127.0.0.1:0"], &["ssl://"]);
    is_usage_error(&["serve", "--alpn", "h2"], &["--alpn is for TLS"]);
    is_usage_error(&["serve", "--rate", "10"], &["N/s"]);
    is_usage_error(&["serve", "--rate", "0/s"], &["'0'"]);
    is_usage_error(&["serve", "--max-handshakes", "5:30:4"], &["START"]);
    is_usage_error(&["serve", "--allow", "10.1.2.3/8"], &["10.0.0.0/8"]);
    is_usage_error(&["serve", "--deny", "/no/such/file"], &["/no/such/file"]);
    is_usage_error(&["serve", "--proxy-protocol", "10.0.0.0/8"], &["from="]);
    is_usage_error(&["serve", "--proxy-protocol-only"], &["--proxy-protocol"]);
    is_usage_error(&["serve", "-l", "unix:"], &["path is missing"]);
    is_usage_error(
        &["serve", "-l", "192.0.2.1:0"],
        &["192.0.2.1:0", "not an address of this machine"],
    );
    is_usage_error(&["serve", "--idle-timeout", "soon"], &["'soon'", "500ms"]);
    is_usage_error(
        &["serve", "--drain", "18446744073709551615"],
        &["more than 10 years"],
    );
    is_usage_error(&["serve", "--workers", "0"], &["--workers"]);
    is_usage_error(&["serve", "--max-connections", "0"], &["--max-connections"]);
    is_usage_error(&["serve", "-v", "-q"], &["cannot be used with"]);
    is_usage_error(&["reticulate"], &["unrecognized subcommand"]);
}

#[test]
fn a_port_in_use_names_who_holds_it_and_binds_nothing_else() {
    let serving = Serving::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    let unix = format!("unix:{}", path.display());
    is_usage_error(
        &["serve", "-l", &unix, "-l", &serving.address],
        &[
            "in use",
            &serving.address,
            &format!("sockeye (process {})", serving.pid().as_raw_nonzero()),
        ],
    );
    assert!(!path.exists());
}

#[test]
fn the_holder_of_another_address_on_the_same_port_is_not_blamed() {
    let serving = Serving::start(&["-l", "127.0.0.2:0"]);
    let port = serving.port();
    let other = std::net::TcpListener::bind(format!("127.0.0.3:{port}"));
    let _other = other.expect("the port is free on another address");
    let output = run(sockeye(&["serve", "-l", &serving.address]), b"");
    let holder = format!("sockeye (process {})", serving.pid().as_raw_nonzero());
    assert!(text(&output.stderr).contains(&holder));
}

#[test]
fn a_name_that_does_not_resolve_is_exit_code_6() {
    let output = run(sockeye(&["serve", "-l", "no-such-name.invalid:7000"]), b"");
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stderr).contains("no-such-name.invalid"));
}

#[test]
fn events_are_one_json_object_a_line_and_tell_the_whole_story() {
    let serving = Serving::start(&["--json", "--max-per-source", "1"]);
    let mut client = serving.connect();
    echoes(&mut client, b"hello");
    let refused = serving.connect();
    let next = |event: &str| {
        let value = json(&serving.stdout.recv_timeout(PATIENCE).expect("an event"));
        assert_eq!(value["event"], event, "{value}");
        assert!(
            value["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
        value
    };
    let listening = serving.stdout.recv_timeout(PATIENCE).expect("an event");
    let begins = format!(
        r#"{{"event":"listening","service":"echo","address":"{}","#,
        serving.address
    );
    assert!(listening.starts_with(&begins), "{listening}");
    let accept = next("accept");
    assert_eq!(accept["id"], 1);
    assert_eq!(
        accept["peer"],
        client.local_addr().expect("ours").to_string()
    );
    assert_eq!(accept["listener"], serving.address);
    assert_eq!(next("accept")["id"], 2);
    let refuse = next("refuse");
    assert_eq!(
        (&refuse["id"], &refuse["reason"]),
        (&json("2"), &json("\"per_source\""))
    );
    drop((client, refused));
    let close = next("close");
    assert_eq!(close["reason"], "peer_closed");
    assert_eq!(
        (&close["bytes_in"], &close["bytes_out"]),
        (&json("5"), &json("5"))
    );
    assert!(close["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    assert_eq!(
        close["tcp_info"]["bytes_received"], 6,
        "the FIN counts as one"
    );
    serving.signal(Signal::USR1);
    let snapshot = next("snapshot");
    assert_eq!(
        (&snapshot["accepted"], &snapshot["closed"]),
        (&json("2"), &json("1"))
    );
    serving.signal(Signal::TERM);
    assert_eq!(next("drain")["deadline_ms"], 10_000);
    let stopped = next("stopped");
    assert_eq!(
        (&stopped["cut"], &stopped["refused"]),
        (&json("0"), &json("1"))
    );
    assert_eq!(serving.wait(), 0);
}

#[test]
fn a_closed_stdout_ends_the_server_as_a_signal_does() {
    let mut child = sockeye(&["serve", "-l", "127.0.0.1:0", "--json", "--drain", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let stderr = crate::support::lines(child.stderr.take().expect("piped"));
    line_with(&stderr, "listening on ");
    // Though there is no event that would find no reader.
    drop(child.stdout.take());
    let output = crate::support::finish(child, Vec::new());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn more_connections_than_descriptors_are_warned_of() {
    let mut child = sockeye(&[
        "serve",
        "-l",
        "127.0.0.1:0",
        "--max-connections",
        "2000000000",
    ])
    .stderr(Stdio::piped())
    .spawn()
    .expect("starts");
    let stderr = crate::support::lines(child.stderr.take().expect("piped"));
    let warning = line_with(&stderr, "warning: --max-connections 2000000000");
    assert!(warning.contains("the descriptor limit of"), "{warning}");
    line_with(&stderr, "listening on ");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("it runs");
    assert_eq!(
        crate::support::finish(child, Vec::new()).status.code(),
        Some(0)
    );
}

/// A reader of events that stops reading must not stop the server.
#[test]
fn a_stalled_reader_of_events_stalls_nobody_and_the_loss_is_counted() {
    const CONNECTIONS: u64 = 12_000;
    let mut child = sockeye(&["serve", "-l", "127.0.0.1:0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let stdout = child.stdout.take().expect("piped");
    let stderr = crate::support::lines(child.stderr.take().expect("piped"));
    let ready = line_with(&stderr, "listening on ");
    let address = ready.split(' ').nth(2).expect("an address").to_owned();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(&address).expect("connects");
        client.set_read_timeout(Some(PATIENCE)).expect("set");
        echoes(&mut client, b"x");
        // A reset leaves no TIME-WAIT behind, of which there would be 12,000.
        socket2::SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("set");
    }
    let events = crate::support::lines(stdout);
    let pid = Pid::from_child(&child);
    let dropped = json(&line_with(&events, r#""event":"dropped""#));
    assert!(dropped["events"].as_u64().is_some_and(|events| events > 0));
    kill_process(pid, Signal::TERM).expect("it runs");
    let stopped = json(&line_with(&events, r#""event":"stopped""#));
    assert_eq!(stopped["accepted"], CONNECTIONS);
    assert_eq!(
        crate::support::finish(child, Vec::new()).status.code(),
        Some(0)
    );
}

#[test]
fn verbose_tells_each_connection_and_quiet_nothing() {
    let serving = Serving::start(&["--verbose"]);
    let mut client = serving.connect();
    echoes(&mut client, b"hello");
    let peer = client.local_addr().expect("ours");
    drop(client);
    line_with(&serving.stderr, &format!("accept 1 from {peer}"));
    let close = line_with(&serving.stderr, &format!("close 1 from {peer}"));
    assert!(close.contains("peer_closed") && close.contains("5 bytes in, 5 out"));
    assert_eq!(serving.stop(), 0);

    // Quiet prints no ready line to wait for; the JSON one is the same on stdout.
    let mut child = sockeye(&["serve", "-l", "127.0.0.1:0", "--quiet", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let events = crate::support::lines(child.stdout.take().expect("piped"));
    line_with(&events, "listening");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("it runs");
    let output = crate::support::finish(child, Vec::new());
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn the_timeouts_close_with_their_names() {
    for (option, reason) in [
        ("--idle-timeout", "idle"),
        ("--first-byte-timeout", "first_byte_timeout"),
        ("--max-lifetime", "lifetime"),
    ] {
        let serving = Serving::start(&["--json", option, "50ms"]);
        let mut client = serving.connect();
        assert_eq!(client.read(&mut [0]).expect("FIN, not a reset"), 0);
        drop(client);
        let close = json(&line_with(&serving.stdout, r#""event":"close""#));
        assert_eq!(close["reason"], reason);
        assert_eq!(serving.stop(), 0);
    }
}

#[test]
fn timeouts_can_be_switched_off_in_words() {
    let serving = Serving::start(&[
        "--idle-timeout",
        "off",
        "--nodelay=false",
        "--backlog",
        "16",
    ]);
    echoes(&mut serving.connect(), b"hello");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_second_signal_cuts_what_the_first_would_have_let_finish() {
    let serving = Serving::start(&["--drain", "1h"]);
    let mut client = serving.connect();
    echoes(&mut client, b"hello");
    serving.signal(Signal::INT);
    let told = line_with(&serving.stderr, "draining");
    assert!(
        told.contains("1 open connection") && told.contains("3600 s"),
        "{told}"
    );
    echoes(&mut client, b"still served");
    serving.signal(Signal::INT);
    let cut = client.read(&mut [0]).expect_err("a reset");
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
    line_with(&serving.stderr, "stopped: 1 accepted, 1 cut");
    assert_eq!(serving.wait(), 130);
}

#[test]
fn hup_reloads_nothing_and_says_so() {
    let serving = Serving::start(&[]);
    serving.signal(Signal::HUP);
    line_with(&serving.stderr, "nothing has changed");
    echoes(&mut serving.connect(), b"still here");
    serving.signal(Signal::USR1);
    line_with(&serving.stderr, "1 accepted");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn at_the_limit_clients_wait_for_a_place() {
    let serving = Serving::start(&["--max-connections", "1"]);
    let mut first = serving.connect();
    echoes(&mut first, b"first");
    let mut second = serving.connect();
    second.write_all(b"x").expect("into the queue");
    echoes(&mut first, b"still alone");
    drop(first);
    let mut answer = [0];
    second.read_exact(&mut answer).expect("its turn");
    drop(second);
    assert_eq!(serving.stop(), 0);
}

/// The soft descriptor limit is 30, and it cannot be raised: 40 clients are too many, and none of them is lost.
#[test]
fn forty_clients_under_thirty_descriptors_are_all_served_in_the_end() {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -n 30 && exec \"$0\" serve -l 127.0.0.1:0 --workers 2",
        ])
        .arg(env!("CARGO_BIN_EXE_sockeye"))
        .env("NO_COLOR", "1");
    let serving = Serving::spawn(command);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| serving.connect()).collect();
    for client in &mut clients {
        client.write_all(b"x").expect("into the queue");
    }
    // Each that is served makes room for one that waits, in no particular order.
    for client in &clients {
        client.set_nonblocking(true).expect("set");
    }
    let until = std::time::Instant::now() + PATIENCE;
    while !clients.is_empty() {
        assert!(
            std::time::Instant::now() < until,
            "{} wait for ever",
            clients.len()
        );
        clients.retain_mut(|client| match client.read(&mut [0]) {
            Ok(1) => false,
            Ok(_) => panic!("closed without an answer"),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                true
            }
        });
        std::thread::yield_now();
    }
    echoes(&mut serving.connect(), b"and service goes on");
    assert_eq!(serving.stop(), 0);
}

/// The thread that writes holds stderr, and will for ever; the end of the program must not wait for it.
#[test]
fn a_stalled_reader_of_stderr_does_not_keep_the_server_from_ending() {
    let mut child = sockeye(&["serve", "-l", "127.0.0.1:0", "-v"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stderr = child.stderr.take().expect("piped");
    let mut ready = Vec::new();
    while !ready.ends_with(b"\n") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).expect("the ready line");
        ready.extend(byte);
    }
    let ready = text(&ready);
    let address = ready.split(' ').nth(2).expect("an address").to_owned();
    // More lines than a pipe holds.
    for _ in 0..1_000 {
        echoes(&mut TcpStream::connect(&address).expect("connects"), b"x");
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("it runs");
    let output = crate::support::finish(child, Vec::new());
    assert_eq!(output.status.code(), Some(0));
    drop(stderr);
}
