//! A connected socket: [`Stream`], a closed enum, so that what carries the bytes can change behind one type.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::sendfile;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::addr::Addr;
use crate::sys;
use crate::tcp_info::{TCP_INFO_BYTES_MAX, TcpInfo};
#[cfg(feature = "tls")]
use crate::{
    hot_buffer,
    tls::{Session, TlsStream},
};

/// A connected socket: reads and writes bytes, in order, until one side or both have closed.
///
/// Reads and writes go through tokio's [`AsyncRead`] and [`AsyncWrite`]; both are cancel safe at the level of
/// `poll_read` and `poll_write`, and so are `AsyncReadExt::read` and `AsyncWriteExt::write`. A write that
/// returned means that the kernel took the bytes, not that the peer has them. With TLS it means that rustls took them: it
/// keeps 64 KiB at most that the kernel would not take, and sends them with whatever is done next.
///
/// **Half-close.** `AsyncWriteExt::shutdown` sends FIN, and before it close_notify where there is TLS: the peer reads the end of our stream, and we can go on
/// reading until its own. Dropping a stream closes both directions at once; if the peer's bytes wait unread, or
/// come later, the kernel answers with a reset, which can destroy what the peer has not read of ours. To close
/// first without that, use [`Stream::close`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
    /// TLS over one of the others (feature `tls`).
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Our end.
    pub fn local_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(Addr::from),
            Self::Unix(stream) => Ok(Addr::from(&stream.local_addr()?)),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket().local_addr(),
        }
    }

    /// The peer's end. Fails with `NotConnected` once the peer has reset the connection.
    pub fn peer_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(Addr::from),
            Self::Unix(stream) => Ok(Addr::from(&stream.peer_addr()?)),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket().peer_addr(),
        }
    }

    /// What the kernel knows about this TCP connection now, or `None` where there is no TCP (a Unix socket) or
    /// the kernel does not say. Costs one system call.
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        match self {
            Self::Tcp(stream) => tcp_info(stream),
            Self::Unix(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket().tcp_info(),
        }
    }

    /// What was agreed in the TLS handshake; `None` where there is no TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<Session> {
        match self {
            Self::Tls(stream) => Some(stream.session()),
            _ => None,
        }
    }

    /// Closes so that the peer never loses our last bytes to a reset: sends FIN, reads and drops what still
    /// comes until the peer closes too, for at most `linger`, then closes.
    ///
    /// Over TLS what rustls still holds is sent first, see [`Stream::deliver`], for [`DELIVERY`] at most.
    ///
    /// Says whether the peer closed within `linger`. Cancelling it closes at once, as a drop does.
    ///
    /// Why: RFC 1122, section 4.2.2.13 has a close with unread input answer with a reset, and a reset makes the
    /// peer's kernel throw away what it has not yet delivered. nginx calls the cure `lingering_close`.
    pub async fn close(mut self, linger: Duration) -> bool {
        self.deliver(DELIVERY).await.is_ok() && self.linger(linger).await
    }

    /// Waits until the kernel has all that was written. Over TCP and Unix sockets it has; over TLS rustls keeps up to 64 KiB
    /// that the kernel would not take, and who closes would throw it away: what the kernel has it delivers after the
    /// close, as long as the peer takes it.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// `TimedOut` if for `limit` the kernel took nothing, for the peer reads nothing; and the socket's own.
    pub async fn deliver(&mut self, limit: Duration) -> io::Result<()> {
        loop {
            let sent = self.sent();
            let flushed = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_flush(cx));
            match tokio::time::timeout(limit, flushed).await {
                Ok(flushed) => return flushed,
                Err(_) if self.sent() > sent => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Whether [`Stream::poll_send_file`] can be used: over TLS the bytes have to be encrypted here first.
    pub fn can_send_file(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// Sends from a file without the bytes passing through this process (sendfile(2)): from `offset` on, which is moved
    /// by what was sent, `most` bytes at most. Ready with how many there were; 0 is the end of the file.
    ///
    /// Bytes that are not in the page cache are read from the disk meanwhile, and the thread waits for that: keep `most`
    /// to what a disk reads in a moment. Whoever does not ignore SIGPIPE, as every Rust program does by itself, is ended by it
    /// when the peer has closed.
    ///
    /// # Errors
    ///
    /// Those of the socket and of the file; `Unsupported` over TLS, see [`Stream::can_send_file`].
    pub fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        offset: &mut u64,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut send = || Ok(sendfile(self, file, Some(&mut *offset), most)?);
            let sent = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, &mut send)
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, &mut send)
                }
                #[cfg(feature = "tls")]
                Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Bytes that the kernel took from what TLS has held for it, handshake and all: while it grows a peer is slow, and does not
    /// take nothing. Always 0 without TLS, where nothing is held.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Tcp(_) | Self::Unix(_) => 0,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.sent(),
        }
    }

    /// [`Stream::close`] up to the close itself, for a caller that wants a last look at the socket.
    pub(crate) async fn linger(&mut self, linger: Duration) -> bool {
        let ended = async {
            std::future::poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await?;
            while self.drop_some().await? > 0 {}
            io::Result::Ok(())
        };
        // An error ends the connection as surely as a FIN does: there is nobody left to wait for.
        tokio::time::timeout(linger, ended).await.is_ok()
    }

    /// Reads once and drops what came; 0 at the end of the stream.
    async fn drop_some(&mut self) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                let dropped = stream.async_io(Interest::READABLE, || drop_waiting(stream));
                dropped.await
            }
            Self::Unix(stream) => {
                let dropped = stream.async_io(Interest::READABLE, || drop_waiting(stream));
                dropped.await
            }
            #[cfg(feature = "tls")]
            Self::Tls(_) => hot_buffer::read(self, |_| ()).await,
        }
    }

    /// Says what is left to say to a peer that has closed: to TLS the end is a message of its own, close_notify.
    pub(crate) async fn say_the_end(&mut self, limit: Duration) {
        if matches!(self, Self::Tcp(_) | Self::Unix(_)) {
            return;
        }
        let said = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx));
        // If it cannot be said, or not in time, the peer is gone.
        let _ = tokio::time::timeout(limit, said).await;
    }

    /// Closes with a reset (RFC 9293, ABORT): the peer sees that the stream was cut, not a clean end. A Unix socket has no
    /// such thing; it is closed.
    pub fn abort(self) {
        // It can fail only for a descriptor that is no socket; then the close below is all there is to do.
        let _ = SockRef::from(&self).set_linger(Some(Duration::ZERO));
    }
}

/// What the kernel says of a TCP socket.
pub(crate) fn tcp_info(socket: &impl AsFd) -> Option<TcpInfo> {
    let mut bytes = [0; TCP_INFO_BYTES_MAX];
    let filled = sys::tcp_info(socket.as_fd(), &mut bytes).ok()?;
    Some(TcpInfo::parse(&bytes[..filled]))
}

/// Drops what waits in the receive buffer, and never waits for more: whoever was given a descriptor of the socket
/// ([`Conn::lend`](crate::Conn::lend)) has it in blocking mode, or can set that at any time.
fn drop_waiting(socket: &impl AsFd) -> io::Result<usize> {
    let mut dropped = [MaybeUninit::uninit(); 8 * 1024];
    SockRef::from(socket).recv_with_flags(&mut dropped, libc::MSG_DONTWAIT)
}

/// How long [`Stream::close`] and a server wait for the kernel to take more of what TLS still holds: as long as nginx waits
/// between two writes (`send_timeout`).
pub const DELIVERY: Duration = Duration::from_secs(60);

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.socket().as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Sends FIN (shutdown(2) with `SHUT_WR`), and before it close_notify where there is TLS.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}
