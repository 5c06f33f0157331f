//! What a script may be, what it must not, and each conversation in many cuts.

use std::path::Path;

use proptest::prelude::*;

#[path = "../../../fuzz/checks/script.rs"]
mod check;
mod talks;

use self::check::{check, of_long_stream, written};
use self::talks::talk;
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
