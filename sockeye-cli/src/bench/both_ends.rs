//! Both ends in one process: an echo server that notes on the clients' own clock when it read and when it answered.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sockeye::error::ServeError;
use sockeye::hot_buffer::{self, Spill};
use sockeye::shutdown::Summary;
use sockeye::tcp_info::TcpInfo;
use sockeye::{Addr, Conn, Handle, Server, Service};

/// Where the two ends of each connection meet: by the client's address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends(Arc<Mutex<HashMap<SocketAddr, Arc<Meeting>>>>);

/// What one end leaves for the other. Nanoseconds since the origin, of the last message: there is one at a time.
#[derive(Debug, Default)]
pub(crate) struct Meeting {
    /// When the server had read the whole of it, as far as it can tell: the last piece.
    pub(crate) read_ns: AtomicU64,
    /// When it began to write the last piece of the answer. Noted before the writing: afterwards the client could have it already.
    pub(crate) write_ns: AtomicU64,
    /// What the server's kernel knew, not long ago.
    tcp: Mutex<Option<TcpInfo>>,
}

impl Ends {
    /// The same meeting for both, whoever comes first.
    pub(crate) fn meet(&self, client: SocketAddr) -> Arc<Meeting> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(client).or_default())
    }

    /// When the client has left: its address will be somebody else's.
    pub(crate) fn part(&self, client: SocketAddr) -> Option<Arc<Meeting>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&client)
    }
}

impl Meeting {
    pub(crate) fn server_tcp(&self) -> Option<TcpInfo> {
        *self.tcp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_tcp(&self, info: Option<TcpInfo>) {
        *self.tcp.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }
}

/// An echo that leaves word of when.
struct NotingEcho {
    ends: Ends,
    origin: Instant,
}

/// How often the server looks at what its kernel knows, on a connection that has something to do.
const LOOK: Duration = Duration::from_millis(100);

impl Service for NotingEcho {
    async fn serve(&self, mut conn: Conn) -> io::Result<()> {
        let Addr::Tcp(client) = *conn.peer() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let meeting = self.ends.meet(client);
        let mut spill = Spill::new();
        let mut next_look = Duration::ZERO;
        std::future::poll_fn(|cx| {
            loop {
                std::task::ready!(spill.poll_flush(cx, &mut conn))?;
                let mut answered = Ok(());
                let bytes = hot_buffer::poll_read(cx, &mut conn, |cx, conn, bytes| {
                    let now = self.origin.elapsed();
                    meeting
                        .read_ns
                        .store(now.as_nanos() as u64, Ordering::Release);
                    if now >= next_look {
                        next_look = now + LOOK;
                        meeting.note_tcp(conn.tcp_info());
                    }
                    let now = self.origin.elapsed().as_nanos() as u64;
                    meeting.write_ns.store(now, Ordering::Release);
                    answered = spill.write(cx, conn, bytes);
                });
                let bytes = std::task::ready!(bytes)?;
                answered?;
                if bytes == 0 {
                    return std::task::Poll::Ready(Ok(()));
                }
            }
        })
        .await
    }
}

/// The server, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Here {
    handle: Handle,
    thread: JoinHandle<Result<Summary, ServeError>>,
}

impl Here {
    pub(crate) fn start(server: Server, ends: Ends, origin: Instant) -> io::Result<Self> {
        let handle = server.handle();
        let service = NotingEcho { ends, origin };
        let thread = std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || server.run(NonZeroUsize::MIN, service))?;
        Ok(Self { handle, thread })
    }

    /// Cuts what is still open. The clients have gone.
    pub(crate) fn end(self) {
        self.handle.abort();
        // It has told nobody anything that the clients have not seen themselves.
        let _ = self.thread.join();
    }
}
