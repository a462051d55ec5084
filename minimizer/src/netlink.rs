//! Network interfaces through rtnetlink: what there is, and the veth pairs of private networks.

mod dump;
mod features;

use std::fs;
use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator, ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage, LinkXdp,
    XdpAttached,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use serde::Serialize;
use thiserror::Error;

pub use features::XdpFeatures;

/// Octets of `struct ifinfomsg`, which stands before a link's attributes.
const LINK_HEADER_OCTETS: usize = 16;

/// Why the kernel's list of interfaces could not be read or changed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("the netlink socket failed while it {doing}: {source}")]
    Socket {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {source}")]
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
    #[error("there is no interface {name:?}; this network namespace has: {present}")]
    NoSuchLink {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        present: String,
    },
}

/// Where an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Skb,
    /// On the network card.
    Hardware,
}

impl XdpMode {
    /// The mode as it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
            Self::Hardware => "hardware",
        }
    }
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedXdp {
    /// Program number in the kernel.
    pub program_id: u32,
    /// Where it runs.
    pub mode: XdpMode,
}

/// Counters that the driver keeps for an interface, from its creation on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames received.
    pub received_packets: u64,
    /// Frames that were lost on reception.
    pub received_dropped: u64,
    /// Frames transmitted. A veth whose peer has an XDP program counts a frame here when the peer takes it.
    pub transmitted_packets: u64,
    /// Frames that were not transmitted.
    pub transmitted_dropped: u64,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of the interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest network-layer packet it carries, in octets.
    pub mtu_octets: u32,
    /// Kind of a virtual interface: `veth`, `bridge`, `vlan`, …
    pub kind: Option<String>,
    /// Driver of a device on a bus: `ixgbe`, `virtio_net`, …
    pub driver: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is up and has a carrier.
    pub carrier: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// Its XDP programs.
    pub xdp: Vec<AttachedXdp>,
    /// What the driver says about XDP; `None` unless [`Link::with_features`] asked a kernel that tells.
    pub features: Option<XdpFeatures>,
    /// Its counters.
    pub counters: LinkCounters,
}

impl Link {
    /// Asks the drivers of all these interfaces what they can do with XDP. Kernels before 6.3, and
    /// namespaces that refuse generic netlink, cannot tell: that is not an error.
    #[must_use]
    pub fn with_features(mut links: Vec<Self>) -> Vec<Self> {
        let features = features::xdp_features().ok().flatten().unwrap_or_default();
        for link in &mut links {
            link.features = features.get(&link.index).copied();
        }
        links
    }

    /// Driver of a device, kind of a virtual interface, or `loopback`.
    #[must_use]
    pub fn driver_or_kind(&self) -> &str {
        let named = self.driver.as_deref().or(self.kind.as_deref());
        named.unwrap_or(if self.loopback { "loopback" } else { "unknown" })
    }
}

/// A socket to the kernel's list of interfaces, of the network namespace in which it was opened.
pub struct Netlink {
    socket: Socket,
    sequence_number: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's answer when no socket can be had.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |source| NetlinkError::Socket { doing: "was opened", source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { socket, sequence_number: 0 })
    }

    /// All interfaces, by rising index.
    ///
    /// # Errors
    /// The kernel's answer, or a message that cannot be read.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = self.request(request, NLM_F_DUMP, "list interfaces")?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// As [`Self::links`], and [`NetlinkError::NoSuchLink`].
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut links = self.links()?;
        match links.iter().position(|link| link.name == name) {
            Some(position) => Ok(links.swap_remove(position)),
            None => {
                let present: Vec<_> = links.into_iter().map(|link| link.name).collect();
                Err(NetlinkError::NoSuchLink { name: name.to_owned(), present: present.join(", ") })
            }
        }
    }

    /// Creates two interfaces that are joined by a virtual cable, both down and without ARP.
    ///
    /// # Errors
    /// The kernel's answer: no privilege, a name in use, no veth module.
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
        let what = format!("create the veth pair {name}, {peer}");
        self.request(RouteNetlinkMessage::NewLink(link), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &what)?;
        Ok(())
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        let what = format!("set interface {index} {}", if up { "up" } else { "down" });
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK, &what)?;
        Ok(())
    }

    /// Sends a request and collects the links in the answer up to its end.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<Vec<Link>, NetlinkError> {
        self.sequence_number += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence_number;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut octets = vec![0; request.buffer_len()];
        request.serialize(&mut octets);
        let failed = |doing| move |source| NetlinkError::Socket { doing, source };
        self.socket.send(&octets, 0).map_err(failed("sent a request"))?;

        let mut links = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed("received an answer"))?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest)?;
                rest =
                    rest.get(usize::try_from(message.length()).map_or(usize::MAX, aligned)..).unwrap_or(&[]);
                match message.message_type() {
                    _ if message.sequence_number() != self.sequence_number => {}
                    NLMSG_DONE => return Ok(links),
                    NLMSG_ERROR => match refusal(message.payload()) {
                        None => return Ok(links),
                        Some(source) => return Err(NetlinkError::Refused { what: what.to_owned(), source }),
                    },
                    _ => links.push(parse_link(message.payload())?),
                }
            }
        }
    }
}

/// Netlink messages start at multiples of four octets.
fn aligned(octets: usize) -> usize {
    octets.next_multiple_of(4)
}

/// The error in an `NLMSG_ERROR` payload; `None` for an acknowledgement.
fn refusal(payload: &[u8]) -> Option<io::Error> {
    let code = payload.first_chunk().map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

/// Reads a link. An attribute that cannot be read is passed over: new kernels and rare drivers send
/// forms that the library does not know, and none of them may hide the interface.
fn parse_link(payload: &[u8]) -> Result<Link, NetlinkError> {
    let header = LinkHeader::parse(payload)?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        mtu_octets: 0,
        kind: None,
        driver: None,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        loopback: header.flags.contains(LinkFlags::Loopback),
        xdp: Vec::new(),
        features: None,
        counters: LinkCounters::default(),
    };
    let attributes = NlasIterator::new(payload.get(LINK_HEADER_OCTETS..).unwrap_or(&[]))
        .filter_map(Result::ok)
        .filter_map(|nla| LinkAttribute::parse_with_param(&nla, header.interface_family).ok());
    for attribute in attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(octets) => link.mtu_octets = octets,
            LinkAttribute::LinkInfo(infos) => link.kind = kind(&infos),
            LinkAttribute::Xdp(attributes) => link.xdp = attached(&attributes),
            LinkAttribute::Stats64(counters) => {
                link.counters = LinkCounters {
                    received_packets: counters.rx_packets,
                    received_dropped: counters.rx_dropped,
                    transmitted_packets: counters.tx_packets,
                    transmitted_dropped: counters.tx_dropped,
                };
            }
            _ => {}
        }
    }
    link.driver = driver(&link.name);
    Ok(link)
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The kernel gives one number per mode, and a total one when there is a single program.
fn attached(attributes: &[LinkXdp]) -> Vec<AttachedXdp> {
    let mut programs = Vec::new();
    let mut single = None;
    let mut single_mode = XdpMode::Native;
    for attribute in attributes {
        let (mode, program_id) = match attribute {
            LinkXdp::DrvProgId(id) => (XdpMode::Native, *id),
            LinkXdp::SkbProgId(id) => (XdpMode::Skb, *id),
            LinkXdp::HwProgId(id) => (XdpMode::Hardware, *id),
            LinkXdp::ProgId(id) => {
                single = Some(*id);
                continue;
            }
            LinkXdp::Attached(XdpAttached::SocketBuffer) => {
                single_mode = XdpMode::Skb;
                continue;
            }
            LinkXdp::Attached(XdpAttached::Hardware) => {
                single_mode = XdpMode::Hardware;
                continue;
            }
            _ => continue,
        };
        programs.push(AttachedXdp { program_id, mode });
    }
    if let (true, Some(program_id)) = (programs.is_empty(), single.filter(|id| *id != 0)) {
        programs.push(AttachedXdp { program_id, mode: single_mode });
    }
    programs
}

/// The driver's name, from the device that sysfs links the interface to. Virtual interfaces have none.
fn driver(name: &str) -> Option<String> {
    let driver = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkXdp;

    use super::{AttachedXdp, Netlink, XdpMode, attached};

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
        assert!(error.contains("\"absent0\"") && error.contains("lo"), "{error}");
    }
    #[test]
    fn programs_of_all_modes_are_found() {
        let several = [LinkXdp::DrvProgId(7), LinkXdp::SkbProgId(8)];
        let expected = [
            AttachedXdp { program_id: 7, mode: XdpMode::Native },
            AttachedXdp { program_id: 8, mode: XdpMode::Skb },
        ];
        assert_eq!(attached(&several), expected);
        assert_eq!(attached(&[LinkXdp::ProgId(9)]), [AttachedXdp { program_id: 9, mode: XdpMode::Native }]);
        assert_eq!(attached(&[LinkXdp::ProgId(0)]), []);
    }
}
