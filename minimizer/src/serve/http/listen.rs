//! Taking a port, and naming the process that already has it.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::str::FromStr;

use procfs::net::TcpState;
use procfs::process::{FDTarget, all_processes};
use thiserror::Error;

use super::local::Connections;
use crate::support::printable;
use crate::support::refusal::{Asked, told};
use crate::support::scoped_address::ScopedAddress;

/// Why the agent cannot listen on an address.
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
        /// Identifier and name of the process, if `/proc` shows them.
        holder: Option<String>,
    },
    /// No interface of this host has the address.
    #[error("cannot listen on {address}: no interface of this host has that address; see 'ip address'")]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {}", told(Asked::Listen, .source))]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// The prefix of an address that ignores the web configuration.
const PLAIN_MARK: &str = "http://";

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// Address and port.
    pub socket: SocketAddr,
    /// Whether this address ignores the web configuration: no TLS, no password.
    pub is_plain: bool,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unmarked = text.strip_prefix(PLAIN_MARK);
        let address = unmarked.map_or(text, |rest| rest.trim_end_matches('/'));
        let socket = ScopedAddress::parse(address).ok_or_else(|| {
            "allowed are an address and a port, like \"127.0.0.1:14739\" or \"[::]:14739\"".to_owned()
        })?;
        let socket = socket.resolve().map_err(|error| error.to_string())?;
        if unmarked.is_some() && !socket.ip().is_loopback() {
            return Err(format!(
                "without certificate and password only this host is served: write {socket}, for which the web \
                 configuration holds, or a loopback address like {PLAIN_MARK}127.0.0.1:{}",
                socket.port()
            ));
        }
        Ok(Self { socket, is_plain: unmarked.is_some() })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(socket: SocketAddr) -> Self {
        Self { socket, is_plain: false }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", if self.is_plain { PLAIN_MARK } else { "" }, self.socket)
    }
}

/// A port that is bound but not yet served. It belongs to the network namespace in which it was bound.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: ListenAddress,
    local: Connections,
}

impl Listener {
    /// Binds `address`. Port 0 binds any free port.
    ///
    /// # Errors
    /// When the address cannot be bound. The error names the process that has it, if there is one.
    pub fn bind(address: impl Into<ListenAddress>) -> Result<Self, ListenError> {
        let ListenAddress { socket: address, is_plain } = address.into();
        let bound = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((socket, listener)) => Ok(Self {
                listener,
                address: ListenAddress { socket, is_plain },
                local: Connections::of_this_namespace(),
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(ListenError::InUse { address, holder: holder(address.port()) })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Err(ListenError::NoSuchAddress { address })
            }
            Err(source) => Err(ListenError::Other { address, source }),
        }
    }

    /// The bound address.
    #[must_use]
    pub const fn address(&self) -> ListenAddress {
        self.address
    }

    /// The port, and the connections of its namespace.
    pub(super) fn into_inner(self) -> (TcpListener, Connections) {
        (self.listener, self.local)
    }
}

/// The process that listens on `port`, if `/proc` shows it.
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
        let name = printable::escaped(process.stat().ok()?.comm.as_bytes());
        Some(format!("process {} ({name})", process.pid))
    })
}

/// The same address with the next port; the previous one after the last.
const fn next(mut address: SocketAddr) -> SocketAddr {
    let port = address.port();
    address.set_port(if port == u16::MAX { port - 1 } else { port + 1 });
    address
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{ListenAddress, Listener};

    #[test]
    fn only_loopback_addresses_are_plain() {
        for (text, is_plain) in [
            ("127.0.0.1:14739", false),
            ("[::]:14739", false),
            ("http://127.0.0.1:14739", true),
            ("http://127.0.0.1:14739/", true),
            ("http://[::1]:9", true),
        ] {
            let address: ListenAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.is_plain, is_plain, "{text}");
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        for (text, part) in [
            ("here", "an address and a port"),
            ("https://127.0.0.1:1", "an address and a port"),
            ("http://192.0.2.1:9", "write 192.0.2.1:9"),
            ("http://[::]:9", "a loopback address like http://127.0.0.1:9"),
        ] {
            let error = text.parse::<ListenAddress>().expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_link_local_address_names_its_interface() {
        for text in ["[fe80::1%lo]:14739", "[fe80::1%1]:14739"] {
            let address: ListenAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), "[fe80::1%1]:14739");
        }
        let error = "[fe80::1%absent0]:14739".parse::<ListenAddress>().expect_err("no interface");
        assert!(error.contains("there is no interface 'absent0'"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder_and_a_way_out() {
        let taken = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let error = Listener::bind(taken.address()).expect_err("the port is taken").to_string();
        let this_process = format!("by process {} (", std::process::id());
        for part in [&taken.address().to_string(), "in use", &this_process, "--listen 127.0.0.1:"] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let error =
            Listener::bind(SocketAddr::from(([192, 0, 2, 1], 0))).expect_err("a documentation address");
        assert!(error.to_string().contains("192.0.2.1:0: no interface of this host"), "{error}");
    }
}
