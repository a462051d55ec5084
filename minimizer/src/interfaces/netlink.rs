//! Network interfaces through rtnetlink: the list of interfaces, and the veth pairs of private networks.

mod addresses;
mod exchange;
mod features;
mod link;
mod notifications;

use std::io;

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use thiserror::Error;

pub use addresses::Address;
use exchange::{Exchange, ExchangeError};
pub use features::XdpFeatures;
pub use link::{AttachedXdp, Link, LinkCounters, XdpMode};
pub use notifications::LinkNotifications;

use crate::support::refusal::{Asked, told};

/// Why the agent cannot read or change the kernel's list of interfaces.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The kernel did not answer a request.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {}", told(Asked::Interface, .source))]
    Refused {
        /// The request.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A message of the kernel does not have the documented form.
    #[error("a netlink message of the kernel cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// No interface has this name.
    #[error("there is no interface '{name}'; this network namespace has: {present}")]
    NoSuchLink {
        /// The requested name.
        name: String,
        /// The names of all interfaces.
        present: String,
    },
}

impl NetlinkError {
    /// The error for a name that none of `links` has.
    #[must_use]
    pub fn no_such_link(name: &str, links: &[Link]) -> Self {
        let present: Vec<_> = links.iter().map(Link::all_names).collect();
        Self::NoSuchLink { name: name.to_owned(), present: present.join(", ") }
    }
}

/// A socket to the kernel's list of interfaces, in the network namespace in which it was opened.
pub struct Netlink {
    exchange: Exchange,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's error if it gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { exchange: Exchange::open(NETLINK_ROUTE)? })
    }

    /// All interfaces, in ascending order of their index.
    ///
    /// # Errors
    /// The kernel's error, or a malformed message.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.exchange.request(&request, NLM_F_DUMP)?;
        let mut links = answers.iter().map(|payload| Link::parse(payload)).collect::<Result<Vec<_>, _>>()?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The interface that has this name, or this alternative name.
    ///
    /// # Errors
    /// Those of [`Self::links`], and [`NetlinkError::NoSuchLink`].
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut links = self.links()?;
        match links.iter().position(|link| link.is_called(name)) {
            Some(position) => Ok(links.swap_remove(position)),
            None => Err(NetlinkError::no_such_link(name, &links)),
        }
    }

    /// Creates a veth pair. Both ends are down and do not use ARP.
    ///
    /// # Errors
    /// The kernel's error: no privilege, a name in use, no veth module.
    pub fn create_veth(&mut self, name: &str, peer: &str, mtu_octets: u32) -> Result<(), NetlinkError> {
        let end = |name: &str| {
            let mut end = LinkMessage::default();
            end.header.flags = LinkFlags::Noarp;
            end.header.change_mask = LinkFlags::Noarp;
            end.attributes.push(LinkAttribute::IfName(name.to_owned()));
            end.attributes.push(LinkAttribute::Mtu(mtu_octets));
            end
        };
        let mut link = end(name);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(peer)))),
        ]));
        self.change(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL, || {
            format!("create the veth pair {name}, {peer}")
        })
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(link), 0, || {
            format!("set interface {index} {}", if up { "up" } else { "down" })
        })
    }

    /// Sends a request of which only the success matters.
    fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        match self.exchange.request(&message, NLM_F_ACK | flags) {
            Ok(_) => Ok(()),
            Err(ExchangeError::Refused(source)) => Err(NetlinkError::Refused { what: what(), source }),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Netlink;

    #[test]
    fn the_loopback_interface_is_listed() {
        let mut netlink = Netlink::open().expect("a netlink socket");
        let link = netlink.link("lo").expect("lo is in every network namespace");
        assert!(link.loopback);
        assert_eq!((link.index, &link.kind, &link.driver, &link.xdp), (1, &None, &None, &Vec::new()));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_there_are() {
        let error = Netlink::open().expect("a netlink socket").link("absent0");
        let error = error.expect_err("there is none").to_string();
        assert!(error.contains("'absent0'") && error.contains("lo"), "{error}");
    }
}
