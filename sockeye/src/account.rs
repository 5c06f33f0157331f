//! What one connection comes to: what is known of it while it lives, and its one entry in the ledger when it ends.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::addr::Addr;
use crate::admission::RefuseReason;
use crate::close_reason::CloseReason;
use crate::proxy_protocol::Header;
use crate::shared::{Core, Permit};
use crate::stats::{Closed, Opened, Refused};
use crate::stream::Stream;

/// Settles one connection, once: at the end of its task, or when it is dropped, which is when the task is aborted or a
/// runtime is dropped with all its tasks.
pub(crate) struct Account {
    pub(crate) record: Arc<Record>,
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
                peer,
                declared: OnceLock::new(),
                opened: Instant::now(),
                served_ms: AtomicU32::new(0),
                bytes_in: AtomicU64::new(0),
                bytes_out: AtomicU64::new(0),
                moved_ms: AtomicU64::new(0),
                flags: AtomicU8::new(0),
                slot: Mutex::new(Slot::Back(stream)),
            }),
            permit: Some(permit),
        }
    }

    /// The place of the connection, until it is settled.
    pub(crate) fn permit(&mut self) -> Option<&mut Permit> {
        self.permit.as_mut()
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
            peer: &record.peer,
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
            peer: &record.peer,
            client: record.declared_client(),
            reason,
            bytes_in: record.bytes_in.load(Ordering::Relaxed),
            bytes_out: record.bytes_out.load(Ordering::Relaxed),
            duration: record.opened.elapsed(),
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
pub(crate) struct Record {
    pub(crate) core: Arc<Core>,
    pub(crate) id: u64,
    /// The other end of the socket.
    pub(crate) peer: Addr,
    declared: OnceLock<Box<Declared>>,
    pub(crate) opened: Instant,
    /// When it was handed to its service, in milliseconds after `opened`.
    served_ms: AtomicU32,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// When a byte last moved, in milliseconds after `opened`; kept only if there is an idle timeout.
    moved_ms: AtomicU64,
    flags: AtomicU8,
    slot: Mutex<Slot>,
}

/// What a trusted proxy said of a connection.
struct Declared {
    header: Header,
    client: Option<Addr>,
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

/// Where the stream is: out with the [`Conn`], or handed back.
enum Slot {
    Out(Option<Waker>),
    Back(Stream),
}

impl Record {
    /// Notes what the PROXY header says.
    pub(crate) fn declare(&self, header: Header) {
        let client = header.client().map(Addr::from);
        // There is one header on a connection.
        let _ = self.declared.set(Box::new(Declared { header, client }));
    }

    pub(crate) fn proxy_header(&self) -> Option<&Header> {
        self.declared.get().map(|declared| &declared.header)
    }

    fn declared_client(&self) -> Option<&Addr> {
        self.declared.get()?.client.as_ref()
    }

    /// The client that the PROXY header declared, else the other end of the socket.
    pub(crate) fn client(&self) -> &Addr {
        self.declared_client().unwrap_or(&self.peer)
    }

    /// Tells that the connection is handed to its service, after its handshake if there was one.
    pub(crate) fn served(&self) {
        let after = self.opened.elapsed();
        let ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        self.served_ms.store(ms, Ordering::Relaxed);
        self.moved_ms.store(ms.into(), Ordering::Relaxed);
        let slot = self.slot();
        if let Slot::Back(stream) = &*slot {
            self.core.ledger.open(&Opened {
                id: self.id,
                peer: &self.peer,
                after,
                proxy_header: self.proxy_header(),
                stream,
            });
        }
    }

    /// Only the task that holds the `Conn` writes, so a plain load and store is enough, and cheaper than `fetch_add`.
    pub(crate) fn moved(&self, counter: &AtomicU64, bytes: usize) {
        let sum = counter.load(Ordering::Relaxed) + bytes as u64;
        counter.store(sum, Ordering::Relaxed);
        if self.core.timeouts.idle.is_some() {
            let now = self.opened.elapsed().as_millis() as u64;
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
        self.flags.load(Ordering::Relaxed) & flags != 0
    }

    fn flag(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Relaxed);
    }

    pub(crate) fn hand_back(&self, stream: Stream) {
        let before = std::mem::replace(&mut *self.slot(), Slot::Back(stream));
        if let Slot::Out(Some(waiting)) = before {
            waiting.wake();
        }
    }

    /// Waits for the stream to be handed back: at once, unless the service gave its `Conn` to another task.
    pub(crate) async fn returned(&self) -> Stream {
        poll_fn(|cx| {
            let mut slot = self.slot();
            match std::mem::replace(&mut *slot, Slot::Out(Some(cx.waker().clone()))) {
                Slot::Back(stream) => {
                    *slot = Slot::Out(None);
                    Poll::Ready(stream)
                }
                Slot::Out(_) => Poll::Pending,
            }
        })
        .await
    }

    pub(crate) fn take(&self) -> Option<Stream> {
        match std::mem::replace(&mut *self.slot(), Slot::Out(None)) {
            Slot::Back(stream) => Some(stream),
            Slot::Out(_) => None,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_deadline(&self) -> Option<(Instant, CloseReason)> {
        let heard = self.bytes_in.load(Ordering::Relaxed) > 0;
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        let timeouts = &self.core.timeouts;
        let served = Duration::from_millis(self.served_ms.load(Ordering::Relaxed).into());
        let opened = self.opened;
        timeouts.next(opened, opened + served, heard, opened + moved)
    }
}
