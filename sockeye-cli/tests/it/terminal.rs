//! `connect` on a terminal: a pseudo-terminal (pty(7)) whose other end is in the test's hands.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{SpecialCodeIndex, tcgetattr};

use crate::connect::{read_all, serve_one};
use crate::support::{Serving, finish, sockeye, text};

/// A terminal: the user's end, and the program's.
pub(crate) fn open_terminal() -> (File, OwnedFd) {
    let user =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&user).expect("granted");
    unlockpt(&user).expect("unlocked");
    let name = ptsname(&user, Vec::new()).expect("a name");
    let program = open(
        name,
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .expect("opened");
    (File::from(user), program)
}

/// A `sockeye connect` that has a terminal for stdin and stdout, and the user's end of that terminal.
fn on_terminal(arguments: &[&str]) -> (Child, File) {
    let (user, program) = open_terminal();
    let child = sockeye(&[&["connect"], arguments].concat())
        .stdin(Stdio::from(program.try_clone().expect("cloned")))
        .stdout(Stdio::from(program))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    (child, user)
}

/// Reads what the terminal shows until it ends so; the end of the program is an error (EIO) and fails the test.
fn shows(user: &mut impl Read, end: &str) -> String {
    let mut shown = Vec::new();
    while !shown.ends_with(end.as_bytes()) {
        let mut byte = [0];
        user.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&shown));
        });
        shown.extend(byte);
    }
    String::from_utf8(shown).expect("what is shown is text")
}

#[test]
fn on_a_terminal_a_line_is_sent_as_it_ends_and_ctrl_d_ends_the_input() {
    let serving = Serving::start(&[]);
    let (child, mut user) = on_terminal(&[&serving.address]);
    user.write_all(b"hello\n").expect("typed");
    // Once from the terminal, which shows what is typed, and once from the server.
    assert_eq!(shows(&mut user, "hello\r\nhello\r\n"), "hello\r\nhello\r\n");
    user.write_all(b"\x04").expect("typed");
    assert_eq!(finish(child, Vec::new()).status.code(), Some(0));
}

#[test]
fn a_terminal_is_shown_control_characters_unless_raw_asks_for_them() {
    for (arguments, expected) in [
        (vec![], "^[[31mred^G done\r\n"),
        (vec!["--raw"], "\x1b[31mred\x07 done\r\n"),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("binds");
        let address = listener.local_addr().expect("bound").to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            stream.write_all(b"\x1b[31mred\x07 done\n").expect("sent");
        });
        let (child, mut user) = on_terminal(&[arguments, vec![&address]].concat());
        assert_eq!(shows(&mut user, "done\r\n"), expected);
        server.join().expect("no panic");
        assert_eq!(finish(child, Vec::new()).status.code(), Some(0));
    }
}

/// The character that ends a line besides its end.
fn end_of_line(user: &File) -> u8 {
    tcgetattr(user).expect("a terminal").special_codes[SpecialCodeIndex::VEOL]
}

const QUESTION: &str = "Enter go on] ";

#[test]
fn the_escape_character_asks_for_a_command_at_once() {
    let serving = Serving::start(&[]);
    let (mut child, mut user) = on_terminal(&[&serving.address]);
    let mut stderr = child.stderr.take().expect("piped");
    user.write_all(b"one\n").expect("typed");
    shows(&mut user, "one\r\none\r\n");
    assert_eq!(end_of_line(&user), 0x1d);
    // No line end after it, and what was typed before it is sent.
    user.write_all(b"two\x1d").expect("typed");
    shows(&mut stderr, QUESTION);
    shows(&mut user, "two^]two");
    user.write_all(b"s\n").expect("typed");
    let status = shows(&mut stderr, "\n");
    assert!(
        status.starts_with("7 bytes sent, 7 received in "),
        "{status}"
    );
    assert!(status.contains("round trip"), "{status}");
    user.write_all(b"\x1d").expect("typed");
    shows(&mut stderr, QUESTION);
    user.write_all(b"what\n\x1de\n\x1d\n on\n").expect("typed");
    let asked = shows(&mut stderr, QUESTION);
    shows(&mut stderr, QUESTION);
    assert!(asked.starts_with("'what' is no command here\n"), "{asked}");
    shows(&mut user, "^] on\r\n");
    user.write_all(b"\x1dq\n").expect("typed");
    assert_eq!(finish(child, Vec::new()).status.code(), Some(0));
    assert_eq!(end_of_line(&user), 0, "the terminal is as it was");
}

#[test]
fn our_side_can_be_closed_from_the_menu_and_the_answer_still_comes() {
    let (address, server) = serve_one(|mut stream| {
        let all = read_all(&stream);
        stream.write_all(b"thanks\n").expect("sent");
        all
    });
    let (child, mut user) = on_terminal(&["--on-eof", "keep", &address]);
    user.write_all(b"all\n\x1dc\n").expect("typed");
    shows(&mut user, "thanks\r\n");
    let output = finish(child, Vec::new());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("our side is closed"));
    assert_eq!(server.join().expect("no panic"), b"all\n");
}

#[test]
fn a_terminal_is_restored_after_a_signal_too() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let serving = Serving::start(&[]);
        let (child, mut user) = on_terminal(&["--escape-char", "^A", &serving.address]);
        user.write_all(b"hi\n").expect("typed");
        shows(&mut user, "hi\r\nhi\r\n");
        assert_eq!(end_of_line(&user), 1);
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        assert_eq!(finish(child, Vec::new()).status.code(), Some(code));
        assert_eq!(end_of_line(&user), 0);
    }
}

#[test]
fn without_an_escape_character_it_is_sent_as_any_other() {
    let (address, server) = serve_one(|stream| read_all(&stream));
    let (child, mut user) = on_terminal(&["--escape-char", "none", &address]);
    user.write_all(b"\x1dq\n\x04").expect("typed");
    assert_eq!(server.join().expect("no panic"), b"\x1dq\n");
    assert_eq!(end_of_line(&user), 0);
    assert_eq!(finish(child, Vec::new()).status.code(), Some(0));
}
