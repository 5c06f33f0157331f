//! What can be wrong with an answer, in words for whoever asked. What the server sent is in them only escaped.

/// How much of what a server sent is shown.
const SHOWN_BYTES: usize = 40;

/// Why a stream cannot be read as answers in HTTP/1. After it the connection is of no use: where the next answer would
/// begin is not known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum BadResponse {
    #[error("the answer is not HTTP/1: it begins with '{begins}'")]
    NotHttp {
        /// The first line, as far as it has come.
        begins: String,
    },
    #[error("the answer is in a version of HTTP other than 1.0 and 1.1")]
    Version,
    #[error("the status line of the answer is malformed")]
    StatusLine,
    #[error("the answer has the status {status}, and there is none below 100")]
    Status { status: u16 },
    #[error("the answer has a malformed header field")]
    Field,
    #[error("the head of the answer has more than {max} fields")]
    TooManyFields { max: usize },
    #[error("the head of the answer is longer than {max_bytes} bytes")]
    HeadTooLong { max_bytes: usize },
    #[error("the server changed to another protocol (status 101), for which it was not asked")]
    Switched,
    #[error("the server sent more than {max} interim answers (status 1xx)")]
    TooManyInterim { max: usize },

    #[error("the answer has the Content-Length '{value}', which is not a number of bytes")]
    ContentLength { value: String },
    #[error("the answer has several values of Content-Length, and they differ")]
    ContentLengthsDiffer,
    #[error("the answer has the Transfer-Encoding '{value}', which is malformed")]
    TransferEncoding { value: String },
    #[error("the answer has both Transfer-Encoding and Content-Length: its end is ambiguous")]
    Ambiguous,

    #[error("the answer has a malformed chunk size")]
    ChunkSize,
    #[error("the answer has a chunk larger than can be counted in 64 bits")]
    ChunkTooLarge,
    #[error("the answer has a line with a chunk size longer than {max_bytes} bytes")]
    ChunkLineTooLong { max_bytes: usize },
    #[error("the answer has a chunk that is longer than its size says")]
    ChunkEnd,
    #[error("the answer has a malformed trailer field")]
    Trailer,
    #[error("the answer has trailer fields of more than {max_bytes} bytes")]
    TrailersTooLong { max_bytes: usize },

    #[error("the server closed the connection before the head of its answer was complete")]
    CutHead,
    #[error("the server closed the connection after {received} of {length} bytes of the body")]
    CutBody { received: u64, length: u64 },
    #[error(
        "the server closed the connection after {received} bytes of a body in chunks, before the last chunk"
    )]
    CutChunks { received: u64 },
}

/// The beginning of what a server sent, with nothing in it that a terminal would obey.
pub(super) fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.get(..SHOWN_BYTES).unwrap_or(bytes);
    bytes.escape_ascii().to_string()
}
