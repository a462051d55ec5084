//! IPv4 (RFC 791): addresses, protocol, type of service, lengths, and whether a transport header follows.

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Header};

/// EtherType.
pub(crate) const ETHER_TYPE: u16 = 0x0800;
/// Version field, and first nibble below an MPLS stack.
pub(crate) const VERSION: u8 = 4;

const HEADER_OCTETS: u32 = size_of::<Ipv4Header>() as u32;
/// The 13 bits of the fragment offset.
const FRAGMENT_OFFSET: u16 = 0x1fff;

#[derive(Clone, Copy)]
#[repr(C)]
struct Ipv4Header {
    version_header_length: u8,
    type_of_service: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    flags_fragment_offset: [u8; 2],
    time_to_live: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for Ipv4Header {}

/// What is kept of an IPv4 header.
pub(crate) struct Ipv4 {
    /// Source in the low, destination in the high half, as they lie on the wire.
    pub addresses: u64,
    pub protocol: u8,
    pub type_of_service: u8,
    /// IP length that the header declares.
    pub length_octets: u32,
    /// Octets of this packet behind the header in which a transport header may lie: 0 in a
    /// non-first fragment.
    pub transport_octets: u32,
}

/// Reads the header and advances behind its options.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Ipv4, Outcome> {
    let available = cursor.remaining();
    let Some(header) = cursor.read::<Ipv4Header>() else {
        return Err(cursor.ended(Outcome::Ipv4Truncated));
    };
    if header.version_header_length >> 4 != VERSION {
        return Err(Outcome::Ipv4Version);
    }
    let header_octets = u32::from(header.version_header_length & 0x0f) * 4;
    if header_octets < HEADER_OCTETS {
        return Err(Outcome::Ipv4HeaderLength);
    }
    let total_length = u32::from(u16::from_be_bytes(header.total_length));
    if total_length < header_octets || total_length > available {
        return Err(Outcome::Ipv4TotalLength);
    }
    cursor.skip(header_octets - HEADER_OCTETS);
    let is_first = u16::from_be_bytes(header.flags_fragment_offset) & FRAGMENT_OFFSET == 0;
    Ok(Ipv4 {
        addresses: u64::from(u32::from_ne_bytes(header.source))
            | u64::from(u32::from_ne_bytes(header.destination)) << 32,
        protocol: header.protocol,
        type_of_service: header.type_of_service,
        length_octets: total_length,
        transport_octets: if is_first { total_length - header_octets } else { 0 },
    })
}
