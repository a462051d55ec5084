//! Where and when a packet arrived, and where packets that arrived there are kept.

use minimizer_common::generation::{BURST, CpuState, FEW_SLOTS, Head, Latest, Place};
use minimizer_common::slot::{HALF_WORDS, Narrow, Wide};
use minimizer_ebpf::table::group::{self, Image};
use minimizer_ebpf::table::hash;

use crate::program::clock::Time;
use crate::program::constants::SETTINGS;
use crate::program::memory::Run;

/// So many packets become one at most, as a number of bits: their sum with those of a slot that is not closed then fits.
const JOINED_BITS: u32 = 16;

/// Where and when a packet arrived.
#[derive(Clone, Copy)]
pub struct Here {
    pub site: Site,
    pub time: Time,
}

/// Where the packets of an interface are counted on this CPU.
#[derive(Clone, Copy)]
pub struct Site {
    pub run: Run,
    pub interface: u32,
}

impl Site {
    /// Counts a packet that fits in a narrow slot, or sets it aside.
    #[inline(always)]
    pub fn keep_narrow<const EXACT: bool>(&self, head: &mut Head, slot: &[u64; HALF_WORDS]) {
        let Head { state, ring, .. } = head;
        if state.latest.is_repeated() {
            let latest = state.set_aside.wrapping_sub(1) as usize % BURST;
            let differs = self.differs::<EXACT>(state, latest);
            if let Some(joined) = ring[latest].first_chunk_mut() {
                let is_full = joined[3] >> (Narrow::PACKETS_SHIFT + JOINED_BITS);
                if group::add_narrow(joined, slot, is_full | differs) {
                    return;
                }
            }
        }
        let place = Place::new(hash::narrow(&SETTINGS.hash_keys, slot), self.interface);
        if !Self::is_set_aside(state, place)
            && let Some(line) = self.run.first_line(place)
            && line.count_narrow(slot, &mut state.slots_taken)
        {
            return;
        }
        let index = state.set_aside as usize % BURST;
        let image = &mut ring[index];
        [image[0], image[1], image[2], image[3]] = *slot;
        state.places[index] = place;
        state.set_aside += 1;
    }

    /// Counts a packet in a wide slot, or sets it aside.
    #[inline(always)]
    pub fn keep_wide<const EXACT: bool>(&self, head: &mut Head, slot: &Image) {
        let Head { state, ring, .. } = head;
        if state.latest.is_repeated() {
            let latest = state.set_aside.wrapping_sub(1) as usize % BURST;
            let joined = &mut ring[latest];
            let is_full = joined[6] >> (Wide::PACKETS_SHIFT + JOINED_BITS);
            if group::add_wide(joined, slot, is_full | self.differs::<EXACT>(state, latest)) {
                return;
            }
        }
        let place = Place::new(hash::wide(&SETTINGS.hash_keys, slot), self.interface);
        if !Self::is_set_aside(state, place)
            && let Some(line) = self.run.first_line(place)
            && line.count_wide(slot, &mut state.slots_taken)
        {
            return;
        }
        let index = state.set_aside as usize % BURST;
        ring[index] = *slot;
        state.places[index] = place;
        state.set_aside += 1;
    }

    /// Whether the packet at this place in the ring is of another interface. Exact slots tell that themselves.
    #[inline(always)]
    fn differs<const EXACT: bool>(&self, state: &CpuState, index: usize) -> u64 {
        if EXACT { 0 } else { u64::from(state.places[index].interface() ^ self.interface) }
    }

    /// Whether a packet is set aside. That is cheaper if its line is in no cache, or if more packets of its flow follow, which
    /// it then takes in. Where few slots are in use, a packet that differs from the one before is counted at once.
    #[inline(always)]
    fn is_set_aside(state: &mut CpuState, place: Place) -> bool {
        if state.latest.position() == place.position() {
            state.latest = Latest::new(place.position(), true);
            return true;
        }
        state.latest = Latest::new(place.position(), false);
        state.slots_taken >= FEW_SLOTS
    }
}
