//! The pcapng format (draft-ietf-opsawg-pcapng): sections of blocks, some of which hold a frame.
//!
//! Blocks are split here and not by the parser: it asks for more input if the content of a block contradicts
//! its length.

use pcap_parser::{
    Block, EPB_MAGIC, IDB_MAGIC, InterfaceDescriptionBlock, Linktype, OptionCode, SPB_MAGIC, parse_block_be,
    parse_block_le,
};

use super::source::Source;
use super::{Captured, Damage, Stop, Unit};

/// Type of a section header block, the same in both byte orders.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type of the obsolete packet block, the predecessor of the enhanced packet block.
const PACKET: u32 = 2;
/// Type, length, and the length again.
const BLOCK_OCTETS_MIN: u32 = 12;
/// Far more than any frame, yet small enough that a damaged length does not exhaust memory.
const BLOCK_OCTETS_MAX: u32 = 16 << 20;
/// Default resolution of times.
const MICROSECONDS: u8 = 6;

/// The frames of a pcapng file.
#[derive(Default)]
pub(super) struct Blocks {
    is_big_endian: bool,
    /// The interfaces that the section has described.
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Interface {
    link_type: Linktype,
    snap_octets: u32,
    time: TimeUnit,
}

/// How an interface counts time.
#[derive(Clone, Copy)]
struct TimeUnit {
    /// `if_tsresol`: negative power of 10, or of 2 when the highest bit is set.
    resolution: u8,
    /// `if_tsoffset`: seconds to add.
    offset_s: i64,
}

/// A packet of any of the three blocks, before its interface is looked up.
struct Packet<'a> {
    interface: u32,
    /// Time in units of the interface; `None` when the block has no time.
    time: Option<u64>,
    /// As captured, block padding included.
    data: &'a [u8],
    captured_octets: Option<u32>,
    original_octets: u32,
}

impl Blocks {
    /// Whether a file with this start is a pcapng file.
    pub(super) fn recognize(start: &[u8]) -> bool {
        start.starts_with(&SECTION_HEADER.to_be_bytes())
    }

    pub(super) fn next<'a>(&mut self, source: &'a mut Source) -> Result<Option<Captured<'a>>, Stop> {
        let (block_type, octets) = loop {
            source.advance();
            if !source.fill(1)? {
                return Ok(None);
            }
            let octets = self.block_octets(source)?;
            let block = source.take(octets);
            match self.number(block, 0).unwrap_or_default() {
                SECTION_HEADER => self.interfaces.clear(),
                IDB_MAGIC => {
                    let Block::InterfaceDescription(block) = self.parse(IDB_MAGIC, block)? else {
                        return Err(Damage::Content(IDB_MAGIC).into());
                    };
                    let interface = Interface::of(&block, self.is_big_endian);
                    self.interfaces.push(interface);
                }
                block_type @ (EPB_MAGIC | SPB_MAGIC | PACKET) => break (block_type, octets),
                // Names, statistics, secrets and future types hold no frame.
                _ => {}
            }
        };
        let block = self.parse(block_type, source.take(octets))?;
        let packet = self.packet(&block).ok_or(Damage::Content(block_type))?;
        self.captured(&packet).map(Some)
    }

    /// The length of the block at the source, which is then buffered; sets the byte order.
    fn block_octets(&mut self, source: &mut Source) -> Result<usize, Stop> {
        if !source.fill(BLOCK_OCTETS_MIN as usize)? {
            return Err(Damage::EndsInside(Unit::Block).into());
        }
        let word = |data: &[u8], at: usize| {
            let field = data.get(at..at + 4).and_then(|field| field.try_into().ok());
            field.ok_or(Damage::EndsInside(Unit::Block))
        };
        if Self::recognize(source.data()) {
            let magic = word(source.data(), 8)?;
            self.is_big_endian = u32::from_be_bytes(magic) == BYTE_ORDER_MAGIC;
            if !self.is_big_endian && u32::from_le_bytes(magic) != BYTE_ORDER_MAGIC {
                return Err(Damage::ByteOrder(u32::from_be_bytes(magic)).into());
            }
        }
        let number = if self.is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let start = number(word(source.data(), 4)?);
        if !(BLOCK_OCTETS_MIN..=BLOCK_OCTETS_MAX).contains(&start) || start % 4 != 0 {
            return Err(Damage::BlockLength(start).into());
        }
        let octets = start as usize;
        if !source.fill(octets)? {
            return Err(Damage::EndsInside(Unit::Block).into());
        }
        let end = number(word(source.data(), octets - 4)?);
        if end != start {
            return Err(Damage::BlockLengths { start, end }.into());
        }
        Ok(octets)
    }

    fn parse<'a>(&self, block_type: u32, block: &'a [u8]) -> Result<Block<'a>, Stop> {
        let parse = if self.is_big_endian { parse_block_be } else { parse_block_le };
        match parse(block) {
            Ok((_, block)) => Ok(block),
            Err(_) => Err(Damage::Content(block_type).into()),
        }
    }

    fn packet<'a>(&self, block: &Block<'a>) -> Option<Packet<'a>> {
        let time = |high: u32, low: u32| Some(u64::from(high) << 32 | u64::from(low));
        Some(match block {
            Block::EnhancedPacket(block) => Packet {
                interface: block.if_id,
                time: time(block.ts_high, block.ts_low),
                data: block.data,
                captured_octets: Some(block.caplen),
                original_octets: block.origlen,
            },
            Block::SimplePacket(block) => Packet {
                interface: 0,
                time: None,
                data: block.data,
                captured_octets: None,
                original_octets: block.origlen,
            },
            // interface, drops (16 bits each), time high, low, captured, original length, data
            Block::Unknown(block) => Packet {
                interface: self
                    .number(block.data, 0)
                    .map(|word| if self.is_big_endian { word >> 16 } else { word & 0xffff })?,
                time: time(self.number(block.data, 4)?, self.number(block.data, 8)?),
                data: block.data.get(20..)?,
                captured_octets: Some(self.number(block.data, 12)?),
                original_octets: self.number(block.data, 16)?,
            },
            _ => return None,
        })
    }

    fn captured<'a>(&self, packet: &Packet<'a>) -> Result<Captured<'a>, Stop> {
        let interface = usize::try_from(packet.interface).ok().and_then(|index| self.interfaces.get(index));
        let Some(interface) = interface else {
            let described = self.interfaces.len();
            return Err(Damage::Interface { interface: packet.interface, described }.into());
        };
        if interface.link_type != Linktype::ETHERNET {
            return Err(Stop::LinkType(interface.link_type));
        }
        // A simple packet block has no captured length: the interface's snap length limits it.
        let captured_octets = packet.captured_octets.unwrap_or_else(|| match interface.snap_octets {
            0 => packet.original_octets,
            snap_octets => packet.original_octets.min(snap_octets),
        });
        let Some(data) = packet.data.get(..captured_octets as usize) else {
            return Err(Damage::Captured { claimed: captured_octets, held: packet.data.len() }.into());
        };
        let time_ns = packet.time.map_or(0, |time| interface.time.nanoseconds(time));
        Ok(Captured { data, original_octets: packet.original_octets, time_ns })
    }

    fn number(&self, data: &[u8], at: usize) -> Option<u32> {
        let field = data.get(at..at + 4)?.try_into().ok()?;
        Some(if self.is_big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) })
    }
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>, is_big_endian: bool) -> Self {
        let option = |code: OptionCode| {
            let option = block.options.iter().find(|option| option.code == code)?;
            option.as_bytes().ok()
        };
        let resolution = option(OptionCode::IfTsresol).and_then(|value| value.first().copied());
        // Read here: the parser treats it as little-endian in every section.
        let offset_s = option(OptionCode::IfTsoffset).and_then(|value| value.try_into().ok());
        let offset_s = offset_s.map(if is_big_endian { i64::from_be_bytes } else { i64::from_le_bytes });
        Self {
            link_type: block.linktype,
            snap_octets: block.snaplen,
            time: TimeUnit {
                resolution: resolution.unwrap_or(MICROSECONDS),
                offset_s: offset_s.unwrap_or_default(),
            },
        }
    }
}

impl TimeUnit {
    /// Converts a time in this unit to nanoseconds since 1970, saturated to 64 bits.
    fn nanoseconds(self, time: u64) -> u64 {
        const PER_SECOND: u128 = 1_000_000_000;
        let exponent = u32::from(self.resolution & 0x7f);
        let scaled = u128::from(time) * PER_SECOND;
        let nanoseconds = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent).map_or(0, |unit| scaled / unit)
        } else {
            scaled >> exponent
        };
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        let offset_ns = self.offset_s.unsigned_abs().saturating_mul(1_000_000_000);
        if self.offset_s < 0 {
            nanoseconds.saturating_sub(offset_ns)
        } else {
            nanoseconds.saturating_add(offset_ns)
        }
    }
}
