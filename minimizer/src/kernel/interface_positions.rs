//! The position of each watched interface's slot number in the control page, also while the positions change.
//!
//! A program reads the multiplier once and then one position. It must find the right slot at every moment.
//! The agent therefore writes the positions of a new multiplier beside those of the present one, which stay
//! until no program uses them any more. It then changes the multiplier with one store.

use minimizer_common::generation::INTERFACES_MAX;
use minimizer_common::settings::{INTERFACE_POSITIONS, interface_position};

/// The multipliers are odd multiples of this constant, the golden ratio in 32 bits.
const SPREAD: u32 = 0x9e37_79b1;
/// The most multipliers to try. About one in 500 finds 32 positions beside 32 that are taken.
const MULTIPLIERS_MAX: u32 = 1 << 16;

/// What to write: first the slots, then the multiplier.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Slots by position.
    pub slots: Vec<(usize, u8)>,
    /// The new multiplier; `None` if the present one stays.
    pub multiplier: Option<u32>,
}

/// The positions in use.
#[derive(Debug)]
pub struct Positions {
    /// Watched interface indices with their slots.
    watched: Vec<(u32, u8)>,
    multiplier: u32,
    /// Positions that a program may still read if it started before the latest change.
    stale: [bool; INTERFACE_POSITIONS],
}

impl Default for Positions {
    fn default() -> Self {
        Self { watched: Vec::new(), multiplier: 0, stale: [false; INTERFACE_POSITIONS] }
    }
}

impl Positions {
    /// Gives slot numbers to interface indices, and takes them from the interfaces that had them. Returns
    /// `None` and changes nothing if a number is out of range or too many positions are still in use.
    pub fn watch(&mut self, pairs: &[(u32, u32)]) -> Option<Change> {
        let mut new = Vec::new();
        for (if_index, slot) in pairs {
            let slot = u8::try_from(*slot).ok().filter(|slot| usize::from(*slot) < INTERFACES_MAX)?;
            if !self.watched.contains(&(*if_index, slot)) {
                new.push((*if_index, slot));
            }
        }
        let is_replaced = |known: &(u32, u8)| new.iter().any(|new| new.0 == known.0 || new.1 == known.1);
        let kept: Vec<_> = self.watched.iter().copied().filter(|known| !is_replaced(known)).collect();
        let mut taken = self.stale;
        if self.multiplier != 0 {
            self.watched.iter().for_each(|known| taken[interface_position(known.0, self.multiplier)] = true);
        }
        let all = [kept.as_slice(), new.as_slice()].concat();
        let change = |multiplier, moved: &[(u32, u8)]| {
            moved.iter().map(|(index, slot)| (interface_position(*index, multiplier), *slot)).collect()
        };
        if self.multiplier != 0 && is_distinct(&new, self.multiplier, taken) {
            let replaced = self.watched.iter().filter(|known| is_replaced(known));
            replaced.for_each(|known| self.stale[interface_position(known.0, self.multiplier)] = true);
            self.watched = all;
            return Some(Change { slots: change(self.multiplier, &new), multiplier: None });
        }
        let multipliers = (0..MULTIPLIERS_MAX).map(|step| SPREAD.wrapping_mul(2 * step + 1));
        let multiplier = multipliers.into_iter().find(|multiplier| is_distinct(&all, *multiplier, taken))?;
        let slots = change(multiplier, &all);
        *self = Self { watched: all, multiplier, stale: taken };
        Some(Change { slots, multiplier: Some(multiplier) })
    }

    /// Whether some positions are reserved for programs that started before the latest change.
    pub fn is_unsettled(&self) -> bool {
        self.stale.contains(&true)
    }

    /// Records that every program that ran at the latest change has ended.
    pub fn settled(&mut self) {
        self.stale = [false; INTERFACE_POSITIONS];
    }
}

/// Whether each of these interfaces has a position that is not taken and no other one has.
fn is_distinct(watched: &[(u32, u8)], multiplier: u32, mut taken: [bool; INTERFACE_POSITIONS]) -> bool {
    let mut positions = watched.iter().map(|(index, _)| interface_position(*index, multiplier));
    positions.all(|position| !std::mem::replace(&mut taken[position], true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minimizer_common::settings::{INTERFACE_POSITIONS, interface_position};

    use super::{Change, Positions};

    /// The control page, and what programs must find in it.
    #[derive(Default)]
    struct Page {
        slots: BTreeMap<usize, u8>,
        multiplier: u32,
    }

    impl Page {
        fn slot(&self, if_index: u32, multiplier: u32) -> Option<u8> {
            self.slots.get(&interface_position(if_index, multiplier)).copied()
        }
    }

    #[test]
    fn every_interface_finds_its_slot_at_every_moment() {
        let mut random = 1_u32;
        let mut step = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random >> 8
        };
        let mut multipliers = 0;
        for _ in 0..10 {
            let (mut positions, mut page) = (Positions::default(), Page::default());
            let mut watched: BTreeMap<u8, u32> = BTreeMap::new();
            for turn in 0..100 {
                let slot = if turn < 32 { turn } else { step() % 32 };
                let if_index = 1 + step() % 10_000;
                let number = u8::try_from(slot).expect("small");
                if watched.values().any(|index| *index == if_index) {
                    continue;
                }
                watched.remove(&number);
                let before = page.multiplier;
                let pair = [(if_index, slot)];
                let change = positions.watch(&pair).or_else(|| {
                    positions.settled();
                    positions.watch(&pair)
                });
                let Change { slots, multiplier } = change.expect("a settled page has room");
                for (position, slot) in slots {
                    assert!(position < INTERFACE_POSITIONS);
                    page.slots.insert(position, slot);
                    // A running program has read the multiplier before the change.
                    for (slot, index) in &watched {
                        assert_eq!(page.slot(*index, before), Some(*slot));
                    }
                }
                watched.insert(number, if_index);
                multipliers += u32::from(multiplier.is_some());
                page.multiplier = multiplier.unwrap_or(page.multiplier);
                for (slot, index) in &watched {
                    assert_eq!(page.slot(*index, page.multiplier), Some(*slot));
                }
                if step() % 3 == 0 {
                    positions.settled();
                }
            }
        }
        assert!(multipliers > 20, "{multipliers} multipliers were used");
    }

    #[test]
    fn the_same_again_changes_nothing_and_33_slots_there_are_not() {
        let mut positions = Positions::default();
        assert!(positions.watch(&[(7, 31)]).expect("the last slot").multiplier.is_some());
        assert_eq!(positions.watch(&[(7, 31)]), Some(Change::default()));
        assert_eq!(positions.watch(&[(1, 0), (8, 32)]), None);
    }
}
