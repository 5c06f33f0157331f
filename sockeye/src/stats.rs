//! What happened, in numbers ([`Snapshot`]) and as it happens ([`Observer`]).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::addr::Addr;
use crate::admission::RefuseReason;
use crate::close_reason::CloseReason;
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
    /// Of those, closed at once: the per-source limit.
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
    by_reason: [u64; CloseReason::ALL.len()],
}

impl Snapshot {
    /// Connections that closed for this reason. Over all of [`CloseReason::ALL`] they sum up to `closed`.
    pub fn closed_by(&self, reason: CloseReason) -> u64 {
        self.by_reason[reason.index()]
    }
}

/// Is told what happens to a server's connections. Every method does nothing unless it is written.
///
/// The methods are called on the threads that serve, between two connections' work: what takes time belongs behind
/// a queue. A panic in one is caught and dropped.
pub trait Observer: Send + Sync + 'static {
    /// All listeners of all workers are bound, and clients are taken from now on. Called once.
    fn listen(&self, _event: &Listening<'_>) {}

    /// The kernel gave a connection. It is refused or opened next.
    fn accept(&self, _event: &Accepted<'_>) {}

    /// It was closed at once, before any byte.
    fn refuse(&self, _event: &Refused<'_>) {}

    /// It was handed to the service.
    fn open(&self, _event: &Opened<'_>) {}

    /// It ended. Called exactly once for each connection that was opened.
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
    /// The client.
    pub peer: &'a Addr,
    /// The listener that it came to.
    pub listener: &'a Addr,
}

/// See [`Observer::refuse`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refused<'a> {
    /// As in [`Accepted`].
    pub id: u64,
    /// The client.
    pub peer: &'a Addr,
    /// Why.
    pub reason: RefuseReason,
}

/// See [`Observer::open`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// As in [`Accepted`].
    pub id: u64,
    /// The client.
    pub peer: &'a Addr,
}

/// See [`Observer::close`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Closed<'a> {
    /// As in [`Accepted`].
    pub id: u64,
    /// The client.
    pub peer: &'a Addr,
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
    /// What the service returned, if it failed.
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

    pub(crate) fn refuse(&self, listener: &Addr, event: &Refused<'_>) {
        {
            let mut counters = self.counters.lock();
            counters.accepted += 1;
            counters.refused += 1;
        }
        let (id, peer) = (event.id, event.peer);
        self.tell(|observer| {
            observer.accept(&Accepted { id, peer, listener });
            observer.refuse(event);
        });
    }

    pub(crate) fn open(&self, listener: &Addr, event: &Opened<'_>) {
        {
            let mut counters = self.counters.lock();
            counters.accepted += 1;
            counters.open += 1;
        }
        let (id, peer) = (event.id, event.peer);
        self.tell(|observer| {
            observer.accept(&Accepted { id, peer, listener });
            observer.open(event);
        });
    }

    pub(crate) fn close(&self, event: &Closed<'_>) {
        {
            let mut counters = self.counters.lock();
            counters.open -= 1;
            counters.closed += 1;
            counters.by_reason[event.reason.index()] += 1;
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
