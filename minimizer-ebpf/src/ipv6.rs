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

/// How the length of an extension header is computed from its length field.
#[derive(Clone, Copy)]
#[repr(C)]
struct Extension {
    /// Bits of the length field that count.
    length_mask: u8,
    /// Units beyond those that the length field names; 0 for a protocol that is no extension header.
    units: u8,
    /// Octets in a unit, as a power of two.
    unit_shift: u8,
    /// Whether it is the fragment header.
    is_fragment: u8,
}

/// Extension headers by protocol number: a table, because each comparison would be a branch that the
/// verifier follows for each of the headers in turn.
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
    if length_octets > available {
        return Err(Outcome::Ipv6PayloadLength);
    }
    if length_octets == HEADER_OCTETS && header.next_header == HOP_BY_HOP {
        check_jumbogram(cursor)?;
        length_octets = available;
    }

    let mut left = length_octets - HEADER_OCTETS;
    let mut protocol = header.next_header;
    let mut walked = 0;
    loop {
        let kind = EXTENSIONS[protocol as usize];
        if kind.units == 0 {
            break;
        }
        if walked == EXTENSION_HEADERS_MAX {
            return Err(Outcome::Ipv6ExtensionDepth);
        }
        walked += 1;
        if left < EXTENSION_OCTETS_MIN {
            return Err(Outcome::Ipv6ExtensionHeader);
        }
        let Some(extension) = cursor.read::<ExtensionHeader>() else {
            return Err(cursor.ended(Outcome::Ipv6ExtensionHeader));
        };
        let units = u32::from(extension.length & kind.length_mask) + u32::from(kind.units);
        let octets = units << (kind.unit_shift & 3);
        if left < octets {
            return Err(Outcome::Ipv6ExtensionHeader);
        }
        left -= octets;
        cursor.skip(octets - EXTENSION_OCTETS_MIN);
        protocol = extension.next_header;
        if kind.is_fragment != 0 && u16::from_be_bytes(extension.specific) & FRAGMENT_OFFSET != 0 {
            left = 0;
            break;
        }
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

/// A packet of payload length 0 with a hop-by-hop header is a jumbogram if the jumbo payload option
/// comes first in it, as it does in those that Linux sends; else no header fits in its length.
#[inline(always)]
fn check_jumbogram(cursor: &Cursor<'_>) -> Result<(), Outcome> {
    if cursor.remaining() < EXTENSION_OCTETS_MIN {
        return Err(Outcome::Ipv6ExtensionHeader);
    }
    match cursor.peek::<ExtensionHeader>() {
        Some(first) if first.specific == JUMBO_PAYLOAD => Ok(()),
        Some(_) => Err(Outcome::Ipv6ExtensionHeader),
        None => Err(cursor.ended(Outcome::Ipv6ExtensionHeader)),
    }
}
