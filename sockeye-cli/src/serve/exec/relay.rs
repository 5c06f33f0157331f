//! Passes bytes between a connection and a program that cannot have the socket itself: over TLS, and on a terminal.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::io::read;
use sockeye::hot_buffer::{self, HOT_BUFFER_BYTES, Spill};
use sockeye::{Conn, DELIVERY};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

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
        std::future::poll_fn(|cx| self.poll_run(cx)).await
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
        let mut left = MOST_LEFT_BYTES;
        loop {
            let drained = tokio::time::timeout(DELIVERY, self.drain_some());
            match drained.await.map_err(|_| io::ErrorKind::TimedOut)?? {
                0 => return Ok(()),
                bytes if bytes >= left => return Ok(()),
                bytes => left -= bytes,
            }
        }
    }

    /// Reads what is left on a connection that is over, so that its account tells of a reset as one.
    pub(super) fn note_the_end(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(1..)) = hot_buffer::poll_read(cx, &mut self.conn, |_, _, _| ()) {}
    }

    async fn drain_some(&mut self) -> io::Result<usize> {
        let Self { conn, program, .. } = self;
        let Direction { spill, stage } = &mut self.to_client;
        std::future::poll_fn(|cx| spill.poll_flush(cx, conn)).await?;
        if *stage != Stage::Open {
            return Ok(0);
        }
        // Asked of the kernel itself: tokio knows only what it was told so far.
        let mut left = vec![0; HOT_BUFFER_BYTES];
        let bytes = read(&*program, &mut left).unwrap_or(0);
        conn.write_all(&left[..bytes]).await?;
        Ok(bytes)
    }
}

/// More than a socket pair or a terminal holds: what goes on writing after that is not the program.
const MOST_LEFT_BYTES: usize = 4 << 20;
