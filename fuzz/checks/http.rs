//! The answers in a stream are the same for every cut, and what a server sends cannot panic or reach a terminal.

use crate::http::{BadResponse, Progress, Response, ResponseReader};

pub(crate) fn check(data: &[u8]) {
    for to_head in [false, true] {
        let whole = read(data, to_head, &[usize::MAX]);
        check_answers(&whole, data, to_head);
        for pieces in [&[1][..], &[2, 3, 5], &pieces_of(data)] {
            assert_eq!(
                comparable(read(data, to_head, pieces)),
                comparable(whole.clone())
            );
        }
    }
}

/// What was found in a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) answers: Vec<Answer>,
    /// The body of the answer that did not end.
    pub(crate) rest: Vec<u8>,
    /// All heads, interim answers' as well.
    pub(crate) heads: Vec<u8>,
    pub(crate) error: Option<BadResponse>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) body: Vec<u8>,
    /// Where in the stream it ended.
    pub(crate) end: usize,
}

/// Reads a stream in pieces of these sizes, and then its end.
pub(crate) fn read(data: &[u8], to_head: bool, pieces: &[usize]) -> Found {
    let mut reader = ResponseReader::new(to_head);
    reader.keep_heads();
    let mut found = Found {
        answers: Vec::new(),
        rest: Vec::new(),
        heads: Vec::new(),
        error: None,
    };
    let mut at = 0;
    for size in pieces.iter().cycle() {
        let mut piece = &data[at..][..(*size).min(data.len() - at)];
        if piece.is_empty() {
            break;
        }
        while !piece.is_empty() {
            let taken = reader.take(piece, &mut |bytes| {
                assert!(!bytes.is_empty());
                found.rest.extend_from_slice(bytes);
            });
            found.heads.extend(reader.take_heads());
            match taken {
                Ok(Progress::More) => {
                    at += piece.len();
                    piece = &[];
                }
                Ok(Progress::Complete { used, response }) => {
                    assert!(used > 0);
                    at += used;
                    piece = &piece[used..];
                    found.add(response, at);
                }
                Err(error) => {
                    found.error = Some(error);
                    return found;
                }
            }
        }
    }
    match reader.end() {
        Ok(Some(response)) => found.add(response, at),
        Ok(None) => {}
        Err(error) => found.error = Some(error),
    }
    found
}

impl Found {
    fn add(&mut self, response: Response, end: usize) {
        let body = std::mem::take(&mut self.rest);
        self.answers.push(Answer {
            response,
            body,
            end,
        });
    }
}

fn check_answers(found: &Found, data: &[u8], to_head: bool) {
    let mut before = 0;
    for answer in &found.answers {
        assert_eq!(answer.response.body_bytes, answer.body.len() as u64);
        assert!(answer.response.status >= 200);
        assert!(answer.body.is_empty() || !to_head);
        assert!(before + answer.body.len() < answer.end && answer.end <= data.len());
        before = answer.end;
    }
    assert!(found.heads.is_empty() || found.heads.starts_with(b"HTTP/1."));
    assert!(found.heads.len() <= data.len());
    if let Some(error) = &found.error {
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    } else {
        assert!(found.rest.is_empty());
        assert_eq!(before, data.len());
    }
}

/// What is not HTTP is shown as far as it has come, and that depends on the cut.
fn comparable(mut found: Found) -> Found {
    if let Some(BadResponse::NotHttp { begins }) = &mut found.error {
        begins.clear();
    }
    found
}

/// Sizes that depend on the data, so that the fuzzer can look for the cut that matters.
fn pieces_of(data: &[u8]) -> Vec<usize> {
    let sizes = data.iter().rev().take(4);
    sizes
        .map(|byte| usize::from(*byte) + 1)
        .chain([7])
        .collect()
}
