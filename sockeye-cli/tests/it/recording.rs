//! What is copied, recorded and said again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::connect::{connect, read_all, serve_one, start};
use crate::support::{Serving, finish, json, sockeye, text};

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    let path = folder.path().join(name);
    path.to_str().expect("UTF-8").to_owned()
}

/// The lines of a recording after its first.
fn recorded(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("written");
    let mut lines = text.lines().map(json);
    assert_eq!(lines.next().expect("a first line")["record"], 1);
    lines.collect()
}

/// All that one side said.
fn said(lines: &[Value], from: &str) -> String {
    let of_it = lines.iter().filter(|line| line["from"] == from);
    of_it.filter_map(|line| line["text"].as_str()).collect()
}

fn recording(folder: &tempfile::TempDir, lines: &str) -> String {
    let path = path(folder, "talk.jsonl");
    std::fs::write(&path, format!("{{\"record\":1}}\n{lines}")).expect("written");
    path
}

#[test]
fn the_tees_have_each_byte_whatever_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (came, sent) = (path(&folder, "came"), path(&folder, "sent"));
    std::fs::write(&came, "from the last time, and emptied").expect("written");
    let serving = Serving::start(&[]);
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    let arguments = [
        "--hex",
        "--tee-in",
        &came,
        "--tee-out",
        &sent,
        &serving.address,
    ];
    let output = connect(&arguments, &every_byte);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout.starts_with(b"00000000  00 01 02"));
    for file in [came, sent] {
        assert!(
            std::fs::read(&file).expect("written") == every_byte,
            "{file}"
        );
    }
}

/// Greets, reads a line, answers and closes; says whether the client spoke before it was greeted.
fn greeter(mut stream: TcpStream) -> bool {
    let nothing = stream.set_read_timeout(Some(Duration::from_millis(100)));
    nothing.expect("set");
    let spoke_first = stream.peek(&mut [0]).is_ok();
    let patient = stream.set_read_timeout(Some(crate::support::PATIENCE));
    patient.expect("set");
    stream.write_all(b"220 hello\r\n").expect("sent");
    let mut line = [0; 6];
    stream.read_exact(&mut line).expect("asked");
    assert_eq!(&line, b"QUIT\r\n");
    stream.write_all(b"\x00\xffbye\r\n").expect("sent");
    spoke_first
}

#[test]
fn what_was_recorded_is_said_again_when_its_turn_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let talk = path(&folder, "talk.jsonl");
    let (address, server) = serve_one(greeter);
    let mut child = start(&["--record", &talk, &address]);
    let mut greeting = [0; 11];
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut greeting).expect("greeted");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"QUIT\r\n").expect("taken");
    assert_eq!(finish(child, Vec::new()).status.code(), Some(0));
    drop(stdin);
    server.join().expect("no panic");

    let lines = recorded(&talk);
    let who: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["from"].as_str())
        .collect();
    assert_eq!((who[0], who[1]), ("server", "client"));
    assert_eq!(said(&lines, "client"), "QUIT\r\n");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line["base64"] == "AP9ieWUNCg==")
            .count(),
        1
    );
    assert_eq!(
        lines.last().map(|line| &line["end"]),
        Some(&Value::Bool(true))
    );
    let times: Vec<f64> = lines
        .iter()
        .filter_map(|line| line["at_ms"].as_f64())
        .collect();
    assert!(times.is_sorted() && times.len() == lines.len(), "{lines:?}");

    let (address, server) = serve_one(greeter);
    let output = connect(&["--replay", &talk, &address], b"not this");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"220 hello\r\n\x00\xffbye\r\n");
    assert!(!server.join().expect("no panic"), "talked over the server");
}

const PING_PONG: &str = r#"{"at_ms":0,"from":"client","text":"pi"}
{"at_ms":1,"from":"client","text":"ng\n"}
{"at_ms":2,"from":"server","text":"po"}
{"at_ms":2,"from":"server","text":"ng\n"}
"#;

const BOTH_END: &str = r#"{"at_ms":3,"from":"client","end":true}
{"at_ms":3,"from":"server","end":true}
"#;

/// A server that answers `ping` so, and then closes or waits for the client.
fn answers(answer: &'static [u8], closes: bool) -> (String, std::thread::JoinHandle<Vec<u8>>) {
    serve_one(move |mut stream| {
        let mut asked = vec![0; 5];
        stream.read_exact(&mut asked).expect("asked");
        stream.write_all(answer).expect("sent");
        if closes {
            stream.shutdown(Shutdown::Write).expect("FIN");
        }
        // A reset is no failure here: who found a difference does not read on.
        let _ = stream.read_to_end(&mut asked);
        asked
    })
}

#[test]
fn another_answer_than_the_recorded_one_is_exit_code_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let talk = recording(&folder, &format!("{PING_PONG}{BOTH_END}"));
    for (answer, code, words) in [
        (&b"pong\n"[..], 0, ""),
        (b"pOng\n", 1, "byte 2 is another one"),
        (b"pong", 1, "ended after 4 of the 5 bytes"),
        (b"pong\nmore", 1, "more than the 5 bytes"),
    ] {
        let (address, server) = answers(answer, true);
        let output = connect(&["--replay", &talk, &address], b"");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(output.stdout, answer);
        assert_eq!(server.join().expect("no panic"), b"ping\n");
    }
    // Only the server has ended in this one, and this server does not.
    let only_server_ends = BOTH_END.lines().skip(1).collect::<String>();
    let talk = recording(&folder, &format!("{PING_PONG}{only_server_ends}"));
    let (address, server) = answers(b"pong\n", false);
    let arguments = [
        "--idle-timeout",
        "150ms",
        "--explain",
        "--json",
        "--replay",
        &talk,
    ];
    let output = connect(&[&arguments[..], &[&address]].concat(), b"");
    assert_eq!(output.status.code(), Some(28), "the server did not end");
    assert_eq!(json(&text(&output.stderr))["ending"], "idle");
    server.join().expect("no panic");

    let (address, server) = answers(b"something else\n", true);
    let output = connect(&["--replay", &talk, "--replay-unchecked", &address], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"something else\n");
    server.join().expect("no panic");
}

#[test]
fn a_recording_that_nobody_ended_is_over_when_all_was_said_and_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let talk = recording(&folder, PING_PONG);
    let (address, server) = answers(b"pong\nand more", false);
    let output = connect(&["--replay", &talk, &address], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "pong\n");
    assert_eq!(server.join().expect("no panic"), b"ping\n");

    // The answer comes first, and the end is when all is said.
    let talk = recording(
        &folder,
        "{\"at_ms\":1,\"from\":\"server\",\"text\":\"hi\"}\n{\"at_ms\":2,\"from\":\"client\",\"text\":\"bye\"}\n",
    );
    let (address, server) = serve_one(|mut stream| {
        stream.write_all(b"hi").expect("sent");
        read_all(&stream)
    });
    let output = connect(&["--replay", &talk, &address], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(server.join().expect("no panic"), b"bye");
}

#[test]
fn what_was_said_after_the_servers_end_is_said_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = r#"{"at_ms":0,"from":"server","text":"bye"}
{"at_ms":1,"from":"server","end":true}
{"at_ms":200,"from":"client","text":"after "}
{"at_ms":300,"from":"client","text":"your FIN"}
{"at_ms":300,"from":"client","end":true}
"#;
    let talk = recording(&folder, lines);
    let ends_after = |words: &'static [u8]| {
        serve_one(move |mut stream| {
            stream.write_all(words).expect("sent");
            stream.shutdown(Shutdown::Write).expect("FIN");
            let mut said = Vec::new();
            // Who found a difference may leave with a reset.
            let _ = stream.read_to_end(&mut said);
            said
        })
    };
    for unchecked in [&[][..], &["--replay-unchecked"]] {
        let (address, server) = ends_after(b"bye");
        let output = connect(
            &[&["--replay", &talk], unchecked, &[&address]].concat(),
            b"",
        );
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(server.join().expect("no panic"), b"after your FIN");
    }
    // Nothing is said to a server that ended before it was to.
    let (address, server) = ends_after(b"by");
    let output = connect(&["--replay", &talk, &address], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ended after 2 of the 3 bytes"), "{said}");
    assert_eq!(server.join().expect("no panic"), b"");
}

#[test]
fn who_waits_for_the_time_of_the_next_piece_is_not_idle() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = r#"{"at_ms":0,"from":"server","text":"hi"}
{"at_ms":700,"from":"client","text":"bye"}
"#;
    let talk = recording(&folder, lines);
    for unchecked in [&[][..], &["--replay-unchecked"]] {
        let (address, server) = serve_one(|mut stream| {
            stream.write_all(b"hi").expect("sent");
            read_all(&stream)
        });
        let replay = ["--idle-timeout", "200ms", "--replay", &talk];
        let output = connect(&[&replay[..], unchecked, &[&address]].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(server.join().expect("no panic"), b"bye");
    }
}

#[test]
fn a_recording_over_tls_is_replayed_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let talk = path(&folder, "talk.jsonl");
    let serving = Serving::start(&["--tls-self-signed", "localhost"]);
    let tls = format!("tls://{}", serving.address);
    let arguments = ["--insecure", "-q", &tls];
    let recorded_by = ["--on-eof", "fin", "--record", &talk];
    let output = connect(&[&recorded_by[..], &arguments].concat(), b"hello over TLS");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = recorded(&talk);
    assert_eq!(said(&lines, "client"), "hello over TLS");
    assert_eq!(said(&lines, "server"), "hello over TLS");
    assert_eq!(lines.iter().filter(|line| line["end"] == true).count(), 2);
    let output = connect(&[&["--replay", &talk][..], &arguments].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(output.stdout, b"hello over TLS");
}

#[test]
fn a_copy_that_cannot_be_written_is_an_error() {
    let serving = Serving::start(&[]);
    for option in ["--record", "--tee-in", "--tee-out"] {
        let output = connect(&[option, "/dev/full", &serving.address], b"hello");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(56), "{option}: {said}");
        assert!(
            said.contains("'/dev/full'") && said.contains("No space left"),
            "{said}"
        );
        let output = connect(
            &[option, "/no/such/folder/file", &serving.address],
            b"hello",
        );
        assert_eq!(output.status.code(), Some(2), "{option}");
        assert!(text(&output.stderr).contains("/no/such/folder/file"));
    }
    let arguments = [
        "--explain",
        "--json",
        "--record",
        "/dev/full",
        &serving.address,
    ];
    let output = connect(&arguments, b"hello");
    assert_eq!(json(&text(&output.stderr))["ending"], "copy_failed");
}

#[test]
fn a_file_that_is_read_or_has_another_copy_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(&folder, "file");
    std::fs::write(&file, "precious").expect("written");
    for arguments in [
        ["--tee-in", &file, "--tee-out", &file],
        ["--send-file", &file, "--record", &file],
    ] {
        let output = connect(&[&arguments[..], &["127.0.0.1:1"]].concat(), b"");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("named twice"));
        let kept = std::fs::read_to_string(Path::new(&file)).expect("there");
        assert_eq!(kept, "precious");
    }
}

#[test]
fn a_file_that_is_stdin_or_stdout_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = path(&folder, "file");
    std::fs::write(&file, "precious").expect("written");
    let opened = || {
        let options = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .open(&file);
        Stdio::from(options.expect("opens"))
    };
    for option in ["--tee-in", "--tee-out", "--record"] {
        for (stdin, stdout, words) in [
            (opened(), Stdio::piped(), "is stdin, too"),
            (Stdio::null(), opened(), "is stdout, too"),
        ] {
            let child = sockeye(&["connect", option, &file, "127.0.0.1:1"])
                .stdin(stdin)
                .stdout(stdout)
                .stderr(Stdio::piped())
                .spawn()
                .expect("starts");
            let output = finish(child, Vec::new());
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(words) && said.contains("hint:"), "{said}");
            let kept = std::fs::read_to_string(&file).expect("there");
            assert_eq!(kept, "precious");
        }
    }
}

#[test]
fn what_is_no_recording_is_told_before_anybody_is_connected_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let talk = recording(&folder, "\n{\"at_ms\":1,\"from\":\"nobody\"}\n");
    let output = connect(&["--replay", &talk, "127.0.0.1:1"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("line 3"),
        "{}",
        text(&output.stderr)
    );
    for bad in ["/no/such/file", "/dev/null", "/"] {
        let output = connect(&["--replay", bad, "127.0.0.1:1"], b"");
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
    let output = connect(&["--replay-unchecked", "127.0.0.1:1"], b"");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_moved_before_a_signal_is_recorded() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = tempfile::tempdir().expect("a folder");
        let talk = path(&folder, "talk.jsonl");
        let serving = Serving::start(&[]);
        let mut child = start(&["--record", &talk, &serving.address]);
        let (mut stdin, mut stdout) = (
            child.stdin.take().expect("piped"),
            child.stdout.take().expect("piped"),
        );
        stdin.write_all(b"hello").expect("taken");
        stdout.read_exact(&mut [0; 5]).expect("answered");
        let pid = Pid::from_child(&child);
        kill_process(pid, signal).expect("it runs");
        // timeout(1) sends two.
        let _ = kill_process(pid, signal);
        assert_eq!(finish(child, Vec::new()).status.code(), Some(code));
        let lines = recorded(&talk);
        assert_eq!(said(&lines, "client"), "hello");
        assert_eq!(said(&lines, "server"), "hello");
    }
}
