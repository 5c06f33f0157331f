//! Ends and reaps the programs whose connections are over before them: after a deadline, or when the server is cut short. A
//! thread, because it has to outlive the connection's task and its runtime.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::serve::exec::group::{AFTER_KILL, Group, LOOK_AGAIN};

/// The thread, until [`Reaper::finish`].
pub(super) struct Reaper {
    thread: JoinHandle<()>,
}

/// Where programs are handed over. There are never more of them than connections were cut within `kill_after`.
#[derive(Clone)]
pub(super) struct Handover {
    kill_after: Duration,
    dying: Sender<Dying>,
}

impl Reaper {
    pub(super) fn start(kill_after: Duration) -> io::Result<(Self, Handover)> {
        let (dying, handed_over) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || reap(&handed_over))?;
        Ok((Self { thread }, Handover { kill_after, dying }))
    }

    /// Waits until all programs are gone, at most as long as TERM and KILL are given. Every [`Handover`] must have been
    /// dropped.
    pub(super) fn finish(self) {
        // A panic there was reported; the programs cannot be helped.
        let _ = self.thread.join();
    }
}

impl Handover {
    /// How long after TERM there is KILL.
    pub(super) fn kill_after(&self) -> Duration {
        self.kill_after
    }

    /// Has a group ended that may still be there.
    pub(super) fn end(&self, mut group: Group) {
        if group.is_gone().unwrap_or(false) {
            return;
        }
        group.signal(Signal::TERM);
        let kill_at = Some(Instant::now() + self.kill_after);
        if let Err(unsent) = self.dying.send(Dying { group, kill_at }) {
            // There is nobody to wait for it.
            unsent.0.group.signal(Signal::KILL);
        }
    }
}

/// A group that got TERM.
struct Dying {
    group: Group,
    /// When it gets KILL; `None` when it had that.
    kill_at: Option<Instant>,
}

impl Dying {
    /// Whether it is gone; kills it if it is time to.
    fn look(&mut self, now: Instant) -> bool {
        if self.group.is_gone().unwrap_or(true) {
            return true;
        }
        if self.kill_at.is_some_and(|kill_at| kill_at <= now) {
            self.group.signal(Signal::KILL);
            self.kill_at = None;
        }
        false
    }
}

fn reap(handed_over: &Receiver<Dying>) {
    let mut dying: Vec<Dying> = Vec::new();
    // When the server has ended: until when what not even KILL ends may keep it up.
    let mut give_up_at = None;
    loop {
        let next = if dying.is_empty() {
            handed_over.recv().map_err(RecvTimeoutError::from)
        } else {
            handed_over.recv_timeout(LOOK_AGAIN)
        };
        let now = Instant::now();
        match next {
            Ok(next) => dying.push(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let give_up_at = *give_up_at.get_or_insert_with(|| {
                    let last_kill = dying.iter().filter_map(|dying| dying.kill_at).max();
                    last_kill.unwrap_or(now) + AFTER_KILL
                });
                if dying.is_empty() || now >= give_up_at {
                    return;
                }
                thread::sleep(LOOK_AGAIN);
            }
        }
        dying.retain_mut(|dying| !dying.look(now));
    }
}
