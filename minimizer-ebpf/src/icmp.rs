//! ICMP (RFC 792) and ICMPv6 (RFC 4443): type and code. A quoted packet is payload.

use crate::cursor::{Cursor, Header};

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
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Option<(u16, u16)> {
    let header = cursor.read::<IcmpHeader>()?;
    Some((u16::from(header.message_type), u16::from(header.code)))
}
