//! A connection whose socket somebody else uses: a program that was started for it, as inetd does.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{fcntl_dupfd_cloexec, ioctl_fionbio, ioctl_fionread};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;

use crate::account::Record;
use crate::stream::{Stream, tcp_info};
use crate::tcp_info::{TcpInfo, TcpState};

/// A connection whose socket is used by somebody who was given its descriptor ([`Conn::lend`](crate::Conn::lend)). While
/// this is held nobody here reads or writes.
///
/// Dropping it gives the socket back, to be closed in good order by the server: what was moved meanwhile is counted, as far
/// as the kernel tells, and it is noted whether the client has ended its stream or reset the connection.
///
/// **Bytes** are those of `TCP_INFO`: read by whoever had the socket, and written, whether or not they are sent yet. A kernel
/// before 4.19 does not tell what was written, and of a Unix socket nothing is known. [`Timeouts`](crate::Timeouts) for
/// silence and for the first byte go by the same figures; on a Unix socket they see nothing move.
pub struct Lent {
    record: Arc<Record>,
}

impl Lent {
    /// Of a stream that is to be dropped now: a second descriptor is kept of it, and another is to be given away.
    pub(crate) fn new(record: &Arc<Record>, stream: &Stream) -> io::Result<(Self, OwnedFd)> {
        let on_loan = OnLoan::new(stream)?;
        let theirs = on_loan.another()?;
        record.lend(on_loan);
        let lent = Self {
            record: Arc::clone(record),
        };
        Ok((lent, theirs))
    }
}

/// Above stdin, stdout and stderr: whoever has closed one of them would else get a socket there.
const FIRST_DESCRIPTOR: i32 = 3;

impl Drop for Lent {
    fn drop(&mut self) {
        self.record.take_back();
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("id", &self.record.id)
            .finish_non_exhaustive()
    }
}

/// A socket that somebody else uses, and what was counted on it until the last look.
///
/// It is a descriptor that the runtime does not know: else each segment that comes would wake us, only to find that it is
/// not for us.
pub(crate) struct OnLoan {
    socket: OwnedFd,
    is_tcp: bool,
    counted: Moved,
}

/// Bytes that went through a socket since it was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Moved {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl OnLoan {
    fn new(stream: &Stream) -> io::Result<Self> {
        let is_tcp = match stream {
            Stream::Tcp(_) => true,
            Stream::Unix(_) => false,
            // The peer would be sent what is not encrypted.
            #[cfg(feature = "tls")]
            Stream::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let mut on_loan = Self {
            socket: fcntl_dupfd_cloexec(stream, FIRST_DESCRIPTOR)?,
            is_tcp,
            counted: Moved::default(),
        };
        if let Some(info) = on_loan.tcp_info() {
            on_loan.counted = Moved::of(&info, unread(&on_loan.socket));
        }
        Ok(on_loan)
    }

    /// A descriptor to give away, in blocking mode as inetd gives it. The mode belongs to the socket, not to the descriptor
    /// (`O_NONBLOCK` is of the open file description), so ours is blocking from then on, too: [`Stream::linger`] minds that.
    fn another(&self) -> io::Result<OwnedFd> {
        let another = fcntl_dupfd_cloexec(&self.socket, FIRST_DESCRIPTOR)?;
        ioctl_fionbio(&another, false)?;
        Ok(another)
    }

    /// Takes the socket for our own again. Only in a runtime, which can be out of memory for it.
    pub(crate) fn into_stream(self) -> io::Result<Stream> {
        ioctl_fionbio(&self.socket, true)?;
        Ok(if self.is_tcp {
            Stream::Tcp(TcpStream::from_std(self.socket.into())?)
        } else {
            Stream::Unix(UnixStream::from_std(self.socket.into())?)
        })
    }

    /// Has the close send a reset. `None` where there is no runtime any more to make a stream of it for a last look: then it is
    /// closed.
    pub(crate) fn break_off(self) -> Option<Stream> {
        // It fails only for what is no socket.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        Handle::try_current().ok()?;
        self.into_stream().ok()
    }

    fn tcp_info(&self) -> Option<TcpInfo> {
        self.is_tcp.then(|| tcp_info(&self.socket)).flatten()
    }

    /// What has moved since the last look, and how long ago the last of it did. `None` if nothing has.
    pub(crate) fn look(&mut self) -> Option<(Moved, Duration)> {
        let info = self.tcp_info()?;
        let now = Moved::of(&info, unread(&self.socket));
        let since = self.counted.advance(now);
        if since == Moved::default() {
            return None;
        }
        let quiet_ms = [info.last_data_recv_ms, info.last_data_sent_ms];
        let quiet_ms = quiet_ms.into_iter().flatten().min().unwrap_or(0);
        Some((since, Duration::from_millis(quiet_ms.into())))
    }

    /// Undoes what would make our close wait: a time to linger that was set with the other descriptor (socket(7)).
    pub(crate) fn unlinger(&self) {
        let socket = SockRef::from(&self.socket);
        if let Ok(Some(time)) = socket.linger()
            && !time.is_zero()
        {
            // It fails only for what is no socket.
            let _ = socket.set_linger(None);
        }
    }

    /// Sends FIN: to close our descriptor does not, as long as anybody has another.
    pub(crate) fn end(&self) {
        // An error means that there is nobody to send it to.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Write);
    }

    /// What became of the peer, found without taking a byte.
    pub(crate) fn peer(&self) -> io::Result<Peer> {
        let mut byte = [MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        match SockRef::from(&self.socket).recv_with_flags(&mut byte, flags) {
            // An error of the socket is told once. If it was told to somebody else, this is what is left of it.
            Ok(0) if self.tcp_info().is_some_and(|info| was_cut(&info)) => {
                Err(io::Error::from_raw_os_error(libc::ECONNRESET))
            }
            Ok(0) => Ok(Peer::Closed),
            Ok(_) => Ok(Peer::Open),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Peer::Open),
            Err(error) => Err(error),
        }
    }
}

/// Whether the peer may still send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    Open,
    Closed,
}

impl Moved {
    /// Goes on to these counts, and says how far that is. Pure.
    ///
    /// Never back: what waits in the receive buffer is asked for after the rest, so a count can be less than it was, and what it
    /// lacks would be counted again.
    fn advance(&mut self, now: Self) -> Self {
        let since = Self {
            bytes_in: now.bytes_in.saturating_sub(self.bytes_in),
            bytes_out: now.bytes_out.saturating_sub(self.bytes_out),
        };
        self.bytes_in += since.bytes_in;
        self.bytes_out += since.bytes_out;
        since
    }

    /// Pure. `unread` is what waits in the receive buffer.
    fn of(info: &TcpInfo, unread: u64) -> Self {
        let received = info.bytes_received.unwrap_or(0);
        // The kernel counts the peer's FIN as a byte.
        let fin = u64::from(peer_has_closed(info));
        let written = info.bytes_sent.map_or(0, |sent| {
            let again = info.bytes_retrans.unwrap_or(0);
            sent.saturating_sub(again) + u64::from(info.notsent_bytes.unwrap_or(0))
        });
        Self {
            bytes_in: received.saturating_sub(fin + unread),
            bytes_out: written,
        }
    }
}

fn peer_has_closed(info: &TcpInfo) -> bool {
    match info.state {
        Some(TcpState::CloseWait | TcpState::LastAck | TcpState::Closing | TcpState::TimeWait) => {
            true
        }
        Some(TcpState::Closed) => !was_cut(info),
        _ => false,
    }
}

/// Whether the connection is over without our FIN having been acknowledged, which counts as a byte. Pure.
fn was_cut(info: &TcpInfo) -> bool {
    let (Some(TcpState::Closed), Some(acked), Some(sent), Some(again)) = (
        info.state,
        info.bytes_acked,
        info.bytes_sent,
        info.bytes_retrans,
    ) else {
        return false;
    };
    acked <= sent.saturating_sub(again)
}

/// What waits in the receive buffer (tcp(7), `SIOCINQ`).
fn unread(socket: &OwnedFd) -> u64 {
    ioctl_fionread(socket).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(state: TcpState) -> TcpInfo {
        TcpInfo {
            state: Some(state),
            bytes_received: Some(10),
            bytes_sent: Some(25),
            bytes_retrans: Some(5),
            notsent_bytes: Some(7),
            bytes_acked: Some(20),
            ..TcpInfo::default()
        }
    }

    #[test]
    fn what_was_moved_is_what_was_read_and_written_not_what_the_kernel_has() {
        let moved = Moved::of(&info(TcpState::Established), 3);
        assert_eq!((moved.bytes_in, moved.bytes_out), (7, 27));
        // The FIN of the peer is no byte of its data.
        assert_eq!(Moved::of(&info(TcpState::CloseWait), 3).bytes_in, 6);
        assert_eq!(Moved::of(&TcpInfo::default(), 3), Moved::default());
    }

    #[test]
    fn nothing_is_counted_twice_when_a_count_goes_back() {
        let mut counted = Moved::default();
        let mut sum = Moved::default();
        for (bytes_in, bytes_out) in [(10, 5), (7, 9), (10, 8), (12, 9)] {
            let since = counted.advance(Moved {
                bytes_in,
                bytes_out,
            });
            sum.bytes_in += since.bytes_in;
            sum.bytes_out += since.bytes_out;
        }
        assert_eq!((sum.bytes_in, sum.bytes_out), (12, 9));
    }

    #[test]
    fn an_end_without_our_fin_was_a_cut() {
        assert!(was_cut(&info(TcpState::Closed)));
        let mut orderly = info(TcpState::Closed);
        orderly.bytes_acked = Some(21);
        assert!(!was_cut(&orderly));
        assert!(!was_cut(&info(TcpState::LastAck)));
    }
}
