//! `sockeye connect --http`, and servers that no one here wrote.

use std::process::Output;

use crate::authority::Authority;
use crate::peers::{
    MEGABYTE, Process, SMALL, command, folder_with_files, free_port, nginx, nginx_http, nginx_with,
    noise,
};
use crate::support::{line_with, run, sockeye, text};

fn connect(arguments: &[&str], input: &[u8]) -> Output {
    run(sockeye(&[&["connect"], arguments].concat()), input)
}

fn assert_answered(output: &Output, body: &[u8]) {
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == body, "other bytes came");
}

#[test]
#[ignore = "needs nginx"]
fn nginx_is_asked_for_files_and_each_comes_whole() {
    let folder = folder_with_files();
    let (_nginx, addresses) = (0..5)
        .find_map(|_| nginx(folder.path()))
        .expect("a free port");
    for address in &addresses {
        let get = |options: &[&str]| connect(&[options, &[address]].concat(), b"");
        assert_answered(&get(&["--http", "/small"]), &noise(SMALL));
        assert_answered(&get(&["--http", "/large"]), &noise(MEGABYTE));
        assert_answered(&get(&["--http", "HEAD /large"]), b"");
        let missing = get(&["-v", "--fail", "--http", "/none"]);
        assert_eq!(missing.status.code(), Some(1));
        let head = text(&missing.stderr);
        assert!(head.contains("< HTTP/1.1 404 Not Found"), "{head}");
        let post = connect(&["-v", "--http", "POST /small", address], b"body");
        let head = text(&post.stderr);
        assert!(head.contains("< HTTP/1.1 405 Not Allowed"), "{head}");
        let unchanged = "--header=If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT";
        let head = text(&get(&["-v", unchanged, "--http", "/small"]).stderr);
        // nginx wants the very date, or one that is later with this: either way the answer ends where it ends.
        assert!(head.contains("< HTTP/1.1 "), "{head}");
    }
}

/// With server-side includes nginx does not know the length before.
#[test]
#[ignore = "needs nginx"]
fn nginx_sends_chunks_that_are_put_together() {
    let folder = folder_with_files();
    let root = folder.path().to_str().expect("UTF-8");
    let (_nginx, port) = (0..5)
        .find_map(|_| {
            let port = free_port();
            let server = format!("server {{ listen 127.0.0.1:{port}; ssi on; ssi_types *; }}");
            Some((nginx_with(root, &nginx_http(root, &server))?, port))
        })
        .expect("a free port");
    let output = connect(&["-v", "--http", "/large", "127.0.0.1", &port], b"");
    assert_eq!(output.status.code(), Some(0));
    let head = text(&output.stderr);
    assert!(head.contains("< Transfer-Encoding: chunked"), "{head}");
    assert!(output.stdout == noise(MEGABYTE), "other bytes came");
}

/// Python's server: HTTP/1.1, files, and POST gives its body back, after 100 if that is asked for.
const PYTHON: &str = r#"
import http.server, os, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("at", server.server_address[1], file=sys.stderr, flush=True)
server.serve_forever()
"#;

#[test]
#[ignore = "needs python3"]
fn pythons_http_server_is_asked_for_files_and_given_bodies() {
    let folder = folder_with_files();
    let root = folder.path().to_str().expect("UTF-8");
    let server = Process::start(command(&["python3", "-c", PYTHON, root]));
    let port = line_with(&server.stderr, "at ")["at ".len()..].to_owned();
    let ask =
        |options: &[&str], input: &[u8]| connect(&[options, &["127.0.0.1", &port]].concat(), input);
    assert_answered(&ask(&["--http", "/large"], b""), &noise(MEGABYTE));
    assert_answered(&ask(&["--http", "HEAD /large"], b""), b"");
    let large = format!("{root}/large");
    let posted = ask(&["--http", "POST /", "--send-file", &large], b"");
    assert_answered(&posted, &noise(MEGABYTE));
    assert_answered(&ask(&["--http", "POST /"], b"from stdin"), b"from stdin");
    let expect = ["-v", "--http", "POST /", "--header", "Expect: 100-continue"];
    let output = ask(&expect, b"hello");
    assert_eq!(text(&output.stdout), "hello");
    let head = text(&output.stderr);
    assert!(
        head.contains("< HTTP/1.1 100 Continue\n<\n< HTTP/1.1 200 OK"),
        "{head}"
    );
}

/// A server that ends TLS without close_notify, after the answer that is given to it.
const RUDE: &str = r#"
import socket, ssl, sys
certificate, key, answer = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
l = socket.create_server(("127.0.0.1", 0))
print("at", l.getsockname()[1], file=sys.stderr, flush=True)
while True:
    s, _ = l.accept()
    t = context.wrap_socket(s, server_side=True)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += t.recv(65536)
    t.sendall(answer.encode())
    t.close()
"#;

#[test]
#[ignore = "needs python3"]
fn an_answer_of_known_length_needs_no_end_of_tls() {
    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let (chain, key) = (authority.path("server.pem"), authority.path("server.key"));
    let ca = authority.path("ca.pem");
    for (answer, code, lax) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, 0),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            0,
            0,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", 56, 0),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", 56, 56),
    ] {
        let server = Process::start(command(&["python3", "-c", RUDE, &chain, &key, answer]));
        let port = line_with(&server.stderr, "at ")["at ".len()..].to_owned();
        let address = format!("tls://localhost:{port}");
        for (options, code) in [(&[][..], code), (&["--tls-eof", "lax"], lax)] {
            let all = [&["--ca", &ca, "--http", "/"], options, &[&address]].concat();
            let output = connect(&all, b"");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{answer:?}: {said}");
            assert_eq!(text(&output.stdout), "hello", "{answer:?}");
        }
    }
}
