//! What a path asks the mirror for, and what a head was before hyper read it. Pure.

use std::time::Duration;

use http::header::{
    ALLOW, CONNECTION, CONTENT_RANGE, LOCATION, PROXY_AUTHENTICATE, UPGRADE, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::cli::quantity;
use crate::cli::time;

/// What is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Route {
    /// What was seen.
    Seen,
    Status(StatusCode),
    Delay(Duration),
    Bytes(u64),
    Drip {
        length: u64,
        every: Duration,
    },
    Stream {
        lines: u64,
        every: Duration,
    },
    Close,
    Reset,
}

/// Nobody waits for longer, or for more.
const MOST_TIME: Duration = Duration::from_secs(300);
const MOST_PIECES: u64 = 100_000;

impl Route {
    /// Paths that it does not know are for what was seen.
    pub(crate) fn of(uri: &Uri) -> Result<Self, String> {
        let mut words = uri.path().split('/').skip(1);
        let (name, first, second) = (words.next(), words.next(), words.next());
        Ok(match (name, first, second) {
            (Some("status"), Some(status), None) => Self::Status(code(status)?),
            (Some("delay"), Some(wait), None) => Self::Delay(wait_of(wait)?),
            (Some("bytes"), Some(length), None) => Self::Bytes(quantity::bytes(length)? as u64),
            (Some("drip"), length, every) => Self::Drip {
                length: length.map_or(Ok(10), pieces)?,
                every: every.map_or(Ok(Duration::from_millis(200)), wait_of)?,
            },
            (Some("stream"), lines, every) => Self::Stream {
                lines: lines.map_or(Ok(10), pieces)?,
                every: every.map_or(Ok(Duration::from_millis(100)), wait_of)?,
            },
            (Some("close"), None, None) => Self::Close,
            (Some("reset"), None, None) => Self::Reset,
            _ => Self::Seen,
        })
    }
}

/// hyper sends no status below 200 as an answer.
fn code(text: &str) -> Result<StatusCode, String> {
    let status = text
        .parse()
        .ok()
        .filter(|status| (200..=999).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status.ok_or_else(|| "a status is from 200 to 999\n".to_owned())
}

/// The fields that an answer with this status must have, or a client can do nothing with it (RFC 9110, section 15). The body has
/// so many bytes.
pub(crate) fn belongs_to(status: StatusCode, body_bytes: usize) -> HeaderMap {
    const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"sockeye\"");
    let mut fields = HeaderMap::new();
    match status.as_u16() {
        206 => {
            let range = format!("bytes 0-{}/{body_bytes}", body_bytes.saturating_sub(1));
            let range = HeaderValue::try_from(range).expect("digits");
            fields.insert(CONTENT_RANGE, range);
        }
        // Who goes there is told what he has sent this time.
        300..=303 | 307 | 308 => {
            fields.insert(LOCATION, HeaderValue::from_static("/"));
        }
        401 => {
            fields.insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        // Of this path no method gets anything else.
        405 => {
            fields.insert(ALLOW, HeaderValue::from_static(""));
        }
        407 => {
            fields.insert(PROXY_AUTHENTICATE, CHALLENGE);
        }
        416 => {
            fields.insert(CONTENT_RANGE, HeaderValue::from_static("bytes */0"));
        }
        426 => {
            fields.insert(UPGRADE, HeaderValue::from_static("HTTP/2.0"));
            fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        _ => {}
    }
    fields
}

fn wait_of(text: &str) -> Result<Duration, String> {
    let wait = time::duration(text)?;
    let is_short = wait <= MOST_TIME;
    is_short
        .then_some(wait)
        .ok_or_else(|| "at most 300s\n".to_owned())
}

fn pieces(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number <= MOST_PIECES);
    number.ok_or_else(|| format!("a number, at most {MOST_PIECES}\n"))
}

/// The fields of a head with their own letters and in their own order, if `head` is the one of this request: of requests
/// that follow each other without waiting (pipelining) it may be another. Otherwise as hyper keeps them.
pub(crate) fn headers(head: &[u8], parts: &Parts) -> Vec<(String, String)> {
    let shown = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    let complete = parsed.parse(head).is_ok_and(|status| status.is_complete());
    let same = parsed.method == Some(parts.method.as_str())
        && parsed.path == Some(parts.uri.to_string().as_str())
        && parsed.headers.len() == parts.headers.len();
    if complete && same {
        let fields = parsed.headers.iter();
        return fields
            .map(|field| (field.name.to_owned(), shown(field.value)))
            .collect();
    }
    let fields = parts.headers.iter();
    fields
        .map(|(name, value)| (name.to_string(), shown(value.as_bytes())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Result<Route, String> {
        Route::of(&path.parse().expect("a target"))
    }

    #[test]
    fn paths_ask_for_slow_broken_and_large_answers() {
        let every = Duration::from_millis;
        for (path, expected) in [
            ("/", Route::Seen),
            ("/anything?x=1", Route::Seen),
            ("/status/418", Route::Status(StatusCode::IM_A_TEAPOT)),
            ("/delay/2s", Route::Delay(every(2000))),
            ("/bytes/1MiB", Route::Bytes(1 << 20)),
            (
                "/drip",
                Route::Drip {
                    length: 10,
                    every: every(200),
                },
            ),
            (
                "/drip/3/5ms",
                Route::Drip {
                    length: 3,
                    every: every(5),
                },
            ),
            (
                "/stream/2",
                Route::Stream {
                    lines: 2,
                    every: every(100),
                },
            ),
            ("/close", Route::Close),
            ("/reset", Route::Reset),
        ] {
            assert_eq!(route(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_is_too_much_or_no_number_is_said() {
        for path in [
            "/status/99",
            "/status/1000",
            "/status/x",
            "/delay/1h",
            "/delay/x",
            "/bytes/x",
            "/drip/1000000",
            "/stream/-1",
        ] {
            assert!(route(path).is_err(), "{path}");
        }
    }

    #[test]
    fn fields_keep_their_letters_and_their_order() {
        let request = http::Request::get("/a")
            .header("x", "1")
            .header("x", "3")
            .header("y", "2");
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let head = b"GET /a HTTP/1.1\r\nX: 1\r\nY: 2\r\nx: 3\r\n\r\nbody";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            headers(head, &parts),
            [pair("X", "1"), pair("Y", "2"), pair("x", "3")]
        );
        // Another request's.
        let other = b"GET /b HTTP/1.1\r\nX: 1\r\nY: 2\r\nx: 3\r\n\r\n";
        let kept = [pair("x", "1"), pair("x", "3"), pair("y", "2")];
        assert_eq!(headers(other, &parts), kept);
        assert_eq!(headers(b"", &parts), kept);
    }
}
