//! Streams written by hand, by the rules of RFC 9112.

use super::super::head::MAX_HEAD_BYTES;
use super::super::{BadResponse, Progress, ResponseReader};
use super::check::read as read_pieces;
use super::{error, only, read, statuses};

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn with(fields: &str, body: &str) -> String {
    format!("{OK}{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    with("Transfer-Encoding: chunked\r\n", body)
}

#[test]
fn a_length_ends_a_body() {
    for (fields, body) in [
        ("Content-Length: 5\r\n", "hello"),
        ("content-LENGTH:\t 5 \t\r\n", "hello"),
        ("Content-Length: 0005\r\n", "hello"),
        ("Content-Length: 5, 5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 05\r\n", "hello"),
        ("Content-Length:\r\n 5\r\n", "hello"),
        ("Content-Length: 0\r\n", ""),
    ] {
        assert_eq!(only(with(fields, body)), (body.into(), true), "{fields}");
    }
}

#[test]
fn a_length_that_is_no_number_or_ambiguous_is_refused() {
    for value in [
        "",
        "+5",
        "-5",
        "5 5",
        "5,",
        ",5",
        "5,,5",
        "0x5",
        "5.0",
        "five",
        "1_000",
        "18446744073709551616",
        "99999999999999999999999",
        "5;a",
        "\"5\"",
        "\u{0665}",
    ] {
        let stream = with(&format!("Content-Length: {value}\r\n"), "hello");
        assert!(
            matches!(error(&stream), BadResponse::ContentLength { .. }),
            "{value:?}"
        );
    }
    for fields in [
        "Content-Length: 5, 6\r\n",
        "Content-Length: 6, 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
    ] {
        let stream = with(fields, "hello");
        assert_eq!(error(&stream), BadResponse::ContentLengthsDiffer);
    }
    assert_eq!(
        error(with("Content-Length: 18446744073709551615\r\n", "x")),
        BadResponse::CutBody {
            received: 1,
            length: u64::MAX
        }
    );
}

#[test]
fn chunks_end_a_body() {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;name=value;other=\"quoted; \"\r\nhello\r\n0;last\r\n\r\n",
        "5 ; name\r\nhello\r\n0 \t\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Sum: 1\r\nEmpty:\r\n\r\n",
        "5\r\nhello\r\n0\r\nFolded: 1,\r\n 2\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Sum: 1\n\n",
    ] {
        assert_eq!(only(chunked(body)), (b"hello".into(), true), "{body}");
    }
    let (body, _) = only(chunked("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n"));
    assert_eq!(body.len(), 10 + 11);
    assert_eq!(only(chunked("0\r\n\r\n")), (vec![], true));
}

#[test]
fn malformed_chunks_are_refused() {
    for (body, expected) in [
        ("\r\n", BadResponse::ChunkSize),
        ("-1\r\n", BadResponse::ChunkSize),
        ("+1\r\n", BadResponse::ChunkSize),
        (" 1\r\n", BadResponse::ChunkSize),
        ("0x1\r\n", BadResponse::ChunkSize),
        ("1 1\r\n", BadResponse::ChunkSize),
        ("g\r\n", BadResponse::ChunkSize),
        (";a\r\n", BadResponse::ChunkSize),
        ("1\n", BadResponse::ChunkSize),
        ("1;a\n", BadResponse::ChunkSize),
        ("1;a\rb\r\n", BadResponse::ChunkSize),
        ("1;\0\r\n", BadResponse::ChunkSize),
        ("10000000000000000\r\n", BadResponse::ChunkTooLarge),
        ("1\r\nab\r\n", BadResponse::ChunkEnd),
        ("1\r\na\n0\r\n", BadResponse::ChunkEnd),
        ("1\r\na0\r\n", BadResponse::ChunkEnd),
        ("1\r\na\rx", BadResponse::ChunkEnd),
        ("0\r\n: b\r\n\r\n", BadResponse::Trailer),
        ("0\r\na b: c\r\n\r\n", BadResponse::Trailer),
        ("0\r\na\r\n\r\n", BadResponse::Trailer),
        ("0\r\n a: b\r\n\r\n", BadResponse::Trailer),
        ("0\r\na: b\rc\r\n\r\n", BadResponse::Trailer),
        ("0\r\na: \0\r\n\r\n", BadResponse::Trailer),
        ("0\r\n\rx", BadResponse::Trailer),
        // The last line is missing, and the next answer would be taken for a field.
        ("0\r\nHTTP/1.1 200 OK\r\n\r\n", BadResponse::Trailer),
        ("", BadResponse::CutChunks { received: 0 }),
        ("5\r\nhel", BadResponse::CutChunks { received: 3 }),
        (
            "5\r\nhello\r\n0\r\n",
            BadResponse::CutChunks { received: 5 },
        ),
        (
            "ffffffffffffffff\r\nx",
            BadResponse::CutChunks { received: 1 },
        ),
    ] {
        assert_eq!(error(chunked(body)), expected, "{body:?}");
    }
}

#[test]
fn the_last_transfer_coding_decides() {
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "transfer-ENCODING: CHUNKED\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip;q=1\r\nTransfer-Encoding: , chunked ,\r\n",
        "Transfer-Encoding: gzip,\r\n chunked\r\n",
    ] {
        let stream = with(fields, "2\r\nab\r\n0\r\n\r\n");
        assert_eq!(only(stream), (b"ab".into(), true), "{fields}");
    }
    for fields in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ] {
        let stream = with(fields, "0\r\n\r\n");
        assert_eq!(only(stream), (b"0\r\n\r\n".into(), false), "{fields}");
    }
    for value in [
        "",
        ",",
        "chunked, chunked",
        "chunked;a=b",
        "chun ked",
        "chunked ;",
        ";chunked",
        "a;b=\"c, chunked",
        "chunked\u{a0}",
    ] {
        let stream = with(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
        assert!(
            matches!(error(&stream), BadResponse::TransferEncoding { .. }),
            "{value}"
        );
    }
}

#[test]
fn both_a_length_and_a_coding_are_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(error(with(fields, "0\r\n\r\n")), BadResponse::Ambiguous);
    }
}

#[test]
fn an_answer_in_http_1_0_with_chunks_is_read_and_nothing_follows_it() {
    let stream = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n\
        1\r\na\r\n0\r\n\r\n";
    assert_eq!(only(stream), (b"a".into(), false));
}

#[test]
fn some_answers_have_no_body_whatever_their_fields_say() {
    for fields in [
        "",
        "Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        for status in ["204 No Content", "304 Not Modified"] {
            let stream = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
            assert_eq!(only(stream), (vec![], true), "{status} {fields}");
        }
        let stream = with(fields, "").repeat(2);
        let found = read_pieces(stream.as_bytes(), true, &[usize::MAX]);
        assert_eq!(statuses(&found), [200, 200]);
        assert_eq!(found.error, None);
    }
}

#[test]
fn without_length_or_chunks_the_end_of_the_stream_ends_a_body() {
    assert_eq!(only(with("", "hello\r\n")), (b"hello\r\n".into(), false));
    assert_eq!(only(with("", "")), (vec![], false));
}

#[test]
fn whether_the_connection_goes_on_is_as_the_version_and_the_options_say() {
    for (minor, connection, expected) in [
        (1, "", true),
        (1, "Connection: close\r\n", false),
        (1, "connection: Close\r\n", false),
        (1, "Connection: keep-alive\r\n", true),
        (1, "Connection: upgrade, close\r\n", false),
        (1, "Connection: upgrade\r\nConnection: close\r\n", false),
        (1, "Connection: close, upgrade\r\n", false),
        (1, "Connection: closed\r\n", true),
        (1, "Connection: keep-alive, close\r\n", false),
        (0, "", false),
        (0, "Connection: keep-alive\r\n", true),
        (0, "Connection: Keep-Alive\r\n", true),
        (0, "Connection: foo ,\tkeep-alive\r\n", true),
        (0, "Connection: keep-alive, foo\r\n", true),
        (0, "Connection: keep-alive, close\r\n", false),
    ] {
        let stream = format!("HTTP/1.{minor} 200 OK\r\n{connection}Content-Length: 0\r\n\r\n");
        assert_eq!(only(&stream), (vec![], expected), "{stream}");
    }
}

#[test]
fn interim_answers_are_skipped_and_a_final_one_is_owed() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: nine\r\n\r\n";
    let stream = format!("{interim}{}", with("Content-Length: 1\r\n", "x"));
    assert_eq!(only(&stream), (b"x".into(), true));
    assert_eq!(error(interim), BadResponse::CutHead);
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nxyz";
    assert_eq!(error(switched), BadResponse::Switched);
}

#[test]
fn interim_answers_are_bounded() {
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let end = with("Content-Length: 0\r\n", "");
    assert_eq!(only(interim.repeat(100) + &end), (vec![], true));
    let max = 100;
    assert_eq!(
        error(interim.repeat(101)),
        BadResponse::TooManyInterim { max }
    );
    // Each answer may have as many.
    let twice = (interim.repeat(100) + &end).repeat(2);
    assert_eq!(statuses(&read(twice)), [200, 200]);
}

#[test]
fn heads_are_kept_for_whoever_wants_them_in_every_cut() {
    let heads = "HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\n";
    assert_eq!(read(format!("{heads}ab")).heads, heads.as_bytes());
    // The same head once more is not read again, but is there all the same.
    let next = with("Content-Length: 2\r\n", "");
    let stream = format!("{next}ab{next}cd");
    assert_eq!(read(stream).heads, next.repeat(2).as_bytes());
}

#[test]
fn answers_follow_each_other() {
    let stream = [
        with("Content-Length: 2\r\n", "ab"),
        chunked("1\r\nc\r\n0\r\n\r\n"),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 500\r\n\r\nall that comes".to_owned(),
    ]
    .concat();
    let found = read(&stream);
    assert_eq!(found.error, None);
    assert_eq!(statuses(&found), [200, 200, 404, 500]);
    let bodies: Vec<&[u8]> = found.answers.iter().map(|a| &a.body[..]).collect();
    assert_eq!(bodies, [&b"ab"[..], b"c", b"", b"all that comes"]);
    // Between two answers the server may close.
    assert_eq!(read("").error, None);
}

#[test]
fn what_is_not_http_1_is_told_with_its_beginning() {
    for (stream, begins) in [
        ("SSH-2.0-OpenSSH_9.2p1\r\nmore", "SSH-2.0-OpenSSH_9.2p1"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1"),
        (
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            r"\r\nHTTP/1.1 200 OK\r\n\r\n",
        ),
        ("\u{1b}[31mred", r"\x1b[31mred"),
        ("http/1.1 200 OK\r\n\r\n", "http/1.1 200 OK"),
        (
            "0123456789012345678901234567890123456789 and more",
            "0123456789012345678901234567890123456789",
        ),
    ] {
        let begins = begins.to_owned();
        assert_eq!(error(stream), BadResponse::NotHttp { begins });
    }
    // The length was less than the body.
    let longer = with("Content-Length: 4\r\n", "hello");
    let begins = "o".to_owned();
    assert_eq!(error(longer), BadResponse::NotHttp { begins });
}

#[test]
fn a_server_that_greets_and_waits_is_found_out_with_its_first_bytes() {
    for greeting in ["S", "HTTX", "HTTP/2", "HTTP/1.1x", "HTTP/1.1 2x"] {
        let mut reader = ResponseReader::new(false);
        let taken: Vec<_> = greeting
            .bytes()
            .map(|byte| reader.take(&[byte], &mut |_| {}))
            .collect();
        let (last, before) = taken.split_last().expect("not empty");
        assert!(last.is_err(), "{greeting}");
        assert!(before.iter().all(|taken| *taken == Ok(Progress::More)));
    }
}

#[test]
fn a_malformed_head_is_refused() {
    for (stream, expected) in [
        ("HTTP/2 200 OK\r\n\r\n", BadResponse::Version),
        ("HTTP/1.2 200 OK\r\n\r\n", BadResponse::Version),
        ("HTTP/1.10 200 OK\r\n\r\n", BadResponse::Version),
        ("HTTP/1.1 20 OK\r\n\r\n", BadResponse::StatusLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", BadResponse::StatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n", BadResponse::StatusLine),
        ("HTTP/1.1 200 O\0K\r\n\r\n", BadResponse::StatusLine),
        (
            "HTTP/1.1 099 Low\r\n\r\n",
            BadResponse::Status { status: 99 },
        ),
        ("HTTP/1.1 200 OK\r\nA\r\n\r\n", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\n A: b\r\n\r\n", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\nA: b\r\n\rx", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\nA: b\0", BadResponse::Field),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", BadResponse::CutHead),
        ("HTT", BadResponse::CutHead),
    ] {
        assert_eq!(error(stream), expected, "{stream:?}");
    }
}

#[test]
fn a_bare_lf_ends_a_line_of_a_head_and_folded_fields_go_on() {
    let stream = "HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 1\n\nx";
    assert_eq!(only(stream), (b"x".into(), true));
    // The reason need not be there, and need not be ASCII.
    for reason in ["", " ", " \u{e4}"] {
        let stream = format!("HTTP/1.1 200{reason}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(only(stream), (vec![], true));
    }
}

#[test]
fn a_head_may_have_64_kib_and_100_fields() {
    let end = "Content-Length: 1\r\n\r\n";
    let longest = |over: usize| {
        let fill = MAX_HEAD_BYTES - OK.len() - "A: \r\n".len() - end.len() + over;
        format!("{OK}A: {}\r\n{end}x", "a".repeat(fill))
    };
    let max_bytes = MAX_HEAD_BYTES;
    for pieces in [
        &[usize::MAX][..],
        &[1],
        &[20, 1000],
        &[MAX_HEAD_BYTES - 1, 1],
    ] {
        let found = read_pieces(longest(0).as_bytes(), false, pieces);
        assert_eq!(statuses(&found), [200]);
        let found = read_pieces(longest(1).as_bytes(), false, pieces);
        assert_eq!(found.error, Some(BadResponse::HeadTooLong { max_bytes }));
        let endless = format!("{OK}A: {}", "a".repeat(MAX_HEAD_BYTES));
        let found = read_pieces(endless.as_bytes(), false, pieces);
        assert_eq!(found.error, Some(BadResponse::HeadTooLong { max_bytes }));
    }
    assert_eq!(
        only(with(&("a:b\r\n".repeat(99) + "Content-Length: 0\r\n"), "")).0,
        b""
    );
    let many = with(&("a:b\r\n".repeat(100) + "Content-Length: 0\r\n"), "");
    assert_eq!(error(many), BadResponse::TooManyFields { max: 100 });
}

#[test]
fn the_lines_of_chunks_and_trailers_are_bounded() {
    let line = |bytes: usize| {
        let fill = "a".repeat(bytes - "1;\r\n".len());
        chunked(&format!("1;{fill}\r\nx\r\n0\r\n\r\n"))
    };
    assert_eq!(only(line(4096)), (b"x".into(), true));
    let max_bytes = 4096;
    assert_eq!(
        error(line(4097)),
        BadResponse::ChunkLineTooLong { max_bytes }
    );
    // Each chunk may have as much.
    let twice = line(4000).replace("0\r\n\r\n", &format!("0;{}\r\n\r\n", "a".repeat(4000)));
    assert_eq!(only(twice), (b"x".into(), true));

    let trailers = |bytes: usize| {
        let fill = "a".repeat(bytes - "a:\r\n\r\n".len());
        chunked(&format!("0\r\na:{fill}\r\n\r\n"))
    };
    assert_eq!(only(trailers(65_536)), (vec![], true));
    let max_bytes = 65_536;
    assert_eq!(
        error(trailers(65_537)),
        BadResponse::TrailersTooLong { max_bytes }
    );
}

#[test]
fn a_reader_between_answers_holds_nothing() {
    let mut reader = ResponseReader::new(false);
    let stream = with("Content-Length: 0\r\n", "");
    for byte in stream.bytes() {
        reader.take(&[byte], &mut |_| {}).expect("is in order");
    }
    assert_eq!(reader.held.capacity(), 0);
}

/// Looked at anew for each line, this would take a minute.
#[test]
fn a_head_of_many_lines_that_comes_in_small_pieces_is_read() {
    let stream = with(
        &format!("A:{}\r\nContent-Length: 0\r\n", "\n b".repeat(20_000)),
        "",
    );
    let found = read_pieces(stream.as_bytes(), false, &[3]);
    assert_eq!(found.error, None);
    assert_eq!(statuses(&found), [200]);
}

#[test]
fn a_head_that_does_not_end_is_refused_as_soon_as_it_is_too_long() {
    let mut reader = ResponseReader::new(false);
    let mut given = 0;
    let mut taken = reader.take(OK.as_bytes(), &mut |_| {});
    while taken == Ok(Progress::More) && given < 10 * MAX_HEAD_BYTES {
        taken = reader.take(&[b'a'; 999], &mut |_| {});
        given += 999;
    }
    let max_bytes = MAX_HEAD_BYTES;
    assert_eq!(taken, Err(BadResponse::HeadTooLong { max_bytes }));
    assert!(given < MAX_HEAD_BYTES + 999, "{given}");
}
