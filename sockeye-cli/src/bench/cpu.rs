//! CPU time, to the nanosecond, as the scheduler counts it. User and system times are samples taken at clock ticks: noise.

use std::fs;
use std::io;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
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
        Self {
            ran_ns: own_cpu_ns(),
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

/// What the calling thread has used so far.
pub(crate) fn own_cpu_ns() -> u64 {
    let ran = clock_gettime(ClockId::ThreadCPUTime);
    ran.tv_sec as u64 * 1_000_000_000 + ran.tv_nsec as u64
}

/// Of a process and its children.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessCpu {
    /// Of threads and children that have ended, too.
    pub(crate) ran_ns: u64,
    /// Those that there are, by number.
    threads: Vec<(u32, ThreadCpu)>,
}

impl ProcessCpu {
    /// Of a child that has ended only what its parent was told when it waited for it.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut all = Self {
            ran_ns: process_clock_ns(pid)? + reaped_ns(pid).unwrap_or(0),
            threads: Vec::new(),
        };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread may end between the listing and the reading.
            let Some((ran_ns, waited_ns)) =
                read_schedstat(&format!("{}/schedstat", task.display()))
            else {
                continue;
            };
            let number = task
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let cpu = ThreadCpu { ran_ns, waited_ns };
            all.threads.push((number.unwrap_or(pid), cpu));
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                let child = child.parse().ok().map(Self::of);
                all.add(child.and_then(Result::ok).unwrap_or_default());
            }
        }
        Ok(all)
    }

    /// Of the server in this process: of all threads but the one that leads and those that measure, which are named for it.
    pub(crate) fn of_our_server() -> io::Result<Self> {
        let ours = std::process::id();
        let is_servers = |(number, _): &(u32, ThreadCpu)| {
            let name = fs::read_to_string(format!("/proc/self/task/{number}/comm"));
            *number != ours && !name.unwrap_or_default().starts_with(MEASURING)
        };
        let mut threads = Self::of(ours)?.threads;
        threads.retain(is_servers);
        Ok(Self {
            ran_ns: threads.iter().map(|(_, cpu)| cpu.ran_ns).sum(),
            threads,
        })
    }

    fn add(&mut self, child: Self) {
        self.ran_ns += child.ran_ns;
        self.threads.extend(child.threads);
    }

    pub(crate) fn since(mut self, before: &Self) -> Self {
        self.ran_ns = self.ran_ns.saturating_sub(before.ran_ns);
        for (number, cpu) in &mut self.threads {
            if let Some((_, before)) = before.threads.iter().find(|(known, _)| known == number) {
                *cpu = cpu.since(before);
            }
        }
        self
    }

    pub(crate) fn threads(&self) -> Vec<ThreadCpu> {
        self.threads.iter().map(|(_, cpu)| *cpu).collect()
    }
}

/// Of all threads that the process ever had (clock_getcpuclockid(3)).
fn process_clock_ns(pid: u32) -> io::Result<u64> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
    let ran = nix::time::clock_gettime(clock)?;
    Ok(ran.tv_sec() as u64 * 1_000_000_000 + ran.tv_nsec() as u64)
}

/// Of the children that a process has waited for, and of theirs: fields 16 and 17, in units of 10 ms (proc(5),
/// /proc/pid/stat).
fn reaped_ns(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name comes second, in brackets, and may itself hold brackets and spaces.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(13);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()? + next()?) * 10_000_000)
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
