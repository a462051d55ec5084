//! A packet socket that hears what the network stack gets from the interfaces of this namespace.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
};

/// Room for what is heard until it is asked for: a frame takes some 2 KiB of it.
const BUFFER_OCTETS: usize = 256 << 20;

/// The socket.
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens to all interfaces in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn open() -> Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        setsockopt(&socket, RcvBufForce, &BUFFER_OCTETS)?;
        Ok(Self(socket))
    }

    /// Frames heard since, by interface index.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn heard(&self) -> Result<HashMap<u32, u64>> {
        let mut heard = HashMap::new();
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut [0; 64]) {
                Ok((_, Some(from))) => *heard.entry(u32::try_from(from.ifindex())?).or_default() += 1,
                Ok((_, None)) => {}
                Err(Errno::EAGAIN) => return Ok(heard),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
