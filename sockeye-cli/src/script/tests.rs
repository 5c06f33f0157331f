//! What a script may be, what it must not, and each conversation in many cuts.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

#[path = "../../../fuzz/checks/script.rs"]
mod check;

use self::check::{check, of_long_stream, written};
use super::error::Problem;
use super::failed::Kind;
use super::*;

#[test]
fn every_file_of_the_corpus_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/script");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        let file = entry.expect("can be listed").path();
        // Shown only if the check fails.
        println!("{}", file.display());
        check(&std::fs::read(&file).expect("can be read"));
        files += 1;
    }
    assert!(files > 0, "an empty corpus");
}

#[test]
fn every_statement_is_written_as_it_is_read() {
    let script = r#"timeout 1m30s
send "a\r\n\t\x00\\\"\{x}\xff"
send hex 00ff0a
send file "hello {you}.bin"
expect "a"
expect line
expect line /(?<name>a\/#"b)/
expect until "\r\n{name}"
expect 16 bytes
expect nothing for 200ms
loop 3
  on "x"
    continue
  on close
    loop
      expect 1 bytes
      break
  on reset
    reset
delay 1ms
shutdown
expect reset
close
"#;
    let steps = parse(script.as_bytes()).expect("a script");
    assert_eq!(written(&steps), script);
    // The short forms are the same.
    let short = script
        .replace("on \"x\"\n    continue", "on \"x\" continue  # short")
        .replace("\\x00", "\\0")
        .replace("00ff0a", "00 FF0a")
        .replace("1 bytes", "1 byte")
        .replace('\n', "\r\n\r\n  # a comment\r\n");
    assert_eq!(parse(short.as_bytes()), Ok(steps));
}

/// The line, the column and the problem.
fn problem(script: &str) -> (usize, usize, Problem) {
    let error = parse(script.as_bytes()).expect_err(script);
    (error.line, error.column, error.problem)
}

#[test]
fn an_error_points_at_what_is_wrong() {
    let word = |word: &str| word.to_owned();
    let cases = [
        ("", (1, 1, Problem::Empty)),
        ("# only\n\n", (1, 1, Problem::Empty)),
        (
            "\nexpct \"a\"",
            (2, 1, Problem::UnknownStatement(word("expct"))),
        ),
        (
            "on \"a\"\n  sned \"b\"",
            (2, 3, Problem::UnknownStatement(word("sned"))),
        ),
        ("close it", (1, 7, Problem::Trailing(word("it")))),
        ("send \"a", (1, 6, Problem::UnclosedText)),
        ("send \"\u{fc}\\q\"", (1, 8, Problem::UnknownEscape('q'))),
        ("send \"\\x0g\"", (1, 7, Problem::BadHexEscape)),
        ("send \"\"", (1, 6, Problem::EmptyText)),
        ("send hex 0d0", (1, 10, Problem::OddHex)),
        ("send \"{a}\"", (1, 6, Problem::UnknownCapture(word("a")))),
        ("expect /a/", (1, 8, Problem::BareExpression)),
        ("expect line /a", (1, 13, Problem::UnclosedExpression)),
        ("loop 0\n  close", (1, 6, Problem::BadRounds(word("0")))),
        ("loop\nclose", (1, 5, Problem::NoBlock)),
        ("on \"a\"\nclose", (1, 7, Problem::NoBlock)),
        ("loop\n  send \"a\"", (1, 1, Problem::EndlessLoop)),
        (
            "on \"a\"\n  loop\n    send \"a\"",
            (2, 3, Problem::EndlessLoop),
        ),
        ("  close", (1, 3, Problem::Indented)),
        ("loop 2\n\tclose", (2, 1, Problem::Tab)),
        (
            "loop 2\n    delay 1s\n  delay 1s",
            (3, 3, Problem::Indented),
        ),
        ("on \"a\" loop 3", (1, 8, Problem::NeedsBlock("loop"))),
        ("break", (1, 1, Problem::NoLoop("break"))),
        ("reset\nclose", (2, 1, Problem::Unreachable("reset"))),
        (
            "shutdown\ndelay 1s\nsend \"a\"",
            (3, 1, Problem::SendAfterShutdown),
        ),
    ];
    for (script, expected) in cases {
        assert_eq!(problem(script), expected, "{script}");
    }
    let bad = problem("expect line /(/").2;
    assert!(matches!(bad, Problem::BadExpression(why) if why == "unclosed group"));
    let (1, 7, bad) = problem("delay 5x") else {
        panic!("elsewhere");
    };
    assert!(matches!(bad, Problem::BadTime { word, .. } if word == "5x"));
    let error = parse(b"send \"a\"\n  x \xff").expect_err("not text");
    assert_eq!(
        (error.line, error.column, error.problem),
        (2, 5, Problem::NotUtf8)
    );
}

#[test]
fn a_script_is_bounded() {
    let large = "#".repeat(SCRIPT_BYTES + 1);
    assert_eq!(problem(&large).2, Problem::TooLarge(SCRIPT_BYTES));
    let many = "delay 1s\n".repeat(1001);
    assert_eq!(problem(&many).2, Problem::TooManySteps(1000));
    let deep: String = (0..18)
        .map(|depth| format!("{:depth$}loop 2\n", ""))
        .collect();
    assert_eq!(problem(&deep).2, Problem::TooDeep(16));
    let captures: String = (0..33)
        .map(|number| format!("expect line /(?<n{number}>.)/\n"))
        .collect();
    assert_eq!(problem(&captures).2, Problem::TooManyCaptures(32));
    let (.., compiled) = problem("expect line /((.{1000}){1000}){10}/");
    assert!(matches!(compiled, Problem::BadExpression(why) if why.contains("size")));
}

#[test]
fn what_is_looked_at_at_once_is_bounded() {
    let line = [vec![b'a'; HELD_BYTES - 1], b"\n".to_vec()].concat();
    assert_eq!(of_long_stream("expect line", &line), Ok(HELD_BYTES));
    let longer = [b"a", &line[..]].concat();
    assert_eq!(
        of_long_stream("expect line", &longer),
        Err(Mismatch::TooLong)
    );
    let choice = "on until \"b\" close\non 1 byte close";
    assert_eq!(
        of_long_stream(choice, &longer),
        Ok(1),
        "the first has failed"
    );
    let choice = "on until \"b\" close\non \"b\" close";
    assert_eq!(of_long_stream(choice, &longer), Err(Mismatch::TooLong));
    // Alone these are of any length.
    let long = vec![b'a'; 3 * HELD_BYTES];
    let bytes = format!("expect {} bytes", 3 * HELD_BYTES);
    assert_eq!(of_long_stream(&bytes, &long), Ok(3 * HELD_BYTES));
    assert_eq!(
        of_long_stream("expect until \"b\"", &long),
        Err(Mismatch::Ended)
    );
    let exactly = format!("expect \"{}\"", "a".repeat(HELD_BYTES + 2));
    assert_eq!(of_long_stream(&exactly, &long), Ok(HELD_BYTES + 2));
}

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
fn talk(text: &str, pieces: &[&[u8]]) -> (String, Result<Last, Failed>) {
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

/// Lines that make a script more often than not.
fn some_script() -> impl Strategy<Value = String> {
    let line = prop::sample::select(
        &[
            "loop",
            "loop 2",
            "on line",
            "on \"a\"",
            "on until \"b\\n\"",
            "on 2 bytes",
            "on close",
            "on \"ab\" send \"1\"",
            "on line /a(?<x>.*)/ continue",
            "on line /b*/ break",
            "on reset close",
            "expect line",
            "expect \"ab\"",
            "expect until \"\\n\"",
            "expect 3 bytes",
            "expect close",
            "expect line /(?i)[ab]+/",
            "expect hex 61",
            "send \"x{x}\"",
            "send \"y\"",
            "shutdown",
            "close",
            "# a comment",
            "timeout 5s",
            "expect nothing for 1s",
            "break",
            "continue",
            "reset",
            "on",
            "send \"\\q\"",
        ][..],
    );
    let indented =
        (0..4_usize, line).prop_map(|(depth, line)| format!("{:1$}{line}\n", "", 2 * depth));
    prop::collection::vec(indented, 0..8).prop_map(|lines| lines.concat())
}

fn some_stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"aabb\r\n\n\xff"[..]), 0..24)
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_with_a_place(data in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&data);
    }

    #[test]
    fn what_is_read_is_written_the_same_and_matched_the_same_for_every_cut(
        script in some_script(),
        stream in some_stream(),
    ) {
        check(&[script.as_bytes(), b"\0", &stream].concat());
    }

    #[test]
    fn a_conversation_is_the_same_for_every_cut(
        more in some_script(),
        stream in some_stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        // No time passes for this peer: only what comes decides.
        let mut more: Vec<&str> = more.lines().filter(|line| !line.contains("nothing")).collect();
        let text = loop {
            let more_text = more.join("\n");
            let text = format!("loop\n  on line /end/ break\n  on line /b*/\n    send \"b\"\n{more_text}\n");
            if parse(text.as_bytes()).is_ok() {
                break text;
            }
            more.pop().expect("without more it is a script");
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts
            .windows(2)
            .map(|pair| &stream[pair[0]..pair[1]])
            .filter(|piece| !piece.is_empty())
            .collect();
        let whole: &[&[u8]] = if stream.is_empty() { &[] } else { &[&stream] };
        let how = |ended: Result<Last, Failed>| {
            ended.map_err(|failed| (failed.line, failed.cause.kind()))
        };
        let (sent, ended) = talk(&text, whole);
        let (sent_in_pieces, ended_in_pieces) = talk(&text, &pieces);
        prop_assert_eq!(sent_in_pieces, sent);
        prop_assert_eq!(how(ended_in_pieces), how(ended));
    }
}
