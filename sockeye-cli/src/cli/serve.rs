//! `sockeye serve`: its options.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use sockeye::admission::{Handshakes, Rate};
use sockeye::rules::TrustedProxies;

use crate::cli::TEMPLATE;
use crate::cli::admission::{handshakes, rate, trusted_proxies};
use crate::cli::quantity::{at_least_one, size};
use crate::cli::time::{Timeout, duration, positive, timeout};
use crate::cli::tls_values::{TlsVersion, protocol};

const ADMISSION: &str = "Who is let in";
const TLS: &str = "TLS";
const FILES: &str = "Service: files";
const HTTP: &str = "Service: http";
const SCRIPTS: &str = "For scripts";
const EXEC: &str = "Service: exec";

const SERVE_EXAMPLES: &str = "\
Examples:
  sockeye serve                              echo on 127.0.0.1:7000
  sockeye serve files DIR -l :8080 --index   a folder over HTTP, for a browser or curl
  sockeye serve http -l 127.0.0.1:8080       tells HTTP clients what they have sent
  sockeye serve -l :7443 --tls-cert chain.pem --tls-key key.pem --rate 10/s
  sockeye serve exec -- cat                  a program for each connection, as inetd does
  sockeye serve script smtp.script           what you say: a fake server in ten lines
  sockeye serve --json | jq .                every event as one JSON object a line

";

const SERVE_NOTES: &str = "\
Signals: INT and TERM stop accepting, let the open connections go on for --drain, then cut them; a second one cuts \
them now. USR1 prints the counters. HUP reads the files of --allow, --deny and --tls-... and the script anew; if one is bad nothing changes. \
Certificates are also read anew when their files change. Open connections go on.

Exit codes: 0 stopped as asked, 2 usage or an address that cannot be listened on, 6 a name that does not resolve, \
130 cut short by a second signal.";

/// Accept many clients and run a service for each.
#[derive(Debug, Args)]
#[command(help_template = TEMPLATE, before_help = SERVE_EXAMPLES, after_long_help = SERVE_NOTES)]
pub(crate) struct Serve {
    /// What to do with each connection.
    #[arg(value_enum, default_value_t = Service::Echo)]
    pub(crate) service: Service,

    /// The folder of 'files' [default: the current one], or the script of 'script'
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,

    /// What 'exec' runs for each connection, with its arguments
    #[arg(last = true, value_name = "PROGRAM", hide_short_help = true)]
    pub(crate) command: Vec<OsString>,

    /// Where to listen: HOST:PORT, :PORT, [::1]:PORT, unix:PATH; may be repeated [default: 127.0.0.1:7000]
    ///
    /// :PORT is every interface, IPv6 and IPv4. Port 0 takes a free one, which is printed. With a certificate clients
    /// speak TLS, but not where tcp:// stands before the address. tls:// asks for it in words.
    #[arg(short, long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<String>,

    /// Threads that serve [default: one per core]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) workers: Option<NonZeroUsize>,

    /// Open connections; more wait in the listen queue [default: what the descriptor limit allows; exec: 100]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Open connections from one source; more are refused [default: 1000, loopback without limit]
    ///
    /// A source is an IPv4 address or an IPv6 /64. A number given here holds for loopback, too; 0 is no limit.
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) max_per_source: Option<usize>,

    /// Close a connection on which nothing moves for so long [default: off; files 1m, http 10m]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) idle_timeout: Option<Timeout>,

    /// Close a client that says nothing for so long after it connected, or after its handshake [default: off]
    #[arg(long, value_name = "TIME", value_parser = timeout, hide_short_help = true)]
    pub(crate) first_byte_timeout: Option<Timeout>,

    /// Close a connection after so long, however busy [default: off]
    #[arg(long, value_name = "TIME", value_parser = timeout, hide_short_help = true)]
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

    /// Let in only this network, or those in this file; may be repeated
    ///
    /// The most specific of all --allow and --deny decides; of the same network both, --deny. A file has one network a line
    /// and comments after #, and is read anew on HUP. Clients of Unix sockets are always let in.
    #[arg(long, value_name = "CIDR|FILE", help_heading = ADMISSION)]
    pub(crate) allow: Vec<String>,

    /// Refuse this network, or those in this file; may be repeated
    #[arg(long, value_name = "CIDR|FILE", help_heading = ADMISSION)]
    pub(crate) deny: Vec<String>,

    /// New connections from one source, and so many at once [default: no limit]
    ///
    /// N/s, N/min or N/h. A source is an IPv4 address or an IPv6 /64. More are refused, until it is slower. burst is N
    /// unless it is given.
    #[arg(long, value_name = "N/s[,burst=M]", value_parser = rate, help_heading = ADMISSION)]
    pub(crate) rate: Option<Rate>,

    /// Connections before the end of their handshake: N or START:PERCENT:FULL [default: 2048:30:4096]
    ///
    /// With START in progress a new connection is refused with a chance of PERCENT, which grows to 100 at FULL, so that a
    /// crowd of stalled clients keeps nobody out for sure. N is a limit alone. The default is less where fewer connections are
    /// allowed: half of them and all of them.
    #[arg(long, value_name = "N", value_parser = handshakes, hide_short_help = true, help_heading = ADMISSION)]
    pub(crate) max_handshakes: Option<Handshakes>,

    /// Require a PROXY header, v1 or v2, from these: from=CIDR[,CIDR...]
    ///
    /// Its client then counts for --allow, --deny, --rate and --max-per-source, and in events. From all others a header is
    /// data as any other. from=unix is for clients of Unix sockets.
    #[arg(long, value_name = "from=CIDR", value_parser = trusted_proxies, hide_short_help = true, help_heading = ADMISSION)]
    pub(crate) proxy_protocol: Option<TrustedProxies>,

    /// Refuse whoever is not one of the proxies of --proxy-protocol
    #[arg(long, requires = "proxy_protocol", hide_short_help = true, help_heading = ADMISSION)]
    pub(crate) proxy_protocol_only: bool,

    /// Speak TLS with this certificate and its chain (PEM); may be repeated
    ///
    /// Of several the client gets one for the name that it asks for (SNI), else the first. The files are watched, and read
    /// anew when they change.
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    pub(crate) tls_cert: Vec<PathBuf>,

    /// Its key [default: in the file of the certificate]
    ///
    /// With several certificates each needs one, in the same order, or none.
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = TLS)]
    pub(crate) tls_key: Vec<PathBuf>,

    /// Speak TLS with a certificate made now for these names
    ///
    /// It lives in memory, and its fingerprint is printed: clients take it as 'connect --pin sha256:...'.
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        conflicts_with = "tls_cert",
        help_heading = TLS
    )]
    pub(crate) tls_self_signed: Vec<String>,

    /// Clients must show a certificate of one of these authorities, PEM
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = TLS)]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Client certificates that were revoked, PEM; needs a list for each authority
    #[arg(long, value_name = "FILE", requires = "tls_client_ca", hide_short_help = true, help_heading = TLS)]
    pub(crate) tls_client_crl: Option<PathBuf>,

    /// Application protocols, the preferred one first (ALPN) [default: not looked at]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = protocol, hide_short_help = true, help_heading = TLS)]
    pub(crate) alpn: Vec<String>,

    /// The lowest version of TLS [default: 1.2]
    #[arg(long, value_name = "VERSION", value_enum, hide_short_help = true, hide_possible_values = true, help_heading = TLS)]
    pub(crate) tls_min: Option<TlsVersion>,

    /// Write the secrets of all sessions to this file: whoever has it can read the traffic
    ///
    /// In the format of SSLKEYLOGFILE, which Wireshark reads. The variable itself is not looked at.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = TLS)]
    pub(crate) keylog: Option<PathBuf>,

    /// How long the PROXY header may take, and then the TLS handshake
    #[arg(long, value_name = "TIME", value_parser = positive, default_value = "10s", hide_short_help = true, help_heading = TLS)]
    pub(crate) handshake_timeout: Duration,

    /// List folders that have no index.html; as JSON for who sends 'Accept: application/json'
    #[arg(long, hide_short_help = true, help_heading = FILES)]
    pub(crate) index: bool,

    /// Answer with this file of the folder where there is none, as pages with a router of their own need it
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = FILES)]
    pub(crate) spa: Option<PathBuf>,

    /// Take files: PUT puts one in its place, a form puts new ones into a folder. Whoever can connect may
    #[arg(long, hide_short_help = true, help_heading = FILES)]
    pub(crate) upload: bool,

    /// The largest upload
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GiB", requires = "upload", hide_short_help = true, help_heading = FILES)]
    pub(crate) upload_limit: u64,

    /// Answer with the body of the request and nothing else
    #[arg(long, hide_short_help = true, help_heading = HTTP)]
    pub(crate) echo: bool,

    /// Write the addresses to this descriptor, one a line, when they accept, and close it
    #[arg(long, value_name = "N", hide_short_help = true, help_heading = SCRIPTS)]
    pub(crate) ready_fd: Option<i32>,

    /// Write the addresses to this file, one a line, when they accept; it is removed at the end
    ///
    /// It appears whole: who sees it can read it. Waiting for it is 'until [ -e FILE ]; do sleep 0.1; done'.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = SCRIPTS)]
    pub(crate) ready_file: Option<PathBuf>,

    /// Write the process ID to this file; it is removed at the end
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = SCRIPTS)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Have /bin/sh run the one argument after --, as a command line
    #[arg(long, hide_short_help = true, help_heading = EXEC)]
    pub(crate) shell: bool,

    /// Run the program on a terminal of its own (pty), 80 by 24
    #[arg(long, hide_short_help = true, help_heading = EXEC)]
    pub(crate) pty: bool,

    /// Where the program's stderr goes [default: log; with --pty its terminal]
    #[arg(long, value_name = "WHERE", value_enum, conflicts_with = "pty", hide_short_help = true, help_heading = EXEC)]
    pub(crate) stderr: Option<StderrTo>,

    /// How long after TERM a program gets KILL [default: 2s]
    ///
    /// Both go to its whole process group: when the client is gone, when a time limit is over or the server is cut short, and
    /// to what a program that has ended leaves behind.
    #[arg(long, value_name = "TIME", value_parser = duration, hide_short_help = true, help_heading = EXEC)]
    pub(crate) kill_after: Option<Duration>,

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

/// What is done with a connection.
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
    /// Files of a folder, over HTTP
    Files,
    /// Tell HTTP clients what they have sent
    Http,
    /// Run the program after -- (docs/exec.md)
    Exec,
    /// Follow the script in PATH, a fake server in ten lines (docs/script.md)
    Script,
}

/// Where the stderr of a program goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum StderrTo {
    /// Into the log, line by line and escaped
    Log,
    /// To the server's own stderr, as it is
    Inherit,
    /// Nowhere
    Null,
}

impl Service {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::Chargen => "chargen",
            Self::Daytime => "daytime",
            Self::Time => "time",
            Self::Files => "files",
            Self::Http => "http",
            Self::Exec => "exec",
            Self::Script => "script",
        }
    }

    /// A browser that takes nothing of a file for so long has gone to sleep; the mirror can be asked to wait for longer.
    pub(crate) fn default_idle_timeout(self) -> Option<Duration> {
        match self {
            Self::Files => Some(Duration::from_secs(60)),
            Self::Http => Some(Duration::from_secs(600)),
            _ => None,
        }
    }
}

impl Serve {
    /// What was given that is of another service than this one, and which that is.
    pub(crate) fn misplaced(&self) -> Option<(&'static str, &'static str)> {
        use Service::{Exec, Files, Http, Script};
        let given = [
            ("PATH", self.path.is_some(), &[Files, Script][..]),
            ("--index", self.index, &[Files]),
            ("--spa", self.spa.is_some(), &[Files]),
            ("--upload", self.upload, &[Files]),
            ("--echo", self.echo, &[Http]),
            ("what stands after --", !self.command.is_empty(), &[Exec]),
            ("--shell", self.shell, &[Exec]),
            ("--pty", self.pty, &[Exec]),
            ("--stderr", self.stderr.is_some(), &[Exec]),
            ("--kill-after", self.kill_after.is_some(), &[Exec]),
        ];
        let mut misplaced = given
            .into_iter()
            .filter(|(_, given, services)| *given && !services.contains(&self.service));
        let (option, _, services) = misplaced.next()?;
        let hint = match (self.service, services) {
            (Exec, _) if option == "PATH" => {
                "the program stands after --: sockeye serve exec -- PROGRAM"
            }
            (_, [Http]) => "it is for 'serve http'",
            (_, [Exec]) => "it is for 'serve exec'",
            (_, [Files]) => "it is for 'serve files'",
            _ => "it is for 'serve files' and 'serve script'",
        };
        Some((option, hint))
    }

    /// The first option that means nothing without TLS.
    pub(crate) fn tls_option(&self) -> Option<&'static str> {
        let given = [
            ("--tls-client-ca", self.tls_client_ca.is_some()),
            ("--alpn", !self.alpn.is_empty()),
            ("--tls-min", self.tls_min.is_some()),
            ("--keylog", self.keylog.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, given)| *given);
        given.next().map(|(option, _)| option)
    }
}
