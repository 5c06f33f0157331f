//! How a server ends: stop, then drain to a deadline, then abort. Each level contains the ones before it, and none
//! can be taken back.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::close_reason::CloseReason;
use crate::rules::Rules;
use crate::stats::{Counters, Snapshot};

/// Ends a running server, reads its counters and changes its rules, from anywhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) phase: Arc<watch::Sender<Phase>>,
    pub(crate) counters: Arc<Counters>,
    rules: Arc<RwLock<Arc<Rules>>>,
}

impl Handle {
    pub(crate) fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Running)),
            counters: Arc::new(Counters::default()),
            rules: Arc::default(),
        }
    }

    /// Puts other rules in the place of those that decide who is let in. Connections that are open stay, whatever the new
    /// rules say of them.
    pub fn set_rules(&self, rules: Rules) {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(rules);
    }

    /// The rules that hold now.
    pub fn rules(&self) -> Arc<Rules> {
        let current = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Stops accepting. Clients that already wait in the listen queue are still taken, as far as there is room for them,
    /// then the listeners close.
    /// Open connections go on for as long as they like, and the server ends with the last of them.
    pub fn stop(&self) {
        self.advance(Phase::Stopping);
    }

    /// Stops accepting, tells the services ([`Conn::drain_signal`](crate::Conn::drain_signal)), and aborts what
    /// is still open after `deadline`. Called again, the earlier moment holds.
    pub fn drain(&self, deadline: Duration) {
        let now = Instant::now();
        let until = now.checked_add(deadline).unwrap_or(now + FOR_EVER);
        self.advance(Phase::Draining { until });
    }

    /// Stops accepting and ends every open connection now, with a reset (a Unix socket: a plain close). One whose service
    /// has ended already, and that only waits for the client's FIN, keeps the reason that it had.
    pub fn abort(&self) {
        self.advance(Phase::Aborting);
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        self.counters.snapshot()
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| phase.advance(to));
    }
}

/// What a deadline past the end of the clock is taken for.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How a server ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The counters at the end.
    pub snapshot: Snapshot,
}

impl Summary {
    /// Connections that were cut: aborted, or held open by a service that never gave way.
    pub fn cut(&self) -> u64 {
        self.snapshot.closed_by(CloseReason::Aborted) + self.snapshot.open
    }
}

/// Tells one connection's service that the server is draining: finish what is begun, start nothing new.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    phase: watch::Receiver<Phase>,
}

impl DrainSignal {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        Self { phase }
    }

    /// Whether the server is draining now.
    pub fn is_draining(&self) -> bool {
        self.phase.borrow().is_draining()
    }

    /// Waits until the server drains; at once if it already does. Cancel safe.
    pub async fn wait(&mut self) {
        // The sender outlives every connection's task; were it gone, the server would have ended.
        let _ = self.phase.wait_for(Phase::is_draining).await;
    }
}

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Running,
    Stopping,
    Draining { until: Instant },
    Aborting,
}

impl Phase {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    fn is_draining(&self) -> bool {
        matches!(self, Self::Draining { .. } | Self::Aborting)
    }

    /// Moves forward to `to`, or says that this would be no step forward.
    fn advance(&mut self, to: Self) -> bool {
        let forward = match (*self, to) {
            (Self::Draining { until }, Self::Draining { until: new }) => new < until,
            (from, to) => to.rank() > from.rank(),
        };
        if forward {
            *self = to;
        }
        forward
    }

    fn rank(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Stopping => 1,
            Self::Draining { .. } => 2,
            Self::Aborting => 3,
        }
    }
}

/// The tasks of the open connections: so that they can be waited for, and aborted.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    open: Mutex<Open>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// `None` for the moment between the two steps of `spawn`.
    handles: HashMap<u64, Option<AbortHandle>>,
    aborting: bool,
}

impl Tasks {
    /// Spawns a connection's task, which calls [`Tasks::ended`] as its last act.
    pub(crate) fn spawn<F>(&self, id: u64, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Entered before it runs: on another thread it may end before `spawn` returns.
        self.open().handles.insert(id, None);
        // Boxed: tokio aligns what it allocates for a task to 128 bytes, and glibc leaves gaps before and behind it. With
        // the future in an allocation of its own the task's is small, and the future fits in a gap.
        let handle = tokio::spawn(Box::pin(task)).abort_handle();
        let mut open = self.open();
        if open.aborting {
            handle.abort();
        } else if let Some(entry) = open.handles.get_mut(&id) {
            *entry = Some(handle);
        }
    }

    pub(crate) fn ended(&self, id: u64) {
        let mut open = self.open();
        open.handles.remove(&id);
        if open.handles.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until no task is left.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open().handles.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Aborts every task, now and from now on: each is dropped at its next await.
    pub(crate) fn abort_all(&self) {
        let handles: Vec<AbortHandle> = {
            let mut open = self.open();
            open.aborting = true;
            open.handles.values_mut().filter_map(Option::take).collect()
        };
        // Not under the lock: a task that is not running is dropped right here, and that calls `ended`.
        for handle in handles {
            handle.abort();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
