//! A network that exists only as long as this process: an anonymous network namespace with veth pairs.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use thiserror::Error;

use super::sender::Handed;
use crate::interfaces::netlink::{Link, LinkCounters, Netlink, NetlinkError};
use crate::support::refusal::{Asked, told};

/// Why the private network cannot be made.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The namespace cannot be created.
    #[error("a private network namespace cannot be created: {}", told(Asked::Namespace, .0))]
    Namespace(#[source] io::Error),
    /// A setting of the namespace cannot be written.
    #[error("{path} cannot be written: {}", told(Asked::Interface, .source))]
    Setting {
        /// The setting's file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The pair of interfaces cannot be created.
    #[error("the private network cannot be set up: {0}")]
    Netlink(#[from] NetlinkError),
    /// Frames stay between the interfaces.
    #[error("the private network keeps frames back: of {handed:?} its driver counts {counters:?}")]
    Stuck {
        /// What became of the frames at the sending end.
        handed: Handed,
        /// What the driver counts there.
        counters: LinkCounters,
    },
}

/// Longest wait for frames in a cable; after that, something is stuck.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Moves the calling thread, and all threads that it starts from now on, into a new network namespace.
///
/// The namespace has no name: the kernel removes it, with every interface in it, when its last
/// process ends, however it ends. Sockets opened before and threads started before stay in the old namespace.
///
/// # Errors
/// The kernel's answer: no CAP_SYS_ADMIN.
pub fn enter_private_namespace() -> Result<(), NetworkError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| NetworkError::Namespace(error.into()))?;
    // New interfaces inherit these settings; with IPv6 they would send neighbour and multicast discovery.
    for scope in ["default", "all"] {
        write_setting(&format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"))?;
    }
    Ok(())
}

fn write_setting(path: &str) -> Result<(), NetworkError> {
    match fs::write(path, "1") {
        // A kernel without IPv6 has nothing to disable.
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| NetworkError::Setting { path: path.to_owned(), source }),
    }
}

/// A virtual cable (veth pair): what is sent on one end arrives on the other, and nothing else.
#[derive(Clone, Debug)]
pub struct Cable {
    /// The end that frames are sent on.
    pub sender: Link,
    /// The end that frames arrive on.
    pub receiver: Link,
}

impl Cable {
    /// Lays a cable between two new interfaces in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn lay(
        netlink: &mut Netlink,
        sender: &str,
        receiver: &str,
        mtu_octets: u32,
    ) -> Result<Self, NetworkError> {
        netlink.create_veth(sender, receiver, mtu_octets)?;
        for name in [sender, receiver] {
            let index = netlink.link(name)?.index;
            netlink.set_up(index, true)?;
        }
        Ok(Self { sender: netlink.link(sender)?, receiver: netlink.link(receiver)? })
    }

    /// Waits until the receiving end has taken all frames `handed` to the sending end since the cable was
    /// laid, and returns their number by the driver's counters.
    ///
    /// A frame that finds no room is handed over again; the driver counts it as dropped each time.
    ///
    /// # Errors
    /// The kernel's answer, or frames that stay in the cable.
    pub fn settle(&self, netlink: &mut Netlink, handed: Handed) -> Result<u64, NetworkError> {
        let begin = Instant::now();
        loop {
            let counters = netlink.link(&self.sender.name)?.counters;
            if counters.transmitted_packets + counters.transmitted_dropped == handed.accepted + handed.refused
            {
                return Ok(counters.transmitted_packets);
            }
            if begin.elapsed() > SETTLE_LIMIT {
                return Err(NetworkError::Stuck { handed, counters });
            }
            thread::yield_now();
        }
    }
}
