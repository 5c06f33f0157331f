//! `sockeye completions`, `sockeye man`: what is made from the command line's own definition.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sockeye completions bash > ~/.local/share/bash-completion/completions/sockeye
  sockeye completions zsh > ~/.zfunc/_sockeye
  sockeye completions fish > ~/.config/fish/completions/sockeye.fish")]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Print a page of the manual, or write all of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sockeye man serve | man -l -
  sockeye man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The verb that it is about [default: all of the program]
    #[arg(conflicts_with = "dir")]
    pub(crate) verb: Option<String>,

    /// Write sockeye.1 and a page for each verb into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
