//! Sends so many bytes to everybody who connects, and then the end: the other end of a transfer, at the least cost.
//!
//! They are sent with sendfile from a file in memory, so that this program touches none of them.

use sockeye_limits::arguments::Arguments;
use sockeye_limits::pattern::Pattern;
use sockeye_limits::{announce, exit_code, sys};
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

/// The file is sent again and again. A power of two, so that who checks knows where in it any byte is from.
const FILE_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    exit_code("source", run())
}

fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let bytes: u64 = words.required("--bytes")?;
    words.finish()?;
    let file = sys::memory_file(Pattern::for_size(FILE_BYTES).message(0, 0))?;
    let listener = sys::listen()?;
    listener.set_nonblocking(false)?;
    announce(&listener)?;
    loop {
        let (stream, _) = listener.accept()?;
        match send(&stream, &file, bytes) {
            Ok(()) => eprintln!("sent {bytes}"),
            Err(error) => eprintln!("failed: {error}"),
        }
    }
}

fn send(stream: &TcpStream, file: &File, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    let mut offset = 0;
    while left > 0 {
        let most = left.min((FILE_BYTES as i64 - offset) as u64) as usize;
        left -= sys::send_file(stream, file, &mut offset, most)? as u64;
        if offset == FILE_BYTES as i64 {
            offset = 0;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // A close with bytes unread would be a reset, and the receiver might lose the last of ours.
    while sys::discard(stream, 1 << 20)? > 0 {}
    Ok(())
}
