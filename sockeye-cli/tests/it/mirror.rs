//! `sockeye serve http`: what a client has sent, and answers that are slow, large or none.

use std::io::{ErrorKind, Read, Write};

use crate::support::{Serving, json, line_with, run, sockeye};
use crate::web::{all, ask, parse, raw, send};

#[test]
fn a_client_is_told_what_it_has_sent() {
    let serving = Serving::start(&["http", "--json"]);
    let answer = send(
        &serving,
        "PATCH",
        "/a/b?c=%20d",
        &["X-First: 1", "x-second: two", "X-First: 3"],
        b"h\xc3\xa9llo",
    );
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let seen = json(&answer.text());
    assert_eq!(seen["method"], "PATCH");
    assert_eq!(seen["target"], "/a/b?c=%20d");
    assert_eq!(seen["version"], "HTTP/1.1");
    let fields = seen["headers"].as_array().expect("a list");
    let fields: Vec<_> = fields
        .iter()
        .map(|field| (field[0].as_str(), field[1].as_str()))
        .collect();
    let host = serving.address.as_str();
    let expected = [
        ("Host", host),
        ("Connection", "close"),
        ("X-First", "1"),
        ("x-second", "two"),
        ("X-First", "3"),
        ("Content-Length", "6"),
    ];
    assert_eq!(
        fields,
        expected.map(|(name, value)| (Some(name), Some(value)))
    );
    assert_eq!(seen["body"]["text"], "h\u{e9}llo");
    assert_eq!(seen["body"]["bytes"], 6);
    assert_eq!(seen["local"], serving.address);
    assert_eq!(seen["connection"], 1);
    assert!(seen["tls"].is_null() && seen["proxy_header"].is_null());
    assert_eq!(seen["tcp_info"]["state"], "established");
    assert!(seen["timings"]["connection_ms"].as_f64() >= seen["timings"]["body_ms"].as_f64());
    // And so is whoever looks on.
    let told = json(&line_with(&serving.stdout, "\"request\""));
    assert_eq!(told["event"], "request");
    assert_eq!(told["method"], "PATCH");
    assert_eq!(told["status"], 200);
    assert_eq!(told["body_bytes"], answer.body.len());
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_was_refused_is_not_shown_as_the_next_request() {
    let serving = Serving::start(&["http"]);
    let mut stream = serving.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a b\r\nConnection: keep-alive\r\nX-Which: 1\r\n\r\n")
        .expect("sent");
    let mut refused = Vec::new();
    while !refused.ends_with(b"Host is no name and port\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("answered");
        refused.extend(byte);
    }
    assert_eq!(parse(&refused).status(), 400);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Which: 2\r\n\r\n")
        .expect("sent");
    let seen = json(&parse(&all(&mut stream)).text());
    let expected = json(r#"[["Host", "a"], ["Connection", "close"], ["X-Which", "2"]]"#);
    assert_eq!(seen["headers"], expected);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn of_what_a_client_chooses_an_event_tells_the_beginning() {
    let serving = Serving::start(&["http", "--json"]);
    let agent = |length| format!("User-Agent: {}", "a".repeat(length));
    let target = |length| format!("/{}", "t".repeat(length));
    ask(&serving, "GET", &target(1023), &[&agent(1024)]);
    let told = json(&line_with(&serving.stdout, "\"request\""));
    assert_eq!(told["target"], target(1023));
    assert_eq!(told["user_agent"], "a".repeat(1024));
    let method = "M".repeat(1025);
    ask(&serving, &method, &target(1024), &[&agent(10_000)]);
    let told = json(&line_with(&serving.stdout, "\"request\""));
    assert_eq!(told["method"], "M".repeat(1024) + " [cut]");
    assert_eq!(told["target"], target(1023) + " [cut]");
    assert_eq!(told["user_agent"], "a".repeat(1024) + " [cut]");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_body_that_is_no_text_is_shown_as_base64_and_a_long_one_is_cut() {
    let serving = Serving::start(&["http"]);
    let seen = json(&send(&serving, "PUT", "/", &[], b"\xff\x00").text());
    assert_eq!(seen["body"]["base64"], "/wA=");
    assert!(seen["body"]["text"].is_null());
    let long = vec![b'x'; (1 << 20) + 5];
    let seen = json(&send(&serving, "PUT", "/", &[], &long).text());
    assert_eq!(seen["body"]["bytes"], long.len());
    assert_eq!(seen["body"]["is_cut"], true);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn over_tls_and_behind_a_proxy_those_facts_are_shown_too() {
    let serving = Serving::start(&["http", "--proxy-protocol", "from=127.0.0.0/8"]);
    let request = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let seen = json(&parse(&raw(&serving, request.as_bytes())).text());
    assert_eq!(seen["proxy_header"]["source"], "192.0.2.7:4711", "{seen}");
    assert_eq!(serving.stop(), 0);

    let serving = Serving::start(&["http", "--tls-self-signed", "localhost"]);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let address = format!("tls://{}", serving.address);
    let client = sockeye(&[
        "connect",
        "-q",
        "--insecure",
        "--sni",
        "b.example",
        "--send",
        request,
        &address,
    ]);
    let seen = json(&parse(&run(client, b"").stdout).text());
    assert_eq!(seen["tls"]["version"], "TLSv1.3", "{seen}");
    assert_eq!(seen["tls"]["server_name"], "b.example");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn paths_ask_for_a_status_a_delay_or_many_bytes() {
    let serving = Serving::start(&["http"]);
    assert_eq!(ask(&serving, "GET", "/status/418", &[]).status(), 418);
    let empty = ask(&serving, "GET", "/status/204", &[]);
    assert_eq!((empty.status(), empty.body.len()), (204, 0));
    let wrong = ask(&serving, "GET", "/status/abc", &[]);
    assert_eq!(
        (wrong.status(), wrong.text()),
        (400, "a status is from 200 to 999\n".to_owned())
    );
    let begun = std::time::Instant::now();
    assert_eq!(ask(&serving, "GET", "/delay/50ms", &[]).status(), 200);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(50));
    let large = ask(&serving, "GET", "/bytes/1MiB", &[]);
    assert_eq!(large.header("content-length"), Some("1048576"));
    assert_eq!(large.body.len(), 1 << 20);
    let head = ask(&serving, "HEAD", "/bytes/1MiB", &[]);
    assert_eq!(head.header("content-length"), Some("1048576"));
    assert_eq!(head.body.len(), 0);
    let dripped = ask(&serving, "GET", "/drip/3/1ms", &[]);
    assert_eq!(dripped.text(), "***");
    let streamed = ask(&serving, "GET", "/stream/2/1ms", &[]);
    assert_eq!(streamed.header("transfer-encoding"), Some("chunked"));
    assert_eq!(
        streamed
            .text()
            .matches("\"target\":\"/stream/2/1ms\"")
            .count(),
        2
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_stream_ends_with_its_last_line() {
    let serving = Serving::start(&["http"]);
    for (target, lines) in [("/stream/1/5m", 1), ("/stream/0/5m", 0)] {
        let answer = ask(&serving, "GET", target, &[]).text();
        assert!(answer.ends_with("0\r\n\r\n"), "{target}: {answer}");
        assert_eq!(answer.matches("\"target\"").count(), lines, "{target}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_path_asks_for_the_end_or_for_a_reset_instead_of_an_answer() {
    let serving = Serving::start(&["http", "--json"]);
    let mut closed = serving.connect();
    closed
        .write_all(b"GET /close HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    assert_eq!(all(&mut closed), b"");
    drop(closed);
    assert_eq!(
        json(&line_with(&serving.stdout, "\"close\""))["reason"],
        "finished"
    );
    let mut reset = serving.connect();
    reset
        .write_all(b"GET /reset HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    let error = reset.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(
        json(&line_with(&serving.stdout, "\"close\""))["reason"],
        "reset_sent"
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_server_that_drains_ends_idle_connections_and_finishes_what_is_begun() {
    let serving = Serving::start(&["http"]);
    let mut idle = serving.connect();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    let mut busy = serving.connect();
    busy.write_all(b"GET /drip/5/50ms HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    let mut first = [0; 1];
    busy.read_exact(&mut first).expect("begun");
    serving.signal(rustix::process::Signal::TERM);
    let came = all(&mut busy);
    assert!(
        came.ends_with(b"*****"),
        "{}",
        String::from_utf8_lossy(&came)
    );
    assert!(!all(&mut idle).is_empty());
    assert_eq!(serving.wait(), 0);
}
