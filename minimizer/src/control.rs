//! The control page: what the agent may change while the program runs.

use std::io;
use std::mem::offset_of;

use aya::maps::MapData;
use minimizer_common::generation::INTERFACES_MAX;
use minimizer_common::settings::{Control, INTERFACE_POSITIONS, interface_position};

use crate::sys::Mapping;

/// The memory-mapped [`Control`] of a loaded program.
pub struct ControlPage {
    mapping: Mapping,
    /// Watched interface indices with their slots.
    watched: Vec<(u32, u32)>,
}

impl ControlPage {
    /// Maps the page.
    ///
    /// # Errors
    /// What `mmap(2)` answers.
    pub fn new(map: &MapData) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::new(map.fd(), size_of::<Control>())?, watched: Vec::new() })
    }

    /// Gives an interface index a slot number; `None` when the number is out of range.
    ///
    /// Must be called before the program is attached to the interface. Interfaces that are already
    /// attached keep their slots at every moment unless all positions have to move, which happens
    /// when no free position is left for the new index under the present multiplier.
    pub fn watch(&mut self, if_index: u32, slot: u32) -> Option<()> {
        let number = u8::try_from(slot).ok().filter(|slot| usize::from(*slot) < INTERFACES_MAX)?;
        self.watched.retain(|(index, watched)| *index != if_index && *watched != slot);
        self.watched.push((if_index, slot));
        let multiplier = self.multiplier();
        if multiplier == self.mapping.read::<u32>(offset_of!(Control, interface_multiplier)) {
            self.place(if_index, multiplier, number);
            return Some(());
        }
        for (index, slot) in self.watched.clone() {
            self.place(index, multiplier, u8::try_from(slot).unwrap_or(0));
        }
        self.mapping.write(offset_of!(Control, interface_multiplier), multiplier);
        Some(())
    }

    /// Sets the time unit of the packets to come.
    pub fn set_time(&mut self, units: u64) {
        self.mapping.write(offset_of!(Control, clock_units), units);
    }

    /// Sets the distance of the wall clock from the monotonic clock.
    pub fn set_realtime_offset(&mut self, offset_ns: u64) {
        self.mapping.write(offset_of!(Control, realtime_offset_ns), offset_ns);
    }

    fn place(&mut self, if_index: u32, multiplier: u32, slot: u8) {
        let position = interface_position(if_index, multiplier);
        self.mapping.write(offset_of!(Control, interface_slots) + position, slot);
    }

    /// A multiplier under which no two watched interfaces share a position: the present one if it
    /// will do.
    fn multiplier(&self) -> u32 {
        let present: u32 = self.mapping.read(offset_of!(Control, interface_multiplier));
        let distinct = |multiplier: &u32| {
            let mut taken = [false; INTERFACE_POSITIONS];
            self.watched.iter().all(|(index, _)| {
                !std::mem::replace(&mut taken[interface_position(*index, *multiplier)], true)
            })
        };
        // Odd multiples of the golden ratio; one in a few spreads 32 interfaces over 256 positions.
        const SPREAD: u32 = 0x9e37_79b1;
        std::iter::once(present)
            .filter(|multiplier| *multiplier != 0)
            .chain((0..u32::MAX).map(|step| SPREAD.wrapping_mul(2 * step + 1)))
            .find(distinct)
            .unwrap_or(SPREAD)
    }
}
