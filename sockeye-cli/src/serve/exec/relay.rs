//! Passes bytes between a connection and a program that cannot have the socket itself: over TLS, and on a terminal.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::io::read;
use sockeye::hot_buffer::{self, HOT_BUFFER_BYTES, Spill};
use sockeye::{Conn, DELIVERY};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// Both directions between a client and a program.
pub(super) struct Relay<P> {
    conn: Conn,
    /// Our end of what the program has for stdin and stdout.
    program: P,
    to_program: Direction,
    to_client: Direction,
}

/// One direction, and what was read there and not taken yet.
#[derive(Default)]
struct Direction {
    spill: Spill,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Open,
    /// The end of the stream was read, and is still to be passed on.
    Ending,
    Over,
}

impl<P> Relay<P>
where
    P: AsyncRead + AsyncWrite + AsFd + Unpin,
{
    pub(super) fn new(conn: Conn, program: P) -> Self {
        Self {
            conn,
            program,
            to_program: Direction::default(),
            to_client: Direction::default(),
        }
    }

    /// Passes everything on, the ends of both streams too, until both have ended.
    ///
    /// A program that does not read any more is no error: it can still have something to say.
    ///
    /// # Errors
    ///
    /// Those of the client's side: then there is no client any more.
    ///
    /// Cancel safe: what was read is kept.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_run(cx)).await
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let to_program = self.poll_to_program(cx)?;
        let to_client = self.poll_to_client(cx)?;
        if to_program.is_ready() && to_client.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    fn poll_to_program(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { conn, program, .. } = self;
        let Direction { spill, stage } = &mut self.to_program;
        while *stage != Stage::Over {
            let mut taken = ready!(spill.poll_flush(cx, program));
            if taken.is_ok() && *stage == Stage::Open {
                let bytes = ready!(hot_buffer::poll_read(cx, conn, |cx, _, bytes| {
                    taken = spill.write(cx, program, bytes);
                }))?;
                if bytes == 0 {
                    *stage = Stage::Ending;
                }
            } else if taken.is_ok() {
                taken = ready!(Pin::new(&mut *program).poll_shutdown(cx));
                *stage = Stage::Over;
            }
            if taken.is_err() {
                // It reads no more. What the client still sends waits in the kernel, as it would for the program.
                *spill = Spill::new();
                *stage = Stage::Over;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { conn, program, .. } = self;
        let Direction { spill, stage } = &mut self.to_client;
        loop {
            if *stage == Stage::Over {
                return Poll::Ready(Ok(()));
            }
            ready!(spill.poll_flush(cx, conn))?;
            if *stage == Stage::Ending {
                ready!(Pin::new(&mut *conn).poll_shutdown(cx))?;
                *stage = Stage::Over;
                continue;
            }
            let mut taken = Ok(());
            let read = hot_buffer::poll_read(cx, program, |cx, _, bytes| {
                taken = spill.write(cx, conn, bytes);
            });
            match ready!(read) {
                Ok(bytes) if bytes > 0 => {}
                // An error of our own socket pair or terminal is its end.
                Ok(_) | Err(_) => *stage = Stage::Ending,
            }
            taken?;
        }
    }

    /// Delivers what a program has left that has ended: all that it wrote is in the kernel, and there is an end to it.
    ///
    /// # Errors
    ///
    /// Those of the client's side, and `TimedOut` if it takes nothing for [`DELIVERY`].
    pub(super) async fn drain(&mut self) -> io::Result<()> {
        let Self { conn, program, .. } = self;
        let Direction { spill, stage } = &mut self.to_client;
        let mut left = MOST_LEFT_BYTES;
        let mut buffer = vec![0; HOT_BUFFER_BYTES];
        loop {
            deliver(spill, conn, DELIVERY).await?;
            if *stage != Stage::Open || left == 0 {
                return Ok(());
            }
            // Asked of the kernel itself: tokio knows only what it was told so far.
            let bytes = read(&*program, &mut buffer).unwrap_or(0);
            if bytes == 0 {
                return Ok(());
            }
            left = left.saturating_sub(bytes);
            poll_fn(|cx| Poll::Ready(spill.write(cx, conn, &buffer[..bytes]))).await?;
        }
    }

    /// Reads what is left on a connection that is over, so that its account tells of a reset as one.
    pub(super) fn note_the_end(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(1..)) = hot_buffer::poll_read(cx, &mut self.conn, |_, _, _| ()) {}
    }
}

/// Writes what is held, as long as something of it is taken within each `limit`.
///
/// # Errors
///
/// The writer's own, and `TimedOut`.
async fn deliver<W>(spill: &mut Spill, writer: &mut W, limit: Duration) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    loop {
        let held = spill.len();
        let flushed = poll_fn(|cx| spill.poll_flush(cx, writer));
        match timeout(limit, flushed).await {
            Ok(flushed) => return flushed,
            Err(_) if spill.len() < held => {}
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// More than a socket pair or a terminal holds: what goes on writing after that is not the program.
const MOST_LEFT_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a byte each time it is asked to, so often, and does not say when it will take more.
    struct Slow {
        taken: Vec<u8>,
        most: usize,
        may: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.may = !self.may && self.taken.len() < self.most;
            if !self.may {
                return Poll::Pending;
            }
            self.taken.push(bytes[0]);
            Poll::Ready(Ok(1))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_something_has_time_for_the_rest() {
        for (most, expected) in [(5, Ok(())), (3, Err(io::ErrorKind::TimedOut))] {
            let mut writer = Slow {
                taken: Vec::new(),
                most,
                may: true,
            };
            let mut spill = Spill::new();
            poll_fn(|cx| Poll::Ready(spill.write(cx, &mut writer, b"hello")))
                .await
                .expect("held");
            let delivered = deliver(&mut spill, &mut writer, Duration::from_millis(1)).await;
            assert_eq!(delivered.map_err(|error| error.kind()), expected);
            assert_eq!(writer.taken, b"hello"[..most]);
        }
    }
}
