//! Who is at the other end of a connection that speaks HTTP, and the account of each request.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::header::USER_AGENT;
use http::{Request, StatusCode};
use sockeye::Conn;

use crate::exit::escaped;
use crate::serve::events::{BadRequest, Event, Requested};
use crate::serve::reporter::Reporter;

/// A connection, shared by hyper, which reads and writes, and by whoever answers.
pub(crate) struct Visit {
    conn: Mutex<Conn>,
    holes: Mutex<VecDeque<Hole>>,
    /// What has come since the last request was read, if somebody wants to see it.
    head: Option<Mutex<Vec<u8>>>,
    /// Whether files are sent by the kernel.
    pub(crate) sends_files: bool,
    pub(crate) began: Instant,
}

/// A stretch of a file that is to be sent next.
pub(crate) struct Hole {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) left: usize,
}

impl Visit {
    pub(crate) fn new(conn: Conn, keeps_heads: bool) -> Self {
        Self {
            head: keeps_heads.then(Mutex::default),
            sends_files: conn.stream().can_send_file(),
            conn: Mutex::new(conn),
            holes: Mutex::default(),
            began: Instant::now(),
        }
    }

    /// All of its users are in one task: nobody waits.
    pub(crate) fn conn(&self) -> MutexGuard<'_, Conn> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands for the holes that hyper has, in the same order.
    pub(crate) fn holes(&self) -> MutexGuard<'_, VecDeque<Hole>> {
        self.holes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More of a head is not kept; hyper takes no longer one.
const HEAD_BYTES: usize = 64 * 1024;

impl Visit {
    /// Takes note of what came.
    pub(crate) fn came(&self, bytes: &[u8]) {
        if let Some(head) = &self.head {
            let mut head = head.lock().unwrap_or_else(PoisonError::into_inner);
            let room = HEAD_BYTES.saturating_sub(head.len());
            head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
    }

    /// What came since the last call.
    pub(crate) fn take_head(&self) -> Vec<u8> {
        let head = self.head.as_ref().map(|head| head.lock());
        let head = head.map(|head| head.unwrap_or_else(PoisonError::into_inner));
        head.map_or_else(Vec::new, |mut head| std::mem::take(&mut *head))
    }
}

/// Who is at the other end, and for whom, if that is another.
fn parties(conn: &Conn) -> (String, Option<String>) {
    let (peer, client) = (conn.peer(), conn.client());
    let client = (client != peer).then(|| client.to_string());
    (peer.to_string(), client)
}

/// What a client has chosen. The queue of events is bounded in lines: a head can have 32 KiB of it.
fn told(text: &str) -> String {
    match text.char_indices().nth(TOLD_CHARACTERS) {
        None => escaped(text),
        Some((end, _)) => escaped(&text[..end]) + " [cut]",
    }
}

const TOLD_CHARACTERS: usize = 1024;

/// Tells of what cannot be read as a request, which was answered with 400 or 431.
pub(crate) fn unreadable(reporter: &Reporter, visit: &Visit, error: &hyper::Error) {
    if reporter.wants_connections() {
        let conn = visit.conn();
        let (peer, client) = parties(&conn);
        reporter.report(Event::BadRequest(Box::new(BadRequest {
            id: conn.id(),
            peer,
            client,
            error: escaped(&error.to_string()),
        })));
    }
}

/// One request: told when its answer was sent, or when that came to nothing.
pub(crate) struct Account {
    reporter: Arc<Reporter>,
    /// `None` if nobody wants to know, or it was told.
    requested: Option<Box<Requested>>,
    began: Instant,
    pub(crate) sent: u64,
}

impl Account {
    pub(crate) fn begin<B>(reporter: &Arc<Reporter>, visit: &Visit, request: &Request<B>) -> Self {
        let requested = reporter.wants_connections().then(|| {
            let conn = visit.conn();
            let agent = request.headers().get(USER_AGENT);
            let (peer, client) = parties(&conn);
            Box::new(Requested {
                id: conn.id(),
                peer,
                client,
                method: told(request.method().as_str()),
                target: told(&request.uri().to_string()),
                status: 0,
                body_bytes: 0,
                duration_ms: 0.0,
                user_agent: agent.map(|agent| told(&String::from_utf8_lossy(agent.as_bytes()))),
            })
        });
        Self {
            reporter: Arc::clone(reporter),
            requested,
            began: Instant::now(),
            sent: 0,
        }
    }

    pub(crate) fn answered(mut self, status: StatusCode) -> Self {
        if let Some(requested) = &mut self.requested {
            requested.status = status.as_u16();
        }
        self
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(mut requested) = self.requested.take() {
            requested.body_bytes = self.sent;
            requested.duration_ms = self.began.elapsed().as_micros() as f64 / 1e3;
            self.reporter.report(Event::Request(requested));
        }
    }
}
