//! TLS over a connected socket.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::task::AtomicWaker;
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;
use crate::tls::Version;
use crate::tls::error::HandshakeError;

/// TLS over a connected socket: reads and writes what is inside.
///
/// It can be used as a socket can: what was written goes out, whether or not it is flushed. rustls keeps up to 64 KiB that
/// the socket would not take; tokio-rustls leaves it there until the next write or flush, and a service that writes an
/// answer and then reads the next question would never send the end of the answer. So reading sends it, too.
pub struct TlsStream {
    inner: tokio_rustls::TlsStream<Noted>,
    /// For waits until the socket can be written to, which the reading task and the writing task may both be in: the
    /// socket itself remembers only one.
    both: Waker,
    sides: Arc<Sides>,
}

/// The task that reads and the task that writes, where they wait for the same thing. Often they are one.
#[derive(Debug, Default)]
struct Sides {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

#[derive(Clone, Copy)]
enum Side {
    Reader,
    Writer,
}

impl Wake for Sides {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

impl TlsStream {
    pub(super) fn new(inner: tokio_rustls::TlsStream<Noted>) -> Self {
        let sides = Arc::new(Sides::default());
        Self {
            inner,
            both: Waker::from(Arc::clone(&sides)),
            sides,
        }
    }

    /// The socket below.
    pub(crate) fn socket(&self) -> &Stream {
        &self.inner.get_ref().0.stream
    }

    /// Bytes that the socket has taken, handshake and all.
    pub(crate) fn sent(&self) -> u64 {
        self.inner.get_ref().0.sent
    }

    /// What was agreed in the handshake.
    pub fn session(&self) -> Session {
        let common = self.inner.get_ref().1;
        let version = match common.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Some(Version::Tls12),
            Some(ProtocolVersion::TLSv1_3) => Some(Version::Tls13),
            _ => None,
        };
        let cipher = common.negotiated_cipher_suite().and_then(|suite| {
            // rustls says TLS13_ where the registry says TLS_ (RFC 8446, appendix B.4).
            Some(suite.suite().as_str()?.replace("TLS13_", "TLS_"))
        });
        let group = common.negotiated_key_exchange_group();
        let certificates = common.peer_certificates().unwrap_or_default();
        let (server_name, tickets) = match &self.inner {
            tokio_rustls::TlsStream::Server(server) => (server.get_ref().1.server_name(), None),
            tokio_rustls::TlsStream::Client(client) => {
                (None, Some(client.get_ref().1.tls13_tickets_received()))
            }
        };
        Session {
            version,
            cipher,
            group: group.and_then(|group| group.name().as_str()),
            alpn: common.alpn_protocol().map(Into::into),
            server_name: server_name.map(ToOwned::to_owned),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            tickets,
            peer_certificates: certificates.iter().map(|der| der.to_vec()).collect(),
        }
    }

    /// Polls what may wait for the socket to take bytes, on behalf of one side.
    fn poll_writing<T>(
        &mut self,
        cx: &Context<'_>,
        side: Side,
        mut poll: impl FnMut(Pin<&mut tokio_rustls::TlsStream<Noted>>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut both = Context::from_waker(&self.both);
        if let Poll::Ready(result) = poll(Pin::new(&mut self.inner), &mut both) {
            return Poll::Ready(result);
        }
        match side {
            Side::Reader => self.sides.reader.register(cx.waker()),
            Side::Writer => self.sides.writer.register(cx.waker()),
        }
        // The socket may have become ready before it was known whom to wake.
        poll(Pin::new(&mut self.inner), &mut both)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.inner.get_ref().1.wants_write() {
            // What writes have left behind. If it cannot be sent, the next write says so; what has come is still read.
            let _ = this.poll_writing(cx, Side::Reader, |inner, cx| inner.poll_flush(cx));
        }
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if read.is_pending() {
            // A write from now on may be the last one, and leave something behind that only this side can still send.
            this.sides.reader.register(cx.waker());
        }
        read
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_writing(cx, Side::Writer, |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, Side::Writer, |inner, cx| {
            inner.poll_write_vectored(cx, bufs)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_writing(cx, Side::Writer, |inner, cx| inner.poll_flush(cx))
    }

    /// Sends close_notify, then FIN.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_writing(cx, Side::Writer, |inner, cx| inner.poll_shutdown(cx))
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", self.socket())
            .finish_non_exhaustive()
    }
}

impl From<TlsStream> for Stream {
    fn from(stream: TlsStream) -> Self {
        Self::Tls(Box::new(stream))
    }
}

/// What was agreed in a handshake, and with whom.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Session {
    /// The version.
    pub version: Option<Version>,
    /// The cipher suite, by its name in the registry: `TLS_AES_256_GCM_SHA384`.
    pub cipher: Option<String>,
    /// The group of the key exchange: `X25519MLKEM768`. `None` in a session resumed without one.
    pub group: Option<&'static str>,
    /// The application protocol, if one was agreed (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// On the server's side, the name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// Whether it goes on from a session before, so that no certificate was shown now.
    pub resumed: bool,
    /// On the client's side, how many tickets the server has sent so far by which the session can be resumed (TLS 1.3).
    pub tickets: Option<u32>,
    /// What the peer has shown, DER, its own certificate first. Empty if it showed none.
    pub peer_certificates: Vec<Vec<u8>>,
}

/// A socket under a handshake, and how what came on it begins: that tells who speaks something else.
pub(super) struct Noted {
    stream: Stream,
    sent: u64,
    /// We have sent FIN.
    ended: bool,
    /// The first error that a write has met, which the kernel tells only once: the read after it would take a reset for
    /// an end, and the write after it is told of a broken pipe.
    lost: Option<i32>,
    received: u64,
    first: [u8; NOTED_BYTES],
}

/// Enough to tell protocols apart.
const NOTED_BYTES: usize = 24;

impl Noted {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            sent: 0,
            ended: false,
            lost: None,
            received: 0,
            first: [0; NOTED_BYTES],
        }
    }

    /// What a handshake on it came to.
    pub(super) fn failed(
        self,
        error: io::Error,
        chain: Vec<CertificateDer<'static>>,
    ) -> (HandshakeError, Stream) {
        let noted = usize::try_from(self.received).unwrap_or(usize::MAX);
        let first = &self.first[..noted.min(NOTED_BYTES)];
        let error = HandshakeError::of(error, self.received, first, chain);
        (error, self.stream)
    }

    fn wrote(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        match &written {
            Ok(bytes) => self.sent += *bytes as u64,
            Err(error) if !self.ended && self.lost.is_none() => self.lost = error.raw_os_error(),
            Err(_) => {}
        }
        written
    }

    fn note(&mut self, bytes: &[u8]) {
        if let Ok(begun) = usize::try_from(self.received)
            && let Some(room) = self.first.get_mut(begun..)
        {
            for (noted, byte) in room.iter_mut().zip(bytes) {
                *noted = *byte;
            }
        }
        self.received += bytes.len() as u64;
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        this.note(bytes);
        match this.lost {
            Some(error) if bytes.is_empty() && room > 0 => {
                Poll::Ready(Err(io::Error::from_raw_os_error(error)))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        Poll::Ready(this.wrote(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(this.wrote(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.ended = true;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
