//! What happened, in numbers ([`Snapshot`]) and as it happens ([`Observer`]).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::addr::Addr;
use crate::admission::RefuseReason;
use crate::close_reason::CloseReason;
use crate::proxy_protocol::Header;
use crate::stream::Stream;
use crate::tcp_info::TcpInfo;

/// The counters of a server at one moment. In every snapshot `accepted == refused + open + closed`.
///
/// ```
/// # let snapshot = sockeye::stats::Snapshot::default();
/// assert_eq!(snapshot.accepted, snapshot.refused + snapshot.open + snapshot.closed);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Connections that `accept` gave, refused ones included.
    pub accepted: u64,
    /// Of those, refused, for whatever reason; see [`Snapshot::refused_by`].
    pub refused: u64,
    /// Open now.
    pub open: u64,
    /// Closed, for whatever reason; see [`Snapshot::closed_by`].
    pub closed: u64,
    /// Bytes read from the connections that have closed.
    pub bytes_in: u64,
    /// Bytes written to the connections that have closed.
    pub bytes_out: u64,
    /// Failed calls of `accept`, those that were the peer's fault included.
    pub accept_errors: u64,
    /// Times that the global limit stopped the accepting.
    pub deferrals: u64,
    /// How long it was stopped, in sum; a stop that lasts still counts when it is over.
    pub deferred: Duration,
    closed_by: [u64; CloseReason::ALL.len()],
    refused_by: [u64; RefuseReason::ALL.len()],
}

impl Snapshot {
    fn refuse(&mut self, reason: RefuseReason) {
        self.refused += 1;
        self.refused_by[reason.index()] += 1;
    }

    /// Connections that closed for this reason. Over all of [`CloseReason::ALL`] they sum up to `closed`.
    pub fn closed_by(&self, reason: CloseReason) -> u64 {
        self.closed_by[reason.index()]
    }

    /// Connections that were refused for this reason. Over all of [`RefuseReason::ALL`] they sum up to `refused`.
    pub fn refused_by(&self, reason: RefuseReason) -> u64 {
        self.refused_by[reason.index()]
    }
}

/// Is told what happens to a server's connections. Every method does nothing unless it is written.
///
/// The methods are called on the threads that serve, between two connections' work: what takes time belongs behind
/// a queue. A panic in one is caught and dropped.
pub trait Observer: Send + Sync + 'static {
    /// All listeners of all workers are bound, and clients are taken from now on. Called once.
    fn listen(&self, _event: &Listening<'_>) {}

    /// The kernel gave a connection. It is refused or opened next, or closed if its handshake fails.
    fn accept(&self, _event: &Accepted<'_>) {}

    /// It was refused: at once, before any byte, or when its PROXY header had said who the client is.
    fn refuse(&self, _event: &Refused<'_>) {}

    /// It was handed to the service: at once, or after its PROXY header and its TLS handshake.
    fn open(&self, _event: &Opened<'_>) {}

    /// It ended. Called exactly once for each connection that was not refused, opened or not.
    fn close(&self, _event: &Closed<'_>) {}

    /// Accepting fails for want of descriptors or memory, and pauses. Told at most once a second.
    fn accept_error(&self, _event: &AcceptFailed<'_>) {}

    /// Whether [`Closed::tcp_info`] is wanted: it costs a system call for each connection. `false` unless
    /// it is written.
    fn wants_tcp_info(&self) -> bool {
        false
    }
}

/// Shared with whoever else reports: an `Arc` passes everything on.
impl<O: Observer> Observer for Arc<O> {
    fn listen(&self, event: &Listening<'_>) {
        self.as_ref().listen(event);
    }

    fn accept(&self, event: &Accepted<'_>) {
        self.as_ref().accept(event);
    }

    fn refuse(&self, event: &Refused<'_>) {
        self.as_ref().refuse(event);
    }

    fn open(&self, event: &Opened<'_>) {
        self.as_ref().open(event);
    }

    fn close(&self, event: &Closed<'_>) {
        self.as_ref().close(event);
    }

    fn accept_error(&self, event: &AcceptFailed<'_>) {
        self.as_ref().accept_error(event);
    }

    fn wants_tcp_info(&self) -> bool {
        self.as_ref().wants_tcp_info()
    }
}

/// See [`Observer::listen`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Listening<'a> {
    /// As [`Server::addresses`](crate::Server::addresses).
    pub addresses: &'a [Addr],
    /// Threads that serve; 1 for [`Server::serve`](crate::Server::serve), whatever the caller's runtime has.
    pub workers: usize,
    /// The global limit, also where it was left to the descriptor limit.
    pub max_connections: usize,
}

/// See [`Observer::accept`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Accepted<'a> {
    /// Numbers the connections of a server from 1; all events of one connection carry it.
    pub id: u64,
    /// The other end of the socket: the client, or a proxy in front of it.
    pub peer: &'a Addr,
    /// The listener that it came to.
    pub listener: &'a Addr,
    /// Why it is refused next, if that is decided already.
    pub refused: Option<RefuseReason>,
}

/// See [`Observer::refuse`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refused<'a> {
    /// As in [`Accepted`].
    pub id: u64,
    /// The other end of the socket.
    pub peer: &'a Addr,
    /// The listener that it came to.
    pub listener: &'a Addr,
    /// The client that the PROXY header declared; `None` if it was refused at once.
    pub client: Option<&'a Addr>,
    /// Why.
    pub reason: RefuseReason,
}

/// See [`Observer::open`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// As in [`Accepted`].
    pub id: u64,
    /// The other end of the socket.
    pub peer: &'a Addr,
    /// From the accept until now: what the PROXY header and the TLS handshake took.
    pub after: Duration,
    /// The PROXY header, if one was required.
    pub proxy_header: Option<&'a Header>,
    /// The connection itself, not yet read from by the service.
    pub stream: &'a Stream,
}

/// See [`Observer::close`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Closed<'a> {
    /// As in [`Accepted`].
    pub id: u64,
    /// The other end of the socket.
    pub peer: &'a Addr,
    /// The client that a PROXY header declared.
    pub client: Option<&'a Addr>,
    /// Why it ended.
    pub reason: CloseReason,
    /// Bytes that the service read.
    pub bytes_in: u64,
    /// Bytes that the service wrote and the kernel took.
    pub bytes_out: u64,
    /// From the accept to the close.
    pub duration: Duration,
    /// What the kernel knew at the end, if [`Observer::wants_tcp_info`] asked for it and there is TCP below.
    pub tcp_info: Option<&'a TcpInfo>,
    /// What the service returned, or why the handshake did not come about.
    pub error: Option<&'a io::Error>,
}

/// See [`Observer::accept_error`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AcceptFailed<'a> {
    /// The listener.
    pub listener: &'a Addr,
    /// The last error.
    pub error: &'a io::Error,
    /// Failures since the last time that this was told, this one included.
    pub failures: u64,
    /// How long accepting pauses now.
    pub pause: Duration,
}

/// The counters, behind one lock: they change together, or a snapshot could show a connection that is nowhere.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Snapshot>);

impl Counters {
    pub(crate) fn snapshot(&self) -> Snapshot {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger of a server: its counters and whoever looks on.
pub(crate) struct Ledger {
    pub(crate) counters: Arc<Counters>,
    pub(crate) observer: Option<Box<dyn Observer>>,
}

impl Ledger {
    pub(crate) fn wants_tcp_info(&self) -> bool {
        self.observer
            .as_ref()
            .is_some_and(|observer| observer.wants_tcp_info())
    }

    pub(crate) fn listen(&self, event: &Listening<'_>) {
        self.tell(|observer| observer.listen(event));
    }

    /// A client was taken, and is refused if `event.refused` says so.
    pub(crate) fn accept(&self, event: &Accepted<'_>) {
        {
            let mut counters = self.counters.lock();
            counters.accepted += 1;
            match event.refused {
                Some(reason) => counters.refuse(reason),
                None => counters.open += 1,
            }
        }
        self.tell(|observer| observer.accept(event));
        if let Some(reason) = event.refused {
            let &Accepted {
                id, peer, listener, ..
            } = event;
            let refused = Refused {
                id,
                peer,
                listener,
                client: None,
                reason,
            };
            self.tell(|observer| observer.refuse(&refused));
        }
    }

    /// A client that was taken, and counted as open, is refused after all.
    pub(crate) fn refuse(&self, event: &Refused<'_>) {
        {
            let mut counters = self.counters.lock();
            counters.open -= 1;
            counters.refuse(event.reason);
        }
        self.tell(|observer| observer.refuse(event));
    }

    pub(crate) fn open(&self, event: &Opened<'_>) {
        self.tell(|observer| observer.open(event));
    }

    pub(crate) fn close(&self, event: &Closed<'_>) {
        {
            let mut counters = self.counters.lock();
            counters.open -= 1;
            counters.closed += 1;
            counters.closed_by[event.reason.index()] += 1;
            counters.bytes_in += event.bytes_in;
            counters.bytes_out += event.bytes_out;
        }
        self.tell(|observer| observer.close(event));
    }

    /// Counts a failed accept; `event` is made and told only when it is time to.
    pub(crate) fn accept_failed(&self, event: Option<&AcceptFailed<'_>>) {
        self.counters.lock().accept_errors += 1;
        if let Some(event) = event {
            self.tell(|observer| observer.accept_error(event));
        }
    }

    pub(crate) fn deferred(&self, (deferrals, deferred): (u64, Duration)) {
        let mut counters = self.counters.lock();
        counters.deferrals = deferrals;
        counters.deferred = deferred;
    }

    /// A panic here would end the accept loop, or the process if it came while a task unwinds.
    fn tell(&self, event: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = &self.observer {
            let _ = catch_unwind(AssertUnwindSafe(|| event(observer.as_ref())));
        }
    }
}
