//! Ethernet II (IEEE 802.3): the EtherType behind two addresses that are not read.

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Header};

#[derive(Clone, Copy)]
#[repr(C)]
struct EthernetHeader {
    addresses: [u8; 12],
    ether_type: [u8; 2],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for EthernetHeader {}

/// Reads the header and returns the EtherType, or the length field of an 802.3 frame.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<u16, Outcome> {
    match cursor.read::<EthernetHeader>() {
        Some(header) => Ok(u16::from_be_bytes(header.ether_type)),
        None => Err(cursor.ended(Outcome::EthernetTruncated)),
    }
}
