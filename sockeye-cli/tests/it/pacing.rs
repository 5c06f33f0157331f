//! How fast, how often, and how far.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::connect::{closed_port, connect, read_all, serve_one};
use crate::support::{Serving, finish, sockeye, text};
use crate::terminal::open_terminal;

#[test]
fn a_throttle_holds_for_what_comes_and_for_what_is_sent() {
    let least = Duration::from_millis(200);
    let serving = Serving::start(&["chargen"]);
    let started = Instant::now();
    let arguments = [
        "--throttle",
        "50KiB/s",
        "--on-eof",
        "keep",
        "--recv-bytes",
        "10240",
        &serving.address,
    ];
    let output = connect(&arguments, b"");
    assert_eq!(
        (output.status.code(), output.stdout.len()),
        (Some(0), 10_240)
    );
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("payload");
    std::fs::write(&path, vec![7; 10_240]).expect("written");
    let path = path.to_str().expect("UTF-8");
    let (address, server) = serve_one(|stream| read_all(&stream).len());
    let started = Instant::now();
    let output = connect(
        &["--throttle", "50KiB/s", "--send-file", path, &address],
        b"",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(started.elapsed() >= least, "{:?}", started.elapsed());
    assert_eq!(server.join().expect("no panic"), 10_240);

    for bad in ["0", "fast", "1TiB/s", "10KiB/m"] {
        let output = connect(&["--throttle", bad, "127.0.0.1:1"], b"");
        assert_eq!(output.status.code(), Some(2), "{bad}");
    }
}

#[test]
fn repeat_does_it_again_and_says_how_many_went_well() {
    let serving = Serving::start(&[]);
    let arguments = [
        "--repeat",
        "3",
        "--interval",
        "0",
        "--send",
        "hi ",
        &serving.address,
    ];
    let output = connect(&arguments, b"not this");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "hi hi hi ");
    assert_eq!(text(&output.stderr), "3 of 3 went well\n");

    let started = Instant::now();
    let (_held, closed) = closed_port();
    let arguments = ["--probe", "--repeat", "2", "--interval", "100ms", &closed];
    let output = connect(&arguments, b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert_eq!(text(&output.stderr), "0 of 2 went well\n");
    assert!(started.elapsed() >= Duration::from_millis(100));

    let output = connect(
        &[
            "--repeat",
            "2",
            "--interval",
            "0",
            "--send",
            "",
            "-q",
            &closed,
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stderr).matches("error:").count(), 2);
    for (arguments, word) in [
        (vec!["--repeat", "2", "127.0.0.1:1"], "--send"),
        (vec!["--repeat", "0", "--probe", "127.0.0.1:1"], "--repeat"),
        (
            vec!["--interval", "1s", "--probe", "127.0.0.1:1"],
            "--repeat",
        ),
    ] {
        let output = connect(&arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(word),
            "{}",
            text(&output.stderr)
        );
    }
}

/// All that a terminal was shown, until nobody has it open any more.
fn all_shown(mut user: File) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    // When the last one closes it, reading fails (EIO).
    while let Ok(bytes @ 1..) = user.read(&mut buffer) {
        all.extend_from_slice(&buffer[..bytes]);
    }
    String::from_utf8(all).expect("what is shown is text")
}

#[test]
fn how_far_a_file_is_is_shown_on_a_terminal_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("payload");
    std::fs::write(&path, vec![7; 1 << 20]).expect("written");
    let serving = Serving::start(&["discard"]);
    for (option, shown) in [("--on-eof=fin", true), ("--quiet", false)] {
        let (user, terminal) = open_terminal();
        let child = sockeye(&["connect", option, "--send-file"])
            .arg(&path)
            .arg(&serving.address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(terminal))
            .spawn()
            .expect("starts");
        let all = all_shown(user);
        assert_eq!(finish(child, Vec::new()).status.code(), Some(0), "{all}");
        assert_eq!(all.contains(" of 1.00 MiB"), shown, "{all:?}");
        assert_eq!(all.is_empty(), !shown, "{all:?}");
    }
}
