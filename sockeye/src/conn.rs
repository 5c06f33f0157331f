//! A connection, in the hands of its service.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::account::Record;
use crate::addr::Addr;
use crate::lent::Lent;
use crate::proxy_protocol::Header;
use crate::shutdown::DrainSignal;
use crate::stream::Stream;
use crate::tcp_info::TcpInfo;

/// A connection, in the hands of its service. Reads and writes as [`Stream`] does, and counts the bytes.
///
/// Dropping it gives the socket back; when the service's future has ended, too, the server delivers what was written and
/// closes in good order. A service that has more to do then sends FIN first, `AsyncWriteExt::shutdown`. Keep it in the
/// service's own task: moved to another, it is out of reach of the deadlines and of an abort until it is dropped there.
pub struct Conn {
    /// `Some` from the opening of the connection until the drop, which hands it back.
    stream: Option<Stream>,
    record: Arc<Record>,
}

impl Conn {
    /// Takes the stream out of the record.
    pub(crate) fn new(record: &Arc<Record>) -> Self {
        Self {
            stream: record.take(),
            record: Arc::clone(record),
        }
    }

    /// Numbers the connections of a server from 1.
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// The other end of the socket: the client, or a proxy in front of it.
    pub fn peer(&self) -> &Addr {
        self.record.peer()
    }

    /// The client: whom a trusted proxy has declared in its PROXY header, else the other end of the socket.
    pub fn client(&self) -> &Addr {
        self.record.client()
    }

    /// What a trusted proxy said ([`Server::trusted_proxies`](crate::Server::trusted_proxies)).
    pub fn proxy_header(&self) -> Option<&Header> {
        self.record.proxy_header()
    }

    /// Our end: on a listener for every interface, the address that the client chose. Costs a system call.
    pub fn local(&self) -> io::Result<Addr> {
        self.stream().local_addr()
    }

    /// The socket below.
    pub fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("held until the drop")
    }

    /// Sends from a file, see [`Stream::poll_send_file`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(self.stream().poll_send_file(cx, file, offset, most));
        Poll::Ready(self.record.wrote(sent))
    }

    /// What the kernel knows about the connection: see [`Stream::tcp_info`].
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        self.stream().tcp_info()
    }

    /// Tells when the server drains, so that a service which waits for a next request can end instead.
    pub fn drain_signal(&self) -> DrainSignal {
        DrainSignal::new(self.record.core.phase())
    }

    /// Has the connection end with a reset when its service has ended, and not in good order: the peer sees that it was broken
    /// off (RFC 9293, ABORT), and what it has not read yet is lost. A Unix socket has no such thing; it is closed.
    pub fn abort(&mut self) {
        self.record.want_reset();
    }

    /// Lends the socket: gives a descriptor of it for somebody else, a child process for example, which then reads and writes
    /// itself. As long as the [`Lent`] is held nobody here does.
    ///
    /// The socket is made blocking (`O_NONBLOCK` is off), as programs for inetd expect it. The descriptor is closed on
    /// exec: `Stdio::from` makes stdin or stdout of it. What the descriptor was given to has to have ended, or to be about
    /// to, when the `Lent` is dropped: then the server sends FIN, and reads and drops what still comes.
    ///
    /// # Errors
    ///
    /// `Unsupported` over TLS, where the socket has what is encrypted; and if there is no descriptor left. The connection is
    /// closed, as if this had been dropped.
    pub fn lend(mut self) -> io::Result<(Lent, OwnedFd)> {
        let lent = Lent::new(&self.record, self.stream())?;
        self.stream = None;
        Ok(lent)
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
                    record.fin_seen();
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
            .field("peer", self.record.peer())
            .finish_non_exhaustive()
    }
}
