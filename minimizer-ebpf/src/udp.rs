//! UDP (RFC 768) and UDP-Lite (RFC 3828), whose ports lie alike.

use crate::cursor::{Cursor, Header};

/// Protocol number of UDP.
pub(crate) const PROTOCOL: u8 = 17;
/// Protocol number of UDP-Lite.
pub(crate) const LITE_PROTOCOL: u8 = 136;
/// Octets of the header.
pub(crate) const HEADER_OCTETS: u32 = size_of::<UdpHeader>() as u32;

#[derive(Clone, Copy)]
#[repr(C)]
struct UdpHeader {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    length_or_coverage: [u8; 2],
    checksum: [u8; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for UdpHeader {}

/// Reads the ports; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Option<(u16, u16)> {
    let header = cursor.read::<UdpHeader>()?;
    Some((u16::from_be_bytes(header.source_port), u16::from_be_bytes(header.destination_port)))
}
