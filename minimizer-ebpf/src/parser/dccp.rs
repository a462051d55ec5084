//! DCCP (RFC 4340): the ports of the generic header in its shorter form.

use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header};

/// Protocol number.
pub(crate) const PROTOCOL: u8 = 33;
/// Octets of the header.
pub(crate) const HEADER_OCTETS: u32 = size_of::<DccpHeader>() as u32;

#[derive(Clone, Copy)]
#[repr(C)]
struct DccpHeader {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    data_offset: u8,
    coverage: u8,
    checksum: [u8; 2],
    type_sequence: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for DccpHeader {}

/// Reads the ports; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Option<(u16, u16)> {
    let passed = cursor.pass::<DccpHeader>()?;
    if cursor.omits(Steps::NO_PORTS) {
        return Some((0, 0));
    }
    let header = passed.copy();
    Some((u16::from_be_bytes(header.source_port), u16::from_be_bytes(header.destination_port)))
}

#[cfg(test)]
mod tests {
    use crate::parser::frames::check_transport;

    #[test]
    fn ports_of_either_form() {
        // With 48-bit sequence numbers the header is 16 octets long; the ports lie in the first 12 of both.
        for form in [2 << 1, 2 << 1 | 1] {
            let header = [0x13, 0x8b, 0x13, 0x8c, 4, 0, 7, 7, form, 0, 0, 1, 0, 0, 0, 2];
            check_transport(super::PROTOCOL, &header, 12, (5003, 5004), 0);
        }
    }
}
