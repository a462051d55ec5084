//! Taking a port, and saying who has it when it is taken.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};

use procfs::net::TcpState;
use procfs::process::{FDTarget, all_processes};
use thiserror::Error;

/// The address cannot be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error(
        "cannot listen on {address}: the port is in use{}; stop that process or choose another address with \
         '--listen', e.g. '--listen {}'", .holder.as_ref().map_or(String::new(), |holder| format!(" by {holder}")),
        next(*.address)
    )]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Name and number of the process, if it can be told.
        holder: Option<String>,
    },
    /// The address is not one of this host.
    #[error("cannot listen on {address}: no interface of this host has that address; see 'ip address'")]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}; choose another address with '--listen'")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// A port that is taken and not yet served. It belongs to the network namespace in which it was taken.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes `address`; port 0 takes any free port.
    ///
    /// # Errors
    /// Says who has it when it is taken.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => Ok(Self { listener, address }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(ListenError::InUse { address, holder: holder(address.port()) })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(ListenError::NoSuchAddress { address })
            }
            Err(source) => Err(ListenError::Other { address, source }),
        }
    }

    /// The address that was taken.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn into_inner(self) -> TcpListener {
        self.listener
    }
}

/// The process that listens on `port`, if the files in `/proc` tell.
fn holder(port: u16) -> Option<String> {
    let sockets: HashSet<u64> = [procfs::net::tcp(), procfs::net::tcp6()]
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.state == TcpState::Listen && entry.local_address.port() == port)
        .map(|entry| entry.inode)
        .collect();
    all_processes().ok()?.flatten().find_map(|process| {
        let holds = process
            .fd()
            .ok()?
            .flatten()
            .any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)));
        if !holds {
            return None;
        }
        let name = process.stat().ok()?.comm;
        Some(format!("process {} ({name})", process.pid))
    })
}

/// The same address with another port.
const fn next(mut address: SocketAddr) -> SocketAddr {
    let port = address.port();
    address.set_port(if port == u16::MAX { port - 1 } else { port + 1 });
    address
}

#[cfg(test)]
mod tests {
    use super::Listener;

    #[test]
    fn a_taken_port_is_named_with_its_holder_and_a_way_out() {
        let taken = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let error = Listener::bind(taken.address()).expect_err("the port is taken").to_string();
        let this_process = format!("by process {} (", std::process::id());
        for part in [&taken.address().to_string(), "in use", &this_process, "--listen 127.0.0.1:"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let error = Listener::bind(([192, 0, 2, 1], 0).into()).expect_err("a documentation address");
        assert!(error.to_string().contains("192.0.2.1:0: no interface of this host"), "{error}");
    }
}
