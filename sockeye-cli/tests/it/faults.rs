//! What the kernel seldom does, done on purpose: failing calls of accept(2), injected by strace.

use std::io::{Read, Write};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Serving, line_with};

/// A server whose calls of accept fail as `inject` says; strace's own words go to a file that nobody reads.
fn serving_with(inject: &str) -> (Serving, Pid) {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4", "-e"]);
    command.arg(format!("inject=accept4:{inject}"));
    command.arg(env!("CARGO_BIN_EXE_sockeye"));
    command.args(["serve", "-l", "127.0.0.1:0", "--workers", "1", "--json"]);
    let serving = Serving::spawn(command);
    let listening = line_with(&serving.stdout, "listening");
    let listening: Value = serde_json::from_str(&listening).expect("JSON");
    let pid = listening["pid"].as_i64().expect("a number") as i32;
    (serving, Pid::from_raw(pid).expect("not 0"))
}

fn is_served(serving: &Serving) {
    let mut client = serving.connect();
    client.write_all(b"x").expect("sent");
    client.read_exact(&mut [0]).expect("served");
}

#[test]
#[ignore = "needs strace"]
fn without_descriptors_accepting_pauses_tells_it_and_goes_on() {
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        let (serving, pid) = serving_with(&format!("error={error}:when=1..4"));
        is_served(&serving);
        let told = line_with(&serving.stderr, "cannot accept on");
        assert!(told.contains("(1 times); pausing for 5 ms"), "{told}");
        kill_process(pid, Signal::TERM).expect("it runs");
        let stopped: Value =
            serde_json::from_str(&line_with(&serving.stdout, r#""event":"stopped""#))
                .expect("JSON");
        assert_eq!(stopped["accept_errors"], 4);
        assert_eq!(stopped["accepted"], 1);
        assert_eq!(serving.wait(), 0);
    }
}

#[test]
#[ignore = "needs strace"]
fn an_error_of_the_peers_is_tried_again_at_once_and_not_told() {
    for error in ["ECONNABORTED", "EPROTO", "ENETUNREACH"] {
        let (serving, pid) = serving_with(&format!("error={error}:when=1..4"));
        is_served(&serving);
        kill_process(pid, Signal::TERM).expect("it runs");
        let stopped: Value =
            serde_json::from_str(&line_with(&serving.stdout, r#""event":"stopped""#))
                .expect("JSON");
        assert_eq!(stopped["accept_errors"], 4);
        let said: Vec<String> = serving.stderr.try_iter().collect();
        assert!(
            !said.iter().any(|line| line.contains("cannot accept")),
            "{said:?}"
        );
        assert_eq!(serving.wait(), 0);
    }
}

#[test]
#[ignore = "needs strace"]
fn a_mistake_of_our_own_ends_the_server_with_an_error() {
    let (serving, _) = serving_with("error=EINVAL:when=1");
    drop(std::net::TcpStream::connect(serving.socket_address()));
    line_with(&serving.stderr, "error: cannot accept on");
    assert_eq!(serving.wait(), 2);
}
