//! One connection's life: it is served under its deadlines, closed in good order, and accounted for, once.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::account::Account;
use crate::close_reason::CloseReason;
use crate::conn::Conn;
use crate::deadline::Deadline;
use crate::service::Service;
use crate::stream::Stream;

/// Serves one connection from its admission to its account. The body of a connection's task.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, and every idle connection would pay for it"
)]
pub(crate) fn drive<S: Service>(
    service: Arc<S>,
    mut account: Account,
) -> impl Future<Output = ()> + Send {
    async move {
        let ending = {
            let record = &account.record;
            let mut serving = pin!(service.serve(Conn::new(record)));
            let mut deadline = Deadline::default();
            poll_fn(|cx| {
                match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => deadline
                        .poll(cx, || record.next_deadline())
                        .map(Ending::Deadline),
                    Ok(Poll::Ready(result)) => Poll::Ready(Ending::Returned(result)),
                    // The panic hook has reported it.
                    Err(_) => Poll::Ready(Ending::Panicked),
                }
            })
            .await
        };
        // Boxed, so that an idle connection does not pay for closing, which needs more memory than waiting does.
        Box::pin(close(ending, &mut account)).await;
    }
}

/// How the service came to its end.
enum Ending {
    Returned(io::Result<()>),
    Deadline(CloseReason),
    Panicked,
}

/// Closes the connection after its service and settles its account.
async fn close(ending: Ending, account: &mut Account) {
    let stream = account.record.returned().await;
    let (reason, error) = match ending {
        Ending::Panicked => (CloseReason::Panic, None),
        Ending::Deadline(reason) => (reason, None),
        Ending::Returned(result) => account.record.reason(result),
    };
    let record = Arc::clone(&account.record);
    let mut closing = Closing {
        account,
        stream: Some(stream),
        reason,
        error,
    };
    if let Some(stream) = &mut closing.stream
        && !reason.is_abrupt()
        && !record.peer_is_gone()
    {
        stream.linger(record.core.timeouts.linger).await;
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
