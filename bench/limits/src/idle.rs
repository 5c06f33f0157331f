//! Idle connections: what each of them holds of the server's memory.
//!
//! Every connection has had one message echoed before it idles. A server that allocates on first use would look free
//! of cost otherwise, and so would one that keeps the buffer it has once used.

use crate::account::{anonymous_bytes, slab_bytes};
use crate::arguments::{Arguments, usage};
use crate::crowd::{Crowd, Newcomer, Opening};
use crate::report::{Report, objection};
use crate::sys;
use std::io;
use std::net::SocketAddrV4;
use std::thread;
use std::time::{Duration, Instant};

/// What every connection is to have echoed before it counts as open.
pub const MESSAGE: [u8; 64] = [b's'; 64];

/// Holds as many connections as the command line asks for, begun so. Whether the figures count.
pub fn run<N: Newcomer>(begin: impl Fn(SocketAddrV4) -> io::Result<N>) -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let address: SocketAddrV4 = words.first("ADDRESS")?;
    let pid: u32 = words.required("--pid")?;
    let count: usize = words.optional("--connections")?.unwrap_or(9000);
    words.finish()?;
    let limit = sys::raise_descriptor_limit()?;
    if count < 2 || count as u64 + 32 > limit {
        return Err(usage(format!("--connections: from 2 to less than {limit}")));
    }
    let half = count / 2;
    let (slab_before, slab_from) = settled_slab_bytes()?;
    let before = anonymous_bytes(pid)?;
    let began = Instant::now();
    let first = open(half, || begin(address))?;
    let at_half = anonymous_bytes(pid)?;
    let second = open(count - half, || begin(address))?;
    let seconds = began.elapsed().as_secs_f64();
    let at_full = anonymous_bytes(pid)?;
    let (slab_full, _) = settled_slab_bytes()?;
    let served = first.streams.len() + second.streams.len();
    let first_error = first.first_error.or(second.first_error);
    let errors = first.errors + second.errors;
    let objection = objection(served, count, errors, first_error.as_deref());
    let each = |from: u64, to: u64, count: usize| (to as f64 - from as f64) / count as f64;
    Report::default()
        .count("connections", count as u64)
        .count("anonymous_before_bytes", before)
        .count("anonymous_half_bytes", at_half)
        .count("anonymous_full_bytes", at_full)
        // With all that is allocated once, such as a buffer all connections share.
        .figure("bytes_per_connection", each(before, at_full, count))
        // Without it: what one connection more costs. Tables that double make it jump with the count.
        .figure(
            "slope_bytes_per_connection",
            each(at_half, at_full, count - half),
        )
        // Of both ends, since both are on this machine.
        .figure(
            "kernel_bytes_per_connection",
            each(slab_before, slab_full, count),
        )
        .text("kernel_bytes_from", slab_from)
        .figure("open_us_per_connection", seconds * 1e6 / count as f64)
        .count("errors", errors)
        .count("served", served as u64)
        .print(objection.as_deref());
    Ok(objection.is_none())
}

/// The kernel frees the sockets of an earlier run a while after they were closed (RCU), so this waits until their number
/// changes no more, or for two seconds on a machine that is not quiet.
fn settled_slab_bytes() -> io::Result<(u64, &'static str)> {
    let (mut before, _) = slab_bytes()?;
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(50));
        let found = slab_bytes()?;
        if found.0.abs_diff(before) < 16 * 1024 {
            return Ok(found);
        }
        before = found.0;
    }
    slab_bytes()
}

/// A few at a time: this is about idle connections, and a burst would add the memory a server needs for one.
fn open<N: Newcomer>(
    count: usize,
    begin: impl Fn() -> io::Result<N>,
) -> io::Result<Crowd<N::Stream>> {
    let opening = Opening {
        count,
        in_flight: 64,
        patience: Duration::from_secs(30),
    };
    opening.run(begin)
}
