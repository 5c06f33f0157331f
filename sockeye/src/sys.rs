//! System calls that no safe crate offers: the only unsafe code of the library.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Reads the kernel's `struct tcp_info` into `buffer` and says how many bytes of it the kernel filled.
///
/// An older kernel fills fewer bytes than a newer one; the caller parses what came (tcp(7), `TCP_INFO`).
pub(crate) fn tcp_info(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: `buffer` is valid for writes of `length` bytes (at most its own length) for the whole call,
    // and `length` is a valid in-out pointer; the descriptor is borrowed, so it stays open.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(buffer.len().min(length as usize))
}

/// Lets `bind` to a source address leave the choice of the port to `connect`, so that the same port can
/// serve connections to different destinations (ip(7), `IP_BIND_ADDRESS_NO_PORT`).
pub(crate) fn bind_address_no_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` outlives the call and the length given is its own; the descriptor is borrowed.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes a descriptor that the process was started with, and keeps it from programs that are started later
/// (`FD_CLOEXEC`).
pub(crate) fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes any number, and fails with EBADF if it is no open descriptor.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract of the caller, see `inherited_descriptor` of the library, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
