//! A program and all that it has started: a process group.
//!
//! A group is known by a number, which the kernel gives away again only when nobody of the group is left, nor its leader
//! unreaped. So a signal is sent only by a number that belongs to a leader we have not reaped, or that was seen to be a group
//! [`LOOK_AGAIN`] before.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process_group, waitpid,
};

use crate::serve::reporter::Reporter;

/// How often it is looked whether a group is gone whose leader has ended: nothing tells it.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a group is waited for after KILL. A process that waits for a disk can outlive it for a while.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(1);

/// A process group, and its leader until it is reaped.
pub(super) struct Group {
    /// The number of both.
    pub(super) pid: Pid,
    id: u64,
    began: Instant,
    is_reaped: bool,
    reporter: Arc<Reporter>,
}

impl Group {
    /// Of the process that runs for connection `id`, which leads a group or is about to.
    pub(super) fn new(pid: Pid, id: u64, reporter: &Arc<Reporter>) -> Self {
        reporter.started(id, pid.as_raw_nonzero().get());
        Self {
            pid,
            id,
            began: Instant::now(),
            is_reaped: false,
            reporter: Arc::clone(reporter),
        }
    }

    /// Reaps the leader if it has ended, and says whether it has. Others of the group may still be there.
    pub(super) fn has_exited(&mut self) -> io::Result<bool> {
        if !self.is_reaped
            && let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::NOHANG)?
        {
            self.is_reaped = true;
            self.tell(ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.is_reaped)
    }

    /// Whether nobody of the group is left; reaps the leader.
    pub(super) fn is_gone(&mut self) -> io::Result<bool> {
        // Who exists and may not be signalled has changed its user, and is there all the same.
        Ok(self.has_exited()? && test_kill_process_group(self.pid) == Err(Errno::SRCH))
    }

    pub(super) fn signal(&self, signal: Signal) {
        // That it is not there any more is what is wanted. That it may not be signalled (a program with another user)
        // cannot be helped.
        if kill_process_group(self.pid, signal) == Err(Errno::SRCH) && !self.is_reaped {
            // It has not come as far as being a group.
            let _ = kill_process(self.pid, signal);
        }
    }

    fn tell(&self, status: ExitStatus) {
        let pid = self.pid.as_raw_nonzero().get();
        self.reporter
            .exited(self.id, pid, status, self.began.elapsed());
    }
}
