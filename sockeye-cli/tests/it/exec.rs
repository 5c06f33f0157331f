//! `serve exec`: a program for each connection. The tests of the table in docs/exec.md are named there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::Value;
use socket2::SockRef;
use sockeye::proxy_protocol::{Header, Tlv, Version};

use crate::support::{
    PATIENCE, Serving, json, line_with, run, sockeye, sockeye_whose_parent_ignores_children, text,
};

/// A server that tells all in JSON and runs a program.
fn exec(options: &[&str], program: &[&str]) -> Serving {
    Serving::start(&[&["exec", "--json"], options, &["--"], program].concat())
}

fn exec_over_tls(options: &[&str], program: &[&str]) -> Serving {
    exec(
        &[&["--tls-self-signed", "localhost"], options].concat(),
        program,
    )
}

/// What a client over TLS gets that sends this and then ends its direction.
fn over_tls(serving: &Serving, input: &[u8]) -> Output {
    let address = format!("tls://localhost:{}", serving.port());
    let arguments = ["connect", "--insecure", "--on-eof", "fin", &address];
    run(sockeye(&arguments), input)
}

/// All that comes, to the end.
fn rest(client: &mut impl Read) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).expect("a clean end");
    all
}

fn line(client: &mut impl Read) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, client)
        .read_line(&mut line)
        .expect("read");
    line.trim_end().to_owned()
}

fn event(serving: &Serving, name: &str) -> Value {
    json(&line_with(&serving.stdout, &format!(r#""event":"{name}""#)))
}

fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("set");
}

fn exists(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until a process is gone, which nothing tells who is not its parent.
fn is_gone_soon(pid: i64) {
    let patience = Instant::now() + PATIENCE;
    while exists(pid) {
        assert!(Instant::now() < patience, "process {pid} is still there");
        thread::sleep(Duration::from_millis(10));
    }
}

fn children(serving: &Serving) -> Vec<String> {
    let tasks = format!("/proc/{}/task", serving.pid().as_raw_nonzero());
    let tasks = fs::read_dir(tasks).expect("it runs");
    let lists = tasks.map(|task| {
        let path = task.expect("an entry").path().join("children");
        fs::read_to_string(path).unwrap_or_default()
    });
    let lists: Vec<String> = lists.collect();
    let pids = lists.iter().flat_map(|list| list.split_ascii_whitespace());
    pids.map(ToOwned::to_owned).collect()
}

fn has_no_children_soon(serving: &Serving) {
    let patience = Instant::now() + PATIENCE;
    while !children(serving).is_empty() {
        assert!(Instant::now() < patience, "{:?}", children(serving));
        thread::sleep(Duration::from_millis(10));
    }
}

fn descriptors(serving: &Serving) -> usize {
    let path = format!("/proc/{}/fd", serving.pid().as_raw_nonzero());
    fs::read_dir(path).expect("it runs").count()
}

/// What every program inherits from this one, for whoever has started this one meant it to.
fn inheritable() -> BTreeSet<u32> {
    let open = fs::read_dir("/proc/self/fdinfo").expect("ours");
    let open = open.filter_map(|entry| {
        let entry = entry.expect("an entry");
        // It may have been closed since.
        let info = fs::read_to_string(entry.path()).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        (flags & OFlags::CLOEXEC.bits() == 0).then_some(number)
    });
    open.collect()
}

fn is_usage_error(arguments: &[&str], words: &[&str]) {
    let output = run(sockeye(&[&["serve"], arguments].concat()), b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "no '{word}' in: {said}");
    }
}

fn variables(environment: &str) -> BTreeMap<String, String> {
    let pairs = environment.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

// What the program is told.

#[test]
fn a_program_finds_both_ends_of_its_connection_in_its_environment() {
    let serving = exec(&[], &["env"]);
    let mut client = serving.connect();
    let told = variables(&rest(&mut client));
    let (ours, theirs) = (client.local_addr().expect("ours"), serving.socket_address());
    for (address, port, end) in [
        ("TCPREMOTEIP", "TCPREMOTEPORT", ours),
        ("NCAT_REMOTE_ADDR", "NCAT_REMOTE_PORT", ours),
        ("SOCAT_PEERADDR", "SOCAT_PEERPORT", ours),
        ("REMOTE_ADDR", "REMOTE_PORT", ours),
        ("TCPLOCALIP", "TCPLOCALPORT", theirs),
        ("NCAT_LOCAL_ADDR", "NCAT_LOCAL_PORT", theirs),
        ("SOCAT_SOCKADDR", "SOCAT_SOCKPORT", theirs),
    ] {
        assert_eq!(told[address], end.ip().to_string(), "{address}");
        assert_eq!(told[port], end.port().to_string(), "{port}");
    }
    assert_eq!(
        (told["PROTO"].as_str(), told["NCAT_PROTO"].as_str()),
        ("TCP", "TCP")
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_the_server_was_started_with_is_not_taken_for_the_clients() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("env.sock");
    let unix = format!("unix:{}", path.display());
    let mut command = sockeye(&["serve", "-l", &unix, "exec", "--", "env"]);
    command
        .env("TCPREMOTEIP", "192.0.2.1")
        .env("SSL_CLIENT_S_DN", "CN=root");
    command.env("KEPT", "yes");
    let serving = Serving::spawn(command);
    let mut client = UnixStream::connect(&path).expect("connects");
    let told = variables(&rest(&mut client));
    assert_eq!(told["KEPT"], "yes");
    assert_eq!(told["PROTO"], "IPC");
    assert_eq!(told["IPCLOCALPATH"], path.to_str().expect("text"));
    let uid = rustix::process::geteuid().as_raw().to_string();
    assert_eq!(told["IPCREMOTEEUID"], uid);
    for name in ["TCPREMOTEIP", "SSL_CLIENT_S_DN", "REMOTE_ADDR"] {
        assert!(!told.contains_key(name), "{name}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn over_tls_the_session_is_told_too() {
    let serving = exec_over_tls(&[], &["env"]);
    let told = variables(&text(&over_tls(&serving, b"").stdout));
    assert_eq!(told["SSL_PROTOCOL"], "TLSv1.3");
    assert_eq!(told["SSL_TLS_SNI_SERVERNAME"], "localhost");
    assert!(told["SSL_CIPHER"].starts_with("TLS_"));
    assert_eq!(told["TCPREMOTEIP"], "127.0.0.1");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_client_behind_a_proxy_is_told_and_cannot_put_control_characters_anywhere() {
    let serving = exec(&["--proxy-protocol", "from=127.0.0.1"], &["env"]);
    let mut client = serving.connect();
    let (source, destination): (SocketAddr, SocketAddr) = (
        "192.0.2.7:50112".parse().expect("an address"),
        "[2001:db8::1]:443".parse().expect("an address"),
    );
    let source = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0207], source.port()));
    let hostile = "a$(reboot)\n\x1b]0;t\x07() { :; }\r\u{9b}b";
    let header =
        Header::proxied(Version::V2, source, destination).with_tlv(Tlv::Authority(hostile.into()));
    client
        .write_all(&header.encode().expect("fits"))
        .expect("sent");
    let environment = rest(&mut client);
    let told = variables(&environment);
    assert_eq!(told["TCPREMOTEIP"], "192.0.2.7");
    assert_eq!(told["REMOTE_PORT"], "50112");
    assert_eq!(told["TCPLOCALIP"], "2001:db8::1");
    assert_eq!(told["PROXY_AUTHORITY"], "a$(reboot)]0;t() { :; }b");
    let unwanted = environment.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(unwanted, None);
    // The header is no byte of the client's.
    assert_eq!(event(&serving, "close")["bytes_in"], 0);
    assert_eq!(serving.stop(), 0);
}

/// What these tools themselves tell a program, of the variables that are named after them.
#[test]
#[ignore = "needs ncat, socat and ucspi-tcp"]
fn the_variables_are_those_of_tcpserver_ncat_and_socat() {
    let theirs = |command: &mut Command, port: u16| {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let patience = Instant::now() + PATIENCE;
        let told = loop {
            assert!(Instant::now() < patience, "{command:?} does not listen");
            if let Ok(mut client) = TcpStream::connect(("::1", port))
                .or_else(|_| TcpStream::connect(("127.0.0.1", port)))
            {
                let mut all = String::new();
                // It may be the other one's turn to listen.
                if client.read_to_string(&mut all).is_ok() && !all.is_empty() {
                    break all;
                }
            }
            thread::sleep(Duration::from_millis(20));
        };
        let _ = child.kill();
        let _ = child.wait();
        variables(&told)
    };
    let free = || {
        let any = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        any.local_addr().expect("bound").port()
    };
    let names = |told: &BTreeMap<String, String>, prefixes: &[&str]| -> Vec<String> {
        let ours = |name: &&String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        told.keys().filter(ours).cloned().collect()
    };
    let v4 = exec(&[], &["env"]);
    let v6 = exec(&["-l", "[::1]:0"], &["env"]);
    let (v4, v6) = (
        variables(&rest(&mut v4.connect())),
        variables(&rest(&mut v6.connect())),
    );

    let port = free();
    let mut tcpserver = Command::new("tcpserver");
    tcpserver.args(["-HRl0", "127.0.0.1", &port.to_string(), "env"]);
    let told = theirs(&mut tcpserver, port);
    for name in ["PROTO", "TCPREMOTEIP", "TCPLOCALIP"] {
        assert_eq!(told[name], v4[name], "{name}");
    }
    assert_eq!(told["TCPLOCALPORT"], port.to_string());
    assert!(!told.contains_key("TCPREMOTEHOST") && !v4.contains_key("TCPREMOTEHOST"));

    let port = free();
    let mut ncat = Command::new("ncat");
    ncat.args([
        "-6",
        "-l",
        "-k",
        "::1",
        &port.to_string(),
        "-e",
        "/usr/bin/env",
    ]);
    let told = theirs(&mut ncat, port);
    assert_eq!(names(&told, &["NCAT_"]), names(&v6, &["NCAT_"]));
    for name in ["NCAT_REMOTE_ADDR", "NCAT_LOCAL_ADDR", "NCAT_PROTO"] {
        assert_eq!(told[name], v6[name], "{name}");
    }

    let port = free();
    let mut socat = Command::new("socat");
    socat.args([&format!("TCP6-LISTEN:{port},bind=[::1],fork"), "EXEC:env"]);
    let told = theirs(&mut socat, port);
    for name in ["SOCAT_PEERADDR", "SOCAT_SOCKADDR"] {
        assert_eq!(told[name], v6[name], "{name}");
    }
    assert_eq!(told["SOCAT_SOCKPORT"], port.to_string());
}

// When it ends.

#[test]
fn cat_gives_back_the_last_byte_after_the_clients_end() {
    let payload: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let serving = exec(&[], &["cat"]);
    let client = serving.connect();
    let mut sender = client.try_clone().expect("cloned");
    let sent = payload.clone();
    let sending = thread::spawn(move || {
        sender.write_all(&sent).expect("sent");
        sender.shutdown(Shutdown::Write).expect("FIN");
    });
    let mut back = Vec::new();
    (&client).read_to_end(&mut back).expect("a clean end");
    sending.join().expect("no panic");
    assert!(back == payload);
    let close = event(&serving, "close");
    assert_eq!(close["reason"], "peer_closed");
    // Counted by the kernel, not by us.
    assert_eq!(
        (&close["bytes_in"], &close["bytes_out"]),
        (&json("3000000"), &json("3000000"))
    );
    assert_eq!(serving.stop(), 0);

    let serving = exec_over_tls(&[], &["cat"]);
    let output = over_tls(&serving, &payload);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout == payload);
    let close = event(&serving, "close");
    assert_eq!(
        (&close["bytes_in"], &close["bytes_out"]),
        (&json("3000000"), &json("3000000"))
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_program_that_answers_after_the_clients_end_is_heard() {
    let program = ["sh", "-c", "wc -c; sleep 0.2; echo done"];
    let serving = exec(&[], &program);
    let mut client = serving.connect();
    client.write_all(b"12345").expect("sent");
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(rest(&mut client), "5\ndone\n");
    assert_eq!(serving.stop(), 0);
    let serving = exec_over_tls(&[], &program);
    assert_eq!(text(&over_tls(&serving, b"12345").stdout), "5\ndone\n");
    assert_eq!(serving.stop(), 0);
}

/// The program ends first, and what it said survives what the client was still sending.
#[test]
fn a_program_that_ends_first_ends_the_connection_and_its_last_words_arrive() {
    let program = [
        "sh",
        "-c",
        "head -c 1 >/dev/null; head -c 300000 /dev/zero | tr '\\0' x",
    ];
    let serving = exec(&[], &program);
    let mut client = serving.connect();
    client.write_all(&[b'y'; 100_000]).expect("sent");
    let answer = rest(&mut client);
    assert!(answer.len() == 300_000 && answer.bytes().all(|byte| byte == b'x'));
    drop(client);
    assert_eq!(event(&serving, "exit")["status"], 0);
    assert_eq!(event(&serving, "close")["reason"], "finished");
    assert_eq!(serving.stop(), 0);

    let serving = exec_over_tls(&[], &program);
    let output = over_tls(&serving, &[b'y'; 100_000]);
    assert_eq!(output.stdout.len(), 300_000);
    assert_eq!(serving.stop(), 0);
}

/// Over TLS the end of the program's output is passed on as it comes; over TCP the program has the socket, and so have we:
/// only shutdown(2) or its end says it.
#[test]
fn a_program_that_closes_its_output_and_goes_on() {
    let program = ["sh", "-c", "echo bye; exec <&- >&-; sleep 1000"];
    let serving = exec_over_tls(&["--drain", "0s"], &program);
    let output = over_tls(&serving, b"");
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "bye\n")
    );
    let pid = event(&serving, "start")["pid"].as_i64().expect("a number");
    assert!(exists(pid));
    assert_eq!(serving.stop(), 0);
    assert!(!exists(pid));
}

#[test]
fn a_client_that_resets_takes_its_program_with_it() {
    let serving = exec(&[], &["sh", "-c", "echo ready; sleep 1000; :"]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    reset(client);
    let exit = event(&serving, "exit");
    assert_eq!(exit["signal"], Signal::TERM.as_raw());
    assert_eq!(event(&serving, "close")["reason"], "reset");
    // Not only the shell, but also what the shell has started.
    assert_eq!(children(&serving), Vec::<String>::new());
    assert_eq!(serving.stop(), 0);
}

/// Whoever is told first of the reset, the account tells of it.
#[test]
fn a_reset_that_the_program_reads_first_is_a_reset() {
    let serving = exec(&[], &["sh", "-c", "echo ready; cat; echo over >&2"]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    reset(client);
    assert_eq!(event(&serving, "close")["reason"], "reset");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_client_over_tls_that_breaks_off_takes_its_program_with_it() {
    let serving = exec_over_tls(&[], &["sh", "-c", "echo ready; sleep 1000; :"]);
    let address = format!("tls://localhost:{}", serving.port());
    let mut client = sockeye(&["connect", "--insecure", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    assert_eq!(line(client.stdout.as_mut().expect("piped")), "ready");
    client.kill().expect("it runs");
    client.wait().expect("waited for");
    assert_eq!(event(&serving, "exit")["signal"], Signal::TERM.as_raw());
    assert_eq!(event(&serving, "close")["reason"], "truncated");
    assert_eq!(serving.stop(), 0);
}

/// A Unix socket that is closed is gone for good, and the kernel tells. The program sees the end of its input, and then has
/// ten seconds.
#[test]
fn a_client_of_a_unix_socket_that_closes_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("exec.sock");
    let unix = format!("unix:{}", path.display());
    let serving = exec(
        &["-l", &unix],
        &["sh", "-c", "cat >&2; echo end >&2; sleep 1000"],
    );
    let mut client = UnixStream::connect(&path).expect("connects");
    client.write_all(b"all of it\n").expect("sent");
    drop(client);
    line_with(&serving.stdout, "all of it");
    line_with(&serving.stdout, r#""text":"end""#);
    assert_eq!(event(&serving, "exit")["signal"], Signal::TERM.as_raw());
    assert_eq!(event(&serving, "close")["reason"], "peer_closed");
    assert_eq!(serving.stop(), 0);
}

/// A client that has closed without a word, or was switched off, is found by probes: they go on while the program has the
/// socket.
#[test]
fn the_socket_is_probed_while_the_program_has_it() {
    let serving = exec(&[], &["sh", "-c", "echo ready; sleep 1000"]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    let (port, ours) = (
        serving.socket_address().port(),
        client.local_addr().expect("ours").port(),
    );
    let table = fs::read_to_string("/proc/net/tcp").expect("readable");
    let ends = format!("0100007F:{port:04X} 0100007F:{ours:04X}");
    let entry = table
        .lines()
        .find(|line| line.contains(&ends))
        .expect("it is open");
    // The timer that runs: 02 is keepalive (proc(5)).
    let timer = entry.split_ascii_whitespace().nth(5).expect("a column");
    assert!(timer.starts_with("02:"), "{entry}");
    reset(client);
    event(&serving, "close");
}

#[test]
fn a_program_that_does_not_heed_term_is_killed() {
    let program = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let serving = exec(&["--kill-after", "100ms"], &["sh", "-c", program]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    reset(client);
    assert_eq!(event(&serving, "exit")["signal"], Signal::KILL.as_raw());
    assert_eq!(event(&serving, "close")["reason"], "reset");
    assert_eq!(children(&serving), Vec::<String>::new());
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_a_program_leaves_behind_is_ended() {
    let serving = exec(&[], &["sh", "-c", "sleep 1000 & echo $!"]);
    let left: i64 = rest(&mut serving.connect())
        .trim()
        .parse()
        .expect("a process");
    is_gone_soon(left);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn time_limits_end_the_program() {
    for (options, reason) in [
        (["--max-lifetime", "300ms"], "lifetime"),
        (["--idle-timeout", "300ms"], "idle"),
        (["--first-byte-timeout", "300ms"], "first_byte_timeout"),
    ] {
        let serving = exec(&options, &["cat"]);
        let mut client = serving.connect();
        assert_eq!(rest(&mut client), "");
        drop(client);
        assert_eq!(event(&serving, "close")["reason"], reason);
        has_no_children_soon(&serving);
        assert_eq!(serving.stop(), 0);
    }
}

/// Of a socket that the program has itself the kernel tells whether bytes move.
#[test]
fn a_client_that_has_said_something_has_said_its_first_byte() {
    let serving = exec(
        &["--first-byte-timeout", "2s"],
        &["sh", "-c", "read line; sleep 3; echo $line"],
    );
    let mut client = serving.connect();
    client.write_all(b"hello\n").expect("sent");
    assert_eq!(rest(&mut client), "hello\n");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_drain_waits_for_programs_and_then_ends_them() {
    let serving = exec(&["--drain", "20s"], &["sh", "-c", "read line; echo $line"]);
    let mut client = serving.connect();
    event(&serving, "start");
    serving.signal(Signal::TERM);
    event(&serving, "drain");
    client.write_all(b"in time\n").expect("sent");
    assert_eq!(rest(&mut client), "in time\n");
    drop(client);
    assert_eq!(serving.wait(), 0);

    let serving = exec(&["--drain", "100ms"], &["sh", "-c", "sleep 1000; :"]);
    let _client = serving.connect();
    let pid = event(&serving, "start")["pid"].as_i64().expect("a number");
    serving.signal(Signal::TERM);
    let told: Vec<Value> = serving.stdout.iter().map(|line| json(&line)).collect();
    let of = |name: &str| told.iter().find(|event| event["event"] == name);
    let (close, exit) = (of("close").expect("told"), of("exit").expect("told"));
    assert_eq!(close["reason"], "aborted");
    assert_eq!(exit["signal"], Signal::TERM.as_raw());
    // Not before every program is gone does the server say that it has stopped.
    assert_eq!(told.last().expect("some")["event"], "stopped");
    assert_eq!(serving.wait(), 0);
    assert!(!exists(pid));
}

#[test]
fn a_second_signal_ends_the_programs_and_the_server_waits_for_kill() {
    let program = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let serving = exec(&["--kill-after", "100ms"], &["sh", "-c", program]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    let pid = event(&serving, "start")["pid"].as_i64().expect("a number");
    serving.signal(Signal::TERM);
    event(&serving, "drain");
    serving.signal(Signal::TERM);
    assert_eq!(event(&serving, "exit")["signal"], Signal::KILL.as_raw());
    assert_eq!(serving.wait(), 130);
    assert!(!exists(pid));
}

// What it costs, and what it inherits.

#[test]
fn after_a_thousand_connections_there_is_no_zombie_and_no_descriptor_more() {
    const CLIENTS: usize = 1_000;
    let serving = exec(&[], &["sh", "-c", "read line; echo $line"]);
    let address = serving.socket_address();
    let visit = |number: usize| {
        let mut client = TcpStream::connect(address).expect("connects");
        client.set_read_timeout(Some(PATIENCE)).expect("set");
        if number.is_multiple_of(4) {
            reset(client);
        } else {
            client.write_all(b"hello\n").expect("sent");
            assert_eq!(rest(&mut client), "hello\n");
        }
    };
    visit(1);
    event(&serving, "close");
    let before = descriptors(&serving);
    thread::scope(|scope| {
        for part in 0..8 {
            let visit = &visit;
            scope.spawn(move || (part..CLIENTS).step_by(8).for_each(visit));
        }
    });
    for _ in 0..CLIENTS {
        event(&serving, "close");
    }
    assert_eq!(children(&serving), Vec::<String>::new());
    assert_eq!(descriptors(&serving), before);
    serving.signal(Signal::USR1);
    let snapshot = event(&serving, "snapshot");
    assert_eq!(
        (&snapshot["open"], &snapshot["closed"]),
        (&json("0"), &json("1001"))
    );
    assert_eq!(serving.stop(), 0);
}

/// Who has the socket is woken for what comes on it, and nobody else.
#[test]
fn what_a_client_sends_does_not_wake_the_server() {
    let serving = exec(&[], &["sh", "-c", "head -c 1; cat >/dev/null"]);
    let mut client = serving.connect();
    client.write_all(b"!").expect("sent");
    client.read_exact(&mut [0]).expect("it runs");
    let before = wakeups(&serving);
    // Each segment woke it once: some 800 of them.
    client.write_all(&vec![7; 64 << 20]).expect("sent");
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(rest(&mut client), "");
    let woken = wakeups(&serving) - before;
    assert!(woken < 100, "{woken} times");
    assert_eq!(serving.stop(), 0);
}

/// Times that a thread of the server has waited (proc(5), `voluntary_ctxt_switches`).
fn wakeups(serving: &Serving) -> u64 {
    let tasks = format!("/proc/{}/task", serving.pid().as_raw_nonzero());
    let of = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).expect("it runs");
        let times = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        times
            .expect("counted")
            .trim()
            .parse::<u64>()
            .expect("a number")
    };
    let tasks = fs::read_dir(tasks).expect("it runs");
    tasks.map(|task| of(task.expect("read"))).sum()
}

#[test]
fn a_program_gets_three_descriptors_blocking_and_the_usual_signals() {
    let script = "ls /proc/self/fd; cat /proc/self/fdinfo/0; cat /proc/self/status";
    for options in [&[][..], &["--tls-self-signed", "localhost"]] {
        let serving = exec(options, &["sh", "-c", script]);
        // Others are there at the same time.
        let others: Vec<TcpStream> = (0..5).map(|_| serving.connect()).collect();
        let said = match options {
            [] => rest(&mut serving.connect()),
            _ => text(&over_tls(&serving, b"").stdout),
        };
        let (listed, rest) = said.split_once("pos:").expect("both");
        let has: BTreeSet<u32> = listed
            .lines()
            .map(|n| n.parse().expect("a number"))
            .collect();
        let mut expected = inheritable();
        expected.extend([0, 1, 2]);
        // One more is what ls itself has opened to look: the first that is free.
        expected.extend((3..).find(|n| !expected.contains(n)));
        assert_eq!(has, expected, "{rest}");
        let of = |name: &str| {
            let line = said.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_ascii_whitespace().nth(1));
            value
                .unwrap_or_else(|| panic!("no {name} in {said}"))
                .to_owned()
        };
        let flags = u32::from_str_radix(&of("flags:"), 8).expect("octal");
        assert_eq!(flags & OFlags::NONBLOCK.bits(), 0);
        // Two above the usual 31 are the C library's own; it ignores them in what it starts.
        let usual = |mask: &str| u64::from_str_radix(mask, 16).expect("hexadecimal") & 0x7fff_ffff;
        assert_eq!(usual(&of("SigBlk:")), 0);
        // What we were started with, as a shell ignores SIGQUIT in the background; but for SIGPIPE, and what the server heeds.
        let ours = fs::read_to_string("/proc/self/status").expect("ours");
        let ours = ours.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ours = usual(ours.expect("a mask").trim());
        let heeded = [
            Signal::HUP,
            Signal::INT,
            Signal::TERM,
            Signal::USR1,
            Signal::PIPE,
        ];
        let heeded = heeded.map(|signal| 1_u64 << (signal.as_raw() - 1));
        assert_eq!(usual(&of("SigIgn:")), ours & !heeded.iter().sum::<u64>());
        drop(others);
        assert_eq!(serving.stop(), 0);
    }
}

#[test]
fn how_a_program_ends_is_known_whoever_has_started_the_server() {
    let serve = ["serve", "exec", "-l", "127.0.0.1:0", "--json", "--"];
    let program = ["sh", "-c", "grep SigIgn /proc/self/status; exit 3"];
    let command = sockeye_whose_parent_ignores_children(&[&serve[..], &program].concat());
    let serving = Serving::spawn(command);
    // Nor does the program inherit it: SIGCHLD is 17.
    let ignored = rest(&mut serving.connect());
    let mask = ignored.trim().rsplit('\t').next().expect("a mask");
    let mask = u64::from_str_radix(mask, 16).expect("a number");
    assert_eq!(mask >> 16 & 1, 0, "{ignored}");
    assert_eq!(event(&serving, "exit")["status"], 3);
    assert_eq!(event(&serving, "close")["reason"], "finished");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_program_gets_the_descriptor_limit_that_the_server_was_started_with() {
    // With the soft limit of a distribution none has to be raised; with 64 there are too few for the server.
    for (soft, hard) in [(1024, 4096), (64, 4096)] {
        let server = env!("CARGO_BIN_EXE_sockeye");
        let mut command = Command::new("sh");
        command.args(["-c", &format!(
            "ulimit -Sn {soft}; ulimit -Hn {hard}; exec {server} serve -l 127.0.0.1:0 --json exec -- \
             sh -c 'read line; ulimit -Sn; ulimit -Hn'"
        )]);
        let serving = Serving::spawn(command);
        let mut client = serving.connect();
        event(&serving, "start");
        client.write_all(b"\n").expect("sent");
        assert_eq!(rest(&mut client), format!("{soft}\n{hard}\n"));
        assert_eq!(serving.stop(), 0);
    }
}

#[test]
fn more_connections_than_there_are_descriptors_for_are_not_promised() {
    is_usage_error(
        &["exec", "--max-connections", "1000000000", "--", "true"],
        &["descriptors", "--max-connections"],
    );
}

#[test]
fn as_many_programs_run_as_connections_are_allowed() {
    let serving = exec(&["--max-connections", "1", "--workers", "2"], &["cat"]);
    let first = serving.connect();
    event(&serving, "start");
    let mut second = serving.connect();
    second.write_all(b"waits").expect("sent");
    second.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(children(&serving).len(), 1);
    drop(first);
    assert_eq!(rest(&mut second), "waits");
    assert_eq!(serving.stop(), 0);
}

// What it says.

#[test]
fn stderr_goes_to_the_log_line_by_line_and_escaped() {
    let program = [
        "sh",
        "-c",
        r"printf 'one\n\033[31mtwo\007\nthree' >&2; echo out",
    ];
    let serving = exec(&[], &program);
    assert_eq!(rest(&mut serving.connect()), "out\n");
    for expected in ["one", "\\u{1b}[31mtwo\\u{7}", "three"] {
        let said = event(&serving, "stderr");
        assert_eq!(
            (&said["id"], said["text"].as_str()),
            (&json("1"), Some(expected))
        );
    }
    line_with(&serving.stderr, "stderr 1: \\u{1b}[31mtwo\\u{7}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn stderr_can_be_left_as_it_is_or_thrown_away() {
    let program = ["sh", "-c", "echo words >&2; echo done"];
    for (to, is_told) in [("inherit", true), ("null", false), ("log", true)] {
        let serving = Serving::start(&[&["exec", "--stderr", to, "--"], &program[..]].concat());
        assert_eq!(rest(&mut serving.connect()), "done\n");
        serving.signal(Signal::TERM);
        let said: Vec<String> = serving.stderr.iter().collect();
        let expected = if to == "log" {
            "stderr 1: words"
        } else {
            "words"
        };
        assert_eq!(
            said.iter().any(|line| line == expected),
            is_told,
            "{to}: {said:?}"
        );
    }
}

#[test]
fn starts_and_exits_are_told_with_v() {
    let serving = Serving::start(&["exec", "-v", "--", "sh", "-c", "exit 3"]);
    rest(&mut serving.connect());
    let started = line_with(&serving.stderr, "start 1: process ");
    let pid = started.rsplit_once(' ').expect("words").1.to_owned();
    line_with(
        &serving.stderr,
        &format!("exit 1: process {pid} with status 3 after "),
    );
    assert_eq!(serving.stop(), 0);
}

// Which program it is.

#[test]
fn without_a_shell_nothing_is_expanded_and_with_it_one_argument_is_a_command_line() {
    let serving = exec(&[], &["echo", "$HOME", "*", "a  b"]);
    assert_eq!(rest(&mut serving.connect()), "$HOME * a  b\n");
    assert_eq!(serving.stop(), 0);
    let serving = exec(&["--shell"], &["echo hello | tr a-z A-Z"]);
    assert_eq!(rest(&mut serving.connect()), "HELLO\n");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_cannot_be_run_is_an_error_before_anything_listens() {
    is_usage_error(&["exec"], &["no program", "--"]);
    is_usage_error(
        &["exec", "--", "no-such-program"],
        &["cannot run 'no-such-program'", "hint:", "--shell"],
    );
    is_usage_error(
        &["exec", "--", "/etc/passwd"],
        &["/etc/passwd", "ermission"],
    );
    is_usage_error(&["exec", "--shell", "--", "echo", "a"], &["one argument"]);
    is_usage_error(
        &["exec", "--pty", "--stderr", "log", "--", "cat"],
        &["--stderr"],
    );
    for option in [
        &["--shell"][..],
        &["--pty"],
        &["--kill-after", "1s"],
        &["--stderr", "log"],
    ] {
        is_usage_error(
            &[&["echo"], option].concat(),
            &["'serve echo' has no use for", "it is for 'serve exec'"],
        );
    }
    is_usage_error(
        &["echo", "--", "cat"],
        &["has no use for what stands after --"],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}/exec.sock", folder.path().display());
    is_usage_error(
        &["exec", "-l", &unix, "--idle-timeout", "1s", "--", "cat"],
        &["--idle-timeout", "--max-lifetime"],
    );
}

#[test]
fn a_program_that_is_not_there_any_more_closes_the_connection_and_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("program");
    symlink("/bin/true", &program).expect("linked");
    let serving = exec(&[], &[program.to_str().expect("text")]);
    fs::remove_file(&program).expect("removed");
    assert_eq!(rest(&mut serving.connect()), "");
    let told = line_with(&serving.stderr, "cannot start '");
    assert!(
        told.contains("No such file") && told.contains("(1 times)"),
        "{told}"
    );
    let failed = event(&serving, "exec_error");
    assert_eq!(
        (&failed["id"], &failed["failures"]),
        (&json("1"), &json("1"))
    );
    assert_eq!(event(&serving, "close")["reason"], "error");
    // And it goes on when the program is there again.
    symlink("/bin/true", &program).expect("linked");
    rest(&mut serving.connect());
    event(&serving, "start");
    assert_eq!(serving.stop(), 0);
}

// On a terminal.

#[test]
fn on_a_terminal_a_program_has_it_for_its_own() {
    let script = "tty; stty size; ps -o tpgid=,pgid= -p $$ | awk '{print ($1 == $2)}'";
    let serving = exec(&["--pty"], &["sh", "-c", script]);
    let said = rest(&mut serving.connect());
    assert!(said.starts_with("/dev/pts/"), "{said}");
    assert!(said.contains("\r\n24 80\r\n"), "{said}");
    assert_eq!(event(&serving, "exit")["status"], 0);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn ctrl_c_interrupts_a_program_on_a_terminal() {
    let program = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let serving = exec(&["--pty"], &["sh", "-c", program]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    client.write_all(b"\x03").expect("typed");
    assert!(rest(&mut client).contains("caught"));
    assert_eq!(event(&serving, "exit")["status"], 7);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_clients_end_is_ctrl_d_on_a_terminal_and_the_answer_still_arrives() {
    let serving = exec(
        &["--pty"],
        &["sh", "-c", "stty -echo; echo ready; cat; echo end"],
    );
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    // In the midst of a line: all of it arrives.
    client.write_all(b"hello").expect("typed");
    client.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(rest(&mut client), "helloend\r\n");
    assert_eq!(serving.stop(), 0);

    let serving = exec_over_tls(&["--pty"], &["sh", "-c", "stty -echo; cat; echo end"]);
    assert!(text(&over_tls(&serving, b"hello\n").stdout).ends_with("end\r\n"));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_client_that_resets_takes_its_terminal_with_it() {
    let serving = exec(&["--pty"], &["sh", "-c", "echo ready; sleep 1000; :"]);
    let mut client = serving.connect();
    assert_eq!(line(&mut client), "ready");
    reset(client);
    event(&serving, "exit");
    assert_eq!(event(&serving, "close")["reason"], "reset");
    assert_eq!(children(&serving), Vec::<String>::new());
    assert_eq!(serving.stop(), 0);
}
