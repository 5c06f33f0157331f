//! One connection's life: it is served under its deadlines, closed in good order, and accounted for, once.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::addr::Addr;
use crate::server::{Core, Permit};
use crate::service::Service;
use crate::shutdown::DrainSignal;
use crate::stats::Closed;
use crate::stream::Stream;
use crate::tcp_info::TcpInfo;

/// How long a server waits for a client. Every wait ends in a closed connection, with the reason of its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the accept to the client's first byte. Default `None`.
    pub first_byte: Option<Duration>,
    /// Nothing read and nothing written. Default `None`: an echo-like service cannot know how long its clients
    /// think. It bounds the peer that never reads, too.
    pub idle: Option<Duration>,
    /// The whole connection, however busy. Default `None`.
    pub lifetime: Option<Duration>,
    /// When we close first: how long to read and drop what the client still sends, waiting for its FIN
    /// ([`Stream::close`]). Default 2 s.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: None,
            idle: None,
            lifetime: None,
            linger: Duration::from_secs(2),
        }
    }
}

impl Timeouts {
    /// When the next deadline is, and which. Pure.
    fn next(&self, opened: Instant, heard: bool, moved: Instant) -> Option<(Instant, CloseReason)> {
        let first_byte = self.first_byte.filter(|_| !heard);
        [
            (self.lifetime, opened, CloseReason::Lifetime),
            (first_byte, opened, CloseReason::FirstByteTimeout),
            (self.idle, moved, CloseReason::Idle),
        ]
        .into_iter()
        // A deadline past the end of time is none.
        .filter_map(|(limit, since, reason)| Some((since.checked_add(limit?)?, reason)))
        .min_by_key(|(deadline, _)| *deadline)
    }

    fn any(&self) -> bool {
        self.first_byte.is_some() || self.idle.is_some() || self.lifetime.is_some()
    }
}

/// Why a connection closed: each has exactly one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client sent FIN, and then the service ended.
    PeerClosed,
    /// The service ended first.
    Finished,
    /// The client reset the connection.
    Reset,
    /// The client was not heard from any more: the kernel gave up (`ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`).
    PeerLost,
    /// [`Timeouts::first_byte`].
    FirstByteTimeout,
    /// [`Timeouts::idle`].
    Idle,
    /// [`Timeouts::lifetime`].
    Lifetime,
    /// The service returned an error of its own.
    Error,
    /// The service panicked.
    Panic,
    /// The server was shut down before the connection was over.
    Aborted,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::PeerClosed,
        Self::Finished,
        Self::Reset,
        Self::PeerLost,
        Self::FirstByteTimeout,
        Self::Idle,
        Self::Lifetime,
        Self::Error,
        Self::Panic,
        Self::Aborted,
    ];

    /// The name in events: `peer_closed`, `finished`, `reset` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Finished => "finished",
            Self::Reset => "reset",
            Self::PeerLost => "peer_lost",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Aborted => "aborted",
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Whether the peer is to learn of it by a reset.
    fn is_abrupt(self) -> bool {
        matches!(self, Self::Panic | Self::Aborted)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A connection, in the hands of its service. Reads and writes as [`Stream`] does, and counts the bytes.
///
/// Dropping it ends the conversation: the server then delivers what was written and closes in good order. Keep it in
/// the service's own task: moved to another, it is out of reach of the deadlines and of an abort until it is
/// dropped there.
pub struct Conn {
    /// `Some` from the opening of the connection until the drop, which hands it back.
    stream: Option<Stream>,
    record: Arc<Record>,
}

impl Conn {
    /// Takes the stream out of the record.
    fn new(record: &Arc<Record>) -> Self {
        Self {
            stream: record.take(),
            record: Arc::clone(record),
        }
    }

    /// Numbers the connections of a server from 1.
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// The client.
    pub fn peer(&self) -> &Addr {
        &self.record.peer
    }

    /// Our end: on a listener for every interface, the address that the client chose. Costs a system call.
    pub fn local(&self) -> io::Result<Addr> {
        self.stream().local_addr()
    }

    /// The socket below.
    pub fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("held until the drop")
    }

    /// What the kernel knows about the connection: see [`Stream::tcp_info`].
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.stream().tcp_info()
    }

    /// Tells when the server drains, so that a service which waits for a next request can end instead.
    pub fn drain_signal(&self) -> DrainSignal {
        DrainSignal::new(self.record.core.phase.subscribe())
    }

    fn parts(&mut self) -> (Pin<&mut Stream>, &Record) {
        let stream = self.stream.as_mut().expect("held until the drop");
        (Pin::new(stream), &self.record)
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (stream, record) = self.get_mut().parts();
        let (before, room) = (buf.filled().len(), buf.remaining());
        match ready!(stream.poll_read(cx, buf)) {
            Ok(()) => {
                let bytes = buf.filled().len() - before;
                if bytes == 0 && room > 0 {
                    record.flag(PEER_FIN);
                } else {
                    record.moved(&record.bytes_in, bytes);
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(record.failed(error))),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (stream, record) = self.get_mut().parts();
        let written = ready!(stream.poll_write(cx, buf));
        Poll::Ready(record.wrote(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (stream, record) = self.get_mut().parts();
        let written = ready!(stream.poll_write_vectored(cx, bufs));
        Poll::Ready(record.wrote(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, record) = self.get_mut().parts();
        let flushed = ready!(stream.poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| record.failed(error)))
    }

    /// Sends FIN.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, record) = self.get_mut().parts();
        let sent = ready!(stream.poll_shutdown(cx));
        record.fin_sent();
        Poll::Ready(sent.map_err(|error| record.failed(error)))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.record.hand_back(stream);
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.record.id)
            .field("peer", &self.record.peer)
            .finish_non_exhaustive()
    }
}

/// Serves one connection from its admission to its account. The body of a connection's task.
///
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and every idle connection would pay for it"
)]
pub(crate) fn drive<S: Service>(
    service: Arc<S>,
    mut account: Account,
) -> impl Future<Output = ()> + Send {
    async move {
        let ending = {
            let record = &account.record;
            let mut serving = pin!(service.serve(Conn::new(record)));
            let mut deadline = Deadline::default();
            poll_fn(|cx| {
                match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => deadline.poll(cx, record).map(Ending::Deadline),
                    Ok(Poll::Ready(result)) => Poll::Ready(Ending::Returned(result)),
                    // The panic hook has reported it.
                    Err(_) => Poll::Ready(Ending::Panicked),
                }
            })
            .await
        };
        // Boxed, so that an idle connection does not pay for closing, which needs more memory than waiting does.
        Box::pin(close(ending, &mut account)).await;
    }
}

/// How the service came to its end.
enum Ending {
    Returned(io::Result<()>),
    Deadline(CloseReason),
    Panicked,
}

/// Closes the connection after its service and settles its account.
async fn close(ending: Ending, account: &mut Account) {
    let mut stream = account.record.returned().await;
    let seen = account.record.flags.load(Ordering::Relaxed);
    let (reason, error) = match ending {
        Ending::Panicked => (CloseReason::Panic, None),
        Ending::Deadline(reason) => (reason, None),
        Ending::Returned(_) if seen & RESET != 0 => (CloseReason::Reset, None),
        Ending::Returned(_) if seen & LOST != 0 => (CloseReason::PeerLost, None),
        Ending::Returned(Err(error)) => (CloseReason::Error, Some(error)),
        Ending::Returned(Ok(())) if seen & PEER_FIN == 0 => (CloseReason::Finished, None),
        Ending::Returned(Ok(())) if seen & FIN_BEFORE_PEER != 0 => (CloseReason::Finished, None),
        Ending::Returned(Ok(())) => (CloseReason::PeerClosed, None),
    };
    if !reason.is_abrupt() && seen & (PEER_FIN | RESET | LOST) == 0 {
        stream.linger(account.record.core.timeouts.linger).await;
    }
    account.record.hand_back(stream);
    account.settle(reason, error);
}

/// Settles one connection, once: at the end of its task, or when it is dropped, which is when the task is aborted or a
/// runtime is dropped with all its tasks.
pub(crate) struct Account {
    record: Arc<Record>,
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

    fn settle(&mut self, reason: CloseReason, error: Option<io::Error>) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let record = &self.record;
        let stream = record.take();
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
        // Only now that the descriptor is closed.
        drop(permit);
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
        record.core.tasks.ended(record.id);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(CloseReason::Aborted, None);
    }
}

/// What is known of one connection, shared by its [`Conn`] and its [`Account`].
struct Record {
    core: Arc<Core>,
    id: u64,
    peer: Addr,
    opened: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
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
    fn moved(&self, counter: &AtomicU64, bytes: usize) {
        let sum = counter.load(Ordering::Relaxed) + bytes as u64;
        counter.store(sum, Ordering::Relaxed);
        if self.core.timeouts.idle.is_some() {
            let now = self.opened.elapsed().as_millis() as u64;
            self.moved_ms.store(now, Ordering::Relaxed);
        }
    }

    fn wrote(&self, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Ok(bytes) => {
                self.moved(&self.bytes_out, bytes);
                Ok(bytes)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Notes what an error of the socket says about the peer.
    fn failed(&self, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            // A write after our own FIN fails so as well, and then it is the service's mistake.
            Some(libc::EPIPE) if self.flags.load(Ordering::Relaxed) & FIN_SENT != 0 => {}
            Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED) => self.flag(RESET),
            Some(libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => self.flag(LOST),
            _ => {}
        }
        error
    }

    fn fin_sent(&self) {
        self.flag(FIN_SENT);
        if self.flags.load(Ordering::Relaxed) & PEER_FIN == 0 {
            self.flag(FIN_BEFORE_PEER);
        }
    }

    fn flag(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Relaxed);
    }

    fn hand_back(&self, stream: Stream) {
        let before = std::mem::replace(&mut *self.slot(), Slot::Back(stream));
        if let Slot::Out(Some(waiting)) = before {
            waiting.wake();
        }
    }

    /// Waits for the stream to be handed back: at once, unless the service gave its `Conn` to another task.
    async fn returned(&self) -> Stream {
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

    fn take(&self) -> Option<Stream> {
        match std::mem::replace(&mut *self.slot(), Slot::Out(None)) {
            Slot::Back(stream) => Some(stream),
            Slot::Out(_) => None,
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_deadline(&self) -> Option<(Instant, CloseReason)> {
        let heard = self.bytes_in.load(Ordering::Relaxed) > 0;
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        let timeouts = &self.core.timeouts;
        timeouts.next(self.opened, heard, self.opened + moved)
    }
}

/// Waits for whichever deadline is next. Costs a pointer where there are no timeouts.
#[derive(Default)]
struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ready with the reason once a deadline has passed.
    ///
    /// The timer is not set anew for each byte: it fires at a moment that was right once, looks at the record, and is
    /// set to what is right now.
    fn poll(&mut self, cx: &mut Context<'_>, record: &Record) -> Poll<CloseReason> {
        if !record.core.timeouts.any() {
            return Poll::Pending;
        }
        loop {
            let Some((deadline, reason)) = record.next_deadline() else {
                return Poll::Pending;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(reason);
            }
            timer.as_mut().reset(deadline);
        }
    }
}
