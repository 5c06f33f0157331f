//! What has happened on a connection so far.

use std::cell::Cell;
use std::future::pending;
use std::time::Duration;

use sockeye::tls_peek::Guess;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Written by both directions, which are one task.
pub(crate) struct Progress {
    pub(crate) started: Instant,
    /// Before the close, which may linger.
    pub(crate) ended: Cell<Instant>,
    /// When something last moved, or is going to, if that is our own moment.
    moved: Cell<Instant>,
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
    pub(crate) first_byte: Cell<Option<Instant>>,
    pub(crate) our_fin: Cell<Option<Instant>>,
    pub(crate) peer_fin: Cell<Option<Instant>>,
    pub(crate) ends_a_line: Cell<bool>,
    /// A write was told of a reset, of which the kernel tells once: to a read it looks like an end in good order.
    pub(crate) was_reset: Cell<bool>,
    /// What came first is a TLS alert: the server was told something that is no TLS.
    pub(crate) is_alert: Cell<bool>,
    more_received: Notify,
}

impl Progress {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            ended: Cell::new(now),
            moved: Cell::new(now),
            sent: Cell::new(0),
            received: Cell::new(0),
            first_byte: Cell::new(None),
            our_fin: Cell::new(None),
            peer_fin: Cell::new(None),
            ends_a_line: Cell::new(true),
            was_reset: Cell::new(false),
            is_alert: Cell::new(false),
            more_received: Notify::new(),
        }
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.idle_from(Instant::now());
    }

    pub(crate) fn add_received(&self, bytes: &[u8]) {
        if self.first_byte.get().is_none() {
            self.first_byte.set(Some(Instant::now()));
            self.is_alert.set(Guess::of(bytes) == Guess::TlsAlert);
        }
        self.received.set(self.received.get() + bytes.len() as u64);
        self.idle_from(Instant::now());
        self.more_received.notify_waiters();
    }

    /// From this moment on it counts as idle when nothing moves.
    pub(crate) fn idle_from(&self, moment: Instant) {
        self.moved.set(self.moved.get().max(moment));
    }

    /// Waits until so many bytes have come. Cancel safe.
    pub(crate) async fn has_received(&self, bytes: u64) {
        while self.received.get() < bytes {
            // Both directions are one task: nothing comes between the look and the wait.
            self.more_received.notified().await;
        }
    }

    /// Waits until nothing has moved for `limit`.
    pub(crate) async fn idle(&self, limit: Option<Duration>) -> Duration {
        let Some(limit) = limit else {
            return pending().await;
        };
        loop {
            let Some(deadline) = self.moved.get().checked_add(limit) else {
                return pending().await;
            };
            if deadline <= Instant::now() {
                return limit;
            }
            sleep_until(deadline).await;
        }
    }
}
