//! The closed loop of [`closed_loop`] over TLS.

use sockeye_limits::{closed_loop, exit_code};
use sockeye_tls_limits::config;
use sockeye_tls_limits::newcomer::Secured;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit_code("tls_load", run())
}

fn run() -> io::Result<bool> {
    let config = config::client(false)?;
    closed_loop::run(|address| Secured::begin(address, &config, &[]))
}
