//! Frames made by hand for the tests of the rooms, and the checks that every transport and tunnel room must
//! pass.

use std::vec::Vec;

use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::{Tunnel, Tunnels};

use crate::parser::common::{self, Link, TAGGED, Transport, UNTAGGED, Vlan};
use crate::parser::cursor::{Cursor, Frame, Split};
use crate::parser::walk::{self, Packet, Version};

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
const FRAGMENT: u8 = 44;

/// Walks a frame. Every test that does so shows that the short way finds the same or nothing.
pub(crate) fn walk(frame: &[u8]) -> Result<Packet, Outcome> {
    walk_with(frame, Tunnels::NONE)
}

/// Walks a frame with every tunnel listed.
pub(crate) fn walk_listed(frame: &[u8]) -> Result<Packet, Outcome> {
    walk_with(frame, Tunnels::ALL)
}

/// Walks a frame. The short way must find the same or nothing.
pub(crate) fn walk_with(frame: impl Frame + Copy, tunnels: Tunnels) -> Result<Packet, Outcome> {
    let mut cursor = Cursor::over(frame);
    let walked = walk::walk(&mut cursor, tunnels);
    if let Some(short) = common::<false>(&frame) {
        let found = (walked, cursor.known_octets());
        if tunnels.is_empty() || !short.transport.may_be_tunnel() {
            assert_eq!((Ok(short.packet), short.octets), found, "the short way");
        }
        if let Some(packet) = short.in_gtp_u.filter(|_| tunnels.has(Tunnel::GtpU)) {
            assert_eq!((Ok(packet), short.octets), found, "the short way into a tunnel");
        }
    }
    walked
}

/// What the short way finds.
#[derive(Clone, Copy)]
pub(crate) struct Short {
    /// Octets of the frame.
    pub octets: u32,
    pub packet: Packet,
    pub transport: Transport,
    /// The packet in GTP-U.
    pub in_gtp_u: Option<Packet>,
}

pub(crate) fn common<const EXACT: bool>(frame: &impl Frame) -> Option<Short> {
    let Link { version, vlan } = common::link(frame)?;
    match vlan {
        None => common_behind::<EXACT, UNTAGGED>(frame, version, Vlan::NONE),
        Some(vlan) => common_behind::<EXACT, TAGGED>(frame, version, vlan),
    }
}

fn common_behind<const EXACT: bool, const LINK: usize>(
    frame: &impl Frame,
    version: Version,
    vlan: Vlan,
) -> Option<Short> {
    if version == Version::V6 {
        let found = common::ipv6::<EXACT, LINK>(frame, vlan)?;
        let (octets, packet, transport) = (found.frame_octets, found.packet(), found.transport);
        return Some(Short { octets, packet, transport, in_gtp_u: None });
    }
    let found = common::ipv4::<EXACT, LINK>(frame, vlan)?;
    let inner =
        found.transport.may_be_gtp_u().then(|| common::ipv4_in_gtp_u::<EXACT, LINK>(frame, &found)).flatten();
    let (octets, packet, transport) = (found.frame_octets, found.packet(), found.transport);
    Some(Short { octets, packet, transport, in_gtp_u: inner.map(|inner| inner.packet()) })
}

/// A UDP datagram to a port.
pub(crate) fn udp(port: u16, content: &[u8]) -> Vec<u8> {
    [&[0x13, 0x88], &port.to_be_bytes()[..], &[0, 8, 0, 0], content].concat()
}

/// Checks that every tunnel room must pass. With the tunnel listed the inner packet counts, without it the
/// outer packet. An outer packet that ends inside the tunnel's header has one of `reasons`; a first buffer that
/// ends there gives `HeaderNotLinear`. An outer packet that ends later is malformed or counts itself. The room
/// never reads padding. A fragment counts as the outer packet.
pub(crate) fn check_tunnel(protocol: u8, content: &[u8], header_octets: usize, reasons: &[Outcome]) {
    let inner = walk_listed(&ethernet(IPV4, &ipv4(protocol, content))).expect("is counted");
    assert_eq!((inner.ports, inner.protocol), ((1000, 2000), 17), "the inner packet's");
    let walk_outer = |frame: &[u8]| walk(frame).expect("is counted");
    for (ether_type, packet) in [(IPV4, ipv4 as fn(u8, &[u8]) -> Vec<u8>), (IPV6, ipv6)] {
        let frame = ethernet(ether_type, &packet(protocol, content));
        assert_eq!(walk_listed(&frame), Ok(inner));
        assert_eq!(walk_outer(&frame).protocol, protocol, "not listed");
        let start = frame.len() - content.len();
        for octets in 0..content.len() {
            // The outer packet ends early; the rest follows as padding.
            let cut = ethernet(ether_type, &packet(protocol, &content[..octets]));
            let padded = [&cut[..], &content[octets..]].concat();
            let found = walk_listed(&cut);
            assert_eq!(found, walk_listed(&padded), "{octets} octets");
            if octets < header_octets {
                assert!(matches!(found, Err(reason) if reasons.contains(&reason)), "{octets}: {found:?}");
            } else {
                let is_malformed = matches!(found, Err(reason) if reason.name() == "malformed");
                assert!(is_malformed || found == Ok(walk_outer(&cut)), "{octets} octets: {found:?}");
            }
            // The first buffer ends early. The rooms of the inner headers check those themselves.
            if octets < header_octets {
                let octets_in_frame = u32::try_from(frame.len()).expect("fits");
                let split = Split { first: &frame[..start + octets], octets: octets_in_frame };
                let found = walk_with(split, Tunnels::ALL).map(drop);
                assert_eq!(found, Err(Outcome::HeaderNotLinear), "{octets} octets");
            }
        }
    }
    for flags_offset in [0x2000, 0x2001, 0x0001] {
        let frame = ethernet(IPV4, &ipv4_fragment(protocol, flags_offset, content));
        assert_eq!(walk_listed(&frame), Ok(walk_outer(&frame)), "fragment {flags_offset:#06x}");
    }
    for specific in [[0, 1], [0, 8], [0, 9]] {
        let fragment = [&[protocol, 0, specific[0], specific[1], 0, 0, 0, 9], content].concat();
        let frame = ethernet(IPV6, &ipv6(FRAGMENT, &fragment));
        assert_eq!(walk_listed(&frame), Ok(walk_outer(&frame)), "fragment {specific:?}");
    }
}

/// The packet inside the tunnels of [`check_tunnel`].
pub(crate) fn carried() -> Vec<u8> {
    ipv4(17, &[0x03, 0xe8, 0x07, 0xd0, 0, 8, 0, 0, 1, 2, 3, 4])
}

pub(crate) fn ethernet(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ether_type.to_be_bytes()[..], rest].concat()
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2 that ends where `rest` ends.
pub(crate) fn ipv4(protocol: u8, rest: &[u8]) -> Vec<u8> {
    ipv4_fragment(protocol, 0, rest)
}

/// The same packet, with the flags and the offset of a fragment.
pub(crate) fn ipv4_fragment(protocol: u8, flags_offset: u16, rest: &[u8]) -> Vec<u8> {
    let total_length = u16::try_from(20 + rest.len()).expect("fits");
    let [length_high, length_low] = total_length.to_be_bytes();
    let [offset_high, offset_low] = flags_offset.to_be_bytes();
    let start = [0x45, 0x2e, length_high, length_low, 0, 1, offset_high, offset_low, 64, protocol, 0, 0];
    [&start, &[10, 0, 0, 1, 10, 0, 0, 2][..], rest].concat()
}

/// An IPv6 packet from 2001:db8::1 to 2001:db8::2 with traffic class 0x2e. It ends where `rest` ends.
pub(crate) fn ipv6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let [length_high, length_low] = u16::try_from(rest.len()).expect("fits").to_be_bytes();
    let mut source = [0; 16];
    source[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let mut destination = source;
    source[15] = 1;
    destination[15] = 2;
    let start = [0x62, 0xe1, 0x23, 0x45, length_high, length_low, next_header, 64];
    [&start, &source[..], &destination, rest].concat()
}

/// Checks that every transport room must pass. The room reads `ports` and `control_bits` from `header` if the
/// first `needed` octets lie inside both the frame and the IP packet. Otherwise it reads nothing.
pub(crate) fn check_transport(
    protocol: u8,
    header: &[u8],
    needed: usize,
    ports: (u16, u16),
    control_bits: u16,
) {
    assert!(header.len() >= needed && ports != (0, 0));
    let padding = [0xee; 46];
    let expect = |frame: &[u8], expected: ((u16, u16), u16)| {
        let walked = walk(frame).expect("is counted");
        assert_eq!((walked.protocol, walked.ports, walked.control_bits), (protocol, expected.0, expected.1));
    };
    let (read, unread) = ((ports, control_bits), ((0, 0), 0));
    for octets in 0..=header.len() {
        let expected = if octets >= needed { read } else { unread };
        let cut = &header[..octets];
        for frame in [ethernet(IPV4, &ipv4(protocol, cut)), ethernet(IPV6, &ipv6(protocol, cut))] {
            expect(&frame, expected);
            // Ethernet padding is no header.
            expect(&[&frame[..], &padding].concat(), expected);
            expect(&[&frame[..], &header[octets..]].concat(), expected);
        }
        // The first fragment has the header, up to where the fragment ends.
        expect(&ethernet(IPV4, &ipv4_fragment(protocol, 0x2000, cut)), expected);
        expect(&ethernet(IPV6, &ipv6(FRAGMENT, &[&[protocol, 0, 0, 1, 0, 0, 0, 9], cut].concat())), expected);
    }
    // In a later fragment these octets are payload.
    for offset in [1, 185, 0x1fff] {
        expect(&ethernet(IPV4, &ipv4_fragment(protocol, offset, header)), unread);
        let [high, low] = (offset << 3).to_be_bytes();
        let fragment = [protocol, 0, high, low, 0, 0, 0, 9];
        expect(&ethernet(IPV6, &ipv6(FRAGMENT, &[&fragment, header].concat())), unread);
    }
    // A header that continues in a further buffer is not read, and not treated as absent.
    let frame = ethernet(IPV4, &ipv4(protocol, header));
    for octets in 34..=frame.len() {
        let expected = if octets - 34 < needed { Err(Outcome::HeaderNotLinear) } else { Ok(ports) };
        assert_eq!(walk_split(&frame, octets).map(|packet| packet.ports), expected, "{octets} octets");
    }
    // Octets behind the header do not matter.
    for payload in [0, 0xff] {
        let mut octets = header.to_vec();
        octets[needed..].fill(payload);
        octets.extend([payload; 80]);
        expect(&ethernet(IPV4, &ipv4(protocol, &octets)), read);
        expect(&ethernet(IPV6, &ipv6(protocol, &octets)), read);
    }
}

/// Walks a frame whose first buffer holds only the first `linear` octets.
pub(crate) fn walk_split(frame: &[u8], linear: usize) -> Result<Packet, Outcome> {
    let octets = u32::try_from(frame.len()).expect("fits");
    walk_with(Split { first: &frame[..linear], octets }, Tunnels::NONE)
}
