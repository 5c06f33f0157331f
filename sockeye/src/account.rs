//! What one connection comes to: what is known of it while it lives, and its one entry in the ledger when it ends.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::addr::Addr;
use crate::close_reason::CloseReason;
use crate::shared::{Core, Permit};
use crate::stats::Closed;
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
                opened: Instant::now(),
                bytes_in: AtomicU64::new(0),
                bytes_out: AtomicU64::new(0),
                moved_ms: AtomicU64::new(0),
                flags: AtomicU8::new(0),
                slot: Mutex::new(Slot::Back(stream)),
            }),
            permit: Some(permit),
        }
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
    pub(crate) peer: Addr,
    opened: Instant,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    /// When a byte last moved, in milliseconds after `opened`; kept only if there is an idle timeout.
    moved_ms: AtomicU64,
    flags: AtomicU8,
    slot: Mutex<Slot>,
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

/// Where the stream is: out with the [`Conn`], or handed back.
enum Slot {
    Out(Option<Waker>),
    Back(Stream),
}

impl Record {
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
            _ => {}
        }
        error
    }

    /// Why a connection ended whose service has returned: what was seen of the peer says more than the error that the
    /// service made of it.
    pub(crate) fn reason(&self, result: io::Result<()>) -> (CloseReason, Option<io::Error>) {
        let reason = match result {
            _ if self.has(RESET) => CloseReason::Reset,
            _ if self.has(LOST) => CloseReason::PeerLost,
            Err(error) => return (CloseReason::Error, Some(error)),
            Ok(()) if self.has(PEER_FIN) && !self.has(FIN_BEFORE_PEER) => CloseReason::PeerClosed,
            Ok(()) => CloseReason::Finished,
        };
        (reason, None)
    }

    /// Whether the peer will send no more: there is nobody to close in good order for.
    pub(crate) fn peer_is_gone(&self) -> bool {
        self.has(PEER_FIN | RESET | LOST)
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
        timeouts.next(self.opened, heard, self.opened + moved)
    }
}
