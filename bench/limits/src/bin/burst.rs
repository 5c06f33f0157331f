//! A burst: thousands of connections begun at once, each of which wants one byte echoed.
//!
//! It finds whether the server empties its listen queue as fast as it fills. Where it does not, the kernel drops the
//! SYN, the client tries again after a second, and the rate falls by factors; the kernel's counters tell that from
//! mere slowness.

use sockeye_limits::account::{ListenQueue, cpu_ns, own_cpu_ns};
use sockeye_limits::arguments::{Arguments, usage};
use sockeye_limits::crowd::{Opening, Plain};
use sockeye_limits::exit_code;
use sockeye_limits::report::{Report, objection};
use sockeye_limits::sys;
use std::io;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    exit_code("burst", run())
}

fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let address: SocketAddrV4 = words.first("ADDRESS")?;
    let pid: u32 = words.required("--pid")?;
    let count: usize = words.optional("--connections")?.unwrap_or(9000);
    let in_flight: usize = words.optional("--in-flight")?.unwrap_or(count);
    let patience: u64 = words.optional("--patience")?.unwrap_or(60);
    words.finish()?;
    let limit = sys::raise_descriptor_limit()?;
    if count == 0 || in_flight == 0 || count as u64 + 32 > limit {
        return Err(usage(format!(
            "--connections, --in-flight: from 1 to less than {limit}"
        )));
    }
    let opening = Opening {
        count,
        in_flight,
        patience: Duration::from_secs(patience),
    };
    let (queue, server_cpu, client_cpu) = (ListenQueue::read()?, cpu_ns(pid)?, own_cpu_ns());
    let began = Instant::now();
    let crowd = opening.run(|| Plain::begin(address, b"x"))?;
    let seconds = began.elapsed().as_secs_f64();
    let server_cpu = cpu_ns(pid)? as f64 - server_cpu as f64;
    let client_cpu = (own_cpu_ns() - client_cpu) as f64;
    let queue_after = ListenQueue::read()?;
    let served = crowd.streams.len();
    let objection = objection(served, count, crowd.errors, crowd.first_error.as_deref());
    Report::default()
        .count("connections", count as u64)
        .count("in_flight", in_flight as u64)
        .figure("seconds", seconds)
        .figure("connections_per_s", served as f64 / seconds)
        .figure("server_cpu_ns_per_connection", server_cpu / served as f64)
        .figure("client_cpu_ns_per_connection", client_cpu / served as f64)
        .count("listen_drops", queue_after.drops - queue.drops)
        .count("listen_overflows", queue_after.overflows - queue.overflows)
        .count("errors", crowd.errors)
        .count("served", served as u64)
        .print(objection.as_deref());
    Ok(objection.is_none())
}
