//! `sockeye bench`: what is counted, what is said, and how it ends. Nothing here depends on how fast anything is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::authority::Authority;
use crate::support::{Serving, finish, run, sockeye, text};

/// Runs a bench to its end and reads its report.
fn bench(arguments: &[&str]) -> Value {
    let output = bench_output(arguments);
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    report(&output)
}

fn bench_output(arguments: &[&str]) -> Output {
    let quick = ["bench", "--json", "--warmup", "0"];
    run(sockeye(&[&quick[..], arguments].concat()), b"")
}

fn report(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn kinds(report: &Value, of: &str) -> Vec<String> {
    let all = report[of].as_array().expect("a list").iter();
    all.map(|finding| finding["kind"].as_str().expect("a name").to_owned())
        .collect()
}

/// A server of another sort, a thread for each client.
fn server(talk: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (talk, stream) = (talk.clone(), stream.expect("accepted"));
            thread::spawn(move || talk(stream));
        }
    });
    address
}

/// Answers each piece with what `answer` makes of it, until the client ends.
fn answering(answer: impl Fn(&mut Vec<u8>) + Clone + Send + 'static) -> String {
    server(move |mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut bytes = buffer[..count].to_vec();
            answer(&mut bytes);
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_number_of_messages_is_sent_answered_and_counted_exactly() {
    let serving = Serving::start(&[]);
    for (connections, threads) in [("1", "1"), ("7", "1"), ("64", "3")] {
        let report = bench(&[
            "-n",
            "1000",
            "--connections",
            connections,
            "--threads",
            threads,
            "--size",
            "100",
            "--verify",
            &serving.address,
        ]);
        assert_eq!(report["messages"], 1000);
        assert_eq!(report["latency"]["count"], 1000);
        assert_eq!(report["service"]["count"], 1000);
        assert_eq!(report["sent_bytes"], 100_000);
        assert_eq!(report["received_bytes"], 100_000);
        assert_eq!(report["unanswered"], 0);
        assert_eq!(report["errors"], serde_json::json!({}));
        assert_eq!(report["loop"], "closed");
        assert_eq!(report["send_lag"], Value::Null);
    }
}

/// A piece of the timeline holds what happened in it, and one begins with the measured time, however long the warm-up is.
#[test]
fn the_timeline_is_without_gaps_and_counts_every_message() {
    let serving = Serving::start(&["echo"]);
    for warmup in ["0ms", "130ms", "300ms"] {
        let output = run(
            sockeye(&[
                "bench",
                "--json",
                "--warmup",
                warmup,
                "--rate",
                "1k",
                "-n700",
                "-c2",
                &serving.address,
            ]),
            b"",
        );
        let report = report(&output);
        let pieces = report["timeline"].as_array().expect("a list");
        let number = |piece: &Value, name: &str| piece[name].as_f64().expect("a number");
        let mut end = number(&pieces[0], "at_ms");
        for piece in pieces {
            assert!((number(piece, "at_ms") - end).abs() < 0.001, "{pieces:?}");
            end += number(piece, "length_ms");
        }
        let begins = |piece: &&Value| number(piece, "at_ms") == 0.0;
        assert_eq!(pieces.iter().filter(begins).count(), 1, "{pieces:?}");
        let answered: f64 = pieces.iter().map(|piece| number(piece, "messages")).sum();
        let warming: f64 = warmup.trim_end_matches("ms").parse().expect("a number");
        assert!((answered - 700.0 - warming).abs() <= 2.0, "{pieces:?}");
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn an_answer_that_takes_longer_than_the_timeout_is_none() {
    let late = server(|mut stream| {
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            thread::sleep(Duration::from_millis(60));
            if stream.write_all(&byte).is_err() {
                return;
            }
        }
    });
    let output = bench_output(&[&late, "-c1", "-n3", "--size", "1", "--timeout", "30ms"]);
    let report = report(&output);
    assert_eq!(report["messages"], 0, "{report}");
    assert_eq!(report["errors"]["timeout"], 3, "{report}");
}

#[test]
fn fewer_messages_than_threads_are_sent_and_the_end_is_seen() {
    let serving = Serving::start(&[]);
    for pace in [&[][..], &["--rate", "1k"]] {
        let arguments = [
            "--messages",
            "2",
            "-c",
            "8",
            "--threads",
            "5",
            &serving.address,
        ];
        assert_eq!(bench(&[pace, &arguments].concat())["messages"], 2);
    }
}

#[test]
fn visits_that_are_not_over_at_the_end_are_accounted_for() {
    // Accepts once, to be found, and then has a full queue.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("bound");
    listener.listen(0).expect("listens");
    let address = listener
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("IP")
        .to_string();
    let output = bench_output(&[
        "--mode", "connect", "--rate", "40", "-d", "500ms", "-c", "4", &address,
    ]);
    let report = report(&output);
    assert_eq!(report["latency"]["count"], 20);
    let unanswered = report["unanswered"].as_u64().expect("a count");
    assert_eq!(
        report["messages"].as_u64().expect("a count") + unanswered,
        20
    );
    assert!(unanswered >= 10, "{report}");
}

/// Those of which the connection is open, too.
#[test]
fn visits_that_wait_for_an_answer_at_the_end_have_none() {
    let address = server(|mut stream| {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink);
    });
    let output = bench_output(&[
        "--mode", "connect", "--size", "1", "--rate", "40", "-d", "500ms", "-c", "4", &address,
    ]);
    let report = report(&output);
    assert_eq!(report["messages"], 0, "{report}");
    assert_eq!(report["unanswered"], 20, "{report}");
    assert_eq!(report["connections"]["served"], 0, "{report}");
}

#[test]
fn every_message_of_a_schedule_is_accounted_for_and_none_is_skipped() {
    let serving = Serving::start(&[]);
    // In each case 300 are due, also where the connections are too few to keep up with them.
    for more in [["-c", "1"], ["-c", "64"], ["--pipeline", "4"]] {
        let arguments = ["--rate", "1k", "--duration", "300ms", &serving.address];
        let output = bench_output(&[&more[..], &arguments].concat());
        let report = report(&output);
        assert_eq!(report["latency"]["count"], 300, "{more:?}");
        assert_eq!(report["loop"], "open");
        assert_eq!(report["send_lag"]["count"], 300);
    }
}

#[test]
fn messages_that_a_silent_server_never_answers_are_in_the_latencies_with_the_time_they_waited() {
    let address = server(|mut stream| {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink);
    });
    let arguments = [
        "--rate",
        "100",
        "-d",
        "1s",
        "--timeout",
        "1s",
        "-c",
        "1",
        &address,
    ];
    let report = report(&bench_output(&arguments));
    assert_eq!(report["messages"], 0);
    assert_eq!(report["unanswered"], 100);
    assert_eq!(report["latency"]["count"], 100);
    assert!(report["latency"]["max_us"].as_f64().expect("a time") >= 1e6);
    assert_eq!(report["valid"], false);
    // A machine that is busy with something else adds its own.
    let invalid = kinds(&report, "invalid");
    for expected in ["nothing_answered", "few_served"] {
        assert!(invalid.contains(&expected.to_owned()), "{invalid:?}");
    }
    assert!(report["errors"]["timeout"].as_u64().expect("timeouts") >= 1);
    assert!(kinds(&report, "warnings").contains(&"unanswered".to_owned()));
}

#[test]
fn the_same_seed_gives_the_same_random_schedule() {
    let serving = Serving::start(&[]);
    let count = |seed| {
        let report = bench(&[
            "--rate",
            "1k",
            "--arrivals",
            "poisson",
            "--seed",
            seed,
            "-d",
            "500ms",
            "-c",
            "10",
            &serving.address,
        ]);
        assert_eq!(report["asked"]["seed"].to_string(), seed);
        report["latency"]["count"].as_u64().expect("a count")
    };
    assert_eq!(count("1"), count("1"));
    // 500 are expected with a standard deviation of 22.
    assert!(count("2").abs_diff(500) < 120);
}

/// What is answered after the end is of no piece: a server that has fallen behind would seem quick in the last one.
#[test]
fn the_timeline_ends_with_the_measured_time() {
    let address = answering(|_| thread::sleep(Duration::from_millis(10)));
    let arguments = ["--rate", "1k", "-c", "1", "-d", "500ms", &address];
    let report = report(&bench_output(&arguments));
    assert!(report["unanswered"].as_u64().expect("a count") >= 200);
    let pieces = report["timeline"].as_array().expect("a list").iter();
    let told: u64 = pieces.filter_map(|piece| piece["messages"].as_u64()).sum();
    // At 10 ms each, some 200 are answered in the two seconds after the end.
    let answered = report["messages"].as_u64().expect("a count");
    assert!(told <= answered + 20, "{told} of {answered}");
}

#[test]
fn verify_finds_a_server_that_changes_a_byte_and_without_it_only_the_number_counts() {
    let address = answering(|bytes| bytes[0] ^= 1);
    let report = report(&bench_output(&["-n", "8", "-c", "2", "--verify", &address]));
    assert!(report["errors"]["not_an_echo"].as_u64().expect("errors") >= 2);
    assert_eq!(report["messages"], 0);
    assert_eq!(report["valid"], false);
    let report = bench(&["-n", "100", "-c", "2", &address]);
    assert_eq!(report["messages"], 100);
}

#[test]
fn a_server_that_answers_too_much_is_no_echo() {
    let address = answering(|bytes| bytes.push(0));
    let report = report(&bench_output(&["-n", "10", "-c", "1", &address]));
    assert!(report["errors"]["not_an_echo"].as_u64().expect("errors") >= 1);
}

#[test]
fn messages_larger_than_every_buffer_come_back_whole() {
    let serving = Serving::start(&[]);
    let report = bench(&[
        "-n",
        "20",
        "-c",
        "2",
        "--size",
        "3MiB",
        "--verify",
        &serving.address,
    ]);
    assert_eq!(report["received_bytes"], 20 * 3 * 1024 * 1024);
}

#[test]
fn several_messages_under_way_come_back_in_order() {
    let serving = Serving::start(&[]);
    let report = bench(&[
        "-n",
        "5000",
        "-c",
        "3",
        "--pipeline",
        "16",
        "--size",
        "37",
        "--verify",
        &serving.address,
    ]);
    assert_eq!(report["messages"], 5000);
}

#[test]
fn a_connection_that_the_server_closes_is_an_error_and_is_opened_again() {
    // Three answers, then the end.
    let address = server(|mut stream| {
        let mut buffer = [0; 64];
        for _ in 0..3 {
            if stream.read_exact(&mut buffer).is_err() || stream.write_all(&buffer).is_err() {
                return;
            }
        }
    });
    let output = bench_output(&["-n", "30", "-c", "1", &address]);
    let report = report(&output);
    let errors = report["errors"].as_object().expect("errors");
    let ended: u64 = errors.values().filter_map(Value::as_u64).sum();
    assert!(ended >= 5, "{errors:?}");
    assert!(
        errors
            .keys()
            .all(|kind| ["closed", "reset"].contains(&kind.as_str())),
        "{errors:?}"
    );
    assert!(kinds(&report, "invalid").contains(&"connections_failed".to_owned()));
    assert_eq!(report["connections"]["reopened"], ended);
    assert_eq!(
        report["messages"].as_u64().expect("a count")
            + report["unanswered"].as_u64().expect("a count"),
        30
    );
}

#[test]
fn connections_are_renewed_when_their_lifetime_is_over_and_that_is_no_error() {
    let serving = Serving::start(&[]);
    let report = bench(&[
        "-d",
        "1s",
        "-c",
        "4",
        "--lifetime",
        "100ms",
        &serving.address,
    ]);
    assert_eq!(report["errors"], serde_json::json!({}));
    let reopened = report["connections"]["reopened"].as_u64().expect("a count");
    // 4 connections, ten lives each, the first of them shorter; on a slow machine fewer.
    assert!((4..=100).contains(&reopened), "{reopened}");
}

#[test]
fn mode_connect_opens_a_connection_for_each_message() {
    let serving = Serving::start(&["--json"]);
    for (close, size) in [("fin", "0"), ("reset", "10")] {
        let report = bench(&[
            "--mode",
            "connect",
            "-n",
            "200",
            "-c",
            "8",
            "--close",
            close,
            "--size",
            size,
            &serving.address,
        ]);
        assert_eq!(report["messages"], 200);
        assert_eq!(report["connect"]["count"], 200);
    }
    serving.signal(Signal::TERM);
    let accepts = serving
        .stdout
        .iter()
        .filter(|line| line.contains("\"event\":\"accept\""));
    // And one before each of the two, to see whether there is anybody.
    assert_eq!(accepts.count(), 402);
}

/// A number of messages is not waited for without end.
#[test]
fn messages_that_there_is_no_connection_for_any_more_are_given_up() {
    let once = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = once.local_addr().expect("bound").to_string();
    let serving = thread::spawn(move || {
        // The one that looks whether there is anybody, and one that gets three answers.
        drop(once.accept().expect("accepted"));
        let (mut stream, _) = once.accept().expect("accepted");
        drop(once);
        let mut buffer = [0; 64];
        for _ in 0..3 {
            stream.read_exact(&mut buffer).expect("a message");
            stream.write_all(&buffer).expect("sent");
        }
    });
    let output = bench_output(&["-n", "30", "-c", "1", "--timeout", "50ms", &address]);
    serving.join().expect("no panic");
    let report = report(&output);
    assert_eq!(report["messages"], 3, "{report}");
    assert_eq!(report["valid"], false);
    assert!(kinds(&report, "invalid").contains(&"given_up".to_owned()));
}

#[test]
fn mode_stream_counts_what_the_kernel_takes_and_what_comes() {
    let discard = Serving::start(&["discard"]);
    let report = bench(&[
        "--mode",
        "stream",
        "-n",
        "100",
        "-c",
        "2",
        "--size",
        "64KiB",
        &discard.address,
    ]);
    assert_eq!(report["messages"], 100);
    assert_eq!(report["sent_bytes"], 100 * 64 * 1024);
    assert_eq!(report["received_bytes"], 0);
    let chargen = Serving::start(&["chargen"]);
    let report = bench(&[
        "--mode",
        "stream",
        "-d",
        "300ms",
        "-c",
        "2",
        "--size",
        "0",
        &chargen.address,
    ]);
    assert_eq!(report["sent_bytes"], 0);
    assert!(report["received_bytes"].as_u64().expect("bytes") > 0);
    assert_eq!(report["connections"]["served"], 2);
}

#[test]
fn mode_http_gets_answers_and_says_which_were_no() {
    let answer = |status: &'static str| {
        server(move |stream| {
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let mut stream = stream;
            while let Some(Ok(first)) = lines.next() {
                assert_eq!(first, "GET /a?b=c HTTP/1.1");
                let rest: Vec<String> = lines
                    .by_ref()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                assert!(
                    rest.iter()
                        .any(|line| line.to_ascii_lowercase().starts_with("host: 127.0.0.1:")),
                    "{rest:?}"
                );
                let body = format!(
                    "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                );
                if stream.write_all(body.as_bytes()).is_err() {
                    return;
                }
            }
        })
    };
    let report = bench(&[
        "--http",
        "/a?b=c",
        "-n",
        "100",
        "-c",
        "3",
        &answer("200 OK"),
    ]);
    assert_eq!(
        (&report["messages"], &report["mode"]),
        (&100.into(), &"http".into())
    );
    let report = bench(&[
        "--http",
        "/a?b=c",
        "--pipeline",
        "4",
        "-n",
        "100",
        "-c",
        "3",
        &answer("503 No"),
    ]);
    assert_eq!(report["messages"], 100);
    assert_eq!(report["errors"], serde_json::json!({ "http_503": 100 }));
}

#[test]
fn an_http_server_that_closes_after_each_answer_is_asked_again_and_that_is_no_error() {
    let address = server(|mut stream| {
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    let report = bench(&["--mode", "http", "-n", "20", "-c", "2", &address]);
    assert_eq!(report["messages"], 20);
    assert_eq!(report["errors"], serde_json::json!({}));
}

#[test]
fn a_thousand_connections_are_all_served() {
    let serving = Serving::start(&[]);
    let report = bench(&["-c", "1000", "-d", "1s", "--threads", "2", &serving.address]);
    assert_eq!(report["connections"]["opened"], 1000);
    assert_eq!(report["connections"]["served"], 1000);
    assert_eq!(report["tcp"]["connections"], 1000);
}

#[test]
fn ipv6_unix_sockets_tls_and_a_proxy_header_are_measured_as_well() {
    let six = Serving::start(&["-l", "[::1]:0"]);
    assert_eq!(bench(&["-n", "50", &six.address])["messages"], 50);
    let folder = tempfile::tempdir().expect("made");
    let path = format!("unix:{}", folder.path().join("echo.sock").display());
    let _unix = Serving::start(&["-l", &path]);
    let report = bench(&["-n", "50", "-c", "4", &path]);
    assert_eq!(
        (&report["messages"], &report["tcp"]),
        (&50.into(), &Value::Null)
    );

    let authority = Authority::new();
    authority.certificate("server", &["localhost"]);
    let [ca, certificate, key] =
        ["ca.pem", "server.pem", "server.key"].map(|file| authority.path(file));
    let tls = Serving::start(&[
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--proxy-protocol",
        "from=127.0.0.1/32",
        "--proxy-protocol-only",
    ]);
    let port = tls.port();
    let report = bench(&[
        "-n",
        "50",
        "-c",
        "4",
        "--verify",
        "--ca",
        &ca,
        "--proxy-protocol",
        "v2",
        &format!("tls://localhost:{port}"),
    ]);
    assert_eq!(
        (&report["messages"], &report["asked"]["tls"]),
        (&50.into(), &true.into())
    );
    // Not to be trusted: before anything is measured.
    let output = bench_output(&[
        "-n",
        "50",
        "--proxy-protocol",
        "v2",
        &format!("tls://localhost:{port}"),
    ]);
    assert_eq!(output.status.code(), Some(60));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn both_ends_in_one_process_tell_where_the_time_goes() {
    let report = bench(&["--serve", "-n", "2000", "-c", "4"]);
    let ends = &report["both_ends"];
    for part in ["to_server", "in_server", "to_client"] {
        assert_eq!(ends[part]["count"], 2000, "{part}");
    }
    let mean = |part: &Value| part["mean_us"].as_f64().expect("a time");
    let parts = mean(&ends["to_server"]) + mean(&ends["in_server"]) + mean(&ends["to_client"]);
    let whole = mean(&report["service"]);
    // Histograms know three digits.
    assert!(
        (parts - whole).abs() <= 0.003 * whole + 0.01,
        "{parts} of {whole}"
    );
    let pairs = ends["pairs"].as_array().expect("a list");
    assert_eq!(pairs.len(), 4);
    assert!(
        pairs
            .iter()
            .all(|pair| pair["client_tcp"]["rtt_us"].is_u64()
                && pair["server_tcp"]["rtt_us"].is_u64())
    );
    assert!(
        report["server"]["cpu_ns_per_message"]
            .as_f64()
            .expect("a time")
            > 0.0
    );
}

#[test]
fn the_cpu_time_of_programs_that_have_ended_is_the_servers_too() {
    let count = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; head -c 1";
    let serving = Serving::start(&["exec", "--", "sh", "-c", count]);
    let pid = serving.pid().as_raw_nonzero().to_string();
    let visits = ["--mode", "connect", "--size", "1", "-n", "20", "-c", "2"];
    let report = bench(&[&visits[..], &["--pid", &pid, &serving.address]].concat());
    let cost = report["server"]["cpu_ns_per_message"].as_f64();
    // A hundred thousand rounds of any shell take longer than 5 ms, and our part of a visit less.
    assert!(cost.expect("a time") > 5e6, "{report}");
}

#[test]
fn the_cpu_time_of_the_server_is_that_of_the_process_named() {
    let serving = Serving::start(&[]);
    let pid = serving.pid().as_raw_nonzero().to_string();
    let report = bench(&["--pid", &pid, "-d", "500ms", &serving.address]);
    assert!(
        report["server"]["cpu_ns_per_message"]
            .as_f64()
            .expect("a time")
            > 0.0
    );
    assert!(
        report["own"]["cpu_ns_per_message"]
            .as_f64()
            .expect("a time")
            > 0.0
    );
    let nobody = bench_output(&["--pid", "999999999", "-n", "10", &serving.address]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(
        text(&nobody.stderr).contains("--pid"),
        "{}",
        text(&nobody.stderr)
    );
}

#[test]
fn a_broken_threshold_is_exit_code_1_and_a_kept_one_0() {
    let serving = Serving::start(&[]);
    let broken = |condition: &str| {
        let output = bench_output(&["-n", "2000", "--fail-if", condition, &serving.address]);
        let report = report(&output);
        let broken = report["thresholds"][0]["broken"] == true;
        // On a machine that is busy with something else the run is invalid, and then no threshold is known to be kept.
        let code = i32::from(broken || report["valid"] == false);
        assert_eq!(output.status.code(), Some(code), "{condition}: {report}");
        broken
    };
    for kept in [
        "p99>1h",
        "max>=1h",
        "rate<1",
        "errors>0",
        "unanswered>0",
        "p50<=0us",
        "mean>100s",
        "cpu>1s",
    ] {
        assert!(!broken(kept), "{kept}");
    }
    // What is not known is broken, too.
    for wrong in [
        "p99>0us",
        "max>=1ns",
        "rate>1",
        "errors<1",
        "p50<1h",
        "server-cpu>1s",
    ] {
        assert!(broken(wrong), "{wrong}");
    }
}

#[test]
fn too_few_messages_for_the_percentile_asked_make_the_run_invalid() {
    let serving = Serving::start(&[]);
    let ask = |messages: &str, percentile: &str| {
        let condition = format!("p{percentile}>1h");
        let output = bench_output(&[
            "-n",
            messages,
            "-c",
            "4",
            "--fail-if",
            &condition,
            &serving.address,
        ]);
        kinds(&report(&output), "invalid").contains(&"few_samples".to_owned())
    };
    assert!(!ask("1000", "99"));
    assert!(ask("999", "99"));
    assert!(ask("1000", "99.9"));
}

#[test]
fn conditions_that_make_no_sense_are_usage_errors_with_the_form() {
    for wrong in [
        "p99",
        "p100>1ms",
        "p-1>1ms",
        "pnan>1ms",
        "p99>5",
        "p99>-5ms",
        "speed>1",
        "errors>1%",
        "rate<fast",
        ">1ms",
        "p99>5msx",
    ] {
        let output = bench_output(&["--fail-if", wrong, "127.0.0.1:1"]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    let output = bench_output(&["--find-max", "p99>5ms", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    for wrong in [
        &["--mode", "http", "--size", "5"][..],
        &["--mode", "echo", "--http", "/"],
        &["--mode", "echo", "--size", "0"],
        &["--mode", "connect", "--lifetime", "1s"],
        &["--mode", "stream", "--size", "0", "-n", "10"],
        &["--mode", "stream", "--size", "0", "--rate", "10"],
        &["--mode", "stream", "--size", "0", "--find-max", "p99<1s"],
        &["--mode", "connect", "--pipeline", "2"],
        &["--mode", "stream", "--pipeline", "2"],
        &["--mode", "stream", "--verify"],
        &["--http", "/a b"],
        &["--http", "/a\r\nX: y"],
        &["--serve", "--mode", "http"],
        &["--serve", "--pipeline", "2"],
        &["-n", "5", "-d", "5s"],
        &["-n", "0"],
        &["-c", "0"],
        &["--rate", "0"],
        &["--rate", "-1"],
        &["--size", "2GiB"],
        &["--size", "x"],
        &["--source", "127.0.0.0/33"],
        &["--ca", "none.pem"],
    ] {
        let output = bench_output(&[wrong, &["127.0.0.1:1"]].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn who_cannot_be_connected_to_is_told_as_connect_tells_it() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .expect("bound")
        .local_addr()
        .expect("bound")
        .to_string();
    let output = bench_output(&["-n", "5", &nobody]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let output = bench_output(&["-n", "5", "nobody.invalid:80"]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn source_addresses_are_taken_in_turn() {
    let serving = Serving::start(&["--json"]);
    bench(&[
        "-c",
        "6",
        "-n",
        "60",
        "--source",
        "127.0.7.0/29",
        &serving.address,
    ]);
    serving.signal(Signal::TERM);
    let mut sources: Vec<String> = serving
        .stdout
        .iter()
        .map(|line| serde_json::from_str::<Value>(&line).expect("JSON"))
        .filter(|event| event["event"] == "accept")
        .map(|event| {
            event["peer"]
                .as_str()
                .expect("an address")
                .rsplit_once(':')
                .expect("a port")
                .0
                .to_owned()
        })
        .collect();
    // The first is the one that looks whether there is anybody.
    sources.remove(0);
    sources.sort();
    let expected: Vec<String> = (1..=6).map(|host| format!("127.0.7.{host}")).collect();
    assert_eq!(sources, expected);
}

/// A place for one connection takes turns as well, and a network of IPv6 has more addresses than can be counted.
#[test]
fn each_visit_has_its_turn_with_the_source_addresses() {
    let serving = Serving::start(&["--json"]);
    let sources = ["--source", "127.0.7.0/29", &serving.address];
    let visits = ["--mode", "connect", "-c", "1", "-n", "12"];
    bench(&[&visits[..], &sources].concat());
    serving.signal(Signal::TERM);
    let accepted = serving
        .stdout
        .iter()
        .filter(|line| line.contains("\"event\":\"accept\""));
    let mut sources: Vec<String> = accepted
        .map(|line| {
            let event: Value = serde_json::from_str(&line).expect("JSON");
            let peer = event["peer"].as_str().expect("an address").to_owned();
            peer.split(':').next().expect("a host").to_owned()
        })
        .collect();
    // The first is the one that looks whether there is anybody.
    sources.remove(0);
    // Two workers tell of them.
    sources.sort();
    let expected: Vec<String> = (0..12)
        .map(|visit| format!("127.0.7.{}", 1 + visit / 2))
        .collect();
    assert_eq!(sources, expected);
}

#[test]
fn a_network_of_ipv6_has_more_source_addresses_than_can_be_counted() {
    let serving = Serving::start(&["-l", "[::1]:0"]);
    for mode in ["echo", "connect"] {
        let output = bench_output(&[
            "--mode",
            mode,
            "-n",
            "10",
            "--source",
            "fd00::/64",
            &serving.address,
        ]);
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("fd00::/64 is not of this machine"));
    }
    let own = [
        "-n",
        "10",
        "-c",
        "1",
        "--source",
        "::1/128",
        &serving.address,
    ];
    assert_eq!(bench(&own)["messages"], 10);
}

/// All messages that a pause of ours makes late are late, and not the first one alone.
#[test]
fn a_pause_of_the_generator_is_in_the_lag_of_every_message_that_it_kept() {
    let (sender, begun) = mpsc::channel();
    let address = server(move |mut stream| {
        let mut buffer = [0; 64];
        let mut count = 0;
        while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {
            count += 1;
            if count == 2 {
                let _ = sender.send(());
            }
        }
    });
    let arguments = ["bench", "--json", "--quiet", "--warmup", "0", "-d", "1s"];
    // So many that most have nothing under way when the pause begins: of an answer that came meanwhile nobody knows when.
    let paced = ["-c", "64", "--rate", "1k", &address];
    let child = sockeye(&[&arguments[..], &paced].concat())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    begun.recv().expect("messages come");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).expect("it runs");
    // This is the pause.
    thread::sleep(Duration::from_millis(300));
    kill_process(pid, Signal::CONT).expect("it is there");
    let report = report(&finish(child, Vec::new()));
    assert_eq!(report["latency"]["count"], 1000, "{report}");
    assert!(kinds(&report, "invalid").contains(&"generator_late".to_owned()));
    // 300 of 1,000 were due meanwhile.
    let lag = report["send_lag"]["p90_us"].as_f64().expect("a time");
    assert!(lag >= 100_000.0, "{lag}");
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_arithmetic() {
    for absurd in ["900000000", "18446744073709551615"] {
        let output = bench_output(&["-c", absurd, "127.0.0.1:1"]);
        assert_eq!(output.status.code(), Some(2), "{absurd}");
    }
    let output = bench_output(&["-c", "900000000", "127.0.0.1:1"]);
    let said = text(&output.stderr);
    assert!(said.contains("900000064"), "{said}");
}

#[test]
fn an_interrupt_ends_it_early_with_the_figures_until_then() {
    let serving = Serving::start(&[]);
    let address = serving.address.clone();
    let mut child = sockeye(&[
        "bench", "--json", "--warmup", "0", "-d", "1h", "-c", "2", &address,
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("starts");
    // It measures when the server has seen all three connections, and some traffic.
    while serving_open(&serving) < 2 {
        thread::yield_now();
    }
    let stdin = child.stdin.take();
    drop(stdin);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = finish(child, Vec::new());
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    if !output.stdout.is_empty() {
        let report = report(&output);
        assert!(kinds(&report, "warnings").contains(&"interrupted".to_owned()));
    }
}

fn serving_open(serving: &Serving) -> usize {
    serving.signal(Signal::USR1);
    let line = crate::support::line_with(&serving.stderr, " open,");
    let open = line
        .split(" open,")
        .next()
        .and_then(|before| before.rsplit(' ').next()?.parse().ok());
    open.unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_closed_stdout_is_no_error() {
    let serving = Serving::start(&[]);
    let command = format!(
        "{} bench -n 100 {} | true",
        env!("CARGO_BIN_EXE_sockeye"),
        serving.address
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]);
    let output = run(shell, b"");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn find_max_finds_a_rate_that_the_server_can_have_and_nothing_above_it() {
    // 10 ms for each message, one at a time on a connection: 4 connections can have 400 in a second.
    let address = answering(|_| thread::sleep(Duration::from_millis(10)));
    let output = bench_output(&[
        "--find-max",
        "p50<15ms",
        "-c",
        "4",
        "-d",
        "200ms",
        "--quiet",
        &address,
    ]);
    let report = report(&output);
    let found = &report["found"];
    let trials = found["trials"].as_array().expect("a list");
    assert!(!trials.is_empty());
    for trial in trials {
        let rate = trial["rate_per_s"].as_f64().expect("a rate");
        assert!(rate <= 420.0 || trial["held"] == false, "{trial}");
    }
    if let Some(rate) = found["rate_per_s"].as_f64() {
        assert_eq!(output.status.code(), Some(0));
        assert!(rate <= 420.0, "{rate}");
        let confirmed = trials
            .iter()
            .filter(|trial| trial["confirms"] == true && trial["held"] == true);
        assert!(confirmed.count() >= 3);
    } else {
        // On a machine that is busy with something else nothing holds, and that is said.
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn find_max_says_where_it_has_too_few_messages_to_go_on() {
    let address = answering(|_| thread::sleep(Duration::from_millis(10)));
    let search = ["--find-max", "p99.9<1us", "-c", "1", "-d", "200ms"];
    let output = bench_output(&[&search[..], &["--quiet", &address]].concat());
    assert_eq!(output.status.code(), Some(1));
    // 100 messages in a second at most, and it takes 10,000: that is not tried at all.
    let report = report(&output);
    assert!(kinds(&report, "warnings").contains(&"search_stopped".to_owned()));
    assert_eq!(report["found"]["trials"], Value::Array(Vec::new()));
}

#[test]
#[ignore = "needs root, for a network namespace"]
fn exhausted_ports_are_told_with_the_arithmetic() {
    let program = env!("CARGO_BIN_EXE_sockeye");
    let script = format!(
        "ip link set lo up
         echo '60000 60015' > /proc/sys/net/ipv4/ip_local_port_range
         {program} serve -l 127.0.0.1:7000 2>ready & server=$!
         until grep -q listening ready; do :; done
         {program} bench -c 17 -n 10 127.0.0.1:7000; echo \"exit code $?\"
         {program} bench --json --warmup 0 -c 40 -n 400 --source 127.0.0.0/29 127.0.0.1:7000
         {program} bench --json --warmup 0 --mode connect -c 4 -n 500 127.0.0.1:7000
         kill $server"
    );
    let folder = tempfile::tempdir().expect("made");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", &script])
        .current_dir(&folder);
    let output = run(command, b"");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        stderr.contains("1 source address with 16 ports each"),
        "{stderr}"
    );
    assert!(stderr.contains("--source"), "{stderr}");
    let mut lines = stdout.lines();
    assert_eq!(lines.next(), Some("exit code 2"));
    // Six addresses have 96.
    let spread: Value = serde_json::from_str(lines.next().expect("a report")).expect("JSON");
    assert_eq!(spread["messages"], 400, "{stderr}");
    let churn: Value = serde_json::from_str(lines.next().expect("a report")).expect("JSON");
    assert_eq!(
        kinds(&churn, "invalid").first().map(String::as_str),
        Some("ports_exhausted"),
        "{churn}"
    );
}

#[test]
fn a_page_a_file_for_the_plotter_and_a_comparison_are_written() {
    let serving = Serving::start(&[]);
    let folder = tempfile::tempdir().expect("made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (html, hgrm, old) = (path("page.html"), path("p.hgrm"), path("old.json"));
    let output = bench_output(&[
        "-n",
        "500",
        "--html",
        &html,
        "--hgrm",
        &hgrm,
        &serving.address,
    ]);
    std::fs::write(&old, &output.stdout).expect("written");
    let page = std::fs::read_to_string(html).expect("a page");
    assert!(page.contains("<svg") && page.contains(&serving.address));
    let plot = std::fs::read_to_string(&hgrm).expect("a file");
    assert!(plot.contains("Percentile") && plot.contains("#[Mean"));
    let report = bench(&["-n", "500", "--compare", &old, &serving.address]);
    assert!(report["comparison"]["figures"].is_array());
    let not_ours = bench_output(&["-n", "5", "--compare", &hgrm, &serving.address]);
    assert_eq!(not_ours.status.code(), Some(2));
    let nowhere = path("none/page.html");
    let output = bench_output(&["-n", "5", "--html", &nowhere, &serving.address]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn every_field_of_the_report_is_documented() {
    let documented = include_str!("../../../docs/bench.md");
    // On a busy machine the run is invalid, and the exit code 1.
    let arguments = ["--serve", "--rate", "1k", "-d", "600ms"];
    let report = report(&bench_output(
        &[&arguments[..], &["--fail-if", "p50>1h"]].concat(),
    ));
    fn fields(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(all) => {
                for (name, value) in all {
                    into.push(name.clone());
                    // These are documented in events.md.
                    if !name.ends_with("_tcp") && name != "errors" {
                        fields(value, into);
                    }
                }
            }
            Value::Array(all) => all.iter().for_each(|value| fields(value, into)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    fields(&report, &mut names);
    assert!(names.len() > 100);
    for name in names {
        assert!(documented.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn an_http_server_that_closes_without_an_answer_is_not_stormed() {
    let address = server(drop);
    // The first message is due at once, the second never.
    let report = report(&bench_output(&[
        "--mode", "http", "--rate", "1", "-d", "500ms", "-c", "1", &address,
    ]));
    let reopened = report["connections"]["reopened"].as_u64().expect("a count");
    // 10 ms, 20, 40, ... between them.
    assert!(reopened < 20, "{reopened}");
}
