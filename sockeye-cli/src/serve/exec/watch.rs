//! Whether the client is still there, seen without reading or writing: the program does that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

/// How long a program may go on when nothing can be said any more, in either direction, and nobody has broken anything off:
/// it can see that itself.
const AFTER_THE_END: Duration = Duration::from_secs(10);

/// Has tokio tell when a descriptor is ready.
#[allow(
    deprecated,
    reason = "unsound for a descriptor that can be closed under it, which an `OwnedFd` cannot; what replaces it is unsafe"
)]
pub(super) fn registered(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// A second descriptor of a connection's socket, by which the kernel tells of its end.
///
/// It asks only when the socket can be written to, so that nothing is told for bytes that come. Errors and the end of both
/// directions are always told (epoll_ctl(2), `EPOLLERR`, `EPOLLHUP`).
pub(super) struct Watch {
    socket: AsyncFd<OwnedFd>,
}

impl Watch {
    pub(super) fn new(socket: impl AsFd) -> io::Result<Self> {
        let socket = fcntl_dupfd_cloexec(socket, 0)?;
        Ok(Self {
            socket: registered(socket, Interest::WRITABLE)?,
        })
    }

    /// Waits until the client is gone: it has reset the connection, or the kernel has given it up, after keepalive probes for
    /// example; or both directions have ended, [`AFTER_THE_END`] ago.
    ///
    /// A client that has only ended its own direction is there, as far as anybody can tell: it may wait for an answer. If
    /// it has closed, the next probe (`SocketOptions::keepalive`) is answered with a reset.
    pub(super) async fn gone(&self) -> io::Result<()> {
        loop {
            let interest = Interest::WRITABLE | Interest::ERROR;
            let mut guard = self.socket.ready(interest).await?;
            let ready = guard.ready();
            if ready.is_error() {
                return Ok(());
            }
            if ready.is_write_closed() {
                tokio::time::sleep(AFTER_THE_END).await;
                return Ok(());
            }
            guard.clear_ready_matching(Ready::WRITABLE);
        }
    }
}
