//! Socket addresses with a scope: `[fe80::1%eth0]:4739`. A link-local address means something on one interface only, which
//! is given by its name or its number (RFC 4007, 11).

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;
use thiserror::Error;

use crate::support::printable;

/// The scope of an address is no interface of this host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "there is no interface '{scope}' in this network namespace, which the scope of {address} names; see 'ip link'"
)]
pub struct NoSuchScope {
    scope: String,
    address: Ipv6Addr,
}

/// An address and a port, and a scope if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopedAddress {
    /// Nothing is left to be found out.
    Known(SocketAddr),
    /// An IPv6 address whose scope is the name of an interface, which may come later and change its number.
    Named {
        /// The address.
        address: Ipv6Addr,
        /// The port.
        port: u16,
        /// The name of the interface, as it is printed.
        scope: String,
    },
}

impl ScopedAddress {
    /// Reads `192.0.2.1:4739`, `[2001:db8::1]:4739`, `[fe80::1%eth0]:4739` or `[fe80::1%2]:4739`. `None` if the text is
    /// no address with a port, as the name of a host.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Known(address));
        }
        let (inside, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
        let (address, scope) = inside.split_once('%')?;
        let address = address.parse().ok()?;
        // The parser of `u16` would also accept a sign.
        let port =
            Some(port).filter(|port| port.bytes().all(|octet| octet.is_ascii_digit()))?.parse().ok()?;
        let scope = printable::canonical(scope).ok().filter(|scope| !scope.is_empty())?;
        Some(Self::Named { address, port, scope })
    }

    /// The address with the number of its interface, asked for anew each time.
    ///
    /// # Errors
    /// If no interface has the name.
    pub fn resolve(&self) -> Result<SocketAddr, NoSuchScope> {
        match self {
            Self::Known(address) => Ok(*address),
            Self::Named { address, port, scope } => {
                let name = printable::unescaped(scope).unwrap_or_default();
                let number = if_nametoindex(&*name)
                    .map_err(|_| NoSuchScope { scope: scope.clone(), address: *address })?;
                Ok(SocketAddrV6::new(*address, *port, 0, number).into())
            }
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Known(address) => address.port(),
            Self::Named { port, .. } => *port,
        }
    }

    /// The address alone, without its scope.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Known(address) => address.ip().to_string(),
            Self::Named { address, .. } => address.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::ScopedAddress;

    #[test]
    fn a_scope_is_a_name_or_a_number() {
        let loopback = |text: &str| ScopedAddress::parse(text).expect(text).resolve();
        let expected: SocketAddr = "[fe80::1%1]:4739".parse().expect("is one");
        for text in ["[fe80::1%lo]:4739", "[fe80::1%1]:4739", "[fe80::1%\\x6co]:4739"] {
            assert_eq!(loopback(text), Ok(expected), "{text}");
        }
        let parsed = ScopedAddress::parse("[fe80::1%eth0.7]:4739").expect("is one");
        assert_eq!((parsed.host().as_str(), parsed.port()), ("fe80::1", 4739));
        let said = loopback("[fe80::1%absent0]:4739").expect_err("no interface").to_string();
        assert!(said.contains("'absent0'") && said.contains("fe80::1"), "{said}");
    }

    #[test]
    fn other_addresses_are_as_before_and_names_are_none() {
        for text in ["192.0.2.1:4739", "[2001:db8::1]:4739"] {
            let known = ScopedAddress::Known(text.parse().expect("is one"));
            assert_eq!(ScopedAddress::parse(text), Some(known), "{text}");
        }
        for text in [
            "collector.example:4739",
            "fe80::1%eth0:4739",
            "[fe80::1%]:4739",
            "[fe80::1%eth0]",
            "[fe80::1%eth0]:+1",
            "[192.0.2.1%eth0]:1",
        ] {
            assert_eq!(ScopedAddress::parse(text), None, "{text}");
        }
    }
}
