//! `sockeye connect`, and servers that no one here wrote.

use std::process::Output;
use std::time::{Duration, Instant};

use crate::peers::{
    MEGABYTE, Process, SMALL, address, command, curl, folder_with_files, listening_port, netcat,
    nginx, noise, socat, three_times,
};
use crate::support::{line_with, run, sockeye, text};

fn connect(arguments: &[&str], input: &[u8]) -> Output {
    run(sockeye(&[&["connect"], arguments].concat()), input)
}

/// A client whose input is open.
fn open_connect(arguments: &[&str]) -> Process {
    Process::start(sockeye(&[&["connect"], arguments].concat()))
}

/// A test for servers that listen in each of these places: `127.0.0.1`, `::1` and `unix:PATH`.
fn on_every_family(test: impl Fn(&str) + Sync) {
    three_times(["127.0.0.1", "::1"], test);
}

/// The start of every Python server here. Each says on stderr where it is as soon as a client can count on that.
const BIND: &str = r#"
import asyncio, socket, struct, sys, time

MUCH = bytes(range(250)) * 4_000

def say(what):
    print(what, file=sys.stderr, flush=True)

def bound(place=sys.argv[1]):
    if place.startswith("unix:"):
        l = socket.socket(socket.AF_UNIX)
        l.bind(place[5:])
    else:
        l = socket.socket(socket.AF_INET6 if ":" in place else socket.AF_INET)
        l.bind((place, 0))
    return l

def say_where(l):
    # The port; of a Unix socket a letter that nobody looks at.
    say(f"at {l.getsockname()[1]}")

def listener():
    l = bound()
    l.listen()
    say_where(l)
    return l

def accept():
    s, _ = listener().accept()
    s.settimeout(30)
    return s

def all_of(s):
    return s.makefile("rb").read()

def told():
    sys.stdin.readline()

deliver = sys.stdout.buffer.write
"#;

/// What a Python server calls `MUCH`, or more of the same.
fn much(bytes: usize) -> Vec<u8> {
    (0..250).cycle().take(bytes).collect()
}

/// A Python server that has said where it is, and its address.
fn python(script: &str, place: &str) -> (Process, String) {
    let script = format!("{BIND}{script}");
    let server = Process::start(command(&["python3", "-c", &script, place]));
    let line = line_with(&server.stderr, "at ");
    let address = address(place, &line["at ".len()..]);
    (server, address)
}

/// One connection to a Python server: how `connect` ended, and what the server delivered.
fn meet(script: &str, place: &str, options: &[&str], input: &[u8]) -> (Output, Vec<u8>) {
    let (server, address) = python(script, place);
    let output = connect(&[options, &[&address]].concat(), input);
    (output, server.end())
}

/// It exits with 0, has nothing to complain about, and delivers exactly this.
fn assert_delivered(output: &Output, expected: &[u8], place: &str) {
    assert_eq!(text(&output.stderr), "", "{place}");
    assert_eq!(output.status.code(), Some(0), "{place}");
    assert_eq!(output.stdout.len(), expected.len(), "{place}");
    assert!(output.stdout == expected, "{place}: other bytes came");
}

#[test]
#[ignore = "needs python3"]
fn a_python_socket_server_gives_all_back() {
    let echo = r#"
s = accept()
while data := s.recv(65536):
    s.sendall(data)
"#;
    let payload = noise(MEGABYTE);
    on_every_family(|place| {
        assert_delivered(&meet(echo, place, &[], &payload).0, &payload, place);
    });
}

#[test]
#[ignore = "needs python3"]
fn a_python_asyncio_server_gives_all_back() {
    let echo = r#"
async def main():
    ended = asyncio.Event()
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()
    await asyncio.start_server(echo, sock=listener())
    await ended.wait()
asyncio.run(main())
"#;
    let payload = noise(MEGABYTE);
    on_every_family(|place| {
        assert_delivered(&meet(echo, place, &[], &payload).0, &payload, place);
    });
}

#[test]
#[ignore = "needs python3"]
fn an_answer_two_seconds_after_our_half_close_is_received_whole() {
    let server = r#"
s = accept()
got = all_of(s)
time.sleep(2)
s.sendall(got[::-1])
s.close()
deliver(got)
"#;
    let payload = noise(MEGABYTE);
    let reversed: Vec<u8> = payload.iter().rev().copied().collect();
    on_every_family(|place| {
        let (output, got) = meet(server, place, &[], &payload);
        assert_delivered(&output, &reversed, place);
        assert!(got == payload, "{place}");
    });
}

#[test]
#[ignore = "needs python3"]
fn keep_open_goes_on_sending_two_seconds_after_the_server_half_closed() {
    let server = r#"
s = accept()
s.sendall(b"that is all")
s.shutdown(socket.SHUT_WR)
time.sleep(2)
say("now you")
deliver(all_of(s))
"#;
    let payload = noise(MEGABYTE);
    on_every_family(|place| {
        let (server, address) = python(server, place);
        let client = open_connect(&["--keep-open", &address]);
        assert_eq!(text(&client.take(11)), "that is all", "{place}");
        line_with(&server.stderr, "now you");
        client.feed(&payload);
        assert_eq!(client.end(), b"", "{place}");
        assert!(server.end() == payload, "{place}");
    });
}

#[test]
#[ignore = "needs python3"]
fn a_server_that_sends_and_closes_ends_connect_while_its_input_is_open() {
    let server = "accept().sendall(MUCH)";
    let expected = much(1_000_000);
    on_every_family(|place| {
        let (server, address) = python(server, place);
        let (code, received) = open_connect(&[&address]).wait();
        assert_eq!(code, Some(0), "{place}");
        assert!(received == expected, "{place}");
        server.end();
    });
}

#[test]
#[ignore = "needs python3"]
fn a_server_that_half_closes_ends_connect_though_much_is_left_to_send() {
    let server = r#"
s = accept()
s.sendall(MUCH)
s.shutdown(socket.SHUT_WR)
told()
"#;
    let expected = much(1_000_000);
    on_every_family(|place| {
        let (server, address) = python(server, place);
        let output = connect(&[&address], &noise(64 << 20));
        assert_delivered(&output, &expected, place);
        server.end();
    });
}

#[test]
#[ignore = "needs python3"]
fn a_reset_is_exit_code_56_after_what_came_before() {
    let lingers = "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))";
    // A close is a reset, too, when something was left unread; on a Unix socket no other way leads to one.
    for (prepare, read) in [(lingers, 5), ("", 1)] {
        let server =
            format!("s = accept()\n{prepare}\ns.recv({read})\ns.sendall(b'x' * 16384)\ns.close()");
        on_every_family(|place| {
            if read == 5 && place.starts_with("unix:") {
                return;
            }
            let (output, _) = meet(&server, place, &[], b"hello");
            assert_eq!(output.status.code(), Some(56), "{place}");
            assert_eq!(output.stdout, [b'x'; 16_384], "{place}");
            let complaint = text(&output.stderr);
            assert!(complaint.contains("cannot receive from"), "{complaint}");
            assert!(complaint.contains("reset"), "{complaint}");
        });
    }
}

#[test]
#[ignore = "needs python3"]
fn a_server_that_never_reads_is_a_timeout() {
    on_every_family(|place| {
        let (server, address) = python("s = accept()\ntold()", place);
        let started = Instant::now();
        let output = connect(&["--idle-timeout", "1s", &address], &noise(64 << 20));
        assert!(started.elapsed() >= Duration::from_secs(1), "{place}");
        assert_eq!(output.status.code(), Some(28), "{place}");
        assert_eq!(output.stdout, b"", "{place}");
        let complaint = text(&output.stderr);
        assert!(complaint.contains("nothing moved"), "{complaint}");
        server.end();
    });
}

/// A server of files answers us with the very bytes with which it answers curl.
fn assert_same_as_curl(address: &str, file: &str, options: &[&str], bytes: usize) {
    let request = format!(
        "GET /{file} HTTP/1.1\r\nHost: sockeye.test\r\nUser-Agent: curl\r\nConnection: close\r\n\r\n"
    );
    let as_we = "-i -A curl -H Host:sockeye.test -H Connection:close -H Accept:";
    let as_we: Vec<&str> = as_we.split(' ').collect();
    let theirs = run(curl(&as_we, "http", address, file), b"");
    assert_eq!(text(&theirs.stderr), "", "{address}");
    let theirs = without_date(&theirs.stdout);
    assert!(theirs.starts_with(b"HTTP/1."), "{address}");
    assert!(theirs.ends_with(&noise(bytes)), "{address}");
    let send = request.replace("\r\n", r"\r\n");
    for (source, input) in [(&[][..], request.as_str()), (&["--send", &send], "")] {
        let output = connect(&[options, source, &[address]].concat(), input.as_bytes());
        assert_eq!(text(&output.stderr), "", "{address}");
        assert_eq!(output.status.code(), Some(0), "{address}");
        let ours = without_date(&output.stdout);
        assert_eq!(ours.len(), theirs.len(), "{address}");
        assert!(ours == theirs, "{address}");
    }
}

/// The second may be another one.
fn without_date(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.expect("a head"));
    let head: Vec<&[u8]> = head
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.starts_with(b"Date: "))
        .collect();
    [&head.join(&b'\n'), body].concat()
}

#[test]
#[ignore = "needs nginx and curl"]
fn nginx_answers_us_as_it_answers_curl() {
    let folder = folder_with_files();
    let (_server, addresses) = (0..5)
        .find_map(|_| nginx(folder.path()))
        .expect("a free port in five tries");
    for address in &addresses {
        assert_same_as_curl(address, "small", &[], SMALL);
        // nginx takes a half-close for a client that has gone if the answer does not fit the socket's buffer.
        assert_same_as_curl(address, "large", &["--on-eof", "keep"], MEGABYTE);
    }
}

#[test]
#[ignore = "needs python3 and curl"]
fn python_http_server_answers_us_as_it_answers_curl() {
    let folder = folder_with_files();
    let folder = folder.path().to_str().expect("UTF-8");
    for place in ["127.0.0.1", "::1"] {
        let serve = "exec python3 -u -m http.server 0 --bind $0 --directory $1 >&2";
        let server = Process::start(command(&["sh", "-c", serve, place, folder]));
        line_with(&server.stderr, "Serving HTTP on ");
        let address = address(place, &listening_port(&server));
        assert_same_as_curl(&address, "small", &[], SMALL);
        assert_same_as_curl(&address, "large", &[], MEGABYTE);
    }
}

/// All that one side has to say, then all of the other; each ends when it has heard all.
fn assert_both_ways((mut server, address): (Process, String), bytes: usize) {
    let mut payload = noise(bytes);
    let mut client = open_connect(&[&address]);
    server.feed(&payload);
    assert!(client.take(bytes) == payload, "{address}: from the server");
    payload.reverse();
    client.feed(&payload);
    client.end_input();
    assert!(server.take(bytes) == payload, "{address}: to the server");
    server.end_input();
    assert_eq!(client.end(), b"", "{address}");
    assert_eq!(server.end(), b"", "{address}");
}

#[test]
#[ignore = "needs ncat"]
fn ncat_as_a_server_hears_and_tells_all() {
    on_every_family(|place| assert_both_ways(netcat(&["ncat", "-v"], place), MEGABYTE));
}

const OPENBSD_NETCAT: [&str; 3] = ["nc.openbsd", "-v", "-N"];

#[test]
#[ignore = "needs nc.openbsd"]
fn openbsd_netcat_as_a_server_hears_and_tells_all() {
    on_every_family(|place| assert_both_ways(netcat(&OPENBSD_NETCAT, place), MEGABYTE));
}

#[test]
#[ignore = "needs socat"]
fn socat_as_a_server_hears_and_tells_all() {
    on_every_family(|place| assert_both_ways(socat(place), MEGABYTE));
}

#[test]
#[ignore = "needs nc.openbsd"]
fn sixty_four_mebibytes_go_each_way_through_openbsd_netcat() {
    assert_both_ways(netcat(&OPENBSD_NETCAT, "127.0.0.1"), 64 << 20);
}

#[test]
#[ignore = "needs socat"]
fn sixty_four_mebibytes_go_each_way_through_socat() {
    assert_both_ways(socat("127.0.0.1"), 64 << 20);
}

/// Has an address where nobody listens until it is told to; then it gives one client's bytes back.
const LATE: &str = r#"
l = bound()
say_where(l)
told()
l.listen()
say("listening")
s, _ = l.accept()
while data := s.recv(65536):
    s.sendall(data)
"#;

#[test]
#[ignore = "needs python3"]
fn a_probe_says_no_and_then_yes_when_the_server_has_begun_to_listen() {
    on_every_family(|place| {
        let (server, address) = python(LATE, place);
        let closed = connect(&["--probe", &address], b"");
        let answer = text(&closed.stdout);
        assert_eq!(closed.status.code(), Some(1), "{answer}");
        let (before, why) = answer.split_once(" ms: ").expect("a reason");
        assert!(before.starts_with(&format!("{address} closed after ")));
        assert_eq!(why, "Connection refused (os error 111)\n");
        server.feed(b"\n");
        line_with(&server.stderr, "listening");
        let open = connect(&["--probe", &address], b"");
        let answer = text(&open.stdout);
        assert_eq!(open.status.code(), Some(0), "{answer}");
        assert!(answer.starts_with(&format!("{address} open after ")));
        server.end();
    });
}

#[test]
#[ignore = "needs python3"]
fn wait_for_connects_when_the_server_comes_up() {
    on_every_family(|place| {
        let (server, address) = python(LATE, place);
        let client = open_connect(&["--wait-for", "30s", "-v", &address]);
        client.feed(b"hello");
        line_with(&client.stderr, "trying again");
        server.feed(b"\n");
        assert_eq!(text(&client.end()), "hello", "{place}");
        server.end();
    });
}

#[test]
#[ignore = "needs python3"]
fn recv_bytes_takes_as_many_as_it_says_from_a_server_without_end() {
    let server = r#"
s = accept()
try:
    while True:
        s.sendall(MUCH)
except OSError:
    pass
"#;
    let expected = much(MEGABYTE);
    on_every_family(|place| {
        let wanted = MEGABYTE.to_string();
        let (output, _) = meet(server, place, &["--recv-bytes", &wanted], b"");
        assert_delivered(&output, &expected, place);
    });
}

#[test]
#[ignore = "needs python3"]
fn fewer_than_recv_bytes_are_delivered_with_exit_code_56() {
    on_every_family(|place| {
        let options = ["--recv-bytes", "6"];
        let (output, _) = meet("accept().sendall(b'hello')", place, &options, b"");
        assert_eq!(output.status.code(), Some(56), "{place}");
        assert_eq!(text(&output.stdout), "hello", "{place}");
        let complaint = text(&output.stderr);
        assert!(
            complaint.contains("closed after 5 of 6 bytes"),
            "{complaint}"
        );
    });
}

#[test]
#[ignore = "needs python3"]
fn on_eof_exit_ends_when_all_is_sent_though_the_server_talks_and_stays() {
    // What it says comes when most of our bytes still wait in our kernel: a mere close would answer with a reset.
    let server = r#"
s = accept()
time.sleep(1)
s.sendall(b"wait a minute")
deliver(all_of(s))
told()
"#;
    let payload = noise(MEGABYTE);
    on_every_family(|place| {
        let (server, address) = python(server, place);
        let output = connect(&["--on-eof", "exit", &address], &payload);
        assert_eq!(text(&output.stderr), "", "{place}");
        assert_eq!(output.status.code(), Some(0), "{place}");
        assert!(server.end() == payload, "{place}");
    });
}

#[test]
#[ignore = "needs python3"]
fn on_eof_keep_tells_the_server_nothing() {
    let server = r#"
s = accept()
deliver(s.makefile("rb").read(5))
s.settimeout(1)
try:
    deliver(b" and then: " + s.recv(1))
except TimeoutError:
    s.sendall(b"still there?")
"#;
    on_every_family(|place| {
        let (output, got) = meet(server, place, &["--on-eof", "keep"], b"hello");
        assert_eq!(text(&got), "hello", "{place}");
        assert_delivered(&output, b"still there?", place);
    });
}

#[test]
#[ignore = "needs python3"]
fn on_eof_wait_half_closes_receives_so_long_and_ends_though_the_server_stays() {
    let server = r#"
s = accept()
s.sendall(all_of(s)[::-1])
told()
"#;
    on_every_family(|place| {
        let (server, address) = python(server, place);
        let started = Instant::now();
        let output = connect(&["--on-eof", "wait=2s", &address], b"hello");
        assert!(started.elapsed() >= Duration::from_secs(2), "{place}");
        assert_delivered(&output, b"olleh", place);
        server.end();
    });
}
