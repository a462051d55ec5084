//! PPPoE session (RFC 2516) and the PPP protocol field behind it.

use minimizer_common::outcome::Outcome;

use crate::parser::cursor::{Cursor, Frame, Header, Stop};

/// EtherType of the session stage.
pub(crate) const SESSION: u16 = 0x8864;
/// PPP protocol number of IPv4.
pub(crate) const PPP_IPV4: u16 = 0x0021;
/// PPP protocol number of IPv6.
pub(crate) const PPP_IPV6: u16 = 0x0057;

/// Version 1 and type 1, one nibble each.
const VERSION_TYPE: u8 = 0x11;
const CODE_SESSION: u8 = 0;

#[derive(Clone, Copy)]
#[repr(C)]
struct PppoeHeader {
    version_type: u8,
    code: u8,
    session_id: [u8; 2],
    length: [u8; 2],
    ppp_protocol: [u8; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for PppoeHeader {}

/// Reads both headers and returns the PPP protocol number.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Result<u16, Stop> {
    let Some(header) = cursor.read::<PppoeHeader>() else {
        return Err(Stop::Ended(Outcome::PppoeTruncated));
    };
    if header.version_type != VERSION_TYPE || header.code != CODE_SESSION {
        return Err(Stop::Found(Outcome::PppoeHeader));
    }
    cursor.forget(u16::from_be_bytes(header.session_id));
    Ok(u16::from_be_bytes(header.ppp_protocol))
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;
    use std::vec::Vec;

    use crate::parser::frames::{ethernet, ipv4, ipv6, walk, walk_split};

    fn session(version_type: u8, code: u8, protocol: u16, rest: &[u8]) -> Vec<u8> {
        let [high, low] = protocol.to_be_bytes();
        // The length field is wrong. The room ignores it, because IP has its own length.
        ethernet(super::SESSION, &[&[version_type, code, 0, 42, 0xff, 0xff, high, low], rest].concat())
    }

    #[test]
    fn ip_behind_both_headers() {
        let transport = [0, 1, 0, 2, 0, 8, 0, 0];
        for (protocol, packet) in [(0x0021, ipv4(17, &transport)), (0x0057, ipv6(17, &transport))] {
            let frame = session(0x11, 0, protocol, &packet);
            assert_eq!(walk(&frame).map(|packet| packet.ports), Ok((1, 2)));
            for length in 14..22 {
                assert_eq!(walk(&frame[..length]), Err(Outcome::PppoeTruncated), "{length} octets");
                assert_eq!(walk_split(&frame, length), Err(Outcome::HeaderNotLinear), "{length} octets");
            }
            assert!(matches!(walk(&frame[..22]), Err(Outcome::Ipv4Truncated | Outcome::Ipv6Truncated)));
        }
    }

    #[test]
    fn other_versions_types_and_codes_are_malformed() {
        for (version_type, code) in
            [(0x10, 0), (0x01, 0), (0x21, 0), (0x12, 0), (0, 0), (0xff, 0), (0x11, 9), (0x11, 0xff)]
        {
            let frame = session(version_type, code, 0x0021, &ipv4(17, &[0; 8]));
            assert_eq!(walk(&frame), Err(Outcome::PppoeHeader), "{version_type:#04x} {code}");
        }
    }

    #[test]
    fn other_ppp_protocols_are_non_ip() {
        for protocol in [0xc021, 0x8021, 0x0000, 0x2145, 0x0281, 0x0800] {
            assert_eq!(
                walk(&session(0x11, 0, protocol, &ipv4(17, &[0; 8]))),
                Err(Outcome::NonIp),
                "{protocol:#06x}"
            );
        }
    }

    #[test]
    fn the_discovery_stage_is_non_ip() {
        assert_eq!(walk(&ethernet(0x8863, &[0x11, 9, 0, 0, 0, 0])), Err(Outcome::NonIp));
    }
}
