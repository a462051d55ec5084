//! GRE (RFC 2784) with key and sequence number (RFC 2890).

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Frame, Header, Stop, Within};

/// Protocol number.
pub(crate) const PROTOCOL: u8 = 47;
/// Protocol type of a whole Ethernet frame (transparent Ethernet bridging).
pub(crate) const ETHERNET: u16 = 0x6558;

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE_NUMBER: u16 = 0x1000;
const VERSION: u16 = 0x0007;
/// Each of checksum, key and sequence number.
const OPTION_OCTETS: u32 = 4;

#[derive(Clone, Copy)]
#[repr(C)]
struct GreHeader {
    flags_version: [u8; 2],
    protocol_type: [u8; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for GreHeader {}

/// Reads the header, advances behind its options and returns the type of what follows; `NonIp`
/// for another version, as in PPTP.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<Within<impl Frame>>) -> Result<u16, Stop> {
    let Some(header) = cursor.read::<GreHeader>() else {
        return Err(Stop::Ended(Outcome::GreTruncated));
    };
    let flags = u16::from_be_bytes(header.flags_version);
    if flags & VERSION != 0 {
        return Err(Stop::Found(Outcome::NonIp));
    }
    if flags & ROUTING != 0 {
        return Err(Stop::Found(Outcome::GreRouting));
    }
    let options_octets = [CHECKSUM, KEY, SEQUENCE_NUMBER]
        .map(|flag| if flags & flag == 0 { 0 } else { OPTION_OCTETS })
        .iter()
        .sum::<u32>();
    if !cursor.holds(options_octets) {
        return Err(Stop::Found(Outcome::GreTruncated));
    }
    cursor.skip(options_octets);
    Ok(u16::from_be_bytes(header.protocol_type))
}
