//! Takes the slots of all CPUs, group by group, brings those of one flow together, and leaves zeroes.
//!
//! The tables of all CPUs have the same hash and shape. So a flow has the same first group on every CPU, and the same lines in
//! it. A slot of the flow can lie elsewhere only if on some CPU all of those lines are taken: they stay taken until the drain.
//!
//! So the slots that lie in the first groups of their flows meet here, by comparing those of one group. What does not lie there
//! goes through a hash table: slots in second groups, which are marked, and spill logs. Only flows in a window that is full on
//! any CPU can be in that table, too.

use std::hash::{BuildHasher as _, RandomState};

use minimizer_common::slot::{Half, Line, Narrow, USED, WIDE, Wide};
use minimizer_ebpf::table::group::NARROW_HALVES;

use crate::kernel::generations::{GROUP_LINES, Run};
use crate::records::drain::Sums;
use crate::records::merge::Flow;
use crate::records::packed::Packing;

type Group = [Line; GROUP_LINES];

/// A bit for each half of a group. The lower half of a line has an even one.
type Halves = u16;

const LOWER: Halves = 0x5555;
const _: () = assert!(2 * GROUP_LINES == Halves::BITS as usize);

/// Takes everything out of the tables. Returns the halves that were in use in each.
pub(super) fn take_tables(runs: &mut [Run<'_>], sums: &mut Sums, packing: &mut Packing) -> Vec<u64> {
    let mut used = vec![0; runs.len()];
    let mut looks = vec![Look::default(); runs.len()];
    let mut meeting = Meeting::of(runs.len());
    for index in 0..runs.first().map_or(0, |run| run.groups.len()) {
        let mut all = Looks::default();
        for ((run, look), used) in runs.iter().zip(&mut looks).zip(&mut used) {
            *look = Look::at(&run.groups[index]);
            *used += u64::from(look.used.count_ones());
            all.add(*look);
        }
        if all.in_use == 0 {
            continue;
        }
        let can_meet = all.in_use > 1 || all.has_closed;
        for (run, look) in runs.iter_mut().zip(&looks) {
            let group = &mut run.groups[index];
            if can_meet {
                look.take(group, sums, |slot| meeting.add(&slot, &all, packing));
            } else {
                look.take(group, sums, |slot| slot.pack(&all, packing));
            }
        }
        if can_meet {
            meeting.end(packing);
        }
    }
    used
}

/// Takes everything out of a part of a spill log.
pub(super) fn take_spilled(lines: &mut [Line], sums: &mut Sums, packing: &mut Packing) {
    for line in lines {
        let [first, second] = &line.0;
        if first.is_wide() {
            sums.add(Wide::counted(line));
            packing.add_wide(line);
        } else {
            for half in [first, second].into_iter().filter(|half| !half.is_free()) {
                sums.add_narrow(half);
                packing.add_narrow(half);
            }
        }
        *line = Line::default();
    }
}

/// What a group of one CPU has.
#[derive(Clone, Copy, Default)]
struct Look {
    used: Halves,
    /// Halves of wide slots.
    wide: Halves,
    /// Whether a flow may have several slots in the group. It may be `true` for no reason.
    has_closed: bool,
}

impl Look {
    #[inline(always)]
    fn at(group: &Group) -> Self {
        let (mut used, mut wide, mut closed) = (0, 0, 0);
        for (half, place) in group.iter().flat_map(|line| &line.0).zip(0..) {
            let marks = half.0[2];
            used |= (marks & USED) << place;
            wide |= (marks & WIDE) << place;
            closed |= marks & (1 << 63 | marks << 42 & 1 << 43);
        }
        let halves = |bits: u64| Halves::try_from(bits & u64::from(Halves::MAX)).unwrap_or_default();
        Self { used: halves(used), wide: halves(wide >> WIDE.trailing_zeros()), has_closed: closed != 0 }
    }

    /// Takes the slots, and leaves zeroes.
    #[inline(always)]
    fn take(&self, group: &mut Group, sums: &mut Sums, mut slot: impl FnMut(Slot)) {
        let mut left = self.used;
        while left != 0 {
            let place = left.trailing_zeros();
            let bit = 1 << place;
            let line = &mut group[place as usize / 2];
            if self.wide & bit != 0 {
                let taken = std::mem::take(line);
                sums.add(Wide::counted(&taken));
                slot(Slot::Wide(taken));
                left &= !(bit | bit << 1);
            } else {
                let taken = std::mem::take(&mut line.0[place as usize % 2]);
                sums.add_narrow(&taken);
                slot(Slot::Narrow(taken, bit));
                left &= !bit;
            }
        }
    }
}

/// What a group has on all CPUs.
#[derive(Default)]
struct Looks {
    /// CPUs that have something in the group.
    in_use: u32,
    has_closed: bool,
    /// Halves whose narrow slots may have others elsewhere.
    narrow_elsewhere: Halves,
    /// Whether wide slots may have others elsewhere.
    wide_elsewhere: bool,
}

impl Looks {
    #[inline(always)]
    fn add(&mut self, look: Look) {
        let full = look.used & look.used >> 1 & LOWER;
        // Lines at which a window begins that is full.
        let windows = ROTATIONS.iter().fold(full, |windows, bits| windows & full.rotate_right(*bits));
        let lines = ROTATIONS.iter().fold(windows, |lines, bits| lines | windows.rotate_left(*bits));
        self.narrow_elsewhere |= lines | lines << 1;
        self.wide_elsewhere |= (look.used | look.used >> 1) & LOWER == LOWER;
        self.in_use += u32::from(look.used != 0);
        self.has_closed |= look.has_closed;
    }
}

/// From the first line of the window of a narrow slot to each other one, in bits.
const ROTATIONS: [u32; 3] = [2, 4, 6];
const _: () = assert!(NARROW_HALVES == 2 * (ROTATIONS.len() + 1));

/// A slot that was taken.
enum Slot {
    /// With the bit of its half.
    Narrow(Half, Halves),
    Wide(Line),
}

impl Slot {
    /// Packs a slot that has none of the same flow in this group.
    #[inline(always)]
    fn pack(&self, all: &Looks, packing: &mut Packing) {
        match self {
            Self::Narrow(half, place) => {
                if Narrow::is_displaced(half) {
                    packing.add_narrow(half);
                } else {
                    packing.push_narrow(half, all.narrow_elsewhere & place != 0);
                }
            }
            Self::Wide(line) => {
                if Wide::is_displaced(line) {
                    packing.add_wide(line);
                } else {
                    packing.push_wide(line, all.wide_elsewhere);
                }
            }
        }
    }
}

/// The flows of one group.
struct Meeting {
    narrow: Flows<Half>,
    wide: Flows<Line>,
}

impl Meeting {
    fn of(cpus: usize) -> Self {
        Self { narrow: Flows::of(2 * GROUP_LINES * cpus), wide: Flows::of(GROUP_LINES * cpus) }
    }

    /// Adds a slot to one of the same flow, or as a new one.
    #[inline(always)]
    fn add(&mut self, slot: &Slot, all: &Looks, packing: &mut Packing) {
        match slot {
            Slot::Narrow(half, _) if Narrow::is_displaced(half) => packing.add_narrow(half),
            Slot::Narrow(half, place) => {
                if !self.narrow.add(half, all.narrow_elsewhere & place != 0) {
                    packing.widen(half);
                }
            }
            Slot::Wide(line) if Wide::is_displaced(line) => packing.add_wide(line),
            Slot::Wide(line) => {
                if !self.wide.add(line, all.wide_elsewhere) {
                    packing.add_wide(line);
                }
            }
        }
    }

    /// Packs what was added.
    #[inline(always)]
    fn end(&mut self, packing: &mut Packing) {
        self.narrow.take(|half, is_elsewhere| packing.push_narrow(half, is_elsewhere));
        self.wide.take(|line, is_elsewhere| packing.push_wide(line, is_elsewhere));
    }
}

/// The flows of one group that have slots of one width.
struct Flows<R> {
    /// With whether there may be slots elsewhere.
    flows: Vec<(R, bool)>,
    /// One more than positions in `flows`, from the place of the key on; 0 is free.
    places: Vec<u32>,
    /// Random, so that nobody who chooses the flows can make them take the same place.
    multipliers: [u64; 7],
}

impl<R: Flow<Key: AsRef<[u64]>> + Copy> Flows<R> {
    /// For so many slots at most.
    fn of(slots: usize) -> Self {
        let random = RandomState::new();
        Self {
            flows: Vec::with_capacity(slots),
            places: vec![0; 2 * slots.next_power_of_two()],
            multipliers: std::array::from_fn(|number| random.hash_one(number) | 1),
        }
    }

    /// Returns `false`, and adds nothing, if the sum would not fit.
    #[inline(always)]
    fn add(&mut self, slot: &R, is_elsewhere: bool) -> bool {
        let Self { flows, places, multipliers } = self;
        let key = slot.key();
        let words = key.as_ref().iter().zip(&*multipliers);
        let sum = words.fold(0u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(*factor)));
        let mask = places.len() - 1;
        let mut place = (sum >> 32) as usize & mask;
        loop {
            match places[place] as usize {
                0 => {
                    flows.push((*slot, is_elsewhere));
                    places[place] = u32::try_from(flows.len()).unwrap_or(u32::MAX);
                    return true;
                }
                position => {
                    let (flow, elsewhere) = &mut flows[position - 1];
                    if flow.key() == key {
                        *elsewhere |= is_elsewhere;
                        return flow.absorb(slot);
                    }
                }
            }
            place = (place + 1) & mask;
        }
    }

    #[inline(always)]
    fn take(&mut self, mut flow: impl FnMut(&R, bool)) {
        if self.flows.is_empty() {
            return;
        }
        self.places.fill(0);
        for (slot, is_elsewhere) in self.flows.drain(..) {
            flow(&slot, is_elsewhere);
        }
    }
}
