//! Answers made up at random, written as a server could write them, and read again.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::Response;
use super::check::{self, Answer, check};

/// An answer, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) response: Response,
    pub(super) body: Vec<u8>,
}

/// How much of what is allowed is made use of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dialect {
    /// What every client reads in the same way.
    Common,
    /// All that RFC 9112 lets a client read.
    Whole,
}

#[derive(Clone, Debug)]
enum Framing {
    Length(Vec<u8>),
    Chunked(Vec<(Vec<u8>, String)>, String),
    Bare(u16),
}

/// Answers that follow each other on one connection, perhaps with one at the end that ends with it.
pub(super) fn streams(dialect: Dialect) -> impl Strategy<Value = Vec<Written>> {
    let last = prop::option::of(until_close());
    (vec(answer(dialect), 0..5), last).prop_map(|(mut answers, last)| {
        answers.extend(last);
        answers
    })
}

fn answer(dialect: Dialect) -> impl Strategy<Value = Written> {
    let parts = (
        interim(dialect),
        // The version, the option, and what both come to.
        select(vec![
            (1, "", true),
            (1, "Connection: close\r\n", false),
            (1, "CONNECTION: Keep-Alive\r\n", true),
            (0, "", false),
            (0, "connection: keep-alive\r\n", true),
        ]),
        200..600_u16,
        fields(),
        framing(),
        any::<bool>(),
    );
    parts.prop_map(
        move |(interim, (minor, connection, keep_alive), status, fields, framing, is_before)| {
            let status = match framing {
                Framing::Bare(status) => status,
                _ if matches!(status, 204 | 304) => 200,
                _ => status,
            };
            let (ending, content, body) = written(&framing, dialect);
            // A client that sees chunks in HTTP/1.0 has to doubt.
            let minor = match framing {
                Framing::Chunked(..) => 1,
                _ => minor,
            };
            let keep_alive = match framing {
                Framing::Chunked(..) => !connection.ends_with("close\r\n"),
                _ => keep_alive,
            };
            let (first, second) = match is_before {
                true => (&ending, &fields),
                false => (&fields, &ending),
            };
            let head = format!(
                "{interim}HTTP/1.{minor} {status} Some Reason\r\n{first}{connection}{second}\r\n"
            );
            Written {
                bytes: [head.as_bytes(), &content].concat(),
                response: Response {
                    status,
                    keep_alive,
                    body_bytes: body.len() as u64,
                },
                body,
            }
        },
    )
}

fn until_close() -> impl Strategy<Value = Written> {
    (fields(), bytes()).prop_map(|(fields, body)| {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        Written {
            bytes: [head.as_bytes(), &body].concat(),
            response: Response {
                status: 200,
                keep_alive: false,
                body_bytes: body.len() as u64,
            },
            body,
        }
    })
}

fn interim(dialect: Dialect) -> impl Strategy<Value = String> {
    let known = match dialect {
        Dialect::Common => vec!["", "HTTP/1.1 100 Continue\r\n\r\n"],
        Dialect::Whole => vec![
            "",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\n",
        ],
    };
    vec(select(known), 0..3).prop_map(|answers| answers.concat())
}

fn fields() -> impl Strategy<Value = String> {
    let field = "X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,8}:[ \t]{0,2}([!-~]([ -~]{0,20}[!-~])?)?\r\n";
    vec(field, 0..4).prop_map(|fields| fields.concat())
}

fn framing() -> impl Strategy<Value = Framing> {
    let extension = "(;[a-z]{1,4}(=[a-z0-9]{1,4})?){0,2}";
    let chunk = (vec(any::<u8>(), 1..40), extension);
    let trailers = vec("X-[a-z]{1,5}: [a-z0-9]{0,9}\r\n", 0..3);
    prop_oneof![
        bytes().prop_map(Framing::Length),
        (vec(chunk, 0..6), trailers)
            .prop_map(|(chunks, trailers)| Framing::Chunked(chunks, trailers.concat())),
        select(vec![204, 304]).prop_map(Framing::Bare),
    ]
}

/// Also such that look like what ends an answer.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..60),
        "(\r\n|0|HTTP/1.1 200 OK|Content-Length: 3|:){0,6}".prop_map(String::into_bytes),
    ]
}

/// The fields that say how the body ends, the body as it is sent, and as it is read.
fn written(framing: &Framing, dialect: Dialect) -> (String, Vec<u8>, Vec<u8>) {
    match framing {
        Framing::Bare(_) => (String::new(), Vec::new(), Vec::new()),
        Framing::Length(body) => {
            let length = body.len();
            let field = match dialect {
                Dialect::Whole if length % 3 == 1 => {
                    format!("Content-Length: {length},\r\n 00{length}\r\n")
                }
                _ => format!("content-length: {length}\r\n"),
            };
            (field, body.clone(), body.clone())
        }
        Framing::Chunked(chunks, trailers) => {
            let field = match dialect {
                Dialect::Whole if chunks.len() % 2 == 1 => {
                    "Transfer-Encoding: ,gzip\r\nTransfer-Encoding: Chunked,\r\n"
                }
                _ => "Transfer-Encoding: chunked\r\n",
            };
            let mut content = Vec::new();
            for (data, extension) in chunks {
                let size = match data.len() {
                    odd if odd % 2 == 1 => format!("{odd:X}{extension}\r\n"),
                    even => format!("{even:04x}{extension}\r\n"),
                };
                content.extend_from_slice(size.as_bytes());
                content.extend_from_slice(data);
                content.extend_from_slice(b"\r\n");
            }
            content.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            let body = chunks.iter().flat_map(|(data, _)| data.clone()).collect();
            (field.to_owned(), content, body)
        }
    }
}

pub(super) fn concatenated(answers: &[Written]) -> Vec<u8> {
    answers.iter().flat_map(|a| a.bytes.clone()).collect()
}

fn expected(answers: &[Written]) -> Vec<Answer> {
    let mut end = 0;
    let answers = answers.iter().map(|answer| {
        end += answer.bytes.len();
        Answer {
            response: answer.response,
            body: answer.body.clone(),
            end,
        }
    });
    answers.collect()
}

proptest! {
    #[test]
    fn every_answer_is_read_as_it_was_written(
        answers in streams(Dialect::Whole),
        pieces in vec(1..50_usize, 1..8),
    ) {
        let stream = concatenated(&answers);
        for pieces in [&pieces[..], &[1], &[usize::MAX]] {
            let found = check::read(&stream, false, pieces);
            prop_assert_eq!(&found.error, &None);
            prop_assert_eq!(&found.answers, &expected(&answers));
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_is_never_taken_for_a_whole_one(
        answers in streams(Dialect::Whole),
        at in any::<prop::sample::Index>(),
    ) {
        let stream = concatenated(&answers);
        let at = at.index(stream.len() + 1);
        let found = check::read(&stream[..at], false, &[usize::MAX]);
        let expected = expected(&answers);
        let whole = expected.iter().take_while(|answer| answer.end <= at).count();
        let until_close = answers.get(whole).is_some_and(|answer| {
            // With its head it has begun, and then every end is an end.
            let before = expected.get(..whole).and_then(<[_]>::last).map_or(0, |a| a.end);
            let head = answer.bytes.len() - answer.body.len();
            answer.bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && before + head <= at
        });
        prop_assert_eq!(found.answers.len(), whole + usize::from(until_close));
        prop_assert_eq!(&found.answers[..whole], &expected[..whole]);
        let is_border = whole.checked_sub(1).map_or(0, |last| expected[last].end) == at;
        prop_assert_eq!(found.error.is_none(), is_border || until_close);
    }

    #[test]
    fn any_bytes_are_read_alike_in_every_cut(bytes in vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn nearly_an_answer_is_read_alike_in_every_cut(
        answers in streams(Dialect::Whole),
        changes in vec((any::<prop::sample::Index>(), select(b"\r\n :;,0aF\0\xff".to_vec())), 1..4),
    ) {
        let mut stream = concatenated(&answers);
        for (at, byte) in changes {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        check(&stream);
    }
}
