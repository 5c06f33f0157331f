//! Ports by name, and several of them.

use std::net::TcpListener;

use serde_json::Value;

use crate::peers::command;
use crate::support::{Serving, json, run, sockeye, text};

fn connect(arguments: &[&str]) -> std::process::Output {
    crate::connect::connect(arguments, b"")
}

/// Ports that follow each other: the first and the last listen, and those between them are ours and do not.
fn neighbours(count: u16) -> (TcpListener, TcpListener, Vec<socket2::Socket>, u16) {
    // Not of those that the kernel gives to others.
    for first in (20_000 + std::process::id() as u16 % 5_000..30_000).step_by(usize::from(count)) {
        let last = first + count - 1;
        let ends = [first, last].map(|port| TcpListener::bind(("127.0.0.1", port)));
        let between = (first + 1..last).map(|port| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
            Ok(socket)
        });
        let between: std::io::Result<Vec<_>> = between.collect();
        if let ([Ok(low), Ok(high)], Ok(between)) = (ends, between) {
            return (low, high, between, first);
        }
    }
    panic!("no free ports");
}

#[test]
fn several_ports_are_told_in_order_and_one_that_is_open_is_enough() {
    let (_low, _high, _closed, first) = neighbours(200);
    let last = first + 199;
    let output = connect(&["--probe", "127.0.0.1", &format!("{first}-{last}")]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stdout);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 200);
    for (port, line) in (first..=last).zip(&lines) {
        let how = match port == first || port == last {
            true => "open after",
            false => "closed after",
        };
        assert!(
            line.starts_with(&format!("127.0.0.1:{port} {how} ")),
            "{line}"
        );
    }
    assert_eq!(text(&output.stderr), "2 of 200 ports are open\n");

    let list = format!("127.0.0.1:{},{first}-{},{last}", last, first + 1);
    let output = connect(&["--probe", "--json", &list]);
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
    let told = text(&output.stdout);
    let answers: Vec<Value> = told.lines().map(json).collect();
    let open: Vec<bool> = answers
        .iter()
        .map(|answer| answer["open"] == true)
        .collect();
    assert_eq!(open, [true, false, true]);
    assert_eq!(answers[1]["target"], format!("127.0.0.1:{}", first + 1));

    let closed = format!("localhost:{}-{}", first + 1, last - 1);
    let output = connect(&["--probe", "--quiet", "-4", &closed]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn several_ports_with_tls_are_open_if_one_has_agreed_on_it() {
    let (_low, _high, _closed, first) = neighbours(3);
    let serving = Serving::start(&["--tls-self-signed", "localhost"]);
    let silent = format!("127.0.0.1:{first},{}", first + 1);
    let limits = ["--handshake-timeout", "200ms", "--insecure"];
    let output = connect(&[&["--tls", "--probe", &silent][..], &limits].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(
        text(&output.stdout).contains("no TLS"),
        "{}",
        text(&output.stdout)
    );
    let both = format!("{silent},{}", serving.port());
    let output = connect(&[&["--tls", "--probe", &both][..], &limits].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn several_ports_of_nobody_are_the_exit_code_of_nobody() {
    let output = connect(&["--probe", "no-such-name.invalid", "1-3"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(6), 0));
    let output = connect(&["--probe", "-6", "127.0.0.1", "1-3"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(6), 0));
}

#[test]
fn several_ports_are_for_probe_alone() {
    for (arguments, word) in [
        (vec!["127.0.0.1", "20-25"], "--probe"),
        (vec!["127.0.0.1:20,21"], "--probe"),
        (
            vec!["--probe", "--wait-for", "1s", "127.0.0.1:20-25"],
            "--wait-for",
        ),
        (vec!["--probe", "127.0.0.1:25-20"], "from high to low"),
        (vec!["--probe", "127.0.0.1:0-3"], "port 0"),
        (vec!["--probe", "127.0.0.1:20,x y"], "'x y'"),
    ] {
        let output = connect(&arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let output = run(sockeye(&["serve", "-l", ":20-25"]), b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("connect --probe"));
}

/// Which machine has the file, and what is in it, is not ours to say; that it is asked is.
#[test]
fn a_port_has_the_name_that_etc_services_has_for_it() {
    let services = std::fs::read_to_string("/etc/services");
    let known = services.is_ok_and(|services| {
        let mut lines = services.lines();
        lines.any(|line| line.starts_with("http\t") && line.contains("80/tcp"))
    });
    for arguments in [
        ["--probe", "127.0.0.1:http"].as_slice(),
        &["--probe", "127.0.0.1", "http"],
    ] {
        let output = connect(arguments);
        if known {
            assert!(text(&output.stdout).starts_with("127.0.0.1:80 "));
        } else {
            assert!(text(&output.stderr).contains("/etc/services"));
        }
    }
    let output = connect(&["--probe", "127.0.0.1:no-such-service"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no-such-service"));
}

#[test]
#[ignore = "needs nc.openbsd"]
fn openbsd_netcat_finds_the_same_ports_open_and_has_the_same_exit_code() {
    let (_low, _high, _closed, first) = neighbours(20);
    for (from, to) in [(first, first + 19), (first + 1, first + 18), (first, first)] {
        let range = format!("{from}-{to}");
        let netcat = run(command(&["nc.openbsd", "-zv", "127.0.0.1", &range]), b"");
        let ours = connect(&["--probe", "127.0.0.1", &range]);
        assert_eq!(ours.status.code(), netcat.status.code(), "{range}");
        let netcats = text(&netcat.stderr);
        for port in from..=to {
            let says = |said: &str, port: &str, yes: &str| {
                let mut lines = said.lines();
                lines.any(|line| line.contains(port) && line.contains(yes))
            };
            assert_eq!(
                says(&text(&ours.stdout), &format!(":{port} "), "open"),
                says(&netcats, &format!(" {port} port "), "succeeded"),
                "{port}: {netcats}"
            );
        }
    }
}
