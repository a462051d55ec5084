//! The records of a batch, packed while they wait: 32 octets in a narrow slot, 64 in a wide one. A [`Record`] takes 96, so
//! users unpack a few thousand at a time.

mod chunks;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use minimizer_common::slot::{Counted, Half, Line, Narrow, Wide};

use crate::kernel::wall_clock::TimeUnits;
use crate::policy::compile::CompiledPolicy;
use crate::records::merge::{Flow, Positions};
use crate::records::packed::chunks::Chunks;
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

/// Slots of one width.
#[derive(Debug)]
struct Gathered<R> {
    /// One for each flow.
    records: Chunks<R>,
    /// Positions in `records` of flows that may be in `displaced`, too.
    doubtful: Vec<u32>,
    /// Slots that do not lie in the first group of their flow: one for each flow.
    displaced: Chunks<R>,
    positions: Positions,
}

impl<R> Default for Gathered<R> {
    fn default() -> Self {
        Self {
            records: Chunks::default(),
            doubtful: Vec::new(),
            displaced: Chunks::default(),
            positions: Positions::default(),
        }
    }
}

impl<R: Flow + Copy> Gathered<R> {
    /// Adds what lies in the first group of a flow, on all CPUs. `is_elsewhere` says that other slots of the flow may be
    /// displaced.
    #[inline(always)]
    fn push(&mut self, record: &R, is_elsewhere: bool) {
        if is_elsewhere {
            self.doubtful.push(u32::try_from(self.records.len()).expect("there is no memory for more"));
        }
        self.records.push(*record);
    }

    /// Adds a displaced slot. Returns `false`, and adds nothing, if it does not fit together with another one of its flow.
    #[must_use]
    fn add(&mut self, record: &R) -> bool {
        let Self { displaced, positions, .. } = self;
        let key_of = |position: usize| displaced.get(position).key();
        if let Some(position) = positions.find_or_note(&record.key(), displaced.len(), key_of) {
            return displaced.get_mut(position).absorb(record);
        }
        displaced.push(*record);
        true
    }

    /// Brings displaced slots and others of the same flow together. Those that do not fit together with others go to
    /// `apart`.
    fn settle(&mut self, mut apart: impl FnMut(&R)) {
        let Self { records, doubtful, displaced, positions } = self;
        if displaced.len() != 0 {
            let mut is_settled = vec![false; displaced.len()];
            for position in doubtful.iter() {
                let record = records.get_mut(*position as usize);
                let found = positions.find(&record.key(), |position| displaced.get(position).key());
                if let Some(found) = found {
                    is_settled[found] = true;
                    if !record.absorb(displaced.get(found)) {
                        apart(displaced.get(found));
                    }
                }
            }
            for (record, is_settled) in displaced.iter().zip(is_settled) {
                if !is_settled {
                    records.push(*record);
                }
            }
            *displaced = Chunks::default();
            positions.clear();
        }
        doubtful.clear();
    }

    fn take(&mut self) -> Chunks<R> {
        let mut records = std::mem::take(&mut self.records);
        // They may wait for hours: the room that was left for more would wait with them.
        records.shrink_to_fit();
        records
    }
}

/// Gathers the records of a batch from slots. One flow can have several slots: on several CPUs, in a spill log, after its
/// counts came near the end of a slot, and in slots of both widths.
#[derive(Debug, Default)]
pub struct Packing {
    narrow: Gathered<Half>,
    wide: Gathered<Line>,
    /// Narrow slots whose counts do not fit together with others of the same flow.
    widened: Vec<Line>,
    /// Whether a flow can be both in `narrow` and in `wide`.
    has_both: bool,
}

impl Packing {
    /// Adds a narrow slot, wherever it lay.
    pub fn add_narrow(&mut self, half: &Half) {
        if !self.narrow.add(half) {
            self.widen(half);
        }
    }

    /// Adds a wide slot, wherever it lay.
    pub fn add_wide(&mut self, line: &Line) {
        self.has_both |= Wide::may_be_narrow_too(line);
        if !self.wide.add(line) {
            self.wide.records.push(*line);
        }
    }

    /// Adds all that the first group of a flow has in narrow slots. `is_elsewhere` says that there may be more.
    #[inline(always)]
    pub(super) fn push_narrow(&mut self, half: &Half, is_elsewhere: bool) {
        self.narrow.push(half, is_elsewhere);
    }

    /// Adds all that the first group of a flow has in wide slots. `is_elsewhere` says that there may be more.
    #[inline(always)]
    pub(super) fn push_wide(&mut self, line: &Line, is_elsewhere: bool) {
        self.has_both |= Wide::may_be_narrow_too(line);
        self.wide.push(line, is_elsewhere);
    }

    /// Adds a narrow slot that does not fit together with another one of its flow.
    pub(super) fn widen(&mut self, half: &Half) {
        self.widened.extend(Wide::of_many(&Narrow::counted(half)));
    }

    /// Takes out what was added since the last call.
    pub fn take(&mut self, decoder: SlotDecoder) -> Packed {
        let Self { narrow, wide, widened, has_both } = self;
        narrow.settle(|half| widened.extend(Wide::of_many(&Narrow::counted(half))));
        let mut apart = Vec::new();
        wide.settle(|line| apart.push(*line));
        if std::mem::take(has_both) || !widened.is_empty() {
            join_both(&mut narrow.records, &mut wide.records, std::mem::take(widened));
        }
        apart.iter().for_each(|line| wide.records.push(*line));
        Packed { narrow: narrow.take(), wide: wide.take(), decoder }
    }
}

/// Brings slots of both widths together in wide ones.
fn join_both(narrow: &mut Chunks<Half>, wide: &mut Chunks<Line>, widened: Vec<Line>) {
    let mut positions = Positions::default();
    for position in 0..wide.len() {
        let line = wide.get(position);
        if Wide::may_be_narrow_too(line) {
            positions.find_or_note(&line.key(), position, |position| wide.get(position).key());
        }
    }
    for line in widened {
        let found = positions.find_or_note(&line.key(), wide.len(), |position| wide.get(position).key());
        if !found.is_some_and(|position| wide.get_mut(position).absorb(&line)) {
            wide.push(line);
        }
    }
    narrow.retain(|half| {
        let Some(line) = Wide::of_many(&Narrow::counted(half)) else { return true };
        match positions.find(&line.key(), |position| wide.get(position).key()) {
            Some(position) => !wide.get_mut(position).absorb(&line),
            None => true,
        }
    });
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

/// How many slots [`Packed::unpack`] fetches before it unpacks them. They lie apart: memory is asked for all of them at once, and
/// not for one after the other.
const FETCHED: usize = 64;

/// Records, one for each distinct tuple, in the order of the kernel's table: nobody may see it.
pub struct Packed {
    narrow: Chunks<Half>,
    wide: Chunks<Line>,
    decoder: SlotDecoder,
}

impl Packed {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory that the records occupy.
    #[must_use]
    pub fn octets(&self) -> u64 {
        let octets =
            self.narrow.octets() + self.wide.octets() + self.decoder.if_indices.capacity() * size_of::<u32>();
        u64::try_from(octets).unwrap_or(u64::MAX)
    }

    /// Unpacks all records, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Record> + Clone {
        let narrow = self.narrow.iter().map(|half| self.decoder.record(Narrow::counted(half)));
        narrow.chain(self.wide.iter().map(|line| self.decoder.record(Wide::counted(line))))
    }

    /// Unpacks the records at these positions, in this order, into `buffer`, which is emptied first.
    ///
    /// # Panics
    /// When there are fewer records.
    pub fn unpack(&self, positions: &[u32], buffer: &mut Vec<Record>) {
        buffer.clear();
        for some in positions.chunks(FETCHED) {
            black_box(some.iter().fold(0, |words, position| words ^ self.first_word(*position)));
            buffer.extend(some.iter().map(|position| match self.place(*position) {
                Place::Narrow(half) => self.decoder.record(Narrow::counted(half)),
                Place::Wide(line) => self.decoder.record(Wide::counted(line)),
            }));
        }
    }

    #[inline(always)]
    fn place(&self, position: u32) -> Place<'_> {
        let position = position as usize;
        match position.checked_sub(self.narrow.len()) {
            None => Place::Narrow(self.narrow.get(position)),
            Some(position) => Place::Wide(self.wide.get(position)),
        }
    }

    #[inline(always)]
    fn first_word(&self, position: u32) -> u64 {
        match self.place(position) {
            Place::Narrow(half) => half.0[0],
            Place::Wide(line) => line.0[0].0[0],
        }
    }
}

/// A slot of any width.
enum Place<'packed> {
    Narrow(&'packed Half),
    Wide(&'packed Line),
}

#[cfg(test)]
mod tests {
    use minimizer_common::slot::{Counted, Half, Line, Narrow, Wide};
    use minimizer_common::tunnel::Tunnels;
    use minimizer_common::tuple::{Tags, Tuple};

    use super::{Packing, SlotDecoder};
    use crate::kernel::wall_clock::TimeUnits;
    use crate::policy::compile::CompiledPolicy;

    fn counted(
        addresses: [u64; 4],
        packets: u64,
        octets: u64,
        control_bits: u16,
        times: (u32, u32),
    ) -> Counted {
        let tuple = Tuple::new(addresses, (1000, 443), Tags::NONE.with_interface(1), 6, 0x2e);
        Counted { tuple, control_bits, packets, octets, first: times.0, last: times.1 }
    }

    fn wide(counted: &Counted) -> Line {
        Wide::of_many(counted).expect("fits")
    }

    /// A narrow slot of many packets.
    fn narrow(counted: &Counted) -> Half {
        let Counted { tuple, control_bits, packets, octets, first, last } = *counted;
        let count = minimizer_common::slot::Count { octets, control_bits, first, last };
        let mut half = Half(Narrow::ipv4(&tuple, &count));
        half.0[3] += (packets - 1) * Narrow::ONE_PACKET;
        assert_eq!(Narrow::counted(&half), *counted);
        half
    }

    fn decoder() -> SlotDecoder {
        let time = TimeUnits { base: 100, unit_ms: 1000 };
        SlotDecoder::new(&CompiledPolicy::full_record(Tunnels::NONE), time, &[3, 7])
    }

    #[test]
    fn what_is_unpacked_is_what_was_counted() {
        let mut packing = Packing::default();
        for index in 0..10 {
            packing.add_narrow(&narrow(&counted([index + 1, 0, 0, 0], 1, 100, 2, (5, 6))));
            packing.add_wide(&wide(&counted([index + 1, 0, 0, 9], 1, 200, 2, (5, 6))));
        }
        packing.add_narrow(&narrow(&counted([4, 0, 0, 0], 2, 50, 16, (4, 5))));
        packing.add_wide(&wide(&counted([4, 0, 0, 9], 3, 50, 16, (5, 9))));
        let packed = packing.take(decoder());
        assert_eq!((packed.len(), packed.octets()), (20, 10 * (32 + 64) + 2 * 4));
        let all: Vec<_> = packed.iter().collect();
        let mut buffer = Vec::new();
        for step in [1, 3, 7, 19] {
            let positions: Vec<_> = (0..20).map(|number| number * step % 20).collect();
            packed.unpack(&positions, &mut buffer);
            assert!(buffer.iter().eq(positions.iter().map(|position| &all[*position as usize])));
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
    fn sums_too_large_for_a_narrow_slot_take_a_wide_one() {
        for (packets, octets) in [(1, (1 << 36) - 1), ((1 << 31) - 1, 20)] {
            let mut packing = Packing::default();
            for time in [0, 1] {
                let heavy = counted([1, 0, 0, 0], packets, octets, 1, (time, time + 1));
                packing.add_narrow(&narrow(&heavy));
            }
            packing.add_narrow(&narrow(&counted([2, 0, 0, 0], 1, 1, 0, (0, 0))));
            let packed = packing.take(decoder());
            let records: Vec<_> = packed.iter().collect();
            assert_eq!(records.len(), 2);
            let record = records[1];
            assert_eq!((record.packets, record.octets), (2 * packets, 2 * octets));
            assert_eq!((record.start_ms, record.end_ms), (100_000, 102_000));
        }
    }

    #[test]
    fn slots_of_both_widths_become_one_record() {
        let of = |times| counted([1, 0, 0, 0], 1, 100, 1, times);
        for wide_first in [false, true] {
            let mut packing = Packing::default();
            if wide_first {
                packing.add_wide(&wide(&of((70_000, 70_001))));
            }
            packing.add_narrow(&narrow(&of((1, 2))));
            if !wide_first {
                packing.add_wide(&wide(&of((70_000, 70_001))));
            }
            let records: Vec<_> = packing.take(decoder()).iter().collect();
            let [record] = records[..] else { panic!("{records:?}") };
            assert_eq!((record.packets, record.octets), (2, 200));
            assert_eq!((record.start_ms, record.end_ms), (101_000, 70_101_000));
        }
    }

    #[test]
    fn counts_that_do_not_fit_together_stay_apart() {
        let slots = [
            counted([1, 0, 0, 0], u64::from(u32::MAX), 1, 0, (1, 1)),
            counted([1, 0, 0, 0], 1, 1, 0, (1, 1)),
            counted([1, 0, 0, 0], 1, (1 << 42) - 1, 0, (1, 1)),
        ];
        let mut packing = Packing::default();
        slots.iter().for_each(|slot| packing.add_wide(&wide(slot)));
        let sums = packing
            .take(decoder())
            .iter()
            .fold((0, 0), |(packets, octets), record| (packets + record.packets, octets + record.octets));
        assert_eq!(sums, (u64::from(u32::MAX) + 2, (1 << 42) + 1));
        assert_eq!(Wide::of_many(&Counted { octets: 1 << 42, ..slots[0] }), None);
        assert_eq!(Wide::of_many(&Counted { packets: 1 << 32, ..slots[0] }), None);
    }
}
