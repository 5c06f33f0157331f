//! Whether `sockeye bench` tells the truth: servers of which it is known beforehand what must come out.
//!
//! These take real time, on a machine that others use too. The bench says when it was disturbed itself, and that is half of
//! what is proven here: a run counts if it calls itself valid, and a run that counts has to be right. They are slow and run
//! one at a time, so they are not among those of a plain `cargo test`.

use std::io;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sockeye::{Conn, Handle, Server, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Two at a time would disturb one another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run that is disturbed so often is no accident.
const ATTEMPTS: usize = 12;

/// Repeats a measurement until it calls itself valid, or late by so little that it cannot matter to what is looked at; with a
/// new server each time.
fn calm_run(most_lag_us: f64, measure: impl Fn() -> Value) -> Value {
    let mut last = Value::Null;
    for _ in 0..ATTEMPTS {
        last = measure();
        let has = |list: &str, kind: fn(&Value) -> bool| {
            last[list]
                .as_array()
                .is_some_and(|all| all.iter().any(kind))
        };
        let paused = has("warnings", |finding| finding["kind"] == "generator_paused");
        let wrong = has("invalid", |finding| finding["kind"] != "generator_late");
        let lag = last["send_lag"]["p99_us"].as_f64();
        let late = last["valid"] != true && lag.is_none_or(|lag| lag > most_lag_us);
        if !paused && !wrong && !late {
            return last;
        }
    }
    panic!("no calm run: {} {}", last["invalid"], last["warnings"]);
}

fn bench(address: &str, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_sockeye"))
        .args(["bench", "--json", address])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("runs");
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn us(report: &Value, what: &str, percentile: &str) -> f64 {
    let value = &report[what][percentile];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{what} {percentile}: {value}"))
}

fn assert_near(got: f64, expected: f64, tolerance: f64, what: &str) {
    let off = (got - expected).abs() / expected;
    assert!(
        off <= tolerance,
        "{what}: {got} instead of {expected}, {:.1} % off",
        100.0 * off
    );
}

/// A server in this process, on a thread of its own.
struct Here {
    address: String,
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Here {
    fn start(service: impl Service) -> Self {
        let server = Server::bind(([127, 0, 0, 1], 0)).expect("bound");
        let address = server.addresses()[0].to_string();
        let handle = server.handle();
        let thread = thread::spawn(move || {
            server.run(NonZeroUsize::MIN, service).expect("served");
        });
        Self {
            address,
            handle,
            thread: Some(thread),
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.handle.abort();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

/// An echo that sleeps once, with all of its connections: it has but one thread.
struct Stalling {
    messages: AtomicU64,
    at: u64,
    stall: Duration,
    /// When the stall was over, and how long it then took to work off what had been waiting: `backlog` messages.
    over: Mutex<Option<Instant>>,
    backlog: u64,
    worked_off: Arc<Mutex<Duration>>,
}

impl Service for Stalling {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let mut message = [0; 64];
        while conn.read_exact(&mut message).await.is_ok() {
            let number = self.messages.fetch_add(1, Ordering::Relaxed);
            if number == self.at {
                thread::sleep(self.stall);
                *self.over.lock().expect("no panic") = Some(Instant::now());
            }
            if number == self.at + self.backlog
                && let Some(over) = *self.over.lock().expect("no panic")
            {
                *self.worked_off.lock().expect("no panic") = over.elapsed();
            }
            conn.write_all(&message).await?;
        }
        Ok(())
    }
}

#[test]
#[ignore = "needs a quiet machine for some seconds"]
fn a_stall_of_two_seconds_gives_the_percentiles_that_arithmetic_says() {
    let _alone = alone();
    const STALL: f64 = 2.0;
    const SECONDS: f64 = 10.0;
    let worked_off = Arc::new(Mutex::new(Duration::ZERO));
    // Of the times that are looked at the shortest is a second.
    let report = calm_run(2_000.0, || {
        let server = Here::start(Stalling {
            messages: AtomicU64::new(0),
            // Within the measured time, after a warm-up of half a second.
            at: 500,
            stall: Duration::from_secs_f64(STALL),
            over: Mutex::default(),
            backlog: (200.0 * STALL) as u64,
            worked_off: Arc::clone(&worked_off),
        });
        let arguments = ["--rate", "200", "-d", "10s", "--warmup", "500ms", "-c", "8"];
        bench(&server.address, &arguments)
    });
    assert_eq!(report["latency"]["count"], 2_000);
    // Whoever came at the beginning of the stall waited for all of it, whoever came at its end only until those before were
    // served: so many waited longer than a time as had come in the rest of it.
    let worked_off = worked_off.lock().expect("no panic").as_secs_f64();
    for (percentile, share) in [("p90_us", 0.90), ("p95_us", 0.95), ("p99_us", 0.99)] {
        let came = (1.0 - share) * SECONDS;
        let expected = STALL - came + worked_off * came / STALL;
        assert_near(
            us(&report, "latency", percentile),
            expected * 1e6,
            0.02,
            percentile,
        );
    }
    assert_near(us(&report, "latency", "max_us"), STALL * 1e6, 0.02, "max");
    // Outside of the stall nothing of it is seen.
    assert!(us(&report, "latency", "p50_us") < 10_000.0);
    // The time in service hides it: one message of each connection has met it.
    assert!(us(&report, "service", "p99_us") < 100_000.0);
}

#[test]
#[ignore = "needs a quiet machine for some seconds"]
fn a_closed_loop_under_a_server_that_stalls_says_that_it_hides_it() {
    let _alone = alone();
    let server = Here::start(Stalling {
        messages: AtomicU64::new(0),
        at: 2_000,
        stall: Duration::from_secs(1),
        over: Mutex::default(),
        backlog: 8,
        worked_off: Arc::default(),
    });
    let report = bench(&server.address, &["-d", "3s", "--warmup", "0", "-c", "8"]);
    let invalid = report["invalid"].as_array().expect("a list");
    let kinds: Vec<&str> = invalid
        .iter()
        .filter_map(|finding| finding["kind"].as_str())
        .collect();
    assert!(kinds.contains(&"closed_loop_stall"), "{kinds:?}");
    assert!(us(&report, "latency", "p99_us") < 100_000.0);
}

/// Answers after a time that depends on the message's number, and notes how long it really took.
struct Timed {
    messages: AtomicU64,
    took_us: Arc<Mutex<Vec<f64>>>,
}

impl Service for Timed {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let mut message = [0; 64];
        while conn.read_exact(&mut message).await.is_ok() {
            let began = Instant::now();
            let number = self.messages.fetch_add(1, Ordering::Relaxed);
            // 10 to 110 ms, without an order.
            let ms = 10 + number * 37 % 101;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            conn.write_all(&message).await?;
            let took = began.elapsed().as_secs_f64() * 1e6;
            self.took_us.lock().expect("no panic").push(took);
        }
        Ok(())
    }
}

#[test]
#[ignore = "needs a quiet machine for some seconds"]
fn a_known_distribution_of_service_times_is_reproduced() {
    let _alone = alone();
    let took_us = Arc::new(Mutex::new(Vec::new()));
    // Of those here it is 10 ms.
    let report = calm_run(100.0, || {
        took_us.lock().expect("no panic").clear();
        let server = Here::start(Timed {
            messages: AtomicU64::new(0),
            took_us: Arc::clone(&took_us),
        });
        // 3,200 connections' worth of time for 400 messages a second: none waits for its connection.
        let arguments = ["--rate", "400", "-d", "4s", "--warmup", "0", "-c", "128"];
        bench(&server.address, &arguments)
    });
    let mut took = took_us.lock().expect("no panic").clone();
    took.sort_by(f64::total_cmp);
    assert_eq!(report["latency"]["count"], took.len());
    let at = |share: f64| took[(took.len() as f64 * share).ceil() as usize - 1];
    for (percentile, share) in [
        ("p50_us", 0.5),
        ("p75_us", 0.75),
        ("p90_us", 0.9),
        ("p99_us", 0.99),
    ] {
        for what in ["latency", "service"] {
            assert_near(us(&report, what, percentile), at(share), 0.02, percentile);
        }
    }
    let mean = took.iter().sum::<f64>() / took.len() as f64;
    assert_near(us(&report, "latency", "mean_us"), mean, 0.02, "mean");
}

#[test]
#[ignore = "needs a quiet machine for some seconds"]
fn a_hundred_thousand_a_second_are_sent_in_time_or_the_run_says_that_it_was_late() {
    let _alone = alone();
    let server = Here::start(sockeye::services::echo());
    let report = bench(
        &server.address,
        &["--rate", "100k", "-d", "2s", "--threads", "1", "-c", "64"],
    );
    let lag = us(&report, "send_lag", "p99_us");
    let invalid = report["invalid"].as_array().expect("a list");
    let says_so = invalid
        .iter()
        .any(|finding| finding["kind"] == "generator_late");
    let median = us(&report, "latency", "p50_us");
    assert_eq!(
        says_so,
        lag > f64::max(100.0, 0.1 * median),
        "lag {lag} µs, {invalid:?}"
    );
    // Those that had no chance to be sent count as well.
    assert_eq!(report["latency"]["count"], 200_000);
}
