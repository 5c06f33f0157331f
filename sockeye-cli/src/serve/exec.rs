//! `sockeye serve exec`: a program for each connection, as inetd and tcpserver run them. docs/exec.md is what users rely on.
//!
//! Over TCP and Unix sockets the program has the socket itself, and all we do is to look on: whether the client is gone,
//! whether the program is. Over TLS, and on a terminal, what passes between the two is relayed.

mod child;
mod group;
mod lines;
mod program;
mod reaper;
mod relay;
mod stderr;
mod terminal;
mod watch;

use std::ffi::OsString;
use std::fs::File;
use std::future::{Future, pending};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use sockeye::error::ServeError;
use sockeye::proxy_protocol::Addresses;
use sockeye::shutdown::Summary;
use sockeye::{Addr, Conn, Server, Service, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::certificate::Certificate;
use crate::children;
use crate::cli::serve::{Serve, Service as Chosen, StderrTo};
use crate::environment::{Facts, TlsFacts, Variables, variables};
use crate::exit::Failure;
use crate::serve::exec::child::Child;
use crate::serve::exec::program::{ON_TERMINAL, Program};
use crate::serve::exec::reaper::{Handover, Reaper};
use crate::serve::exec::relay::Relay;
use crate::serve::exec::stderr::Stderr;
use crate::serve::exec::terminal::Terminal;
use crate::serve::exec::watch::Watch;
use crate::serve::reporter::Reporter;

/// If this process was started by [`Program`] for a program on a terminal: becomes that. Returns if it is not so, and with the
/// reason if it cannot.
pub(crate) fn on_terminal(mut command_line: impl Iterator<Item = OsString>) -> Option<Failure> {
    command_line.next()?;
    command_line.next().filter(|verb| verb == ON_TERMINAL)?;
    let (program, name) = (command_line.next()?, command_line.next()?);
    let arguments: Vec<OsString> = command_line.collect();
    let Err(error) = terminal::become_on_terminal(Path::new(&program), &name, &arguments);
    let error = anyhow!(error).context(format!("cannot run '{}'", program.display()));
    Some(Failure::usage(error))
}

/// Open connections by default: each is a process. As many as ncat allows.
pub(crate) const DEFAULT_MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(100).expect("not 0");

/// What is to be run, known to be there, and the descriptors that it takes.
pub(crate) struct Plan {
    program: Program,
    kill_after: Duration,
    /// What the descriptor limit was, if it had to be raised: programs get it back.
    limit_before: Option<Rlimit>,
}

impl Plan {
    /// Raises the descriptor limit if more are needed, so call it early.
    pub(crate) fn new(arguments: &Serve, workers: NonZeroUsize) -> Result<Self, Failure> {
        children::keep_their_status()?;
        let program = Program::find(arguments)?;
        let connections = arguments.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS);
        Ok(Self {
            program,
            kill_after: arguments.kill_after.unwrap_or(KILL_AFTER),
            limit_before: raise_limit(connections, workers)?,
        })
    }
}

/// Why `--idle-timeout` and `--first-byte-timeout` cannot be had on one of these listeners, if it is so: of a Unix socket
/// that the program has itself nothing tells when bytes move.
pub(crate) fn objection(
    arguments: &Serve,
    listeners: &[Addr],
    over_tls: &[bool],
) -> Option<Failure> {
    let by_silence = [arguments.idle_timeout, arguments.first_byte_timeout];
    let is_asked = by_silence
        .into_iter()
        .flatten()
        .any(|timeout| timeout.0.is_some());
    let unseen = listeners
        .iter()
        .zip(over_tls)
        .find(|(address, tls)| matches!(address, Addr::Unix(_)) && !*tls);
    if arguments.service != Chosen::Exec || arguments.pty || !is_asked {
        return None;
    }
    let (address, _) = unseen?;
    let error =
        anyhow!("on {address} the program has the socket, and nobody sees whether bytes move");
    let failure = Failure::usage(error.context("--idle-timeout and --first-byte-timeout"));
    Some(failure.with_hint("--max-lifetime bounds a connection there"))
}

/// Descriptors that the server itself needs, with each worker, and with each connection: its socket, the watch over it, the
/// program's pidfd, its stderr, over TLS or on a terminal our end of that.
const DESCRIPTORS: u64 = 64;
const DESCRIPTORS_PER_WORKER: u64 = 16;
const DESCRIPTORS_PER_CONNECTION: u64 = 5;

/// Raises the descriptor limit as far as the connections need it, and no further: programs inherit it, and would be in
/// trouble with select(2) above 1,024. Returns what it was, if it had to be raised.
fn raise_limit(
    connections: NonZeroUsize,
    workers: NonZeroUsize,
) -> Result<Option<Rlimit>, Failure> {
    let needed = (connections.get() as u64)
        .saturating_mul(DESCRIPTORS_PER_CONNECTION)
        .saturating_add(DESCRIPTORS + DESCRIPTORS_PER_WORKER * workers.get() as u64);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| needed <= current) {
        return Ok(None);
    }
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum,
    };
    let allowed = limit.maximum.is_none_or(|maximum| needed <= maximum);
    if !allowed || setrlimit(Resource::Nofile, raised).is_err() {
        let error = anyhow!(
            "{connections} connections need {needed} descriptors, more than the limit allows"
        );
        return Err(Failure::usage(error)
            .with_hint("--max-connections N takes fewer; ulimit -Hn shows the limit"));
    }
    Ok(Some(limit))
}

impl Plan {
    /// Serves until the server is ended and every program is gone.
    pub(crate) fn serve(
        self,
        server: Server,
        workers: NonZeroUsize,
        reporter: &Arc<Reporter>,
    ) -> Result<Summary, ServeError> {
        let (reaper, handover) = Reaper::start(self.kill_after).map_err(ServeError::Start)?;
        let exec = Exec {
            program: self.program,
            limit_before: self.limit_before,
            reporter: Arc::clone(reporter),
            reaper: handover,
        };
        let served = server.keep_descriptor_limit().run(workers, exec);
        reaper.finish();
        served
    }
}

/// TERM is followed by KILL after so long, by default.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// The service.
struct Exec {
    program: Program,
    limit_before: Option<Rlimit>,
    reporter: Arc<Reporter>,
    reaper: Handover,
}

impl Service for Exec {
    async fn serve(&self, conn: Conn) -> io::Result<()> {
        let variables = variables(&facts(&conn));
        let watch = Watch::new(conn.stream())?;
        if self.program.on_terminal {
            let (terminal, theirs) = Terminal::open()?;
            let (child, stderr) = self.start(conn.id(), &variables, theirs)?;
            with_stderr(stderr, relayed(conn, terminal, child, &watch)).await
        } else if matches!(conn.stream(), Stream::Tcp(_) | Stream::Unix(_)) {
            let id = conn.id();
            // Held to the end: dropping it gives the socket back to the server.
            let (_lent, socket) = conn.lend()?;
            let (child, stderr) = self.start(id, &variables, socket)?;
            with_stderr(stderr, attended(child, watch.gone())).await
        } else {
            let (ours, theirs) = socketpair(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            let ours = std::os::unix::net::UnixStream::from(ours);
            ours.set_nonblocking(true)?;
            let ours = UnixStream::from_std(ours)?;
            let (child, stderr) = self.start(conn.id(), &variables, theirs)?;
            with_stderr(stderr, relayed(conn, ours, child, &watch)).await
        }
    }
}

impl Exec {
    /// Starts the program, with `stdio` for stdin and stdout: nobody here has that any longer, or its end would not be seen.
    fn start(
        &self,
        id: u64,
        variables: &Variables,
        stdio: OwnedFd,
    ) -> io::Result<(Child, Option<Stderr>)> {
        let (stderr, theirs) = match self.program.stderr {
            _ if self.program.on_terminal => (None, Some(fcntl_dupfd_cloexec(&stdio, 3)?)),
            StderrTo::Log => {
                let (ours, theirs) = Stderr::pipe(id, &self.reporter)?;
                (Some(ours), Some(theirs))
            }
            StderrTo::Inherit => (None, None),
            StderrTo::Null => (None, Some(File::create("/dev/null")?.into())),
        };
        let started = self.program.start(variables, &stdio, theirs.as_ref());
        let pid = started.inspect_err(|error| {
            self.reporter.not_started(id, self.program.path(), error);
        })?;
        if let Some(limit) = &self.limit_before {
            // A program with another user's rights may not be told; it then has more than it had to have.
            let _ = prlimit(Some(pid), Resource::Nofile, *limit);
        }
        let child = Child::watch(pid, id, &self.reporter, &self.reaper)?;
        Ok((child, stderr))
    }
}

/// Waits until the program has ended, and ends it when the client is gone. Nothing of it is left then.
async fn attended(mut child: Child, gone: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let ended = tokio::select! {
        biased;
        exited = child.exited() => exited,
        gone = gone => gone,
    };
    child.end().await?;
    ended
}

/// As [`attended`], and passes on what program and client say. What the program has said when it ends is delivered, unless
/// the client is gone.
async fn relayed<P>(conn: Conn, program: P, mut child: Child, watch: &Watch) -> io::Result<()>
where
    P: AsyncRead + AsyncWrite + AsFd + Unpin,
{
    let mut relay = Relay::new(conn, program);
    let client = async {
        relay.run().await?;
        // Both sides have said all: the program may go on all the same.
        pending::<io::Result<()>>().await
    };
    let left = tokio::select! {
        biased;
        exited = child.exited() => exited.map(|()| true),
        broken = client => broken.map(|()| false),
        gone = watch.gone() => gone.map(|()| false),
    };
    child.end().await?;
    if left? {
        relay.drain().await
    } else {
        relay.note_the_end();
        Ok(())
    }
}

/// Tells what a program says on stderr while it is attended to.
async fn with_stderr<T>(stderr: Option<Stderr>, attended: impl Future<Output = T>) -> T {
    let Some(mut stderr) = stderr else {
        return attended.await;
    };
    let ended = tokio::select! {
        ended = attended => ended,
        ended = async {
            stderr.tell().await;
            pending().await
        } => ended,
    };
    stderr.tell_rest();
    ended
}

/// What a program may know of its connection.
fn facts(conn: &Conn) -> Facts {
    let header = conn.proxy_header();
    let declared = match header {
        Some(header) if header.client().is_some() => &header.addresses,
        _ => &Addresses::Unspecified,
    };
    let local = match declared {
        Addresses::Ip { destination, .. } => Some(Addr::from(*destination)),
        _ => conn.local().ok(),
    };
    let credentials = match conn.stream() {
        Stream::Unix(stream) => stream.peer_cred().ok(),
        _ => None,
    };
    Facts {
        remote: Some(conn.client().clone()),
        local,
        credentials: credentials.map(|peer| (peer.uid(), peer.gid())),
        tls: tls_facts(conn.stream()),
        authority: header.and_then(|header| header.authority().map(ToOwned::to_owned)),
    }
}

fn tls_facts(stream: &Stream) -> Option<TlsFacts> {
    let session = stream.tls()?;
    let certificate = session.peer_certificates.first();
    let certificate = certificate.map(|der| Certificate::of(der));
    let of = |fact: fn(&Certificate) -> &str| certificate.as_ref().map(|c| fact(c).to_owned());
    Some(TlsFacts {
        version: session.version.map(|version| version.as_str().to_owned()),
        cipher: session.cipher,
        server_name: session.server_name,
        subject: of(Certificate::subject),
        issuer: of(|certificate| {
            certificate
                .issuer()
                .unwrap_or_else(|| certificate.subject())
        }),
        fingerprint: of(|certificate| &certificate.fingerprint),
    })
}
