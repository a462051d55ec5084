//! VXLAN (RFC 7348).

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Frame, Header, Stop, Within};

/// UDP destination port.
pub(crate) const PORT: u16 = 4789;

/// The I flag: the network identifier is valid. Without it the octets are not VXLAN.
const IDENTIFIER_VALID: u8 = 0x08;

#[derive(Clone, Copy)]
#[repr(C)]
struct VxlanHeader {
    flags: u8,
    reserved: [u8; 3],
    network_identifier: [u8; 3],
    reserved_too: u8,
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for VxlanHeader {}

/// Reads the header, behind which an Ethernet frame lies; `NonIp` when none does.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<Within<impl Frame>>) -> Result<(), Stop> {
    match cursor.read::<VxlanHeader>() {
        Some(header) if header.flags & IDENTIFIER_VALID != 0 => Ok(()),
        Some(_) => Err(Stop::Found(Outcome::NonIp)),
        None => Err(Stop::Ended(Outcome::VxlanTruncated)),
    }
}
