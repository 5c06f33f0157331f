//! The system calls `std` has no words for: all the unsafe code here, but for the ring of `uring_echo` and one clock.

use std::fs::File;
use std::io::{self, Write};
use std::mem::size_of_val;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

/// As Sockeye's own, so that no server of a comparison owes its burst to a shorter queue.
const BACKLOG: libc::c_int = 4096;

/// Readable, or the peer has finished or failed: a read tells which.
pub const READABLE: u32 = libc::EPOLLIN as u32;
pub const WRITABLE: u32 = libc::EPOLLOUT as u32;
pub const EDGE: u32 = libc::EPOLLET as u32;
/// Reported whether asked for or not.
pub const FAILED: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// A set of watched sockets. Closing a socket takes it out of the set, since nothing here duplicates descriptors.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn add(&self, socket: &impl AsRawFd, token: usize, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, interest)
    }

    pub fn change(&self, socket: &impl AsRawFd, token: usize, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), token, interest)
    }

    fn control(&self, operation: i32, fd: RawFd, token: usize, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token as u64,
        };
        // SAFETY: the event lives through the call, and the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }

    /// Waits for events, for ever without a timeout. A signal or the timeout leaves `events` empty.
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        // Rounded up, or the last part of a millisecond would be spent spinning.
        let timeout = timeout.map_or(-1, |timeout| timeout.as_micros().div_ceil(1000) as i32);
        let (buffer, room) = (events.buffer.as_mut_ptr(), events.buffer.len() as i32);
        events.filled = 0;
        // SAFETY: the buffer has room for as many events as the kernel is told.
        match check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), buffer, room, timeout) }) {
            Ok(filled) => events.filled = filled as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The events of one wait: a token and what happened to its socket.
#[derive(Debug)]
pub struct Events {
    buffer: Box<[libc::epoll_event]>,
    filled: usize,
}

impl Events {
    #[must_use]
    pub fn with_room_for(count: usize) -> Self {
        let buffer = vec![libc::epoll_event { events: 0, u64: 0 }; count].into();
        Self { buffer, filled: 0 }
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        self.buffer[..self.filled]
            .iter()
            .map(|event| (event.u64 as usize, event.events))
    }
}

/// Opens a listening, non-blocking socket on a port of the kernel's choice on 127.0.0.1.
pub fn listen() -> io::Result<TcpListener> {
    let fd = socket()?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)?;
    // Accepted sockets inherit it, which saves a system call for each of them.
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    let (address, length) = socket_address(SocketAddrV4::new([127, 0, 0, 1].into(), 0));
    // SAFETY: the address lives through the call and is as long as said.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(listener)
}

/// Takes one connection from the queue, already non-blocking: `std` would need a second system call for that.
pub fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = listener.as_raw_fd();
    // SAFETY: null pointers say that the peer's address is not wanted.
    let fd = check(unsafe { libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), flags) })?;
    Ok(own_stream(fd))
}

/// Begins to connect, without waiting for the answer.
///
/// The socket is set to end with a reset. A client that closes first with a FIN leaves a minute of TIME_WAIT behind
/// for each connection: 9,000 of them a run would soon use up the 28,000 source ports there are towards one address,
/// and lengthen the kernel's tables under the runs that follow. It ends after the measurement, so the reset is in no
/// figure.
pub fn begin_connect(address: SocketAddrV4) -> io::Result<TcpStream> {
    let fd = socket()?;
    let stream = own_stream(fd);
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    let (address, length) = socket_address(address);
    // SAFETY: the address lives through the call and is as long as said.
    match check(unsafe { libc::connect(fd, (&raw const address).cast(), length) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(stream),
    }
}

/// Takes over a descriptor the kernel has just handed out, for instance in a completion.
pub fn own_stream(fd: RawFd) -> TcpStream {
    debug_assert!(fd >= 0, "a descriptor, not an error");
    // SAFETY: the callers pass a descriptor that was just made and that nobody else owns.
    unsafe { TcpStream::from_raw_fd(fd) }
}

/// Takes up to so many bytes that have arrived, and throws them away in the kernel, without a copy (tcp(7), MSG_TRUNC).
/// Waits for them; 0 at the end of the stream.
pub fn discard(stream: &TcpStream, most: usize) -> io::Result<usize> {
    // SAFETY: with this flag the kernel of a TCP socket writes nothing to the buffer, which therefore may be none.
    let taken = unsafe { libc::recv(stream.as_raw_fd(), ptr::null_mut(), most, libc::MSG_TRUNC) };
    check_size(taken)
}

/// Makes a file that is only in memory, with these bytes.
pub fn memory_file(content: &[u8]) -> io::Result<File> {
    // SAFETY: the name ends with a zero byte.
    let fd = check(unsafe { libc::memfd_create(c"content".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor was just made and nobody else owns it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(content)?;
    Ok(file)
}

/// Sends up to so many bytes of a file, from `offset` on and which is moved on, without a copy (sendfile(2)).
pub fn send_file(
    stream: &TcpStream,
    file: &File,
    offset: &mut i64,
    most: usize,
) -> io::Result<usize> {
    // SAFETY: the offset lives through the call.
    let sent = unsafe {
        libc::sendfile(
            stream.as_raw_fd(),
            file.as_raw_fd(),
            ptr::from_mut(offset),
            most,
        )
    };
    check_size(sent)
}

/// A pipe: the end to read from, and the one to write to.
pub fn pipe(bytes: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel fills the array it is given.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the descriptors were just made and nobody else owns them.
    let (from, to) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: takes no pointer.
    check(unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) })?;
    Ok((from, to))
}

/// Moves up to so many bytes from one descriptor to another, one of which is a pipe, without a copy where the kernel
/// can (splice(2)). Waits for them; 0 at the end.
pub fn splice(from: &impl AsRawFd, to: &impl AsRawFd, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_MORE;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: null pointers say that neither has an offset.
    let moved = unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), most, flags) };
    check_size(moved)
}

/// Raises the soft limit of open descriptors to the hard one, and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the struct it is given.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the struct lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_max)
}

fn socket() -> io::Result<RawFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointer.
    check(unsafe { libc::socket(libc::AF_INET, kind, 0) })
}

fn set_option<T>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the value lives through the call and is as long as said.
    check(unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), length) })?;
    Ok(())
}

fn socket_address(address: SocketAddrV4) -> (libc::sockaddr_in, libc::socklen_t) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: address.ip().to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    (address, size_of_val(&address) as libc::socklen_t)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
