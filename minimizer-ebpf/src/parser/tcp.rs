//! TCP (RFC 9293): ports and control bits.

use minimizer_common::plan::Steps;

use crate::parser::cursor::{Cursor, Frame, Header};

/// Protocol number.
pub(crate) const PROTOCOL: u8 = 6;
/// Octets of the header without options.
pub(crate) const HEADER_OCTETS: u32 = size_of::<TcpHeader>() as u32;

/// Everything behind the data offset in its 16-bit field (IE 6, RFC 7125).
pub(crate) const CONTROL_BITS: u16 = 0x0fff;

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TcpHeader {
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    sequence_number: [u8; 4],
    acknowledgment_number: [u8; 4],
    offset_control_bits: [u8; 2],
    window: [u8; 2],
    checksum: [u8; 2],
    urgent_pointer: [u8; 2],
}
// SAFETY: a `repr(C)` struct of byte arrays.
unsafe impl Header for TcpHeader {}

impl TcpHeader {
    #[inline(always)]
    pub(crate) const fn control_bits(&self) -> u16 {
        u16::from_be_bytes(self.offset_control_bits) & CONTROL_BITS
    }
}

/// Reads ports and control bits; `None` when the frame ends first.
#[inline(always)]
pub(crate) fn read(cursor: &mut Cursor<impl Frame>) -> Option<((u16, u16), u16)> {
    let passed = cursor.pass::<TcpHeader>()?;
    let ports = if cursor.omits(Steps::NO_PORTS) {
        (0, 0)
    } else {
        let TcpHeader { source_port, destination_port, .. } = passed.copy();
        (u16::from_be_bytes(source_port), u16::from_be_bytes(destination_port))
    };
    let control_bits = if cursor.omits(Steps::NO_CONTROL_BITS) { 0 } else { passed.copy().control_bits() };
    Some((ports, control_bits))
}

#[cfg(test)]
mod tests {
    use crate::parser::frames::check_transport;

    const HEADER: [u8; 24] =
        [0x30, 0x39, 0x01, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 0x60, 0x12, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];

    #[test]
    fn ports_and_control_bits_of_a_whole_header() {
        check_transport(super::PROTOCOL, &HEADER, 20, (12345, 443), 0x012);
    }

    #[test]
    fn all_twelve_control_bits_and_not_the_data_offset() {
        for (octets, control_bits) in
            [([0x5f, 0xff], 0xfff), ([0x51, 0xc2], 0x1c2), ([0xf0, 0x00], 0), ([0, 2], 2)]
        {
            let mut header = HEADER;
            header[12..14].copy_from_slice(&octets);
            check_transport(super::PROTOCOL, &header, 20, (12345, 443), control_bits);
        }
    }

    #[test]
    fn ports_at_their_ends() {
        let mut header = HEADER;
        header[..4].copy_from_slice(&[0xff, 0xff, 0, 0]);
        check_transport(super::PROTOCOL, &header, 20, (65535, 0), 0x012);
    }
}
