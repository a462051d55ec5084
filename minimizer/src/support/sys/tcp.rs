//! How much of a TCP connection the other end has acknowledged.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Octets written to the socket that the other end has not acknowledged yet (`SIOCOUTQ`, tcp(7)).
///
/// # Errors
/// The error of `ioctl(2)`.
pub fn unacknowledged_octets(socket: impl AsFd) -> io::Result<u64> {
    let mut octets: c_int = 0;
    // SAFETY: the request writes one integer to `octets`, which lives until the call returns.
    let answer = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(octets).unwrap_or(0))
}
