//! The shapes that most packets have, read with few bounds checks: Ethernet with at most one VLAN tag, IPv4 with 20 octets of
//! header and not fragmented, or IPv6 without extension headers, and TCP or UDP; and such an IPv4 packet in GTP-U.
//!
//! It finds the same as [`crate::parser::walk`] or nothing, and then the walk reads the frame.

use minimizer_common::plan::Steps;
use minimizer_common::slot::Narrow;
use minimizer_common::tuple::Tags;

use crate::parser::cursor::{Frame, Header, Passed, header_at, header_behind};
use crate::parser::ethernet::EthernetHeader;
use crate::parser::gtp_u::GtpUHeader;
use crate::parser::ipv4::Ipv4Header;
use crate::parser::ipv6::Ipv6Header;
use crate::parser::tcp::TcpHeader;
use crate::parser::udp::UdpHeader;
use crate::parser::vlan::VlanTag;
use crate::parser::walk::{Packet, Version};
use crate::parser::{gtp_u, ipv4, ipv6, tcp, udp, vlan, vxlan};
use crate::{untraced, whole};

/// The link headers of a tagged frame, and so many octets more that the headers of an untagged one of IPv4 and TCP end where this
/// does: one bounds check is for both.
#[derive(Clone, Copy)]
#[repr(C)]
struct LinkHeaders {
    ethernet: EthernetHeader,
    tag: VlanTag,
    rest: [u8; UNTAGGED + size_of::<Ipv4Headers>() - TAGGED],
}
// SAFETY: a `repr(C)` struct of such structs of bytes and byte arrays.
unsafe impl Header for LinkHeaders {}

/// IPv4 with the header of TCP. In UDP what follows the ports is not read.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv4Headers {
    ip: Ipv4Header,
    tcp: TcpHeader,
}
// SAFETY: as above.
unsafe impl Header for Ipv4Headers {}

/// IPv4 with a message of GTP-U that carries IPv4 with the header of TCP.
#[derive(Clone, Copy)]
#[repr(C)]
struct GtpUHeaders {
    ip: Ipv4Header,
    udp: UdpHeader,
    gtp_u: GtpUHeader,
    inner: Ipv4Header,
    tcp: TcpHeader,
}
// SAFETY: as above.
unsafe impl Header for GtpUHeaders {}

/// IPv6 with the header of UDP. The ports of TCP are at the same place.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6Headers {
    ip: Ipv6Header,
    udp: UdpHeader,
}
// SAFETY: as above.
unsafe impl Header for Ipv6Headers {}

/// IPv6 with the header of TCP.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6TcpHeaders {
    ip: Ipv6Header,
    tcp: TcpHeader,
}
// SAFETY: as above.
unsafe impl Header for Ipv6TcpHeaders {}

/// The link headers of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What follows.
    pub version: Version,
    /// The tag, if there is one.
    pub vlan: Option<Vlan>,
}

/// Octets of the link headers of a frame without a tag.
pub const UNTAGGED: usize = size_of::<EthernetHeader>();
/// Octets of the link headers of a frame with one.
pub const TAGGED: usize = UNTAGGED + size_of::<VlanTag>();

/// The VLAN tag of a frame, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// As the walk keeps it.
    pub tags: Tags,
    /// As a narrow slot has it; computed only where there is a tag.
    pub narrow: u64,
}

impl Vlan {
    /// No tag.
    pub const NONE: Self = Self { tags: Tags::NONE, narrow: 0 };

    /// A tag with an identifier, which lies in the lower 12 bits of its first two octets.
    #[inline(always)]
    #[must_use]
    pub const fn new(control: u16) -> Self {
        let tags = Tags::NONE.with_vlan(control);
        Self { tags, narrow: Narrow::vlan(tags) }
    }
}

/// An IPv4 packet of the common shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Packet {
    /// Octets of the frame.
    pub frame_octets: u32,
    /// IP length that the header declares.
    pub length_octets: u32,
    /// Source in the lower half, destination in the upper half, as they lie on the wire.
    pub addresses: u64,
    /// What follows.
    pub transport: Transport,
}

/// An IPv6 packet of the common shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Packet {
    /// Octets of the frame.
    pub frame_octets: u32,
    /// IP length: header and payload.
    pub length_octets: u32,
    /// See [`minimizer_common::tuple::Tuple::addresses`].
    pub addresses: [u64; 4],
    /// What follows.
    pub transport: Transport,
}

/// Transport header of a packet of a common shape, and what both IP versions have besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port in the upper half, destination port in the lower.
    pub ports: u32,
    /// TCP control bits; zero for UDP.
    pub control_bits: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// IPv4 type of service or IPv6 traffic class.
    pub traffic_class: u8,
    /// The tag of the frame.
    pub vlan: Vlan,
}

impl Transport {
    /// Whether a listed tunnel may begin behind the headers.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_tunnel(&self) -> bool {
        self.protocol == udp::PROTOCOL && matches!(self.ports as u16, gtp_u::PORT | vxlan::PORT)
    }

    /// Whether that tunnel is GTP-U.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_gtp_u(&self) -> bool {
        self.protocol == udp::PROTOCOL && self.ports as u16 == gtp_u::PORT
    }

    /// The same, unknown to the verifier: else it would walk the rest once for every kind of packet.
    #[inline(always)]
    #[must_use]
    pub fn settled(self) -> Self {
        let parts = u32::from(self.control_bits)
            | u32::from(self.protocol) << 16
            | u32::from(self.traffic_class) << 24;
        let parts = untraced(parts);
        let tags = Tags(untraced(self.vlan.tags.0));
        Self {
            ports: untraced(self.ports),
            control_bits: parts as u16 & tcp::CONTROL_BITS,
            protocol: (parts >> 16) as u8,
            traffic_class: (parts >> 24) as u8,
            vlan: Vlan { tags, narrow: Narrow::vlan(tags) },
        }
    }

    #[inline(always)]
    const fn packet(&self, addresses: [u64; 4], tags: Tags, length_octets: u32) -> Packet {
        let Self { ports, control_bits, protocol, traffic_class, .. } = *self;
        let ports = ((ports >> 16) as u16, ports as u16);
        Packet { addresses, ports, tags, length_octets, control_bits, protocol, traffic_class, may_carry: 0 }
    }
}

impl Ipv4Packet {
    /// The same in the form of the walk.
    #[inline(always)]
    #[must_use]
    pub const fn packet(&self) -> Packet {
        self.transport.packet([self.addresses, 0, 0, 0], self.transport.vlan.tags, self.length_octets)
    }
}

impl Ipv6Packet {
    /// The same in the form of the walk.
    #[inline(always)]
    #[must_use]
    pub const fn packet(&self) -> Packet {
        self.transport.packet(self.addresses, self.transport.vlan.tags.with_ipv6(), self.length_octets)
    }
}

/// The version and the length of a header without options, in words.
const IPV4_WITHOUT_OPTIONS: u8 = ipv4::VERSION << 4 | (ipv4::HEADER_OCTETS / 4) as u8;

/// The link headers of a frame that has at most one tag and carries IP.
#[inline(always)]
#[must_use]
pub fn link(frame: &impl Frame) -> Option<Link> {
    let passed = header_at::<LinkHeaders>(frame)?;
    let LinkHeaders { ethernet, tag, .. } = passed.copy();
    if ethernet.ether_type == ipv4::ETHER_TYPE.to_be_bytes() {
        return Some(Link { version: Version::V4, vlan: None });
    }
    if ethernet.ether_type == ipv6::ETHER_TYPE.to_be_bytes() {
        return Some(Link { version: Version::V6, vlan: None });
    }
    if !vlan::is_tag(u16::from_be_bytes(ethernet.ether_type)) {
        return None;
    }
    let version = match u16::from_be_bytes(tag.ether_type) {
        ipv4::ETHER_TYPE => Version::V4,
        ipv6::ETHER_TYPE => Version::V6,
        _ => return None,
    };
    Some(Link { version, vlan: Some(Vlan::new(u16::from_be_bytes(tag.control))) })
}

/// The packet of a frame of the common shape of IPv4, behind `LINK` octets. `EXACT` says that the policy reads every field.
#[inline(always)]
#[must_use]
pub fn ipv4<const EXACT: bool, const LINK: usize>(frame: &impl Frame, vlan: Vlan) -> Option<Ipv4Packet> {
    let frame_octets = octets(frame);
    let passed: Passed<Ipv4Headers> = header_behind(frame, LINK)?;
    let headers = || (passed.copy().ip, passed.copy().tcp);
    ipv4_packet::<EXACT>(frame, vlan, frame_octets - LINK as u32, headers)
}

/// The packet inside `outer`, which has the port of GTP-U, if that is of the common shape of IPv4, too, and its header of GTP-U has
/// no optional fields.
#[inline(always)]
#[must_use]
pub fn ipv4_in_gtp_u<const EXACT: bool, const LINK: usize>(
    frame: &impl Frame,
    outer: &Ipv4Packet,
) -> Option<Ipv4Packet> {
    const BEFORE: u32 = ipv4::HEADER_OCTETS + udp::HEADER_OCTETS + gtp_u::HEADER_OCTETS;
    let length_octets = outer.length_octets;
    let passed: Passed<GtpUHeaders> = header_behind(frame, LINK)?;
    let room = passed.copy().gtp_u.plain_length()?;
    if length_octets < BEFORE || room > length_octets - BEFORE {
        return None;
    }
    let headers = || (passed.copy().inner, passed.copy().tcp);
    ipv4_packet::<EXACT>(frame, outer.transport.vlan, room, headers)
}

/// The packet that begins with these headers, if it has the common shape. It may use `room` octets.
#[inline(always)]
fn ipv4_packet<const EXACT: bool>(
    frame: &impl Frame,
    vlan: Vlan,
    room: u32,
    headers: impl Fn() -> (Ipv4Header, TcpHeader),
) -> Option<Ipv4Packet> {
    let omits = |steps| !EXACT && frame.omits(steps);
    let (ip, _) = headers();
    if ip.version_header_length != IPV4_WITHOUT_OPTIONS
        || u16::from_be_bytes(ip.flags_fragment_offset) & ipv4::FRAGMENT != 0
    {
        return None;
    }
    let length_octets = u32::from(u16::from_be_bytes(ip.total_length));
    if length_octets > room {
        return None;
    }
    let protocol = ip.protocol;
    let control_bits = match protocol {
        tcp::PROTOCOL if length_octets >= ipv4::HEADER_OCTETS + tcp::HEADER_OCTETS => {
            if omits(Steps::NO_CONTROL_BITS) { 0 } else { control_bits(&headers().1) }
        }
        udp::PROTOCOL if length_octets >= ipv4::HEADER_OCTETS + udp::HEADER_OCTETS => 0,
        _ => return None,
    };
    let traffic_class = if omits(Steps::NO_TRAFFIC_CLASS) { 0 } else { headers().0.type_of_service };
    let ports = if omits(Steps::NO_PORTS) {
        0
    } else {
        let TcpHeader { source_port, destination_port, .. } = headers().1;
        ports(source_port, destination_port)
    };
    Some(Ipv4Packet {
        frame_octets: octets(frame),
        length_octets,
        addresses: if omits(Steps::NO_IPV4) { 0 } else { headers().0.addresses() },
        transport: Transport { ports, control_bits, protocol, traffic_class, vlan },
    })
}

/// The packet of a frame of the common shape of IPv6; see [`ipv4`].
#[inline(always)]
#[must_use]
pub fn ipv6<const EXACT: bool, const LINK: usize>(frame: &impl Frame, vlan: Vlan) -> Option<Ipv6Packet> {
    let omits = |steps| !EXACT && frame.omits(steps);
    let frame_octets = octets(frame);
    let passed: Passed<Ipv6Headers> = header_behind(frame, LINK)?;
    let ip = passed.copy().ip;
    if ip.version_class_flow[0] >> 4 != ipv6::VERSION {
        return None;
    }
    let payload_octets = u32::from(u16::from_be_bytes(ip.payload_length));
    let length_octets = payload_octets + ipv6::HEADER_OCTETS;
    if length_octets > frame_octets - LINK as u32 {
        return None;
    }
    let protocol = ip.next_header;
    let control_bits = match protocol {
        tcp::PROTOCOL if payload_octets >= tcp::HEADER_OCTETS => {
            let tcp: Passed<Ipv6TcpHeaders> = header_behind(frame, LINK)?;
            if omits(Steps::NO_CONTROL_BITS) { 0 } else { control_bits(&tcp.copy().tcp) }
        }
        udp::PROTOCOL if payload_octets >= udp::HEADER_OCTETS => 0,
        _ => return None,
    };
    let addresses = if omits(Steps::NO_IPV6) { [0; 4] } else { passed.copy().ip.addresses() };
    let traffic_class = if omits(Steps::NO_TRAFFIC_CLASS) { 0 } else { passed.copy().ip.traffic_class() };
    let ports = if omits(Steps::NO_PORTS) {
        0
    } else {
        let UdpHeader { source_port, destination_port, .. } = passed.copy().udp;
        ports(source_port, destination_port)
    };
    Some(Ipv6Packet {
        frame_octets,
        length_octets,
        addresses,
        transport: Transport { ports, control_bits, protocol, traffic_class, vlan },
    })
}

/// The control bits as one number, whose octets the compiler then swaps by one instruction.
#[inline(always)]
fn control_bits(tcp: &TcpHeader) -> u16 {
    whole(tcp.control_bits().into()) as u16
}

#[inline(always)]
fn octets(frame: &impl Frame) -> u32 {
    (frame.end() as usize - frame.start() as usize) as u32
}

/// Both ports in one number, as they follow each other on the wire.
#[inline(always)]
const fn ports([a, b]: [u8; 2], [c, d]: [u8; 2]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
