//! Rules for answers of HTTP/1.1 that cispa/http-conformance checks ("Who's Breaking the Rules?", ASIA CCS 2024), those that a
//! server without caches, cookies and HTTP/2 can break. Each test is a group of them, named there as in the comments.

use std::fs;

use httparse::{EMPTY_HEADER, Response, Status};
use tempfile::TempDir;

use crate::support::Serving;
use crate::web::{Answer, ask, parse, raw, send};

/// Both servers that speak HTTP, with a file that both answer for.
fn servers() -> (TempDir, [Serving; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("page.html"), "<p>page</p>").expect("written");
    fs::create_dir(folder.path().join("sub")).expect("made");
    let path = folder.path().to_str().expect("text");
    let files = Serving::start(&["files", path, "--index"]);
    (folder, [files, Serving::start(&["http"])])
}

fn stop(servers: [Serving; 2]) {
    for serving in servers {
        assert_eq!(serving.stop(), 0);
    }
}

/// The answer to lines that are sent as they are.
fn told(serving: &Serving, request: &str) -> Answer {
    parse(&raw(serving, request.as_bytes()))
}

/// `reject_fields_contaning_cr_lf_nul`, `code_400_after_bad_host_request`,
/// `reject_msgs_with_whitespace_between_startline_and_first_header_field`,
/// `code_400_if_msg_with_whitespace_between_header_field_and_colon`.
#[test]
fn requests_that_can_be_read_in_two_ways_are_refused() {
    let (_folder, servers) = servers();
    for serving in &servers {
        for fields in [
            "Host: a\r\nX: b\0c",
            "Host: a\r\nX: b\rc",
            "X: y",
            "Host: a\r\nHost: b",
            "Host: a\r\nHost: a",
            "Host: a b",
            "Host: a/b",
            "Host: user@a",
            "Host: a:port",
            " X: y\r\nHost: a",
            "Host: a\r\nX : y",
        ] {
            let request =
                format!("GET /page.html HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n");
            let answer = told(serving, &request);
            assert_eq!(answer.status(), 400, "{fields:?}: {}", answer.head);
        }
        for host in ["a", "a:1", "[::1]:1", "192.0.2.1", ""] {
            let request =
                format!("GET /page.html HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(told(serving, &request).status(), 200, "{host:?}");
        }
    }
    stop(servers);
}

/// `allow_crlf_start`, `transfer_encoding_http11`, `close_option_in_final_response`.
#[test]
fn old_and_careless_clients_are_understood() {
    let (_folder, servers) = servers();
    for serving in &servers {
        let answer = told(
            serving,
            "\r\nGET /page.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(answer.status(), 200, "{}", answer.head);
        assert_eq!(answer.header("connection"), Some("close"));
        for path in ["/page.html", "/", "/stream/2/1ms", "/drip/2/1ms"] {
            let answer = told(serving, &format!("GET {path} HTTP/1.0\r\n\r\n"));
            assert_eq!(answer.header("transfer-encoding"), None, "{}", answer.head);
            let length = answer.header("content-length");
            assert!(length.is_none_or(|length| length == answer.body.len().to_string()));
        }
    }
    stop(servers);
}

/// `code_501_unknown_methods`, `code_405_blocked_methods`, `code_405_allow`, `content_length_2XX_connect`,
/// `transfer_encoding_2XX_connect`, `content_length_1XX_204`, `no_transfer_encoding_1xx_204`, `code_204_no_additional_content`.
#[test]
fn methods_are_served_refused_or_unknown() {
    let (_folder, servers) = servers();
    let [files, mirror] = &servers;
    for (method, status) in [
        ("FOO", 501),
        ("get", 501),
        ("DELETE", 405),
        ("POST", 405),
        ("PUT", 405),
        ("TRACE", 405),
    ] {
        let answer = ask(files, method, "/page.html", &[]);
        assert_eq!(answer.status(), status, "{method}");
        let allowed = (status == 405).then_some("GET, HEAD, OPTIONS");
        assert_eq!(answer.header("allow"), allowed, "{method}");
        // The mirror is there for all of them.
        assert_eq!(
            ask(mirror, method, "/page.html", &[]).status(),
            200,
            "{method}"
        );
    }
    for serving in &servers {
        let tunnel = "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n";
        assert_eq!(told(serving, tunnel).status(), 501);
    }
    for (serving, method, target) in [
        (files, "OPTIONS", "/page.html"),
        (files, "OPTIONS", "*"),
        (mirror, "GET", "/status/204"),
    ] {
        let answer = ask(serving, method, target, &[]);
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
        assert!(answer.body.is_empty());
    }
    stop(servers);
}

/// `content_head_request`, `head_get_headers`, `content_length_same_head_get`.
#[test]
fn head_says_what_get_says_without_the_content() {
    let (_folder, servers) = servers();
    for serving in &servers {
        for path in [
            "/page.html",
            "/",
            "/sub",
            "/no-such",
            "/bytes/100",
            "/status/404",
        ] {
            let (head, get) = (
                ask(serving, "HEAD", path, &[]),
                ask(serving, "GET", path, &[]),
            );
            assert!(head.body.is_empty());
            assert_eq!(names(&head), names(&get), "{path}");
            let same = ["content-type", "etag", "last-modified", "location"];
            for name in same {
                assert_eq!(head.header(name), get.header(name), "{path}");
            }
        }
    }
    // What the mirror tells of a request is as long as that is.
    let (head, get) = (
        ask(&servers[0], "HEAD", "/page.html", &[]),
        ask(&servers[0], "GET", "/page.html", &[]),
    );
    assert_eq!(head.header("content-length"), get.header("content-length"));
    stop(servers);
}

fn names(answer: &Answer) -> Vec<String> {
    let fields = answer.head.lines().skip(1);
    fields
        .map(|line| line.split(':').next().expect("one").to_lowercase())
        .collect()
}

/// `code_206_content_range`, `code_206_content_range_of_multiple_part_response`, `code_206_headers`, `code_304_headers`,
/// `code_304_no_content`, `content_length_same_304_200`, `code_416_content_range`, `post_invalid_response_codes`.
#[test]
fn parts_and_preconditions_keep_what_identifies_a_file() {
    let (_folder, servers) = servers();
    let files = &servers[0];
    let of = |fields: &[&str]| ask(files, "GET", "/page.html", fields);
    let whole = of(&[]);
    let tag = format!("If-None-Match: {}", whole.header("etag").expect("an ETag"));
    let part = of(&["Range: bytes=0-1"]);
    let parts = of(&["Range: bytes=0-1,4-5"]);
    let unchanged = of(&[&tag]);
    let outside = of(&["Range: bytes=99-"]);
    let statuses = [&part, &parts, &unchanged, &outside].map(Answer::status);
    assert_eq!(statuses, [206, 206, 304, 416]);
    assert_eq!(part.header("content-range"), Some("bytes 0-1/11"));
    assert_eq!(parts.header("content-range"), None);
    assert_eq!(outside.header("content-range"), Some("bytes */11"));
    for answer in [&part, &parts, &unchanged] {
        for name in ["etag", "cache-control", "expires", "vary"] {
            assert_eq!(answer.header(name), whole.header(name), "{name}");
        }
    }
    assert!(unchanged.body.is_empty());
    assert!(
        unchanged
            .header("content-length")
            .is_none_or(|length| length == "11")
    );
    for field in ["Range: bytes=0-1", "Range: bytes=99-", &tag] {
        let posted = send(files, "POST", "/page.html", &[field], b"x").status();
        assert!(![206, 304, 416].contains(&posted), "{field}");
    }
    stop(servers);
}

/// `code_30*_location`, `code_401_www_authenticate`, `code_407_proxy_authenticate`, `send_upgrade_426`,
/// `code_205_no_content_allowed`, `code_413_retry_after`, and `code_405_allow`, `code_206_content_range`, `code_416_content_range`
/// once more.
#[test]
fn a_status_that_is_asked_for_comes_with_what_belongs_to_it() {
    let (_folder, servers) = servers();
    let mirror = &servers[1];
    for (status, name) in [
        (206, "content-range"),
        (300, "location"),
        (301, "location"),
        (302, "location"),
        (303, "location"),
        (307, "location"),
        (308, "location"),
        (401, "www-authenticate"),
        (405, "allow"),
        (407, "proxy-authenticate"),
        (416, "content-range"),
        (426, "upgrade"),
    ] {
        let answer = ask(mirror, "GET", &format!("/status/{status}"), &[]);
        assert_eq!(answer.status(), status);
        assert!(names(&answer).contains(&name.to_owned()), "{}", answer.head);
    }
    let part = ask(mirror, "GET", "/status/206", &[]);
    let last = part.body.len() - 1;
    let range = format!("bytes 0-{last}/{}", part.body.len());
    assert_eq!(part.header("content-range"), Some(range.as_str()));
    for status in ["204", "205", "304"] {
        let answer = ask(mirror, "GET", &format!("/status/{status}"), &[]);
        assert!(answer.body.is_empty(), "{}", answer.head);
        assert_eq!(answer.header("content-type"), None);
    }
    let folder = ask(&servers[0], "GET", "/sub", &[]);
    assert_eq!(
        (folder.status(), folder.header("location")),
        (301, Some("/sub/"))
    );
    stop(servers);
}

/// `date_header_required`, `content_type_header_required`, `duplicate_fields`, `no_bare_cr`, `field_name_nonvisible_asciichars`,
/// `field_value_zero_value_lf_cr`, `field_value_start_or_end_with_whitespace`, `server_header_long`, and the grammars of the
/// fields that are sent.
#[test]
fn every_answer_has_a_date_a_type_and_fields_that_can_be_read() {
    let (_folder, servers) = servers();
    let requests = [
        ("GET", "/page.html", ""),
        ("GET", "/", ""),
        ("GET", "/", "Accept: application/json"),
        ("GET", "/no-such", ""),
        ("GET", "/sub", ""),
        ("GET", "/page.html", "Range: bytes=1-2,5-6"),
        ("GET", "/page.html", "Range: bytes=99-"),
        ("GET", "/page.html", "If-None-Match: *"),
        ("GET", "/%00", ""),
        ("GET", "/..", ""),
        ("FOO", "/page.html", ""),
        ("PUT", "/page.html", ""),
        ("OPTIONS", "*", ""),
        ("GET", "/status/401", ""),
        ("GET", "/status/405", ""),
        ("GET", "/status/426", ""),
        ("GET", "/status/wrong", ""),
        ("GET", "/stream/2/1ms", ""),
        ("GET", "/bytes/10", ""),
    ];
    for serving in &servers {
        for (method, target, field) in requests {
            let fields: &[&str] = if field.is_empty() { &[] } else { &[field] };
            let answer = ask(serving, method, target, fields);
            can_be_read(&answer);
        }
    }
    stop(servers);
}

fn can_be_read(answer: &Answer) {
    let head = format!("{}\r\n\r\n", answer.head);
    let mut fields = [EMPTY_HEADER; 32];
    let mut parsed = Response::new(&mut fields);
    let status = parsed.parse(head.as_bytes()).expect("a head");
    assert!(
        matches!(status, Status::Complete(length) if length == head.len()),
        "{head}"
    );
    assert!(
        !head.replace("\r\n", "").contains(['\r', '\n', '\0']),
        "{head}"
    );
    let mut names = names(answer);
    names.sort();
    let sent = names.len();
    names.dedup();
    assert_eq!(names.len(), sent, "no field is there twice: {head}");
    assert!(!names.contains(&"server".to_owned()));
    let has_content_type = answer.header("content-type").is_some();
    assert!(answer.body.is_empty() || has_content_type, "{head}");
    assert!(answer.header("date").is_some(), "{head}");
    for field in parsed.headers.iter() {
        let value = std::str::from_utf8(field.value).expect("text");
        assert_eq!(value, value.trim(), "{head}");
        match field.name {
            "date" | "last-modified" => {
                httpdate::parse_http_date(value).expect("a date");
            }
            "etag" => {
                let tag = value.strip_prefix("W/").unwrap_or(value);
                let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
                assert!(inner.is_some_and(|tag| !tag.contains('"')), "{head}");
            }
            "content-length" => assert!(value.parse::<u64>().is_ok(), "{head}"),
            "accept-ranges" => assert_eq!(value, "bytes"),
            "x-content-type-options" => assert_eq!(value, "nosniff"),
            "content-type" => {
                value
                    .parse::<mime_guess::mime::Mime>()
                    .expect("a media type");
            }
            _ => {}
        }
    }
}
