//! The idle connections of [`idle`] over plain TCP.

use sockeye_limits::crowd::Plain;
use sockeye_limits::exit_code;
use sockeye_limits::idle::{self, MESSAGE};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit_code("hold", idle::run(|address| Plain::begin(address, &MESSAGE)))
}
