//! What the agent tells the program while it runs: the slot numbers of the watched interfaces.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use minimizer_common::settings::{Control, InterfaceEntry};

use crate::kernel::generations::Generations;
use crate::kernel::interface_positions::Positions;

/// The slot numbers of the watched interfaces, as [`Control`] has them on every CPU.
#[derive(Debug, Default)]
pub struct InterfaceSlots(Positions);

impl InterfaceSlots {
    /// Gives slot numbers to interface indices. Returns `None` if a number is out of range, or if there were
    /// too many changes since the latest grace period.
    ///
    /// Call it before the program is attached to the interface. Interfaces with an attachment keep their
    /// slots throughout.
    pub fn watch(&mut self, generations: &mut Generations, pairs: &[(u32, u32)]) -> Option<()> {
        let change = self.0.watch(pairs)?;
        for (position, entry) in change.entries {
            write_entry(generations, position, entry);
        }
        if let Some(multiplier) = change.multiplier {
            // A program that reads the new multiplier also reads the new positions.
            fence(Ordering::Release);
            generations.write_control(offset_of!(Control, interface_multiplier), multiplier);
        }
        Some(())
    }

    /// Whether a grace period should pass before the next change.
    pub fn is_unsettled(&self) -> bool {
        self.0.is_unsettled()
    }

    /// Records that a grace period has passed since the latest change: no program uses earlier positions.
    pub fn settled(&mut self, generations: &mut Generations) {
        for position in self.0.settled() {
            write_entry(generations, position, InterfaceEntry(0));
        }
    }
}

fn write_entry(generations: &mut Generations, position: usize, entry: InterfaceEntry) {
    generations.write_control(offset_of!(Control, interfaces) + position * size_of::<u64>(), entry.0);
}
