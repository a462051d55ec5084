//! MPLS label stack (RFC 3032): up to eight labels; what is below them is told by its first nibble.

use minimizer_common::outcome::Outcome;

use crate::cursor::{Cursor, Header};

/// EtherType of unicast MPLS.
pub(crate) const UNICAST: u16 = 0x8847;
/// EtherType of MPLS with upstream-assigned labels (RFC 5332).
pub(crate) const UPSTREAM: u16 = 0x8848;
/// Labels in one stack.
pub(crate) const LABELS_MAX: usize = 8;

const BOTTOM_OF_STACK: u8 = 1;

#[derive(Clone, Copy)]
#[repr(C)]
struct MplsLabel {
    label: [u8; 2],
    label_class_bottom: u8,
    time_to_live: u8,
}
// SAFETY: a `repr(C)` struct of bytes.
unsafe impl Header for MplsLabel {}

/// Reads the stack and returns the first nibble behind it: 4 for IPv4, 6 for IPv6.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<u8, Outcome> {
    for _ in 0..LABELS_MAX {
        let Some(label) = cursor.read::<MplsLabel>() else {
            return Err(cursor.ended(Outcome::MplsTruncated));
        };
        if label.label_class_bottom & BOTTOM_OF_STACK != 0 {
            cursor.forget(u16::from_be_bytes(label.label));
            return cursor.peek_nibble().ok_or(cursor.ended(Outcome::NonIp));
        }
    }
    Err(Outcome::MplsDepth)
}
