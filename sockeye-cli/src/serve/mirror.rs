//! `sockeye serve http`: tells a client what it has sent, and can be asked to be slow, broken or large.

mod route;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use sockeye::tcp_info::TcpInfo;

use crate::exit::escaped;
use crate::serve::mirror::route::Route;
use crate::serve::web::body::Body;
use crate::serve::web::visit::Visit;
use crate::serve::web::{Answer, BODY_TIME, HangUp, said, whole};
use crate::session::{ProxyHeader, Tls};

/// Of a body so much is shown, and with `--echo` sent back at once; of a longer one the beginning is shown.
const SHOWN_BYTES: usize = 1 << 20;

/// Answers every request with what it was.
pub(crate) struct Mirror {
    /// Whether the answer is the body and nothing else.
    pub(crate) echo: bool,
}

/// The names of the fields are those of docs/http.md.
#[derive(Serialize)]
struct Seen {
    method: String,
    target: String,
    version: String,
    /// In the order and with the letters in which they came.
    headers: Vec<(String, String)>,
    body: ShownBody,
    peer: String,
    local: Option<String>,
    connection: u64,
    tls: Option<Tls>,
    proxy_header: Option<ProxyHeader>,
    tcp_info: Option<TcpInfo>,
    timings: Timings,
}

/// Text if it is UTF-8, else base64.
#[derive(Serialize)]
struct ShownBody {
    bytes: u64,
    is_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize)]
struct Timings {
    /// From the accept to the request, which is not the first for sure.
    connection_ms: f64,
    /// From the end of the head to the end of the body.
    body_ms: f64,
}

/// What came of a request after its head.
struct Came {
    shown: Vec<u8>,
    bytes: u64,
}

impl Answer for Mirror {
    const KEEPS_HEADS: bool = true;

    async fn answer(
        &self,
        request: Request<Incoming>,
        visit: &Arc<Visit>,
    ) -> Result<Response<Body>, HangUp> {
        let head = visit.take_head();
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let came = match read(body).await {
            Ok(came) => came,
            Err(refusal) => return Ok(refusal),
        };
        let body_ms = millis(begun.elapsed());
        // What belongs to this request has come.
        drop(visit.take_head());
        let is_head = parts.method == Method::HEAD;
        if self.echo {
            return Ok(self.echoed(came, parts.headers.get(CONTENT_TYPE), is_head));
        }
        let seen = Seen {
            headers: route::headers(&head, &parts),
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            version: format!("{:?}", parts.version),
            body: came.into(),
            timings: Timings {
                connection_ms: millis(visit.began.elapsed()),
                body_ms,
            },
            ..Seen::of(visit)
        };
        let route = match Route::of(&parts.uri) {
            Ok(route) => route,
            Err(text) => return Ok(said(StatusCode::BAD_REQUEST, text)),
        };
        let mut response = match route {
            Route::Seen => seen.response(StatusCode::OK),
            Route::Status(status) => seen.response(status),
            Route::Delay(time) => {
                tokio::time::sleep(time).await;
                seen.response(StatusCode::OK)
            }
            Route::Bytes(length) => large(length),
            Route::Drip { length, every } => slowly(
                (0..length).map(|_| Bytes::from_static(b"*")),
                every,
                Some(length),
                "application/octet-stream",
            ),
            Route::Stream { lines, every } => {
                let line = seen.json();
                let lines = (0..lines).map(move |_| line.clone());
                slowly(lines, every, None, "application/x-ndjson")
            }
            Route::Close => return Err(HangUp),
            Route::Reset => {
                visit.conn().abort();
                return Err(HangUp);
            }
        };
        if is_head {
            *response.body_mut() = Body::default();
        }
        Ok(response)
    }
}

impl Mirror {
    fn echoed(&self, came: Came, kind: Option<&HeaderValue>, is_head: bool) -> Response<Body> {
        if came.bytes > came.shown.len() as u64 {
            return said(
                StatusCode::PAYLOAD_TOO_LARGE,
                "--echo takes 1 MiB at most\n",
            );
        }
        let mut response = whole(StatusCode::OK, "application/octet-stream", came.shown);
        if let Some(kind) = kind {
            response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        if is_head {
            *response.body_mut() = Body::default();
        }
        response
    }
}

impl Seen {
    /// What is known of the connection.
    fn of(visit: &Visit) -> Self {
        let conn = visit.conn();
        Self {
            method: String::new(),
            target: String::new(),
            version: String::new(),
            headers: Vec::new(),
            body: Came {
                shown: Vec::new(),
                bytes: 0,
            }
            .into(),
            peer: conn.peer().to_string(),
            local: conn.local().ok().map(|local| local.to_string()),
            connection: conn.id(),
            tls: conn.stream().tls().as_ref().map(Tls::from),
            proxy_header: conn.proxy_header().map(ProxyHeader::from),
            tcp_info: conn.tcp_info(),
            timings: Timings {
                connection_ms: 0.0,
                body_ms: 0.0,
            },
        }
    }

    /// For people, over several lines.
    fn response(&self, status: StatusCode) -> Response<Body> {
        let json = serde_json::to_string_pretty(self);
        let mut json = json.unwrap_or_else(|error| unreachable!("only numbers and text: {error}"));
        json.push('\n');
        let length = json.len();
        let mut response = whole(status, "application/json", json.into_bytes());
        if status.canonical_reason().is_none() {
            // hyper says '<none>' for it.
            let nothing = ReasonPhrase::from_static(b"");
            response.extensions_mut().insert(nothing);
        }
        let headers = response.headers_mut();
        headers.extend(route::belongs_to(status, length));
        if status == StatusCode::RESET_CONTENT {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        } else if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            headers.remove(CONTENT_LENGTH);
        } else {
            return response;
        }
        response.headers_mut().remove(CONTENT_TYPE);
        *response.body_mut() = Body::default();
        response
    }

    /// One line.
    fn json(&self) -> Bytes {
        let json = serde_json::to_string(self);
        let json = json.unwrap_or_else(|error| unreachable!("only numbers and text: {error}"));
        Bytes::from(json + "\n")
    }
}

impl From<Came> for ShownBody {
    fn from(came: Came) -> Self {
        let is_cut = came.bytes > came.shown.len() as u64;
        let (text, base64) = match String::from_utf8(came.shown) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        Self {
            bytes: came.bytes,
            is_cut,
            text,
            base64,
        }
    }
}

/// Reads a body to its end, and keeps its beginning.
async fn read(mut body: Incoming) -> Result<Came, Response<Body>> {
    let mut came = Came {
        shown: Vec::new(),
        bytes: 0,
    };
    loop {
        match tokio::time::timeout(BODY_TIME, body.frame()).await {
            Err(_) => {
                return Err(said(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not come in time\n",
                ));
            }
            Ok(None) => return Ok(came),
            Ok(Some(Err(error))) => {
                let text = format!("the body is broken: {}\n", escaped(&error.to_string()));
                return Err(said(StatusCode::BAD_REQUEST, text));
            }
            Ok(Some(Ok(frame))) => {
                let bytes = frame.into_data().unwrap_or_default();
                came.bytes += bytes.len() as u64;
                let room = SHOWN_BYTES - came.shown.len();
                came.shown
                    .extend_from_slice(&bytes[..room.min(bytes.len())]);
            }
        }
    }
}

/// Bytes that repeat themselves.
fn large(length: u64) -> Response<Body> {
    const PIECE: usize = 64 * 1024;
    let piece = Bytes::from(
        (0..PIECE)
            .map(|place| b'a' + (place % 26) as u8)
            .collect::<Vec<_>>(),
    );
    let mut body = Body::default();
    let mut left = length;
    while left > 0 {
        let next = left.min(PIECE as u64) as usize;
        body.push(piece.slice(..next));
        left -= next as u64;
    }
    with_body(body, "application/octet-stream")
}

fn slowly(
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    every: Duration,
    length: Option<u64>,
    kind: &'static str,
) -> Response<Body> {
    with_body(Body::slow(pieces, every, length), kind)
}

fn with_body(body: Body, kind: &'static str) -> Response<Body> {
    let length = body.length();
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
