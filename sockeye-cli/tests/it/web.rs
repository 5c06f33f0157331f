//! What `serve files` and `serve http` have in common with any HTTP/1.1 server: a client for raw requests, and the cases of
//! h1spec.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Serving, json, line_with, text};

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        let status = self
            .head
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{}", self.head));
        status.parse().unwrap_or_else(|_| panic!("{}", self.head))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> String {
        text(&self.body)
    }
}

/// Sends some requests at once and reads the stream to its end; the last of them has to close it.
pub(crate) fn raw(serving: &Serving, request: &[u8]) -> Vec<u8> {
    let mut stream = serving.connect();
    // A server that has seen enough closes meanwhile.
    let _ = stream.write_all(request);
    all(&mut stream)
}

/// All that comes. A server that closes with something unread resets at the end.
pub(crate) fn all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 65536];
    while let Ok(1..) = stream
        .read(&mut buffer)
        .inspect(|count| all.extend_from_slice(&buffer[..*count]))
    {}
    all
}

pub(crate) fn parse(stream: &[u8]) -> Answer {
    let end = stream.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(stream)));
    Answer {
        head: text(&stream[..end]),
        body: stream[end + 4..].to_vec(),
    }
}

/// One request, on a connection of its own. `fields` are lines without their ends.
pub(crate) fn ask(serving: &Serving, method: &str, target: &str, fields: &[&str]) -> Answer {
    send(serving, method, target, fields, b"")
}

pub(crate) fn send(
    serving: &Serving,
    method: &str,
    target: &str,
    fields: &[&str],
    body: &[u8],
) -> Answer {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
        serving.address
    );
    for field in fields {
        request.push_str(field);
        request.push_str("\r\n");
    }
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    parse(&raw(serving, &[request.as_bytes(), body].concat()))
}

/// A case of uNetworking/h1spec: what is sent, which statuses are right, and the body if it is told.
type Case = (&'static str, &'static [(u16, u16)], Option<&'static str>);

/// Requests that are not whole: a server waits for the rest.
const UNFINISHED: [&str; 15] = [
    "G",
    "GET ",
    "GET /hello",
    "GET /hello ",
    "GET /hello HTTP",
    "GET /hello HTTP/1.1",
    "GET /hello HTTP/1.1\r",
    "GET /hello HTTP/1.1\r\n",
    "GET /hello HTTP/1.1\r\nHos",
    "GET /hello HTTP/1.1\r\nHost:",
    "GET /hello HTTP/1.1\r\nHost: ",
    "GET /hello HTTP/1.1\r\nHost: localhost",
    "GET /hello HTTP/1.1\r\nHost: localhost\r",
    "GET /hello HTTP/1.1\r\nHost: localhost\r\n",
    "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r",
];

const FINISHED: [Case; 18] = [
    ("GET / \r\n\r\n", &[(400, 599)], None),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nExpect: 100-continue\r\n\r\n",
        &[(100, 100), (200, 299)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        &[(200, 299)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n",
        &[(200, 299)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nX-Invalid[]: test\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nHost: example.org\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nContent-Length: -123456789123456789123456789\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nContent-Length: -1234\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nContent-Length: abc\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nX-Empty-Header: \r\n\r\n",
        &[(200, 299)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\nX-Bad-Control-Char: test\x07\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "GET / HTTP/9.9\r\nHost: example.com\r\n\r\n",
        &[(400, 499), (500, 599)],
        None,
    ),
    (
        "Extra lineGET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        &[(400, 499), (500, 599)],
        None,
    ),
    (
        "GET / HTTP/1.1\r\nHost: example.com\r\n\rSome-Header: Test\r\n\r\n",
        &[(400, 499)],
        None,
    ),
    (
        "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello",
        &[(200, 299), (404, 404)],
        Some("hello"),
    ),
    (
        "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n",
        &[(200, 299)],
        Some("HellO world1"),
    ),
    (
        "POST / HTTP/1.1\r\nHost: example.com\r\ncontent-LengtH: 5\r\nTransFer-Encoding: chunked\r\n\r\nc\r\nHellO world1\r\n0\r\n\r\n",
        &[(400, 499), (200, 299)],
        Some("HellO world1"),
    ),
];

/// Reads a head and as much of a body as it promises.
fn first_answer(stream: &mut TcpStream) -> Answer {
    let mut came = Vec::new();
    let mut byte = [0];
    while !came.ends_with(b"\r\n\r\n") {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error} after {}", text(&came)));
        came.push(byte[0]);
    }
    let mut answer = parse(&came);
    let length = answer
        .header("content-length")
        .map_or(0, |length| length.parse().expect("a number"));
    answer.body.resize(length, 0);
    stream.read_exact(&mut answer.body).expect("a body");
    answer
}

#[test]
fn the_cases_of_h1spec_pass() {
    let serving = Serving::start(&["http", "--echo"]);
    // All at once: none may be answered before its rest has come, however long that takes.
    let mut unfinished: Vec<_> = UNFINISHED
        .iter()
        .map(|request| {
            let mut stream = serving.connect();
            stream.write_all(request.as_bytes()).expect("sent");
            (stream, request)
        })
        .collect();
    for (request, expected, body) in FINISHED {
        let mut stream = serving.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        let answer = first_answer(&mut stream);
        let status = answer.status();
        let is_right = expected
            .iter()
            .any(|(least, most)| (*least..=*most).contains(&status));
        assert!(is_right, "{request:?}: {}", answer.head);
        if let (200, Some(body)) = (status, body) {
            assert_eq!(answer.text(), body, "{request:?}");
        }
    }
    let whole = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (stream, request) in &mut unfinished {
        stream.set_nonblocking(true).expect("set");
        let early = stream.read(&mut [0]).expect_err("nothing was to come yet");
        assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock, "{request:?}");
        stream.set_nonblocking(false).expect("set");
        stream
            .write_all(&whole.as_bytes()[request.len()..])
            .expect("sent");
        assert_eq!(first_answer(stream).status(), 200, "{request:?}");
    }
    drop(unfinished);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn requests_on_one_connection_are_answered_in_order_however_they_are_cut() {
    let serving = Serving::start(&["http", "--echo"]);
    let mut stream = serving.connect();
    let requests = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none\
                    POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
                    POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nthree";
    for piece in requests.as_bytes().chunks(7) {
        stream.write_all(piece).expect("sent");
    }
    for expected in ["one", "two", "three"] {
        assert_eq!(first_answer(&mut stream).text(), expected);
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_client_that_ends_its_side_after_the_request_gets_its_answer() {
    let serving = Serving::start(&["http"]);
    let mut stream = serving.connect();
    stream
        .write_all(b"GET /delay/100ms HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("sent");
    assert_eq!(parse(&all(&mut stream)).status(), 200);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_cannot_be_read_as_a_request_is_told() {
    let serving = Serving::start(&["http", "--json"]);
    for (request, status, why) in [
        ("GET / \x1b\r\n\r\n".to_owned(), 400, "invalid"),
        (
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(40_000)),
            431,
            "too large",
        ),
    ] {
        assert_eq!(parse(&raw(&serving, request.as_bytes())).status(), status);
        let told = json(&line_with(&serving.stdout, "\"bad_request\""));
        let error = told["error"].as_str().expect("text");
        assert!(error.contains(why), "{told}");
        assert!(told["peer"].is_string() && told["id"].is_u64());
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_head_that_is_too_long_is_refused_and_costs_no_more() {
    let serving = Serving::start(&["http"]);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    assert_eq!(parse(&raw(&serving, long.as_bytes())).status(), 431);
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(200)
    );
    assert_eq!(parse(&raw(&serving, many.as_bytes())).status(), 431);
    assert_eq!(serving.stop(), 0);
}
