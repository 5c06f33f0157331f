//! `sockeye serve files`: a folder, over HTTP, and nothing outside of it.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::peers::noise;
use crate::support::{Serving, json, line_with, run, sockeye, text};
use crate::web::{all, ask, parse, raw, send};

/// A folder with some of everything, inside of one with a secret.
struct Tree {
    above: TempDir,
}

const SECRET: &str = "nobody's business";

impl Tree {
    fn new() -> Self {
        let above = tempfile::tempdir().expect("a folder");
        let tree = Self { above };
        fs::write(tree.above.path().join("secret.txt"), SECRET).expect("written");
        fs::create_dir_all(tree.path("sub/deep")).expect("made");
        tree.write("hello.txt", b"hello, world\n");
        tree.write("sub/page.html", b"<p>page</p>");
        tree
    }

    fn root(&self) -> std::path::PathBuf {
        self.above.path().join("served")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("written");
    }

    fn serve(&self, arguments: &[&str]) -> Serving {
        let root = self.root();
        Serving::start(&[&["files", root.to_str().expect("UTF-8")], arguments].concat())
    }
}

#[test]
fn a_file_comes_with_its_kind_its_length_and_what_tells_it_from_another() {
    let tree = Tree::new();
    let serving = tree.serve(&[]);
    let answer = ask(&serving, "GET", "/hello.txt", &[]);
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "hello, world\n")
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.header("content-length"), Some("13"));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("etag").is_some() && answer.header("date").is_some());
    let head = ask(&serving, "HEAD", "/hello.txt", &[]);
    assert_eq!((head.status(), head.body.len()), (200, 0));
    for name in ["content-length", "etag", "last-modified", "content-type"] {
        assert_eq!(head.header(name), answer.header(name), "{name}");
    }
    let page = ask(&serving, "GET", "/sub/page.html", &[]);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(ask(&serving, "GET", "/absent", &[]).status(), 404);
    assert_eq!(ask(&serving, "GET", "/hello.txt/", &[]).status(), 404);
    assert_eq!(ask(&serving, "GET", "/hello.txt/x", &[]).status(), 404);
    let refused = ask(&serving, "DELETE", "/hello.txt", &[]);
    assert_eq!(
        (refused.status(), refused.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    assert_eq!(ask(&serving, "PUT", "/new.txt", &[]).status(), 405);
    assert_eq!(
        ask(&serving, "OPTIONS", "/", &[]).header("allow"),
        Some("GET, HEAD, OPTIONS")
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs curl"]
fn files_of_every_size_arrive_whole_over_tcp_unix_sockets_and_tls() {
    let tree = Tree::new();
    let sizes = [
        0,
        1,
        32 * 1024,
        32 * 1024 + 1,
        (1 << 20) - 1,
        (1 << 20) + 1,
        5_000_000,
    ];
    for size in sizes {
        tree.write(&format!("{size}.bin"), &noise(size));
    }
    let socket = tree.above.path().join("socket");
    let unix = format!("unix:{}", socket.to_str().expect("UTF-8"));
    let by_unix = vec!["--unix-socket", socket.to_str().expect("UTF-8")];
    for (arguments, scheme, client) in [
        (vec!["-l", "127.0.0.1:0"], "http", vec![]),
        (vec!["-l", unix.as_str()], "http", by_unix),
        (
            vec!["-l", "127.0.0.1:0", "--tls-self-signed", "localhost"],
            "https",
            vec!["-k"],
        ),
    ] {
        let serving = tree.serve(&arguments);
        let host = if scheme == "http" && !client.is_empty() {
            "localhost"
        } else {
            &serving.address
        };
        for size in sizes {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--fail"])
                .args(&client)
                .arg(format!("{scheme}://{host}/{size}.bin"));
            let output = run(curl, b"");
            assert_eq!(text(&output.stderr), "");
            assert!(output.stdout == noise(size), "{size} bytes, {arguments:?}");
        }
        assert_eq!(serving.stop(), 0);
    }
}

#[test]
fn requests_that_follow_each_other_without_waiting_are_answered_in_order() {
    let tree = Tree::new();
    let large = noise(300_000);
    tree.write("large.bin", &large);
    let serving = tree.serve(&[]);
    let request =
        |target: &str, last: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{last}\r\n");
    let requests = request("/large.bin", "")
        + &request("/hello.txt", "")
        + &request("/large.bin", "Connection: close\r\n");
    let came = raw(&serving, requests.as_bytes());
    let places: Vec<_> = came
        .windows(large.len())
        .enumerate()
        .filter(|(_, window)| *window == large)
        .collect();
    assert_eq!(places.len(), 2);
    let hello = came
        .windows(13)
        .position(|window| window == b"hello, world\n")
        .expect("there");
    assert!(places[0].0 < hello && hello < places[1].0);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn parts_of_a_file_are_what_was_asked_for() {
    let tree = Tree::new();
    let bytes = noise(200_000);
    tree.write("data.bin", &bytes);
    let serving = tree.serve(&[]);
    for (range, content, expected) in [
        ("bytes=0-0", "bytes 0-0/200000", &bytes[..1]),
        ("bytes=100-", "bytes 100-199999/200000", &bytes[100..]),
        ("bytes=-5", "bytes 199995-199999/200000", &bytes[199_995..]),
        (
            "bytes=50000-149999",
            "bytes 50000-149999/200000",
            &bytes[50_000..150_000],
        ),
    ] {
        let answer = ask(&serving, "GET", "/data.bin", &[&format!("Range: {range}")]);
        assert_eq!(
            (answer.status(), answer.header("content-range")),
            (206, Some(content))
        );
        assert!(answer.body == expected, "{range}");
    }
    let none = ask(&serving, "GET", "/data.bin", &["Range: bytes=200000-"]);
    assert_eq!(
        (none.status(), none.header("content-range")),
        (416, Some("bytes */200000"))
    );
    assert_eq!(
        ask(&serving, "GET", "/data.bin", &["Range: lines=1-2"]).status(),
        200
    );
    let head = ask(&serving, "HEAD", "/data.bin", &["Range: bytes=0-0"]);
    assert_eq!(
        (head.status(), head.header("content-length")),
        (200, Some("200000"))
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
#[ignore = "needs python3"]
fn several_parts_come_as_one_body_that_a_mail_parser_reads() {
    let tree = Tree::new();
    let bytes = noise(200_000);
    tree.write("data.bin", &bytes);
    let serving = tree.serve(&[]);
    let answer = ask(
        &serving,
        "GET",
        "/data.bin",
        &["Range: bytes=0-9,100000-199999,-1"],
    );
    assert_eq!(answer.status(), 206);
    let length = answer.header("content-length").map(str::parse);
    assert_eq!(length, Some(Ok(answer.body.len())));
    let script = "
import email, sys
message = email.message_from_bytes(b'Content-Type: ' + sys.argv[1].encode() + b'\\r\\n' + sys.stdin.buffer.read())
for part in message.get_payload():
    print(part['Content-Range'], part['Content-Type'], len(part.get_payload(decode=True)))
";
    let mut python = Command::new("python3");
    python.args(["-c", script, answer.header("content-type").expect("there")]);
    let output = run(python, &answer.body);
    assert_eq!(
        text(&output.stdout),
        "bytes 0-9/200000 application/octet-stream 10\n\
         bytes 100000-199999/200000 application/octet-stream 100000\n\
         bytes 199999-199999/200000 application/octet-stream 1\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_client_that_has_the_file_is_told_so_and_one_that_has_another_gets_this_one() {
    let tree = Tree::new();
    let serving = tree.serve(&[]);
    let first = ask(&serving, "GET", "/hello.txt", &[]);
    let tag = first.header("etag").expect("there").to_owned();
    let date = first.header("last-modified").expect("there").to_owned();
    for field in [
        format!("If-None-Match: {tag}"),
        format!("If-Modified-Since: {date}"),
    ] {
        let answer = ask(&serving, "GET", "/hello.txt", &[&field]);
        assert_eq!((answer.status(), answer.body.len()), (304, 0), "{field}");
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    // The same size, and the same second.
    let modified = fs::metadata(tree.path("hello.txt"))
        .and_then(|about| about.modified())
        .expect("there");
    tree.write("hello.txt", b"HELLO, WORLD\n");
    let file = fs::File::options()
        .write(true)
        .open(tree.path("hello.txt"))
        .expect("there");
    file.set_modified(modified + Duration::from_nanos(1))
        .expect("set");
    let answer = ask(
        &serving,
        "GET",
        "/hello.txt",
        &[&format!("If-None-Match: {tag}")],
    );
    assert_eq!(
        (answer.status(), answer.text().as_str()),
        (200, "HELLO, WORLD\n")
    );
    let resumed = ask(
        &serving,
        "GET",
        "/hello.txt",
        &["Range: bytes=5-", &format!("If-Range: {tag}")],
    );
    assert_eq!(
        resumed.status(),
        200,
        "a part of another file is worth nothing"
    );
    assert_eq!(
        ask(
            &serving,
            "GET",
            "/hello.txt",
            &[&format!("If-Match: {tag}")]
        )
        .status(),
        412
    );
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_file_from_a_year_that_no_date_tells_is_served_without_one() {
    let tree = Tree::new();
    let serving = tree.serve(&["--upload"]);
    let second = Duration::from_secs(1);
    let year_10000 = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    for time in [SystemTime::UNIX_EPOCH - second, year_10000] {
        tree.write("hello.txt", b"hello, world\n");
        let file = fs::File::options()
            .write(true)
            .open(tree.path("hello.txt"))
            .expect("there");
        file.set_modified(time).expect("set");
        let about = fs::metadata(tree.path("hello.txt")).expect("there");
        if about.modified().expect("there") != time {
            // This file system has no such time.
            continue;
        }
        let date = "Thu, 01 Jan 2026 00:00:00 GMT";
        for field in ["If-Modified-Since", "If-Unmodified-Since", "If-Range"] {
            let fields = [&*format!("{field}: {date}"), "Range: bytes=0-"];
            let answer = ask(&serving, "GET", "/hello.txt", &fields);
            let status = if field == "If-Range" { 200 } else { 206 };
            assert_eq!(answer.status(), status, "{field}");
            assert_eq!(answer.text(), "hello, world\n");
            assert_eq!(answer.header("last-modified"), None);
            assert!(answer.header("etag").is_some());
        }
        let fields = [&*format!("If-Unmodified-Since: {date}")];
        let put = send(&serving, "PUT", "/hello.txt", &fields, b"x");
        assert_eq!(put.status(), 204);
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_was_compressed_before_is_sent_to_who_takes_it() {
    let tree = Tree::new();
    tree.write("app.js", b"plain");
    tree.write("app.js.gz", b"gzipped");
    tree.write("app.js.br", b"brotli");
    let serving = tree.serve(&[]);
    for (accepts, body, encoding) in [
        ("gzip, deflate, br", "brotli", Some("br")),
        ("gzip", "gzipped", Some("gzip")),
        ("zstd", "plain", None),
        ("identity", "plain", None),
    ] {
        let answer = ask(
            &serving,
            "GET",
            "/app.js",
            &[&format!("Accept-Encoding: {accepts}")],
        );
        assert_eq!(
            (answer.text().as_str(), answer.header("content-encoding")),
            (body, encoding)
        );
        assert!(
            answer
                .header("content-type")
                .is_some_and(|kind| kind.contains("javascript"))
        );
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accepts}");
    }
    for (field, status, encoding) in [
        ("Range: bytes=0-2", 206, Some("gzip")),
        ("Range: bytes=100-", 416, None),
        ("If-Match: \"x\"", 412, None),
    ] {
        let fields = ["Accept-Encoding: gzip", field];
        let answer = ask(&serving, "GET", "/app.js", &fields);
        assert_eq!(
            (answer.status(), answer.header("content-encoding")),
            (status, encoding)
        );
    }
    assert_eq!(ask(&serving, "GET", "/app.js.gz", &[]).text(), "gzipped");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn nothing_outside_of_the_folder_can_be_had() {
    let tree = Tree::new();
    tree.write(".env", SECRET.as_bytes());
    fs::create_dir(tree.path(".git")).expect("made");
    tree.write(".git/config", SECRET.as_bytes());
    let secret = tree.above.path().join("secret.txt");
    symlink(&secret, tree.path("absolute")).expect("linked");
    symlink("../secret.txt", tree.path("relative")).expect("linked");
    symlink("..", tree.path("up")).expect("linked");
    symlink("/proc/self/root", tree.path("magic")).expect("linked");
    symlink("loop", tree.path("loop")).expect("linked");
    symlink("../hello.txt", tree.path("sub/inside")).expect("linked");
    fs::create_dir(tree.path("sub/index")).expect("made");
    symlink(&secret, tree.path("sub/index/index.html")).expect("linked");
    let _socket = UnixListener::bind(tree.path("socket")).expect("bound");
    let fifo = Command::new("mkfifo")
        .arg(tree.path("fifo"))
        .status()
        .expect("there");
    assert!(fifo.success());
    let serving = tree.serve(&["--index"]);
    for target in [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/.%2e/secret.txt",
        "//../secret.txt",
        "/sub/%2e%2e/%2e%2e/secret.txt",
        "/hello.txt%00.html",
        "/%c0%ae%c0%ae/secret.txt",
        "/absolute",
        "/relative",
        "/up/secret.txt",
        "/magic/etc/passwd",
        "/loop",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/socket",
        "/fifo",
        "/fifo/",
    ] {
        let answer = ask(&serving, "GET", target, &[]);
        assert!(
            matches!(answer.status(), 400 | 404),
            "{target}: {}",
            answer.head
        );
        assert!(!answer.text().contains(SECRET), "{target}");
    }
    // An address of another server in the request is for this one all the same.
    let proxied = ask(
        &serving,
        "GET",
        "http://elsewhere.example/../secret.txt",
        &[],
    );
    assert!(matches!(proxied.status(), 400 | 404));
    assert_eq!(
        ask(&serving, "GET", "/sub/inside", &[]).text(),
        "hello, world\n"
    );
    assert_eq!(
        ask(&serving, "GET", "//hello.txt", &[]).text(),
        "hello, world\n"
    );
    let listed = ask(&serving, "GET", "/", &[]).text();
    for hidden in [".env", ".git", "fifo", "socket", "loop"] {
        assert!(!listed.contains(hidden), "{hidden} is listed");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_device_is_not_served() {
    // What is in /dev is a link to itself from nowhere: it is the folder.
    let serving = Serving::start(&["files", "/dev"]);
    for target in ["/zero", "/random", "/tty"] {
        assert_eq!(ask(&serving, "GET", target, &[]).status(), 404, "{target}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn folders_are_listed_when_it_is_asked_for_and_their_page_comes_first() {
    let tree = Tree::new();
    let serving = tree.serve(&[]);
    assert_eq!(ask(&serving, "GET", "/", &[]).status(), 404);
    let moved = ask(&serving, "GET", "/sub?x=1", &[]);
    assert_eq!(
        (moved.status(), moved.header("location")),
        (301, Some("/sub/?x=1"))
    );
    assert_eq!(serving.stop(), 0);

    tree.write("b&<i>.txt", b"12345");
    let serving = tree.serve(&["--index"]);
    let page = ask(&serving, "GET", "/?sort=size&order=desc", &[]);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
    let page = page.text();
    let place = |what: &str| page.find(what).unwrap_or_else(|| panic!("{what}: {page}"));
    assert!(
        place("sub/") < place("hello.txt") && place("hello.txt") < place("b&amp;&lt;i&gt;.txt")
    );
    assert!(page.contains("13 B") && !page.contains("<i>"));
    let list = json(&ask(&serving, "GET", "/sub/", &["Accept: application/json"]).text());
    assert_eq!(list["path"], "/sub/");
    let names: Vec<_> = list["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["name"].as_str())
        .collect();
    assert_eq!(names, [Some("deep"), Some("page.html")]);
    assert_eq!(list["entries"][1]["size_bytes"], 11);
    tree.write("index.html", b"the page");
    assert_eq!(ask(&serving, "GET", "/", &[]).text(), "the page");
    assert_eq!(serving.stop(), 0);
}

/// Of what is outside not even the size is told.
#[test]
fn a_listing_has_the_links_that_can_be_had_and_no_others() {
    let tree = Tree::new();
    symlink("../secret.txt", tree.path("sub/out")).expect("linked");
    symlink(tree.above.path(), tree.path("sub/above")).expect("linked");
    symlink("/etc/passwd", tree.path("sub/absolute")).expect("linked");
    symlink("nowhere", tree.path("sub/dangling")).expect("linked");
    symlink("../hello.txt", tree.path("sub/inside")).expect("linked");
    let serving = tree.serve(&["--index"]);
    let list = json(&ask(&serving, "GET", "/sub/", &["Accept: application/json"]).text());
    let entries = list["entries"].as_array().expect("a list");
    let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str()).collect();
    assert_eq!(names, [Some("deep"), Some("inside"), Some("page.html")]);
    assert_eq!(entries[1]["size_bytes"], 13);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_page_with_a_router_answers_for_what_is_not_there() {
    let tree = Tree::new();
    tree.write("app.html", b"the app");
    let serving = tree.serve(&["--spa", "app.html"]);
    for target in ["/", "/users/7", "/absent.js"] {
        let answer = ask(&serving, "GET", target, &[]);
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (200, "the app"),
            "{target}"
        );
    }
    assert_eq!(
        ask(&serving, "GET", "/hello.txt", &[]).text(),
        "hello, world\n"
    );
    assert_eq!(serving.stop(), 0);
    let root = tree.root();
    let refused = run(
        sockeye(&[
            "serve",
            "files",
            root.to_str().expect("UTF-8"),
            "--spa",
            "no.html",
        ]),
        b"",
    );
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("there is no file no.html"));
}

/// As [`Tree::serve`], without root's right to read everything.
fn serve_without_rights(tree: &Tree, arguments: &[&str]) -> Serving {
    if !rustix::process::geteuid().is_root() {
        return tree.serve(arguments);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--inh-caps=-dac_override,-dac_read_search",
        "--bounding-set=-dac_override,-dac_read_search",
        env!("CARGO_BIN_EXE_sockeye"),
        "serve",
        "files",
        tree.root().to_str().expect("UTF-8"),
        "-l",
        "127.0.0.1:0",
    ]);
    command.args(arguments);
    Serving::spawn(command)
}

#[test]
fn a_page_that_may_not_be_read_is_not_taken_for_none() {
    let tree = Tree::new();
    tree.write("app.html", b"the app");
    tree.write("sub/index.html", b"the page");
    tree.write("hello.txt.gz", b"gzipped");
    let serving = serve_without_rights(&tree, &["--index", "--spa", "app.html"]);
    for name in ["app.html", "sub/index.html", "hello.txt.gz"] {
        fs::set_permissions(tree.path(name), Permissions::from_mode(0o000)).expect("set");
    }
    for target in ["/sub/", "/absent"] {
        assert_eq!(ask(&serving, "GET", target, &[]).status(), 403, "{target}");
    }
    let plain = ask(&serving, "GET", "/hello.txt", &["Accept-Encoding: gzip"]);
    assert_eq!(plain.text(), "hello, world\n");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn put_replaces_a_file_whole_or_not_at_all() {
    let tree = Tree::new();
    let serving = tree.serve(&["--upload", "--upload-limit", "1MiB"]);
    let large = noise(1 << 20);
    assert_eq!(
        send(&serving, "PUT", "/sub/new.bin", &[], &large).status(),
        201
    );
    assert!(fs::read(tree.path("sub/new.bin")).expect("there") == large);
    assert_eq!(
        send(&serving, "PUT", "/sub/new.bin", &[], b"short").status(),
        204
    );
    assert_eq!(fs::read(tree.path("sub/new.bin")).expect("there"), b"short");
    for (target, body, status) in [
        ("/too-large.bin", [&large[..], b"x"].concat(), 413),
        ("/absent/new.bin", b"x".to_vec(), 409),
        ("/sub", b"x".to_vec(), 409),
        ("/sub/", b"x".to_vec(), 409),
        ("/.hidden", b"x".to_vec(), 403),
        ("/../out.txt", b"x".to_vec(), 400),
    ] {
        assert_eq!(
            send(&serving, "PUT", target, &[], &body).status(),
            status,
            "{target}"
        );
    }
    let name = format!("/{}", "x".repeat(256));
    assert_eq!(send(&serving, "PUT", &name, &[], b"x").status(), 400);
    // The rest of a file is not the file.
    let range = ["Content-Range: bytes 3-4/5"];
    let rest = send(&serving, "PUT", "/sub/new.bin", &range, b"rt");
    assert_eq!(rest.status(), 400);
    assert_eq!(fs::read(tree.path("sub/new.bin")).expect("there"), b"short");
    // Without a length told in advance.
    let chunked = b"PUT /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    assert!(raw(&serving, chunked).starts_with(b"HTTP/1.1 201"));
    assert_eq!(fs::read(tree.path("c")).expect("there"), b"abc");
    // One that breaks off.
    let cut = b"PUT /hello.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
    let mut stream = serving.connect();
    stream.write_all(cut).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("sent");
    all(&mut stream);
    assert_eq!(
        fs::read(tree.path("hello.txt")).expect("there"),
        b"hello, world\n"
    );
    // Only if it is not there yet, or still that one.
    assert_eq!(
        send(&serving, "PUT", "/c", &["If-None-Match: *"], b"x").status(),
        412
    );
    assert_eq!(
        send(&serving, "PUT", "/c", &["If-Match: \"x\""], b"x").status(),
        412
    );
    assert_eq!(serving.stop(), 0);
    assert_eq!(leftovers(&tree.root()), [""; 0]);
}

#[test]
fn a_put_for_nothing_replaces_nothing_whatever_has_the_name() {
    let tree = Tree::new();
    let fifo = Command::new("mkfifo")
        .arg(tree.path("fifo"))
        .status()
        .expect("there");
    assert!(fifo.success());
    symlink("nowhere", tree.path("dangling")).expect("linked");
    let serving = tree.serve(&["--upload"]);
    for target in ["/fifo", "/dangling", "/hello.txt"] {
        for field in ["If-None-Match: *", "If-Match: \"x\""] {
            let put = send(&serving, "PUT", target, &[field], b"x");
            assert_eq!(put.status(), 412, "{target}, {field}");
        }
    }
    assert!(fs::read_link(tree.path("dangling")).is_ok());
    let tag = ["If-Match: *"];
    assert_eq!(send(&serving, "PUT", "/new", &tag, b"x").status(), 412);
    let new = ["If-None-Match: *"];
    assert_eq!(send(&serving, "PUT", "/new", &new, b"x").status(), 201);
    assert_eq!(send(&serving, "PUT", "/fifo", &[], b"x").status(), 204);
    assert_eq!(serving.stop(), 0);
    assert_eq!(leftovers(&tree.root()), [""; 0]);
}

#[test]
fn a_put_on_a_condition_fails_if_that_changes_while_it_comes() {
    let tree = Tree::new();
    let serving = tree.serve(&["--upload"]);
    let first = ask(&serving, "GET", "/hello.txt", &[]);
    let tag = first.header("etag").expect("there");
    for (name, condition) in [
        ("new.txt", "If-None-Match: *".to_owned()),
        ("hello.txt", format!("If-Match: {tag}")),
    ] {
        let mut stream = serving.connect();
        let head = format!(
            "PUT /{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{condition}\r\n\
             Expect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // It is wanted: the condition was true so far.
        let mut wanted = [0; 25];
        stream.read_exact(&mut wanted).expect("answered");
        assert_eq!(&wanted, b"HTTP/1.1 100 Continue\r\n\r\n");
        tree.write(name, b"of somebody else");
        stream.write_all(b"x").expect("sent");
        assert_eq!(parse(&all(&mut stream)).status(), 412, "{condition}");
        let there = fs::read(tree.path(name)).expect("there");
        assert_eq!(there, b"of somebody else");
    }
    assert_eq!(serving.stop(), 0);
    assert_eq!(leftovers(&tree.root()), [""; 0]);
}

/// Hidden files, of which there were none before.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .expect("there")
        .map(|entry| entry.expect("there").file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with('.'))
        .collect()
}

#[test]
#[ignore = "needs curl"]
fn a_form_of_a_browser_puts_new_files_into_a_folder() {
    let tree = Tree::new();
    let serving = tree.serve(&["--upload", "--index"]);
    let page = ask(&serving, "GET", "/sub/", &[]).text();
    assert!(page.contains("enctype='multipart/form-data'"));
    let data = tree.above.path().join("data");
    fs::write(&data, noise(100_000)).expect("written");
    let curl = |fields: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{redirect_url}",
        ])
        .args(fields);
        curl.arg(format!("http://{}/sub/", serving.address));
        text(&run(curl, b"").stdout)
    };
    let file = |name: &str| format!("file=@{};filename={name}", data.display());
    let taken = curl(&["-F", &file("one.bin"), "-F", &file("../../two.bin")]);
    assert_eq!(taken, format!("303 http://{}/sub/", serving.address));
    for name in ["one.bin", "two.bin"] {
        assert!(
            fs::read(tree.path("sub").join(name)).expect("there") == noise(100_000),
            "{name}"
        );
    }
    assert!(
        curl(&["-F", &file("one.bin")]).starts_with("409"),
        "what is there stays"
    );
    assert!(curl(&["-F", &file(".hidden")]).starts_with("400"));
    assert!(
        curl(&[
            "-H",
            "Origin: http://evil.example",
            "-F",
            &file("three.bin")
        ])
        .starts_with("403")
    );
    assert!(!tree.path("sub/three.bin").exists());
    assert_eq!(serving.stop(), 0);
    assert_eq!(leftovers(&tree.path("sub")), [""; 0]);
}

const FORM: &str = "Content-Type: multipart/form-data; boundary=edge";

/// The head of a part, with the boundary before it.
fn part(name: &str) -> String {
    format!("\r\n--edge\r\nContent-Disposition: form-data; {name}\r\n\r\n")
}

#[test]
fn a_form_that_never_comes_to_a_part_is_refused_long_before_its_end() {
    let tree = Tree::new();
    let serving = tree.serve(&["--upload", "--upload-limit", "64MiB"]);
    let noise = "x".repeat(300_000);
    for begun in ["", "--edge\r\nContent-Disposition: "] {
        // The rest of it never comes.
        let request = format!(
            "POST /sub/ HTTP/1.1\r\nHost: a\r\n{FORM}\r\nContent-Length: 60000000\r\n\r\n{begun}{noise}"
        );
        let answer = parse(&raw(&serving, request.as_bytes()));
        assert_eq!(answer.status(), 413, "{begun}");
        assert!(answer.text().contains("32 KiB"), "{}", answer.text());
    }
    // What is data may be as long as it wants to, text too.
    let form = [
        &part("name=\"text\""),
        &noise,
        &part("name=\"file\"; filename=\"one.txt\""),
        &noise,
        "\r\n--edge--\r\n",
    ];
    let taken = send(&serving, "POST", "/sub/", &[FORM], form.concat().as_bytes());
    assert_eq!(taken.status(), 303, "{}", taken.text());
    assert!(fs::read(tree.path("sub/one.txt")).expect("there") == noise.as_bytes());
    assert_eq!(serving.stop(), 0);
    assert_eq!(leftovers(&tree.path("sub")), [""; 0]);
}

#[test]
fn a_form_has_a_hundred_files_and_as_many_texts_as_it_wants_to() {
    let tree = Tree::new();
    let serving = tree.serve(&["--upload"]);
    let file = |number| part(&format!("name=\"f\"; filename=\"{number}.txt\"")) + "x";
    let form = |numbers: std::ops::Range<u32>| {
        let texts = (part("name=\"t\"") + "y").repeat(101);
        let files: String = numbers.map(file).collect();
        let form = texts + &files + "\r\n--edge--\r\n";
        send(&serving, "POST", "/sub/", &[FORM], form.as_bytes()).status()
    };
    assert_eq!(form(0..100), 303);
    assert!(tree.path("sub/99.txt").exists());
    assert_eq!(form(100..201), 413);
    assert!(tree.path("sub/199.txt").exists() && !tree.path("sub/200.txt").exists());
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_file_that_becomes_shorter_meanwhile_breaks_off_its_answer_and_no_other() {
    let tree = Tree::new();
    tree.write("large.bin", &noise(20_000_000));
    let serving = tree.serve(&["--json"]);
    let mut stream = serving.connect();
    stream
        .write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    stream.read_exact(&mut [0; 1000]).expect("begun");
    let file = fs::File::options()
        .write(true)
        .open(tree.path("large.bin"))
        .expect("there");
    file.set_len(5).expect("cut");
    assert!(all(&mut stream).len() < 20_000_000);
    let close = json(&line_with(&serving.stdout, "\"close\""));
    assert_eq!(close["reason"], "error");
    assert!(
        close["error"]
            .as_str()
            .is_some_and(|error| error.contains("shorter")),
        "{close}"
    );
    assert_eq!(ask(&serving, "GET", "/hello.txt", &[]).status(), 200);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn hundreds_of_clients_at_once_get_their_files_and_no_descriptor_is_left() {
    let tree = Tree::new();
    let bytes = noise(100_000);
    tree.write("data.bin", &bytes);
    let serving = tree.serve(&[]);
    let descriptors = || {
        fs::read_dir(format!("/proc/{}/fd", serving.pid()))
            .expect("runs")
            .count()
    };
    ask(&serving, "GET", "/hello.txt", &[]);
    let before = descriptors();
    let mut streams: Vec<_> = (0..300).map(|_| serving.connect()).collect();
    for stream in &mut streams {
        stream
            .write_all(b"GET /data.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("sent");
    }
    for stream in &mut streams {
        assert!(all(stream).ends_with(&bytes));
    }
    // Some who leave in the middle.
    for _ in 0..50 {
        let mut stream = serving.connect();
        stream
            .write_all(b"GET /data.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("sent");
        stream.read_exact(&mut [0; 10]).expect("begun");
    }
    drop(streams);
    let begun = SystemTime::now();
    while descriptors() > before
        && begun
            .elapsed()
            .is_ok_and(|time| time < Duration::from_secs(20))
    {
        std::thread::yield_now();
    }
    assert!(descriptors() <= before);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_cannot_be_served_is_said_before_anybody_listens() {
    for (arguments, words) in [
        (
            vec!["serve", "files", "/nonexistent"],
            "cannot serve /nonexistent: No such file",
        ),
        (vec!["serve", "files", "/etc/passwd"], "Not a directory"),
        (
            vec!["serve", "echo", "--index"],
            "'serve echo' has no use for --index",
        ),
        (
            vec!["serve", "http", "/tmp"],
            "'serve http' has no use for PATH",
        ),
        (
            vec!["serve", "files", "--echo"],
            "'serve files' has no use for --echo",
        ),
        (vec!["serve", "files", "--upload-limit", "1k"], "--upload"),
    ] {
        let output = run(sockeye(&arguments), b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
}
