//! A script is read, or refused with a place in it; written and read again it is the same; and what it expects is found
//! where one would find it by hand, however the stream is cut.

use std::borrow::Cow;

use crate::script::{
    Action, Data, Goal, HELD_BYTES, Held, Matcher, Mismatch, Part, Pattern, Rest, SCRIPT_BYTES,
    Search, Statement, Step, Verdict, parse,
};

/// Two parts, with a NUL byte between them: the script, and what a peer sends.
pub(crate) fn check(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let script = parts.next().unwrap_or_default();
    let stream = parts.next().unwrap_or_default();
    let steps = match parse(script) {
        Ok(steps) => steps,
        Err(error) => {
            let lines = script.split(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&error.line), "{error}");
            assert!((1..=error.text.chars().count() + 1).contains(&error.column));
            return;
        }
    };
    let written = written(&steps);
    // Bytes that are no text take more when they are written.
    if written.len() <= SCRIPT_BYTES {
        let again = parse(written.as_bytes()).unwrap_or_else(|error| panic!("{error}: {written}"));
        assert_eq!(again, steps);
    }
    expectations(&steps, &mut |patterns| check_matches(patterns, stream));
}

/// A script as one would write it, without comments.
pub(crate) fn written(steps: &[Step]) -> String {
    let mut script = String::new();
    write_block(&mut script, steps, 0);
    script
}

fn write_block(script: &mut String, steps: &[Step], depth: usize) {
    let indent = "  ".repeat(depth);
    for step in steps {
        match &step.action {
            Action::Choose(branches) => {
                for branch in branches {
                    *script += &format!("{indent}on {}\n", branch.pattern);
                    write_block(script, &branch.body, depth + 1);
                }
            }
            Action::Loop { rounds, body } => {
                let rounds = rounds.map_or_else(String::new, |rounds| format!(" {rounds}"));
                *script += &format!("{indent}loop{rounds}\n");
                write_block(script, body, depth + 1);
            }
            action => *script += &format!("{indent}{}\n", Statement(action)),
        }
    }
}

/// All that is expected at once, wherever in a script.
fn expectations<'a>(steps: &'a [Step], each: &mut impl FnMut(&[&'a Pattern])) {
    for step in steps {
        match &step.action {
            Action::Expect(pattern) => each(&[pattern]),
            Action::Loop { body, .. } => expectations(body, each),
            Action::Choose(branches) => {
                let patterns: Vec<&Pattern> =
                    branches.iter().map(|branch| &branch.pattern).collect();
                each(&patterns);
                for branch in branches {
                    expectations(&branch.body, each);
                }
            }
            _ => {}
        }
    }
}

fn check_matches(patterns: &[&Pattern], stream: &[u8]) {
    for rest in [Rest::Closed, Rest::Reset] {
        let whole = outcome(patterns, stream, rest, &[usize::MAX]);
        if stream.len() < HELD_BYTES {
            let by_hand = patterns
                .iter()
                .map(|pattern| by_hand(pattern, stream, rest));
            let first = by_hand
                .enumerate()
                .find_map(|(which, end)| Some((which, end?)));
            match (&whole, first) {
                ((Verdict::Matched { which, .. }, end), Some(first)) => {
                    assert_eq!((*which, *end), first, "{patterns:?}");
                }
                ((Verdict::Failed(_), _), None) => {}
                other => panic!("{patterns:?}: {other:?}"),
            }
        }
        assert_eq!(at_once(patterns, stream, rest), whole);
        for pieces in [&[1][..], &[2, 3, 5], &pieces_of(stream)] {
            assert_eq!(outcome(patterns, stream, rest, pieces), whole);
        }
    }
}

/// What comes of a stream in pieces of these sizes, and where it stands then, if something was found.
fn outcome(patterns: &[&Pattern], stream: &[u8], rest: Rest, pieces: &[usize]) -> (Verdict, usize) {
    let mut matcher = Matcher::new(patterns.iter().map(|pattern| goal(pattern)));
    let (mut held, mut at) = (Held::default(), 0);
    for size in pieces.iter().cycle() {
        let verdict = matcher.look(&mut held, Rest::Open);
        if verdict != Verdict::Undecided {
            return decided(verdict, &matcher, &held, at);
        }
        if at == stream.len() {
            break;
        }
        let piece = &stream[at..][..(*size).min(stream.len() - at)];
        held.push(piece);
        at += piece.len();
    }
    let verdict = matcher.look(&mut held, rest);
    assert_ne!(verdict, Verdict::Undecided, "the stream has ended");
    decided(verdict, &matcher, &held, at)
}

/// The same for a stream of which the end is known from the beginning.
fn at_once(patterns: &[&Pattern], stream: &[u8], rest: Rest) -> (Verdict, usize) {
    let mut matcher = Matcher::new(patterns.iter().map(|pattern| goal(pattern)));
    let mut held = Held::default();
    held.push(stream);
    let verdict = matcher.look(&mut held, rest);
    decided(verdict, &matcher, &held, stream.len())
}

fn decided(
    verdict: Verdict,
    matcher: &Matcher<'_>,
    held: &Held,
    pushed: usize,
) -> (Verdict, usize) {
    let consumed = usize::try_from(matcher.consumed()).expect("of this stream");
    assert_eq!(consumed + held.bytes().len(), pushed);
    assert!(matcher.begun().len() <= consumed);
    match verdict {
        Verdict::Matched { .. } => (verdict, consumed),
        // What was wrong is decided; how much of what was right was looked at before is not.
        _ => (verdict, 0),
    }
}

fn goal(pattern: &Pattern) -> Goal<'_> {
    match pattern {
        Pattern::Exactly(data) => Goal::Exactly {
            expected: bytes(data),
            known: 0,
        },
        Pattern::Line(expression) => Goal::Line {
            expression: expression.as_ref(),
            searched: 0,
        },
        Pattern::Until(text) => Goal::Until(Search::new(text_bytes(text.parts()))),
        Pattern::Bytes(bytes) => Goal::Bytes(bytes.get()),
        Pattern::Close => Goal::Close,
        Pattern::Reset => Goal::Reset,
    }
}

/// The bytes of a text in which each capture is its name, and of a file with its name in it.
fn bytes(data: &Data) -> Cow<'_, [u8]> {
    match data {
        Data::Text(text) => text_bytes(text.parts()),
        Data::Hex(bytes) => Cow::Borrowed(bytes),
        Data::File(name) => Cow::Borrowed(name.as_bytes()),
    }
}

fn text_bytes(parts: &[Part]) -> Cow<'_, [u8]> {
    if let [Part::Bytes(bytes)] = parts {
        return Cow::Borrowed(bytes);
    }
    let bytes = parts.iter().flat_map(|part| match part {
        Part::Bytes(bytes) => bytes.as_slice(),
        Part::Capture(name) => name.as_bytes(),
    });
    bytes.copied().collect()
}

/// Where in a stream that comes at once a pattern ends.
fn by_hand(pattern: &Pattern, stream: &[u8], rest: Rest) -> Option<usize> {
    match pattern {
        Pattern::Exactly(data) => {
            let expected = bytes(data);
            stream.starts_with(&expected).then_some(expected.len())
        }
        Pattern::Line(expression) => {
            let end = stream.iter().position(|byte| *byte == b'\n')?;
            let line = &stream[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let fits = expression
                .as_ref()
                .is_none_or(|expression| expression.match_whole(line).is_some());
            fits.then_some(end + 1)
        }
        Pattern::Until(text) => {
            let wanted = text_bytes(text.parts());
            let mut windows = stream.windows(wanted.len());
            windows
                .position(|window| window == &wanted[..])
                .map(|at| at + wanted.len())
        }
        Pattern::Bytes(bytes) => {
            let bytes = usize::try_from(bytes.get()).ok()?;
            (bytes <= stream.len()).then_some(bytes)
        }
        Pattern::Close => (stream.is_empty() && rest == Rest::Closed).then_some(0),
        Pattern::Reset => (stream.is_empty() && rest == Rest::Reset).then_some(0),
    }
}

/// Sizes that depend on the data, so that the fuzzer can look for the cut that matters.
fn pieces_of(data: &[u8]) -> Vec<usize> {
    let sizes = data.iter().rev().take(4);
    sizes
        .map(|byte| usize::from(*byte) + 1)
        .chain([7])
        .collect()
}

/// What a stream of any length comes to, in one piece and byte by byte.
#[allow(dead_code, reason = "the fuzzer makes no streams as long")]
pub(crate) fn of_long_stream(script: &str, stream: &[u8]) -> Result<usize, Mismatch> {
    let steps = parse(script.as_bytes()).expect("a script");
    let mut found = None;
    expectations(&steps, &mut |patterns| {
        let pieces = [&[usize::MAX][..], &[1], &[1000, 70_000]];
        let outcomes = pieces.map(|pieces| outcome(patterns, stream, Rest::Closed, pieces));
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0], outcomes[2]);
        assert_eq!(outcomes[0], at_once(patterns, stream, Rest::Closed));
        found = Some(match &outcomes[0] {
            (Verdict::Failed(mismatch), _) => Err(*mismatch),
            (_, end) => Ok(*end),
        });
    });
    found.expect("an expectation")
}
