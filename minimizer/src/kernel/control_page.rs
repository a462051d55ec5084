//! The control page: what the agent may change while the program runs.

use std::io;
use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use aya::maps::MapData;
use minimizer_common::settings::{Control, InterfaceEntry, clock};

use crate::kernel::interface_positions::Positions;
use crate::support::sys::Mapping;

/// The memory-mapped [`Control`] of a loaded program.
pub struct ControlPage {
    mapping: Mapping,
    positions: Positions,
}

impl ControlPage {
    /// Maps the page.
    ///
    /// # Errors
    /// The error of `mmap(2)`.
    pub fn new(map: &MapData) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::new(map.fd(), size_of::<Control>())?, positions: Positions::default() })
    }

    /// Gives slot numbers to interface indices. Returns `None` if a number is out of range, or if there were
    /// too many changes since the latest grace period.
    ///
    /// Call it before the program is attached to the interface. Interfaces with an attachment keep their
    /// slots throughout.
    pub fn watch(&mut self, pairs: &[(u32, u32)]) -> Option<()> {
        let change = self.positions.watch(pairs)?;
        for (position, entry) in change.entries {
            self.write_entry(position, entry);
        }
        if let Some(multiplier) = change.multiplier {
            // A program that reads the new multiplier also reads the new positions.
            fence(Ordering::Release);
            self.mapping.write(offset_of!(Control, interface_multiplier), multiplier);
        }
        Some(())
    }

    fn write_entry(&mut self, position: usize, entry: InterfaceEntry) {
        self.mapping.write(offset_of!(Control, interfaces) + position * size_of::<u64>(), entry.0);
    }

    /// Whether a grace period should pass before the next change.
    pub fn is_unsettled(&self) -> bool {
        self.positions.is_unsettled()
    }

    /// Records that a grace period has passed since the latest change: no program uses earlier positions.
    pub fn settled(&mut self) {
        for position in self.positions.settled() {
            self.write_entry(position, InterfaceEntry(0));
        }
    }

    /// Sets the time of later packets: units since the base, and seconds since 1970.
    pub fn set_time(&mut self, units: u32, seconds: u32) {
        self.mapping.write(offset_of!(Control, clock), clock(units, seconds));
    }
}
