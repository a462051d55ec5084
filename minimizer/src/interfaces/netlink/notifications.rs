//! The kernel's notifications of changed interfaces: rtnetlink's multicast group of links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::NetlinkError;
use super::exchange::ExchangeError;

/// `RTMGRP_LINK`.
const LINKS: u32 = 1;

/// A subscription to changes of interfaces, in the network namespace in which it was opened.
pub struct LinkNotifications(Socket);

impl LinkNotifications {
    /// Subscribes. The kernel notifies of every change from now on.
    ///
    /// # Errors
    /// The kernel's error if it gives no socket.
    pub fn subscribe() -> Result<Self, NetlinkError> {
        let failed = |source| ExchangeError::Socket { doing: "subscribed to links", source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, LINKS)).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Self(socket))
    }

    /// Reads and discards all pending notifications. A notification only tells that something changed, so
    /// that a lost one matters no more than a read one: the caller asks for the present list.
    pub fn take(&self) {
        let mut room = Vec::with_capacity(8192);
        loop {
            room.clear();
            match self.0.recv(&mut room, 0) {
                // ENOBUFS: the kernel has lost some.
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for LinkNotifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
