//! VXLAN (RFC 7348).

use minimizer_common::outcome::Outcome;

use crate::parser::cursor::{Cursor, Frame, Header, Stop, Within};

/// UDP destination port.
pub(crate) const PORT: u16 = 4789;

/// The I flag: the network identifier is valid. A header without it is not VXLAN.
const IDENTIFIER_VALID: u8 = 0x08;

#[derive(Clone, Copy)]
#[repr(C)]
struct VxlanHeader {
    flags: u8,
    reserved: [u8; 3],
    network_identifier: [u8; 3],
    reserved_too: u8,
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for VxlanHeader {}

/// Reads the header in front of an Ethernet frame. The error is `NonIp` when the header is not VXLAN.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<Within<impl Frame>>) -> Result<(), Stop> {
    match cursor.read::<VxlanHeader>() {
        Some(header) if header.flags & IDENTIFIER_VALID != 0 => Ok(()),
        Some(_) => Err(Stop::Found(Outcome::NonIp)),
        None => Err(Stop::Ended(Outcome::VxlanTruncated)),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use minimizer_common::outcome::Outcome;

    use super::PORT;
    use crate::parser::frames::{IPV4, IPV6, carried, ethernet, ipv4, ipv6, udp, walk, walk_listed};

    fn frame(flags: u8, content: &[u8]) -> Vec<u8> {
        ethernet(IPV4, &ipv4(17, &udp(PORT, &[&[flags, 1, 2, 3, 0, 0, 9, 4], content].concat())))
    }

    #[test]
    fn the_packet_in_the_inner_frame() {
        for flags in [0x08, 0x0c, 0x88, 0xff] {
            let walked = walk_listed(&frame(flags, &ethernet(IPV4, &carried()))).expect("is counted");
            assert_eq!((walked.ports, walked.length_octets), ((1000, 2000), 32));
            let walked = walk_listed(&frame(flags, &ethernet(IPV6, &ipv6(17, &udp(2000, &[])))));
            assert_eq!(walked.map(|packet| (packet.ports, packet.tags.is_ipv6())), Ok(((5000, 2000), true)));
        }
    }

    #[test]
    fn vlan_identifiers_are_those_of_the_outer_frame() {
        let inner = ethernet(0x8100, &[&[0, 7, 0x08, 0x00], &carried()[..]].concat());
        let outer = frame(8, &inner);
        let tagged = [&outer[..12], &[0x88, 0xa8, 0, 100], &outer[12..]].concat();
        for (frame, vlan_id) in [(outer, None), (tagged, Some(100))] {
            let walked = walk_listed(&frame).expect("is counted");
            assert_eq!((walked.tags.vlan_id(), walked.tags.customer_vlan_id()), (vlan_id, None));
            assert_eq!(walked.ports, (1000, 2000));
        }
    }

    #[test]
    fn truncation_at_every_length() {
        let whole = [&[8, 0, 0, 0, 0, 0, 9, 0], &ethernet(IPV4, &carried())[..]].concat();
        for octets in 0..whole.len() {
            let cut = ethernet(IPV4, &ipv4(17, &udp(PORT, &whole[..octets])));
            let expected = match octets {
                0..8 => Outcome::VxlanTruncated,
                8..22 => Outcome::EthernetTruncated,
                22..42 => Outcome::Ipv4Truncated,
                _ => Outcome::Ipv4TotalLength,
            };
            assert_eq!(walk_listed(&cut), Err(expected), "{octets} octets");
            // The octets behind the outer packet are padding.
            assert_eq!(walk_listed(&[&cut[..], &whole[octets..]].concat()), Err(expected), "{octets} octets");
        }
    }

    #[test]
    fn what_is_no_ip_counts_as_its_outer_packet() {
        for flags in [0x00, 0xf7, 0x04] {
            let frame = frame(flags, &ethernet(IPV4, &carried()));
            assert_eq!(walk_listed(&frame), walk(&frame), "flags {flags:#04x}");
        }
        for ether_type in [0x0806, 0x0026, 0x88cc] {
            let frame = frame(8, &ethernet(ether_type, &carried()));
            assert_eq!(walk_listed(&frame), walk(&frame), "type {ether_type:#06x}");
        }
    }
}
