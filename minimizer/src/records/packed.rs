//! The records of a batch, packed while they wait: 32 octets in a narrow slot, 64 in a wide one. A [`Record`] takes 96, so
//! users unpack a few thousand at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use minimizer_common::slot::{Counted, Half, Line, Narrow, Wide};

use crate::kernel::wall_clock::TimeUnits;
use crate::policy::compile::CompiledPolicy;
use crate::records::merge::{Flow, Merge};
use crate::records::record::Record;

/// Slots count in fewer bits than records. Two slots whose sum would not fit stay two.
impl Flow for Half {
    type Key = [u64; 3];

    fn key(&self) -> Self::Key {
        Narrow::key(self)
    }

    fn absorb(&mut self, other: &Self) -> bool {
        Narrow::absorb(self, other)
    }
}

impl Flow for Line {
    type Key = [u64; 7];

    fn key(&self) -> Self::Key {
        Wide::key(self)
    }

    fn absorb(&mut self, other: &Self) -> bool {
        Wide::absorb(self, other)
    }
}

/// Merges slots of the same flow: it may be in the tables of several CPUs, and many times in a spill log.
#[derive(Debug, Default)]
pub struct Packing {
    narrow: Merge<Half>,
    wide: Merge<Line>,
}

impl Packing {
    /// Adds a narrow slot of a quiet generation.
    pub fn add_narrow(&mut self, half: &Half) {
        self.narrow.add(*half);
    }

    /// Adds a wide slot of a quiet generation.
    pub fn add_wide(&mut self, line: &Line) {
        self.wide.add(*line);
    }

    /// Takes out what was added since the last call.
    pub fn take(&mut self, decoder: SlotDecoder) -> Packed {
        let (mut narrow, mut wide) = (self.narrow.take(), self.wide.take());
        // They may wait for hours: the room that was left for more would wait with them.
        narrow.shrink_to_fit();
        wide.shrink_to_fit();
        Packed { narrow, wide, decoder }
    }
}

/// Turns slots into records.
pub struct SlotDecoder {
    compiled: Arc<CompiledPolicy>,
    time: TimeUnits,
    interfaces: usize,
    /// By interface slot; empty where the interface is not collected.
    if_indices: Vec<u32>,
}

impl SlotDecoder {
    /// A decoder of slots that were collected under this policy and with this unit of time. `if_indices` has the index of
    /// the interface in each interface slot.
    #[must_use]
    pub fn new(compiled: &Arc<CompiledPolicy>, time: TimeUnits, if_indices: &[u32]) -> Self {
        let interfaces = if_indices.len();
        // Where the interface is not collected, every slot says 0, which is also the number of an interface slot.
        let if_indices = if compiled.has_interface() { if_indices.to_vec() } else { Vec::new() };
        Self { compiled: Arc::clone(compiled), time, interfaces, if_indices }
    }

    /// How many interface slots are in use.
    pub(super) const fn interfaces(&self) -> usize {
        self.interfaces
    }

    /// Whether slots tell both the interface and the protocol.
    pub(super) fn has_protocols(&self) -> bool {
        self.compiled.collected.has_protocols()
    }

    /// How many indicators a slot can name.
    pub(super) fn selectors(&self) -> usize {
        if self.compiled.has_selector() { self.compiled.selector_ids.len() } else { 0 }
    }

    /// Packets by the ids of indicators, from packets by their positions in the policy. Zeros are left out.
    pub(super) fn by_selector_id(&self, packets: &[u64]) -> BTreeMap<u64, u64> {
        let mut selected = BTreeMap::new();
        for (id, packets) in
            self.compiled.selector_ids.iter().zip(packets).filter(|(_, packets)| **packets != 0)
        {
            *selected.entry(*id).or_default() += packets;
        }
        selected
    }

    fn record(&self, counted: Counted) -> Record {
        let Counted { tuple, control_bits, packets, octets, first, last } = counted;
        let interface = usize::try_from(tuple.tags().interface()).unwrap_or(usize::MAX);
        Record {
            tuple,
            ingress_interface: self.if_indices.get(interface).copied().unwrap_or(0),
            control_bits,
            packets,
            octets,
            start_ms: self.time.milliseconds(first),
            end_ms: self.time.milliseconds(last),
            selector_id: self.compiled.selector_id(tuple.selector),
        }
    }
}

/// Records, one for each distinct tuple, in no particular order.
pub struct Packed {
    narrow: Vec<Half>,
    wide: Vec<Line>,
    decoder: SlotDecoder,
}

impl Packed {
    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory that the records occupy.
    #[must_use]
    pub fn octets(&self) -> u64 {
        let octets = self.narrow.capacity() * size_of::<Half>()
            + self.wide.capacity() * size_of::<Line>()
            + self.decoder.if_indices.capacity() * size_of::<u32>();
        u64::try_from(octets).unwrap_or(u64::MAX)
    }

    /// Unpacks all records, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        let narrow = self.narrow.iter().map(|narrow| self.decoder.record(Narrow::counted(narrow)));
        narrow.chain(self.wide.iter().map(|line| self.decoder.record(Wide::counted(line))))
    }

    /// Unpacks the records at these positions into `buffer`, which is emptied first.
    pub fn unpack(&self, positions: Range<usize>, buffer: &mut Vec<Record>) {
        let of = |start: usize, length: usize| {
            let inside = |position: usize| position.saturating_sub(start).min(length);
            inside(positions.start)..inside(positions.end)
        };
        let narrow = &self.narrow[of(0, self.narrow.len())];
        let wide = &self.wide[of(self.narrow.len(), self.wide.len())];
        buffer.clear();
        buffer.extend(narrow.iter().map(|narrow| self.decoder.record(Narrow::counted(narrow))));
        buffer.extend(wide.iter().map(|line| self.decoder.record(Wide::counted(line))));
    }
}

#[cfg(test)]
mod tests {
    use minimizer_common::slot::{Count, Half, Line, Narrow, Wide};
    use minimizer_common::tunnel::Tunnels;
    use minimizer_common::tuple::{Tags, Tuple};

    use super::{Packing, SlotDecoder};
    use crate::kernel::wall_clock::TimeUnits;
    use crate::policy::compile::CompiledPolicy;
    use crate::records::merge::Flow as _;

    const TAGS: Tags = Tags::NONE.with_interface(1);

    fn count(octets: u64, control_bits: u16, (first, last): (u32, u32)) -> Count {
        Count { octets, control_bits, first, last }
    }

    fn narrow(address: u64, packets: u64, octets: u64, bits: u16, times: (u32, u32)) -> Half {
        let tuple = Tuple::new([address, 0, 0, 0], (1000, 443), TAGS, 6, 0x2e);
        let mut slot = Narrow::ipv4(&tuple, &count(octets, bits, times));
        slot[3] += (packets - 1) * Narrow::ONE_PACKET;
        Half(slot)
    }

    fn wide(address: u64, packets: u64, octets: u64, bits: u16, times: (u32, u32)) -> Line {
        let tuple = Tuple::new([address, 0, 0, 9], (1000, 443), TAGS.with_ipv6(), 6, 0x2e);
        let mut slot = Wide::of(&tuple, &count(octets, bits, times));
        slot[6] += (packets - 1) * Wide::ONE_PACKET;
        zerocopy::transmute!(slot)
    }

    fn decoder() -> SlotDecoder {
        let time = TimeUnits { base: 100, unit_ms: 1000 };
        SlotDecoder::new(&CompiledPolicy::full_record(Tunnels::NONE), time, &[3, 7])
    }

    #[test]
    fn what_is_unpacked_is_what_was_counted() {
        let mut packing = Packing::default();
        for index in 0..10 {
            packing.add_narrow(&narrow(index + 1, 1, 100, 2, (5, 6)));
            packing.add_wide(&wide(index + 1, 1, 200, 2, (5, 6)));
        }
        packing.add_narrow(&narrow(4, 2, 50, 16, (4, 5)));
        packing.add_wide(&wide(4, 3, 50, 16, (5, 9)));
        let packed = packing.take(decoder());
        assert_eq!((packed.len(), packed.octets()), (20, 10 * (32 + 64) + 2 * 4));
        let all: Vec<_> = packed.iter().collect();
        let mut buffer = Vec::new();
        for start in 0..=20 {
            for end in start..=20 {
                packed.unpack(start..end, &mut buffer);
                assert_eq!(buffer, all[start..end]);
            }
        }
        let merged = |address: [u64; 4]| {
            let record = all.iter().find(|record| record.tuple.addresses == address).copied().unwrap();
            assert_eq!((record.ingress_interface, record.control_bits), (7, 18));
            (record.packets, record.octets, record.start_ms, record.end_ms)
        };
        assert_eq!(merged([4, 0, 0, 0]), (3, 150, 104_000, 106_000));
        assert_eq!(merged([4, 0, 0, 9]), (4, 250, 105_000, 109_000));
        assert!(packing.take(decoder()).is_empty());
    }

    #[test]
    fn counts_that_do_not_fit_together_stay_apart() {
        const PACKETS_MAX: u64 = u32::MAX as u64;
        const NARROW_MAX: u64 = (1 << 36) - 1;
        const WIDE_MAX: u64 = (1 << 42) - 1;
        let most = (narrow(1, PACKETS_MAX, 1, 0, (1, 1)), wide(1, PACKETS_MAX, 1, 0, (1, 1)));
        let one = (narrow(1, 1, 1, 0, (1, 1)), wide(1, 1, 1, 0, (1, 1)));
        let heavy = (narrow(1, 1, NARROW_MAX, 0, (1, 1)), wide(1, 1, WIDE_MAX, 0, (1, 1)));
        for other in [&most, &heavy] {
            let (mut narrow, mut wide) = one;
            assert!(!narrow.absorb(&other.0) && !wide.absorb(&other.1));
            assert_eq!((narrow, wide), one, "nothing was added");
        }
        let mut packing = Packing::default();
        for (narrow, wide) in [&most, &one, &heavy] {
            packing.add_narrow(narrow);
            packing.add_wide(wide);
        }
        let mut sums = [(0, 0); 2];
        for record in packing.take(decoder()).iter() {
            let (packets, octets) = &mut sums[usize::from(record.tuple.tags().is_ipv6())];
            *packets += record.packets;
            *octets += record.octets;
        }
        assert_eq!(sums, [(PACKETS_MAX + 2, NARROW_MAX + 2), (PACKETS_MAX + 2, WIDE_MAX + 2)]);
    }
}
