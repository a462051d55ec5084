//! GTP-U (3GPP TS 29.281): user data with its optional fields and extension headers.

use minimizer_common::outcome::Outcome;

use crate::parser::cursor::{Cursor, Frame, Header, Stop, Within};

/// UDP destination port.
pub(crate) const PORT: u16 = 2152;
/// The most extension headers in one message.
pub(crate) const EXTENSION_HEADERS_MAX: usize = 8;

/// Version 1, protocol type GTP.
const VERSION_TYPE: u8 = 0x30;
const VERSION_TYPE_MASK: u8 = 0xf0;
/// The flags E, S and PN. Any one of them announces the optional fields.
const OPTIONAL_FIELDS: u8 = 0x07;
const EXTENSION_HEADERS: u8 = 0x04;
/// Message type G-PDU: the message carries a user's packet.
const USER_DATA: u8 = 255;
/// Unit of an extension header's length.
const EXTENSION_UNIT_OCTETS: u32 = 4;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct GtpUHeader {
    flags: u8,
    message_type: u8,
    /// Octets behind these eight.
    length: [u8; 2],
    tunnel_endpoint: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for GtpUHeader {}

/// Octets of the header without optional fields.
pub(crate) const HEADER_OCTETS: u32 = size_of::<GtpUHeader>() as u32;

impl GtpUHeader {
    /// Octets of the packet that follows, if the message carries one and the header has no optional fields.
    #[inline(always)]
    pub(crate) const fn plain_length(&self) -> Option<u32> {
        if self.flags == VERSION_TYPE && self.message_type == USER_DATA {
            Some(u16::from_be_bytes(self.length) as u32)
        } else {
            None
        }
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct OptionalFields {
    sequence_number: [u8; 2],
    n_pdu_number: u8,
    next_extension: u8,
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for OptionalFields {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Octet(u8);
// SAFETY: a `repr(C)` struct of one byte.
unsafe impl Header for Octet {}

/// Reads the header, ends the packet where the message ends and returns the first nibble of the content. The
/// error is `NonIp` when the message carries no user packet.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<Within<impl Frame>>) -> Result<u8, Stop> {
    let Some(header) = cursor.read::<GtpUHeader>() else {
        return Err(Stop::Ended(Outcome::GtpUTruncated));
    };
    if header.flags & VERSION_TYPE_MASK != VERSION_TYPE || header.message_type != USER_DATA {
        return Err(Stop::Found(Outcome::NonIp));
    }
    let length = u32::from(u16::from_be_bytes(header.length));
    if !cursor.holds(length) {
        return Err(Stop::Found(Outcome::GtpULength));
    }
    cursor.limit(length);
    if header.flags & OPTIONAL_FIELDS != 0 {
        let Some(fields) = cursor.read::<OptionalFields>() else {
            return Err(Stop::Ended(Outcome::GtpULength));
        };
        if header.flags & EXTENSION_HEADERS != 0 {
            skip_extension_headers(cursor, fields.next_extension)?;
        }
        cursor.forget(u16::from_ne_bytes(fields.sequence_number));
    }
    cursor.peek_nibble().ok_or(Stop::Ended(Outcome::NonIp))
}

/// Skips the extension headers. The first octet of each gives its length, the last octet the type of the
/// next.
#[inline(always)]
fn skip_extension_headers(cursor: &mut Cursor<Within<impl Frame>>, first_extension: u8) -> Result<(), Stop> {
    let mut next = first_extension;
    for _ in 0..EXTENSION_HEADERS_MAX {
        if next == 0 {
            return Ok(());
        }
        let Some(Octet(units)) = cursor.read() else {
            return Err(Stop::Ended(Outcome::GtpUExtensionHeader));
        };
        if units == 0 {
            return Err(Stop::Found(Outcome::GtpUExtensionHeader));
        }
        cursor.skip(u32::from(units) * EXTENSION_UNIT_OCTETS - 2);
        let Some(Octet(following)) = cursor.read() else {
            return Err(Stop::Ended(Outcome::GtpUExtensionHeader));
        };
        next = following;
    }
    if next == 0 { Ok(()) } else { Err(Stop::Found(Outcome::GtpUExtensionDepth)) }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use minimizer_common::outcome::Outcome;

    use super::{EXTENSION_HEADERS_MAX, PORT};
    use crate::parser::frames::{IPV4, IPV6, carried, ethernet, ipv4, ipv6, udp, walk, walk_listed};

    /// A G-PDU: the flags, the octets between header and packet, the packet.
    fn user_data(flags: u8, between: &[u8], packet: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(between.len() + packet.len()).expect("fits").to_be_bytes();
        [&[0x30 | flags, 255, high, low, 0, 0, 0, 7], between, packet].concat()
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        ethernet(IPV4, &ipv4(17, &udp(PORT, message)))
    }

    /// A chain of extension headers behind the optional fields. `units` gives the length of each.
    fn chain(units: &[u8]) -> Vec<u8> {
        let mut octets = vec![0, 1, 0, if units.is_empty() { 0 } else { 0x85 }];
        for (index, units) in units.iter().enumerate() {
            octets.push(*units);
            octets.extend(vec![0x45; usize::from(*units) * 4 - 2]);
            octets.push(if index + 1 < EXTENSION_HEADERS_MAX + 2 { 0x85 } else { 0 });
        }
        if let (Some(last), false) = (octets.last_mut(), units.is_empty()) {
            *last = 0;
        }
        octets
    }

    #[test]
    fn packets_behind_every_form_of_the_header() {
        for flags in 0..8 {
            let between = match flags {
                0 => Vec::new(),
                1..4 => vec![0, 1, 2, 0x85],
                _ => chain(&[1, 2]),
            };
            let content = udp(PORT, &user_data(flags, &between, &carried()));
            // The outer room reads the UDP header, so that its octets are outer.
            let message = &content[8..];
            for octets in 0..message.len() {
                let cut = walk_listed(&frame(&message[..octets]));
                let expected = if octets < 8 { Outcome::GtpUTruncated } else { Outcome::GtpULength };
                assert_eq!(cut, Err(expected), "{octets} octets");
            }
            assert_eq!(walk_listed(&frame(message)).map(|packet| packet.ports), Ok((1000, 2000)));
            let six = user_data(flags, &between, &ipv6(17, &udp(2000, &[])));
            let walked = walk_listed(&frame(&six)).expect("is counted");
            assert!(walked.tags.is_ipv6());
            assert_eq!((walked.ports, walked.length_octets), ((5000, 2000), 48));
        }
        let content = user_data(0, &[], &carried());
        for (ether_type, packet) in [(IPV4, ipv4 as fn(u8, &[u8]) -> Vec<u8>), (IPV6, ipv6)] {
            let frame = ethernet(ether_type, &packet(17, &udp(PORT, &content)));
            assert_eq!(walk_listed(&frame).map(|packet| packet.ports), Ok((1000, 2000)));
            assert_eq!(walk(&frame).map(|packet| packet.ports.1), Ok(PORT), "not listed");
        }
    }

    #[test]
    fn up_to_eight_extension_headers() {
        for count in 0..=EXTENSION_HEADERS_MAX {
            let message = user_data(4, &chain(&vec![1; count]), &carried());
            assert_eq!(walk_listed(&frame(&message)).map(|packet| packet.ports), Ok((1000, 2000)), "{count}");
        }
        let message = user_data(4, &chain(&[1; EXTENSION_HEADERS_MAX + 1]), &carried());
        assert_eq!(walk_listed(&frame(&message)), Err(Outcome::GtpUExtensionDepth));
    }

    #[test]
    fn extension_headers_of_every_length() {
        for units in 1..=255 {
            let message = user_data(4, &chain(&[units]), &carried());
            assert_eq!(walk_listed(&frame(&message)).map(|packet| packet.ports), Ok((1000, 2000)));
            // A header that ends where the message ends, and one that would end behind it.
            let mut message = user_data(4, &chain(&[units]), &[]);
            let outer = walk(&frame(&message));
            assert_eq!(walk_listed(&frame(&message)), outer, "nothing is carried");
            message[12] = units.wrapping_add(1);
            assert_eq!(walk_listed(&frame(&message)), Err(Outcome::GtpUExtensionHeader), "{units}");
        }
        let mut message = user_data(4, &chain(&[1]), &carried());
        message[12] = 0;
        assert_eq!(walk_listed(&frame(&message)), Err(Outcome::GtpUExtensionHeader));
    }

    #[test]
    fn a_length_beyond_or_below_the_message() {
        for (length, expected) in
            [(0, None), (32, Some(Ok((1000, 2000)))), (31, Some(Err(Outcome::Ipv4TotalLength)))]
        {
            let mut message = user_data(0, &[], &carried());
            message[2..4].copy_from_slice(&u16::to_be_bytes(length));
            let found = walk_listed(&frame(&message));
            match expected {
                Some(expected) => assert_eq!(found.map(|packet| packet.ports), expected, "{length}"),
                None => assert_eq!(found, walk(&frame(&message)), "nothing is carried"),
            }
        }
        for length in [33, 1000, u16::MAX] {
            let mut message = user_data(0, &[], &carried());
            message[2..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(walk_listed(&frame(&message)), Err(Outcome::GtpULength), "{length}");
        }
        // A message shorter than the optional fields that its flags announce.
        let mut message = user_data(1, &[0, 1, 0, 0], &carried());
        message[2..4].copy_from_slice(&[0, 3]);
        assert_eq!(walk_listed(&frame(&message)), Err(Outcome::GtpULength));
    }

    #[test]
    fn other_messages_count_as_their_outer_packet() {
        let message = user_data(0, &[], &carried());
        let with = |at: usize, octet: u8| {
            let mut message = message.clone();
            message[at] = octet;
            frame(&message)
        };
        for message_type in [1, 2, 26, 31, 254] {
            let frame = with(1, message_type);
            assert_eq!(walk_listed(&frame), walk(&frame), "message type {message_type}");
        }
        for version_type in [0x00, 0x10, 0x20, 0x40, 0x50, 0xf0] {
            let frame = with(0, version_type);
            assert_eq!(walk_listed(&frame), walk(&frame), "version and type {version_type:#04x}");
        }
        for nibble in (0..16).filter(|nibble| ![4, 6].contains(nibble)) {
            let frame = with(8, nibble << 4 | 5);
            assert_eq!(walk_listed(&frame), walk(&frame), "an Ethernet or unstructured session");
        }
        let other_port = ethernet(IPV4, &ipv4(17, &udp(PORT + 1, &message)));
        assert_eq!(walk_listed(&other_port), walk(&other_port));
    }
}
