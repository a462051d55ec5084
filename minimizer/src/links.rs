//! Network interfaces as the kernel describes them: names, drivers, MTU, attached XDP programs.

mod dump;
mod features;

use std::collections::BTreeMap;
use std::fs;
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use serde::Serialize;
use thiserror::Error;

pub use features::XdpFeatures;

/// The interfaces could not be listed.
#[derive(Debug, Error)]
#[error("cannot list the network interfaces over netlink: {0}")]
pub struct LinksError(#[from] io::Error);

/// A network interface.
#[derive(Clone, Debug)]
pub struct Link {
    /// Interface index.
    pub if_index: u32,
    /// Name.
    pub name: String,
    /// Driver of the device, or kind of a virtual interface (`veth`, `vlan`, …).
    pub driver: Option<String>,
    /// Largest IP packet in octets.
    pub mtu_octets: u32,
    /// Administratively up.
    pub up: bool,
    /// A cable or a peer is there.
    pub carrier: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// XDP programs that are attached.
    pub xdp: Vec<AttachedXdp>,
    /// What the driver says about XDP; `None` when this kernel does not tell.
    pub features: Option<XdpFeatures>,
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

/// All interfaces of this network namespace, in the order of their indices.
///
/// # Errors
/// When the kernel does not answer over netlink.
pub fn links() -> Result<Vec<Link>, LinksError> {
    let answers = dump::dump(NETLINK_ROUTE, RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    // Older kernels, and namespaces that refuse generic netlink, cannot tell: that is not an error.
    let features = features::xdp_features().ok().flatten();
    let mut links: Vec<Link> = answers
        .iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::new(message, features.as_ref())),
            _ => None,
        })
        .collect();
    links.sort_by_key(|link| link.if_index);
    Ok(links)
}

impl Link {
    fn new(message: &LinkMessage, features: Option<&BTreeMap<u32, XdpFeatures>>) -> Self {
        let header = &message.header;
        let mut link = Self {
            if_index: header.index,
            name: String::new(),
            driver: None,
            mtu_octets: 0,
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            loopback: header.flags.contains(LinkFlags::Loopback),
            xdp: Vec::new(),
            features: features.and_then(|features| features.get(&header.index).copied()),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(octets) => link.mtu_octets = *octets,
                LinkAttribute::LinkInfo(infos) => link.driver = infos.iter().find_map(kind),
                LinkAttribute::Xdp(attributes) => link.xdp = attached(attributes),
                _ => {}
            }
        }
        // A physical device's driver says more than its kind.
        let driver = fs::read_link(format!("/sys/class/net/{}/device/driver", link.name)).ok();
        if let Some(name) = driver.as_deref().and_then(|path| path.file_name()) {
            link.driver = Some(name.to_string_lossy().into_owned());
        } else if link.loopback {
            link.driver = Some("loopback".to_owned());
        }
        link
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(name)) => Some(name.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkXdp;

    use super::{AttachedXdp, XdpMode, attached, links};

    #[test]
    fn loopback_is_listed_and_has_no_native_xdp() {
        let links = links().expect("netlink answers");
        let loopback = links.iter().find(|link| link.loopback).expect("every namespace has a loopback");
        assert_eq!(loopback.name, "lo");
        assert!(loopback.mtu_octets > 0);
        assert!(loopback.features.is_none_or(|features| !features.native));
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
