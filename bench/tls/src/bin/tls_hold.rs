//! The idle connections of [`idle`] over TLS.

use sockeye_limits::exit_code;
use sockeye_limits::idle::{self, MESSAGE};
use sockeye_tls_limits::config;
use sockeye_tls_limits::newcomer::Secured;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit_code("tls_hold", run())
}

fn run() -> io::Result<bool> {
    let config = config::client(false)?;
    idle::run(|address| Secured::begin(address, &config, &MESSAGE))
}
