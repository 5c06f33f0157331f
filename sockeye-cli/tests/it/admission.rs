//! Who is let in by the program: rules, rates, and who is behind a proxy.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::{PATIENCE, Serving, echoes, json, line_with, run, sockeye, text};

/// Connects from this address of the machine: all of 127.0.0.0/8 are.
fn from(source: &str, serving: &Serving) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(&source.into()).expect("bound");
    socket
        .connect(&serving.socket_address().into())
        .expect("connected");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// Whether a client from this address is served.
fn is_served(source: &str, serving: &Serving) -> bool {
    let mut client = from(source, serving);
    let _ = client.write_all(b"x");
    let mut answer = [0];
    matches!(client.read(&mut answer), Ok(1))
}

fn snapshot(serving: &Serving) -> Value {
    serving.signal(Signal::USR1);
    json(&line_with(&serving.stdout, "\"event\":\"snapshot\""))
}

#[test]
fn the_most_specific_rule_decides_and_refusals_are_counted_by_reason() {
    let serving = Serving::start(&[
        "--json",
        "--allow",
        "127.0.0.0/8",
        "--deny",
        "127.1.0.0/16",
        "--allow",
        "127.1.2.3",
    ]);
    assert!(is_served("127.0.0.1", &serving));
    assert!(!is_served("127.1.0.1", &serving));
    assert!(is_served("127.1.2.3", &serving));
    let refuse = json(&line_with(&serving.stdout, "\"event\":\"refuse\""));
    assert_eq!(refuse["reason"], "denied");
    let counters = snapshot(&serving);
    assert_eq!(
        (&counters["refused"], &counters["refused_by"]["denied"]),
        (&json("1"), &json("1"))
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn rules_are_read_anew_on_hup_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let friends = folder.path().join("friends");
    fs::write(&friends, "# nobody yet\n").expect("written");
    let path = friends.display().to_string();
    let serving = Serving::start(&["--json", "--allow", &path]);
    assert!(
        !is_served("127.0.0.1", &serving),
        "an empty list lets nobody in"
    );
    let reload = |list: &str| {
        fs::write(&friends, list).expect("written");
        serving.signal(Signal::HUP);
        json(&line_with(&serving.stdout, "\"event\":\"reload\""))
    };
    assert_eq!(reload("127.0.0.1 # me\n")["changed"], true);
    assert!(is_served("127.0.0.1", &serving));
    assert!(!is_served("127.0.0.2", &serving));
    let bad = reload("127.0.0.0/8\n127.0.0.1/8\n");
    assert_eq!(bad["changed"], false);
    assert!(
        bad["error"]
            .as_str()
            .is_some_and(|e| e.contains("line 2") && e.contains("friends")),
        "{bad}"
    );
    line_with(&serving.stderr, "nothing is changed");
    assert!(is_served("127.0.0.1", &serving));
    assert!(!is_served("127.0.0.2", &serving));
    assert_eq!(serving.stop(), 0);
}

/// A file of a network that hangs does as this pipe that nobody writes to.
#[test]
fn a_file_that_hangs_on_hup_does_not_keep_term_from_ending_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("list");
    fs::write(&list, "192.0.2.1\n").expect("written");
    let serving = Serving::start(&["--deny", &list.display().to_string()]);
    fs::remove_file(&list).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&list).status();
    assert!(made.expect("starts").success());
    serving.signal(Signal::HUP);
    assert!(is_served("127.0.0.1", &serving));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn the_rate_holds_per_source_and_recovers_by_itself() {
    let serving = Serving::start(&["--json", "--rate", "20/s,burst=2"]);
    let served: Vec<bool> = (0..4).map(|_| is_served("127.0.0.1", &serving)).collect();
    assert_eq!(served[..2], [true, true]);
    assert!(served.contains(&false), "{served:?}");
    assert!(is_served("127.0.0.2", &serving));
    let refuse = json(&line_with(&serving.stdout, "\"event\":\"refuse\""));
    assert_eq!(refuse["reason"], "rate");
    while !is_served("127.0.0.1", &serving) {}
    assert_eq!(serving.stop(), 0);
}

/// 10,000 who are refused leave nothing behind, and a log that does not grow with them.
#[test]
fn ten_thousand_refused_clients_cost_no_descriptor_and_few_lines() {
    const CLIENTS: u64 = 10_000;
    let serving = Serving::start(&["--json", "--deny", "127.9.0.0/16"]);
    let descriptors = || {
        let folder = format!("/proc/{}/fd", serving.pid().as_raw_nonzero());
        fs::read_dir(folder).expect("it runs").count()
    };
    echoes(&mut serving.connect(), b"all is allocated");
    line_with(&serving.stdout, "\"event\":\"close\"");
    let before = descriptors();
    for _ in 0..CLIENTS {
        let client = from("127.9.0.1", &serving);
        // A reset leaves no TIME-WAIT behind.
        socket2::SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("set");
    }
    // A client is counted before it is told of and closed, and the last one may be in between.
    let (mut told, mut counted) = (0, 0);
    let mut count = |event: &Value| match event["event"].as_str() {
        Some("refuse") => told += 1,
        Some("refused") => counted += event["count"].as_u64().expect("a number"),
        _ => {}
    };
    loop {
        serving.signal(Signal::USR1);
        let snapshot = loop {
            let event = json(&serving.stdout.recv_timeout(PATIENCE).expect("an event"));
            count(&event);
            if event["event"] == "snapshot" {
                break event;
            }
        };
        if snapshot["refused"] == CLIENTS && descriptors() == before {
            break;
        }
    }
    serving.signal(Signal::TERM);
    serving.stdout.iter().for_each(|line| count(&json(&line)));
    assert_eq!(told + counted, CLIENTS);
    assert!(counted > told, "{told} told and {counted} counted");
    assert_eq!(serving.wait(), 0);
}

/// What the server echoes to a client that sends this.
fn answer(serving: &Serving, message: &[u8]) -> Vec<u8> {
    let mut client = serving.connect();
    let _ = client.write_all(message);
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    answer
}

#[test]
fn a_trusted_proxy_declares_the_client_and_the_client_is_what_counts() {
    let serving = Serving::start(&[
        "--json",
        "--proxy-protocol",
        "from=127.0.0.0/8",
        "--deny",
        "192.0.2.66",
        "--max-per-source",
        "1",
    ]);
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\nhello";
    assert_eq!(answer(&serving, header), b"hello");
    let handshake = json(&line_with(&serving.stdout, "\"event\":\"handshake\""));
    assert_eq!(handshake["client"], "192.0.2.1:5000");
    assert_eq!(handshake["proxy_header"]["destination"], "192.0.2.2:443");
    let close = json(&line_with(&serving.stdout, "\"event\":\"close\""));
    assert_eq!(close["client"], "192.0.2.1:5000");

    assert_eq!(
        answer(
            &serving,
            b"PROXY TCP4 192.0.2.66 192.0.2.2 5000 443\r\nhello"
        ),
        b""
    );
    let refuse = json(&line_with(&serving.stdout, "\"event\":\"refuse\""));
    assert_eq!(
        (&refuse["client"], &refuse["reason"]),
        (&json("\"192.0.2.66:5000\""), &json("\"denied\""))
    );

    assert_eq!(answer(&serving, b"GET / HTTP/1.1\r\n\r\n"), b"");
    let close = json(&line_with(&serving.stdout, "\"event\":\"close\""));
    assert_eq!(close["reason"], "proxy_header");
    assert!(
        close["error"]
            .as_str()
            .is_some_and(|e| e.contains("not a PROXY header")),
        "{close}"
    );

    // Two clients by one proxy are two sources.
    let mut first = serving.connect();
    first
        .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        .expect("sent");
    echoes(&mut first, b"first");
    assert_eq!(
        answer(&serving, b"PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\nx"),
        b""
    );
    assert_eq!(
        answer(&serving, b"PROXY TCP4 192.0.2.3 192.0.2.2 3 4\r\nx"),
        b"x"
    );
    // The proxy itself is always let in.
    assert_eq!(answer(&serving, b"PROXY UNKNOWN\r\nx"), b"x");
    drop(first);
    let counters = snapshot(&serving);
    assert_eq!(counters["refused_by"]["per_source"], 1);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn from_others_a_header_is_data_or_they_are_refused() {
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\nhello";
    let serving = Serving::start(&["--proxy-protocol", "from=192.0.2.0/24,unix"]);
    assert_eq!(answer(&serving, header), header);
    assert_eq!(serving.stop(), 0);
    let serving = Serving::start(&[
        "--json",
        "--proxy-protocol",
        "from=192.0.2.0/24",
        "--proxy-protocol-only",
    ]);
    assert_eq!(answer(&serving, header), b"");
    let refuse = json(&line_with(&serving.stdout, "\"event\":\"refuse\""));
    assert_eq!(refuse["reason"], "no_proxy");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn connect_sends_a_header_that_serve_reads() {
    let serving = Serving::start(&["--json", "--proxy-protocol", "from=127.0.0.1"]);
    let send = |header: &str| {
        let output = run(
            sockeye(&[
                "connect",
                "--send-proxy",
                header,
                "--explain",
                "--json",
                &serving.address,
            ]),
            b"hello",
        );
        assert_eq!(text(&output.stdout), "hello", "{}", text(&output.stderr));
        let handshake = json(&line_with(&serving.stdout, "\"event\":\"handshake\""));
        let account = json(&text(&output.stderr));
        assert_eq!(
            account["proxy_header"], handshake["proxy_header"],
            "both say the same"
        );
        (account, handshake["proxy_header"].clone())
    };
    let (account, header) = send("v1");
    assert_eq!(
        (&header["source"], &header["destination"]),
        (&account["local"], &account["peer"])
    );
    let (_, header) = send(
        "v2,from=[2001:db8::1]:5000,to=[2001:db8::2]:443,authority=example.com,alpn=h2,unique-id=\\x41,crc32c,0xe0=mine",
    );
    assert_eq!(header["source"], "[2001:db8::1]:5000");
    assert_eq!(
        (&header["authority"], &header["alpn"], &header["unique_id"]),
        (&json("\"example.com\""), &json("\"h2\""), &json("\"A\""))
    );
    let (_, header) = send("v2,local");
    assert_eq!(
        (&header["command"], &header["source"]),
        (&json("\"local\""), &json("null"))
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_header_that_does_not_come_ends_at_its_deadline() {
    let serving = Serving::start(&[
        "--json",
        "--proxy-protocol",
        "from=127.0.0.1",
        "--handshake-timeout",
        "50ms",
        "--max-handshakes",
        "1:30:2",
    ]);
    let mut client = serving.connect();
    client.write_all(b"PROXY TCP4 ").expect("sent");
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    drop(client);
    let close = json(&line_with(&serving.stdout, "\"event\":\"close\""));
    assert_eq!(close["reason"], "proxy_header_timeout");
    assert_eq!(serving.stop(), 0);
}
