//! IPv6 (RFC 8200) with its extension headers, jumbograms (RFC 2675) included.

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Header};

/// EtherType.
pub(crate) const ETHER_TYPE: u16 = 0x86dd;
/// Version field, and first nibble below an MPLS stack.
pub(crate) const VERSION: u8 = 6;
/// Extension headers in one packet.
pub(crate) const EXTENSION_HEADERS_MAX: usize = 8;

const HEADER_OCTETS: u32 = size_of::<Ipv6Header>() as u32;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// The 13 bits of the fragment offset, in the upper bits of their field.
const FRAGMENT_OFFSET: u16 = 0xfff8;
/// Type and length of the jumbo payload option.
const JUMBO_PAYLOAD: [u8; 2] = [0xc2, 4];

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv6Header {
    version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
    source: [[u8; 8]; 2],
    destination: [[u8; 8]; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for Ipv6Header {}

/// The first eight octets of every extension header; none is shorter.
#[derive(Clone, Copy)]
#[repr(C)]
struct ExtensionHeader {
    next_header: u8,
    length: u8,
    /// Fragment offset and flags, or the type and length of the first option.
    specific: [u8; 2],
    rest: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for ExtensionHeader {}

/// What is kept of an IPv6 header and its extension headers.
pub(crate) struct Ipv6 {
    /// Source and destination, as they lie on the wire.
    pub addresses: [u64; 4],
    /// Next header behind the last extension header that is walked.
    pub protocol: u8,
    pub traffic_class: u8,
    /// IP length that the header declares; to the end of the frame for a jumbogram.
    pub length_octets: u32,
    /// Octets of this packet in which a transport header may lie: 0 in a non-first fragment.
    pub transport_octets: u32,
}

/// Reads the header and walks the extension headers.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Ipv6, Outcome> {
    let available = cursor.remaining();
    let Some(header) = cursor.read::<Ipv6Header>() else {
        return Err(cursor.ended(Outcome::Ipv6Truncated));
    };
    let [version_class, class_flow, ..] = header.version_class_flow;
    if version_class >> 4 != VERSION {
        return Err(Outcome::Ipv6Version);
    }
    let mut length_octets = u32::from(u16::from_be_bytes(header.payload_length)) + HEADER_OCTETS;
    // A jumbogram is the only packet of payload length 0 in which an extension header can fit.
    let may_be_jumbogram = length_octets == HEADER_OCTETS && header.next_header == HOP_BY_HOP;
    if length_octets > available {
        return Err(Outcome::Ipv6PayloadLength);
    }

    let mut left = length_octets - HEADER_OCTETS;
    let mut protocol = header.next_header;
    let mut walked = 0;
    while walked < EXTENSION_HEADERS_MAX && is_extension(protocol) {
        if walked == 0 && may_be_jumbogram {
            left = available - HEADER_OCTETS;
        }
        if left < size_of::<ExtensionHeader>() as u32 {
            return Err(Outcome::Ipv6ExtensionHeader);
        }
        let Some(extension) = cursor.read::<ExtensionHeader>() else {
            return Err(cursor.ended(Outcome::Ipv6ExtensionHeader));
        };
        if walked == 0 && may_be_jumbogram {
            if extension.specific != JUMBO_PAYLOAD {
                return Err(Outcome::Ipv6ExtensionHeader);
            }
            length_octets = available;
        }
        let octets = match protocol {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(extension.length) + 2) * 4,
            _ => (u32::from(extension.length) + 1) * 8,
        };
        if left < octets {
            return Err(Outcome::Ipv6ExtensionHeader);
        }
        left -= octets;
        cursor.skip(octets - size_of::<ExtensionHeader>() as u32);
        let is_later_fragment =
            protocol == FRAGMENT && u16::from_be_bytes(extension.specific) & FRAGMENT_OFFSET != 0;
        protocol = extension.next_header;
        if is_later_fragment {
            left = 0;
            break;
        }
        walked += 1;
    }
    if walked == EXTENSION_HEADERS_MAX && is_extension(protocol) {
        return Err(Outcome::Ipv6ExtensionDepth);
    }

    let [source_high, source_low] = header.source;
    let [destination_high, destination_low] = header.destination;
    Ok(Ipv6 {
        addresses: [
            u64::from_ne_bytes(source_high),
            u64::from_ne_bytes(source_low),
            u64::from_ne_bytes(destination_high),
            u64::from_ne_bytes(destination_low),
        ],
        protocol,
        traffic_class: version_class << 4 | class_flow >> 4,
        length_octets,
        transport_octets: left,
    })
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6
    )
}
