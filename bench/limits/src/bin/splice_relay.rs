//! What is between two sockets, at best: splice from one through a pipe to the other, and no byte in user space.

use sockeye_limits::arguments::Arguments;
use sockeye_limits::{announce, exit_code, sys};
use std::io;
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// The most that /proc/sys/fs/pipe-max-size allows without privileges.
const PIPE_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    exit_code("splice_relay", run())
}

/// One direction and one connection after the other: whoever measures has one.
fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let to: SocketAddrV4 = words.required("--to")?;
    words.finish()?;
    let listener = sys::listen()?;
    listener.set_nonblocking(false)?;
    announce(&listener)?;
    loop {
        let (from, _) = listener.accept()?;
        let pipe = sys::pipe(PIPE_BYTES)?;
        if let Err(error) = relay(&from, &pipe, to) {
            eprintln!("failed: {error}");
        }
    }
}

fn relay(from: &TcpStream, pipe: &(OwnedFd, OwnedFd), to: SocketAddrV4) -> io::Result<()> {
    let to = TcpStream::connect(to)?;
    let (pipe_end, pipe_start) = pipe;
    loop {
        let mut inside = sys::splice(from, pipe_start, PIPE_BYTES)?;
        if inside == 0 {
            return to.shutdown(Shutdown::Write);
        }
        while inside > 0 {
            inside -= sys::splice(pipe_end, &to, inside)?;
        }
    }
}
