//! The closed loop of [`closed_loop`] over plain TCP.

use sockeye_limits::crowd::Plain;
use sockeye_limits::{closed_loop, exit_code};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit_code(
        "load",
        closed_loop::run(|address| Plain::begin(address, &[])),
    )
}
