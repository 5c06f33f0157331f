//! What all workers of one server share, and the place that each open connection holds in it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::admission::{Admission, RefuseReason};
use crate::deadline::Timeouts;
use crate::rules::TrustedProxies;
use crate::shutdown::{Handle, Phase, Summary, Tasks};
use crate::source::Source;
use crate::stats::{Ledger, Observer};

/// What all workers of one server share.
pub(crate) struct Core {
    /// What the times in a connection's record count from.
    pub(crate) began: tokio::time::Instant,
    pub(crate) timeouts: Timeouts,
    pub(crate) trusted: Option<TrustedProxies>,
    pub(crate) handle: Handle,
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
    source: Option<Source>,
}

impl Permit {
    /// Asks admission about the client; if it is let in it is counted for its source.
    pub(crate) fn admit(&mut self, client: Option<IpAddr>) -> Result<(), RefuseReason> {
        let rules = self.core.handle.rules();
        let decision = self.core.admission().decide(&rules, client, Instant::now());
        self.source = decision?;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.core.admission().release(self.source);
        self.core.freed.notify_one();
    }
}

/// A place among the handshakes in progress: given back when it is dropped.
pub(crate) struct HandshakePlace {
    core: Arc<Core>,
}

impl HandshakePlace {
    /// Takes one, or says that the connection is to be refused.
    pub(crate) fn take(core: &Arc<Core>) -> Result<Self, RefuseReason> {
        core.admission().begin_handshake(fastrand::f64)?;
        Ok(Self {
            core: Arc::clone(core),
        })
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.core.admission().end_handshake();
    }
}

impl Core {
    /// A server with nobody in it.
    pub(crate) fn new(
        timeouts: Timeouts,
        trusted: Option<TrustedProxies>,
        handle: Handle,
        observer: Option<Box<dyn Observer>>,
        admission: Admission,
    ) -> Self {
        Self {
            began: tokio::time::Instant::now(),
            timeouts,
            trusted,
            ledger: Ledger {
                counters: Arc::clone(&handle.counters),
                observer,
            },
            handle,
            tasks: Tasks::default(),
            admission: Mutex::new(admission),
            freed: Notify::new(),
            last_id: AtomicU64::new(0),
        }
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.handle.phase.subscribe()
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

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
