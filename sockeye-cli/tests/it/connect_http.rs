//! `sockeye connect --http`, and servers that answer well and badly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, finish, json, run, sockeye, text};

/// A request as a server sees it.
#[derive(Debug)]
struct Request {
    line: String,
    fields: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter_map(|field| {
            let (field, value) = field.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let field = found.next();
        assert!(found.next().is_none(), "two of {name}");
        field
    }
}

/// Reads a request, and its body by its length or its chunks.
fn read_request(stream: impl Read) -> Request {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).expect("read");
        let line = String::from_utf8(line).expect("UTF-8");
        line.strip_suffix("\r\n").expect("a line").to_owned()
    };
    let mut request = Request {
        line: line(),
        fields: Vec::new(),
        body: Vec::new(),
    };
    loop {
        match line() {
            end if end.is_empty() => break,
            field => request.fields.push(field),
        }
    }
    if let Some(length) = request.field("Content-Length") {
        let mut body = vec![0; length.parse().expect("a number")];
        reader.read_exact(&mut body).expect("the body");
        request.body = body;
    } else if request.field("Transfer-Encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).expect("a size");
            let size = usize::from_str_radix(size.trim_end(), 16).expect("hexadecimal");
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).expect("a chunk");
            assert!(chunk.ends_with(b"\r\n"));
            request.body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    request
}

/// A server of one request: its address, and what it makes of it.
fn serve_one<T: Send + 'static>(
    talk: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        talk(stream)
    });
    (address, server)
}

/// What comes after the request: the end of the stream, once the client has left.
fn read_to_the_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut rest);
    rest
}

/// `connect --http` with these options, to a server that answers with these bytes and leaves the connection open until
/// the client closes it.
fn ask(options: &[&str], input: &[u8], answer: &[u8]) -> (Output, Request) {
    let answer = answer.to_vec();
    let (address, server) = serve_one(move |mut stream| {
        let request = read_request(&stream);
        stream.write_all(&answer).expect("sent");
        read_to_the_end(&stream);
        request
    });
    let output = connect(&[options, &[&address]].concat(), input);
    (output, server.join().expect("no panic"))
}

/// The same with a server that closes after its answer.
fn ask_who_closes(options: &[&str], answer: &[u8]) -> Output {
    let answer = answer.to_vec();
    let (address, server) = serve_one(move |mut stream| {
        read_request(&stream);
        stream.write_all(&answer).expect("sent");
    });
    let output = connect(&[options, &[&address]].concat(), b"");
    server.join().expect("no panic");
    output
}

fn connect(arguments: &[&str], input: &[u8]) -> Output {
    run(sockeye(&[&["connect"], arguments].concat()), input)
}

fn assert_done(output: &Output, body: &str) {
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), body);
}

#[test]
fn a_request_names_its_host_and_the_body_of_the_answer_is_printed_to_its_last_byte() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX: y\r\n\r\nhello\n";
    let answer = answer.to_vec();
    let (address, server) = serve_one(move |mut stream| {
        let request = read_request(&stream);
        // Our input is empty and has ended, and that must not be told: nginx takes FIN for a client that has left.
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("set");
        let mut byte = [0];
        let error = stream.read(&mut byte).expect_err("neither data nor FIN");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        stream.write_all(&answer).expect("sent");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        assert_eq!(read_to_the_end(&stream), b"");
        request
    });
    let output = connect(&["--http", "/a?b=c", &address], b"not sent");
    assert_done(&output, "hello\n");
    let request = server.join().expect("no panic");
    assert_eq!(request.line, "GET /a?b=c HTTP/1.1");
    assert_eq!(request.field("Host"), Some(address.as_str()));
    assert_eq!(request.field("Accept"), Some("*/*"));
    assert!(request.field("Content-Length").is_none() && request.body.is_empty());
}

#[test]
fn chunks_are_put_together_and_end_the_answer() {
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n";
    let (output, _) = ask(&["--http", "/"], b"", answer);
    assert_done(&output, "abcde");
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    for (request, answer) in [
        ("HEAD /", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (
            "HEAD /",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("DELETE /", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET /",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        ("GET /", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let (output, seen) = ask(&["--http", request], b"", answer.as_bytes());
        assert_done(&output, "");
        assert!(seen.line.starts_with(request), "{}", seen.line);
    }
}

/// The connection is left alone then: a server that keeps it open would be heard out for 2 s at any other end.
#[test]
fn whoever_has_the_answer_does_not_wait_for_the_end_of_the_connection() {
    let (done, is_done) = mpsc::channel();
    let (address, server) = serve_one(move |stream| {
        read_request(&stream);
        (&stream)
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            .expect("sent");
        is_done.recv_timeout(PATIENCE)
    });
    let begun = Instant::now();
    assert_done(&connect(&["--http", "/", &address], b""), "hi");
    assert!(begun.elapsed() < Duration::from_secs(2));
    done.send(()).expect("it waits");
    server.join().expect("no panic").expect("released");
}

#[test]
fn interim_answers_are_passed_over() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let (output, _) = ask(&["--http", "/"], b"", answer);
    assert_done(&output, "hi");
}

#[test]
fn an_answer_without_a_length_ends_with_the_connection() {
    let output = ask_who_closes(&["--http", "/"], b"HTTP/1.0 200 OK\r\n\r\nall of it");
    assert_done(&output, "all of it");
}

/// The kernel tells of a reset once, to whichever of a write and a read comes first.
#[test]
fn an_answer_without_a_length_that_a_reset_ends_is_not_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let (body, talk) = (folder.path().join("body"), folder.path().join("talk"));
    let large = std::fs::File::create(&body).expect("written");
    large.set_len(32 << 20).expect("written");
    let (body, talk) = (body.to_str().expect("UTF-8"), talk.to_str().expect("UTF-8"));
    for _ in 0..30 {
        let (came, has_come) = mpsc::channel();
        let (address, server) = serve_one(move |mut stream| {
            stream.read_exact(&mut [0; 1_000]).expect("read");
            let answer = b"HTTP/1.0 200 OK\r\n\r\npart";
            stream.write_all(answer).expect("sent");
            has_come.recv_timeout(PATIENCE).expect("it came");
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("set");
        });
        let asks = ["connect", "-q", "--http", "POST /", "--send-file", body];
        let mut child = sockeye(&[&asks[..], &["--record", talk, &address]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut [0; 4]).expect("delivered");
        came.send(()).expect("it waits");
        let output = finish(child, Vec::new());
        assert_eq!(output.status.code(), Some(56), "{}", text(&output.stderr));
        server.join().expect("no panic");
        let talk = std::fs::read_to_string(talk).expect("written");
        assert!(!talk.contains("\"end\":true"), "a reset is no end");
    }
}

#[test]
fn an_answer_that_is_cut_short_or_is_none_is_exit_code_56_with_all_that_came() {
    for (answer, came, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "abc",
            "after 3 of 9 bytes",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nd",
            "abcd",
            "before the last chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
            "abc",
            "longer than its size",
        ),
        ("HTTP/1.1 200 OK\r\nConte", "", "before the head"),
        ("", "", "before the head"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "", "before the head"),
        ("SSH-2.0-\x1b[31m\r\n", "", "SSH-2.0-\\x1b[31m"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nab",
            "",
            "Content-Length",
        ),
    ] {
        let output = ask_who_closes(&["--http", "/"], answer.as_bytes());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(56), "{answer:?}: {said}");
        assert!(said.contains(words), "{answer:?}: {said}");
        assert_eq!(text(&output.stdout), came, "{answer:?}");
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let answer = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(70_000));
    let output = ask_who_closes(&["--http", "/"], answer.as_bytes());
    assert_eq!(output.status.code(), Some(56));
    assert!(text(&output.stderr).contains("longer than 65536 bytes"));
}

#[test]
fn what_comes_after_the_answer_is_not_in_it_and_is_told() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there";
    let (output, _) = ask(&["--http", "/"], b"", answer);
    assert_eq!(text(&output.stdout), "hi");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("6 bytes came after"));
    let (output, _) = ask(&["-q", "--http", "/"], b"", answer);
    assert_done(&output, "hi");
}

#[test]
fn verbose_tells_the_heads_and_nothing_in_them_is_obeyed() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 \x1b]0;t\x07\r\nX: \xff\x1b[31m\r\nContent-Length: 2\r\n\r\nhi";
    let (output, _) = ask(&["-v", "--http", "/"], b"", answer);
    let said = text(&output.stderr);
    // What is no header makes it no answer; what it is, is shown all the same.
    assert_eq!(output.status.code(), Some(56), "{said}");
    assert!(
        !said.contains('\x1b') && said.contains("< HTTP/1.1 100 Continue"),
        "{said}"
    );

    let answer = "HTTP/1.1 200 OK\r\nX: \u{9b}31m\u{202e}\r\nContent-Length: 2\r\n\r\nhi";
    let (output, _) = ask(&["-v", "--http", "/"], b"", answer.as_bytes());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(text(&output.stdout), "hi");
    assert!(
        said.contains("< X: \\u{9b}31m\\u{202e}\n< Content-Length: 2\n<\n"),
        "{said}"
    );
}

#[test]
fn the_status_is_no_error_unless_it_is_asked_for() {
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnone\n";
    let (output, _) = ask(&["--http", "/"], b"", answer);
    assert_done(&output, "none\n");
    let (output, _) = ask(&["--http", "/", "--fail"], b"", answer);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "none\n");
    assert!(text(&output.stderr).contains("status 404"));
    let fine = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n";
    let (output, _) = ask(&["--fail", "--http", "/"], b"", fine);
    assert_done(&output, "");
}

const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\nok\n";

#[test]
fn a_body_is_sent_with_its_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("body");
    let file: Vec<u8> = (0..=255).cycle().take(2_000_003).collect();
    std::fs::write(&path, &file).expect("written");
    let path = path.to_str().expect("UTF-8");

    let (output, request) = ask(&["--http", "POST /a"], b"from stdin", CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(request.line, "POST /a HTTP/1.1");
    assert_eq!(request.field("Content-Length"), Some("10"));
    assert_eq!(request.body, b"from stdin");

    let (output, request) = ask(
        &["--http", "PUT /a", "--send", "a\\r\\n", "--send", "b"],
        b"",
        CREATED,
    );
    assert_done(&output, "ok\n");
    assert_eq!(request.body, b"a\r\nb");

    // Also with a method that is not expected to have one.
    let (output, request) = ask(&["--http", "GET /a", "--send-file", path], b"", CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(request.field("Content-Length"), Some("2000003"));
    assert!(request.body == file);

    let (output, request) = ask(&["--http", "POST /a"], b"", CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(request.field("Content-Length"), Some("0"));
}

#[test]
fn a_file_that_does_not_know_its_length_is_sent_all_the_same() {
    let version = std::fs::read("/proc/version").expect("there");
    let asks = ["--http", "POST /", "--send-file", "/proc/version"];
    let (output, request) = ask(&asks, b"", CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(text(&request.body), text(&version));
}

#[test]
fn a_file_on_stdin_is_sent_from_where_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("body");
    std::fs::write(&path, "skipped: body").expect("written");
    let mut file = std::fs::File::open(&path).expect("opens");
    file.read_exact(&mut [0; 9]).expect("read");
    let (address, server) = serve_one(|mut stream| {
        let request = read_request(&stream);
        stream.write_all(CREATED).expect("sent");
        request
    });
    let child = sockeye(&["connect", "--http", "PATCH /", &address])
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    assert_done(&finish(child, Vec::new()), "ok\n");
    let request = server.join().expect("no panic");
    assert_eq!(request.field("Content-Length"), Some("4"));
    assert_eq!(request.body, b"body");
}

#[test]
fn a_body_of_unknown_length_goes_in_chunks_once_it_is_long() {
    let long: Vec<u8> = (0..250).cycle().take(1_500_003).collect();
    let (output, request) = ask(&["--http", "POST /"], &long, CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(request.field("Transfer-Encoding"), Some("chunked"));
    assert!(request.field("Content-Length").is_none());
    assert!(request.body == long);

    let header = ["--http", "POST /", "--header", "transfer-encoding: chunked"];
    let (output, request) = ask(&header, b"short", CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(request.field("Transfer-Encoding"), Some("chunked"));
    assert_eq!(request.body, b"short");
}

#[test]
fn fields_that_are_given_stand_for_those_that_would_be_sent() {
    let fields = [
        "--header",
        "Host: example.org",
        "--header",
        "accept:text/plain",
        "--header",
        "X: a: b",
    ];
    let (output, request) = ask(&[&fields[..], &["--http", "/"]].concat(), b"", CREATED);
    assert_done(&output, "ok\n");
    assert_eq!(request.field("Host"), Some("example.org"));
    assert_eq!(request.field("Accept"), Some("text/plain"));
    assert_eq!(request.field("X"), Some("a: b"));
}

#[test]
fn an_answer_before_the_end_of_the_body_is_taken() {
    let (address, server) = serve_one(|mut stream| {
        stream.read_exact(&mut [0; 1000]).expect("the start");
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .expect("sent");
        // The rest is not read until the client has left.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("body");
    // Nothing is written of it, and it is larger than all buffers on the way.
    std::fs::File::create(&path)
        .and_then(|file| file.set_len(1 << 30))
        .expect("made");
    let path = path.to_str().expect("UTF-8");
    let output = connect(&["--http", "POST /", "--send-file", path, &address], b"");
    assert_done(&output, "");
    server.join().expect("no panic");
}

#[test]
fn a_server_that_does_not_answer_is_exit_code_28() {
    let (address, server) = serve_one(|stream| {
        read_request(&stream);
        read_to_the_end(&stream);
    });
    let output = connect(&["--http", "/", "--idle-timeout", "200ms", &address], b"");
    assert_eq!(output.status.code(), Some(28));
    server.join().expect("no panic");
}

#[test]
fn a_unix_socket_is_asked_as_localhost() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).expect("binds");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let request = read_request(&stream);
        stream.write_all(CREATED).expect("sent");
        request
    });
    let output = connect(&["--http", "/", &format!("unix:{}", path.display())], b"");
    assert_done(&output, "ok\n");
    let request = server.join().expect("no panic");
    assert_eq!(request.field("Host"), Some("localhost"));
}

#[test]
fn the_account_tells_of_the_answer() {
    let (output, _) = ask(&["--explain", "--json", "--http", "/"], b"", CREATED);
    assert_eq!(output.status.code(), Some(0));
    let account = json(&text(&output.stderr));
    assert_eq!(account["http"]["status"], 201);
    assert_eq!(account["http"]["body_bytes"], 3);
    assert_eq!(account["ending"], "answered");
    assert_eq!(account["hops"], serde_json::json!([]));
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    let output = ask_who_closes(&["--explain", "--json", "--http", "/"], cut);
    let account = json(&text(&output.stderr));
    assert_eq!(account["http"]["status"], serde_json::Value::Null);
    assert_eq!(account["http"]["body_bytes"], 3);
    assert_eq!(account["ending"], "bad_answer");
    let (output, _) = ask(&["--explain", "--http", "/"], b"", CREATED);
    assert!(text(&output.stderr).contains("answer     status 201, 3 bytes of body"));
}

#[test]
fn a_request_without_a_body_can_be_repeated() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().expect("accepts");
            read_request(&stream);
            stream.write_all(CREATED).expect("sent");
        }
    });
    let repeat = ["-q", "--repeat", "3", "--interval", "1ms"];
    let output = connect(&[&repeat[..], &["--http", "/", &address]].concat(), b"");
    assert_done(&output, "ok\nok\nok\n");
    server.join().expect("no panic");
    let body = connect(
        &[&repeat[..], &["--http", "POST /", &address]].concat(),
        b"",
    );
    assert_eq!(body.status.code(), Some(2));
}

#[test]
fn what_is_no_request_is_exit_code_2() {
    for (arguments, words) in [
        (&["--http", "POST"][..], "write /PATH"),
        (&["--http", "index.html"], "write /PATH"),
        (&["--http", "http://example.org/"], "does not begin with /"),
        (&["--http", "/a b"], "%20"),
        (&["--http", "CONNECT /"], "tunnel"),
        (&["--http", "/", "--header", "X"], "colon"),
        (&["--http", "/", "--header", "X y: z"], "name of a field"),
        (
            &["--http", "/", "--header", "X: a\r\nY: b"],
            "control character",
        ),
        (
            &["--http", "/", "--header", "Content-Length: 5"],
            "length of the body",
        ),
        (
            &["--http", "/", "--header", "Transfer-Encoding: gzip"],
            "chunked",
        ),
        (
            &["--http", "/", "--header", "Transfer-Encoding: chunked"],
            "no body",
        ),
        (
            &["--http", "/", "--header", "Host: a", "--header", "host: b"],
            "one Host",
        ),
        (&["--header", "X: y"], "--http"),
        (&["--fail"], "--http"),
        (&["--http", "/", "--probe"], "cannot be used with"),
        (&["--http", "/", "--on-eof", "fin"], "cannot be used with"),
        (&["--http", "/", "--crlf"], "cannot be used with"),
    ] {
        let output = connect(&[arguments, &["127.0.0.1:80"]].concat(), b"");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
