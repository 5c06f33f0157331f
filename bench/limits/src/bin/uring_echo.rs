//! The same echo on io_uring: one ring, one system call per turn of the loop, and no bytes touched by this process.
//!
//! One accept and one receive per connection stay armed for ever ("multishot"); bytes arrive in a buffer of the
//! kernel's choice and are sent from there. At most one send per connection is under way, or the kernel might reorder
//! them.

use io_uring::{IoUring, cqueue, opcode, squeue::Entry, types::Fd};
use sockeye_limits::buffer_ring::BufferRing;
use sockeye_limits::{announce, exit_code, sys};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

/// Bytes in a buffer that are still to be sent.
struct Piece {
    buffer: u16,
    start: u32,
    end: u32,
}

struct Connection {
    stream: TcpStream,
    /// The receive has ended for good, so the connection does too when all is sent.
    ended: bool,
    sending: Option<Piece>,
    /// Only a peer that does not wait for its echo fills this, and it is as bounded as the buffers are.
    waiting: VecDeque<Piece>,
}

struct Server {
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    buffers: BufferRing,
    /// Connections whose receive ended because no buffer was left.
    starved: Vec<RawFd>,
    /// To be submitted with the next wait, all in one call.
    entries: Vec<Entry>,
}

fn main() -> ExitCode {
    exit_code("uring_echo", run())
}

fn run() -> io::Result<bool> {
    sys::raise_descriptor_limit()?;
    // One thread submits, and completions are produced only while it waits: no interrupts, no locks (Linux 6.1).
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(32 * 1024)
        .build(4096)
        .map_err(|error| io::Error::other(format!("io_uring is not available here: {error}")))?;
    let (mut submitter, mut submission, mut completion) = ring.split();
    submitter.register_ring_fd()?;
    let listener = sys::listen()?;
    // The kernel itself waits where a call would block; a non-blocking socket would make it report that instead.
    listener.set_nonblocking(false)?;
    let mut server = Server {
        buffers: BufferRing::register(&submitter)?,
        connections: Vec::new(),
        starved: Vec::new(),
        entries: Vec::new(),
        listener,
    };
    server.arm_accept();
    announce(&server.listener)?;
    loop {
        for entry in server.entries.drain(..) {
            // SAFETY: what an entry points to is a buffer of the ring, which is never freed.
            while unsafe { submission.push(&entry) }.is_err() {
                submission.sync();
                submitter.submit()?;
                submission.sync();
            }
        }
        submission.sync();
        match submitter.submit_and_wait(1) {
            // Too many completions at once: take those that are there first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => drop(other?),
        }
        submission.sync();
        completion.sync();
        for entry in &mut completion {
            server.complete(&entry)?;
        }
        server.feed_starved();
    }
}

impl Server {
    fn complete(&mut self, entry: &cqueue::Entry) -> io::Result<()> {
        let (kind, fd) = (entry.user_data() >> 32, entry.user_data() as u32 as RawFd);
        let (result, flags) = (entry.result(), entry.flags());
        match kind {
            ACCEPT => self.accepted(result, cqueue::more(flags))?,
            RECEIVE => self.received(fd, result, flags),
            _ => self.sent(fd, result),
        }
        Ok(())
    }

    fn accepted(&mut self, result: i32, armed: bool) -> io::Result<()> {
        if !armed {
            self.arm_accept();
        }
        match result {
            0.. => {}
            // The peer has given up before its turn came.
            _ if result == -libc::ECONNABORTED => return Ok(()),
            _ => return Err(io::Error::from_raw_os_error(-result)),
        }
        let place = result as usize;
        if place >= self.connections.len() {
            self.connections.resize_with(place + 1, || None);
        }
        self.connections[place] = Some(Connection {
            stream: sys::own_stream(result),
            ended: false,
            sending: None,
            waiting: VecDeque::new(),
        });
        self.entries.push(receive(result));
        Ok(())
    }

    fn received(&mut self, fd: RawFd, result: i32, flags: u32) {
        let connection = Self::open(&mut self.connections, fd);
        if result == -libc::ENOBUFS {
            self.starved.push(fd);
        } else if result <= 0 {
            connection.ended = true;
        } else if !cqueue::more(flags) {
            self.entries.push(receive(fd));
        }
        if let Some(buffer) = cqueue::buffer_select(flags) {
            self.buffers.taken();
            let connection = Self::open(&mut self.connections, fd);
            let end = result.max(0) as u32;
            let piece = Piece {
                buffer,
                start: 0,
                end,
            };
            connection.waiting.push_back(piece);
        }
        self.proceed(fd);
    }

    fn sent(&mut self, fd: RawFd, result: i32) {
        let connection = Self::open(&mut self.connections, fd);
        if let Some(mut piece) = connection.sending.take() {
            piece.start += result.max(0) as u32;
            if result < 0 {
                // Ends the receive, which is what ends the connection; nothing more can be sent.
                let _ = connection.stream.shutdown(Shutdown::Both);
                piece.start = piece.end;
                for piece in &mut connection.waiting {
                    piece.start = piece.end;
                }
            }
            connection.waiting.push_front(piece);
        }
        self.proceed(fd);
    }

    /// Sends the next piece, if none is on its way, and closes a connection that has nothing left to do.
    fn proceed(&mut self, fd: RawFd) {
        let connection = Self::open(&mut self.connections, fd);
        if connection.sending.is_some() {
            return;
        }
        while let Some(piece) = connection.waiting.pop_front() {
            if piece.start < piece.end {
                let start = self.buffers.address(piece.buffer);
                let start = start.wrapping_add(piece.start as usize);
                let send = opcode::Send::new(Fd(fd), start, piece.end - piece.start).build();
                self.entries.push(send.user_data((SEND << 32) | fd as u64));
                connection.sending = Some(piece);
                return;
            }
            self.buffers.give_back(piece.buffer);
        }
        if connection.ended {
            self.connections[fd as usize] = None;
        }
    }

    fn arm_accept(&mut self) {
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.entries.push(accept.user_data(ACCEPT << 32));
    }

    /// Arms the receives again that found no buffer. All of them: the one chosen might have nothing to receive. While
    /// every buffer is in use there is no point; the send of one of them will complete, and bring the loop here
    /// again.
    fn feed_starved(&mut self) {
        if self.buffers.has_free() {
            self.entries.extend(self.starved.drain(..).map(receive));
        }
    }

    fn open(connections: &mut [Option<Connection>], fd: RawFd) -> &mut Connection {
        connections[fd as usize]
            .as_mut()
            .expect("a connection closes only when nothing of it is under way")
    }
}

fn receive(fd: RawFd) -> Entry {
    opcode::RecvMulti::new(Fd(fd), BufferRing::GROUP)
        .build()
        .user_data((RECEIVE << 32) | fd as u64)
}
