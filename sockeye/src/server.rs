//! Open this first: a server from its listening sockets to its end.
//!
//! [`Server::bind`] makes the listening sockets. Each worker runs an accept loop on each of its own (`accept.rs`), which
//! asks admission and spawns one task per connection (`drive.rs`): the service, the close, the account. When the server
//! is stopped the loops end, and what is open is waited for, as long as the phase of the shutdown says.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::try_join_all;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Runtime;

use crate::accept::accept_loop;
use crate::addr::{Addr, BindAddr};
use crate::admission::{Admission, Limits, default_max_connections};
use crate::deadline::Timeouts;
use crate::error::{BindError, ServeError};
use crate::listener::{Acceptor, Listener, SocketOptions};
use crate::rules::{Rules, TrustedProxies};
use crate::service::Service;
use crate::shared::Core;
use crate::shutdown::{Handle, Phase, Summary};
use crate::stats::{Listening, Observer};
use crate::sys;
#[cfg(feature = "tls")]
use crate::tls;

/// A server that has its addresses: clients can connect, and wait in the listen queue until it is run.
///
/// Run it as a future in a tokio runtime of yours, [`Server::serve`], or let it have a thread and a runtime for each
/// worker, [`Server::run`]. Dropped instead, it closes its listeners.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use sockeye::{Limits, Server, Timeouts, services};
///
/// let mut timeouts = Timeouts::default();
/// timeouts.idle = Some(Duration::from_secs(60));
/// let server = Server::bind(([127, 0, 0, 1], 0))?
///     .timeouts(timeouts)
///     .limits(Limits { max_connections: Some(100), ..Limits::default() });
/// println!("listening on {}", server.addresses()[0]);
/// let handle = server.handle();
/// # handle.stop();
/// let summary = server.serve(services::echo()).await?; // until the handle ends it
/// println!("{} connections cut", summary.cut());
/// # Ok(()) }
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<Addr>,
    options: SocketOptions,
    limits: Limits,
    timeouts: Timeouts,
    trusted: Option<TrustedProxies>,
    observer: Option<Box<dyn Observer>>,
    keep_descriptor_limit: bool,
    handle: Handle,
}

impl Server {
    /// Listens on one address, with default [`SocketOptions`].
    ///
    /// The address is bound and listening when this returns, and nobody else can listen on it: a second server on
    /// the same port is an error here, not a rival for its clients. (With more than one worker, a program of the same
    /// user that asks for `SO_REUSEPORT` can join once [`Server::run`] has begun.)
    ///
    /// # Errors
    ///
    /// The address is in use, is not one of this machine's, needs a privilege, or an option of [`SocketOptions`] is out
    /// of the kernel's range.
    pub fn bind(address: impl Into<BindAddr>) -> Result<Self, BindError> {
        Self::bind_with([address.into()], &SocketOptions::default())
    }

    /// Listens on every one of `addresses`, or on none.
    ///
    /// # Errors
    ///
    /// As [`Server::bind`], for the first address that fails; also if there is no address.
    pub fn bind_with(
        addresses: impl IntoIterator<Item = BindAddr>,
        options: &SocketOptions,
    ) -> Result<Self, BindError> {
        let listeners = addresses
            .into_iter()
            .map(|address| Listener::bind(&address, options))
            .collect::<Result<Vec<_>, _>>()?;
        if listeners.is_empty() {
            return Err(BindError::NoAddress);
        }
        Ok(Self {
            addresses: listeners.iter().map(|l| l.address().clone()).collect(),
            listeners,
            options: options.clone(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            observer: None,
            trusted: None,
            keep_descriptor_limit: false,
            handle: Handle::new(),
        })
    }

    /// Sets how many connections are let in. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long clients are waited for. Default: [`Timeouts::default`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Sets who is let in by address. Default: everybody. [`Handle::set_rules`] changes it while the server runs.
    pub fn rules(self, rules: Rules) -> Self {
        self.handle.set_rules(rules);
        self
    }

    /// Has every client speak TLS, on all listeners. The handshake runs in the connection's own task, under
    /// [`Timeouts::handshake`], and counts among [`Limits::handshakes`]. Default: nobody does.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, acceptor: &tls::Acceptor) -> Self {
        for listener in &mut self.listeners {
            listener.tls = Some(acceptor.clone());
        }
        self
    }

    /// As [`Server::tls`], on one listener: the one whose address stands at `index` in [`Server::addresses`].
    ///
    /// # Panics
    ///
    /// If there is none.
    #[cfg(feature = "tls")]
    pub fn tls_on(mut self, index: usize, acceptor: &tls::Acceptor) -> Self {
        self.listeners[index].tls = Some(acceptor.clone());
        self
    }

    /// Sets from whom a PROXY header ([`proxy_protocol`](crate::proxy_protocol)) is required and believed. Default:
    /// nobody, and then what looks like a header is data as any other.
    pub fn trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.trusted = Some(trusted);
        self
    }

    /// Has [`Server::run`] leave the process's descriptor limit as it is, for a service that starts processes: they inherit it,
    /// and a limit above 1,024 is a trap for those that use select(2). Default: it is raised.
    pub fn keep_descriptor_limit(mut self) -> Self {
        self.keep_descriptor_limit = true;
        self
    }

    /// Sets who is told what happens. Default: nobody.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Where the server listens, in the order given to `bind`; the real port, where 0 was asked for.
    pub fn addresses(&self) -> &[Addr] {
        &self.addresses
    }

    /// Ends the server and reads its counters, while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves on the tokio runtime of the caller, which must have I/O and time enabled, until the [`Handle`] ends
    /// it and the last connection is closed.
    ///
    /// The process's descriptor limit is left as it is; [`raise_descriptor_limit`] raises it.
    ///
    /// Cancelling it, that is dropping the future, closes the listeners and aborts every open connection.
    ///
    /// # Errors
    ///
    /// Only if accepting fails for good; nothing that a client does can cause it.
    pub async fn serve<S: Service>(mut self, service: S) -> Result<Summary, ServeError> {
        let listeners = std::mem::take(&mut self.listeners);
        let acceptors = join_runtime(listeners)?;
        let core = self.into_core(1);
        work(&core, &Arc::new(service), acceptors).await?;
        Ok(core.summary())
    }

    /// Serves on `workers` threads, the calling one and others, each with a single-threaded runtime and listening
    /// sockets of its own, among which the kernel spreads the clients (`SO_REUSEPORT`). Blocks until the [`Handle`]
    /// ends it and the last connection is closed.
    ///
    /// One worker per core is the most that helps. The process's soft descriptor limit is raised to the hard one, unless
    /// [`Server::keep_descriptor_limit`] says otherwise.
    ///
    /// # Errors
    ///
    /// If a worker cannot be started, or accepting fails for good.
    ///
    /// # Panics
    ///
    /// If the calling thread already runs an async runtime: use [`Server::serve`] there.
    pub fn run<S: Service>(
        mut self,
        workers: NonZeroUsize,
        service: S,
    ) -> Result<Summary, ServeError> {
        assert!(
            tokio::runtime::Handle::try_current().is_err(),
            "Server::run blocks its thread: inside an async runtime use Server::serve"
        );
        if !self.keep_descriptor_limit {
            // Without more descriptors the limit on connections is lower, and no more than that.
            let _ = raise_descriptor_limit();
        }
        // Every worker has all that it needs before the first one accepts: the descriptors that clients take could be
        // those that the last worker wants.
        let mut prepared = Vec::new();
        for _ in 1..workers.get() {
            let more = self
                .listeners
                .iter()
                .map(|listener| listener.for_another_worker(&self.options));
            prepared.push(Worker::prepare(more.collect::<Result<_, _>>()?)?);
        }
        let first = Worker::prepare(std::mem::take(&mut self.listeners))?;
        let core = self.into_core(workers.get());
        let service = Arc::new(service);
        thread::scope(|scope| {
            let (core, service) = (&core, &service);
            let mut threads = Vec::new();
            for (number, worker) in prepared.into_iter().enumerate() {
                let thread = thread::Builder::new()
                    .name(format!("sockeye-{}", number + 1))
                    .spawn_scoped(scope, move || worker.run(core, service))
                    .inspect_err(|_| core.handle.abort())
                    .map_err(ServeError::Start)?;
                threads.push(thread);
            }
            let mut result = first.run(core, service);
            for thread in threads {
                let ended = thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(ended);
            }
            result
        })?;
        Ok(core.summary())
    }

    /// Called when every listener is bound: from here on the server runs.
    fn into_core(self, workers: usize) -> Arc<Core> {
        let max_connections = self.limits.max_connections.unwrap_or_else(|| {
            default_max_connections(getrlimit(Resource::Nofile).current, workers)
        });
        let admission = Admission::new(max_connections, &self.limits);
        let core = Core::new(
            self.timeouts,
            self.trusted,
            self.handle,
            self.observer,
            admission,
        );
        core.ledger.listen(&Listening {
            addresses: &self.addresses,
            workers,
            max_connections,
        });
        Arc::new(core)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .field("limits", &self.limits)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// Raises the process's soft limit on open descriptors to the hard one (getrlimit(2), `RLIMIT_NOFILE`), and returns
/// it; `None` is no limit. Distributions set the soft one to 1,024 for the sake of programs that use select(2).
///
/// It also has the kernel make the process's descriptor table large enough for as many, 65,536 at most (512 KiB of the
/// kernel's memory). The table doubles when it is full, and in a process of several threads the thread that needs it
/// waits for the whole machine's other processors meanwhile (`synchronize_rcu`), ten milliseconds and more: in a burst
/// of clients that is when the listen queue overflows. So call this early, before there are other threads.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let most = limit.current.unwrap_or(u64::MAX).min(TABLE_DESCRIPTORS);
    let last = most.saturating_sub(1);
    let any = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The copy is closed at once; the table stays. That the limit leaves no room for it is no failure of raising it.
    drop(fcntl_dupfd_cloexec(&any, last as i32));
    Ok(limit.current)
}

/// Takes a descriptor that the process was started with, by its number, as a supervisor hands one over. It is closed when
/// what is returned is dropped, and programs that are started later do not get it.
///
/// Call this first of all, once for each number: what was opened by then is what the process was started with. Later the
/// number could be that of a descriptor which somebody else in this process owns, and closes.
///
/// # Errors
///
/// `EBADF` if there is no such descriptor; `InvalidInput` for 0, 1 and 2, which belong to the standard streams.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        let text = "the standard streams are not handed over";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    sys::inherited_descriptor(number)
}

/// The largest descriptor table that is made in advance.
const TABLE_DESCRIPTORS: u64 = 65_536;

/// One worker: a runtime, its listeners, and the connections that will come in by them.
struct Worker {
    runtime: Runtime,
    acceptors: Vec<Acceptor>,
}

impl Worker {
    fn prepare(listeners: Vec<Listener>) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Start)?;
        let acceptors = {
            let _context = runtime.enter();
            join_runtime(listeners)?
        };
        Ok(Self { runtime, acceptors })
    }

    fn run<S: Service>(self, core: &Arc<Core>, service: &Arc<S>) -> Result<(), ServeError> {
        self.runtime.block_on(work(core, service, self.acceptors))
    }
}

/// Makes listeners part of the runtime that the calling thread is in.
fn join_runtime(listeners: Vec<Listener>) -> Result<Vec<Acceptor>, ServeError> {
    let acceptors = listeners.into_iter().map(Listener::into_acceptor);
    acceptors
        .collect::<io::Result<_>>()
        .map_err(ServeError::Start)
}

/// Accepts until the server is stopped, then sees the open connections to their end.
async fn work<S: Service>(
    core: &Arc<Core>,
    service: &Arc<S>,
    acceptors: Vec<Acceptor>,
) -> Result<(), ServeError> {
    let mut unfinished = AbortOnDrop { core, armed: true };
    let loops = acceptors
        .into_iter()
        .map(|acceptor| accept_loop(core, service, acceptor));
    let accepted = try_join_all(loops).await;
    if accepted.is_err() {
        core.handle.abort();
    }
    finish(core).await;
    unfinished.armed = false;
    accepted.map(drop)
}

/// Waits for the open connections, as long as the phase of the shutdown says.
async fn finish(core: &Core) {
    let mut phase = core.phase();
    loop {
        let now = *phase.borrow_and_update();
        let deadline = async {
            match now {
                Phase::Draining { until } => tokio::time::sleep_until(until).await,
                _ => std::future::pending().await,
            }
        };
        if now == Phase::Aborting {
            core.tasks.abort_all();
            // A service that blocks its thread cannot be aborted, and must not keep the server from ending.
            let _ = tokio::time::timeout(ABORT_GRACE, core.tasks.empty()).await;
            return;
        }
        tokio::select! {
            () = core.tasks.empty() => return,
            () = deadline => core.handle.abort(),
            _ = phase.changed() => {}
        }
    }
}

/// How long aborted tasks are waited for.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Ends the server if a worker's future is dropped, or fails, before it is finished.
struct AbortOnDrop<'a> {
    core: &'a Core,
    armed: bool,
}

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.core.handle.abort();
            self.core.tasks.abort_all();
        }
    }
}
