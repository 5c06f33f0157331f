//! What a server may send, what it must not, and each stream in many cuts.

use std::path::Path;

#[path = "../../../fuzz/checks/http.rs"]
mod check;
mod generated;
mod python;
mod requests;
mod vectors;

use self::check::{Found, check};
use super::{BadResponse, Response};

#[test]
fn every_file_of_the_corpus_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/http");
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

/// The answers to GET in a stream that comes at once and then ends; that other cuts give the same is checked with it.
fn read(stream: impl AsRef<[u8]>) -> Found {
    check(stream.as_ref());
    check::read(stream.as_ref(), false, &[usize::MAX])
}

/// The body of the only answer, which ends with the stream, and whether the connection may go on.
fn only(stream: impl AsRef<[u8]>) -> (Vec<u8>, bool) {
    let stream = stream.as_ref();
    let found = read(stream);
    assert_eq!(found.error, None, "{}", stream.escape_ascii());
    let [answer] = &found.answers[..] else {
        panic!("{found:?} in {}", stream.escape_ascii());
    };
    assert_eq!(answer.end, stream.len());
    (answer.body.clone(), answer.response.keep_alive)
}

fn error(stream: impl AsRef<[u8]>) -> BadResponse {
    let found = read(&stream);
    let missing = || panic!("{found:?} in {}", stream.as_ref().escape_ascii());
    found.error.clone().unwrap_or_else(missing)
}

fn statuses(found: &Found) -> Vec<u16> {
    let responses = found.answers.iter().map(|answer| answer.response);
    responses.map(|Response { status, .. }| status).collect()
}
