//! The connection below hyper. What hyper takes for the bytes of a large file are only as many zeros, which it never looks at:
//! where it writes them, the kernel sends the file instead (sendfile(2)).

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::web::visit::Visit;

/// What stands for the bytes of a file. It is told from real bytes by its place in memory, and as it is never read it takes
/// none.
pub(crate) static HOLE: LazyLock<Vec<u8>> = LazyLock::new(|| vec![0; HOLE_BYTES]);

/// What one call sends at most: the thread waits meanwhile if the disk has to be read.
pub(crate) const HOLE_BYTES: usize = 1 << 20;

pub(crate) struct Wire {
    visit: Arc<Visit>,
}

impl Wire {
    pub(crate) fn new(visit: Arc<Visit>) -> Self {
        Self { visit }
    }

    fn send_hole(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut holes = self.visit.holes();
        let Some(hole) = holes.front_mut() else {
            unreachable!("hyper has a hole that nobody made");
        };
        let mut conn = self.visit.conn();
        let sent = conn.poll_send_file(cx, hole.file.as_fd(), &mut hole.offset, hole.left);
        let sent = ready!(sent)?;
        if sent == 0 {
            // The length was promised: all that is left is to break off.
            return Poll::Ready(Err(shortened()));
        }
        hole.left -= sent;
        if hole.left == 0 {
            holes.pop_front();
        }
        Poll::Ready(Ok(sent))
    }
}

pub(crate) fn shortened() -> io::Error {
    io::Error::other("the file became shorter while it was sent")
}

fn is_hole(slice: &IoSlice<'_>) -> bool {
    HOLE.as_ptr_range().contains(&slice.as_ptr())
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.visit.conn()).poll_read(cx, buf);
        self.visit.came(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.visit.conn()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let real = slices.iter().take_while(|slice| !is_hole(slice)).count();
        if real == 0 && !slices.is_empty() {
            return self.send_hole(cx);
        }
        Pin::new(&mut *self.visit.conn()).poll_write_vectored(cx, &slices[..real])
    }

    fn is_write_vectored(&self) -> bool {
        self.visit.sends_files
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.visit.conn()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.visit.conn()).poll_shutdown(cx)
    }
}
