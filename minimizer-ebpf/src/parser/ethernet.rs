//! Ethernet II (IEEE 802.3): the EtherType. The two addresses in front of it are not read.

use minimizer_common::outcome::Outcome;

use crate::parser::cursor::{Cursor, Frame, Header, Stop};

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct EthernetHeader {
    addresses: [u8; 12],
    pub ether_type: [u8; 2],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for EthernetHeader {}

/// Reads the header and returns the EtherType, or the length field of an 802.3 frame.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Result<u16, Stop> {
    match cursor.read::<EthernetHeader>() {
        Some(header) => Ok(u16::from_be_bytes(header.ether_type)),
        None => Err(Stop::Ended(Outcome::EthernetTruncated)),
    }
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;

    use crate::parser::frames::{IPV4, IPV6, ethernet, ipv4, ipv6, walk, walk_split};

    #[test]
    fn a_frame_shorter_than_the_header_is_malformed() {
        let frame = ethernet(IPV4, &ipv4(17, &[]));
        for length in 0..14 {
            assert_eq!(walk(&frame[..length]), Err(Outcome::EthernetTruncated), "{length} octets");
            assert_eq!(walk_split(&frame, length), Err(Outcome::HeaderNotLinear), "{length} octets");
        }
    }

    #[test]
    fn the_ether_type_tells_what_follows() {
        let cases = [
            (IPV4, Err(Outcome::Ipv4Truncated)),
            (IPV6, Err(Outcome::Ipv6Truncated)),
            (0x0806, Err(Outcome::NonIp)),
            (0x88cc, Err(Outcome::NonIp)),
            (0xffff, Err(Outcome::NonIp)),
            // Lengths of IEEE 802.3, up to the largest.
            (0, Err(Outcome::NonIp)),
            (0x0026, Err(Outcome::NonIp)),
            (0x05dc, Err(Outcome::NonIp)),
        ];
        for (ether_type, expected) in cases {
            assert_eq!(walk(&ethernet(ether_type, &[])).map(drop), expected, "{ether_type:#06x}");
        }
    }

    #[test]
    fn what_follows_an_802_3_length_is_not_looked_at() {
        for packet in [ipv4(17, &[0; 8]), ipv6(17, &[0; 8])] {
            assert_eq!(walk(&ethernet(28, &packet)), Err(Outcome::NonIp));
            assert_eq!(walk(&ethernet(0x0806, &packet)), Err(Outcome::NonIp));
        }
    }
}
