//! The closed loop of [`closed_loop`] over plain TCP.
//!
//! A connection counts as open when one byte has come back on it: the kernel connects on its own, and a server that starts
//! a process for each connection may be seconds behind. How long that takes is no part of what a message costs.

use sockeye_limits::crowd::Plain;
use sockeye_limits::{closed_loop, exit_code};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit_code(
        "load",
        closed_loop::run(|address| Plain::begin(address, b"x")),
    )
}
