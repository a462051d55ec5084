//! ICMP (RFC 792) and ICMPv6 (RFC 4443): type and code. The packet that a message quotes is payload.

use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header};

/// Protocol number of ICMP.
pub(crate) const PROTOCOL: u8 = 1;
/// Protocol number of ICMPv6.
pub(crate) const V6_PROTOCOL: u8 = 58;
/// Octets of the header that all messages share.
pub(crate) const HEADER_OCTETS: u32 = size_of::<IcmpHeader>() as u32;

#[derive(Clone, Copy)]
#[repr(C)]
struct IcmpHeader {
    message_type: u8,
    code: u8,
    checksum: [u8; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for IcmpHeader {}

/// Reads type and code; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Option<(u16, u16)> {
    let passed = cursor.pass::<IcmpHeader>()?;
    if cursor.omits(Steps::NO_ICMP) {
        return Some((0, 0));
    }
    let header = passed.copy();
    Some((u16::from(header.message_type), u16::from(header.code)))
}

#[cfg(test)]
mod tests {
    use crate::parser::frames::{IPV4, IPV6, check_transport, ethernet, ipv4, ipv6, walk};

    #[test]
    fn type_and_code_of_a_whole_header() {
        for protocol in [super::PROTOCOL, super::V6_PROTOCOL] {
            check_transport(protocol, &[3, 1, 0xab, 0xcd, 0, 0, 0, 0], 4, (3, 1), 0);
            check_transport(protocol, &[0xff, 0xff, 0, 0], 4, (255, 255), 0);
            check_transport(protocol, &[0, 7, 0, 0], 4, (0, 7), 0);
        }
    }

    #[test]
    fn a_quoted_packet_is_payload() {
        let quoted = ipv4(6, &[0x30, 0x39, 0x01, 0xbb, 1, 2, 3, 4]);
        let message = [&[3, 1, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
        let frames = [
            ethernet(IPV4, &ipv4(super::PROTOCOL, &message)),
            ethernet(IPV6, &ipv6(super::V6_PROTOCOL, &message)),
        ];
        for frame in frames {
            let walked = walk(&frame).expect("is counted");
            assert_eq!((walked.ports, walked.control_bits), ((3, 1), 0));
            for at in frame.len() - message.len() + 4..frame.len() {
                let mut other = frame.clone();
                other[at] ^= 0xff;
                assert_eq!(walk(&other), Ok(walked), "octet {at}");
            }
        }
    }
}
