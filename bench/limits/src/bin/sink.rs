//! Takes all that comes and throws it away, and says how much it was: the other end of a transfer, at the least cost.
//!
//! Without `--copy` the bytes are dropped in the kernel, and the sender's is nearly all the work; with it they are
//! copied to user space, as every program that looks at them has to.

use sockeye_limits::arguments::Arguments;
use sockeye_limits::{announce, exit_code, sys};
use std::io::{self, Read};
use std::net::TcpStream;
use std::process::ExitCode;

/// As much as a receive queue usually holds, so that one call empties it.
const MOST: usize = 1 << 20;
/// Stays in the cache.
const BUFFER_BYTES: usize = 128 * 1024;

fn main() -> ExitCode {
    exit_code("sink", run())
}

/// One connection after the other: whoever measures has one.
fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let copies = words.flag("--copy");
    words.finish()?;
    let listener = sys::listen()?;
    listener.set_nonblocking(false)?;
    announce(&listener)?;
    let mut buffer = vec![0; if copies { BUFFER_BYTES } else { 0 }];
    loop {
        let (stream, _) = listener.accept()?;
        match drain(&stream, &mut buffer) {
            Ok(bytes) => eprintln!("received {bytes}"),
            Err(error) => eprintln!("failed: {error}"),
        }
    }
}

fn drain(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<u64> {
    let mut total = 0;
    loop {
        let count = if buffer.is_empty() {
            sys::discard(stream, MOST)?
        } else {
            stream.read(buffer)?
        };
        if count == 0 {
            return Ok(total);
        }
        total += count as u64;
    }
}
