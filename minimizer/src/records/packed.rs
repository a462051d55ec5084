//! The records of a batch while they wait: 40 octets of a flow of IPv4, 64 of IPv6. Whoever works with them unpacks a few
//! thousand at a time.

use std::ops::Range;
use std::sync::Arc;

use minimizer_common::tuple::Slot;

use crate::kernel::wall_clock::TimeUnits;
use crate::policy::compile::CompiledPolicy;
use crate::records::merge::{Flow, Merge};
use crate::records::record::Record;

/// A slot of whose words of addresses only the first is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Narrow {
    address: u64,
    transport: u64,
    counters: u64,
    volume: u64,
    times: u64,
}

impl Narrow {
    /// The same slot, if it is one.
    fn of(slot: &Slot) -> Option<Self> {
        let Slot { addresses: [address, rest @ ..], transport, counters, volume, times } = *slot;
        (rest == [0; 3]).then_some(Self { address, transport, counters, volume, times })
    }

    const fn wide(self) -> Slot {
        let Self { address, transport, counters, volume, times } = self;
        Slot { addresses: [address, 0, 0, 0], transport, counters, volume, times }
    }
}

/// Slots count in fewer bits than records: two whose sum does not fit stay two.
impl Flow for Slot {
    type Key = ([u64; 4], u64, u16, u32);

    fn key(&self) -> Self::Key {
        (self.addresses, self.transport, self.kind(), self.selector())
    }

    fn absorb(&mut self, other: &Self) -> bool {
        let packets = self.packets().checked_add(other.packets());
        let octets = self.octets() + other.octets();
        let fits = packets.is_some() && octets < 1 << Self::SELECTOR_SHIFT;
        if fits {
            let marks = other.counters & (Self::ONE_PACKET - 1);
            self.counters = (self.counters | marks) + u64::from(other.packets()) * Self::ONE_PACKET;
            self.volume += other.octets();
            let (first, last) = (self.first().min(other.first()), self.last().max(other.last()));
            self.times = u64::from(first) | u64::from(last) << 32;
        }
        fits
    }
}

impl Flow for Narrow {
    type Key = (u64, u64, u16, u32);

    fn key(&self) -> Self::Key {
        let slot = self.wide();
        (self.address, self.transport, slot.kind(), slot.selector())
    }

    fn absorb(&mut self, other: &Self) -> bool {
        let mut slot = self.wide();
        let fits = slot.absorb(&other.wide());
        let Slot { counters, volume, times, .. } = slot;
        *self = Self { counters, volume, times, ..*self };
        fits
    }
}

/// Slots by tuple: one flow may be in the tables of several CPUs and many times in a spill log.
#[derive(Debug, Default)]
pub struct Packing {
    narrow: Merge<Narrow>,
    wide: Merge<Slot>,
}

impl Packing {
    /// Adds a slot of a quiet generation.
    pub fn add(&mut self, slot: &Slot) {
        if let Some(narrow) = Narrow::of(slot) {
            self.narrow.add(narrow);
        } else {
            self.wide.add(*slot);
        }
    }

    /// Takes out what was added since the last time.
    pub fn take(&mut self, decoder: SlotDecoder) -> Packed {
        Packed { narrow: self.narrow.take(), wide: self.wide.take(), decoder }
    }
}

/// What slots stand for.
pub struct SlotDecoder {
    compiled: Arc<CompiledPolicy>,
    time: TimeUnits,
    if_indices: Vec<u32>,
}

impl SlotDecoder {
    /// For slots that were collected under a policy, with its unit of time. `if_indices` has the index of the interface by
    /// slot number.
    #[must_use]
    pub fn new(compiled: &Arc<CompiledPolicy>, time: TimeUnits, if_indices: &[u32]) -> Self {
        // Where the interface was not collected, slot number 0 stands in its place.
        let if_indices = if compiled.has_interface() { if_indices.to_vec() } else { Vec::new() };
        Self { compiled: Arc::clone(compiled), time, if_indices }
    }

    fn record(&self, slot: &Slot) -> Record {
        Record {
            selector_id: self.compiled.selector_id(slot.selector()),
            ..Record::of(slot, &self.if_indices, |units| self.time.milliseconds(units))
        }
    }
}

/// Records, one for each distinct tuple, in no particular order.
pub struct Packed {
    narrow: Vec<Narrow>,
    wide: Vec<Slot>,
    decoder: SlotDecoder,
}

impl Packed {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of memory that they take.
    #[must_use]
    pub fn octets(&self) -> u64 {
        let octets = size_of_val(&*self.narrow) + size_of_val(&*self.wide);
        u64::try_from(octets).unwrap_or(u64::MAX)
    }

    /// All of them, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        let narrow = self.narrow.iter().map(|narrow| self.decoder.record(&narrow.wide()));
        narrow.chain(self.wide.iter().map(|slot| self.decoder.record(slot)))
    }

    /// Some of them, by their positions, put into `buffer`.
    pub fn unpack(&self, positions: Range<usize>, buffer: &mut Vec<Record>) {
        let of = |start: usize, length: usize| {
            let inside = |position: usize| position.saturating_sub(start).min(length);
            inside(positions.start)..inside(positions.end)
        };
        let narrow = &self.narrow[of(0, self.narrow.len())];
        let wide = &self.wide[of(self.narrow.len(), self.wide.len())];
        buffer.clear();
        buffer.extend(narrow.iter().map(|narrow| self.decoder.record(&narrow.wide())));
        buffer.extend(wide.iter().map(|slot| self.decoder.record(slot)));
    }
}

#[cfg(test)]
mod tests {
    use minimizer_common::tunnel::Tunnels;
    use minimizer_common::tuple::{Slot, Tags, Tuple};

    use super::{Narrow, Packing, SlotDecoder};
    use crate::kernel::wall_clock::TimeUnits;
    use crate::policy::compile::CompiledPolicy;
    use crate::records::merge::Flow as _;

    fn slot(addresses: [u64; 4], packets: u64, octets: u64, bits: u64, times: (u64, u64)) -> Slot {
        let tuple = Tuple::new(addresses, (1000, 443), Tags::NONE.with_interface(1), 6, 0x2e);
        Slot {
            addresses: tuple.addresses,
            transport: tuple.transport,
            counters: u64::from(tuple.kind) | bits << Slot::CONTROL_BITS_SHIFT | packets << 32,
            volume: octets,
            times: times.0 | times.1 << 32,
        }
    }

    fn decoder() -> SlotDecoder {
        let time = TimeUnits { base: 100, unit_ms: 1000 };
        SlotDecoder::new(&CompiledPolicy::full_record(Tunnels::NONE), time, &[3, 7])
    }

    #[test]
    fn what_is_unpacked_is_what_was_counted() {
        assert_eq!((size_of::<Narrow>(), size_of::<Slot>()), (40, 64));
        let mut packing = Packing::default();
        for index in 0..10 {
            packing.add(&slot([index + 1, 0, 0, 0], 1, 100, 2, (5, 6)));
            packing.add(&slot([index + 1, 0, 0, 9], 1, 200, 2, (5, 6)));
        }
        packing.add(&slot([4, 0, 0, 0], 2, 50, 16, (4, 5)));
        packing.add(&slot([4, 0, 0, 9], 3, 50, 16, (5, 9)));
        let packed = packing.take(decoder());
        assert_eq!((packed.len(), packed.octets()), (20, 10 * (40 + 64)));
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
        let one = slot([1, 0, 0, 0], u64::from(u32::MAX), 1, 0, (1, 1));
        let mut other = slot([1, 0, 0, 0], 1, 1, 0, (1, 1));
        assert!(!other.absorb(&one) && !Narrow::of(&other).unwrap().absorb(&Narrow::of(&one).unwrap()));
        let heavy = slot([1, 0, 0, 0], 1, (1 << 44) - 1, 0, (1, 1));
        assert!(!other.absorb(&heavy));
        let mut packing = Packing::default();
        [one, other, heavy].iter().for_each(|slot| packing.add(slot));
        let sums = packing
            .take(decoder())
            .iter()
            .fold((0, 0), |(packets, octets), record| (packets + record.packets, octets + record.octets));
        assert_eq!(sums, (u64::from(u32::MAX) + 2, (1 << 44) + 1));
    }
}
