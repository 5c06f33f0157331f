//! A program in the hands of its connection's task.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::serve::exec::group::{AFTER_KILL, Group, LOOK_AGAIN};
use crate::serve::exec::reaper::Handover;
use crate::serve::exec::watch::registered;
use crate::serve::reporter::Reporter;

/// A program that was started for a connection. Dropped while anything of it is there, that is left to the reaper.
pub(super) struct Child {
    /// `Some` until the drop.
    group: Option<Group>,
    reaper: Handover,
    /// Readable when the leader of the group has ended (pidfd_open(2)).
    ended: Option<AsyncFd<OwnedFd>>,
}

impl Child {
    /// Takes charge of a process that was just started.
    ///
    /// # Errors
    ///
    /// It cannot be watched, for want of descriptors for example, and is ended.
    pub(super) fn watch(
        pid: Pid,
        id: u64,
        reporter: &Arc<Reporter>,
        reaper: &Handover,
    ) -> io::Result<Self> {
        let mut child = Self {
            group: Some(Group::new(pid, id, reporter)),
            reaper: reaper.clone(),
            ended: None,
        };
        let ended = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        child.ended = Some(registered(ended, Interest::READABLE)?);
        Ok(child)
    }

    /// Waits for the program to end by itself. What it has started may still be there.
    ///
    /// Cancel safe.
    pub(super) async fn exited(&mut self) -> io::Result<()> {
        let Self { group, ended, .. } = self;
        let (Some(group), Some(ended)) = (group, ended) else {
            return Ok(());
        };
        while !group.has_exited()? {
            let mut ended = ended.readable().await?;
            if group.has_exited()? {
                break;
            }
            ended.clear_ready();
        }
        Ok(())
    }

    /// Ends what is left of the group: TERM, and KILL for what is still there some time later.
    ///
    /// Cancelled, or if not even KILL ends it soon, the rest is left to the reaper.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        for (signal, patience) in [
            (Signal::TERM, self.reaper.kill_after()),
            (Signal::KILL, AFTER_KILL),
        ] {
            if let Some(group) = &mut self.group {
                if group.is_gone()? {
                    break;
                }
                group.signal(signal);
            }
            if let Ok(gone) = tokio::time::timeout(patience, self.gone()).await {
                return gone;
            }
        }
        Ok(())
    }

    async fn gone(&mut self) -> io::Result<()> {
        self.exited().await?;
        while let Some(group) = &mut self.group
            && !group.is_gone()?
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.reaper.end(group);
        }
    }
}
