//! MPLS label stack (RFC 3032): up to eight labels. The first nibble below them tells what follows.

use minimizer_common::outcome::Outcome;

use crate::parser::cursor::{Cursor, Frame, Header, Stop};

/// EtherType of unicast MPLS.
pub(crate) const UNICAST: u16 = 0x8847;
/// EtherType of MPLS with upstream-assigned labels (RFC 5332).
pub(crate) const UPSTREAM: u16 = 0x8848;
/// The most labels in one stack.
pub(crate) const LABELS_MAX: usize = 8;

const BOTTOM_OF_STACK: u8 = 1;

#[derive(Clone, Copy)]
#[repr(C)]
struct MplsLabel {
    label: [u8; 2],
    label_class_bottom: u8,
    time_to_live: u8,
}
// SAFETY: a `repr(C)` struct of bytes.
unsafe impl Header for MplsLabel {}

/// Reads the stack and returns the first nibble behind it: 4 for IPv4, 6 for IPv6.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Result<u8, Stop> {
    for _ in 0..LABELS_MAX {
        let Some(label) = cursor.read::<MplsLabel>() else {
            return Err(Stop::Ended(Outcome::MplsTruncated));
        };
        if label.label_class_bottom & BOTTOM_OF_STACK != 0 {
            cursor.forget(u16::from_be_bytes(label.label));
            return cursor.peek_nibble().ok_or(Stop::Ended(Outcome::NonIp));
        }
    }
    Err(Stop::Found(Outcome::MplsDepth))
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;
    use std::vec::Vec;

    use crate::parser::frames::{ethernet, ipv4, ipv6, walk, walk_split};

    /// A stack of `labels` above `rest`.
    fn labelled(ether_type: u16, labels: usize, rest: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        for label in 1..=labels {
            // Traffic class all ones and other bits all set: only the lowest bit marks the bottom of the
            // stack.
            content.extend([0xff, 0xff, if label == labels { 0xff } else { 0xfe }, 0xff]);
        }
        content.extend(rest);
        ethernet(ether_type, &content)
    }

    #[test]
    fn ip_is_told_by_its_first_nibble() {
        let transport = [0, 1, 0, 2, 0, 8, 0, 0];
        for ether_type in [super::UNICAST, super::UPSTREAM] {
            for labels in 1..=super::LABELS_MAX {
                for (packet, is_ipv6) in [(ipv4(17, &transport), false), (ipv6(17, &transport), true)] {
                    let frame = labelled(ether_type, labels, &packet);
                    let walked = walk(&frame).expect("is counted");
                    assert_eq!((walked.ports, walked.tags.is_ipv6()), ((1, 2), is_ipv6));
                    for length in 14..14 + 4 * labels {
                        assert_eq!(walk(&frame[..length]), Err(Outcome::MplsTruncated), "{length} octets");
                        assert_eq!(
                            walk_split(&frame, length),
                            Err(Outcome::HeaderNotLinear),
                            "{length} octets"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_ninth_label_is_unsupported() {
        let frame = labelled(super::UNICAST, 9, &ipv4(17, &[0; 8]));
        assert_eq!(walk(&frame), Err(Outcome::MplsDepth));
        assert_eq!(walk(&frame[..14 + 8 * 4]), Err(Outcome::MplsDepth));
        // A stack without an end: the room reads eight labels.
        assert_eq!(walk(&ethernet(super::UNICAST, &[0; 1000])), Err(Outcome::MplsDepth));
    }

    #[test]
    fn other_nibbles_are_non_ip() {
        let (mut packet, mut below) = (ipv4(17, &[0; 8]), Vec::new());
        for nibble in (0..16).filter(|nibble| ![4, 6].contains(nibble)) {
            packet[0] = nibble << 4 | 5;
            below.push(walk(&labelled(super::UNICAST, 1, &packet)));
        }
        assert_eq!(below, [Err(Outcome::NonIp); 14]);
    }

    #[test]
    fn a_frame_that_ends_behind_the_stack_is_non_ip() {
        let frame = labelled(super::UNICAST, 2, &ipv4(17, &[0; 8]));
        assert_eq!(walk(&frame[..22]), Err(Outcome::NonIp));
        assert_eq!(walk(&frame[..23]), Err(Outcome::Ipv4Truncated));
        // The depth of a stack that continues in a further buffer is unknown.
        assert_eq!(walk_split(&frame, 22), Err(Outcome::HeaderNotLinear));
    }
}
