//! Conversations: what is sent, and how a script ends.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::*;

/// A peer whose bytes come in these pieces, and then its end.
struct Pieces {
    come: VecDeque<Vec<u8>>,
    ends_with: Option<io::ErrorKind>,
    sent: Vec<u8>,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match (self.come.pop_front(), self.ends_with) {
            (Some(piece), _) => buffer.put_slice(&piece),
            (None, Some(error)) => return Poll::Ready(Err(error.into())),
            (None, None) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Not all at once, as a socket may.
        let taken = bytes.len().min(7);
        self.sent.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn script(text: &str) -> Script {
    Script {
        name: "test.script".to_owned(),
        steps: parse(text.as_bytes()).expect(text),
        files: BTreeMap::new(),
        source: Vec::new(),
    }
}

/// What was sent, and how the script ended.
pub(super) fn talk(text: &str, pieces: &[&[u8]]) -> (String, Result<Last, Failed>) {
    talk_until(text, pieces, None)
}

fn talk_until(
    text: &str,
    pieces: &[&[u8]],
    ends_with: Option<io::ErrorKind>,
) -> (String, Result<Last, Failed>) {
    let mut peer = Pieces {
        come: pieces.iter().map(|piece| piece.to_vec()).collect(),
        ends_with,
        sent: Vec::new(),
    };
    let ended = runtime().block_on(run(&script(text), &mut peer, Cut::Fails, |_| ()));
    (peer.sent.escape_ascii().to_string(), ended)
}

/// What is said of a failure.
fn failure(text: &str, pieces: &[&[u8]]) -> String {
    talk(text, pieces).1.expect_err("fails").to_string()
}

/// A script, what comes, and what is said of it.
const FAILURES: [(&str, &[&[u8]], &str); 14] = [
    (
        "delay 1ms\nexpect \"QUIT\"",
        &[b"QUI\r\nx"],
        "test.script:2: expected \"QUIT\", and \"QUI\\r\\nx\" came",
    ),
    (
        "expect \"QUIT\"",
        &[b"QU"],
        "test.script:1: expected \"QUIT\", and the peer closed after \"QU\"",
    ),
    (
        "expect line /a.c/",
        &[b"\x1b[2J\xff\n"],
        "test.script:1: expected line /a.c/, and \"\\x1b[2J\\xff\\n\" came",
    ),
    (
        "expect hex 0d0a",
        &[],
        "test.script:1: expected hex 0d0a, and the peer closed",
    ),
    (
        "on \"a\" close\non line /b/ close\non close close",
        &[b"c\n"],
        "test.script:1: expected \"a\", line /b/ or close, and \"c\\n\" came",
    ),
    (
        "expect close",
        &[b"more"],
        "test.script:1: expected close, and \"more\" came",
    ),
    (
        "expect nothing for 1m",
        &[b"a"],
        "test.script:1: expected nothing for 1m, and \"a\" came",
    ),
    (
        "expect nothing for 1m",
        &[],
        "test.script:1: expected nothing for 1m, and the peer closed",
    ),
    (
        "expect 5 bytes",
        &[b"ab", b"c"],
        "test.script:1: expected 5 bytes, and the peer closed after \"abc\"",
    ),
    (
        "expect line /(?<a>.*)/\nexpect \"<{a}>\"",
        &[b"x\n<y>"],
        "test.script:2: expected \"<x>\", and \"<y>\" came",
    ),
    (
        "on line /(?<a>a)/ delay 1ms\non line delay 1ms\nsend \"{a}\"",
        &[b"b\n"],
        "test.script:3: nothing is captured as {a} yet",
    ),
    (
        "expect line /(?<a>.*)/\nexpect \"{a}\"",
        &[b"\n"],
        "test.script:2: of its captures nothing is left to expect",
    ),
    (
        "on line shutdown\nsend \"a\"",
        &[b"\n"],
        "test.script:2: cannot send after 'shutdown'",
    ),
    (
        "loop\n  expect \"ab\"",
        &[b"ab", b"a"],
        "test.script:2: expected \"ab\", and the peer closed after \"a\"",
    ),
];

#[test]
fn a_failure_says_where_and_what_came_instead() {
    for (script, pieces, expected) in FAILURES {
        assert_eq!(failure(script, pieces), expected);
    }
}

#[test]
fn a_failure_after_many_bytes_shows_few_of_them() {
    let right = "a".repeat(1000);
    let said = failure(&format!("expect \"{right}b\""), &[right.as_bytes(), b"XY"]);
    assert!(
        said.ends_with("..., and \"XY\" came after 1000 bytes that are right"),
        "{said}"
    );
    assert!(said.len() < 400, "{said}");
    let said = failure("expect line", &[&[b'a'; HELD_BYTES]]);
    assert!(
        said.starts_with("test.script:1: expected line, and 65536 bytes came without it, \"aaa"),
        "{said}"
    );
    assert!(said.len() < 200, "{said}");
}

#[test]
fn the_deadline_is_that_of_the_block_and_its_failure_says_what_came() {
    let slow = "timeout 10ms\nloop 1\n  timeout 1h\n  expect \"a\"\nexpect \"bc\"";
    let (mut ours, _theirs) = silent_after(b"ab");
    let ended = runtime().block_on(run(&script(slow), &mut ours, Cut::Fails, |_| ()));
    let failed = ended.expect_err("nothing more comes");
    assert_eq!(
        failed.to_string(),
        "test.script:5: expected \"bc\" within 10ms, and only \"b\" came"
    );
    assert_eq!(failed.cause.kind(), Kind::Answer);
    let (mut ours, _theirs) = silent_after(b"a");
    let said = runtime().block_on(run(&script(slow), &mut ours, Cut::Fails, |_| ()));
    let said = said.expect_err("nothing more comes").to_string();
    assert!(said.ends_with("within 10ms, and nothing came"), "{said}");
    // Each round begins as the first one.
    let rounds = "timeout 10ms\nloop 2\n  expect \"a\"\n  timeout 20s";
    let (mut ours, _theirs) = silent_after(b"a");
    let said = runtime().block_on(run(&script(rounds), &mut ours, Cut::Fails, |_| ()));
    let said = said.expect_err("nothing more comes").to_string();
    assert!(said.ends_with("within 10ms, and nothing came"), "{said}");
}

#[test]
fn a_peer_that_takes_nothing_is_not_waited_for_without_end() {
    let (mut ours, _theirs) = silent_after(b"");
    let long = format!("timeout 10ms\nsend \"{}\"", "a".repeat(2000));
    let ended = runtime().block_on(run(&script(&long), &mut ours, Cut::Fails, |_| ()));
    let failed = ended.expect_err("there is room for 1024 bytes");
    assert_eq!(failed.cause.kind(), Kind::Timeout);
    assert_eq!(
        failed.to_string(),
        "test.script:2: the peer takes nothing of what is to be sent for 10ms"
    );
}

/// Takes all that is written at once, as TLS does, and lets a byte of it go each time that somebody asks.
struct Slow {
    held: u64,
    sent: u64,
}

impl AsyncRead for Slow {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.held += bytes.len() as u64;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sent == self.held {
            return Poll::Ready(Ok(()));
        }
        self.sent += 1;
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Wire for Slow {
    fn sent(&self) -> u64 {
        self.sent
    }
}

impl Wire for Pieces {
    fn sent(&self) -> u64 {
        0
    }
}

impl Wire for DuplexStream {
    fn sent(&self) -> u64 {
        0
    }
}

#[test]
fn a_peer_that_takes_a_little_at_a_time_is_waited_for() {
    let mut slow = Slow { held: 0, sent: 0 };
    let text = script("timeout 10ms\nsend \"many bytes\"");
    let ended = runtime().block_on(run(&text, &mut slow, Cut::Fails, |_| ()));
    assert_eq!((ended.ok(), slow.sent), (Some(Last::Close), 10));
}

#[test]
fn nothing_is_found_to_come_after_its_time() {
    let (mut ours, _theirs) = silent_after(b"a");
    let text = "expect \"a\"\nexpect nothing for 10ms\ndelay 1ms\nreset";
    let ended = runtime().block_on(run(&script(text), &mut ours, Cut::Fails, |_| ()));
    assert_eq!(ended.ok(), Some(Last::Reset));
}

#[test]
fn a_loop_ends_when_the_peer_closes_or_its_rounds_are_over() {
    let (sent, ended) = talk(
        "loop\n  expect \"a\"\n  send \"b\"\nsend \"c\"",
        &[b"aa", b"a"],
    );
    assert_eq!((sent.as_str(), ended.ok()), ("bbbc", Some(Last::Close)));
    let (sent, ended) = talk(
        "loop 2\n  expect \"a\"\n  send \"b\"\nsend \"c\"",
        &[b"aaa"],
    );
    assert_eq!((sent.as_str(), ended.ok()), ("bbc", Some(Last::Close)));
    assert_eq!(
        failure("loop 2\n  expect \"a\"", &[b"a"]),
        "test.script:2: expected \"a\", and the peer closed"
    );
    // The outer loop would go round for ever.
    let nested = "loop\n  loop\n    expect \"a\"\n    send \"b\"\nsend \"c\"";
    let (sent, ended) = talk(nested, &[b"aa"]);
    assert_eq!((sent.as_str(), ended.ok()), ("bbc", Some(Last::Close)));
    // Who sends first in a round sends nothing to a peer that has closed.
    let sends_first = "loop\n  send \"a\"\n  expect \"b\"\nsend \"c\"";
    for (come, all) in [
        (&[][..], "c"),
        (&[&b"b"[..]], "ac"),
        (&[b"bb"], "aac"),
        (&[b"b", b"b"], "aac"),
    ] {
        let (sent, ended) = talk(sends_first, come);
        assert_eq!((sent.as_str(), ended.ok()), (all, Some(Last::Close)));
    }
    // A reset is no close.
    let reset = Some(io::ErrorKind::ConnectionReset);
    let (sent, ended) = talk_until(sends_first, &[b"b"], reset);
    assert_eq!(sent, "aa");
    let failed = ended.expect_err("reset");
    assert_eq!((failed.line, failed.cause.kind()), (3, Kind::Network));
    // An end that is asked for is not the loop's.
    let (sent, _) = talk(
        "loop\n  on close\n    send \"end\"\n    close\n  on \"a\" send \"b\"",
        &[b"a"],
    );
    assert_eq!(sent, "bend");
}

#[test]
fn break_ends_the_loop_and_continue_its_round() {
    let text = "loop
  on line /end/ break
  on line /skip/ continue
  on line
    on \"!\" continue
    on \".\" send \"dot \"
  send \"round \"
send \"over\"";
    let (sent, ended) = talk(text, &[b"a\n.skip\nb\n!c\n.end\nrest"]);
    assert_eq!(sent, "dot round dot round over");
    assert_eq!(ended.ok(), Some(Last::Close));
}

#[test]
fn what_is_captured_is_sent_byte_by_byte() {
    let text = r#"expect line /(?<a>.*)-(?<b>x)?(?<c>[^-]+)/
send "{c}{b}{a} \{a} {not a name} {1}"
"#;
    let (sent, ended) = talk(text, &[b"\xff\x00-y\r\n"]);
    assert_eq!(sent, "y\\xff\\x00 {a} {not a name} {1}");
    assert_eq!(ended.ok(), Some(Last::Close));
}

#[test]
fn the_first_branch_in_the_script_that_fits_is_taken() {
    let text =
        "on \"ab\" send \"1\"\non \"a\" send \"2\"\non 1 byte send \"3\"\non close send \"4\"";
    let taken = |stream: &[&[u8]]| talk(text, stream).0;
    assert_eq!(taken(&[b"a", b"b"]), "1");
    assert_eq!(taken(&[b"a", b"c"]), "2");
    assert_eq!(taken(&[b"a"]), "2");
    assert_eq!(taken(&[b"x"]), "3");
    assert_eq!(taken(&[]), "4");
}

#[test]
fn a_reset_is_a_failure_unless_it_is_expected() {
    let reset = Some(io::ErrorKind::ConnectionReset);
    let (_, ended) = talk_until("expect \"ab\"", &[b"a"], reset);
    let failed = ended.expect_err("reset");
    assert_eq!(failed.cause.kind(), Kind::Network);
    assert_eq!(
        failed.to_string(),
        "test.script:1: expected \"ab\", and the peer reset the connection after \"a\""
    );
    let (_, ended) = talk_until("expect \"a\"\nexpect reset\nreset", &[b"a"], reset);
    assert_eq!(ended.ok(), Some(Last::Reset));
    let (_, ended) = talk_until("expect close", &[], reset);
    assert!(ended.is_err(), "a reset is no close");
    let (_, ended) = talk("expect reset", &[]);
    assert!(ended.is_err(), "a close is no reset");
    // TLS that was cut is neither.
    let cut = Some(io::ErrorKind::UnexpectedEof);
    let failed = talk_until("loop\n  expect line", &[], cut).1;
    assert_eq!(failed.expect_err("cut").cause.kind(), Kind::Network);
}

/// A stream on which this comes and then nothing, and its other end.
fn silent_after(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    runtime()
        .block_on(theirs.write_all(bytes))
        .expect("there is room");
    (ours, theirs)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}
