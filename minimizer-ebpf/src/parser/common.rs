//! The shapes that most packets have, read with one bounds check each: Ethernet without a tag, IPv4 with 20 octets of
//! header and not fragmented, or IPv6 without extension headers, and TCP or UDP.
//!
//! It finds the same as [`crate::parser::walk`] or nothing, and then the walk reads the frame.

use minimizer_common::plan::Steps;
use minimizer_common::tuple::Tags;

use crate::parser::cursor::{Frame, Header, header_at};
use crate::parser::walk::Packet;
use crate::parser::{gtp_u, ipv4, ipv6, tcp, udp, vxlan};

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv4Frame {
    link_addresses: [u8; 12],
    ether_type: [u8; 2],
    version_header_length: [u8; 1],
    type_of_service: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    flags_fragment_offset: [u8; 2],
    time_to_live: u8,
    protocol: u8,
    checksum: [u8; 2],
    addresses: [u8; 8],
    ports: [u8; 4],
    behind_ports: [u8; 8],
    /// In TCP; a part of the payload in UDP, which is not read.
    offset_control_bits: [u8; 2],
    behind: [u8; 6],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for Ipv4Frame {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6Frame {
    link_addresses: [u8; 12],
    ether_type: [u8; 2],
    version_traffic_class: [u8; 2],
    flow_label: [u8; 2],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [u8; 8],
    source_end: [u8; 8],
    destination: [u8; 8],
    destination_end: [u8; 8],
    ports: [u8; 4],
    behind_ports: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for Ipv6Frame {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6TcpFrame {
    before: [u8; 66],
    offset_control_bits: [u8; 2],
    behind: [u8; 6],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for Ipv6TcpFrame {}

/// Whether a listed tunnel may begin behind the headers of a packet of a common shape.
#[inline(always)]
#[must_use]
pub const fn may_be_tunnel(packet: &Packet) -> bool {
    packet.protocol == udp::PROTOCOL && matches!(packet.ports.1, gtp_u::PORT | vxlan::PORT)
}

const ETHERNET_OCTETS: u32 = 14;
/// Version 4 and a header of five words.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// The reserved bit and "don't fragment" say nothing about fragments.
const FRAGMENT: u16 = 0x3fff;

/// The octets of a frame, and its packet if it has the common shape of IPv4.
#[inline(always)]
#[must_use]
pub fn ipv4(frame: impl Frame) -> Option<(u32, Packet)> {
    let known = octets(&frame);
    let passed = header_at::<Ipv4Frame>(&frame)?;
    let header = passed.copy();
    if u16::from_be_bytes(header.ether_type) != ipv4::ETHER_TYPE
        || header.version_header_length[0] != IPV4_WITHOUT_OPTIONS
        || u16::from_be_bytes(header.flags_fragment_offset) & FRAGMENT != 0
    {
        return None;
    }
    let length_octets = u32::from(u16::from_be_bytes(header.total_length));
    if length_octets + ETHERNET_OCTETS > known {
        return None;
    }
    let protocol = header.protocol;
    let control_bits = match protocol {
        tcp::PROTOCOL if length_octets >= ipv4::HEADER_OCTETS + tcp::HEADER_OCTETS => {
            if frame.omits(Steps::NO_CONTROL_BITS) {
                0
            } else {
                u16::from_be_bytes(passed.copy().offset_control_bits) & tcp::CONTROL_BITS
            }
        }
        udp::PROTOCOL if length_octets >= ipv4::HEADER_OCTETS + udp::HEADER_OCTETS => 0,
        _ => return None,
    };
    let addresses =
        if frame.omits(Steps::NO_IPV4) { 0 } else { u64::from_ne_bytes(passed.copy().addresses) };
    let packet = Packet {
        addresses: [addresses, 0, 0, 0],
        ports: if frame.omits(Steps::NO_PORTS) { (0, 0) } else { ports(passed.copy().ports) },
        tags: Tags::NONE,
        length_octets,
        control_bits,
        protocol,
        traffic_class: if frame.omits(Steps::NO_TRAFFIC_CLASS) { 0 } else { passed.copy().type_of_service },
    };
    Some((known, packet))
}

/// The octets of a frame, and its packet if it has the common shape of IPv6.
#[inline(always)]
#[must_use]
pub fn ipv6(frame: impl Frame) -> Option<(u32, Packet)> {
    let known = octets(&frame);
    let passed = header_at::<Ipv6Frame>(&frame)?;
    let header = passed.copy();
    if u16::from_be_bytes(header.ether_type) != ipv6::ETHER_TYPE
        || header.version_traffic_class[0] >> 4 != ipv6::VERSION
    {
        return None;
    }
    let payload_octets = u32::from(u16::from_be_bytes(header.payload_length));
    let length_octets = payload_octets + ipv6::HEADER_OCTETS;
    if length_octets + ETHERNET_OCTETS > known {
        return None;
    }
    let protocol = header.next_header;
    let control_bits = match protocol {
        tcp::PROTOCOL if payload_octets >= tcp::HEADER_OCTETS => {
            let tcp = header_at::<Ipv6TcpFrame>(&frame)?;
            if frame.omits(Steps::NO_CONTROL_BITS) {
                0
            } else {
                u16::from_be_bytes(tcp.copy().offset_control_bits) & tcp::CONTROL_BITS
            }
        }
        udp::PROTOCOL if payload_octets >= udp::HEADER_OCTETS => 0,
        _ => return None,
    };
    let addresses = if frame.omits(Steps::NO_IPV6) {
        [0; 4]
    } else {
        let Ipv6Frame { source, source_end, destination, destination_end, .. } = passed.copy();
        [source, source_end, destination, destination_end].map(u64::from_ne_bytes)
    };
    let packet = Packet {
        addresses,
        ports: if frame.omits(Steps::NO_PORTS) { (0, 0) } else { ports(passed.copy().ports) },
        tags: Tags::NONE.with_ipv6(),
        length_octets,
        control_bits,
        protocol,
        traffic_class: if frame.omits(Steps::NO_TRAFFIC_CLASS) {
            0
        } else {
            (u16::from_be_bytes(passed.copy().version_traffic_class) >> 4) as u8
        },
    };
    Some((known, packet))
}

#[inline(always)]
fn octets(frame: &impl Frame) -> u32 {
    (frame.end() as usize - frame.start() as usize) as u32
}

#[inline(always)]
const fn ports([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}
