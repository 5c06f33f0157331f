use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{PATIENCE, Serving, finish, line_with, lines, run, sockeye, text};

pub(crate) fn connect(arguments: &[&str], input: &[u8]) -> Output {
    run(sockeye(&[&["connect"], arguments].concat()), input)
}

/// A `sockeye connect` whose input and outputs are in the test's hands.
pub(crate) fn start(arguments: &[&str]) -> Child {
    sockeye(&[&["connect"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// A server of one connection: its address, and what it makes of the connection.
pub(crate) fn serve_one<T: Send + 'static>(
    talk: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (String, std::thread::JoinHandle<T>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        talk(stream)
    });
    (address, server)
}

pub(crate) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("read");
    all
}

/// A port where nobody listens while the listener that gave it is alive and bound, but not listening.
pub(crate) fn closed_port() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("binds");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    (socket, address.to_string())
}

#[test]
fn what_goes_in_comes_back_byte_for_byte() {
    let serving = Serving::start(&[]);
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    let port = serving.port();
    for address in [
        vec![serving.address.as_str()],
        vec!["127.0.0.1", &port],
        vec!["--ipv4", "localhost", &port],
    ] {
        let output = connect(&address, &every_byte);
        assert_eq!(output.status.code(), Some(0), "{address:?}");
        assert!(output.stdout == every_byte, "{address:?}");
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn every_address_form_reaches_its_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}", folder.path().join("s.sock").display());
    let serving = Serving::start(&["-l", ":0", "-l", &unix]);
    let all = &serving.address;
    let port = all.rsplit_once(':').expect("a port").1;
    for address in [
        format!("127.0.0.1:{port}"),
        format!("tcp://127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        format!(":{port}"),
        unix,
    ] {
        let output = connect(&[&address], b"hello");
        assert_eq!(
            text(&output.stdout),
            "hello",
            "{address}: {}",
            text(&output.stderr)
        );
    }
    for host in ["::1", "[::1]"] {
        let output = connect(&["--ipv6", host, port], b"hello");
        assert_eq!(text(&output.stdout), "hello");
    }
}

#[test]
fn bad_input_is_exit_code_2() {
    for (arguments, word) in [
        (vec!["127.0.0.1"], "port is missing"),
        (vec!["127.0.0.1", "http80"], "http80"),
        (vec!["127.0.0.1:0"], "port 0"),
        (vec!["127.0.0.1:80", "81"], "bad host"),
        (vec!["ssl://127.0.0.1:80"], "ssl://"),
        (
            vec!["--ca", "/no/such/file", "127.0.0.1:80"],
            "--ca is for TLS",
        ),
        (
            vec!["--ca", "/no/such/file", "tls://127.0.0.1:80"],
            "/no/such/file",
        ),
        (
            vec!["--pin", "sha256:12", "tls://127.0.0.1:80"],
            "64 hexadecimal",
        ),
        (vec!["--key", "x", "tls://127.0.0.1:80"], "--cert"),
        (vec!["--tls", "unix:/tmp/x"], "--server-name"),
        (vec!["tls://unix:/tmp/x"], "--server-name"),
        (
            vec!["--starttls", "smtp", "tls://127.0.0.1:80"],
            "without tls://",
        ),
        (
            vec!["--alpn", "h2, http/1.1", "tls://127.0.0.1:80"],
            "without spaces",
        ),
        (
            vec!["--send-proxy", "v2,local,from=1.2.3.4:5", "127.0.0.1:80"],
            "without from=",
        ),
        (vec!["--starttls", "ftp", "127.0.0.1:80"], "postgres"),
        (
            vec!["--insecure", "--pin", "x", "tls://127.0.0.1:80"],
            "--pin",
        ),
        (vec!["--send-proxy", "v3", "127.0.0.1:80"], "v1 or v2"),
        (vec!["--send-proxy", "v1,local", "127.0.0.1:80"], "only v2"),
        (
            vec!["--send-proxy", "v1,alpn=h2", "127.0.0.1:80"],
            "no TLVs",
        ),
        (
            vec!["--send-proxy", "v2,from=here", "127.0.0.1:80"],
            "IP:PORT",
        ),
        (vec!["--send", "a\\q", "127.0.0.1:80"], "byte 1"),
        (
            vec!["--send", "\\x4", "127.0.0.1:80"],
            "two hexadecimal digits",
        ),
        (
            vec!["--send-file", "/no/such/file", "127.0.0.1:80"],
            "/no/such/file",
        ),
        (vec!["--send-file", "/", "127.0.0.1:80"], "'/'"),
        (vec!["--on-eof", "later", "127.0.0.1:80"], "wait=TIME"),
        (vec!["--source", "here", "127.0.0.1:80"], "here"),
        (vec!["--json", "127.0.0.1:80"], "--explain"),
        (vec!["--recv-bytes", "0", "127.0.0.1:80"], "--recv-bytes"),
        (
            vec!["--probe", "--hex", "127.0.0.1:80"],
            "cannot be used with",
        ),
        (vec!["-4", "-6", "127.0.0.1:80"], "cannot be used with"),
        (vec![], "required"),
    ] {
        let output = connect(&arguments, b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn what_is_wrong_with_the_network_has_curls_exit_code() {
    let (_held, closed) = closed_port();
    let refused = connect(&[&closed], b"");
    assert_eq!(refused.status.code(), Some(7));
    let said = text(&refused.stderr);
    assert!(
        said.contains(&closed) && said.contains("refused") && said.contains("hint:"),
        "{said}"
    );

    let unknown = connect(&["no-such-name.invalid", "80"], b"");
    assert_eq!(unknown.status.code(), Some(6));
    assert!(text(&unknown.stderr).contains("no-such-name.invalid"));

    let wrong_family = connect(&["-6", "127.0.0.1:80"], b"");
    assert_eq!(wrong_family.status.code(), Some(6));

    let missing = connect(&["unix:/no/such/socket"], b"");
    assert_eq!(missing.status.code(), Some(7));
}

/// A listen queue of one that is full drops every SYN.
#[test]
fn a_server_that_does_not_answer_is_exit_code_28() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("binds");
    socket.listen(0).expect("listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queue.push(stream);
    }
    let output = connect(&["--timeout", "100ms", &address.to_string()], b"");
    assert_eq!(output.status.code(), Some(28), "{}", text(&output.stderr));
    let output = connect(
        &["--timeout", "100ms", "--probe", &address.to_string()],
        b"",
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("no answer within 100ms"));
}

#[test]
fn our_fin_is_passed_on_and_the_answer_that_comes_after_it_arrives() {
    let (address, server) = serve_one(|mut stream| {
        let asked = read_all(&stream);
        stream.write_all(&vec![7; 300_000]).expect("sent");
        asked
    });
    let output = connect(&[&address], b"question");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.len(), 300_000);
    assert_eq!(server.join().expect("no panic"), b"question");
}

#[test]
fn the_peers_fin_ends_it_though_our_input_goes_on() {
    let (address, server) = serve_one(|mut stream| stream.write_all(b"bye").expect("sent"));
    let mut child = start(&[&address]);
    let held_open = child.stdin.take();
    let output = finish(child, Vec::new());
    drop(held_open);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "bye".to_owned())
    );
    server.join().expect("no panic");
}

#[test]
fn keep_open_goes_on_sending_after_the_peers_fin() {
    let (address, server) = serve_one(|mut stream| {
        stream.write_all(b"bye").expect("sent");
        stream.shutdown(Shutdown::Write).expect("FIN");
        read_all(&stream)
    });
    let mut child = start(&["--keep-open", &address]);
    let mut said = [0; 3];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut said).expect("delivered");
    let output = finish(child, b"after your FIN".to_vec());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(server.join().expect("no panic"), b"after your FIN");
}

#[test]
fn a_reset_delivers_what_came_and_is_exit_code_56() {
    let (address, server) = serve_one(|mut stream| {
        stream.write_all(b"as far as this").expect("sent");
        // The reset comes when the client has shown that it has read.
        stream.read_exact(&mut [0; 2]).expect("read");
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("set");
    });
    let mut child = start(&["--explain", "--json", &address]);
    let mut said = [0; 14];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut said).expect("delivered");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"ok").expect("taken");
    let output = finish(child, Vec::new());
    drop(stdin);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(56), "{stderr}");
    let account: Value =
        serde_json::from_str(stderr.lines().next().expect("a line")).expect("JSON");
    assert_eq!(account["ending"], "receive_failed");
    assert_eq!(account["closed_first"], "peer");
    assert_eq!(&said, b"as far as this");
    server.join().expect("no panic");
}

#[test]
fn on_eof_decides_what_the_end_of_the_input_does() {
    // exit: ends though the server says nothing; all that was sent has arrived.
    let (address, server) = serve_one(|stream| read_all(&stream));
    let output = connect(&["--on-eof", "exit", &address], b"all of this");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(server.join().expect("no panic"), b"all of this");

    // wait: ends after the time though the server never closes.
    let (address, server) = serve_one(|stream| {
        let all = read_all(&stream);
        (all, stream)
    });
    let output = connect(&["--on-eof", "wait=50ms", &address], b"all of this");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(server.join().expect("no panic").0, b"all of this");

    // keep: the server sees no FIN before it closes itself.
    let (address, server) = serve_one(|mut stream| {
        stream.read_exact(&mut [0; 11]).expect("read");
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("set");
        stream.read(&mut [0]).map_err(|error| error.kind())
    });
    let output = connect(&["--on-eof", "keep", &address], b"all of this");
    assert_eq!(output.status.code(), Some(0));
    let nothing = server.join().expect("no panic");
    assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
}

#[test]
fn nothing_moving_for_the_idle_timeout_is_exit_code_28() {
    let (address, server) = serve_one(|stream| read_all(&stream));
    let output = connect(
        &["--idle-timeout", "60ms", "--on-eof", "keep", &address],
        b"hello",
    );
    assert_eq!(output.status.code(), Some(28));
    assert!(text(&output.stderr).contains("nothing moved"));
    assert_eq!(server.join().expect("no panic"), b"hello");
}

#[test]
fn recv_bytes_ends_after_exactly_so_many() {
    let serving = Serving::start(&["chargen"]);
    // chargen ends with our input, and may hear of that before it has begun.
    let keep = ["--on-eof", "keep", &serving.address];
    let output = connect(&[&["--recv-bytes", "100000"][..], &keep].concat(), b"");
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(0), 100_000)
    );

    let serving = Serving::start(&["time"]);
    let short = connect(&["--recv-bytes", "5", &serving.address], b"");
    assert_eq!((short.status.code(), short.stdout.len()), (Some(56), 4));
    assert!(text(&short.stderr).contains("4 of 5 bytes"));
}

#[test]
fn send_and_send_file_take_the_place_of_stdin() {
    let serving = Serving::start(&[]);
    let arguments = [
        "--send",
        r"GET\x20/\r\n\t\0\\",
        "--send",
        "more",
        &serving.address,
    ];
    let output = connect(&arguments, b"not this");
    assert_eq!(output.stdout, b"GET /\r\n\t\0\\more");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("payload");
    std::fs::write(&path, b"from a file\n").expect("written");
    let path = path.to_str().expect("UTF-8");
    let output = connect(&["--send-file", path, "--crlf", &serving.address], b"");
    assert_eq!(output.stdout, b"from a file\r\n");
}

#[test]
fn hex_shows_bytes_as_hexdump_does() {
    let serving = Serving::start(&[]);
    let output = connect(
        &[
            "--hex",
            "--send",
            r"0123456789abcdef\x00\r\n\xff",
            &serving.address,
        ],
        b"",
    );
    let expected = "\
00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|
00000010  00 0d 0a ff                                       |....|
";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn a_probe_answers_on_stdout_and_by_its_exit_code() {
    let serving = Serving::start(&[]);
    let (_held, closed) = closed_port();
    let open = connect(&["--probe", &serving.address], b"");
    assert_eq!(open.status.code(), Some(0));
    assert!(text(&open.stdout).starts_with(&format!("{} open after ", serving.address)));
    let no = connect(&["--probe", &closed], b"");
    assert_eq!(no.status.code(), Some(1));
    assert!(text(&no.stdout).contains("refused") && no.stderr.is_empty());
    let json = connect(&["--probe", "--json", &closed], b"");
    let answer: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(
        (&answer["open"], &answer["peer"]),
        (&Value::Bool(false), &Value::Null)
    );
    let unknown = connect(&["--probe", "no-such-name.invalid:1"], b"");
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(6), 0));
    let unknown = connect(&["--probe", "--json", "no-such-name.invalid:1"], b"");
    assert_eq!(unknown.status.code(), Some(6));
    let answer: Value = serde_json::from_slice(&unknown.stdout).expect("JSON");
    assert_eq!(answer["open"], false);
    let quiet = connect(&["--probe", "-q", &serving.address], b"");
    assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(0), 0));
}

#[test]
fn wait_for_tries_again_until_somebody_listens() {
    let (held, address) = closed_port();
    let child = sockeye(&[
        "connect",
        "--wait-for",
        "20s",
        "-v",
        "--send",
        "hello",
        &address,
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn();
    let mut child = child.expect("starts");
    let stderr = lines(child.stderr.take().expect("piped"));
    line_with(&stderr, "trying again");
    held.listen(1).expect("listens now");
    let listener = TcpListener::from(held);
    let (stream, _) = listener.accept().expect("accepts");
    assert_eq!(read_all(&stream), b"hello");
    drop(stream);
    assert_eq!(finish(child, Vec::new()).status.code(), Some(0));

    let (_held, address) = closed_port();
    let started = std::time::Instant::now();
    let output = connect(&["--wait-for", "250ms", &address], b"");
    assert_eq!(output.status.code(), Some(28), "{}", text(&output.stderr));
    assert!(started.elapsed() >= Duration::from_millis(250));
    let output = connect(&["--wait-for", "10ms", "no-such-name.invalid:1"], b"");
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
}

#[test]
fn explain_tells_the_story_in_words_and_in_json() {
    let serving = Serving::start(&[]);
    let address = serving.address.as_str();
    let output = connect(&["--explain", "--source", "127.0.0.9", address], b"hello");
    let story = text(&output.stderr);
    for part in [
        &format!("tried      {address} at "),
        "connected  127.0.0.9:",
        "sent       5 bytes",
        "received   5 bytes, the first after ",
        "peer closed; we closed our side first",
        "tcp        ",
        "round trip",
    ] {
        assert!(story.contains(part), "no '{part}' in: {story}");
    }
    assert_eq!(text(&output.stdout), "hello", "stdout is data");

    let output = connect(&["--explain", "--json", address], b"hello");
    let account: Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(
        (&account["connected"], &account["ending"]),
        (&Value::Bool(true), &"peer_closed".into())
    );
    assert_eq!(
        (&account["bytes_sent"], &account["bytes_received"]),
        (&5.into(), &5.into())
    );
    assert_eq!(account["attempts"][0]["outcome"], "connected");
    assert_eq!(
        account["tcp_info"]["bytes_acked"], 7,
        "SYN and FIN count as one each"
    );

    let (_held, closed) = closed_port();
    let output = connect(&["--explain", "--json", &closed], b"");
    let account: Value = serde_json::from_slice(&output.stderr).expect("JSON and nothing else");
    assert!(
        account["error"]
            .as_str()
            .is_some_and(|error| error.contains("refused"))
    );
    assert_eq!(
        (&account["connected"], &account["ending"]),
        (&Value::Bool(false), &"not_connected".into())
    );
    assert_eq!(account["attempts"][0]["outcome"], "failed");
}

#[test]
fn ctrl_c_is_exit_code_130_and_explain_still_tells() {
    let (address, server) = serve_one(|mut stream| {
        stream.write_all(b"hello").expect("sent");
        stream.read(&mut [0]).map(drop)
    });
    let mut child = start(&["--explain", &address]);
    let mut said = [0; 5];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut said).expect("delivered");
    let held_open = child.stdin.take();
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = finish(child, Vec::new());
    drop(held_open);
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("interrupted"));
    server.join().expect("no panic").expect("FIN");
}

#[test]
fn what_came_before_a_signal_is_delivered() {
    // Four of them are more than a pipe holds, and less than what can be on the way to stdout, however they are read.
    static PIECE: [u8; 60_000] = [7; 60_000];
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (came, has_come) = mpsc::channel();
        let (address, server) = serve_one(move |mut stream| {
            for () in has_come {
                stream.write_all(&PIECE).expect("sent");
            }
            // Who does not wait for stdout has left by then.
            let little = stream.set_read_timeout(Some(Duration::from_millis(100)));
            little.expect("set");
            let _ = stream.read(&mut [0]);
            stream
        });
        let copy = ["--tee-in", "/dev/stderr", "--idle-timeout", "20s"];
        let mut child = start(&[&copy[..], &["-q", &address]].concat());
        let held_open = child.stdin.take();
        let mut stderr = child.stderr.take().expect("piped");
        for _ in 0..4 {
            came.send(()).expect("it waits");
            let mut piece = vec![0; PIECE.len()];
            stderr.read_exact(&mut piece).expect("it came");
        }
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        drop(came);
        let stream = server.join().expect("no panic");
        let output = finish(child, Vec::new());
        drop((held_open, stream));
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(output.stdout.len(), 4 * PIECE.len());
    }
}

#[test]
fn a_closed_stdout_is_success() {
    let serving = Serving::start(&["chargen"]);
    let mut child = start(&[&serving.address]);
    let held_open = child.stdin.take();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 100]).expect("read");
    drop(stdout);
    let output = finish(child, Vec::new());
    drop(held_open);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

/// The kernel tells of a reset once, to whichever of a write and a read comes first.
#[test]
fn a_reset_while_we_send_is_exit_code_56_every_time() {
    let payload = vec![0; 32 << 20];
    for _ in 0..10 {
        let (address, server) = serve_one(|mut stream| {
            stream.read_exact(&mut [0; 1_000]).expect("read");
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("set");
        });
        let output = connect(&[&address], &payload);
        assert_eq!(output.status.code(), Some(56));
        server.join().expect("no panic");
    }
}

#[test]
fn keep_open_tells_when_the_peer_does_not_take_what_we_go_on_to_send() {
    let (address, server) = serve_one(drop);
    let child = start(&["--keep-open", &address]);
    server.join().expect("no panic");
    let output = finish(child, vec![0; 32 << 20]);
    assert_eq!(output.status.code(), Some(56), "{}", text(&output.stderr));
}

#[test]
fn the_idle_timeout_holds_though_nobody_reads_our_output() {
    let serving = Serving::start(&["chargen"]);
    let mut child = start(&["--idle-timeout", "200ms", &serving.address]);
    let (_unread, _held_open) = (child.stdout.take(), child.stdin.take());
    let output = finish(child, Vec::new());
    assert_eq!(output.status.code(), Some(28), "{}", text(&output.stderr));
}

#[test]
fn a_source_that_is_not_ours_is_bad_input() {
    let (_held, closed) = closed_port();
    let output = connect(&["--source", "192.0.2.1", &closed], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("an IP address of this machine"));
}
