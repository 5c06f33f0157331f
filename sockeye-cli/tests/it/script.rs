//! `sockeye serve script` and `sockeye connect --script`, with plain sockets at the other end, and with each other.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::peers::{Process, noise};
use crate::support::{PATIENCE, Serving, json, line_with, run, sockeye, text};

/// A folder with a script in it.
struct Scripts {
    folder: tempfile::TempDir,
}

impl Scripts {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, script: &str) -> String {
        fs::write(self.path(name), script).expect("written");
        self.path(name)
    }

    /// A server that follows this.
    fn serve(&self, script: &str, options: &[&str]) -> Serving {
        let path = self.write("server.script", script);
        Serving::start(&[&["script", &path], options].concat())
    }

    /// A client that follows this.
    fn connect(&self, script: &str, options: &[&str], address: &str) -> Output {
        let path = self.write("client.script", script);
        let script = ["connect", "--script", &path];
        run(sockeye(&[&script, options, &[address]].concat()), b"")
    }
}

/// The scripts that newcomers are shown.
pub(crate) fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/scripts");
    folder.join(name).display().to_string()
}

fn ends_with(output: &Output, code: i32, said: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said), "no '{said}' in: {stderr}");
    assert_eq!(text(&output.stdout), "");
}

/// All that comes until the end.
fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("read");
    text(&rest)
}

/// A server of one connection that does this.
fn server(talk: impl FnOnce(TcpStream) + Send + 'static) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let talking = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accepted");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        talk(stream);
    });
    (address, talking)
}

#[test]
fn each_connection_follows_the_script_from_its_beginning() {
    let scripts = Scripts::new();
    let serving = scripts.serve(
        "send \"hello\\r\\n\"\nloop\n  on line /GET (?<what>.*)/ send \"{what}!\\r\\n\"\n  on line /QUIT/ close\n",
        &[],
    );
    let (mut one, mut other) = (serving.connect(), serving.connect());
    one.write_all(b"GET a\r\nGE").expect("sent");
    other.write_all(b"GET b\nQUIT\n").expect("sent");
    assert_eq!(rest(&mut other), "hello\r\nb!\r\n");
    one.write_all(b"T c\r\n").expect("sent");
    one.shutdown(Shutdown::Write).expect("FIN");
    assert_eq!(rest(&mut one), "hello\r\na!\r\nc!\r\n");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_fails_is_told_without_asking_and_ends_that_connection_alone() {
    let scripts = Scripts::new();
    let script = "expect line /HELLO/\nexpect \"QUIT\\r\\n\"\nsend \"bye\"\n";
    let serving = scripts.serve(script, &["--json"]);
    let mut good = serving.connect();
    let mut bad = serving.connect();
    bad.write_all(b"HELLO\r\nQUI\x1b\r\n").expect("sent");
    assert_eq!(rest(&mut bad), "");
    let said = format!(
        "error ({}:2: expected \"QUIT\\r\\n\", and \"QUI\\x1b\\r\\n\" came)",
        scripts.path("server.script")
    );
    line_with(&serving.stderr, &said);
    let event = json(&line_with(&serving.stdout, "\"close\""));
    assert_eq!(event["reason"], "error");
    let error = event["error"].as_str().expect("text");
    assert!(error.ends_with("and \"QUI\\x1b\\r\\n\" came"), "{error}");
    good.write_all(b"HELLO\nQUIT\r\n").expect("sent");
    assert_eq!(rest(&mut good), "bye");
    let event = json(&line_with(&serving.stdout, "\"close\""));
    assert_eq!(event["reason"], "finished");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_bad_script_is_told_with_its_place_and_nothing_is_started() {
    let scripts = Scripts::new();
    let path = scripts.write("bad.script", "send \"a\"\n  expct \"b\"\n");
    let unknown = scripts.write("unknown.script", "# hello\nexpct \"b\"\n");
    let no_file = scripts.write("no-file.script", "send file \"nowhere.bin\"\n");
    let cases = [
        (
            path.as_str(),
            "bad.script:2:3: stands further in",
            "hint: only what",
        ),
        (
            &unknown,
            "unknown.script:2:1: 'expct' is no statement, in: expct \"b\"",
            "hint: statements are send, expect",
        ),
        (
            &no_file,
            "no-file.script:1: cannot read '",
            "nowhere.bin': No such file",
        ),
        (
            "/no/such.script",
            "cannot read the script '/no/such.script'",
            "No such file",
        ),
        (
            "/dev/zero",
            "cannot read the script '/dev/zero'",
            "larger than",
        ),
    ];
    for (path, place, help) in cases {
        for line in [
            &["serve", "-l", "127.0.0.1:0", "script", path][..],
            &["connect", "--script", path, "127.0.0.1:9"],
        ] {
            let output = run(sockeye(line), b"");
            ends_with(&output, 2, place);
            ends_with(&output, 2, help);
            assert!(!text(&output.stderr).contains("listening"));
        }
    }
    ends_with(&run(sockeye(&["serve", "script"]), b""), 2, "which script?");
    let output = run(sockeye(&["serve", "echo", &path]), b"");
    ends_with(&output, 2, "'serve echo' has no use for");
}

#[test]
fn what_a_script_would_not_heed_is_refused() {
    let scripts = Scripts::new();
    let path = scripts.write("client.script", "send \"a\"\n");
    let file = scripts.path("copy");
    for options in [
        &["--send", "x"][..],
        &["--http", "/"],
        &["--throttle", "1KiB/s"],
        &["--tee-in", &file],
        &["--tee-out", &file],
        &["--record", &file],
        &["--replay", &file],
        &["--exec"],
    ] {
        let mut line = [&["connect", "--script", &path], options, &["127.0.0.1:9"]].concat();
        if options == ["--exec"] {
            line.extend(["--", "true"]);
        }
        ends_with(&run(sockeye(&line), b""), 2, "cannot be used with");
    }
    assert!(!Path::new(&file).exists());
}

#[test]
fn a_loop_that_sends_first_is_over_when_the_peer_closes() {
    let scripts = Scripts::new();
    // The end comes after a send, and is no failure of what is expected then.
    let (address, talking) = server(|mut stream| {
        stream.read_exact(&mut [0]).expect("asked");
        stream.write_all(b"b").expect("sent");
        stream.read_exact(&mut [0]).expect("asked");
        stream.shutdown(Shutdown::Write).expect("FIN");
        assert_eq!(rest(&mut stream), "c");
    });
    let script = "loop\n  send \"a\"\n  expect \"b\"\nsend \"c\"\n";
    ends_with(&scripts.connect(script, &[], &address), 0, "");
    talking.join().expect("it was asked twice");
    // The end is there before the next round begins.
    let (address, talking) = server(|mut stream| {
        stream.read_exact(&mut [0]).expect("asked");
        stream.write_all(b"b").expect("sent");
        stream.shutdown(Shutdown::Write).expect("FIN");
        assert_eq!(rest(&mut stream), "c");
    });
    let script = "loop\n  send \"a\"\n  expect \"b\"\n  delay 200ms\nsend \"c\"\n";
    ends_with(&scripts.connect(script, &[], &address), 0, "");
    talking.join().expect("it was asked once");
}

#[test]
fn a_reset_is_one_to_the_peer() {
    let scripts = Scripts::new();
    let serving = scripts.serve(
        "expect \"a\"\nsend \"b\"\nexpect \"c\"\nreset\n",
        &["--json"],
    );
    let mut client = serving.connect();
    client.write_all(b"a").expect("sent");
    client.read_exact(&mut [0]).expect("b");
    client.write_all(b"c").expect("sent");
    let error = client.read(&mut [0]).expect_err("no clean end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let event = json(&line_with(&serving.stdout, "\"close\""));
    assert_eq!(event["reason"], "reset_sent");

    let (address, talking) = server(|mut stream| {
        stream.read_exact(&mut [0]).expect("a");
        let error = stream.read(&mut [0]).expect_err("no clean end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
    let output = scripts.connect("send \"a\"\nreset\n", &[], &address);
    ends_with(&output, 0, "");
    talking.join().expect("it saw a reset");

    // And one that comes can be expected.
    let resets = scripts.serve("expect \"a\"\nreset\n", &[]);
    let output = scripts.connect("send \"a\"\nexpect reset\n", &[], &resets.address);
    ends_with(&output, 0, "");
    let output = scripts.connect("send \"a\"\nexpect close\n", &[], &resets.address);
    ends_with(
        &output,
        56,
        "expected close, and the peer reset the connection",
    );
}

#[test]
fn a_script_can_end_its_side_and_go_on_listening() {
    let scripts = Scripts::new();
    let serving = scripts.serve(
        "send \"a\"\nshutdown\nexpect \"late\"\nexpect close\n",
        &["--json"],
    );
    let mut client = serving.connect();
    assert_eq!(rest(&mut client), "a");
    client.write_all(b"late").expect("sent");
    drop(client);
    let event = json(&line_with(&serving.stdout, "\"close\""));
    assert_eq!(
        (&event["reason"], &event["bytes_in"]),
        (&"finished".into(), &4.into())
    );

    let (address, talking) = server(|mut stream| {
        assert_eq!(rest(&mut stream), "question");
        stream.write_all(b"answer").expect("sent");
    });
    let script = "send \"question\"\nshutdown\nexpect \"answer\"\nexpect close\n";
    ends_with(&scripts.connect(script, &[], &address), 0, "");
    talking.join().expect("it was asked");
}

#[test]
fn the_exit_code_says_who_did_not_keep_to_the_script() {
    let scripts = Scripts::new();
    let silent = Serving::start(&["discard"]);
    let started = Instant::now();
    let output = scripts.connect("timeout 50ms\nexpect line /hello/\n", &[], &silent.address);
    ends_with(
        &output,
        1,
        "client.script:2: expected line /hello/ within 50ms, and nothing came",
    );
    assert!(started.elapsed() < PATIENCE);
    let output = scripts.connect(
        "send \"a\"\nexpect nothing for 50ms\n",
        &[],
        &silent.address,
    );
    ends_with(&output, 0, "");

    let echo = Serving::start(&["echo"]);
    let output = scripts.connect("send \"abc\"\nexpect \"abd\"\n", &[], &echo.address);
    ends_with(
        &output,
        1,
        "client.script:2: expected \"abd\", and \"abc\" came",
    );
    let output = scripts.connect(
        "send \"abc\"\nexpect \"abc\"\n",
        &["--explain", "--json"],
        &echo.address,
    );
    let account = json(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{account}");
    assert_eq!(account["ending"], "script_ended");
    assert_eq!(
        (&account["bytes_sent"], &account["bytes_received"]),
        (&3.into(), &3.into())
    );
    let output = scripts.connect(
        "send \"abc\"\nexpect \"b\"\n",
        &["--explain", "--json"],
        &echo.address,
    );
    let account = json(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{account}");
    assert_eq!(account["ending"], "script_failed");

    // Whoever takes nothing is a timeout, as anywhere.
    fs::write(scripts.path("much.bin"), noise(32 << 20)).expect("written");
    let (over, wait) = mpsc::channel::<()>();
    let (address, talking) = server(move |_stream| {
        // Until the client has given up.
        let _ = wait.recv_timeout(PATIENCE);
    });
    let output = scripts.connect("timeout 200ms\nsend file \"much.bin\"\n", &[], &address);
    ends_with(
        &output,
        28,
        "client.script:2: the peer takes nothing of what is to be sent for 200ms",
    );
    drop(over);
    talking.join().expect("no panic");

    let free = TcpListener::bind("127.0.0.1:0").expect("binds");
    let nobody = free.local_addr().expect("bound").to_string();
    drop(free);
    ends_with(
        &scripts.connect("expect line\n", &[], &nobody),
        7,
        "refused",
    );
}

#[test]
fn every_step_is_told_and_nothing_of_the_peers_is_obeyed() {
    let scripts = Scripts::new();
    let serving = scripts.serve("send \"\\x1b]0;title\\x07\\n\"\nexpect \"bye\"\n", &[]);
    let script = "expect line\ndelay 1ms\nsend \"bye\"\nshutdown\nexpect close\n";
    let output = scripts.connect(script, &["-v"], &serving.address);
    ends_with(&output, 0, "");
    let said = text(&output.stderr);
    let steps: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once(" ms  line ")?.1))
        .collect();
    assert_eq!(
        steps,
        [
            "1    <- \"\\x1b]0;title\\x07\\n\"",
            "2    -- delay 1ms",
            "3    -> \"bye\"",
            "4    -- shutdown",
            "5    <- the end",
        ]
    );
    assert!(
        said.contains("script ended: 3 bytes sent, 11 received"),
        "{said}"
    );
}

#[test]
fn hup_reads_the_script_anew_and_a_bad_one_changes_nothing() {
    let scripts = Scripts::new();
    let serving = scripts.serve("send \"old\"\nexpect close\n", &[]);
    let mut before = serving.connect();
    before.read_exact(&mut [0; 3]).expect("old");
    scripts.write("server.script", "send \"new\"\nexpect close\n");
    serving.signal(Signal::HUP);
    line_with(&serving.stderr, "reloaded");
    let mut after = serving.connect();
    let mut said = [0; 3];
    after.read_exact(&mut said).expect("said");
    assert_eq!(&said, b"new");
    scripts.write("server.script", "sned \"bad\"\n");
    serving.signal(Signal::HUP);
    line_with(&serving.stderr, "nothing is changed: ");
    let mut still = serving.connect();
    still.read_exact(&mut said).expect("said");
    assert_eq!(&said, b"new");
    drop((before, after, still));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn both_ends_can_be_scripts_over_tls_and_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}", folder.path().join("s").display());
    let (smtp, http) = (example("smtp-server.script"), example("http-server.script"));
    let (mail, page) = (example("smtp-client.script"), example("http-client.script"));
    for (server, client) in [(smtp, mail), (http, page)] {
        let plain = Serving::start(&[
            "script",
            &server,
            "-l",
            "127.0.0.1:0",
            "-l",
            &unix,
            "--json",
        ]);
        for address in [&plain.address, &unix] {
            let output = run(sockeye(&["connect", "--script", &client, address]), b"");
            ends_with(&output, 0, "");
            let event = json(&line_with(&plain.stdout, "\"close\""));
            assert_ne!(event["reason"], "error", "{event}");
        }
        assert_eq!(plain.stop(), 0);
        let tls = Serving::start(&[
            "script",
            &server,
            "--tls-self-signed",
            "localhost",
            "--json",
        ]);
        let address = format!("tls://{}", tls.address);
        let line = ["connect", "--insecure", "--script", &client, &address];
        ends_with(&run(sockeye(&line), b""), 0, "");
        let event = json(&line_with(&tls.stdout, "\"close\""));
        assert_ne!(event["reason"], "error", "{event}");
    }
}

#[test]
fn a_file_is_sent_and_expected_to_its_last_byte() {
    let scripts = Scripts::new();
    let much = noise(1_000_003);
    fs::write(scripts.path("much.bin"), &much).expect("written");
    let serving = scripts.serve(
        "send file \"much.bin\"\nexpect file \"much.bin\"\n",
        &["--json"],
    );
    let script = "expect file \"much.bin\"\nsend file \"much.bin\"\nexpect close\n";
    ends_with(&scripts.connect(script, &[], &serving.address), 0, "");
    let mut wrong = much;
    *wrong.last_mut().expect("not empty") ^= 1;
    fs::write(scripts.path("wrong.bin"), &wrong).expect("written");
    let output = scripts.connect("expect file \"wrong.bin\"\n", &[], &serving.address);
    ends_with(&output, 1, "came after 1000002 bytes that are right");
}

#[test]
fn every_example_is_a_script_that_fits_a_screen() {
    let folder = PathBuf::from(example(""));
    let mut examples = 0;
    for entry in fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("can be listed").path();
        let script = fs::read_to_string(&path).expect("text");
        assert!(script.starts_with("# "), "{}", path.display());
        assert!(script.lines().count() <= 20, "{}", path.display());
        let serving = Serving::start(&["script", path.to_str().expect("UTF-8")]);
        assert_eq!(serving.stop(), 0);
        examples += 1;
    }
    assert!(examples > 5);
}

#[test]
fn an_interrupt_ends_a_script_wherever_it_is() {
    let scripts = Scripts::new();
    let silent = Serving::start(&["discard"]);
    let path = scripts.write("client.script", "send \"a\"\nexpect nothing for 1h\n");
    let line = ["connect", "-v", "--script", &path, &silent.address];
    let mut client = Process::start(sockeye(&line));
    line_with(&client.stderr, "-> \"a\"");
    let pid = i32::try_from(client.pid()).expect("a process id");
    let pid = Pid::from_raw(pid).expect("not 0");
    kill_process(pid, Signal::INT).expect("it runs");
    assert_eq!(client.wait(), (Some(130), Vec::new()));
    line_with(&client.stderr, "interrupted: 1 bytes sent, 0 received");
}
