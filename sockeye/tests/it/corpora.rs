//! What the fuzzers look for holds for every file of their corpora, in which each regression has its place: what was
//! found once is looked for by `cargo test`, without a fuzzer.

use std::path::{Path, PathBuf};

#[path = "../../../fuzz/checks/hop.rs"]
pub(crate) mod hop;
#[path = "../../../fuzz/checks/proxy_protocol.rs"]
pub(crate) mod proxy_protocol;
#[path = "../../../fuzz/checks/rules.rs"]
pub(crate) mod rules;
#[path = "../../../fuzz/checks/tls_peek.rs"]
pub(crate) mod tls_peek;

type Check = fn(&[u8]);

/// A corpus, by the name of its directory and of its target, and its check.
const CORPORA: &[(&str, Check)] = &[
    ("hop", hop::check),
    ("proxy_protocol", proxy_protocol::check),
    ("rules", rules::check),
    ("tls_peek", tls_peek::check),
];

/// Corpora for code of the program, which are replayed by its own tests.
const OF_THE_PROGRAM: &[&str] = &["http", "recording", "script"];

#[test]
fn every_file_of_every_corpus_passes_its_check() {
    for (name, check) in CORPORA {
        let files = entries(&directory().join(name));
        assert!(!files.is_empty(), "no corpus for {name}");
        for file in files {
            // Shown only if the check fails.
            println!("{}", file.display());
            check(&std::fs::read(&file).expect("can be read"));
        }
    }
}

#[test]
fn every_corpus_has_a_check() {
    for corpus in entries(&directory()) {
        let name = corpus.file_name().expect("has a name");
        let mut known = CORPORA.iter().map(|(known, _)| known).chain(OF_THE_PROGRAM);
        assert!(
            known.any(|known| name == *known),
            "nothing checks {}",
            corpus.display()
        );
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    entries
        .map(|entry| entry.expect("can be listed").path())
        .collect()
}
