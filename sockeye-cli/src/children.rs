//! What has to be seen to before a program is started.

use std::fs;
use std::io;

use anyhow::anyhow;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Failure;

/// Has the kernel keep what a child ends with until we ask for it.
///
/// Whoever started us may have ignored SIGCHLD, which a process inherits: then children are reaped by the kernel, nobody learns how
/// they ended, and their numbers belong to others before we signal them (wait(2), NOTES). A handler ends that; programs do
/// not inherit it. Only then, because a handler is called for every child.
pub(crate) fn keep_their_status() -> Result<(), Failure> {
    handle(SignalKind::child())
        .map_err(|error| Failure::usage(anyhow!(error).context("cannot watch programs")))
}

fn handle(kind: SignalKind) -> io::Result<()> {
    if !is_ignored(kind) {
        return Ok(());
    }
    // The handler outlives the runtime, and what it tells nobody has to hear.
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    signal(kind).map(drop)
}

/// As proc(5) says; if that is not to be had, it is taken for ignored.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}
