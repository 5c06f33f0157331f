//! What all workers of one server share, and the place that each open connection holds in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::admission::{Admission, Source};
use crate::deadline::Timeouts;
use crate::shutdown::{Handle, Phase, Summary, Tasks};
use crate::stats::Ledger;

/// What all workers of one server share.
pub(crate) struct Core {
    pub(crate) timeouts: Timeouts,
    pub(crate) phase: Arc<watch::Sender<Phase>>,
    pub(crate) ledger: Ledger,
    pub(crate) tasks: Tasks,
    admission: Mutex<Admission>,
    /// Told when a place is given back.
    freed: Notify,
    last_id: AtomicU64,
}

/// A place under the global limit, and a count for a source: given back when it is dropped.
pub(crate) struct Permit {
    core: Arc<Core>,
    pub(crate) source: Option<Source>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.core.admission().release(self.source);
        self.core.freed.notify_one();
    }
}

impl Core {
    /// A server with nobody in it.
    pub(crate) fn new(
        timeouts: Timeouts,
        phase: Arc<watch::Sender<Phase>>,
        ledger: Ledger,
        admission: Admission,
    ) -> Self {
        Self {
            timeouts,
            phase,
            ledger,
            tasks: Tasks::default(),
            admission: Mutex::new(admission),
            freed: Notify::new(),
            last_id: AtomicU64::new(0),
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle {
            phase: Arc::clone(&self.phase),
            counters: Arc::clone(&self.ledger.counters),
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            snapshot: self.ledger.counters.snapshot(),
        }
    }

    /// The number of the next connection.
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes a place for one more connection, if there is one.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Permit> {
        let now = Instant::now();
        let mut admission = self.admission();
        let was_deferring = admission.is_deferring();
        let reserved = admission.reserve(now);
        if admission.is_deferring() != was_deferring {
            self.ledger.deferred(admission.deferrals(now));
        }
        reserved.then(|| Permit {
            core: Arc::clone(self),
            source: None,
        })
    }

    /// Waits until there may be a place.
    pub(crate) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.admission().has_room() {
                break;
            }
            freed.await;
        }
        // There may be room for another worker, too; each that finds some wakes the next.
        self.freed.notify_one();
    }

    pub(crate) fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
