//! UDP (RFC 768) and UDP-Lite (RFC 3828). Both have their ports at the same place.

use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header};

/// Protocol number of UDP.
pub(crate) const PROTOCOL: u8 = 17;
/// Protocol number of UDP-Lite.
pub(crate) const LITE_PROTOCOL: u8 = 136;
/// Octets of the header.
pub(crate) const HEADER_OCTETS: u32 = size_of::<UdpHeader>() as u32;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct UdpHeader {
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    length_or_coverage: [u8; 2],
    checksum: [u8; 2],
}
// SAFETY: a `repr(C)` struct of bytes and byte arrays.
unsafe impl Header for UdpHeader {}

/// Reads the ports; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Option<(u16, u16)> {
    let passed = cursor.pass::<UdpHeader>()?;
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
        // The length field (or coverage) contradicts the packet. The room ignores it.
        for length in [[0, 8], [0, 0], [0xff, 0xff]] {
            let header = [0x13, 0x88, 0x00, 0x35, length[0], length[1], 0xab, 0xcd, 9, 9];
            check_transport(super::PROTOCOL, &header, 8, (5000, 53), 0);
            check_transport(super::LITE_PROTOCOL, &header, 8, (5000, 53), 0);
        }
    }
}
