//! VLAN tags (IEEE 802.1Q and 802.1ad): up to four, the two outermost are kept.

use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tags;

use crate::cursor::{Cursor, Header};

/// Customer tag.
pub(crate) const C_TAG: u16 = 0x8100;
/// Service tag.
pub(crate) const S_TAG: u16 = 0x88a8;
/// Service tag of equipment older than 802.1ad.
pub(crate) const OLD_S_TAG: u16 = 0x9100;
/// Tags in one frame.
pub(crate) const TAGS_MAX: usize = 4;

#[derive(Clone, Copy)]
#[repr(C)]
struct VlanTag {
    control: [u8; 2],
    ether_type: [u8; 2],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for VlanTag {}

/// Whether `ether_type` announces a VLAN tag.
#[inline(always)]
pub(crate) const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, C_TAG | S_TAG | OLD_S_TAG)
}

/// Reads the stack of tags that the tag type `ether_type` announces; returns the tags and the
/// EtherType behind them.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>, ether_type: u16) -> Result<(Tags, u16), Outcome> {
    let mut tags = Tags::NONE;
    let mut ether_type = ether_type;
    let mut control = 0;
    for _ in 0..TAGS_MAX {
        if !is_tag(ether_type) {
            break;
        }
        let Some(tag) = cursor.read::<VlanTag>() else {
            return Err(cursor.ended(Outcome::VlanTruncated));
        };
        control = u16::from_be_bytes(tag.control);
        tags = tags.with_vlan(control);
        ether_type = u16::from_be_bytes(tag.ether_type);
    }
    if is_tag(ether_type) {
        return Err(Outcome::VlanDepth);
    }
    cursor.forget(control);
    Ok((tags, ether_type))
}
