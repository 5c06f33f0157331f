//! What the raw loops and the loads of this package share. Each program is one file in `src/bin`; read
//! `epoll_echo.rs` first, it is the limit the project is measured against.
//!
//! Linux only, IPv4 only and without a runtime, on purpose: a limit must have nothing between it and the kernel.

pub mod account;
pub mod arguments;
pub mod buffer_ring;
pub mod client;
pub mod closed_loop;
pub mod crowd;
pub mod idle;
pub mod pattern;
pub mod report;
pub mod sys;
pub mod window;

use std::io;
use std::net::TcpListener;
use std::process::ExitCode;

/// Announces a server in the one line the measuring script waits for.
///
/// # Errors
/// When the socket cannot tell its address.
pub fn announce(listener: &TcpListener) -> io::Result<()> {
    eprintln!("listening on {}", listener.local_addr()?);
    Ok(())
}

/// Turns the end of a program into its exit code: 0 done, 1 the answer is no, 2 a wrong command line.
#[must_use]
pub fn exit_code(program: &str, result: io::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{program}: {error}");
            let usage = error.kind() == io::ErrorKind::InvalidInput;
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}
