//! `connect` on a terminal: a pseudo-terminal (pty(7)) whose other end is in the test's hands.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Serving, finish, sockeye};

/// A `sockeye connect` that has a terminal for stdin and stdout, and the user's end of that terminal.
fn on_terminal(arguments: &[&str]) -> (Child, File) {
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
    let child = sockeye(&[&["connect"], arguments].concat())
        .stdin(Stdio::from(program.try_clone().expect("cloned")))
        .stdout(Stdio::from(program))
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    (child, File::from(user))
}

/// Reads what the terminal shows until it ends so; the end of the program is an error (EIO) and fails the test.
fn shows(user: &mut File, end: &str) -> String {
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
