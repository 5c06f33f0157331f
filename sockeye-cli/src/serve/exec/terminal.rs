//! A pseudo-terminal (pty(7)) for a program that wants one, and how the program comes to have it for its own.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, stdin};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ioctl_fionbio, read, write};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::serve::exec::watch::registered;

/// What a program is told of its window: nobody at the other end says more.
const WINDOW: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// The user's end of a terminal. Reads what the program says, writes what is typed; its end of stream is the key that ends
/// the input, Ctrl-D.
pub(super) struct Terminal {
    user: AsyncFd<OwnedFd>,
    /// Times that Ctrl-D is still to be typed.
    ends: u8,
}

impl Terminal {
    /// A new terminal: our end, and the program's.
    pub(super) fn open() -> io::Result<(Self, OwnedFd)> {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&user)?;
        unlockpt(&user)?;
        tcsetwinsize(&user, WINDOW)?;
        ioctl_fionbio(&user, true)?;
        let name = ptsname(&user, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = open(name, flags, Mode::empty())?;
        let terminal = Self {
            user: registered(user, Interest::READABLE | Interest::WRITABLE)?,
            ends: ENDS,
        };
        Ok((terminal, program))
    }
}

/// Twice, for in the midst of a line the first only hands on what was typed of it.
const ENDS: u8 = 2;

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.user.poll_read_ready(cx))?;
            match ready.try_io(|user| Ok(read(user, buf.initialize_unfilled())?)) {
                Ok(Ok(bytes)) => {
                    buf.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                // The program's end is closed everywhere.
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.user.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|user| Ok(write(user, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Types the key that ends the input: Ctrl-D unless the program has chosen another. A terminal itself has no half-close.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ends > 0 {
            let modes = tcgetattr(&self.user)?;
            let key = modes.special_codes[SpecialCodeIndex::VEOF];
            // A program that reads keys and not lines gets one.
            let by_lines = modes.local_modes.contains(LocalModes::ICANON);
            ready!(self.as_mut().poll_write(cx, &[key]))?;
            self.ends = if by_lines { self.ends - 1 } else { 0 };
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of the hidden verb by which a program is started on a terminal: makes the terminal on stdin its own, that is the
/// controlling one of a new session (setsid(2), ioctl_tty(2)), and becomes the program. Returns only if it cannot.
///
/// A process has to do this for itself, between fork and exec; to do it here, in a process of our own that then is replaced,
/// needs no unsafe code.
pub(crate) fn become_on_terminal(
    program: &Path,
    arg0: &OsString,
    arguments: &[OsString],
) -> io::Result<Infallible> {
    setsid()?;
    ioctl_tiocsctty(stdin())?;
    Err(Command::new(program).arg0(arg0).args(arguments).exec())
}
