//! One network interface, as rtnetlink describes it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator, ParseableParametrized as _};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkXdp, XdpAttached};
use serde::Serialize;

use super::features::{self, XdpFeatures};
use crate::support::printable;

/// Octets of `struct ifinfomsg`, which precedes a link's attributes.
const LINK_HEADER_OCTETS: usize = 16;
/// `IFLA_IFNAME`.
const NAME: u16 = 3;
/// `IFLA_PROP_LIST`.
const PROPERTIES: u16 = 52;
/// `IFLA_ALT_IFNAME`.
const ALTERNATIVE_NAME: u16 = 53;

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
    /// The printed name of the mode.
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

/// The driver's counters of an interface, since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Frames received.
    pub received_packets: u64,
    /// Received frames that were lost.
    pub received_dropped: u64,
    /// Frames transmitted. A veth counts a frame here when its peer takes it, if the peer has an XDP program.
    pub transmitted_packets: u64,
    /// Frames that could not be transmitted.
    pub transmitted_dropped: u64,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index of the interface.
    pub index: u32,
    /// Its name as [`printable::escaped`] writes it.
    pub name: String,
    /// Its alternative names, in the same form.
    pub alternatives: Vec<String>,
    /// The largest network-layer packet that it carries, in octets.
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
    /// Index of the bridge or bond to which it belongs as a port.
    pub controller: Option<u32>,
    /// Index of the interface below it in this namespace: the trunk of a VLAN, the other end of a veth.
    pub lower: Option<u32>,
    /// Its XDP programs.
    pub xdp: Vec<AttachedXdp>,
    /// What the driver reports about XDP; `None` until [`Link::with_features`] asks a kernel that reports it.
    pub features: Option<XdpFeatures>,
    /// Its counters.
    pub counters: LinkCounters,
}

impl Link {
    /// Asks the drivers of all these interfaces for their XDP features. Kernels before 6.3, and namespaces
    /// that refuse generic netlink, do not report them. That is not an error.
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

    /// Indices of the interfaces on which its driver runs its program, so that packets come in under theirs: the ports of
    /// a bond, and of the Hyper-V driver the virtual function that it is paired with.
    #[must_use]
    pub fn ports(&self, links: &[Self]) -> Vec<u32> {
        if !matches!(self.kind.as_deref(), Some("bond" | "team"))
            && self.driver.as_deref() != Some("hv_netvsc")
        {
            return Vec::new();
        }
        links.iter().filter(|link| link.controller == Some(self.index)).map(|link| link.index).collect()
    }

    /// Whether this is its name or one of its alternative names.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternatives.iter().any(|alternative| alternative == name)
    }

    /// Its name, with its alternative names behind it if it has any.
    #[must_use]
    pub fn all_names(&self) -> String {
        match &*self.alternatives {
            [] => self.name.clone(),
            alternatives => format!("{} (also {})", self.name, alternatives.join(", ")),
        }
    }

    /// Its name, and in brackets the alternative name by which somebody asked for it.
    #[must_use]
    pub fn name_for(&self, asked: Option<&str>) -> String {
        match asked.filter(|asked| *asked != self.name) {
            Some(asked) => format!("{} ({asked})", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether its count of received frames has some that never reach it: what a bond's backup port receives.
    #[must_use]
    pub fn counts_what_it_rejects(&self) -> bool {
        self.kind.as_deref() == Some("bond")
    }

    /// Whether it is one end of a virtual cable.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    /// An interface of which only index and name are known.
    pub(crate) fn named(index: u32, name: &str) -> Self {
        Self {
            index,
            name: name.to_owned(),
            alternatives: Vec::new(),
            mtu_octets: 0,
            kind: None,
            driver: None,
            up: false,
            carrier: false,
            loopback: false,
            controller: None,
            lower: None,
            xdp: Vec::new(),
            features: None,
            counters: LinkCounters::default(),
        }
    }

    /// Reads a link and passes over attributes that it cannot read. New kernels and rare drivers send forms
    /// that the library does not know, and none of them may hide the interface.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let header = LinkHeader::parse(payload)?;
        let mut link = Self {
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            loopback: header.flags.contains(LinkFlags::Loopback),
            ..Self::named(header.index, "")
        };
        let mut elsewhere = false;
        let attributes = || attributes(payload.get(LINK_HEADER_OCTETS..).unwrap_or(&[]));
        // The library takes names for UTF-8, which they need not be.
        for attribute in attributes() {
            match attribute.kind() {
                NAME => {
                    let name = without_end(attribute.value());
                    link.name = printable::escaped(name);
                    link.driver = driver(name);
                }
                PROPERTIES => link.alternatives = alternatives(attribute.value()),
                _ => {}
            }
        }
        let known = attributes()
            .filter_map(|nla| LinkAttribute::parse_with_param(&nla, header.interface_family).ok());
        for attribute in known {
            match attribute {
                LinkAttribute::Mtu(octets) => link.mtu_octets = octets,
                LinkAttribute::LinkInfo(infos) => link.kind = kind(&infos),
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.lower = Some(index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
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
        if elsewhere {
            link.lower = None;
        }
        Ok(link)
    }
}

fn attributes(octets: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(octets).filter_map(Result::ok)
}

/// The alternative names in a list of properties.
fn alternatives(properties: &[u8]) -> Vec<String> {
    let names = attributes(properties).filter(|property| property.kind() == ALTERNATIVE_NAME);
    names.map(|name| printable::escaped(without_end(name.value()))).collect()
}

/// The octets of a C string.
fn without_end(text: &[u8]) -> &[u8] {
    text.split(|octet| *octet == 0).next().unwrap_or_default()
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The attached programs. The kernel gives one number for each mode, and a common one if there is a single
/// program.
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

/// The driver's name, from the device to which sysfs links the interface. A virtual interface has none.
fn driver(name: &[u8]) -> Option<String> {
    let device = Path::new("/sys/class/net").join(OsStr::from_bytes(name));
    let driver = fs::read_link(device.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkXdp;

    use super::{AttachedXdp, XdpMode, attached};

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
