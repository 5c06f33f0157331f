//! What a server does with a connection: the [`Service`] trait and closures that are one.

use std::fmt;
use std::future::Future;
use std::io;

use crate::conn::Conn;

/// Runs once for each connection, on a task of its own.
///
/// - `Ok(())` ends the conversation: what was written is delivered, then the connection closes.
/// - `Err(_)` ends it in the same way; the error is counted and handed to the
///   [`Observer`](crate::stats::Observer). An answer that was written before the error still arrives.
/// - A panic ends this connection with a reset (which a Unix socket does not have: there it is a plain close), and no
///   other.
///
/// The future is dropped at its next await when a deadline passes or the server aborts, so state that must stay
/// whole has to be kept whole at each await.
pub trait Service: Send + Sync + 'static {
    /// Talks on one connection until it is over.
    fn serve(&self, conn: Conn) -> impl Future<Output = io::Result<()>> + Send;
}

/// Makes a service of an `async` closure: see the [example](crate#an-echo-server).
pub fn service_fn<F, R>(serve: F) -> ServiceFn<F>
where
    F: Fn(Conn) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send,
{
    ServiceFn { serve }
}

/// The service made by [`service_fn`].
#[derive(Clone, Copy)]
pub struct ServiceFn<F> {
    serve: F,
}

impl<F, R> Service for ServiceFn<F>
where
    F: Fn(Conn) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send,
{
    fn serve(&self, conn: Conn) -> impl Future<Output = io::Result<()>> + Send {
        (self.serve)(conn)
    }
}

impl<F> fmt::Debug for ServiceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFn").finish_non_exhaustive()
    }
}
