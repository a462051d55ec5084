//! IPv6 (RFC 8200) with its extension headers and jumbograms (RFC 2675).

use minimizer_common::outcome::Outcome;
use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header, Stop};

/// EtherType.
pub(crate) const ETHER_TYPE: u16 = 0x86dd;
/// Protocol number of an IPv6 packet inside an outer packet.
pub(crate) const PROTOCOL: u8 = 41;
/// Version field, and first nibble below an MPLS stack.
pub(crate) const VERSION: u8 = 6;
/// The most extension headers in one packet.
pub(crate) const EXTENSION_HEADERS_MAX: usize = 8;

/// Octets of the fixed header.
pub(crate) const HEADER_OCTETS: u32 = size_of::<Ipv6Header>() as u32;
/// Octets of the shortest extension header.
const EXTENSION_OCTETS_MIN: u32 = size_of::<ExtensionHeader>() as u32;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// How the length field of an extension header gives its length.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extension {
    /// The bits of the length field that count.
    length_mask: u8,
    /// Units to add to the length field; 0 for a protocol that is not an extension header.
    units: u8,
    /// Octets in a unit, as a power of two.
    unit_shift: u8,
    /// Whether it is the fragment header.
    is_fragment: u8,
}

/// Extension headers by protocol number. A table, because each comparison would be a branch that the verifier
/// follows for each of the headers in turn.
static EXTENSIONS: [Extension; 256] = {
    let none = Extension { length_mask: 0, units: 0, unit_shift: 0, is_fragment: 0 };
    // RFC 8200: length in units of 8 octets, not counting the first.
    let plain = Extension { length_mask: 0xff, units: 1, unit_shift: 3, is_fragment: 0 };
    let mut table = [none; 256];
    table[HOP_BY_HOP as usize] = plain;
    table[ROUTING as usize] = plain;
    table[DESTINATION_OPTIONS as usize] = plain;
    table[MOBILITY as usize] = plain;
    table[HIP as usize] = plain;
    table[SHIM6 as usize] = plain;
    // RFC 8200: 8 octets, the length field is reserved.
    table[FRAGMENT as usize] = Extension { length_mask: 0, units: 1, unit_shift: 3, is_fragment: 1 };
    // RFC 4302: length in units of 4 octets, minus 2.
    table[AUTHENTICATION as usize] = Extension { length_mask: 0xff, units: 2, unit_shift: 2, is_fragment: 0 };
    table
};

/// Whether a protocol is an extension header: what a later fragment says of itself if the fragmented part began with one.
#[inline(always)]
pub(crate) fn is_extension(protocol: u8) -> bool {
    EXTENSIONS[protocol as usize].units != 0
}

/// The 13 bits of the fragment offset, in the upper bits of their field.
const FRAGMENT_OFFSET: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 0x0001;
/// Type and length of the jumbo payload option.
const JUMBO_PAYLOAD: [u8; 2] = [0xc2, 4];

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ipv6Header {
    pub version_class_flow: [u8; 4],
    pub payload_length: [u8; 2],
    pub next_header: u8,
    hop_limit: u8,
    source: [[u8; 8]; 2],
    destination: [[u8; 8]; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for Ipv6Header {}

impl Ipv6Header {
    /// Source and destination, as they lie on the wire.
    #[inline(always)]
    pub(crate) fn addresses(&self) -> [u64; 4] {
        let ([source, source_end], [destination, destination_end]) = (self.source, self.destination);
        [source, source_end, destination, destination_end].map(u64::from_ne_bytes)
    }

    #[inline(always)]
    pub(crate) const fn traffic_class(&self) -> u8 {
        let [version_class, class_flow, ..] = self.version_class_flow;
        version_class << 4 | class_flow >> 4
    }
}

/// The first eight octets of an extension header. No extension header is shorter.
#[derive(Clone, Copy)]
#[repr(C)]
struct ExtensionHeader {
    next_header: u8,
    length: u8,
    /// Fragment offset and flags, or the type and length of the first option, or the type and the segments left of a routing header.
    specific: [u8; 2],
    rest: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for ExtensionHeader {}

/// The parts of an IPv6 header and its extension headers that the walk keeps.
pub(crate) struct Ipv6 {
    /// Source and destination, as they lie on the wire.
    pub addresses: [u64; 4],
    /// The next header of the last header that the walk reads.
    pub protocol: u8,
    pub traffic_class: u8,
    /// IP length that the header declares. The length of a jumbogram extends to the end of the frame.
    pub length_octets: u32,
    /// Octets in which a transport header may lie; 0 in a non-first fragment.
    pub transport_octets: u32,
    /// Whether the packet is whole: not a fragment.
    pub is_whole: bool,
}

/// Reads the header and walks the extension headers.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Result<Ipv6, Stop> {
    let Some(passed) = cursor.pass::<Ipv6Header>() else {
        return Err(Stop::Ended(Outcome::Ipv6Truncated));
    };
    let header = passed.copy();
    let addresses = if cursor.omits(Steps::NO_IPV6) { [0; 4] } else { passed.copy().addresses() };
    let [version_class, ..] = header.version_class_flow;
    let traffic_class = if cursor.omits(Steps::NO_TRAFFIC_CLASS) { 0 } else { passed.copy().traffic_class() };
    if version_class >> 4 != VERSION {
        return Err(Stop::Found(Outcome::Ipv6Version));
    }
    let mut left = u32::from(u16::from_be_bytes(header.payload_length));
    if !cursor.holds(left) {
        return Err(Stop::Found(Outcome::Ipv6PayloadLength));
    }
    if left == 0 && header.next_header == HOP_BY_HOP {
        check_jumbogram(cursor)?;
        left = cursor.remaining();
    }
    let length_octets = HEADER_OCTETS + left;
    let mut protocol = header.next_header;
    let mut walked = 0;
    let mut fragment = 0;
    loop {
        let kind = EXTENSIONS[protocol as usize];
        if kind.units == 0 {
            break;
        }
        if walked == EXTENSION_HEADERS_MAX {
            return Err(Stop::Found(Outcome::Ipv6ExtensionDepth));
        }
        walked += 1;
        if left < EXTENSION_OCTETS_MIN {
            return Err(Stop::Found(Outcome::Ipv6ExtensionHeader));
        }
        let Some(extension) = cursor.read::<ExtensionHeader>() else {
            return Err(Stop::Ended(Outcome::Ipv6ExtensionHeader));
        };
        let units = u32::from(extension.length & kind.length_mask) + u32::from(kind.units);
        let octets = units << (kind.unit_shift & 3);
        if left < octets {
            return Err(Stop::Found(Outcome::Ipv6ExtensionHeader));
        }
        // Where such a packet ends, only the header says.
        if cursor.has_scope() && protocol == ROUTING && extension.specific[1] != 0 {
            return Err(Stop::Found(Outcome::OutOfScope));
        }
        left -= octets;
        cursor.skip(octets - EXTENSION_OCTETS_MIN);
        protocol = extension.next_header;
        if kind.is_fragment != 0 {
            fragment |= u16::from_be_bytes(extension.specific);
            if fragment & FRAGMENT_OFFSET != 0 {
                left = 0;
                break;
            }
        }
    }

    Ok(Ipv6 {
        addresses,
        protocol,
        traffic_class,
        length_octets,
        transport_octets: left,
        is_whole: fragment & (FRAGMENT_OFFSET | MORE_FRAGMENTS) == 0,
    })
}

/// A packet of payload length 0 with a hop-by-hop header is a jumbogram if that header begins with the jumbo
/// payload option, as in the jumbograms that Linux sends. Otherwise its length has no room for a header.
#[inline(always)]
fn check_jumbogram(cursor: &mut Cursor<impl Frame>) -> Result<(), Stop> {
    if cursor.remaining() < EXTENSION_OCTETS_MIN {
        return Err(Stop::Found(Outcome::Ipv6ExtensionHeader));
    }
    match cursor.peek::<ExtensionHeader>() {
        Some(first) if first.specific == JUMBO_PAYLOAD => Ok(()),
        Some(_) => Err(Stop::Found(Outcome::Ipv6ExtensionHeader)),
        None => Err(Stop::Ended(Outcome::Ipv6ExtensionHeader)),
    }
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;
    use minimizer_common::tuple::{Tags, Tuple};
    use std::vec;
    use std::vec::Vec;

    use super::{AUTHENTICATION, DESTINATION_OPTIONS, FRAGMENT, HIP, HOP_BY_HOP, MOBILITY, ROUTING, SHIM6};
    use crate::parser::frames::{IPV6, ethernet, ipv6, walk, walk_split};

    const UDP: [u8; 8] = [0x13, 0x88, 0x00, 0x35, 0, 8, 0, 0];
    const BY_EIGHT: [u8; 6] = [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, MOBILITY, HIP, SHIM6];

    /// A chain of extension headers in front of UDP. Each is given as (its number, its octets).
    fn chain(headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let numbers = headers.iter().map(|(number, _)| *number).chain([17]).collect::<Vec<_>>();
        let mut content = Vec::new();
        for ((_, octets), next) in headers.iter().zip(&numbers[1..]) {
            content.push(*next);
            content.extend(&octets[1..]);
        }
        content.extend(UDP);
        ethernet(IPV6, &ipv6(numbers[0], &content))
    }

    fn by_eight(number: u8, length: u8) -> (u8, Vec<u8>) {
        let mut octets = vec![0xa5; 8 * (usize::from(length) + 1)];
        octets[1] = length;
        (number, octets)
    }

    fn check(headers: &[(u8, Vec<u8>)], expected: Result<(u8, (u16, u16)), Outcome>) {
        let frame = chain(headers);
        let walked = walk(&frame);
        assert_eq!(walked.map(|packet| (packet.protocol, packet.ports)), expected, "{headers:?}");
        if let Ok(packet) = walked {
            assert_eq!(packet.length_octets as usize, frame.len() - 14);
        }
    }

    #[test]
    fn the_parts_of_a_tuple() {
        let walked = walk(&chain(&[])).expect("is counted");
        assert_eq!((walked.ports, walked.protocol, walked.traffic_class), ((5000, 53), 17, 0x2e));
        assert_eq!((walked.control_bits, walked.length_octets), (0, 48));
        assert_eq!(walked.tags, Tags::NONE.with_ipv6());
        let (source, destination) = Tuple::new(walked.addresses, (0, 0), walked.tags, 0, 0).ipv6();
        let address = |last| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        assert_eq!((source, destination), (address(1), address(2)));
    }

    #[test]
    fn truncation_at_every_length() {
        let frame = chain(&[by_eight(ROUTING, 1), by_eight(DESTINATION_OPTIONS, 0)]);
        for length in 14..frame.len() {
            let reason = if length < 54 { Outcome::Ipv6Truncated } else { Outcome::Ipv6PayloadLength };
            assert_eq!(walk(&frame[..length]), Err(reason), "{length} octets");
            assert_eq!(walk_split(&frame, length), Err(Outcome::HeaderNotLinear), "{length} octets");
            if length < 54 {
                continue;
            }
            // The IP length ends early, not the frame: an extension header does not fit, or the transport
            // header is cut off.
            let mut shorter = frame.clone();
            shorter[18..20].copy_from_slice(&u16::try_from(length - 54).expect("fits").to_be_bytes());
            let expected = if length < 54 + 24 { Err(Outcome::Ipv6ExtensionHeader) } else { Ok((0, 0)) };
            assert_eq!(walk(&shorter).map(|packet| packet.ports), expected, "{length} octets");
        }
    }

    #[test]
    fn other_versions_are_malformed() {
        for version in (0..16).filter(|version| *version != 6) {
            let mut frame = chain(&[]);
            frame[14] = version << 4 | 2;
            assert_eq!(walk(&frame), Err(Outcome::Ipv6Version), "{version}");
        }
    }

    #[test]
    fn a_payload_beyond_the_frame_is_malformed() {
        for (length, expected) in [
            (8, Ok((5000, 53))),
            (7, Ok((0, 0))),
            (9, Err(Outcome::Ipv6PayloadLength)),
            (0xffff, Err(Outcome::Ipv6PayloadLength)),
        ] {
            let mut frame = chain(&[]);
            frame[18..20].copy_from_slice(&u16::to_be_bytes(length));
            assert_eq!(walk(&frame).map(|packet| packet.ports), expected, "{length}");
        }
    }

    #[test]
    fn every_kind_of_extension_header() {
        let udp = Ok((17, (5000, 53)));
        for number in BY_EIGHT {
            for length in [0, 1, 2, 31, 255] {
                check(&[by_eight(number, length)], udp);
            }
        }
        for length in [0, 1, 2, 4, 5, 255] {
            let mut octets = vec![0x5a; 4 * (usize::from(length) + 2)];
            octets[1] = length;
            check(&[(AUTHENTICATION, octets)], udp);
        }
        // The second octet of a fragment header is reserved, not a length.
        check(&[(FRAGMENT, vec![0, 0xff, 0, 1, 0, 0, 0, 9])], udp);
        let all = BY_EIGHT.map(|number| by_eight(number, 1));
        check(&all, udp);
    }

    #[test]
    fn nine_extension_headers_are_unsupported() {
        for number in BY_EIGHT {
            let headers = vec![by_eight(number, 0); 9];
            check(&headers[..8], Ok((17, (5000, 53))));
            check(&headers, Err(Outcome::Ipv6ExtensionDepth));
        }
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        for at in 0..8 {
            let mut headers = vec![by_eight(DESTINATION_OPTIONS, 0); 8];
            headers[at] = (FRAGMENT, vec![0, 0, 0, 8, 0, 0, 0, 9]);
            // The packet counts with the next header of the fragment header, whatever that is.
            let protocol = if at == 7 { 17 } else { DESTINATION_OPTIONS };
            check(&headers, Ok((protocol, (0, 0))));
            headers.push(by_eight(ROUTING, 0));
            let protocol = if at == 7 { ROUTING } else { DESTINATION_OPTIONS };
            check(&headers, Ok((protocol, (0, 0))));
            // Reserved bits and the more-fragments flag do not make it a later fragment.
            headers[at] = (FRAGMENT, vec![0, 0, 0, 7, 0, 0, 0, 9]);
            check(&headers[..8], Ok((17, (5000, 53))));
        }
    }

    #[test]
    fn a_length_beyond_the_packet_is_malformed() {
        for number in BY_EIGHT.into_iter().chain([AUTHENTICATION]) {
            let mut frame = chain(&[by_eight(number, 0)]);
            // An extension header may extend over the eight octets of UDP, but no further.
            let fits = if number == AUTHENTICATION { 2 } else { 1 };
            for length in 0..=255 {
                frame[55] = length;
                let walked = walk(&frame).map(drop);
                let expected = if length <= fits { Ok(()) } else { Err(Outcome::Ipv6ExtensionHeader) };
                assert_eq!(walked, expected, "{number} {length}");
            }
        }
    }

    #[test]
    fn ethernet_padding_is_no_extension_header() {
        for octets in 0..8 {
            let content = vec![17; octets];
            let mut frame = ethernet(IPV6, &ipv6(DESTINATION_OPTIONS, &content));
            frame.extend([0; 46]);
            assert_eq!(walk(&frame), Err(Outcome::Ipv6ExtensionHeader), "{octets} octets");
        }
    }

    /// A packet of payload length 0 with a hop-by-hop header that begins with `options`, in front of UDP.
    fn jumbogram(options: [u8; 8], rest: &[u8]) -> Vec<u8> {
        let mut frame = ethernet(IPV6, &ipv6(HOP_BY_HOP, &[&options, rest].concat()));
        frame[18..20].fill(0);
        frame
    }

    #[test]
    fn a_jumbogram_is_as_long_as_its_frame() {
        let option = [17, 0, 0xc2, 4, 0, 1, 0, 0];
        for octets in [8, 20, 65_535, 70_000] {
            let mut rest = UDP.to_vec();
            rest.resize(octets, 0xee);
            let mut frame = jumbogram(option, &[]);
            frame.extend(&rest);
            let walked = walk(&frame).expect("is counted");
            assert_eq!(walked.ports, (5000, 53));
            assert_eq!(walked.length_octets as usize, 40 + 8 + octets);
        }
        let walked = walk(&jumbogram(option, &UDP[..7])).expect("is counted");
        assert_eq!((walked.ports, walked.length_octets), ((0, 0), 55));
        for octets in 0..8 {
            let mut frame = jumbogram(option, &[]);
            frame.truncate(54 + octets);
            assert_eq!(walk(&frame), Err(Outcome::Ipv6ExtensionHeader), "{octets} octets");
        }
    }

    #[test]
    fn payload_length_0_without_a_jumbo_option() {
        // Another option comes first: the hop-by-hop header lies outside the packet.
        for options in [[17, 0, 1, 4, 0, 0, 0, 0], [17, 0, 0xc2, 5, 0, 0, 0, 0], [17, 0, 0xc3, 4, 0, 0, 0, 0]]
        {
            assert_eq!(walk(&jumbogram(options, &UDP)), Err(Outcome::Ipv6ExtensionHeader));
        }
        // No extension header: the packet is empty.
        let mut frame = chain(&[]);
        frame[18..20].fill(0);
        let walked = walk(&frame).expect("is counted");
        assert_eq!((walked.protocol, walked.ports, walked.length_octets), (17, (0, 0), 40));
        // Another extension header, for which the packet has no room.
        let mut frame = chain(&[by_eight(ROUTING, 0)]);
        frame[18..20].fill(0);
        assert_eq!(walk(&frame), Err(Outcome::Ipv6ExtensionHeader));
    }

    #[test]
    fn a_jumbo_option_needs_payload_length_0() {
        let frame = ethernet(IPV6, &ipv6(HOP_BY_HOP, &[&[17, 0, 0xc2, 4, 0, 1, 0, 0], &UDP[..]].concat()));
        let frame = [&frame[..], &[0; 100]].concat();
        assert_eq!(walk(&frame).map(|packet| packet.length_octets), Ok(56));
    }

    #[test]
    fn no_next_header_and_inner_packets_have_no_ports() {
        for protocol in [59, 4, 41, 47, 50] {
            let walked = walk(&ethernet(IPV6, &ipv6(protocol, &UDP))).expect("is counted");
            assert_eq!((walked.protocol, walked.ports), (protocol, (0, 0)));
        }
    }
}
