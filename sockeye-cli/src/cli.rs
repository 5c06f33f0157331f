//! The command line: every verb, option and help text.

use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use colorchoice_clap::Color;

use crate::connect::escape::Text;

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
    after_help = "'sockeye VERB -h' is one screen of help for a verb, 'sockeye VERB --help' is all of it.",
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Serve(Serve),
    Connect(Connect),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  sockeye serve                              echo on 127.0.0.1:7000
  sockeye serve daytime -l :7013             the date, to whoever connects, IPv4 and IPv6
  sockeye serve -l 127.0.0.1:0 -l unix:/tmp/echo.sock
  sockeye serve discard --max-connections 100 --idle-timeout 30s
  sockeye serve --json | jq .                every event as one JSON object a line

";

const SERVE_NOTES: &str = "\
Signals: INT and TERM stop accepting, let the open connections go on for --drain, then cut them; a second one cuts \
them now. USR1 prints the counters. HUP: nothing to reload yet.

Exit codes: 0 stopped as asked, 2 usage or an address that cannot be listened on, 6 a name that does not resolve, \
130 cut short by a second signal.";

/// Accept many clients and run a service for each.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = SERVE_EXAMPLES, after_long_help = SERVE_NOTES)]
pub(crate) struct Serve {
    /// What to do with each connection.
    #[arg(value_enum, default_value_t = Service::Echo)]
    pub(crate) service: Service,

    /// Where to listen: HOST:PORT, :PORT, [::1]:PORT, unix:PATH; may be repeated [default: 127.0.0.1:7000]
    ///
    /// :PORT is every interface, IPv6 and IPv4. Port 0 takes a free one, which is printed.
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,

    /// Threads that serve [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<NonZeroUsize>,

    /// Open connections; more wait in the listen queue [default: what the descriptor limit allows]
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Open connections from one source; more are refused [default: 1000, loopback without limit]
    ///
    /// A source is an IPv4 address or an IPv6 /64. A number given here holds for loopback, too; 0 is no limit.
    #[arg(long, value_name = "N")]
    pub(crate) max_per_source: Option<usize>,

    /// Close a connection on which nothing moves for so long [default: off]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) idle_timeout: Option<Timeout>,

    /// Close a client that says nothing for so long after it connected [default: off]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) first_byte_timeout: Option<Timeout>,

    /// Close a connection after so long, however busy [default: off]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) max_lifetime: Option<Timeout>,

    /// How long INT and TERM let the open connections go on
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) drain: Duration,

    /// Clients that may wait to be accepted; the kernel's net.core.somaxconn caps it
    #[arg(long, value_name = "N", default_value_t = 4096, hide_short_help = true)]
    pub(crate) backlog: u32,

    /// Send small writes at once (TCP_NODELAY)
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        action = ArgAction::Set,
        hide_short_help = true
    )]
    pub(crate) nodelay: bool,

    /// Events on stdout, one JSON object a line (docs/events.md)
    #[arg(long)]
    pub(crate) json: bool,

    /// A line for each connection that comes and goes
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Nothing on stderr but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// The services of the early Internet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Service {
    /// Send back what comes (RFC 862)
    Echo,
    /// Drop what comes (RFC 863)
    Discard,
    /// Send characters without end (RFC 864)
    Chargen,
    /// Send the date as text (RFC 867)
    Daytime,
    /// Send the time as 4 bytes (RFC 868)
    Time,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::Chargen => "chargen",
            Self::Daytime => "daytime",
            Self::Time => "time",
        }
    }
}

const CONNECT_EXAMPLES: &str = "\
Examples:
  sockeye connect example.com 80                talk by hand; Ctrl-D ends our side
  sockeye connect --on-eof keep --send 'GET / HTTP/1.0\\r\\n\\r\\n' example.com:80
  sockeye connect unix:/tmp/echo.sock < in > out
  sockeye connect --probe db:5432               is it open? exit code 0 or 1
  sockeye connect --wait-for 30s --probe :8080  wait until it is
  sockeye connect --explain example.com:80 < request

";

const CONNECT_NOTES: &str = "\
When it ends: when the server has sent all and closed (exit 0), when it resets the connection (56), or when nothing \
moves for --idle-timeout (28). The end of our input is passed on to the server, see --on-eof.

Exit codes: 0 done, 1 --probe found nobody, 2 usage, 6 the name does not resolve, 7 no connection, 28 timeout, \
56 receiving failed, 130 interrupted.";

/// Talk to a server by hand or from a script.
#[derive(Debug, Args)]
#[command(
    help_template = TEMPLATE,
    before_help = CONNECT_EXAMPLES,
    after_long_help = CONNECT_NOTES,
    group = ArgGroup::new("told").args(["explain", "probe"]).multiple(true)
)]
pub(crate) struct Connect {
    /// HOST PORT, HOST:PORT, [::1]:PORT, :PORT (this machine) or unix:PATH
    #[arg(value_name = "ADDRESS", required = true, num_args = 1..=2)]
    pub(crate) address: Vec<String>,

    /// IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// IPv6 only
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,

    /// Connect from this IP address
    #[arg(long, value_name = "IP")]
    pub(crate) source: Option<IpAddr>,

    /// To be connected, the lookup and all addresses together
    #[arg(long, value_name = "TIME", value_parser = positive, default_value = "10s")]
    pub(crate) timeout: Duration,

    /// End with exit code 28 when nothing moves for so long [default: off]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) idle_timeout: Option<Timeout>,

    /// When our input ends: fin, keep, exit or wait=TIME
    ///
    /// fin: tell the server (FIN) and go on receiving; most servers wait for it, but some, nginx among them, take it for a
    /// client that has left, and stop in the midst of a large answer: for these, keep. keep: tell nobody and go on receiving. exit: send what is left
    /// and end. wait=TIME: as fin, but receive for at most TIME more.
    #[arg(long, value_name = "WHAT", value_parser = on_eof, default_value = "fin")]
    pub(crate) on_eof: OnEof,

    /// Go on sending when the server has closed its side
    #[arg(long)]
    pub(crate) keep_open: bool,

    /// Send each LF as CRLF; what already is CRLF stays
    #[arg(long)]
    pub(crate) crlf: bool,

    /// Send this instead of stdin; knows \r \n \t \0 \\ \xHH; may be repeated
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "send_file",
        allow_hyphen_values = true
    )]
    pub(crate) send: Vec<Text>,

    /// Send this file instead of stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) send_file: Option<PathBuf>,

    /// End after so many received bytes; fewer are exit code 56
    ///
    /// It is the end of sending, too, whatever is left of the input.
    #[arg(long, value_name = "N")]
    pub(crate) recv_bytes: Option<NonZeroU64>,

    /// Print what is received as hexadecimal and text
    #[arg(long)]
    pub(crate) hex: bool,

    /// On a terminal, print control characters as they come
    ///
    /// By default they are shown as ^X, so that no server can move the cursor or set the title. To a file or a pipe
    /// every byte goes as it came, always.
    #[arg(long, hide_short_help = true, conflicts_with = "hex")]
    pub(crate) raw: bool,

    /// Only see whether it is open: exit code 0 or 1
    #[arg(
        long,
        conflicts_with_all = ["send", "send_file", "recv_bytes", "hex", "crlf", "keep_open", "explain", "raw"]
    )]
    pub(crate) probe: bool,

    /// Try again until it is up, for so long
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) wait_for: Option<Duration>,

    /// Tell in the end what happened: addresses, times, bytes, who closed, what the kernel knows
    #[arg(long)]
    pub(crate) explain: bool,

    /// With --explain and --probe: as one JSON object (docs/events.md)
    #[arg(long, requires = "told")]
    pub(crate) json: bool,

    /// Say what happens as it happens
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "explain")]
    pub(crate) quiet: bool,
}

/// What the end of the input does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OnEof {
    Fin,
    Keep,
    Exit,
    Wait(Duration),
}

/// A time limit that can be switched off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

fn on_eof(text: &str) -> Result<OnEof, String> {
    match text {
        "fin" => Ok(OnEof::Fin),
        "keep" => Ok(OnEof::Keep),
        "exit" => Ok(OnEof::Exit),
        _ => match text.strip_prefix("wait=") {
            Some(time) => duration(time).map(OnEof::Wait),
            None => Err("write fin, keep, exit or wait=TIME".to_owned()),
        },
    }
}

/// `500ms`, `10s`, `1m30s`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write 500ms, 10s or 1m30s"))?,
    };
    if duration > LONGEST {
        return Err("more than 10 years".to_owned());
    }
    Ok(duration)
}

/// Well below what the arithmetic of clocks can take.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// As [`duration`], or `off`; 0 is off, too.
fn timeout(text: &str) -> Result<Timeout, String> {
    if text == "off" {
        return Ok(Timeout(None));
    }
    let duration = duration(text)?;
    Ok(Timeout((!duration.is_zero()).then_some(duration)))
}
