//! The corridor between the rooms: link, then network, then transport.

use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tags;

use crate::cursor::Cursor;
use crate::{dccp, ethernet, icmp, ipv4, ipv6, mpls, pppoe, sctp, tcp, udp, vlan};

/// What the walk found in a frame: the tuple's parts, and what is counted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// See [`minimizer_common::tuple::Tuple::addresses`].
    pub addresses: [u64; 4],
    /// Source and destination port, or ICMP type and code; zero where none may be read.
    pub ports: (u16, u16),
    /// VLAN identifiers and IP version; the interface is not known here.
    pub tags: Tags,
    /// Protocol number.
    pub protocol: u8,
    /// IPv4 type of service or IPv6 traffic class.
    pub traffic_class: u8,
    /// TCP control bits; zero for other protocols.
    pub control_bits: u16,
    /// IP length that the header declares.
    pub length_octets: u32,
}

/// IP version of a packet, known once the link headers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Reads the headers of a frame.
///
/// # Errors
/// The outcome of a frame that has no IP packet in it or whose headers do not add up.
#[inline(always)]
pub fn walk(cursor: &mut Cursor<'_>) -> Result<Packet, Outcome> {
    let (tags, version) = walk_link(cursor)?;
    match version {
        Version::V4 => walk_ipv4(cursor, tags),
        Version::V6 => walk_ipv6(cursor, tags),
    }
}

/// Reads the link headers, down to the IP header.
///
/// # Errors
/// The outcome of a frame that has no IP packet in it or whose link headers do not add up.
#[inline(always)]
pub fn walk_link(cursor: &mut Cursor<'_>) -> Result<(Tags, Version), Outcome> {
    let ether_type = ethernet::read(cursor)?;
    let (tags, ether_type) =
        if vlan::is_tag(ether_type) { vlan::read(cursor, ether_type)? } else { (Tags::NONE, ether_type) };
    let version = match ether_type {
        ipv4::ETHER_TYPE => Version::V4,
        ipv6::ETHER_TYPE => Version::V6,
        mpls::UNICAST | mpls::UPSTREAM => match mpls::read(cursor)? {
            ipv4::VERSION => Version::V4,
            ipv6::VERSION => Version::V6,
            _ => return Err(Outcome::NonIp),
        },
        pppoe::SESSION => match pppoe::read(cursor)? {
            pppoe::PPP_IPV4 => Version::V4,
            pppoe::PPP_IPV6 => Version::V6,
            _ => return Err(Outcome::NonIp),
        },
        _ => return Err(Outcome::NonIp),
    };
    Ok((tags, version))
}

/// Reads an IPv4 packet from its IP header on.
///
/// # Errors
/// The outcome of a packet whose headers do not add up.
#[inline(always)]
pub fn walk_ipv4(cursor: &mut Cursor<'_>, tags: Tags) -> Result<Packet, Outcome> {
    let ip = ipv4::read(cursor)?;
    let transport = walk_transport(cursor, ip.protocol, ip.transport_octets)?;
    Ok(Packet {
        addresses: [ip.addresses, 0, 0, 0],
        ports: transport.ports,
        tags,
        protocol: ip.protocol,
        traffic_class: ip.type_of_service,
        control_bits: transport.control_bits,
        length_octets: ip.length_octets,
    })
}

/// Reads an IPv6 packet from its IP header on.
///
/// # Errors
/// The outcome of a packet whose headers do not add up.
#[inline(always)]
pub fn walk_ipv6(cursor: &mut Cursor<'_>, tags: Tags) -> Result<Packet, Outcome> {
    let ip = ipv6::read(cursor)?;
    let transport = walk_transport(cursor, ip.protocol, ip.transport_octets)?;
    Ok(Packet {
        addresses: ip.addresses,
        ports: transport.ports,
        tags: tags.with_ipv6(),
        protocol: ip.protocol,
        traffic_class: ip.traffic_class,
        control_bits: transport.control_bits,
        length_octets: ip.length_octets,
    })
}

/// What is kept of a transport header.
struct Transport {
    ports: (u16, u16),
    control_bits: u16,
}

/// Reads the transport header if it lies within the `octets` of the IP packet that are left. Where it
/// does not, the packet counts with ports 0 and no control bits.
#[inline(always)]
fn walk_transport(cursor: &mut Cursor<'_>, protocol: u8, octets: u32) -> Result<Transport, Outcome> {
    let mut control_bits = 0;
    let ports = match protocol {
        tcp::PROTOCOL if octets >= tcp::HEADER_OCTETS => tcp::read(cursor).map(|(ports, bits)| {
            control_bits = bits;
            ports
        }),
        udp::PROTOCOL | udp::LITE_PROTOCOL if octets >= udp::HEADER_OCTETS => udp::read(cursor),
        icmp::PROTOCOL | icmp::V6_PROTOCOL if octets >= icmp::HEADER_OCTETS => icmp::read(cursor),
        sctp::PROTOCOL if octets >= sctp::HEADER_OCTETS => sctp::read(cursor),
        dccp::PROTOCOL if octets >= dccp::HEADER_OCTETS => dccp::read(cursor),
        _ => Some((0, 0)),
    };
    // The IP length was found within the frame: a header within it that cannot be read lies in a
    // further buffer.
    let ports = ports.ok_or(Outcome::HeaderNotLinear)?;
    Ok(Transport { ports, control_bits })
}
