//! GRE (RFC 2784) with key and sequence number (RFC 2890).

use minimizer_common::outcome::Outcome;

use crate::parser::cursor::{Cursor, Frame, Header, Stop, Within};

/// Protocol number.
pub(crate) const PROTOCOL: u8 = 47;
/// Protocol type of a whole Ethernet frame (transparent Ethernet bridging).
pub(crate) const ETHERNET: u16 = 0x6558;

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE_NUMBER: u16 = 0x1000;
const VERSION: u16 = 0x0007;
/// Octets of each option: checksum, key and sequence number.
const OPTION_OCTETS: u32 = 4;

#[derive(Clone, Copy)]
#[repr(C)]
struct GreHeader {
    flags_version: [u8; 2],
    protocol_type: [u8; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for GreHeader {}

/// Reads the header, advances behind its options and returns the type of the content. The error is `NonIp`
/// for another version, such as that of PPTP.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<Within<impl Frame>>) -> Result<u16, Stop> {
    let Some(header) = cursor.read::<GreHeader>() else {
        return Err(Stop::Ended(Outcome::GreTruncated));
    };
    let flags = u16::from_be_bytes(header.flags_version);
    if flags & VERSION != 0 {
        return Err(Stop::Found(Outcome::NonIp));
    }
    if flags & ROUTING != 0 {
        return Err(Stop::Found(Outcome::GreRouting));
    }
    let options_octets = [CHECKSUM, KEY, SEQUENCE_NUMBER]
        .map(|flag| if flags & flag == 0 { 0 } else { OPTION_OCTETS })
        .iter()
        .sum::<u32>();
    if !cursor.holds(options_octets) {
        return Err(Stop::Found(Outcome::GreTruncated));
    }
    cursor.skip(options_octets);
    Ok(u16::from_be_bytes(header.protocol_type))
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use minimizer_common::outcome::Outcome;

    use crate::parser::frames::{
        IPV4, IPV6, carried, check_tunnel, ethernet, ipv4, ipv6, udp, walk, walk_listed,
    };

    fn packet(flags_version: u16, protocol_type: u16, options: usize, content: &[u8]) -> Vec<u8> {
        let header = [flags_version.to_be_bytes(), protocol_type.to_be_bytes()].concat();
        [&header[..], &vec![0xee; options * 4], content].concat()
    }

    #[test]
    fn options_in_every_combination() {
        for (flags, options) in [
            (0, 0),
            (0x8000, 1),
            (0x2000, 1),
            (0x1000, 1),
            (0xa000, 2),
            (0x9000, 2),
            (0x3000, 2),
            (0xb000, 3),
        ] {
            let content = packet(flags, IPV4, options, &carried());
            let reasons = [Outcome::GreTruncated];
            check_tunnel(super::PROTOCOL, &content, 4 + options * 4, &reasons);
            let six = packet(flags, IPV6, options, &ipv6(17, &udp(2000, &[])));
            let walked = walk_listed(&ethernet(IPV4, &ipv4(super::PROTOCOL, &six))).expect("is counted");
            assert_eq!((walked.ports, walked.tags.is_ipv6()), ((5000, 2000), true));
            let bridged = packet(flags, super::ETHERNET, options, &ethernet(IPV4, &carried()));
            let reasons = [Outcome::GreTruncated, Outcome::EthernetTruncated];
            check_tunnel(super::PROTOCOL, &bridged, 4 + options * 4 + 14, &reasons);
        }
    }

    #[test]
    fn source_routes_are_unsupported() {
        for flags in [0x4000, 0xc000, 0x7000] {
            let content = packet(flags, IPV4, 3, &carried());
            assert_eq!(
                walk_listed(&ethernet(IPV4, &ipv4(super::PROTOCOL, &content))),
                Err(Outcome::GreRouting)
            );
        }
    }

    #[test]
    fn other_versions_and_contents_count_as_their_outer_packet() {
        let others = (1..8).map(|version| (version, IPV4)).chain([(0x3001, 0x880b)]);
        for (flags_version, protocol_type) in others.chain([(0, 0x880b), (0, 0), (0, 0x88be), (0, 0x8847)]) {
            let content = packet(flags_version, protocol_type, 3, &carried());
            let frame = ethernet(IPV4, &ipv4(super::PROTOCOL, &content));
            assert_eq!(walk_listed(&frame), walk(&frame), "{flags_version:#06x} {protocol_type:#06x}");
        }
        let arp = packet(0, super::ETHERNET, 0, &ethernet(0x0806, &[0; 28]));
        let frame = ethernet(IPV4, &ipv4(super::PROTOCOL, &arp));
        assert_eq!(walk_listed(&frame), walk(&frame));
    }
}
