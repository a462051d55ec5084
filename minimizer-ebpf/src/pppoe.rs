//! PPPoE session (RFC 2516) and the PPP protocol field behind it.

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Header};

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
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<u16, Outcome> {
    let Some(header) = cursor.read::<PppoeHeader>() else {
        return Err(cursor.ended(Outcome::PppoeTruncated));
    };
    if header.version_type != VERSION_TYPE || header.code != CODE_SESSION {
        return Err(Outcome::PppoeHeader);
    }
    cursor.forget(u16::from_be_bytes(header.session_id));
    Ok(u16::from_be_bytes(header.ppp_protocol))
}
