use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};

use crate::conn::Conn;
use crate::hot_buffer::{self, Spill};
use crate::service::Service;

/// Sends back every byte that it gets, until the client's end of stream (RFC 862).
///
/// An idle connection holds no buffer. A client that sends and does not read is not read from either, once the
/// kernel's buffers and one [`hot_buffer::HOT_BUFFER_BYTES`] of ours are full.
pub fn echo() -> Echo {
    Echo
}

/// See [`echo`].
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Service for Echo {
    // An async fn keeps its arguments twice, and every idle connection would pay for it.
    fn serve(&self, mut conn: Conn) -> impl Future<Output = io::Result<()>> + Send {
        let mut spill = Spill::new();
        poll_fn(move |cx| poll_echo(cx, &mut conn, &mut spill))
    }
}

fn poll_echo(cx: &mut Context<'_>, conn: &mut Conn, spill: &mut Spill) -> Poll<io::Result<()>> {
    loop {
        ready!(spill.poll_flush(cx, conn))?;
        let mut answered = Ok(());
        let bytes = ready!(hot_buffer::poll_read(cx, conn, |cx, conn, bytes| {
            answered = spill.write(cx, conn, bytes);
        }))?;
        answered?;
        if bytes == 0 {
            return Poll::Ready(Ok(()));
        }
    }
}
