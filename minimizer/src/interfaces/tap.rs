//! Whether an interface may be a tap. It must not be one if this host is reached through it.
//!
//! A tap drops every frame that arrives. That is right on a mirror port. On an interface with an address or a
//! default route it cuts the host off.

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

use crate::interfaces::netlink::{Address, Link, Netlink, NetlinkError};
use crate::support::printable;

/// Why an interface cannot be a tap.
#[derive(Debug, Error)]
#[error(
    "{name} cannot be a tap, {evidence}: a tap drops every frame that arrives, this host's own traffic too; \
     watch it with '-i {word}', take away what uses it, or insist with '--force-tap'"
)]
pub struct TapRefused {
    /// Name of the interface, and the one by which it was selected.
    pub name: String,
    /// Its name as a word of a shell.
    word: String,
    /// What arrives through it.
    pub evidence: String,
}

/// The interfaces through which this host's own traffic arrives.
#[derive(Clone, Debug, Default)]
pub struct HostTraffic {
    links: Vec<Link>,
    addresses: Vec<Address>,
    default_routes: Vec<u32>,
}

impl HostTraffic {
    /// Asks the kernel.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(netlink: &mut Netlink) -> Result<Self, NetlinkError> {
        let mut addresses = netlink.addresses()?;
        // The kernel gives a link-local address to every interface that is up, and nobody reaches this host
        // through it from afar.
        addresses.retain(|address| !is_link_local(address.address));
        Ok(Self { links: netlink.links()?, addresses, default_routes: netlink.default_routes()? })
    }

    /// Which traffic of this host arrives through an interface; `None` if there is none.
    #[must_use]
    pub fn through(&self, if_index: u32) -> Option<String> {
        self.above(if_index).into_iter().find_map(|index| {
            let name = self.links.iter().find(|link| link.index == index).map(|link| link.name.as_str());
            let whose = match name {
                Some(name) if index != if_index => format!("{name} above it"),
                _ => "it".to_owned(),
            };
            let address = self.addresses.iter().find(|address| address.if_index == index);
            address.map(|address| format!("{whose} has the address {address}")).or_else(|| {
                self.default_routes.contains(&index).then(|| format!("{whose} carries a default route"))
            })
        })
    }

    /// Checks that an interface, which the operator may have selected by an alternative name, may be a tap.
    ///
    /// # Errors
    /// What arrives through it.
    pub fn permit(&self, link: &Link, selected: Option<&str>) -> Result<(), TapRefused> {
        let (name, word) = (link.name_for(selected), printable::shell_word(&link.name));
        self.through(link.index).map_or(Ok(()), |evidence| Err(TapRefused { name, word, evidence }))
    }

    /// The interface and every interface that gets frames from it: bridges, bonds, VLANs.
    fn above(&self, if_index: u32) -> BTreeSet<u32> {
        let mut above = BTreeSet::from([if_index]);
        let mut pending = vec![if_index];
        while let Some(index) = pending.pop() {
            let controllers =
                self.links.iter().filter(|link| link.index == index).filter_map(|link| link.controller);
            // The other end of a veth is beside it, not above it.
            let stacked = self.links.iter().filter(|link| link.lower == Some(index) && !link.is_veth());
            for next in controllers.chain(stacked.map(|link| link.index)) {
                if above.insert(next) {
                    pending.push(next);
                }
            }
        }
        above
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::HostTraffic;
    use crate::interfaces::netlink::{Address, Link};

    fn link(index: u32, kind: Option<&str>, controller: Option<u32>, lower: Option<u32>) -> Link {
        let kind = kind.map(str::to_owned);
        Link { kind, controller, lower, ..Link::named(index, &format!("eth{index}")) }
    }

    #[test]
    fn what_stands_above_an_interface_is_reached_through_it() {
        let address = |if_index| Address { if_index, address: [192, 0, 2, 1].into(), prefix_length: 24 };
        let host = HostTraffic {
            links: vec![
                link(2, None, Some(5), None),
                link(3, None, None, None),
                link(4, Some("veth"), None, Some(3)),
                link(5, Some("bond"), None, None),
                link(6, Some("vlan"), None, Some(5)),
                link(7, None, None, None),
            ],
            addresses: vec![address(6), address(4)],
            default_routes: vec![7],
        };
        assert_eq!(host.through(2).as_deref(), Some("eth6 above it has the address 192.0.2.1/24"));
        assert_eq!(host.through(3), None);
        assert_eq!(host.through(4).as_deref(), Some("it has the address 192.0.2.1/24"));
        assert_eq!(host.through(7).as_deref(), Some("it carries a default route"));
        let refused = host.permit(&host.links[0], Some("uplink")).expect_err("an address").to_string();
        assert!(
            refused.contains("eth2 (uplink) cannot be a tap, eth6 above it")
                && refused.contains("with '-i eth2'")
                && refused.contains("--force-tap"),
            "{refused}"
        );
    }
}
