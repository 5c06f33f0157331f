//! Requests, and what is refused because it would make another one.

use proptest::prelude::*;

use std::io::Read;

use super::super::chunked::Chunked;
use super::super::{
    BadRequest, Exactly, Field, Framing, InChunks, RequestLine, host_field, request, request_head,
};

#[test]
fn a_request_names_its_host_and_who_asks() {
    let bytes = request("GET", "/a?b=[c]", "example.org:8080").expect("is in order");
    let agent = concat!("sockeye/", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "GET /a?b=[c] HTTP/1.1\r\nHost: example.org:8080\r\nUser-Agent: {agent}\r\n\
         Accept: */*\r\n\r\n"
    );
    assert_eq!(String::from_utf8(bytes), Ok(expected));
    let bytes = request("POST", "/", "a").expect("is in order");
    assert!(bytes.ends_with(b"\r\nContent-Length: 0\r\n\r\n"));
    assert!(request("OPTIONS", "*", "a").is_ok());
}

#[test]
fn the_port_is_in_the_host_unless_it_is_that_of_the_scheme() {
    for (host, port, tls, expected) in [
        ("example.org", 80, false, "example.org"),
        ("example.org", 443, true, "example.org"),
        ("example.org", 443, false, "example.org:443"),
        ("example.org", 80, true, "example.org:80"),
        ("192.0.2.1", 8080, false, "192.0.2.1:8080"),
        ("::1", 80, false, "[::1]"),
        ("::1", 8080, false, "[::1]:8080"),
        ("fe80::1%eth0", 8080, false, "[fe80::1]:8080"),
    ] {
        let field = host_field(host, port, tls);
        assert_eq!(field, expected);
        assert!(request("GET", "/", &field).is_ok());
    }
}

fn refused(method: &str, path: &str, host: &str) -> BadRequest {
    request(method, path, host).expect_err("is refused")
}

#[test]
fn what_is_no_part_of_a_request_is_refused() {
    let method = |method: &str| BadRequest::Method {
        method: method.to_owned(),
    };
    assert_eq!(refused("", "/", "a"), method(""));
    assert_eq!(refused("GET /", "/", "a"), method("GET /"));
    assert_eq!(refused("GET\r\n", "/", "a"), method("GET\r\n"));
    assert_eq!(refused("connect", "/", "a"), BadRequest::Tunnel);
    for path in ["", "a", "*", "http://a/"] {
        let path = path.to_owned();
        assert_eq!(
            refused("GET", &path, "a"),
            BadRequest::NoSlash { path: path.clone() }
        );
    }
    for (path, found, written) in [
        ("/ HTTP/1.1\r\nHost: b", ' ', "%20"),
        ("/\r\n", '\r', "%0D"),
        ("/\n", '\n', "%0A"),
        ("/\0", '\0', "%00"),
        ("/\u{7f}", '\u{7f}', "%7F"),
        ("/\u{e4}", '\u{e4}', "%C3%A4"),
        ("/#top", '#', "%23"),
    ] {
        let written = written.to_owned();
        assert_eq!(
            refused("GET", path, "a"),
            BadRequest::Path { found, written }
        );
    }
    for (host, found) in [
        ("a b", ' '),
        ("a\r\nX: y", '\r'),
        ("a/b", '/'),
        ("user@a", '@'),
        ("b\u{fc}cher.example", '\u{fc}'),
    ] {
        let host = host.to_owned();
        assert_eq!(
            refused("GET", "/", &host),
            BadRequest::Host {
                host: host.clone(),
                found
            }
        );
    }
    assert_eq!(refused("GET", "/", ""), BadRequest::NoHost);
    assert_eq!(refused("GET", "/", ":80"), BadRequest::NoHost);
}

#[test]
fn a_request_line_is_a_path_or_a_method_and_a_path() {
    let line = |text: &str| {
        let line: RequestLine = text.parse()?;
        Ok((line.method, line.path))
    };
    let parts = |method: &str, path: &str| Ok((method.to_owned(), path.to_owned()));
    assert_eq!(line("/a?b"), parts("GET", "/a?b"));
    assert_eq!(line("POST /a"), parts("POST", "/a"));
    assert_eq!(line("get  /a"), parts("get", "/a"));
    assert_eq!(line("OPTIONS *"), parts("OPTIONS", "*"));
    let no_path = |text: &str| {
        Err(BadRequest::NoPath {
            text: text.to_owned(),
        })
    };
    assert_eq!(line("POST"), no_path("POST"));
    let path = "a".to_owned();
    assert_eq!(line("GET a"), Err(BadRequest::NoSlash { path }));
    assert_eq!(
        line(""),
        Err(BadRequest::NoSlash {
            path: String::new()
        })
    );
}

#[test]
fn a_field_that_is_given_stands_for_the_one_that_would_be_sent() {
    let field = |text: &str| text.parse::<Field>();
    let fields =
        ["host:b", "X:  y ", "Transfer-Encoding: Chunked"].map(|text| field(text).expect("valid"));
    let head = request_head("POST", "/", "a", &fields, Framing::Chunked).expect("valid");
    let agent = concat!("sockeye/", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "POST / HTTP/1.1\r\nUser-Agent: {agent}\r\nAccept: */*\r\nhost: b\r\nX: y\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    assert_eq!(String::from_utf8(head), Ok(expected));
    let name = "X".to_owned();
    assert_eq!(field("X: a\r\nY: b"), Err(BadRequest::FieldValue { name }));
    assert_eq!(field("X"), Err(BadRequest::NoColon));
    let name = "X ".to_owned();
    assert_eq!(field("X : a"), Err(BadRequest::FieldName { name }));
    assert_eq!(field("content-length: 1"), Err(BadRequest::Length));
    assert_eq!(
        field("transfer-encoding: gzip, chunked"),
        Err(BadRequest::Coding)
    );
}

#[test]
fn a_body_has_the_length_that_was_announced() {
    let mut read = Vec::new();
    Exactly::new(&b"abcd"[..], 3)
        .read_to_end(&mut read)
        .expect("enough");
    assert_eq!(read, b"abc");
    let short = Exactly::new(&b"ab"[..], 3).read_to_end(&mut read);
    let error = short.expect_err("too short");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(error.to_string(), "the body ends 1 bytes before its length");
}

proptest! {
    #[test]
    fn a_body_in_chunks_is_read_back_whatever_is_read_at_once(
        body in prop::collection::vec(any::<u8>(), 0..300),
        piece in 1..50_usize,
        at_once in 1..50_usize,
    ) {
        let pieces = Pieces { rest: &body, piece };
        let mut chunks = InChunks::new(pieces);
        let (mut buffer, mut wire) = (vec![0; at_once], Vec::new());
        loop {
            match chunks.read(&mut buffer).expect("a slice does not fail") {
                0 => break,
                bytes => wire.extend(&buffer[..bytes]),
            }
        }
        let mut read = Vec::new();
        let taken = Chunked::new().take(&wire, &mut |some| read.extend_from_slice(some));
        prop_assert_eq!(taken, Ok((wire.len(), true)));
        prop_assert_eq!(read, body);
    }

    #[test]
    fn whatever_is_asked_for_a_request_is_one_request(
        method in "[A-Za-z\r\n :]{0,8}|GET",
        path in "/?[ -~\r\n\t]{0,20}|/.{0,10}",
        host in "[a-z.:\r\n /]{0,12}|.{0,6}",
    ) {
        if let Ok(bytes) = request(&method, &path, &host) {
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut seen = httparse::Request::new(&mut fields);
            let parsed = seen.parse(&bytes);
            prop_assert_eq!(parsed, Ok(httparse::Status::Complete(bytes.len())));
            prop_assert_eq!(seen.method, Some(&method[..]));
            prop_assert_eq!(seen.path, Some(&path[..]));
            let hosts = seen.headers.iter().filter(|field| field.name == "Host");
            let hosts: Vec<&[u8]> = hosts.map(|field| field.value).collect();
            prop_assert_eq!(hosts, [host.as_bytes()]);
        }
    }
}

/// Gives at most so many bytes at once.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = into.len().min(self.piece);
        self.rest.read(&mut into[..most])
    }
}
