//! `sockeye connect`: its options.

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use crate::cli::TEMPLATE;
use crate::cli::quantity::{at_least_one, byte_rate};
use crate::cli::securing::{SecuringOptions, TLS};
use crate::cli::time::{Timeout, duration, positive, timeout};
use crate::connect::escape::Text;
use crate::connect::menu::{EscapeChar, parse_escape};
use crate::http::{Field, RequestLine};

const CONNECT_EXAMPLES: &str = "\
Examples:
  sockeye connect example.com 80                talk by hand; Ctrl-D ends our side
  sockeye connect --http /index.html tls://example.com:443 > page
  sockeye connect unix:/tmp/echo.sock < in > out
  sockeye connect --wait-for 30s --probe :5432  wait until it is open
  sockeye connect --explain tls://example.com:443 < request
  sockeye connect --starttls smtp mail.example.com 25

";

const CONNECT_NOTES: &str = "\
When it ends: when the server has sent all and closed (exit 0), when it resets the connection (56), or when nothing \
moves for --idle-timeout (28). The end of our input is passed on to the server, but not over TLS or through \
a proxy; see --on-eof. With \
--http it ends when the answer is complete (0) or was cut short (56).

Exit codes: 0 done, 1 --probe found nobody, --fail a bad status, --script another talk or --replay another answer, 2 usage, 6 the name does not resolve, 7 no connection, 28 timeout, \
35 no TLS, 56 receiving failed or TLS was cut short, 60 the certificate is not to be trusted, 130 interrupted; with --exec that of the program, \
if the connection ended well.";

/// Talk to a server by hand or from a script.
#[derive(Debug, Args)]
#[command(
    help_template = TEMPLATE,
    before_help = CONNECT_EXAMPLES,
    after_long_help = CONNECT_NOTES,
    group = ArgGroup::new("told").args(["explain", "probe"]).multiple(true)
)]
pub(crate) struct Connect {
    /// HOST PORT, HOST:PORT, [::1]:PORT, :PORT (this machine), tls://HOST:PORT or unix:PATH
    ///
    /// A port is a number, or a name that /etc/services has, such as http; for --probe also a range, a list or both:
    /// 20-25, 22,http,8000-8010.
    #[arg(value_name = "ADDRESS", required = true, num_args = 1..=2)]
    pub(crate) address: Vec<String>,

    /// IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,

    /// IPv6 only
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,

    /// Connect from this IP address
    #[arg(long, value_name = "IP", hide_short_help = true)]
    pub(crate) source: Option<IpAddr>,

    /// To be connected: the lookup, all addresses, the proxy
    ///
    /// All of it together.
    #[arg(long, value_name = "TIME", value_parser = positive, default_value = "10s")]
    pub(crate) timeout: Duration,

    /// End with exit code 28 when nothing moves for so long [default: off]
    ///
    /// With --http the default is 60s.
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) idle_timeout: Option<Timeout>,

    /// When our input ends: fin, keep, exit, wait=TIME [default: fin or keep]
    ///
    /// The default is fin, and over TLS and through a proxy keep: many servers over TLS and most proxies take it for the end of
    /// all, and the answer would be lost.
    ///
    /// fin: tell the server (FIN) and go on receiving; most servers wait for it, but some, nginx among them, take it for a
    /// client that has left, and stop in the midst of a large answer: for these, keep. keep: tell nobody and go on receiving. exit: send what is left
    /// and end. wait=TIME: as fin, but receive for at most TIME more.
    #[arg(long, value_name = "WHAT", value_parser = on_eof)]
    pub(crate) on_eof: Option<OnEof>,

    /// Go on sending when the server has closed its side
    #[arg(long)]
    pub(crate) keep_open: bool,

    /// Send each LF as CRLF; what already is CRLF stays
    #[arg(long)]
    pub(crate) crlf: bool,

    /// Ask with HTTP and print the answer: /PATH or 'METHOD /PATH'
    ///
    /// HTTP/1.1 with Host, and with -v the head of the answer on stderr. --send, --send-file, and stdin with POST, PUT and PATCH
    /// unless it is a terminal, give its body: with Content-Length, or in chunks if it is longer than 1 MiB and its length is
    /// not known. It ends where the answer ends, and does not tell the server before (FIN). Redirects are not followed; the
    /// status is no error unless --fail is there.
    #[arg(
        long,
        value_name = "REQUEST",
        conflicts_with_all = ["on_eof", "keep_open", "crlf", "recv_bytes", "probe", "exec", "replay"]
    )]
    pub(crate) http: Option<RequestLine>,

    /// With --http: a field of the head, 'Name: value'; may be repeated
    ///
    /// It stands for the one that would be sent else: Host, User-Agent, Accept. 'Transfer-Encoding: chunked' sends the body in
    /// chunks as it comes.
    #[arg(long, value_name = "FIELD", requires = "http", hide_short_help = true)]
    pub(crate) header: Vec<Field>,

    /// With --http: a status of 400 or more is exit code 1
    #[arg(long, requires = "http", hide_short_help = true)]
    pub(crate) fail: bool,

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

    /// Follow this script, docs/script.md; exit code 1 if the server does not keep to it
    ///
    /// Stdin and stdout are not used, and nothing is copied or recorded. -v tells each step.
    #[arg(
        long,
        value_name = "FILE",
        hide_short_help = true,
        conflicts_with_all = [
            "send", "send_file", "recv_bytes", "hex", "raw", "crlf", "keep_open", "on_eof", "idle_timeout", "probe",
            "http", "exec", "throttle", "tee_in", "tee_out", "record", "replay",
        ]
    )]
    pub(crate) script: Option<PathBuf>,

    /// End after so many received bytes; fewer are exit code 56
    ///
    /// It is the end of sending, too, whatever is left of the input.
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU64>)]
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
    ///
    /// With TLS, also whether the handshake works: if not, the exit code is 35 or 60. Several ports (HOST 20-25) are asked
    /// 64 at a time and told in order, a line each; then the exit code is 0 if one of them is open, with TLS: has agreed
    /// on that, and else 1.
    #[arg(
        long,
        conflicts_with_all = [
            "send", "send_file", "recv_bytes", "hex", "crlf", "keep_open", "explain", "raw", "exec", "throttle",
            "tee_in", "tee_out", "record", "replay", "escape_char",
        ]
    )]
    pub(crate) probe: bool,

    /// Try again until it accepts connections, for so long
    #[arg(long, value_name = "TIME", value_parser = positive)]
    pub(crate) wait_for: Option<Duration>,

    /// Tell in the end what happened: addresses, times, bytes, who closed
    ///
    /// And what the kernel knows.
    #[arg(long)]
    pub(crate) explain: bool,

    /// With --explain and --probe: as one JSON object (docs/events.md)
    #[arg(long, requires = "told")]
    pub(crate) json: bool,

    /// Move at most so many bytes per second in each direction, such as 10KiB/s
    ///
    /// No burst is larger than what comes in 100 ms. What is received waits in the kernels of both sides, and the server
    /// is slowed down when their buffers are full.
    #[arg(long, value_name = "RATE", value_parser = byte_rate, hide_short_help = true)]
    pub(crate) throttle: Option<NonZeroU64>,

    /// Do it N times, one connection after the other
    ///
    /// With --probe, --send, --send-file, --script, --exec or --http without a body, for nobody knows what is on stdin the next time. The exit
    /// code is that of the first one that did not go well.
    #[arg(long, value_name = "N", hide_short_help = true, conflicts_with_all = ["tee_in", "tee_out", "record", "replay"])]
    pub(crate) repeat: Option<NonZeroU32>,

    /// With --repeat: so long between the end of a connection and the next one
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s", hide_short_help = true, requires = "repeat")]
    pub(crate) interval: Duration,

    /// What asks for a command when it is typed on a terminal: ^ and a character, or none
    ///
    /// Ctrl-] by default, as telnet has it. What was typed before it on the line is sent. Then a line is read: q ends, c closes our side, s tells what has
    /// happened so far, e sends the character itself, an empty one goes on. Typed twice the character is sent.
    #[arg(long, value_name = "CHAR", value_parser = parse_escape, default_value = "^]", hide_short_help = true)]
    pub(crate) escape_char: EscapeChar,

    /// Run a program on our side of the connection: --exec ADDRESS -- PROGRAM ARGS...
    ///
    /// What it writes is sent, and what comes it reads; the end of each is passed on, also over TLS. The connection ends when it
    /// has ended. Who is at the two ends is in its environment: TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALIP, TCPLOCALPORT and PROTO, as
    /// tcpclient has it, NCAT_REMOTE_ADDR and the others of ncat, REMOTE_ADDR and REMOTE_PORT. If the connection ended well, the
    /// exit code is the program's, 128 and the signal's number if a signal ended it; if it did not, the program is told so by the
    /// end of its input, and 2 s later by TERM.
    #[arg(
        long,
        hide_short_help = true,
        help_heading = PROGRAM,
        requires = "command",
        conflicts_with_all = ["send", "send_file", "replay", "hex", "raw", "keep_open"]
    )]
    pub(crate) exec: bool,

    /// The program of --exec and its arguments
    #[arg(
        last = true,
        value_name = "PROGRAM",
        requires = "exec",
        hide_short_help = true
    )]
    pub(crate) command: Vec<OsString>,

    /// Copy what comes into this file, byte for byte, whatever is shown
    ///
    /// The file is emptied first. If it cannot be written, all ends with exit code 56.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = FILES)]
    pub(crate) tee_in: Option<PathBuf>,

    /// Copy what is sent into this file
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = FILES)]
    pub(crate) tee_out: Option<PathBuf>,

    /// Write both directions with their times into this file, as lines of JSON (docs/record.md)
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = FILES)]
    pub(crate) record: Option<PathBuf>,

    /// Say again what our side of a recording said; another answer is exit code 1
    ///
    /// Each piece is sent at its time, and not before as many bytes have come as had come when it was recorded. The end is
    /// where the recording ends. The first byte that is another one ends it. --idle-timeout is by default 10 s more than the
    /// longest pause of the recording.
    #[arg(
        long,
        value_name = "FILE",
        hide_short_help = true,
        help_heading = FILES,
        conflicts_with_all = ["send", "send_file", "recv_bytes", "keep_open", "crlf"]
    )]
    pub(crate) replay: Option<PathBuf>,

    /// With --replay: whatever the server answers; nothing is compared, and only the times count
    #[arg(long, requires = "replay", hide_short_help = true, help_heading = FILES)]
    pub(crate) replay_unchecked: bool,

    /// Go through a proxy, socks5h://HOST:PORT or http://HOST:PORT
    ///
    /// Also socks5://, socks4:// and socks4a://. With socks5 and socks4 names are resolved here, with the others by the proxy. http asks with CONNECT, for any port. Who
    /// we are says SOCKEYE_PROXY_AUTH=USER:PASSWORD in the environment, and it is sent as it is. -4, -6 and --source are for
    /// the connection to the proxy, and so are the addresses that --send-proxy says by itself. Some proxies, ssh -D among them,
    /// say yes before they try: to --probe all is open behind these. ALL_PROXY and its kin are not looked at.
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,

    /// Read USER:PASSWORD for the proxy from the first line of this file
    ///
    /// It comes before SOCKEYE_PROXY_AUTH. In a URL they are refused: everybody on the machine can read a command line.
    #[arg(long, value_name = "FILE", requires = "proxy", hide_short_help = true)]
    pub(crate) proxy_auth_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) securing: SecuringOptions,

    /// When TLS ends without close_notify: strict is exit code 56, lax takes it for the end [default: strict]
    ///
    /// Without close_notify nobody can tell the end of the stream from a cut by somebody on the way.
    #[arg(long, value_name = "HOW", value_enum, hide_short_help = true, hide_possible_values = true, help_heading = TLS)]
    pub(crate) tls_eof: Option<TlsEof>,

    /// Say what happens as it happens
    #[arg(short, long, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "explain")]
    pub(crate) quiet: bool,
}

const PROGRAM: &str = "Program";
const FILES: &str = "Files";

/// What an end of TLS without close_notify is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TlsEof {
    Strict,
    Lax,
}

/// What the end of the input does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OnEof {
    Fin,
    Keep,
    Exit,
    Wait(Duration),
}

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
