//! SCTP (RFC 9260): the ports of the common header.

use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header};

/// Protocol number.
pub(crate) const PROTOCOL: u8 = 132;
/// Octets of the header.
pub(crate) const HEADER_OCTETS: u32 = size_of::<SctpHeader>() as u32;

#[derive(Clone, Copy)]
#[repr(C)]
struct SctpHeader {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    verification_tag: [u8; 4],
    checksum: [u8; 4],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for SctpHeader {}

/// Reads the ports; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Option<(u16, u16)> {
    let passed = cursor.pass::<SctpHeader>()?;
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
    fn ports_of_a_whole_header() {
        let header = [0x0b, 0x59, 0xff, 0xfe, 1, 1, 1, 1, 2, 2, 2, 2, 0, 3, 0, 16];
        check_transport(super::PROTOCOL, &header, 12, (2905, 65534), 0);
    }
}
