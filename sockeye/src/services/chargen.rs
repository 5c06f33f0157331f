use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use crate::conn::Conn;
use crate::hot_buffer;
use crate::service::Service;

/// Sends lines of 72 printable characters, each begun one character later than the last, for as long as the client
/// takes them; what the client sends is dropped. Ends with the client's end of stream (RFC 864).
pub fn chargen() -> Chargen {
    Chargen
}

/// See [`chargen`].
#[derive(Clone, Copy, Debug)]
pub struct Chargen;

impl Service for Chargen {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let mut sent = 0;
        poll_fn(|cx| poll_chargen(cx, &mut conn, &mut sent)).await
    }
}

fn poll_chargen(cx: &mut Context<'_>, conn: &mut Conn, sent: &mut usize) -> Poll<io::Result<()>> {
    let mut blocked = false;
    // Both directions, until neither goes on: the client's end of stream is seen even while it takes nothing.
    loop {
        match hot_buffer::poll_read(cx, conn, |_, _, _| ()) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if blocked => return Poll::Pending,
            Poll::Pending => {}
        }
        match Pin::new(&mut *conn).poll_write(cx, &PATTERN[*sent..]) {
            Poll::Ready(written) => *sent = (*sent + written?) % PATTERN.len(),
            Poll::Pending => blocked = true,
        }
    }
}

const LINE_CHARACTERS: usize = 72;

/// Lines until the pattern comes round, and that often enough for a large write: every connection sends from this one.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let printable: Vec<u8> = (b' '..=b'~').collect();
    let mut pattern = Vec::new();
    while pattern.len() < hot_buffer::HOT_BUFFER_BYTES {
        for first in 0..printable.len() {
            let line = printable.iter().cycle().skip(first).take(LINE_CHARACTERS);
            pattern.extend(line);
            pattern.extend(b"\r\n");
        }
    }
    pattern
});
