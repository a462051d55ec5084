//! VLAN tags (IEEE 802.1Q and 802.1ad): the room reads up to four and keeps the two outermost.

use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tags;

use crate::parser::cursor::{Cursor, Frame, Header, Stop};

/// Customer tag.
pub(crate) const C_TAG: u16 = 0x8100;
/// Service tag.
pub(crate) const S_TAG: u16 = 0x88a8;
/// Service tag of equipment older than 802.1ad.
pub(crate) const OLD_S_TAG: u16 = 0x9100;
/// The most tags in one frame.
pub(crate) const TAGS_MAX: usize = 4;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct VlanTag {
    pub control: [u8; 2],
    pub ether_type: [u8; 2],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for VlanTag {}

/// Whether `ether_type` announces a VLAN tag.
#[inline(always)]
pub(crate) const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, C_TAG | S_TAG | OLD_S_TAG)
}

/// Reads the stack of tags that the tag type `ether_type` announces. Returns the tags and the EtherType
/// behind them.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>, ether_type: u16) -> Result<(Tags, u16), Stop> {
    let mut tags = Tags::NONE;
    let mut ether_type = ether_type;
    let mut control = 0;
    for _ in 0..TAGS_MAX {
        if !is_tag(ether_type) {
            break;
        }
        let Some(tag) = cursor.read::<VlanTag>() else {
            return Err(Stop::Ended(Outcome::VlanTruncated));
        };
        control = u16::from_be_bytes(tag.control);
        tags = tags.with_vlan(control);
        ether_type = u16::from_be_bytes(tag.ether_type);
    }
    if is_tag(ether_type) {
        return Err(Stop::Found(Outcome::VlanDepth));
    }
    cursor.forget(control);
    Ok((tags, ether_type))
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;
    use std::vec::Vec;

    use crate::parser::frames::{IPV4, IPV6, ethernet, ipv4, ipv6, walk, walk_split};

    /// A frame with tags of these types and identifiers, in front of `ether_type` and `rest`.
    fn tagged(tags: &[(u16, u16)], ether_type: u16, rest: &[u8]) -> Vec<u8> {
        let types = tags.iter().map(|(tag_type, _)| *tag_type).chain([ether_type]).collect::<Vec<_>>();
        let mut content = Vec::new();
        for ((_, control), next_type) in tags.iter().zip(&types[1..]) {
            content.extend(control.to_be_bytes());
            content.extend(next_type.to_be_bytes());
        }
        content.extend(rest);
        ethernet(types[0], &content)
    }

    fn check(tags: &[(u16, u16)], expected: (Option<u16>, Option<u16>)) {
        for (ether_type, packet) in
            [(IPV4, ipv4(17, &[0, 1, 0, 2, 0, 8, 0, 0])), (IPV6, ipv6(17, &[0, 1, 0, 2, 0, 8, 0, 0]))]
        {
            let frame = tagged(tags, ether_type, &packet);
            let walked = walk(&frame).expect("is counted");
            assert_eq!((walked.tags.vlan_id(), walked.tags.customer_vlan_id()), expected);
            assert_eq!(walked.ports, (1, 2));
            assert_eq!(walked.tags.is_ipv6(), ether_type == IPV6);
            let tags_end = 14 + 4 * tags.len();
            for length in 14..tags_end {
                assert_eq!(walk(&frame[..length]), Err(Outcome::VlanTruncated), "{length} octets");
                assert_eq!(walk_split(&frame, length), Err(Outcome::HeaderNotLinear), "{length} octets");
            }
            assert!(matches!(walk(&frame[..tags_end]), Err(Outcome::Ipv4Truncated | Outcome::Ipv6Truncated)));
        }
    }

    #[test]
    fn up_to_four_tags_of_which_two_are_kept() {
        check(&[], (None, None));
        check(&[(0x8100, 7)], (Some(7), None));
        check(&[(0x88a8, 100), (0x8100, 200)], (Some(100), Some(200)));
        check(&[(0x9100, 1), (0x9100, 2), (0x8100, 3)], (Some(1), Some(2)));
        check(&[(0x8100, 4094), (0x88a8, 0), (0x9100, 9), (0x8100, 9)], (Some(4094), Some(0)));
    }

    #[test]
    fn priority_and_drop_eligibility_are_not_part_of_the_identifier() {
        check(&[(0x8100, 0xffff)], (Some(0xfff), None));
        check(&[(0x8100, 0xf000), (0x8100, 0x1001)], (Some(0), Some(1)));
    }

    #[test]
    fn a_fifth_tag_is_unsupported() {
        let tags = [(0x8100, 1); 5];
        let frame = tagged(&tags, IPV4, &ipv4(17, &[0; 8]));
        assert_eq!(walk(&frame), Err(Outcome::VlanDepth));
        // The fifth tag may be cut off: the room does not read it.
        assert_eq!(walk(&frame[..14 + 16]), Err(Outcome::VlanDepth));
        assert_eq!(walk(&tagged(&tags[..4], IPV4, &ipv4(17, &[0; 8]))).map(|packet| packet.protocol), Ok(17));
    }

    #[test]
    fn a_length_or_another_protocol_behind_tags_is_non_ip() {
        for ether_type in [0x0806, 0x0026, 0x9200] {
            assert_eq!(walk(&tagged(&[(0x8100, 1)], ether_type, &ipv4(17, &[]))), Err(Outcome::NonIp));
        }
    }
}
