//! The listening socket: it neither sends nor receives, it only accepts.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::addr::{Addr, BindAddr};
use crate::error::BindError;
use crate::stream::Stream;
#[cfg(feature = "tls")]
use crate::tls;

/// Options of the listening socket. The connected sockets inherit them (tcp(7)), so they cost nothing per
/// connection. Those of TCP do nothing on a Unix socket. A value that the kernel does not take (a keepalive time of 0 or
/// of more than 32,767 s, more than 127 probes) makes `bind` fail, or a client's attempt.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// How many finished handshakes may wait to be accepted. Default 4096; the kernel silently takes
    /// `net.core.somaxconn` if that is less. Too few, and a burst of clients waits a second or more each for a
    /// second SYN.
    pub backlog: u32,
    /// `TCP_NODELAY`: send small writes at once instead of waiting for the acknowledgement of the last (RFC 896).
    /// Default on: with it off, a small answer in two writes can wait 40 ms for a delayed acknowledgement.
    pub nodelay: bool,
    /// Keepalive probes, which find a peer that is gone without a word. Default on.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT` (RFC 5482): how long sent bytes may stay unacknowledged before the kernel gives up.
    /// Default `None`, the kernel's own 15 minutes or so: a shorter one also ends a connection whose peer is
    /// alive and reads nothing.
    pub user_timeout: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            nodelay: true,
            keepalive: Some(Keepalive::default()),
            user_timeout: None,
        }
    }
}

/// When to probe an idle connection (tcp(7), `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Idle time before the first probe. Default 60 s, below the idle limits of common NAT devices.
    pub idle: Duration,
    /// Time between probes. Default 15 s.
    pub interval: Duration,
    /// Unanswered probes before the connection is held to be dead. Default 4: two minutes in all.
    pub probes: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            probes: 4,
        }
    }
}

/// A socket that listens, and is not yet part of a runtime.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: Addr,
    asked: BindAddr,
    /// Removes the file of a Unix socket when the last of its listeners goes.
    file: Option<SocketFile>,
    /// Whether, and how, its clients are to speak TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Acceptor>,
}

impl Listener {
    /// Binds and listens. The address is taken exclusively: nobody can listen beside us unnoticed.
    pub(crate) fn bind(address: &BindAddr, options: &SocketOptions) -> Result<Self, BindError> {
        bind(address, options, false)
    }

    /// One more listener on the same address, for one more worker: a socket of its own, among which the kernel
    /// spreads the connections (`SO_REUSEPORT`), or for a Unix socket the same one.
    ///
    /// The first socket gets `SO_REUSEPORT` only now that it has the address for itself: had it been set before
    /// `bind`, a second server on the same port would start without an error and take half the clients.
    pub(crate) fn for_another_worker(&self, options: &SocketOptions) -> Result<Self, BindError> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
        let mut another = self.another(options)?;
        #[cfg(feature = "tls")]
        another.tls.clone_from(&self.tls);
        Ok(another)
    }

    fn another(&self, options: &SocketOptions) -> Result<Self, BindError> {
        let failed = |source| BindError::Io {
            address: self.asked.clone(),
            source,
        };
        match &self.address {
            Addr::Tcp(address) => {
                self.socket.set_reuse_port(true).map_err(failed)?;
                let same = match &self.asked {
                    BindAddr::AllInterfaces { .. } => BindAddr::AllInterfaces {
                        port: address.port(),
                    },
                    _ => BindAddr::Tcp(*address),
                };
                bind(&same, options, true)
            }
            Addr::Unix(_) => Ok(Self {
                socket: self.socket.try_clone().map_err(failed)?,
                address: self.address.clone(),
                asked: self.asked.clone(),
                file: None,
                #[cfg(feature = "tls")]
                tls: None,
            }),
        }
    }

    /// Where it listens: the real port, if 0 was asked for.
    pub(crate) fn address(&self) -> &Addr {
        &self.address
    }

    /// Joins the runtime of the calling thread.
    pub(crate) fn into_acceptor(self) -> io::Result<Acceptor> {
        let socket = match self.address {
            Addr::Tcp(_) => Accepting::Tcp(TcpListener::from_std(self.socket.into())?),
            Addr::Unix(_) => Accepting::Unix(UnixListener::from_std(self.socket.into())?),
        };
        Ok(Acceptor {
            socket,
            address: self.address,
            _file: self.file,
            #[cfg(feature = "tls")]
            tls: self.tls,
        })
    }
}

/// A listening socket in a runtime.
#[derive(Debug)]
pub(crate) struct Acceptor {
    socket: Accepting,
    address: Addr,
    _file: Option<SocketFile>,
    #[cfg(feature = "tls")]
    tls: Option<tls::Acceptor>,
}

#[derive(Debug)]
enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    pub(crate) fn address(&self) -> &Addr {
        &self.address
    }

    /// How its clients are to speak TLS; `None` if they are not.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&tls::Acceptor> {
        self.tls.as_ref()
    }

    /// Takes the next client from the listen queue.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Addr)>> {
        Poll::Ready(match &self.socket {
            Accepting::Tcp(socket) => {
                let (stream, peer) = ready!(socket.poll_accept(cx))?;
                Ok((Stream::Tcp(stream), peer.into()))
            }
            Accepting::Unix(socket) => {
                let (stream, peer) = ready!(socket.poll_accept(cx))?;
                Ok((Stream::Unix(stream), Addr::from(&peer)))
            }
        })
    }

    /// Takes a client that waits in the listen queue now, `WouldBlock` if there is none.
    ///
    /// [`poll_accept`](Self::poll_accept) does not do for the last look at the queue: it knows of a client only once
    /// the runtime has had time to ask the kernel.
    pub(crate) fn accept_waiting(&self) -> io::Result<(Stream, Addr)> {
        let (socket, peer) = match &self.socket {
            Accepting::Tcp(listener) => SockRef::from(listener).accept()?,
            Accepting::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        Ok(match peer.as_socket() {
            Some(peer) => (TcpStream::from_std(socket.into())?.into(), peer.into()),
            None => {
                let peer = peer.as_pathname().map(Into::into);
                (
                    UnixStream::from_std(socket.into())?.into(),
                    Addr::Unix(peer),
                )
            }
        })
    }
}

/// What a failed accept asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AcceptFailure {
    /// The peer's fault, or its network's (accept(2) passes pending network errors on): try again at once.
    Peer,
    /// No descriptors or no memory: pause. Unknown errors too: neither spin nor give up.
    Exhausted,
    /// Not a listening socket any more: a mistake of ours.
    Ours,
}

impl AcceptFailure {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => Self::Peer,
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EFAULT) => Self::Ours,
            _ => Self::Exhausted,
        }
    }
}

/// How long accepting pauses when it fails again and again, and when that is worth a word. Pure.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    last_told: Option<Instant>,
    untold: u64,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);
    const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

    pub(crate) const fn new() -> Self {
        Self {
            pause: Self::FIRST,
            last_told: None,
            untold: 0,
        }
    }

    /// One more failure: how long to pause, and how many failures to report now, if it is time to.
    pub(crate) fn failed(&mut self, now: Instant) -> (Duration, Option<u64>) {
        let pause = self.pause;
        self.pause = (pause * 2).min(Self::LONGEST);
        self.untold += 1;
        let due = self
            .last_told
            .is_none_or(|told| now.saturating_duration_since(told) >= Self::BETWEEN_REPORTS);
        if !due {
            return (pause, None);
        }
        self.last_told = Some(now);
        (pause, Some(std::mem::take(&mut self.untold)))
    }

    /// An accept went well: the next pause is short again.
    pub(crate) fn succeeded(&mut self) {
        self.pause = Self::FIRST;
    }
}

/// The file of a Unix socket, removed on drop if it is still the one that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nothing can be done about a failure here, and the next server to bind replaces a stale file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn bind(
    address: &BindAddr,
    options: &SocketOptions,
    reuse_port: bool,
) -> Result<Listener, BindError> {
    let bound = match address {
        BindAddr::Tcp(tcp) => bind_tcp(*tcp, tcp.is_ipv6(), options, reuse_port),
        BindAddr::AllInterfaces { port } => {
            let dual_stack = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            match bind_tcp(dual_stack, false, options, reuse_port) {
                Err(error) if ipv6_is_off(&error) => {
                    let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
                    bind_tcp(ipv4, false, options, reuse_port)
                }
                bound => bound,
            }
        }
        BindAddr::Unix(path) => return bind_unix(path, options),
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse {
            address: address.clone(),
        },
        _ => BindError::Io {
            address: address.clone(),
            source: error,
        },
    };
    let socket = bound.map_err(failed)?;
    let local = socket.local_addr().map_err(failed)?;
    let local = local
        .as_socket()
        .ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
    Ok(Listener {
        socket,
        address: Addr::Tcp(local),
        asked: address.clone(),
        file: None,
        #[cfg(feature = "tls")]
        tls: None,
    })
}

fn bind_tcp(
    address: SocketAddr,
    only_v6: bool,
    options: &SocketOptions,
    reuse_port: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        None,
    )?;
    // Without it, a restarted server finds its port taken for a minute by its own connections in TIME-WAIT
    // (socket(7)). It never lets two servers listen on one port.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    set_tcp_options(&socket, options)?;
    socket.bind(&address.into())?;
    socket.listen(backlog(options))?;
    Ok(socket)
}

/// The options that a connected socket has of its own, or inherits from its listener.
pub(crate) fn set_tcp_options(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(keepalive) = &options.keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if options.user_timeout.is_some() {
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    Ok(())
}

fn bind_unix(path: &Path, options: &SocketOptions) -> Result<Listener, BindError> {
    let asked = BindAddr::Unix(path.to_owned());
    let failed = |source: io::Error| BindError::Io {
        address: BindAddr::Unix(path.to_owned()),
        source,
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::UNIX, kind, None).map_err(failed)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address).map_err(failed)?;
        }
        bound => bound.map_err(failed)?,
    }
    let file = SocketFile::at(path).map_err(failed)?;
    socket.listen(backlog(options)).map_err(failed)?;
    Ok(Listener {
        socket,
        address: Addr::Unix(Some(path.into())),
        asked,
        file: Some(file),
        #[cfg(feature = "tls")]
        tls: None,
    })
}

/// Removes the socket file that a dead server left behind. Whether it is dead, a connect tells: a living one
/// accepts or, if its queue is full, does not refuse.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let failed = |source: io::Error| BindError::Io {
        address: BindAddr::Unix(path.to_owned()),
        source,
    };
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket {
            path: path.to_owned(),
        });
    }
    let kind = Type::STREAM.nonblocking().cloexec();
    let probe = Socket::new(Domain::UNIX, kind, None).map_err(failed)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        _ => Err(BindError::InUse {
            address: BindAddr::Unix(path.to_owned()),
        }),
    }
}

fn backlog(options: &SocketOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

/// The errors of a kernel that has no IPv6, or has it switched off for all interfaces.
fn ipv6_is_off(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_5_ms_to_1_s_and_are_short_again_after_a_success() {
        let now = Instant::now();
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.failed(now).0.as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(now).0, Duration::from_millis(5));
    }

    #[test]
    fn failures_are_told_at_most_once_a_second_and_all_of_them() {
        let start = Instant::now();
        let mut backoff = Backoff::new();
        let mut told = |ms| backoff.failed(start + Duration::from_millis(ms)).1;
        assert_eq!(told(0), Some(1));
        assert_eq!(told(5), None);
        assert_eq!(told(999), None);
        assert_eq!(told(1000), Some(3));
        assert_eq!(told(1001), None);
    }

    #[test]
    fn accept_errors_fall_into_three_classes_and_unknown_ones_pause() {
        let of = |number| AcceptFailure::of(&io::Error::from_raw_os_error(number));
        for peers in [
            libc::ECONNABORTED,
            libc::EPROTO,
            libc::ENETUNREACH,
            libc::EPERM,
        ] {
            assert_eq!(of(peers), AcceptFailure::Peer);
        }
        for exhausted in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            9999,
        ] {
            assert_eq!(of(exhausted), AcceptFailure::Exhausted);
        }
        for ours in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
            assert_eq!(of(ours), AcceptFailure::Ours);
        }
    }
}
