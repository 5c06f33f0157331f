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

use std::env;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};
use crate::exit::{Code, Failure};

fn main() -> ExitCode {
    let ended = match serve::exec::on_terminal(env::args_os()) {
        Some(failure) => Err(failure),
        None => asked(Cli::parse()),
    };
    match ended {
        Ok(code) => code.into(),
        Err(failure) => {
            output::talk(&failure);
            failure.code.into()
        }
    }
}

fn asked(cli: Cli) -> Result<Code, Failure> {
    cli.color.write_global();
    match cli.verb {
        Verb::Serve(arguments) => serve::run(*arguments),
        Verb::Connect(arguments) => connect::run(*arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Completions(arguments) => manual::completions(&arguments),
        Verb::Man(arguments) => manual::man(&arguments),
    }
}
