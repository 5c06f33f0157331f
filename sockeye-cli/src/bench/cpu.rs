//! CPU time, to the nanosecond, as the scheduler counts it. User and system times are samples taken at clock ticks: noise.

use std::fs;
use std::io;

use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

/// Of the calling thread.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ThreadCpu {
    pub(crate) ran_ns: u64,
    /// Ready to run, and no CPU for it.
    pub(crate) waited_ns: u64,
}

impl ThreadCpu {
    pub(crate) fn now() -> Self {
        let path = format!("/proc/self/task/{}/schedstat", gettid().as_raw_nonzero());
        let waited_ns = read_schedstat(&path).map_or(0, |(_, waited)| waited);
        let ran = clock_gettime(ClockId::ThreadCPUTime);
        Self {
            ran_ns: ran.tv_sec as u64 * 1_000_000_000 + ran.tv_nsec as u64,
            waited_ns,
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            ran_ns: self.ran_ns.saturating_sub(before.ran_ns),
            waited_ns: self.waited_ns.saturating_sub(before.waited_ns),
        }
    }
}

/// Of a process and its children, in nanoseconds, by thread: how long each ran and how long it waited.
///
/// Of children that have ended, nothing: a server that starts a process for each client is dearer than it seems.
pub(crate) fn of_process(pid: u32) -> io::Result<Vec<(u32, ThreadCpu)>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end between the listing and the reading.
        let Some((ran_ns, waited_ns)) = read_schedstat(&format!("{}/schedstat", task.display()))
        else {
            continue;
        };
        let number = task
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        all.push((number.unwrap_or(pid), ThreadCpu { ran_ns, waited_ns }));
        let children = fs::read_to_string(task.join("children")).unwrap_or_default();
        for child in children
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
        {
            all.extend(of_process(child).unwrap_or_default());
        }
    }
    Ok(all)
}

/// Of the server in this process: of all threads but the one that leads and those that measure, which are named for it.
pub(crate) fn of_our_server() -> io::Result<Vec<(u32, ThreadCpu)>> {
    let ours = std::process::id();
    let is_servers = |(number, _): &(u32, ThreadCpu)| {
        let name = fs::read_to_string(format!("/proc/self/task/{number}/comm"));
        *number != ours && !name.unwrap_or_default().starts_with(MEASURING)
    };
    Ok(of_process(ours)?.into_iter().filter(is_servers).collect())
}

/// What the names of threads that measure begin with.
pub(crate) const MEASURING: &str = "bench-";

/// The first two numbers: the time on a CPU and the time in a queue for one (Documentation/scheduler/sched-stats.rst).
fn read_schedstat(path: &str) -> Option<(u64, u64)> {
    let text = fs::read_to_string(path).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(ran)), Some(Ok(waited))) => Some((ran, waited)),
        _ => None,
    }
}
