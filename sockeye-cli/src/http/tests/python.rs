//! Against a reader that we did not write: Python's `http.client`.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::generated::{Dialect, concatenated, streams};

/// As many as take a second or two.
const STREAMS: usize = 1_000;

/// Reads a line with a stream in hexadecimal, and prints a line with its answers: status, whether the connection goes on,
/// where in the stream the answer ended, and the body.
const SCRIPT: &str = r#"
import http.client, io, sys

class Stream(io.BytesIO):
    def makefile(self, mode):
        return self
    def close(self):
        pass

for line in sys.stdin:
    data = bytes.fromhex(line)
    stream = Stream(data)
    answers = []
    while stream.tell() < len(data):
        answer = http.client.HTTPResponse(stream, method="GET")
        answer.begin()
        goes_on = int(not answer.will_close)
        body = answer.read()
        answers.append(f"{answer.status} {goes_on} {stream.tell()} {body.hex()}")
    print("; ".join(answers))
"#;

#[test]
#[ignore = "needs python3"]
fn python_reads_the_same_answers() {
    let mut runner = TestRunner::deterministic();
    let strategy = streams(Dialect::Common);
    let mut generate = || strategy.new_tree(&mut runner).expect("generates").current();
    let given: Vec<Vec<u8>> = (0..STREAMS).map(|_| concatenated(&generate())).collect();

    let mut python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let lines: Vec<String> = given.iter().map(|stream| hex(stream) + "\n").collect();
    let mut stdin = python.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(lines.concat().as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    writer.join().expect("no panic").expect("written");
    assert!(output.status.success());

    let output = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.lines().count(), STREAMS);
    for (stream, seen) in given.iter().zip(output.lines()) {
        assert_eq!(ours(stream), seen, "{}", stream.escape_ascii());
    }
}

fn ours(stream: &[u8]) -> String {
    let found = super::read(stream);
    assert_eq!(found.error, None);
    let answers = found.answers.iter().map(|answer| {
        let goes_on = u8::from(answer.response.keep_alive);
        let (status, end) = (answer.response.status, answer.end);
        format!("{status} {goes_on} {end} {}", hex(&answer.body))
    });
    answers.collect::<Vec<_>>().join("; ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
