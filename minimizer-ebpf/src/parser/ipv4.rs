//! IPv4 (RFC 791): addresses, protocol, type of service, lengths, and whether a transport header follows.

use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header, Stop};

/// EtherType.
pub(crate) const ETHER_TYPE: u16 = 0x0800;
/// Protocol number of an IPv4 packet inside an outer packet.
pub(crate) const PROTOCOL: u8 = 4;
/// Version field, and first nibble below an MPLS stack.
pub(crate) const VERSION: u8 = 4;

/// Octets of the header without options.
pub(crate) const HEADER_OCTETS: u32 = size_of::<Ipv4Header>() as u32;
/// The 13 bits of the fragment offset.
const FRAGMENT_OFFSET: u16 = 0x1fff;
const MORE_FRAGMENTS: u16 = 0x2000;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;
/// The bits that are zero in a packet that is no fragment.
pub(crate) const FRAGMENT: u16 = FRAGMENT_OFFSET | MORE_FRAGMENTS;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ipv4Header {
    pub version_header_length: u8,
    pub type_of_service: u8,
    pub total_length: [u8; 2],
    identification: [u8; 2],
    pub flags_fragment_offset: [u8; 2],
    time_to_live: u8,
    pub protocol: u8,
    checksum: [u8; 2],
    /// Source and destination.
    addresses: [u8; 8],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for Ipv4Header {}

impl Ipv4Header {
    /// Source in the lower half, destination in the upper half, as they lie on the wire.
    #[inline(always)]
    pub(crate) const fn addresses(&self) -> u64 {
        u64::from_le_bytes(self.addresses)
    }
}

/// The parts of an IPv4 header that the walk keeps.
pub(crate) struct Ipv4 {
    /// Source in the lower half, destination in the upper half, as they lie on the wire.
    pub addresses: u64,
    pub protocol: u8,
    pub type_of_service: u8,
    /// IP length that the header declares.
    pub length_octets: u32,
    /// Octets behind the header in which a transport header may lie; 0 in a non-first fragment.
    pub transport_octets: u32,
    /// Whether the packet is whole: not a fragment.
    pub is_whole: bool,
}

/// Reads the header and advances behind its options.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Result<Ipv4, Stop> {
    let Some(passed) = cursor.pass::<Ipv4Header>() else {
        return Err(Stop::Ended(Outcome::Ipv4Truncated));
    };
    let header = passed.copy();
    let addresses = if cursor.omits(Steps::NO_IPV4) { 0 } else { passed.copy().addresses() };
    let type_of_service =
        if cursor.omits(Steps::NO_TRAFFIC_CLASS) { 0 } else { passed.copy().type_of_service };
    if header.version_header_length >> 4 != VERSION {
        return Err(Stop::Found(Outcome::Ipv4Version));
    }
    let header_octets = u32::from(header.version_header_length & 0x0f) * 4;
    if header_octets < HEADER_OCTETS {
        return Err(Stop::Found(Outcome::Ipv4HeaderLength));
    }
    let total_length = u32::from(u16::from_be_bytes(header.total_length));
    if total_length < header_octets || !cursor.holds(total_length - HEADER_OCTETS) {
        return Err(Stop::Found(Outcome::Ipv4TotalLength));
    }
    if header_octets != HEADER_OCTETS
        && cursor.has_scope()
        && may_have_source_route(cursor, header_octets - HEADER_OCTETS)
    {
        return Err(Stop::Found(Outcome::OutOfScope));
    }
    cursor.skip(header_octets - HEADER_OCTETS);
    let fragment = u16::from_be_bytes(header.flags_fragment_offset);
    let is_first = fragment & FRAGMENT_OFFSET == 0;
    Ok(Ipv4 {
        addresses,
        protocol: header.protocol,
        type_of_service,
        length_octets: total_length,
        transport_octets: if is_first { total_length - header_octets } else { 0 },
        is_whole: fragment & FRAGMENT == 0,
    })
}

/// Whether the options, of so many octets from the position on, may have a source route (RFC 791). This reads the first four: those of a
/// router alert (RFC 2113) are no more. A loop over all options would be walked by a verifier of older kernels once for each way through it.
#[inline(always)]
fn may_have_source_route(cursor: &mut Cursor<impl Frame>, octets: u32) -> bool {
    let Some([first, second, ..]) = cursor.peek::<[u8; 4]>() else { return true };
    let is_route = |kind: u8| kind == LOOSE_SOURCE_ROUTE || kind == STRICT_SOURCE_ROUTE;
    // The shortest source route has three octets.
    octets != 4 || is_route(first) || is_route(second)
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;
    use minimizer_common::tuple::{Tags, Tuple};
    use std::vec;
    use std::vec::Vec;

    use crate::parser::frames::{IPV4, ethernet, ipv4, ipv4_fragment, walk, walk_split};

    const UDP: [u8; 8] = [0x13, 0x88, 0x00, 0x35, 0, 8, 0, 0];

    /// The packet with one octet of its header replaced.
    fn with(at: usize, octet: u8) -> Vec<u8> {
        let mut packet = ipv4(17, &UDP);
        packet[at] = octet;
        ethernet(IPV4, &packet)
    }

    #[test]
    fn the_parts_of_a_tuple() {
        let walked = walk(&ethernet(IPV4, &ipv4(17, &UDP))).expect("is counted");
        assert_eq!((walked.ports, walked.protocol, walked.traffic_class), ((5000, 53), 17, 0x2e));
        assert_eq!((walked.control_bits, walked.length_octets), (0, 28));
        assert_eq!(walked.tags, Tags::NONE);
        let tuple = Tuple::new(walked.addresses, walked.ports, walked.tags, 17, 0);
        assert_eq!(tuple.ipv4(), ([10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!(walked.addresses[1..], [0; 3]);
    }

    #[test]
    fn truncation_at_every_length() {
        let frame = ethernet(IPV4, &ipv4(17, &UDP));
        for length in 14..frame.len() {
            let reason = if length < 34 { Outcome::Ipv4Truncated } else { Outcome::Ipv4TotalLength };
            assert_eq!(walk(&frame[..length]), Err(reason), "{length} octets");
            assert_eq!(
                walk_split(&frame, length).map(drop),
                Err(Outcome::HeaderNotLinear),
                "{length} octets"
            );
        }
        assert!(walk(&frame).is_ok());
    }

    #[test]
    fn other_versions_are_malformed() {
        for version in (0..16).filter(|version| *version != 4) {
            assert_eq!(walk(&with(0, version << 4 | 5)), Err(Outcome::Ipv4Version), "{version}");
        }
    }

    #[test]
    fn header_lengths_below_the_fixed_header_are_malformed() {
        for words in 0..5 {
            assert_eq!(walk(&with(0, 0x40 | words)), Err(Outcome::Ipv4HeaderLength), "{words} words");
        }
    }

    #[test]
    fn options_are_passed_over() {
        for words in 5..=15_u8 {
            let options = vec![0x94; usize::from(words - 5) * 4];
            let mut packet = ipv4(17, &[&options[..], &UDP].concat());
            packet[0] = 0x40 | words;
            let walked = walk(&ethernet(IPV4, &packet)).expect("is counted");
            assert_eq!((walked.ports, walked.length_octets), ((5000, 53), u32::from(words) * 4 + 8));
            // A header longer than the packet.
            let end = usize::from(words) * 4 - 1;
            packet[3] = u8::try_from(end).expect("fits");
            assert_eq!(walk(&ethernet(IPV4, &packet)), Err(Outcome::Ipv4TotalLength), "{words} words");
        }
    }

    #[test]
    fn total_length_between_header_and_frame() {
        let expected = |length: u16| match length {
            20..28 => Ok((0, 0)),
            28 => Ok((5000, 53)),
            _ => Err(Outcome::Ipv4TotalLength),
        };
        for length in (0..=40_u16).chain([1500, 0xff00, 0xffff]) {
            let mut packet = ipv4(17, &UDP);
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            let walked = walk(&ethernet(IPV4, &packet));
            assert_eq!(walked.map(|packet| packet.ports), expected(length), "{length}");
            if let Ok(packet) = walked {
                assert_eq!(packet.length_octets, u32::from(length));
            }
        }
    }

    #[test]
    fn only_the_offset_makes_a_later_fragment() {
        // Reserved bit, don't-fragment, more-fragments: the transport header is there.
        for flags in [0x8000, 0x4000, 0x2000, 0xe000] {
            let walked = walk(&ethernet(IPV4, &ipv4_fragment(17, flags, &UDP)));
            assert_eq!(walked.map(|packet| packet.ports), Ok((5000, 53)), "{flags:#06x}");
        }
        for bit in 0..13 {
            let walked = walk(&ethernet(IPV4, &ipv4_fragment(17, 1 << bit, &UDP))).expect("is counted");
            assert_eq!((walked.ports, walked.protocol, walked.length_octets), ((0, 0), 17, 28), "bit {bit}");
        }
    }

    #[test]
    fn extension_headers_of_ipv6_are_protocols_here() {
        for protocol in [0, 43, 44, 51, 60, 135, 139, 140] {
            let walked =
                walk(&ethernet(IPV4, &ipv4(protocol, &[17, 0, 0, 0, 0, 0, 0, 0]))).expect("is counted");
            assert_eq!((walked.protocol, walked.ports), (protocol, (0, 0)));
        }
    }

    #[test]
    fn an_inner_packet_is_payload() {
        for protocol in [4, 41, 47] {
            let walked = walk(&ethernet(IPV4, &ipv4(protocol, &ipv4(17, &UDP)))).expect("is counted");
            assert_eq!((walked.protocol, walked.ports, walked.length_octets), (protocol, (0, 0), 48));
        }
    }
}
