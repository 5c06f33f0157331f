//! Writes what the servers of a comparison show: a new ECDSA key on P-256 and a certificate for it, signed by itself,
//! as `cert.pem` and `key.pem` in a directory.

use sockeye_limits::arguments::Arguments;
use sockeye_limits::exit_code;
use sockeye_tls_limits::config::NAME;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

fn main() -> ExitCode {
    exit_code("tls_identity", run())
}

fn run() -> io::Result<bool> {
    let mut words = Arguments::from_command_line();
    let directory: PathBuf = words.first("DIRECTORY")?;
    words.finish()?;
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
    fs::write(directory.join("cert.pem"), made.cert.pem())?;
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(true)
}
