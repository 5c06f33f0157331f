//! Word for scripts: who is ready, which process it is, completions and pages of the manual.

use std::fs;
use std::process::Command;

use crate::support::{Serving, run, sockeye, text};

#[test]
fn a_descriptor_is_told_the_addresses_and_closed() {
    // The shell opens it, as a supervisor would, and cat ends when it is closed, though the server goes on.
    let script = "
exec 4>&1
{ \"$1\" serve echo -q -l 127.0.0.1:0 -l 127.0.0.2:0 --ready-fd 3 3>&1 >/dev/null 2>&1 4>&- & echo $! >&4; } | cat
";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_sockeye")]);
    let output = run(shell, b"");
    let said = text(&output.stdout);
    let lines: Vec<_> = said.lines().collect();
    let pid = lines
        .iter()
        .find_map(|line| line.parse::<i32>().ok())
        .expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it goes on");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("127.0.0.1:"))
            .count(),
        1,
        "{said}"
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("127.0.0.2:"))
            .count(),
        1,
        "{said}"
    );
}

#[test]
fn files_say_who_is_ready_and_are_gone_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ready, pid) = (folder.path().join("ready"), folder.path().join("pid"));
    fs::write(&ready, "127.0.0.1:1\n").expect("written");
    let (ready_text, pid_text) = (ready.to_str().expect("UTF-8"), pid.to_str().expect("UTF-8"));
    let serving = Serving::start(&["--ready-file", ready_text, "--pid-file", pid_text]);
    let served = format!("{}\n", serving.address);
    // It is written a moment after the ready line.
    while fs::read_to_string(&ready).ok().as_ref() != Some(&served) {
        std::thread::yield_now();
    }
    assert_eq!(
        fs::read_to_string(&pid).expect("there"),
        format!("{}\n", serving.pid())
    );
    assert_eq!(serving.stop(), 0);
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
}

/// As when a new server is started before the old one is stopped.
#[test]
fn files_that_another_server_has_written_since_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ready, pid) = (folder.path().join("ready"), folder.path().join("pid"));
    let (ready_text, pid_text) = (ready.to_str().expect("UTF-8"), pid.to_str().expect("UTF-8"));
    let start = || {
        let serving = Serving::start(&["--ready-file", ready_text, "--pid-file", pid_text]);
        let served = format!("{}\n", serving.address);
        while fs::read_to_string(&ready).ok().as_ref() != Some(&served) {
            std::thread::yield_now();
        }
        serving
    };
    let old = start();
    let new = start();
    assert_eq!(old.stop(), 0);
    let there = fs::read_to_string(&pid).expect("there");
    assert_eq!(there, format!("{}\n", new.pid()));
    assert!(ready.exists());
    assert_eq!(new.stop(), 0);
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
}

#[test]
fn what_cannot_be_told_is_said_before_anybody_listens() {
    for (arguments, words) in [
        (["--ready-fd", "9"], "--ready-fd 9: Bad file descriptor"),
        (
            ["--ready-fd", "1"],
            "the standard streams are not handed over",
        ),
        (
            ["--pid-file", "/nonexistent/pid"],
            "--pid-file: cannot write /nonexistent/pid: No such file",
        ),
        (
            ["--ready-file", "/nonexistent/ready"],
            "--ready-file: cannot write /nonexistent/ready: No such file",
        ),
    ] {
        let output = run(sockeye(&[&["serve"], &arguments[..]].concat()), b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn completions_know_the_verbs_and_bash_takes_them() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = run(sockeye(&["completions", shell]), b"");
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["serve", "connect", "bench", "idle-timeout"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("on-terminal"), "{shell}");
    }
    let unknown = run(sockeye(&["completions", "tcsh"]), b"");
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn there_is_a_page_of_the_manual_for_each_verb() {
    let page = run(sockeye(&["man", "serve"]), b"");
    assert_eq!(page.status.code(), Some(0));
    let page = text(&page.stdout);
    assert!(
        page.starts_with(".ie") && page.contains("idle\\-timeout"),
        "{page}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let written = run(
        sockeye(&["man", "--dir", folder.path().to_str().expect("UTF-8")]),
        b"",
    );
    assert_eq!(written.status.code(), Some(0));
    for name in [
        "sockeye.1",
        "sockeye-serve.1",
        "sockeye-connect.1",
        "sockeye-bench.1",
    ] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let unknown = run(sockeye(&["man", "fly"]), b"");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("there are serve, connect, bench"));
}
