//! What one connection comes to: what is known of it while it lives, and its one entry in the ledger when it ends.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::addr::Addr;
use crate::admission::RefuseReason;
use crate::close_reason::CloseReason;
use crate::lent::{OnLoan, Peer};
use crate::proxy_protocol::Header;
use crate::shared::{Core, Permit};
use crate::stats::{Closed, Opened, Refused};
use crate::stream::Stream;

/// Settles one connection, once: at the end of its task, or when it is dropped, which is when the task is aborted or a
/// runtime is dropped with all its tasks.
pub(crate) struct Account {
    pub(crate) record: Arc<Record>,
    pub(crate) opened: Instant,
    /// `None` once it is settled.
    permit: Option<Permit>,
}

impl Account {
    pub(crate) fn open(
        core: Arc<Core>,
        id: u64,
        stream: Stream,
        peer: Addr,
        permit: Permit,
    ) -> Self {
        Self {
            record: Arc::new(Record {
                core,
                id,
                peer: Party::Peer(peer),
                bytes_in: AtomicU64::new(0),
                bytes_out: AtomicU64::new(0),
                moved_ms: AtomicU64::new(0),
                ends: Mutex::new(Some(Box::new(Ends {
                    slot: Slot::Back(stream),
                    flags: 0,
                }))),
            }),
            opened: Instant::now(),
            permit: Some(permit),
        }
    }

    /// The place of the connection, until it is settled.
    pub(crate) fn permit(&mut self) -> Option<&mut Permit> {
        self.permit.as_mut()
    }

    /// Notes what the PROXY header says.
    pub(crate) fn declare(&mut self, header: Header) {
        let record = Arc::get_mut(&mut self.record)
            .expect("nobody else has the record before the connection is served");
        record.peer.declare(header);
    }

    /// Tells that the connection is handed to its service, after its handshake if there was one. Returns when that was,
    /// in milliseconds after `opened`.
    pub(crate) fn served(&self) -> u32 {
        let after = self.opened.elapsed();
        let record = &self.record;
        record.note_time();
        if let Some(Slot::Back(stream)) = record.ends().as_deref().map(|ends| &ends.slot) {
            record.core.ledger.open(&Opened {
                id: record.id,
                peer: record.peer(),
                after,
                proxy_header: record.proxy_header(),
                stream,
            });
        }
        u32::try_from(after.as_millis()).unwrap_or(u32::MAX)
    }

    /// When the connection, which was handed to its service `served_ms` after it was opened, comes to its next
    /// deadline, and which that is.
    pub(crate) fn next_deadline(&self, served_ms: u32) -> Option<(Instant, CloseReason)> {
        let record = &self.record;
        if record.core.timeouts.watch_bytes() {
            record.look();
        }
        let heard = record.bytes_in.load(Ordering::Relaxed) > 0;
        let moved = Duration::from_millis(record.moved_ms.load(Ordering::Relaxed));
        let served = Duration::from_millis(served_ms.into());
        let core = &record.core;
        core.timeouts
            .next(self.opened, self.opened + served, heard, core.began + moved)
    }

    /// Settles a connection that is refused after all, now that its PROXY header has said who the client is.
    pub(crate) fn refuse(&mut self, listener: &Addr, reason: RefuseReason) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let record = &self.record;
        drop(record.take());
        record.core.ledger.refuse(&Refused {
            id: record.id,
            peer: record.peer(),
            listener,
            client: Some(record.client()),
            reason,
        });
        drop(permit);
        record.core.tasks.ended(record.id);
    }

    pub(crate) fn settle(
        &mut self,
        stream: Option<Stream>,
        reason: CloseReason,
        error: Option<io::Error>,
    ) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let record = &self.record;
        let ledger = &record.core.ledger;
        let tcp_info = stream
            .as_ref()
            .filter(|_| ledger.wants_tcp_info())
            .and_then(Stream::tcp_info);
        if reason.is_abrupt() {
            stream.into_iter().for_each(Stream::abort);
        } else {
            drop(stream);
        }
        ledger.close(&Closed {
            id: record.id,
            peer: record.peer(),
            client: record.peer.declared_client(),
            reason,
            bytes_in: record.bytes_in.load(Ordering::Relaxed),
            bytes_out: record.bytes_out.load(Ordering::Relaxed),
            duration: self.opened.elapsed(),
            tcp_info: tcp_info.as_ref(),
            error: error.as_ref(),
        });
        // Only now that the descriptor is closed and counted as closed.
        drop(permit);
        record.core.tasks.ended(record.id);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Most panics are caught in `drive`; this is one in making the service's future, or in dropping it.
        let reason = if std::thread::panicking() {
            CloseReason::Panic
        } else {
            CloseReason::Aborted
        };
        let stream = self.record.take();
        self.settle(stream, reason, None);
    }
}

/// What is known of one connection, shared by its `Conn` and its `Account`.
///
/// Every idle connection has one, so what most connections do not need at that time is boxed.
pub(crate) struct Record {
    pub(crate) core: Arc<Core>,
    pub(crate) id: u64,
    peer: Party,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// When a byte last moved, in milliseconds after `Core::began`; kept only if there is an idle timeout.
    moved_ms: AtomicU64,
    /// `None` while it is served and nothing has been seen of its end: for most of its life.
    ends: Mutex<Option<Box<Ends>>>,
}

/// Who is at the other end.
enum Party {
    /// The other end of the socket, of whom nobody has said anything.
    Peer(Addr),
    Declared(Box<Declared>),
}

/// What a trusted proxy said of a connection.
struct Declared {
    /// The proxy: the other end of the socket.
    proxy: Addr,
    header: Header,
    client: Option<Addr>,
}

impl Party {
    fn declare(&mut self, header: Header) {
        // There is one header on a connection.
        if let Self::Peer(proxy) = self {
            let client = header.client().map(Addr::from);
            let proxy = std::mem::replace(proxy, Addr::Unix(None));
            *self = Self::Declared(Box::new(Declared {
                proxy,
                header,
                client,
            }));
        }
    }

    fn socket_peer(&self) -> &Addr {
        match self {
            Self::Peer(peer) => peer,
            Self::Declared(declared) => &declared.proxy,
        }
    }

    fn declared_client(&self) -> Option<&Addr> {
        match self {
            Self::Peer(_) => None,
            Self::Declared(declared) => declared.client.as_ref(),
        }
    }
}

/// What is known at the beginning and at the end of a connection.
#[derive(Default)]
struct Ends {
    slot: Slot,
    flags: u8,
}

/// The peer's end of stream was read.
const PEER_FIN: u8 = 1;
/// We sent FIN.
const FIN_SENT: u8 = 2;
/// We sent FIN when the peer had not, so far as we had read.
const FIN_BEFORE_PEER: u8 = 4;
/// The peer reset the connection.
const RESET: u8 = 8;
/// The kernel gave the peer up.
const LOST: u8 = 16;
/// TLS ended without close_notify.
const TRUNCATED: u8 = 32;
/// The service wants a reset.
const RESET_WANTED: u8 = 64;

/// Where the stream is: out with the [`Conn`](crate::Conn), in use by somebody else, back from there, or handed back. Whoever
/// waits for it to come back leaves a waker.
enum Slot {
    Out(Option<Waker>),
    Lent(Box<OnLoan>, Option<Waker>),
    Returned(Box<OnLoan>),
    Back(Stream),
}

impl Default for Slot {
    fn default() -> Self {
        Self::Out(None)
    }
}

impl Record {
    /// The other end of the socket.
    pub(crate) fn peer(&self) -> &Addr {
        self.peer.socket_peer()
    }

    pub(crate) fn proxy_header(&self) -> Option<&Header> {
        match &self.peer {
            Party::Peer(_) => None,
            Party::Declared(declared) => Some(&declared.header),
        }
    }

    /// The client that the PROXY header declared, else the other end of the socket.
    pub(crate) fn client(&self) -> &Addr {
        self.peer.declared_client().unwrap_or_else(|| self.peer())
    }

    /// Only the task that holds the `Conn` writes, so a plain load and store is enough, and cheaper than `fetch_add`.
    pub(crate) fn moved(&self, counter: &AtomicU64, bytes: usize) {
        let sum = counter.load(Ordering::Relaxed) + bytes as u64;
        counter.store(sum, Ordering::Relaxed);
        self.note_time();
    }

    fn note_time(&self) {
        if self.core.timeouts.idle.is_some() {
            let now = self.core.began.elapsed().as_millis() as u64;
            self.moved_ms.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn wrote(&self, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Ok(bytes) => {
                self.moved(&self.bytes_out, bytes);
                Ok(bytes)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Notes what an error of the socket says about the peer.
    pub(crate) fn failed(&self, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            // A write after our own FIN fails so as well, and then it is the service's mistake.
            Some(libc::EPIPE) if self.has(FIN_SENT) => {}
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => self.flag(RESET),
            Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => self.flag(LOST),
            // A socket itself ends without an error; only TLS can tell an end from a cut.
            None if error.kind() == io::ErrorKind::UnexpectedEof => self.flag(TRUNCATED),
            _ => {}
        }
        error
    }

    /// Why a connection ended that came to this error of the socket before its service, or after it.
    pub(crate) fn reason_of_socket(&self, error: io::Error) -> (CloseReason, Option<io::Error>) {
        let error = self.failed(error);
        self.reason(Err(error))
    }

    /// Why a connection ended whose service has returned: what was seen of the peer says more than the error that the
    /// service made of it.
    pub(crate) fn reason(&self, result: io::Result<()>) -> (CloseReason, Option<io::Error>) {
        let reason = match result {
            _ if self.has(RESET) => CloseReason::Reset,
            _ if self.has(LOST) => CloseReason::PeerLost,
            _ if self.has(TRUNCATED) => CloseReason::Truncated,
            _ if self.has(RESET_WANTED) => CloseReason::ResetSent,
            Err(error) => return (CloseReason::Error, Some(error)),
            Ok(()) if self.has(PEER_FIN) && !self.has(FIN_BEFORE_PEER) => CloseReason::PeerClosed,
            Ok(()) => CloseReason::Finished,
        };
        (reason, None)
    }

    /// Whether the peer has sent its end of the stream.
    pub(crate) fn peer_has_closed(&self) -> bool {
        self.has(PEER_FIN)
    }

    /// Whether there is nobody left to close in good order for.
    pub(crate) fn peer_is_gone(&self) -> bool {
        self.has(RESET | LOST)
    }

    pub(crate) fn want_reset(&self) {
        self.flag(RESET_WANTED);
    }

    pub(crate) fn fin_seen(&self) {
        self.flag(PEER_FIN);
    }

    pub(crate) fn fin_sent(&self) {
        self.flag(FIN_SENT);
        if !self.has(PEER_FIN) {
            self.flag(FIN_BEFORE_PEER);
        }
    }

    /// Whether one of these was noted.
    fn has(&self, flags: u8) -> bool {
        self.ends()
            .as_deref()
            .is_some_and(|ends| ends.flags & flags != 0)
    }

    fn flag(&self, flag: u8) {
        self.ends().get_or_insert_default().flags |= flag;
    }

    pub(crate) fn hand_back(&self, stream: Stream) {
        self.put_back(Slot::Back(stream));
    }

    fn put_back(&self, slot: Slot) {
        let before = std::mem::replace(&mut self.ends().get_or_insert_default().slot, slot);
        if let Slot::Out(Some(waiting)) | Slot::Lent(_, Some(waiting)) = before {
            waiting.wake();
        }
    }

    /// Takes a socket that somebody else is to use.
    pub(crate) fn lend(&self, on_loan: OnLoan) {
        self.ends().get_or_insert_default().slot = Slot::Lent(Box::new(on_loan), None);
    }

    /// Counts what has moved on a stream that somebody else uses.
    fn look(&self) {
        if let Some(Slot::Lent(on_loan, _)) = self.ends().as_deref_mut().map(|ends| &mut ends.slot)
        {
            self.count(on_loan);
        }
    }

    fn count(&self, on_loan: &mut OnLoan) {
        let Some((moved, ago)) = on_loan.look() else {
            return;
        };
        self.bytes_in.fetch_add(moved.bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(moved.bytes_out, Ordering::Relaxed);
        let when = self.core.began.elapsed().saturating_sub(ago);
        self.moved_ms
            .fetch_max(when.as_millis() as u64, Ordering::Relaxed);
    }

    /// The socket comes back from somebody else.
    pub(crate) fn take_back(&self) {
        let on_loan = {
            let mut ends = self.ends();
            let slot = &mut ends.get_or_insert_default().slot;
            match std::mem::take(slot) {
                Slot::Lent(on_loan, waiting) => {
                    *slot = Slot::Out(waiting);
                    Some(on_loan)
                }
                other => {
                    *slot = other;
                    None
                }
            }
        };
        let Some(mut on_loan) = on_loan else { return };
        self.count(&mut on_loan);
        on_loan.unlinger();
        match on_loan.peer() {
            Ok(Peer::Open) => {}
            Ok(Peer::Closed) => {
                self.fin_seen();
                on_loan.end();
            }
            Err(error) => {
                self.failed(error);
            }
        }
        self.put_back(Slot::Returned(on_loan));
    }

    /// Waits for the stream to be handed back: at once, unless the service gave its `Conn` to another task. `None` if it was
    /// lent and the runtime has no memory to have it again: then it is closed.
    pub(crate) async fn returned(&self) -> Option<Stream> {
        poll_fn(|cx| {
            let mut ends = self.ends();
            let slot = &mut ends.get_or_insert_default().slot;
            match std::mem::take(slot) {
                Slot::Back(stream) => Poll::Ready(Some(stream)),
                Slot::Returned(on_loan) => Poll::Ready(on_loan.into_stream().ok()),
                Slot::Lent(on_loan, _) => {
                    *slot = Slot::Lent(on_loan, Some(cx.waker().clone()));
                    Poll::Pending
                }
                Slot::Out(_) => {
                    *slot = Slot::Out(Some(cx.waker().clone()));
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(crate) fn take(&self) -> Option<Stream> {
        let mut ends = self.ends();
        let known = ends.as_deref_mut()?;
        let slot = std::mem::take(&mut known.slot);
        if known.flags == 0 {
            *ends = None;
        }
        match slot {
            Slot::Back(stream) => Some(stream),
            Slot::Lent(on_loan, _) | Slot::Returned(on_loan) => on_loan.break_off(),
            Slot::Out(_) => None,
        }
    }

    fn ends(&self) -> MutexGuard<'_, Option<Box<Ends>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
