//! The corridor between the rooms: the link, network and transport headers, and through one listed tunnel the
//! network and transport headers inside.

use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::{Tunnel, Tunnels};
use minimizer_common::tuple::Tags;

use crate::parser::cursor::{Cursor, Frame, Stop, Within};
use crate::parser::{dccp, ethernet, gre, gtp_u, icmp, ipv4, ipv6, mpls, pppoe, sctp, tcp, udp, vlan, vxlan};
use crate::untraced;

/// What the walk found in a frame: the parts of the tuple, and what the program counts for it.
///
/// The order of the fields aligns each part to its size: the compiler then copies whole words on the kernel's
/// stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Packet {
    /// See [`minimizer_common::tuple::Tuple::addresses`].
    pub addresses: [u64; 4],
    /// Source and destination port, or ICMP type and code; zero if the packet has none or the parser must not
    /// read them.
    pub ports: (u16, u16),
    /// VLAN identifiers and IP version. The walk does not know the interface.
    pub tags: Tags,
    /// IP length that the header declares.
    pub length_octets: u32,
    /// TCP control bits; zero for other protocols.
    pub control_bits: u16,
    /// Protocol number.
    pub protocol: u8,
    /// IPv4 type of service or IPv6 traffic class.
    pub traffic_class: u8,
    /// 1 if a scope judges the packet, and it is a fragment that may be one of a listed tunnel; else 0.
    pub may_carry: u32,
}

impl Packet {
    /// The same packet, with a protocol and tags that are unknown to the verifier. Otherwise the verifier
    /// would walk the rest once for every kind of packet that the walk told apart. Of the other fields the
    /// verifier knows only the size; see [`walk_transport`].
    #[inline(always)]
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.protocol = untraced(self.protocol.into()) as u8;
        self.tags = Tags(untraced(self.tags.0));
        self.may_carry = untraced(self.may_carry);
        self
    }
}

/// IP version of a packet, known after the link headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where a listed tunnel begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Position of the tunnel's header in the frame, or of the inner IP header if the tunnel has no header.
    offset: u32,
    /// Octets of the outer packet from there on.
    octets: u32,
    tunnel: Tunnel,
}

/// Where the packet inside a tunnel lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its IP version.
    pub version: Version,
    /// Position of its IP header in the frame.
    pub offset: u32,
    /// Octets that it may use from there on.
    pub octets: u32,
}

/// Reads the headers of a frame. If a tunnel of `listed` carries an inner packet, the result is the inner
/// packet.
///
/// # Errors
/// The outcome of a frame that carries no IP packet or whose headers contradict each other.
#[inline(always)]
pub fn walk<F: Frame + Copy>(cursor: &mut Cursor<F>, listed: Tunnels) -> Result<Packet, Outcome> {
    let walked = walk_link(cursor).and_then(|(tags, version)| {
        let (packet, inside) = match version {
            Version::V4 => walk_ipv4(cursor, tags, listed),
            Version::V6 => walk_ipv6(cursor, tags, listed),
        }?;
        Ok((tags, packet, inside))
    });
    let (tags, outer, inside) = walked.map_err(|stop| cursor.outcome(stop))?;
    let Some(Inner { version, offset, octets }) = enter(cursor, inside)? else { return Ok(outer) };
    let mut inner = cursor.enter(offset, octets);
    let walked = match version {
        Version::V4 => walk_ipv4(&mut inner, tags, Tunnels::NONE),
        Version::V6 => walk_ipv6(&mut inner, tags, Tunnels::NONE),
    };
    cursor.follow(&inner);
    walked.map(|(packet, _)| packet).map_err(|stop| inner.outcome(stop))
}

/// Reads the header of a tunnel, if one begins behind the outer packet's headers. The result is `None` if the
/// tunnel carries no IP packet; the program then counts the outer packet.
///
/// # Errors
/// The outcome of a tunnel whose headers contradict each other.
#[inline(always)]
pub fn enter<F: Frame + Copy>(
    cursor: &mut Cursor<F>,
    inside: Option<Inside>,
) -> Result<Option<Inner>, Outcome> {
    let Some(Inside { offset, octets, tunnel }) = inside else { return Ok(None) };
    let mut inner = cursor.enter(untraced(offset), untraced(octets));
    let walked = walk_tunnel(&mut inner, tunnel);
    cursor.follow(&inner);
    match walked {
        Ok(version) => Ok(Some(Inner { version, offset: inner.position(), octets: inner.remaining() })),
        Err(stop) => match inner.outcome(stop) {
            Outcome::NonIp => Ok(None),
            outcome => Err(outcome),
        },
    }
}

/// Reads the link headers, down to the IP header.
///
/// # Errors
/// The outcome of a frame that carries no IP packet or whose link headers contradict each other.
#[inline(always)]
pub fn walk_link(cursor: &mut Cursor<impl Frame>) -> Result<(Tags, Version), Stop> {
    let ether_type = ethernet::read(cursor)?;
    // The two types that most frames have come first.
    match ether_type {
        ipv4::ETHER_TYPE => return Ok((Tags::NONE, Version::V4)),
        ipv6::ETHER_TYPE => return Ok((Tags::NONE, Version::V6)),
        _ => {}
    }
    let (tags, ether_type) =
        if vlan::is_tag(ether_type) { vlan::read(cursor, ether_type)? } else { (Tags::NONE, ether_type) };
    let version = match ether_type {
        ipv4::ETHER_TYPE => Version::V4,
        ipv6::ETHER_TYPE => Version::V6,
        mpls::UNICAST | mpls::UPSTREAM => match mpls::read(cursor)? {
            ipv4::VERSION => Version::V4,
            ipv6::VERSION => Version::V6,
            _ => return Err(Stop::Found(Outcome::NonIp)),
        },
        pppoe::SESSION => match pppoe::read(cursor)? {
            pppoe::PPP_IPV4 => Version::V4,
            pppoe::PPP_IPV6 => Version::V6,
            _ => return Err(Stop::Found(Outcome::NonIp)),
        },
        _ => return Err(Stop::Found(Outcome::NonIp)),
    };
    Ok((tags, version))
}

/// Reads an IPv4 packet from its IP header on, and tells whether a tunnel of `listed` begins behind it.
///
/// # Errors
/// The outcome of a packet whose headers contradict each other.
#[inline(always)]
pub fn walk_ipv4(
    cursor: &mut Cursor<impl Frame>,
    tags: Tags,
    listed: Tunnels,
) -> Result<(Packet, Option<Inside>), Stop> {
    let ip = ipv4::read(cursor)?;
    // The IP length lies within the frame. A header that lies within the IP length but cannot be read is
    // therefore in a further buffer.
    let Some(transport) = walk_transport(cursor, ip.protocol, ip.transport_octets) else {
        return Err(Stop::Found(Outcome::HeaderNotLinear));
    };
    let packet = Packet {
        addresses: [ip.addresses, 0, 0, 0],
        ports: transport.ports,
        tags,
        protocol: ip.protocol,
        traffic_class: ip.type_of_service,
        control_bits: transport.control_bits,
        length_octets: ip.length_octets,
        may_carry: 0,
    };
    settle_inside(cursor, Version::V4, packet, ip.is_whole, ip.transport_octets, listed)
}

/// Reads an IPv6 packet from its IP header on, and tells whether a tunnel of `listed` begins behind it.
///
/// # Errors
/// The outcome of a packet whose headers contradict each other.
#[inline(always)]
pub fn walk_ipv6(
    cursor: &mut Cursor<impl Frame>,
    tags: Tags,
    listed: Tunnels,
) -> Result<(Packet, Option<Inside>), Stop> {
    let ip = ipv6::read(cursor)?;
    // The IP length lies within the frame. A header that lies within the IP length but cannot be read is
    // therefore in a further buffer.
    let Some(transport) = walk_transport(cursor, ip.protocol, ip.transport_octets) else {
        return Err(Stop::Found(Outcome::HeaderNotLinear));
    };
    let packet = Packet {
        addresses: ip.addresses,
        ports: transport.ports,
        tags: tags.with_ipv6(),
        protocol: ip.protocol,
        traffic_class: ip.traffic_class,
        control_bits: transport.control_bits,
        length_octets: ip.length_octets,
        may_carry: 0,
    };
    settle_inside(cursor, Version::V6, packet, ip.is_whole, ip.transport_octets, listed)
}

/// The packet, and the tunnel of `listed` that begins behind its headers. Nobody can look into a fragment of one.
#[inline(always)]
fn settle_inside(
    cursor: &Cursor<impl Frame>,
    version: Version,
    mut packet: Packet,
    is_whole: bool,
    transport_octets: u32,
    listed: Tunnels,
) -> Result<(Packet, Option<Inside>), Stop> {
    if listed.is_empty() {
        return Ok((packet, None));
    }
    if !is_whole {
        if cursor.has_scope() && may_carry(version, packet.protocol, listed) {
            packet.may_carry = 1;
        }
        return Ok((packet, None));
    }
    let inside = inside(cursor, version, &packet, transport_octets, listed);
    Ok((packet, inside))
}

/// Whether a tunnel of `listed` has this protocol.
#[inline(always)]
fn may_carry(version: Version, protocol: u8, listed: Tunnels) -> bool {
    match (protocol, version) {
        (udp::PROTOCOL, _) => listed.has(Tunnel::GtpU) || listed.has(Tunnel::Vxlan),
        (gre::PROTOCOL, _) => listed.has(Tunnel::Gre),
        (ipv4::PROTOCOL, Version::V4) => listed.has(Tunnel::IpInIp),
        (ipv6::PROTOCOL, Version::V4) => listed.has(Tunnel::SixInFour),
        (ipv4::PROTOCOL, Version::V6) => listed.has(Tunnel::FourInSix),
        (ipv6::PROTOCOL, Version::V6) => listed.has(Tunnel::SixInSix),
        // A later fragment, whose first one has the rest of the chain: RFC 2473 puts an option in front of the inner packet.
        (_, Version::V6) => ipv6::is_extension(protocol),
        _ => false,
    }
}

/// The addresses of the IP header at the position; see [`minimizer_common::tuple::Tuple::addresses`].
#[inline(always)]
pub fn addresses(cursor: &mut Cursor<impl Frame>, version: Version) -> Option<[u64; 4]> {
    match version {
        Version::V4 => Some([cursor.pass::<ipv4::Ipv4Header>()?.copy().addresses(), 0, 0, 0]),
        Version::V6 => Some(cursor.pass::<ipv6::Ipv6Header>()?.copy().addresses()),
    }
}

/// The tunnel of `listed` that begins at the position behind the headers of a whole packet, if any.
#[inline(always)]
fn inside(
    cursor: &Cursor<impl Frame>,
    version: Version,
    packet: &Packet,
    transport_octets: u32,
    listed: Tunnels,
) -> Option<Inside> {
    let (tunnel, header_octets) = match (packet.protocol, version) {
        // The verifier learns nothing about the port from a comparison of this copy.
        (udp::PROTOCOL, _) => match untraced(packet.ports.1.into()) as u16 {
            gtp_u::PORT => (Tunnel::GtpU, udp::HEADER_OCTETS),
            vxlan::PORT => (Tunnel::Vxlan, udp::HEADER_OCTETS),
            _ => return None,
        },
        (gre::PROTOCOL, _) => (Tunnel::Gre, 0),
        (ipv4::PROTOCOL, Version::V4) => (Tunnel::IpInIp, 0),
        (ipv6::PROTOCOL, Version::V4) => (Tunnel::SixInFour, 0),
        (ipv4::PROTOCOL, Version::V6) => (Tunnel::FourInSix, 0),
        (ipv6::PROTOCOL, Version::V6) => (Tunnel::SixInSix, 0),
        _ => return None,
    };
    let octets = transport_octets - header_octets;
    if listed.has(tunnel) { Some(Inside { tunnel, offset: cursor.position(), octets }) } else { None }
}

/// Reads a tunnel's header and everything before the inner IP header.
///
/// # Errors
/// Why there is no inner packet. `NonIp` means that the tunnel carries something else; the program then
/// counts the outer packet.
#[inline(always)]
fn walk_tunnel(cursor: &mut Cursor<Within<impl Frame>>, tunnel: Tunnel) -> Result<Version, Stop> {
    let content = match tunnel {
        Tunnel::GtpU => match gtp_u::read(cursor)? {
            ipv4::VERSION => ipv4::ETHER_TYPE,
            ipv6::VERSION => ipv6::ETHER_TYPE,
            _ => return Err(Stop::Found(Outcome::NonIp)),
        },
        Tunnel::Vxlan => vxlan::read(cursor).map(|()| gre::ETHERNET)?,
        Tunnel::Gre => gre::read(cursor)?,
        Tunnel::IpInIp | Tunnel::FourInSix => ipv4::ETHER_TYPE,
        Tunnel::SixInFour | Tunnel::SixInSix => ipv6::ETHER_TYPE,
    };
    let version = match content {
        ipv4::ETHER_TYPE => Version::V4,
        ipv6::ETHER_TYPE => Version::V6,
        // A record has the VLAN identifiers of the frame on the wire.
        gre::ETHERNET => walk_link(cursor).map(|(_, version)| version)?,
        _ => return Err(Stop::Found(Outcome::NonIp)),
    };
    cursor.settle();
    Ok(version)
}

/// The parts of a transport header that the walk keeps.
struct Transport {
    ports: (u16, u16),
    control_bits: u16,
}

impl Transport {
    /// A transport header without control bits. Their zeroes are unknown to the verifier, so that all
    /// transport headers look alike to it from here on.
    #[inline(always)]
    fn without_control_bits(ports: (u16, u16)) -> Self {
        Self { ports, control_bits: untraced(0) as u16 & tcp::CONTROL_BITS }
    }

    /// A transport header without ports. `instead` takes their place.
    #[inline(always)]
    fn without_ports(instead: (u16, u16)) -> Self {
        let unknown = |number: u16| untraced(number.into()) as u16;
        Self::without_control_bits((unknown(instead.0), unknown(instead.1)))
    }
}

/// Reads the transport header if it lies within the remaining `octets` of the IP packet. Otherwise the packet
/// has ports 0 and no control bits. `None` when the header is not in this buffer.
#[inline(always)]
fn walk_transport(cursor: &mut Cursor<impl Frame>, protocol: u8, octets: u32) -> Option<Transport> {
    let ports = match protocol {
        tcp::PROTOCOL if octets >= tcp::HEADER_OCTETS => {
            let (ports, control_bits) = tcp::read(cursor)?;
            return Some(Transport { ports, control_bits });
        }
        udp::PROTOCOL | udp::LITE_PROTOCOL if octets >= udp::HEADER_OCTETS => udp::read(cursor)?,
        sctp::PROTOCOL if octets >= sctp::HEADER_OCTETS => sctp::read(cursor)?,
        dccp::PROTOCOL if octets >= dccp::HEADER_OCTETS => dccp::read(cursor)?,
        icmp::PROTOCOL | icmp::V6_PROTOCOL if octets >= icmp::HEADER_OCTETS => {
            return Some(Transport::without_ports(icmp::read(cursor)?));
        }
        _ => return Some(Transport::without_ports((0, 0))),
    };
    Some(Transport::without_control_bits(ports))
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;
    use minimizer_common::tunnel::{Tunnel, Tunnels};

    use super::walk;
    use crate::parser::cursor::Cursor;
    use crate::parser::frames::{IPV4, IPV6, carried, ethernet, ipv4, ipv6, udp, walk_listed};

    #[test]
    fn ip_in_ip_in_all_four_ways() {
        let six = ipv6(17, &udp(2000, &[]));
        for (outer, protocol, inner, is_ipv6, tunnel) in [
            (ethernet(IPV4, &ipv4(4, &carried())), 4, (1000, 2000), false, Tunnel::IpInIp),
            (ethernet(IPV4, &ipv4(41, &six)), 41, (5000, 2000), true, Tunnel::SixInFour),
            (ethernet(IPV6, &ipv6(4, &carried())), 4, (1000, 2000), false, Tunnel::FourInSix),
            (ethernet(IPV6, &ipv6(41, &six)), 41, (5000, 2000), true, Tunnel::SixInSix),
        ] {
            let walked = walk_listed(&outer).expect("is counted");
            assert_eq!((walked.ports, walked.protocol, walked.tags.is_ipv6()), (inner, 17, is_ipv6));
            // The walk enters this tunnel and no other.
            for listed in Tunnel::ALL {
                let set = Tunnels::NONE.with(*listed);
                let walked = walk(&mut Cursor::over(outer.as_slice()), set).expect("is counted");
                assert_eq!(walked.protocol == protocol, *listed != tunnel, "{listed:?}");
            }
        }
    }

    #[test]
    fn the_other_version_inside_is_malformed() {
        assert_eq!(walk_listed(&ethernet(IPV4, &ipv4(41, &carried()))), Err(Outcome::Ipv6Truncated));
        let long = ipv4(17, &udp(2000, &[0; 40]));
        assert_eq!(walk_listed(&ethernet(IPV4, &ipv4(41, &long))), Err(Outcome::Ipv6Version));
        let six = ipv6(17, &udp(2000, &[]));
        assert_eq!(walk_listed(&ethernet(IPV4, &ipv4(4, &six))), Err(Outcome::Ipv4Version));
    }

    #[test]
    fn an_inner_packet_ends_where_the_outer_one_ends() {
        let whole = ipv4(4, &carried());
        for octets in 0..carried().len() {
            let cut = ipv4(4, &carried()[..octets]);
            let padded = [&cut[..], &carried()[octets..]].concat();
            let expected = if octets < 20 { Outcome::Ipv4Truncated } else { Outcome::Ipv4TotalLength };
            assert_eq!(walk_listed(&ethernet(IPV4, &padded)), Err(expected), "{octets} octets");
        }
        assert!(walk_listed(&ethernet(IPV4, &whole)).is_ok());
    }

    #[test]
    fn one_level_only() {
        let twice = ipv4(4, &ipv4(4, &carried()));
        let walked = walk_listed(&ethernet(IPV4, &twice)).expect("is counted");
        assert_eq!((walked.protocol, walked.ports, walked.length_octets), (4, (0, 0), 52));
    }
}
