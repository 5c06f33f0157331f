//! The program `sockeye`: one verb for each end of a TCP connection, on the library of the same name.

#![forbid(unsafe_code)]

mod cli;

mod bench;
mod connect;
mod manual;
mod serve;

mod address;
mod certificate;
mod children;
mod environment;
mod http;
mod port;
mod script;
mod secure;
mod session;
mod tls_files;

mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.color.write_global();
    let ended = match cli.verb {
        Verb::Serve(arguments) => serve::run(*arguments),
        Verb::Connect(arguments) => connect::run(*arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Completions(arguments) => manual::completions(&arguments),
        Verb::Man(arguments) => manual::man(&arguments),
        Verb::OnTerminal(arguments) => serve::exec::on_terminal(&arguments),
    };
    match ended {
        Ok(code) => code.into(),
        Err(failure) => {
            output::talk(&failure);
            failure.code.into()
        }
    }
}
