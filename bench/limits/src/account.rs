//! What the kernel keeps accounts of: CPU time, memory and the listen queue.

use std::fs;
use std::io;

/// The CPU time of a process, its children included, in nanoseconds.
///
/// From `schedstat`, which counts every nanosecond a thread ran. The user and system times beside it are samples
/// taken at clock ticks, which is noise for threads that run for microseconds. The time of a thread that is running
/// right now may lag by up to one tick (4 ms at 250 Hz): nothing in a window of seconds, and the reason not to make
/// the window shorter. Children that have ended are in [`reaped_ns`], or a server with a process for each connection
/// would look free of cost.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = reaped_ns(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
        .ok_or_else(|| unreadable("stat"))?;
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

/// The CPU time of the children a process has waited for, and of theirs, in nanoseconds: `cutime` and `cstime`, the
/// 16th and 17th fields of `stat` (proc(5)).
///
/// The split between the two is a guess from samples; their sum is scaled to the time each child really ran, and is
/// only shown in units of 10 ms (100 a second on every architecture).
fn reaped_ns(stat: &str) -> Option<u64> {
    // The name comes second, in brackets, and may itself hold brackets and spaces.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(13);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()? + next()?) * 10_000_000)
}

/// What an open connection is made of in the kernel: the socket, its file, and its entry in an epoll set or its
/// request of io_uring, each under the name of its slab. Other slabs, such as those of the file systems, are other processes' too, and mere noise here.
const SLABS: [&str; 11] = [
    "TCP",
    "dentry",
    "ep_head",
    "eventpoll_epi",
    "eventpoll_pwq",
    "filp",
    "io_kiocb",
    "lsm_file_cache",
    "lsm_inode_cache",
    "sock_inode_cache",
    "tcp_bind2_bucket",
];

/// What the kernel holds of connections on the whole machine, in bytes, and where that is from.
///
/// `slabinfo` counts objects by kind, and is for root. The `Slab` of `meminfo` counts pages of every kind, and says
/// less: pages that an earlier run has left half empty fill up first, without a change of the sum.
pub fn slab_bytes() -> io::Result<(u64, &'static str)> {
    if let Ok(table) = fs::read_to_string("/proc/slabinfo") {
        let used = used_bytes(&table).ok_or_else(|| unreadable("slabinfo"))?;
        return Ok((used, "slabinfo"));
    }
    let text = fs::read_to_string("/proc/meminfo")?;
    let slab = kibibytes(&text, "Slab:").ok_or_else(|| unreadable("meminfo"))?;
    Ok((slab * 1024, "meminfo"))
}

/// The sum of the used objects of these slabs. A line is a name, the objects in use, all of them, the size of one.
fn used_bytes(slabinfo: &str) -> Option<u64> {
    let mut total = 0;
    for line in slabinfo.lines().skip(2) {
        let mut fields = line.split_whitespace();
        if !SLABS.contains(&fields.next()?) {
            continue;
        }
        let used: u64 = fields.next()?.parse().ok()?;
        total += used * fields.nth(1)?.parse::<u64>().ok()?;
    }
    Some(total)
}

/// The value of a line of a table such as `Slab:   123 kB`.
fn kibibytes(table: &str, name: &str) -> Option<u64> {
    table
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())?
        .parse()
        .ok()
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
        total += kibibytes(&text, name).ok_or_else(|| unreadable("smaps_rollup"))? * 1024;
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

    #[test]
    fn the_time_of_reaped_children_is_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 11 12 13 14 20 0 1 0 99";
        assert_eq!(reaped_ns(stat), Some(270_000_000));
        assert_eq!(reaped_ns("7 (a) S 1 7"), None);
    }

    #[test]
    fn objects_in_use_are_summed_over_the_slabs_of_connections() {
        let table = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize> ...\n\
                     TCP 10 26 2368 13 8 : tunables\nfilp 3 4 192 21 1 : tunables\n\
                     ext4_inode 9 9 1000 3 8 : tunables\n";
        assert_eq!(used_bytes(table), Some(10 * 2368 + 3 * 192));
        assert_eq!(used_bytes("slabinfo\n# name\nTCP x 26 2368\n"), None);
    }
}
