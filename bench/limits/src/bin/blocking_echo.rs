//! The floor of one connection: a thread that reads, writes back and reads, and no readiness in between.
//!
//! What a reactor adds to a message is the difference to this. With many connections it is no limit any more, since each
//! message then wakes a thread of its own.

use sockeye_limits::{announce, exit_code, sys};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;

/// The same as that of `epoll_echo`.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    exit_code("blocking_echo", run())
}

/// An error of accept ends the program: a limit that lost connections is none.
fn run() -> io::Result<bool> {
    sys::raise_descriptor_limit()?;
    let listener = sys::listen()?;
    listener.set_nonblocking(false)?;
    announce(&listener)?;
    loop {
        let (stream, _) = listener.accept()?;
        // What went wrong on a connection ends it, and concerns nobody else.
        thread::Builder::new().spawn(move || drop(echo(stream)))?;
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}
