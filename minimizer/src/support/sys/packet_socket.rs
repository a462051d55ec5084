//! Raw packet sockets: send frames on one interface, many in a system call, without a queue in between.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Frames that one call can hand over.
pub const BATCH_FRAMES_MAX: usize = 64;

/// A raw socket that sends frames with their link headers on one interface, and receives nothing.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket for the interface with this index, in the network namespace of the thread.
    ///
    /// Frames bypass the queueing discipline, so that the sender learns when the interface cannot take more.
    ///
    /// # Errors
    /// The kernel's error: no CAP_NET_RAW, or no such interface.
    pub fn open(if_index: u32) -> io::Result<Self> {
        // Protocol 0: no received frame is ever queued on this socket.
        // SAFETY: the call takes no pointers.
        let descriptor =
            check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };

        let bypass: libc::c_int = 1;
        // SAFETY: the option's value is a c_int that lives during the call, and its size is given.
        check(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const bypass).cast(),
                socklen::<libc::c_int>(),
            )
        })?;

        // SAFETY: all bits zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET.try_into().map_err(io::Error::other)?;
        address.sll_ifindex = if_index.try_into().map_err(io::Error::other)?;
        // SAFETY: the address lives during the call, and its size is given.
        check(unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), socklen::<libc::sockaddr_ll>())
        })?;
        Ok(Self { socket })
    }

    /// Sends at most the first [`BATCH_FRAMES_MAX`] frames, in order, and returns how many the interface took. When it took
    /// fewer, the next call, beginning with the first refused frame, returns the reason.
    ///
    /// # Errors
    /// The kernel's error for the first frame: `ENOBUFS` when the interface has no room,
    /// `EMSGSIZE` when the frame is longer than its MTU allows, `EINVAL` when it is shorter than a link header.
    pub fn send(&self, frames: &[&[u8]]) -> io::Result<usize> {
        let frames = &frames[..frames.len().min(BATCH_FRAMES_MAX)];
        let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let mut parts = [empty; BATCH_FRAMES_MAX];
        // SAFETY: all bits zero is a valid mmsghdr.
        let mut messages: [libc::mmsghdr; BATCH_FRAMES_MAX] = unsafe { std::mem::zeroed() };
        for ((frame, part), message) in frames.iter().zip(&mut parts).zip(&mut messages) {
            // The kernel only reads what is sent; the type has no const pointer.
            *part = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let count = frames.len().try_into().map_err(io::Error::other)?;
        // SAFETY: `count` messages were filled in just above; they, their parts and the frames live during the call.
        let taken =
            check(unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) })?;
        usize::try_from(taken).map_err(io::Error::other)
    }
}

/// The result of a system call, or its error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The size of a socket option or address, which is far below 4 GiB.
#[expect(clippy::cast_possible_truncation, reason = "sizes of small C structures")]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
