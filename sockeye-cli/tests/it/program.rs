//! `connect --exec`: a program on our side of the connection.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::connect::{connect, read_all, serve_one, start};
use crate::peers::{MEGABYTE, Process, noise, socat};
use crate::support::{
    Serving, finish, json, run, sockeye, sockeye_whose_parent_ignores_children, text,
};

fn exec(address: &str, script: &str) -> std::process::Output {
    connect(&["--exec", address, "--", "sh", "-c", script], b"")
}

#[test]
fn a_program_reads_what_comes_and_what_it_writes_is_sent() {
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    let sent = every_byte.clone();
    let (address, server) = serve_one(move |mut stream| {
        let mut writer = stream.try_clone().expect("cloned");
        let writes = std::thread::spawn(move || {
            writer.write_all(&sent).expect("sent");
            writer.shutdown(Shutdown::Write).expect("FIN");
        });
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("read");
        writes.join().expect("no panic");
        all
    });
    let output = connect(&["--exec", &address, "--", "cat"], b"not this");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    assert!(server.join().expect("no panic") == every_byte);
}

#[test]
fn how_a_program_ends_is_known_whoever_has_started_us() {
    let (address, server) = serve_one(drop);
    let line = ["connect", "--exec", &address, "--", "sh", "-c", "exit 3"];
    let output = run(sockeye_whose_parent_ignores_children(&line), b"");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    server.join().expect("no panic");
}

#[test]
fn what_a_program_says_when_the_server_has_closed_is_sent() {
    let (address, server) = serve_one(|mut stream| {
        stream.write_all(b"42\n").expect("sent");
        stream.shutdown(Shutdown::Write).expect("FIN");
        read_all(&stream)
    });
    let output = exec(&address, "x=$(cat); echo the answer is $x");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(server.join().expect("no panic"), b"the answer is 42\n");
}

#[test]
fn the_connection_ends_with_the_program_though_the_server_goes_on() {
    let (address, server) = serve_one(|stream| read_all(&stream));
    let output = exec(&address, "echo hi");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(server.join().expect("no panic"), b"hi\n");

    let serving = Serving::start(&["chargen"]);
    let output = exec(&serving.address, "echo I do not read");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn over_tls_both_ends_of_the_stream_are_passed_on() {
    let serving = Serving::start(&["--tls-self-signed", "localhost"]);
    let address = format!("tls://{}", serving.address);
    let script = "echo ping; exec >&-; cat >&2";
    let output = connect(
        &[
            "-q",
            "--insecure",
            "--exec",
            &address,
            "--",
            "sh",
            "-c",
            script,
        ],
        b"",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).ends_with("ping\n"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_program_finds_who_is_at_the_two_ends() {
    let (address, server) = serve_one(|stream| {
        let peer = stream.peer_addr().expect("connected").to_string();
        (peer, String::from_utf8(read_all(&stream)).expect("text"))
    });
    let output = exec(
        &address,
        "echo $PROTO $TCPREMOTEIP:$TCPREMOTEPORT $NCAT_REMOTE_ADDR:$NCAT_REMOTE_PORT $REMOTE_ADDR:$REMOTE_PORT \
         $TCPLOCALIP:$TCPLOCALPORT $NCAT_LOCAL_ADDR:$NCAT_LOCAL_PORT",
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (peer, found) = server.join().expect("no panic");
    assert_eq!(
        found,
        format!("TCP {address} {address} {address} {peer} {peer}\n")
    );

    let folder = tempfile::tempdir().expect("a folder");
    let unix = format!("unix:{}", folder.path().join("s.sock").display());
    let _serving = Serving::start(&["-l", &unix]);
    let script = "echo $PROTO $REMOTE_ADDR; read x; echo $x >&2";
    let arguments = ["connect", "--exec", &unix, "--", "sh", "-c", script];
    let mut command = sockeye(&arguments);
    command.env("REMOTE_ADDR", "of another connection");
    assert_eq!(text(&run(command, b"").stderr), "IPC\n");
}

#[test]
fn the_exit_code_is_that_of_the_program_if_the_connection_ended_well() {
    for (script, code, words) in [
        ("exit 7", 7, "'sh' ended with exit status: 7"),
        ("kill -9 $$", 137, "signal: 9"),
    ] {
        let (address, server) = serve_one(|stream| read_all(&stream));
        let output = exec(&address, script);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
        server.join().expect("no panic");
    }
    let (address, server) = serve_one(|stream| read_all(&stream));
    let arguments = [
        "--explain",
        "--json",
        "--exec",
        &address,
        "--",
        "sh",
        "-c",
        "exit 3",
    ];
    let output = connect(&arguments, b"");
    assert_eq!(json(&text(&output.stderr))["program_exit_code"], 3);
    server.join().expect("no panic");

    let (address, server) = serve_one(|stream| read_all(&stream));
    let output = connect(&["--exec", &address, "--", "/no/such/program"], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/no/such/program"), "{said}");
    server.join().expect("no panic");

    for arguments in [
        vec!["--exec", "127.0.0.1:1"],
        vec!["127.0.0.1:1", "--", "cat"],
        vec!["--exec", "--send", "x", "127.0.0.1:1", "--", "cat"],
    ] {
        assert_eq!(
            connect(&arguments, b"").status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_program_does_not_outlive_a_connection_that_failed_or_was_interrupted() {
    // It says that it is there, and then neither reads nor ends by itself.
    let script = "echo $$; exec sleep 1000";
    let number = |said: &[u8]| text(said).trim().parse::<i32>().expect("a number");
    let (address, server) = serve_one(|mut stream| {
        let mut said = [0; 32];
        let bytes = stream.read(&mut said).expect("read");
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .expect("set");
        said[..bytes].to_vec()
    });
    let output = exec(&address, script);
    assert_eq!(output.status.code(), Some(56), "{}", text(&output.stderr));
    assert_gone(number(&server.join().expect("no panic")));

    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (said, heard) = std::sync::mpsc::channel();
        let (address, server) = serve_one(move |mut stream| {
            let mut buffer = [0; 32];
            let bytes = stream.read(&mut buffer).expect("read");
            said.send(buffer[..bytes].to_vec()).expect("heard");
            let _ = stream.read(&mut buffer);
        });
        let child = start(&["--exec", &address, "--", "sh", "-c", script]);
        let pid = number(&heard.recv().expect("said"));
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        assert_eq!(finish(child, Vec::new()).status.code(), Some(code));
        assert_gone(pid);
        server.join().expect("no panic");
    }
}

fn assert_gone(pid: i32) {
    let there = rustix::process::test_kill_process(Pid::from_raw(pid).expect("not 0"));
    assert!(there.is_err(), "{pid} still runs");
}

#[test]
#[ignore = "needs socat"]
fn socat_gets_all_that_a_program_answers_after_its_end() {
    let payload = noise(MEGABYTE);
    let (server, address) = socat("127.0.0.1");
    let client = Process::start(sockeye(&["connect", "--exec", &address, "--", "cat"]));
    server.feed(&payload);
    assert!(server.end() == payload);
    assert!(client.end().is_empty());
}
