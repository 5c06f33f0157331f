//! One connection's life: its handshake, if there is one; its service, under its deadlines; a close in good order; one
//! account.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use futures_util::FutureExt;

use crate::account::Account;
use crate::close_reason::CloseReason;
use crate::conn::Conn;
use crate::deadline::Deadline;
use crate::handshake::{Handshake, Unserved};
use crate::service::Service;
use crate::stream::Stream;

/// Serves one connection from its admission to its account, if it has no handshake. The body of a connection's task.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and every idle connection would pay for it"
)]
pub(crate) fn drive<S: Service>(
    service: Arc<S>,
    mut account: Account,
) -> impl Future<Output = ()> + Send {
    async move {
        let served_ms = account.served();
        let serving = service.serve(Conn::new(&account.record));
        let ending = attend(pin!(serving), &account, served_ms).await;
        // Boxed, so that an idle connection does not pay for closing, which needs more memory than waiting does.
        Box::pin(close(ending, &mut account)).await;
    }
}

/// Runs the service until it returns, panics, or comes to a deadline.
fn attend(
    mut serving: Pin<&mut impl Future<Output = io::Result<()>>>,
    account: &Account,
    served_ms: u32,
) -> impl Future<Output = Ending> {
    let mut deadline = Deadline::default();
    poll_fn(move |cx| {
        match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx))) {
            Ok(Poll::Pending) => deadline
                .poll(cx, || account.next_deadline(served_ms))
                .map(Ending::Deadline),
            Ok(Poll::Ready(result)) => Poll::Ready(Ending::Returned(result)),
            // The panic hook has reported it.
            Err(_) => Poll::Ready(Ending::Panicked),
        }
    })
}

/// As [`drive`], for a connection that has a handshake.
pub(crate) async fn introduce_and_drive<S: Service>(
    handshake: Box<Handshake>,
    service: Arc<S>,
    mut account: Account,
) {
    // Boxed, so that an idle connection does not pay for its handshake.
    if Box::pin(introduce(handshake, &mut account)).await {
        drive(service, account).await;
    }
}

/// The handshake of a connection. Whether it goes on to its service; if not it is closed and accounted for.
async fn introduce(handshake: Box<Handshake>, account: &mut Account) -> bool {
    let performed = AssertUnwindSafe(handshake.perform(account)).catch_unwind();
    let ending = match performed.await {
        Ok(Ok(())) => return true,
        Ok(Err(Unserved::Refused { listener, reason })) => {
            account.refuse(&listener, reason);
            return false;
        }
        Ok(Err(Unserved::Closed(reason, error))) => Ending::Unserved(reason, error),
        // The panic hook has reported it.
        Err(_) => Ending::Unserved(CloseReason::Panic, None),
    };
    close(ending, account).await;
    false
}

/// How a connection came to its end.
enum Ending {
    Unserved(CloseReason, Option<io::Error>),
    Returned(io::Result<()>),
    Deadline(CloseReason),
    Panicked,
}

/// Closes the connection and settles its account.
async fn close(ending: Ending, account: &mut Account) {
    let record = Arc::clone(&account.record);
    let stream = match ending {
        // The deadline of a TLS handshake drops its stream, and so does a panic there.
        Ending::Unserved(..) => record.take(),
        _ => record.returned().await,
    };
    let served = matches!(ending, Ending::Returned(_));
    let (reason, error) = match ending {
        Ending::Panicked => (CloseReason::Panic, None),
        Ending::Deadline(reason) => (reason, None),
        Ending::Unserved(reason, error) => (reason, error),
        Ending::Returned(result) => record.reason(result),
    };
    let mut closing = Closing {
        account,
        stream,
        reason,
        error,
    };
    let Some(stream) = &mut closing.stream else {
        return;
    };
    if reason.is_abrupt() || record.peer_is_gone() {
        return;
    }
    // After a deadline nobody is waited for any longer.
    if served && let Err(error) = stream.deliver(record.core.timeouts.delivery).await {
        // Not the kernel's own time-out, which is a peer that is lost.
        let unread = error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none();
        match record.reason_of_socket(error).0 {
            _ if unread => closing.reason = CloseReason::Unread,
            CloseReason::Error => {}
            gone => closing.reason = gone,
        }
        return;
    }
    let linger = record.core.timeouts.linger;
    if record.peer_has_closed() {
        // Nothing more comes; but what TLS has left to say, close_notify above all, is still said.
        stream.say_the_end(linger).await;
    } else {
        stream.linger(linger).await;
    }
}

/// A connection whose end is decided: settled as that when this is dropped, also if an abort cuts the lingering short.
struct Closing<'a> {
    account: &'a mut Account,
    stream: Option<Stream>,
    reason: CloseReason,
    error: Option<io::Error>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let (stream, error) = (self.stream.take(), self.error.take());
        self.account.settle(stream, self.reason, error);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;
    use crate::account::Record;
    use crate::services::Echo;

    fn size_of_future<S, F>(_: fn(Arc<S>, Account) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_an_idle_echo_holds_does_not_grow_unnoticed() {
        // With the two counts of its `Arc`.
        let record = size_of::<Record>() + 2 * size_of::<usize>();
        // A stream takes 32 bytes, and 48 where tokio has its multi-thread runtime too, as in tests.
        let besides_stream = size_of_future(drive::<Echo>) - size_of::<Stream>();
        // More makes another 100 bytes of each connection: the two fit in gaps of the allocator (`Tasks::spawn`).
        assert!(record <= 104, "a record of {record} bytes");
        assert!(
            besides_stream <= 104,
            "a future of {besides_stream} bytes and a stream"
        );
    }
}
