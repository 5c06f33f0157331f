//! INT and TERM: a talk hears the first one itself, ends in good order and tells what has happened so far. The second one
//! ends all at once.

use std::cell::Cell;
use std::future::pending;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Code;

/// Who hears the next one, and which the last one was.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    within: Cell<bool>,
    terminated: Cell<bool>,
    /// When one was last left to who hears within.
    left: Cell<Option<Instant>>,
}

/// What comes so soon after the first is not a second one: timeout(1) sends its signal to us, and then to our group.
const ONE_ACT: Duration = Duration::from_millis(200);

impl Interrupt {
    /// Waits for the next one. Cancel safe.
    pub(crate) async fn heard(&self) {
        let terminated = tokio::select! {
            () = next(SignalKind::interrupt()) => false,
            () = next(SignalKind::terminate()) => true,
        };
        self.terminated.set(terminated);
    }

    /// Waits for one that nobody within hears: outside of a talk the first one, in it the second.
    pub(crate) async fn unheard(&self) {
        loop {
            self.heard().await;
            if self.within.replace(false) {
                self.left.set(Some(Instant::now()));
            } else if self.left.get().is_none_or(|left| left.elapsed() >= ONE_ACT) {
                return;
            }
        }
    }

    /// Whether the next one is heard within.
    pub(crate) fn heard_within(&self, within: bool) {
        self.within.set(within);
    }

    /// 128 and the number of the signal, as a shell has it.
    pub(crate) fn code(&self) -> Code {
        if self.terminated.get() {
            Code::Other(TERMINATED)
        } else {
            Code::Interrupted
        }
    }
}

const TERMINATED: NonZeroU8 = NonZeroU8::new(128 + 15).expect("not 0");

async fn next(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => drop(signals.recv().await),
        // Nobody can listen: the signal ends the process.
        Err(_) => pending().await,
    }
}
