//! Where each watched interface's entry lies in the control page, also while that changes.
//!
//! A program reads the multiplier once and then one position. It must find the right entry at every moment. So entries
//! under a new multiplier are written beside those of the present one, which stay as they are until no program uses
//! them any more; only then does the multiplier change, in one store.

use std::collections::BTreeMap;

use minimizer_common::generation::INTERFACES_MAX;
use minimizer_common::settings::{INTERFACE_POSITIONS, InterfaceEntry, interface_position};

/// Interface indices that can be watched at once: one for each slot, and the ports of those that are bonds.
pub const INDICES_MAX: usize = 4 * INTERFACES_MAX;
/// Odd multiples of the golden ratio are tried as multipliers.
const SPREAD: u32 = 0x9e37_79b1;
/// So many at most. Of 500 one finds places for [`INDICES_MAX`] indices beside as many that are still in use.
const MULTIPLIERS_MAX: u32 = 1 << 16;

/// What is to be written: first the entries, then the multiplier.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries by position.
    pub entries: Vec<(usize, InterfaceEntry)>,
    /// The new multiplier, unless the present one stays.
    pub multiplier: Option<u32>,
}

/// The positions in use.
#[derive(Debug)]
pub struct Positions {
    /// Slots by watched interface index. A bond's slot is that of its ports too.
    watched: BTreeMap<u32, u8>,
    multiplier: u32,
    /// Positions that a program may still read if it started before the latest change.
    stale: [bool; INTERFACE_POSITIONS],
}

impl Default for Positions {
    fn default() -> Self {
        Self { watched: BTreeMap::new(), multiplier: 0, stale: [false; INTERFACE_POSITIONS] }
    }
}

impl Positions {
    /// Gives interface indices slot numbers. These are all indices of those slots: any other index loses the slot.
    /// `None`, and nothing is changed, when a number is out of range, or when there are too many indices, or too many
    /// positions are still in use.
    pub fn watch(&mut self, pairs: &[(u32, u32)]) -> Option<Change> {
        let mut wanted = BTreeMap::new();
        for (if_index, slot) in pairs {
            let slot = u8::try_from(*slot).ok().filter(|slot| usize::from(*slot) < INTERFACES_MAX)?;
            wanted.insert(*if_index, slot);
        }
        let is_kept = |(if_index, slot): (&u32, &u8)| match wanted.get(if_index) {
            Some(other) => other == slot,
            None => wanted.values().all(|other| other != slot),
        };
        let (kept, replaced): (BTreeMap<u32, u8>, BTreeMap<u32, u8>) = self
            .watched
            .iter()
            .map(|(if_index, slot)| (*if_index, *slot))
            .partition(|(i, s)| is_kept((i, s)));
        let new: BTreeMap<u32, u8> =
            wanted.into_iter().filter(|(if_index, _)| !kept.contains_key(if_index)).collect();
        let mut all = kept;
        all.extend(&new);
        if all.len() > INDICES_MAX {
            return None;
        }
        let mut taken = self.stale;
        if self.multiplier != 0 {
            self.watched.keys().for_each(|index| taken[interface_position(*index, self.multiplier)] = true);
        }
        let entries = |multiplier, moved: &BTreeMap<u32, u8>| {
            let entry = |(index, slot): (&u32, &u8)| {
                (interface_position(*index, multiplier), InterfaceEntry::new(*index, *slot))
            };
            moved.iter().map(entry).collect::<Vec<_>>()
        };
        // Whoever loses its slot is unknown from now on.
        let lost = replaced.keys().filter(|index| !all.contains_key(index));
        let present = self.multiplier;
        let erased = lost.map(|index| (interface_position(*index, present), InterfaceEntry(0)));
        let mut erased: Vec<_> = if present == 0 { Vec::new() } else { erased.collect() };
        if present != 0 && is_distinct(&new, present, taken) {
            replaced.keys().for_each(|index| self.stale[interface_position(*index, present)] = true);
            self.watched = all;
            erased.extend(entries(present, &new));
            return Some(Change { entries: erased, multiplier: None });
        }
        let multipliers = (0..MULTIPLIERS_MAX).map(|step| SPREAD.wrapping_mul(2 * step + 1));
        let multiplier = multipliers.into_iter().find(|multiplier| is_distinct(&all, *multiplier, taken))?;
        erased.extend(entries(multiplier, &all));
        *self = Self { watched: all, multiplier, stale: taken };
        Some(Change { entries: erased, multiplier: Some(multiplier) })
    }

    /// Whether some positions are reserved for programs that started before the latest change.
    pub fn is_unsettled(&self) -> bool {
        self.stale.contains(&true)
    }

    /// Every program that was running has ended since the latest change. Returns the positions whose entries are to be
    /// erased: under a later multiplier an interface that nobody watches any more could find its entry there.
    pub fn settled(&mut self) -> Vec<usize> {
        let stale = std::mem::replace(&mut self.stale, [false; INTERFACE_POSITIONS]);
        (0..).zip(stale).filter_map(|(position, is_stale)| is_stale.then_some(position)).collect()
    }
}

/// Whether all these interfaces find positions of their own, none of them taken.
fn is_distinct(watched: &BTreeMap<u32, u8>, multiplier: u32, mut taken: [bool; INTERFACE_POSITIONS]) -> bool {
    let mut positions = watched.keys().map(|index| interface_position(*index, multiplier));
    positions.all(|position| !std::mem::replace(&mut taken[position], true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minimizer_common::settings::{INTERFACE_POSITIONS, InterfaceEntry, interface_position};

    use super::{Change, INDICES_MAX, Positions};

    /// The control page, and what programs must find in it.
    #[derive(Default)]
    struct Page {
        entries: BTreeMap<usize, InterfaceEntry>,
        multiplier: u32,
    }

    impl Page {
        fn slot(&self, if_index: u32, multiplier: u32) -> Option<u32> {
            self.entries.get(&interface_position(if_index, multiplier))?.slot_of(if_index)
        }

        fn erase(&mut self, positions: Vec<usize>) {
            for position in positions {
                self.entries.remove(&position);
            }
        }

        /// Writes a change, and looks at every moment whether programs that have read the multiplier before find what
        /// they found.
        fn write(&mut self, change: Change, kept: &BTreeMap<u32, u32>) {
            for (position, entry) in change.entries {
                assert!(position < INTERFACE_POSITIONS);
                self.entries.insert(position, entry);
                for (index, slot) in kept {
                    assert_eq!(self.slot(*index, self.multiplier), Some(*slot));
                }
            }
            self.multiplier = change.multiplier.unwrap_or(self.multiplier);
        }
    }

    fn random_numbers() -> impl FnMut() -> u32 {
        let mut random = 1_u32;
        move || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random >> 8
        }
    }

    #[test]
    fn every_interface_finds_its_slot_at_every_moment_and_no_other_finds_one() {
        let mut step = random_numbers();
        let mut multipliers = 0;
        for _ in 0..10 {
            let (mut positions, mut page) = (Positions::default(), Page::default());
            // Slots by index: up to four indices of a slot, as a bond and its ports have.
            let mut watched: BTreeMap<u32, u32> = BTreeMap::new();
            for turn in 0..100 {
                let slot = if turn < 32 { turn } else { step() % 32 };
                let pairs: Vec<(u32, u32)> = (0..=step() % 4).map(|_| (1 + step() % 10_000, slot)).collect();
                let mut kept = watched.clone();
                kept.retain(|index, of| {
                    pairs.iter().all(|pair| pair.0 != *index || *of == slot)
                        && (*of != slot || pairs.iter().any(|pair| pair.0 == *index))
                });
                let change = positions.watch(&pairs).or_else(|| {
                    page.erase(positions.settled());
                    positions.watch(&pairs)
                });
                let change = change.expect("a settled page has room");
                multipliers += u32::from(change.multiplier.is_some());
                page.write(change, &kept);
                let lost: Vec<_> =
                    watched.keys().copied().filter(|index| !kept.contains_key(index)).collect();
                watched = kept;
                watched.extend(pairs);
                for (index, slot) in &watched {
                    assert_eq!(page.slot(*index, page.multiplier), Some(*slot));
                }
                for index in
                    lost.into_iter().chain(20_000..20_200).filter(|index| !watched.contains_key(index))
                {
                    assert_eq!(page.slot(index, page.multiplier), None, "{index} is not watched");
                }
                if step().is_multiple_of(3) {
                    page.erase(positions.settled());
                }
            }
        }
        assert!(multipliers > 10, "{multipliers} multipliers were used");
    }

    #[test]
    fn the_most_indices_find_places_twice() {
        let mut step = random_numbers();
        for _ in 0..10 {
            let mut positions = Positions::default();
            for _ in 0..2 {
                let count = u32::try_from(INDICES_MAX).expect("small");
                let mut pairs: Vec<_> =
                    (0..count).map(|number| (1 + step() % 100_000, number % 32)).collect();
                pairs.sort_unstable();
                pairs.dedup_by_key(|pair| pair.0);
                assert!(positions.watch(&pairs).is_some());
            }
        }
    }

    #[test]
    fn the_same_again_changes_nothing_and_33_slots_there_are_not() {
        let mut positions = Positions::default();
        assert!(positions.watch(&[(7, 31)]).expect("the last slot").multiplier.is_some());
        assert_eq!(positions.watch(&[(7, 31)]), Some(Change::default()));
        assert_eq!(positions.watch(&[(1, 0), (8, 32)]), None);
        let too_many: Vec<_> = (1..=129).map(|index| (index, 0)).collect();
        assert_eq!(positions.watch(&too_many), None);
    }
}
