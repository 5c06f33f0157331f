//! What is written is read again, and what a file has in it is one thing, however it is read.

use std::path::Path;

use proptest::prelude::*;

#[path = "../../../../fuzz/checks/recording.rs"]
mod check;

use self::check::check;
use super::*;

fn read(text: &str) -> Result<Vec<Entry>, BadRecording> {
    let mut recording = Recording::new(text.as_bytes());
    let mut entries = Vec::new();
    while let Some(entry) = recording.next()? {
        entries.push(entry);
    }
    Ok(entries)
}

#[test]
fn text_is_written_as_text_and_all_else_in_base64() {
    let line = |bytes: &[u8]| {
        let entry = Entry {
            at: Duration::from_micros(1_500),
            from: Side::Server,
            said: Said::Bytes(bytes.to_vec()),
        };
        String::from_utf8(entry.line()).expect("text")
    };
    assert_eq!(
        line("Gr\u{fc}\u{df}e\r\n\x1b[1m".as_bytes()),
        "{\"at_ms\":1.5,\"from\":\"server\",\"text\":\"Gr\u{fc}\u{df}e\\r\\n\\u001b[1m\"}\n"
    );
    for bytes in [
        &b"\x00"[..],
        b"\xff\xfb\x01",
        b"\x7f",
        "\u{9b}".as_bytes(),
        "\u{202e}".as_bytes(),
    ] {
        assert!(line(bytes).contains("\"base64\":"), "{bytes:?}");
    }
    let end = Entry {
        at: Duration::ZERO,
        from: Side::Client,
        said: Said::End,
    };
    assert_eq!(
        end.line(),
        b"{\"at_ms\":0.0,\"from\":\"client\",\"end\":true}\n"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let head = "{\"record\":1}\n\n";
    for (lines, words) in [
        ("{\"at_ms\":1}", "line 3: missing field `from`"),
        (
            "{\"at_ms\":1,\"from\":\"us\",\"text\":\"\"}",
            "line 3: unknown variant",
        ),
        (
            "{\"at_ms\":-1,\"from\":\"client\",\"text\":\"\"}",
            "line 3: at_ms",
        ),
        (
            "{\"at_ms\":1e300,\"from\":\"client\",\"text\":\"\"}",
            "line 3: at_ms",
        ),
        ("{\"at_ms\":1,\"from\":\"client\"}", "line 3: one of"),
        (
            "{\"at_ms\":1,\"from\":\"client\",\"text\":\"\",\"end\":true}",
            "line 3: one of",
        ),
        (
            "{\"at_ms\":1,\"from\":\"client\",\"base64\":\"?\"}",
            "line 3: base64",
        ),
        (
            "{\"at_ms\":1,\"from\":\"client\",\"end\":true}\n{\"at_ms\":1,\"from\":\"client\",\"text\":\"\"}",
            "line 4: that side",
        ),
        (
            "{\"at_ms\":2,\"from\":\"client\",\"text\":\"\"}\n{\"at_ms\":1,\"from\":\"server\",\"text\":\"\"}",
            "line 4: at_ms is less",
        ),
    ] {
        let error = read(&format!("{head}{lines}\n"))
            .expect_err(lines)
            .to_string();
        assert!(error.starts_with(words), "{lines}: {error}");
    }
    for nothing in [
        "",
        "\n",
        "hello",
        "{\"at_ms\":1,\"from\":\"client\",\"text\":\"\"}",
    ] {
        assert!(matches!(read(nothing), Err(BadRecording::NotARecording)));
    }
    assert!(matches!(
        read("{\"record\":2}"),
        Err(BadRecording::Version(2))
    ));
    let long = format!("{head}{}", " ".repeat(LINE_BYTES + 1));
    assert!(matches!(
        read(&long),
        Err(BadRecording::Line { line: 3, .. })
    ));
    let note = format!("{head}{{\"at_ms\":1,\"from\":\"client\",\"text\":\"a\",\"note\":\"why\"}}");
    assert_eq!(read(&note).map(|entries| entries.len()).ok(), Some(1));
}

#[test]
fn every_file_of_the_corpus_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/recording");
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

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        said in prop::collection::vec(
            (any::<bool>(), 0..u64::from(u32::MAX), prop::collection::vec(any::<u8>(), 1..40)),
            0..6,
        ),
    ) {
        let mut at = Duration::ZERO;
        let mut text = first_line("127.0.0.1:7", SystemTime::UNIX_EPOCH);
        let mut entries = Vec::new();
        for (ours, later, bytes) in said {
            at += Duration::from_micros(later);
            let from = if ours { Side::Client } else { Side::Server };
            let entry = Entry { at, from, said: Said::Bytes(bytes) };
            text.extend(entry.line());
            entries.push(entry);
        }
        check(&text);
        let text = String::from_utf8(text).expect("text");
        prop_assert_eq!(read(&text).expect("a recording"), entries);
    }

    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(
        bytes in prop::collection::vec(prop::sample::select(&b"{\"record:1}\nat_ms,fomclientx0.5end"[..]), 0..80),
    ) {
        check(&bytes);
        check(&[b"{\"record\":1}\n", bytes.as_slice()].concat());
    }
}
