//! `sockeye completions`, `sockeye man`.

use std::io::{self, Write};

use anyhow::anyhow;
use clap::{Command, CommandFactory};
use clap_mangen::Man as Page;

use crate::cli::Cli;
use crate::cli::manual::{Completions, Man};
use crate::exit::{Code, Failure};

pub(crate) fn completions(arguments: &Completions) -> Result<Code, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "sockeye", &mut text);
    print(&text)
}

pub(crate) fn man(arguments: &Man) -> Result<Code, Failure> {
    let mut command = Cli::command();
    command.build();
    if let Some(dir) = &arguments.dir {
        return clap_mangen::generate_to(Cli::command(), dir)
            .map(|()| Code::Done)
            .map_err(|error| {
                Failure::usage(anyhow!(error).context(format!("cannot write to {}", dir.display())))
            });
    }
    let page = match &arguments.verb {
        None => command,
        Some(verb) => about(&command, verb)?,
    };
    let mut text = Vec::new();
    Page::new(page)
        .render(&mut text)
        .map_err(|error| Failure::usage(anyhow!(error)))?;
    print(&text)
}

fn about(command: &Command, verb: &str) -> Result<Command, Failure> {
    let found = command.find_subcommand(verb).cloned();
    found.ok_or_else(|| {
        let verbs: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        Failure::usage(anyhow!("there is no verb '{verb}'"))
            .with_hint(format!("there are {}", verbs.join(", ")))
    })
}

fn print(text: &[u8]) -> Result<Code, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::usage(
            anyhow!(error).context("cannot write to stdout"),
        )),
        _ => Ok(Code::Done),
    }
}
