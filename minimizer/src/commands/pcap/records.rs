//! The pcap format (draft-ietf-opsawg-pcap): a file header, then one record per frame.

use pcap_parser::{
    Linktype, PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
};

use super::source::Source;
use super::{Captured, Damage, FRAME_OCTETS_MAX, Stop, Unit};

/// Magic numbers as they lie in the file: micro- and nanoseconds in either byte order, and the
/// little-endian variant with longer record headers ("modified", Kuznetzov).
const MAGIC_NUMBERS: [[u8; 4]; 5] = [
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0x34, 0xcd, 0xb2, 0xa1],
];
const FILE_HEADER_OCTETS: usize = 24;
const RECORD_HEADER_OCTETS: usize = 16;
const MODIFIED_RECORD_HEADER_OCTETS: usize = 24;
/// Mask of the link type in its field; the bits above describe frame check sequences.
const LINK_TYPE: i32 = 0xffff;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// The frames of a pcap file.
pub(super) struct Records {
    header: PcapHeader,
}

impl Records {
    /// Whether a file with this start is a pcap file.
    pub(super) fn recognize(start: &[u8]) -> bool {
        MAGIC_NUMBERS.iter().any(|magic| start.starts_with(magic))
    }

    pub(super) fn open(source: &mut Source) -> Result<Self, Stop> {
        if !source.fill(FILE_HEADER_OCTETS)? {
            return Err(Damage::EndsInside(Unit::FileHeader).into());
        }
        let Ok((_, header)) = parse_pcap_header(source.take(FILE_HEADER_OCTETS)) else {
            return Err(Damage::EndsInside(Unit::FileHeader).into());
        };
        let link_type = Linktype(header.network.0 & LINK_TYPE);
        if link_type != Linktype::ETHERNET {
            return Err(Stop::LinkType(link_type));
        }
        Ok(Self { header })
    }

    pub(super) fn next<'a>(&mut self, source: &'a mut Source) -> Result<Option<Captured<'a>>, Stop> {
        source.advance();
        if !source.fill(1)? {
            return Ok(None);
        }
        let is_modified = self.header.is_modified_format();
        let header_octets = if is_modified { MODIFIED_RECORD_HEADER_OCTETS } else { RECORD_HEADER_OCTETS };
        let is_whole = source.fill(header_octets)?;
        let captured_octets = source.data().get(8..12).and_then(|field| field.try_into().ok());
        let (true, Some(captured_octets)) = (is_whole, captured_octets) else {
            return Err(Damage::EndsInside(Unit::Record).into());
        };
        let is_big_endian = self.header.is_bigendian();
        let captured_octets = if is_big_endian {
            u32::from_be_bytes(captured_octets)
        } else {
            u32::from_le_bytes(captured_octets)
        };
        if captured_octets > FRAME_OCTETS_MAX {
            return Err(Damage::FrameLength(captured_octets).into());
        }
        let record_octets = header_octets + captured_octets as usize;
        if !source.fill(record_octets)? {
            return Err(Damage::EndsInside(Unit::Record).into());
        }
        let parse = match (is_modified, is_big_endian) {
            (true, _) => parse_pcap_frame_modified,
            (false, true) => parse_pcap_frame_be,
            (false, false) => parse_pcap_frame,
        };
        let Ok((_, record)) = parse(source.take(record_octets)) else {
            return Err(Damage::EndsInside(Unit::Record).into());
        };
        let fraction_ns = if self.header.is_nanosecond_precision() { 1 } else { 1000 };
        Ok(Some(Captured {
            data: record.data,
            original_octets: record.origlen,
            time_ns: u64::from(record.ts_sec) * NANOSECONDS_PER_SECOND
                + u64::from(record.ts_usec) * fraction_ns,
        }))
    }
}
