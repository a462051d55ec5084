//! TCP (RFC 9293): ports and control bits.

use crate::cursor::{Cursor, Header};

/// Protocol number.
pub(crate) const PROTOCOL: u8 = 6;
/// Octets of the header without options.
pub(crate) const HEADER_OCTETS: u32 = size_of::<TcpHeader>() as u32;

/// Everything behind the data offset in its 16-bit field (IE 6, RFC 7125).
const CONTROL_BITS: u16 = 0x0fff;

#[derive(Clone, Copy)]
#[repr(C)]
struct TcpHeader {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    sequence_number: [u8; 4],
    acknowledgment_number: [u8; 4],
    offset_control_bits: [u8; 2],
    window: [u8; 2],
    checksum: [u8; 2],
    urgent_pointer: [u8; 2],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for TcpHeader {}

/// Reads ports and control bits; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Option<((u16, u16), u16)> {
    let header = cursor.read::<TcpHeader>()?;
    Some((
        (u16::from_be_bytes(header.source_port), u16::from_be_bytes(header.destination_port)),
        u16::from_be_bytes(header.offset_control_bits) & CONTROL_BITS,
    ))
}
