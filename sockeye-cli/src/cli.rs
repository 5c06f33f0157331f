//! The command line: every verb, option and help text.

pub(crate) mod admission;
pub(crate) mod bench;
pub(crate) mod connect;
pub(crate) mod manual;
pub(crate) mod quantity;
pub(crate) mod securing;
pub(crate) mod send_proxy;
pub(crate) mod serve;
pub(crate) mod time;
pub(crate) mod tls_values;

use clap::{Parser, Subcommand};
use colorchoice_clap::Color;

use crate::cli::bench::Bench;
use crate::cli::connect::Connect;
use crate::cli::manual::{Completions, Man};
use crate::cli::serve::Serve;

/// Examples stand before the usage: they are what a newcomer reads.
const TEMPLATE: &str = "\
{about-with-newline}
{before-help}{usage-heading} {usage}

{all-args}{after-help}";

const EXAMPLES: &str = "\
Examples:
  sockeye serve                        an echo server on 127.0.0.1:7000
  sockeye connect 127.0.0.1 7000       talk to it; Ctrl-D ends
  sockeye connect --probe example.com:80

";

/// Both ends of a TCP connection: run a real server, talk to any server.
#[derive(Debug, Parser)]
#[command(
    name = "sockeye",
    version,
    max_term_width = 100,
    help_template = TEMPLATE,
    before_help = EXAMPLES,
    after_help = "'sockeye VERB -h' is one screen of help for a verb, 'sockeye VERB --help' is all of it."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Serve(Box<Serve>),
    Connect(Box<Connect>),
    Bench(Box<Bench>),
    Completions(Completions),
    Man(Man),
}
