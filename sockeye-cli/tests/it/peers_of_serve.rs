//! `sockeye serve`, and clients that no one here wrote.

use std::process::Command;

use serde_json::Value;

use crate::peers::{MEGABYTE, command, curl, noise, three_times};
use crate::support::{Serving, line_with, run, text};

/// The start of every Python client here: `dial` reads an address as the ready line has it.
const DIAL: &str = r#"
import hashlib, os, socket, struct, sys, threading, time
from email.utils import parsedate_to_datetime

def dial(address):
    if address.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(address[5:])
    else:
        host, port = address.rsplit(":", 1)
        s = socket.create_connection((host.strip("[]"), int(port)))
    s.settimeout(30)
    return s

def all_of(s):
    return s.makefile("rb").read()

s = dial(sys.argv[1])
"#;

/// A Python client that has `s`, connected to the server.
fn python(script: &str, address: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{DIAL}{script}"), address]);
    command
}

/// `["-U", PATH]` or `[HOST, PORT]`, as all netcats take it.
fn netcat_target(address: &str) -> Vec<&str> {
    match address.strip_prefix("unix:") {
        Some(path) => vec!["-U", path],
        None => {
            let (host, port) = address.rsplit_once(':').expect("a port");
            vec![host.trim_matches(['[', ']']), port]
        }
    }
}

fn socat_target(address: &str) -> String {
    match address.strip_prefix("unix:") {
        Some(path) => format!("UNIX-CONNECT:{path}"),
        None => format!("TCP:{address}"),
    }
}

/// Clients of a server of each family; each server then has nothing left to do.
fn on_every_family(arguments: &[&str], clients: impl Fn(&Serving) + Sync) {
    three_times(["127.0.0.1:0", "[::1]:0"], |listen| {
        let serving = Serving::start(&[&["-l", listen], arguments].concat());
        clients(&serving);
        assert_eq!(serving.stop(), 0, "{listen}");
    });
}

/// What a client has printed that was content with its server, and ended by itself.
fn answer(client: Command, input: &[u8]) -> Vec<u8> {
    let which = format!("{client:?}");
    let output = run(client, input);
    assert_eq!(text(&output.stderr), "", "{which}");
    assert_eq!(output.status.code(), Some(0), "{which}");
    output.stdout
}

/// The client gets back all of its input, whatever the bytes.
fn echoes(client: Command, bytes: usize) {
    let which = format!("{client:?}");
    let payload = noise(bytes);
    let answer = answer(client, &payload);
    assert_eq!(answer.len(), payload.len(), "{which}");
    assert!(answer == payload, "other bytes came back to {which}");
}

#[test]
#[ignore = "needs python3"]
fn a_python_socket_gets_its_echo_before_and_after_its_half_close() {
    let client = r#"
reader = s.makefile("rb")
s.sendall(b"hello")
assert reader.read(5) == b"hello"
def send():
    s.sendall(sys.stdin.buffer.read())
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
sys.stdout.buffer.write(reader.read())
"#;
    on_every_family(&["echo"], |serving| {
        echoes(python(client, &serving.address), MEGABYTE);
    });
}

#[test]
#[ignore = "needs python3"]
fn a_python_asyncio_stream_gets_its_echo_before_and_after_its_half_close() {
    let client = r#"
import asyncio
async def main():
    reader, writer = await asyncio.open_connection(sock=s)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.write(sys.stdin.buffer.read())
    writer.write_eof()
    sys.stdout.buffer.write(await reader.read())
    writer.close()
    await writer.wait_closed()
s.setblocking(False)
asyncio.run(main())
"#;
    on_every_family(&["echo"], |serving| {
        echoes(python(client, &serving.address), MEGABYTE);
    });
}

#[test]
#[ignore = "needs python3"]
fn a_client_that_reads_two_seconds_after_its_half_close_gets_all() {
    // It sends until nobody takes any more: at its half-close every buffer on the way is full, the server has read
    // only a part, and can write to nobody. The pause after that is what is tested.
    let client = r#"
data, sent = os.urandom(64 << 20), 0
s.settimeout(0.5)
try:
    while sent < len(data):
        sent += s.send(data[sent:sent + 65536])
except TimeoutError:
    s.shutdown(socket.SHUT_WR)
time.sleep(2)
s.settimeout(30)
print(0 < sent < len(data), all_of(s) == data[:sent])
"#;
    on_every_family(&["echo"], |serving| {
        let answer = answer(python(client, &serving.address), b"");
        assert_eq!(text(&answer), "True True\n", "{}", serving.address);
    });
}

#[test]
#[ignore = "needs ncat"]
fn ncat_gets_its_echo_and_ends() {
    on_every_family(&["echo"], |serving| {
        let target = netcat_target(&serving.address);
        let client = command(&[&["ncat"], &target[..]].concat());
        echoes(client, MEGABYTE);
    });
}

#[test]
#[ignore = "needs nc.openbsd"]
fn openbsd_netcat_gets_its_echo_and_ends() {
    on_every_family(&["echo"], |serving| {
        let target = netcat_target(&serving.address);
        let client = command(&[&["nc.openbsd", "-N"], &target[..]].concat());
        echoes(client, MEGABYTE);
    });
}

#[test]
#[ignore = "needs socat"]
fn socat_gets_its_echo_and_ends() {
    on_every_family(&["echo"], |serving| {
        let target = socat_target(&serving.address);
        let client = command(&["socat", "-t", "30", "-", &target]);
        echoes(client, MEGABYTE);
    });
}

#[test]
#[ignore = "needs curl"]
fn curl_that_does_not_end_by_itself_is_content_when_the_idle_timeout_closes() {
    on_every_family(&["echo", "--idle-timeout", "1s"], |serving| {
        let answer = answer(curl(&[], "gopher", &serving.address, "_hello"), b"");
        assert_eq!(text(&answer), "hello\r\n", "{}", serving.address);
    });
}

#[test]
#[ignore = "needs curl"]
fn curl_gets_the_date_though_the_server_never_reads_its_request() {
    // A server that closes with the request unread resets the connection, and curl may lose the answer.
    on_every_family(&["daytime"], |serving| {
        let client = curl(&["--http0.9"], "http", &serving.address, "");
        let date = text(&answer(client, b""));
        assert_eq!(date.len(), "Tue, 24 Nov 2026 12:00:00 GMT\r\n".len());
        assert!(date.ends_with(" GMT\r\n"), "{date}");
    });
}

#[test]
#[ignore = "needs python3"]
fn python_reads_daytime_and_time_as_now() {
    for (service, client) in [
        (
            "daytime",
            "then = parsedate_to_datetime(all_of(s).decode()).timestamp()",
        ),
        (
            "time",
            "then = struct.unpack('!I', all_of(s))[0] - 2208988800",
        ),
    ] {
        let client = format!("{client}\nprint(abs(then - time.time()) < 5)");
        on_every_family(&[service], |serving| {
            let answer = answer(python(&client, &serving.address), b"");
            assert_eq!(text(&answer), "True\n", "{service}");
        });
    }
}

#[test]
#[ignore = "needs python3"]
fn python_reads_the_pattern_of_chargen_until_it_half_closes() {
    let client = r#"
reader = s.makefile("rb")
got = reader.read(3_000_000)
s.shutdown(socket.SHUT_WR)
got += reader.read()
printable = bytes(range(32, 127))
lines = [(printable * 2)[first:first + 72] + b"\r\n" for first in range(95)]
pattern = b"".join(lines) * (len(got) // (95 * 74) + 1)
print(len(got) >= 3_000_000, got == pattern[:len(got)])
"#;
    on_every_family(&["chargen"], |serving| {
        let answer = answer(python(client, &serving.address), b"");
        assert_eq!(text(&answer), "True True\n");
    });
}

#[test]
#[ignore = "needs nc.openbsd"]
fn discard_takes_all_of_netcat_and_answers_nothing() {
    on_every_family(&["discard", "--json"], |serving| {
        let target = netcat_target(&serving.address);
        let client = command(&[&["nc.openbsd", "-N"], &target[..]].concat());
        let answer = answer(client, &noise(MEGABYTE));
        assert_eq!(answer, b"", "{}", serving.address);
        let close = close_event(serving);
        assert_eq!(close["bytes_in"], MEGABYTE, "{close}");
        assert_eq!(close["bytes_out"], 0, "{close}");
    });
}

#[test]
#[ignore = "needs python3"]
fn sixty_four_mebibytes_come_back_to_a_python_client_with_the_same_hash() {
    let client = r#"
data = os.urandom(64 << 20)
def send():
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
received, length = hashlib.sha256(), 0
while piece := s.recv(1 << 20):
    received.update(piece)
    length += len(piece)
print(length, received.digest() == hashlib.sha256(data).digest())
"#;
    let serving = Serving::start(&["echo"]);
    let answer = answer(python(client, &serving.address), b"");
    assert_eq!(text(&answer), "67108864 True\n");
}

#[test]
#[ignore = "needs socat"]
fn sixty_four_mebibytes_come_back_to_socat() {
    let serving = Serving::start(&["echo"]);
    let target = socat_target(&serving.address);
    let client = command(&["socat", "-t", "30", "-", &target]);
    echoes(client, 64 << 20);
}

#[test]
#[ignore = "needs python3"]
fn a_python_client_that_resets_is_closed_as_reset_and_the_next_is_served() {
    let resets = r#"
s.sendall(b"hello")
assert s.makefile("rb").read(5) == b"hello"
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
s.close()
"#;
    let says_goodbye = r#"
s.sendall(b"goodbye")
s.shutdown(socket.SHUT_WR)
print(all_of(s).decode())
"#;
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let serving = Serving::start(&["echo", "--json", "-l", listen]);
        answer(python(resets, &serving.address), b"");
        let close = close_event(&serving);
        assert_eq!(close["reason"], "reset", "{close}");
        assert_eq!(close["bytes_in"], 5, "{close}");
        assert_eq!(close["bytes_out"], 5, "{close}");
        let next = answer(python(says_goodbye, &serving.address), b"");
        assert_eq!(text(&next), "goodbye\n");
        assert_eq!(close_event(&serving)["reason"], "peer_closed");
        assert_eq!(serving.stop(), 0);
    }
}

fn close_event(serving: &Serving) -> Value {
    let line = line_with(&serving.stdout, r#""event":"close""#);
    serde_json::from_str(&line).expect("JSON")
}
