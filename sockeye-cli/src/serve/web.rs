//! HTTP/1.1 on a connection: hyper reads the requests and writes the answers, under limits and deadlines. What is answered is
//! the affair of [`files`](crate::serve::files) and [`mirror`](crate::serve::mirror).

pub(crate) mod body;
pub(crate) mod visit;
pub(crate) mod wire;

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sockeye::{Conn, Service};

use crate::serve::reporter::Reporter;
use crate::serve::web::body::Body;
use crate::serve::web::visit::{Account, Visit};
use crate::serve::web::wire::Wire;

/// How long a request's head may take, and how long a connection may wait for its next request.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// A head that is longer is answered with 431.
pub(crate) const HEAD_BYTES: usize = 32 * 1024;

/// How long a piece of a request's body may take.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(30);

/// What hyper may keep of what comes before it is wanted.
const READ_BYTES: usize = 64 * 1024;

/// Who answers requests.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Whether the heads of requests are to be kept as they came.
    const KEEPS_HEADS: bool = false;

    /// Answers one. It need not read the body.
    fn answer(
        &self,
        request: Request<Incoming>,
        visit: &Arc<Visit>,
    ) -> impl Future<Output = Result<Response<Body>, HangUp>> + Send;
}

/// Instead of an answer: the connection ends.
#[derive(Debug, thiserror::Error)]
#[error("hung up instead of an answer")]
pub(crate) struct HangUp;

/// The service that speaks HTTP/1.1 and leaves the answers to somebody.
pub(crate) struct Web<A> {
    answer: Arc<A>,
    reporter: Arc<Reporter>,
}

impl<A: Answer> Web<A> {
    pub(crate) fn new(answer: A, reporter: Arc<Reporter>) -> Self {
        Self {
            answer: Arc::new(answer),
            reporter,
        }
    }
}

impl<A: Answer> Service for Web<A> {
    async fn serve(&self, conn: Conn) -> io::Result<()> {
        let mut drain = conn.drain_signal();
        let visit = Arc::new(Visit::new(conn, A::KEEPS_HEADS));
        let wire = TokioIo::new(Wire::new(Arc::clone(&visit)));
        let service = service_fn(|request: Request<Incoming>| {
            let (answer, visit) = (Arc::clone(&self.answer), Arc::clone(&visit));
            let account = Account::begin(&self.reporter, &visit, &request);
            async move {
                let mut response = match refusal(&request) {
                    Some(refusal) => {
                        // Else it would be taken for the head of the next request.
                        drop(visit.take_head());
                        refusal
                    }
                    None => answer.answer(request, &visit).await?,
                };
                let status = response.status();
                response.body_mut().account_to(account.answered(status));
                Ok::<_, HangUp>(response)
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(READ_BYTES)
            // Who sends FIN after his request waits for the answer all the same.
            .half_close(true);
        let mut serving = pin!(http.serve_connection(wire, service));
        let served = tokio::select! {
            served = serving.as_mut() => served,
            () = drain.wait() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = &served
            && error.is_parse()
        {
            visit::unreadable(&self.reporter, &visit, error);
        }
        ended(served)
    }
}

/// Only a fault of ours is an error: what a client does wrong it is told by the status, and what happened to the socket is
/// known to the connection.
fn ended(served: hyper::Result<()>) -> io::Result<()> {
    match served {
        Err(error) if error.source().is_some_and(|cause| cause.is::<HangUp>()) => Ok(()),
        Err(error) if error.is_user() || is_ours(&error) => Err(io::Error::other(error)),
        _ => Ok(()),
    }
}

/// An error of the wire that is none of the socket.
fn is_ours(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::Other)
}

/// What is asked of every request (RFC 9112, section 3.2), and what none of our services does.
fn refusal(request: &Request<Incoming>) -> Option<Response<Body>> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let text = match (host, another) {
        (None, _) if request.version() == Version::HTTP_10 => None,
        (Some(host), None) if is_authority(host.as_bytes()) => None,
        (Some(_), None) => Some("Host is no name and port\n"),
        _ => Some("one Host is needed\n"),
    };
    if let Some(text) = text {
        return Some(said(StatusCode::BAD_REQUEST, text));
    }
    let is_tunnel = request.method() == Method::CONNECT;
    is_tunnel.then(|| said(StatusCode::NOT_IMPLEMENTED, "no tunnel can be had here\n"))
}

/// Whether this is a host, with a port or without, or nothing (RFC 9110, section 7.2).
fn is_authority(text: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(text) else {
        return text.is_empty();
    };
    // It takes a user, too, and anything for a port.
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(is_digits),
        None => false,
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A short text.
pub(crate) fn said(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    whole(
        status,
        "text/plain; charset=utf-8",
        text.into().into_bytes(),
    )
}

/// All of an answer, that is at hand.
pub(crate) fn whole(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let length = HeaderValue::from(bytes.len());
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, length);
    response
}
