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
    let mut stream = account.record.returned().await;
    let record = &account.record;
    let (reason, error) = match ending {
        Ending::Panicked => (CloseReason::Panic, None),
        Ending::Deadline(reason) => (reason, None),
        Ending::Returned(result) => record.reason(result),
    };
    if !reason.is_abrupt() && !record.peer_is_gone() {
        stream.linger(record.core.timeouts.linger).await;
    }
    record.hand_back(stream);
    account.settle(reason, error);
}
