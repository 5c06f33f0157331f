//! What the kernel keeps accounts of: CPU time, memory and the listen queue.

use std::fs;
use std::io;

/// The CPU time of a process, its children included, in nanoseconds.
///
/// From `schedstat`, which counts every nanosecond a thread ran. The user and system times beside it are samples
/// taken at clock ticks, which is noise for threads that run for microseconds. The time of a thread that is running
/// right now may lag by up to one tick (4 ms at 250 Hz): nothing in a window of seconds, and the reason not to make
/// the window shorter.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in tasks(pid)? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(format!("{task}/schedstat")) else {
            continue;
        };
        total += text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .ok_or_else(|| unreadable("schedstat"))?;
        for child in children(&task) {
            total += cpu_ns(child).unwrap_or(0);
        }
    }
    Ok(total)
}

/// The user memory of a process and its children, in bytes: `Anonymous` and `Swap` of `smaps_rollup`.
///
/// That is the heap and the stacks. The resident size would add pages of the program's own file, which come and go
/// with the page cache and have nothing to do with connections.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let tasks = tasks(pid)?;
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut total = 0;
    for name in ["Anonymous:", "Swap:"] {
        let kibibytes = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
            .and_then(|field| field.parse::<u64>().ok())
            .ok_or_else(|| unreadable("smaps_rollup"))?;
        total += kibibytes * 1024;
    }
    for task in tasks {
        for child in children(&task) {
            total += anonymous_bytes(child).unwrap_or(0);
        }
    }
    Ok(total)
}

/// The CPU time of this process, in nanoseconds.
#[must_use]
pub fn own_cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the struct it is given; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The connections the kernel turned away because a listen queue was full, of all listeners since boot.
#[derive(Debug, Clone, Copy)]
pub struct ListenQueue {
    pub drops: u64,
    pub overflows: u64,
}

impl ListenQueue {
    pub fn read() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/net/netstat")?;
        Ok(Self {
            drops: counter(&text, "ListenDrops").ok_or_else(|| unreadable("netstat"))?,
            overflows: counter(&text, "ListenOverflows").ok_or_else(|| unreadable("netstat"))?,
        })
    }
}

/// The table is pairs of lines with one prefix: names, then values in the same order.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next()?.split_whitespace();
    let values = lines.next()?.split_whitespace();
    names
        .zip(values)
        .find(|(found, _)| *found == name)?
        .1
        .parse()
        .ok()
}

fn tasks(pid: u32) -> io::Result<Vec<String>> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))?
        .map(|entry| Ok(entry?.path().display().to_string()))
        .collect()
}

/// Some servers do their work in a child, and would look free of cost without this.
fn children(task: &str) -> Vec<u32> {
    fs::read_to_string(format!("{task}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the kernel's {file} is not as expected"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name_in_its_own_table() {
        let text = "TcpExt: A ListenDrops\nTcpExt: 1 22\nIpExt: ListenDrops\nIpExt: 3\n";
        assert_eq!(counter(text, "ListenDrops"), Some(22));
        assert_eq!(counter(text, "ListenOverflows"), None);
    }
}
