//! Many clients at once, and a shutdown in the midst of them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use rustix::process::Signal;

use crate::support::{Serving, line_with};

#[test]
fn two_thousand_clients_at_once_are_all_served_and_hold_no_buffer() {
    const CLIENTS: usize = 2_000;
    sockeye::raise_descriptor_limit().expect("raised");
    let serving = Serving::start(&[]);
    // The buffers that a thread has once are there when it has served once.
    exchange(&mut serving.connect(), 0);
    let before = resident_bytes(&serving);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| serving.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client
            .write_all(format!("{number:08}").as_bytes())
            .expect("sent");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let mut answer = [0; 8];
        client.read_exact(&mut answer).expect("answered");
        assert_eq!(&answer, format!("{number:08}").as_bytes());
    }
    // Invariant 4: the smallest of buffers, for each of them, would show.
    let each = resident_bytes(&serving).saturating_sub(before) / CLIENTS;
    assert!(each < 4_096, "{each} bytes for each idle connection");
    serving.signal(Signal::USR1);
    let counters = line_with(&serving.stderr, "open");
    assert!(
        counters.contains("2000 open, 2001 accepted, 0 refused"),
        "{counters}"
    );
    drop(clients);
    assert_eq!(serving.stop(), 0);
}

#[test]
fn one_byte_at_a_time_is_a_stream_like_any_other() {
    let serving = Serving::start(&[]);
    let client = serving.connect();
    client.set_nodelay(true).expect("set");
    let mut sender = client.try_clone().expect("cloned");
    let sending = thread::spawn(move || {
        for byte in 0..20_000_u32 {
            sender.write_all(&[byte as u8]).expect("sent");
        }
        sender.shutdown(Shutdown::Write).expect("FIN");
    });
    let mut back = Vec::new();
    (&client).read_to_end(&mut back).expect("read");
    sending.join().expect("no panic");
    let expected: Vec<u8> = (0..20_000_u32).map(|byte| byte as u8).collect();
    assert!(back == expected);
}

/// Every client sends a message and reads its echo, over and over, until it has been told to finish; the server is
/// terminated in the midst of it. Whoever finishes within the drain loses nothing.
#[test]
fn term_under_load_loses_no_answer_that_can_finish_in_time() {
    const CLIENTS: usize = 50;
    let serving = Serving::start(&["--drain", "20s"]);
    let talking: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = serving.connect();
            // In before the signal: each is served once.
            exchange(&mut client, 0);
            thread::spawn(move || {
                for round in 1..2_000_u32 {
                    exchange(&mut client, round);
                }
                client.shutdown(Shutdown::Write).expect("FIN");
                assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
            })
        })
        .collect();
    serving.signal(Signal::TERM);
    line_with(&serving.stderr, "draining");
    let refused = TcpStream::connect(serving.socket_address());
    for client in talking {
        client.join().expect("nothing lost");
    }
    drop(refused);
    line_with(&serving.stderr, ", 0 cut");
    assert_eq!(serving.wait(), 0);
}

fn exchange(client: &mut TcpStream, round: u32) {
    client.write_all(&round.to_be_bytes()).expect("sent");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("answered");
    assert_eq!(answer, round.to_be_bytes());
}

/// A client that sends and never reads stalls itself, costs a bounded amount of memory, and nobody else anything.
#[test]
fn a_client_that_never_reads_stalls_nobody_and_costs_little() {
    let serving = Serving::start(&["--workers", "1"]);
    let before = resident_bytes(&serving);
    let greedy: Vec<TcpStream> = (0..20)
        .map(|_| {
            let client = serving.connect();
            client.set_nonblocking(true).expect("set");
            client
        })
        .collect();
    let chunk = vec![1; 1 << 20];
    let mut other = serving.connect();
    // They send all that is taken, and in between another client is served as ever.
    for round in 0..200 {
        for mut client in &greedy {
            // Full is what it is to become.
            let _ = client.write(&chunk);
        }
        exchange(&mut other, round);
    }
    let grown = resident_bytes(&serving).saturating_sub(before);
    // One hot buffer's worth for each, and as much again for the allocator.
    assert!(grown < 20 * 2 * 64 * 1024 + 1_000_000, "{grown} bytes");
    drop(greedy);
    drop(other);
    assert_eq!(serving.stop(), 0);
}

fn resident_bytes(serving: &Serving) -> usize {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", serving.pid().as_raw_nonzero()));
    let status = status.expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    kib.expect("a line").parse::<usize>().expect("a number") * 1024
}
