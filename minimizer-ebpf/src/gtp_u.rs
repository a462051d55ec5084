//! GTP-U (3GPP TS 29.281): user data with its optional fields and extension headers.

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Frame, Header, Stop, Within};

/// UDP destination port.
pub(crate) const PORT: u16 = 2152;
/// Extension headers in one message.
pub(crate) const EXTENSION_HEADERS_MAX: usize = 8;

/// Version 1, protocol type GTP.
const VERSION_TYPE: u8 = 0x30;
const VERSION_TYPE_MASK: u8 = 0xf0;
/// The flags of which any makes the optional fields present: E, S, PN.
const OPTIONAL_FIELDS: u8 = 0x07;
const EXTENSION_HEADERS: u8 = 0x04;
/// Message type G-PDU: the message carries a user's packet.
const USER_DATA: u8 = 255;
/// Unit of an extension header's length.
const EXTENSION_UNIT_OCTETS: u32 = 4;

#[derive(Clone, Copy)]
#[repr(C)]
struct GtpUHeader {
    flags: u8,
    message_type: u8,
    /// Octets behind these eight.
    length: [u8; 2],
    tunnel_endpoint: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for GtpUHeader {}

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

/// Reads the header, ends the packet where the message ends and returns the first nibble of what is in
/// it. `NonIp` when the message carries no user's packet.
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

/// Each extension header names its length in its first octet and what follows in its last.
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
