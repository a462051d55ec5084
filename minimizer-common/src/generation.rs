//! The memory of one generation: every possible CPU has a run of 512-byte blocks.
//!
//! ```text
//! CPU 0                                                        CPU 1
//! | interface counters × 33 | CPU state | residual | spill log | groups | interface counters …
//! ```
//! Everything that accounts for a packet lies in the one generation that the packet saw. A quiet generation
//! is therefore a closed ledger. Only the owning CPU writes its run. The agent reads and zeroes the run when
//! the generation is quiet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::outcome::Outcome;
use crate::tuple::Slot;

/// Interfaces that one agent can watch: the width of the slot number in a tuple.
pub const INTERFACES_MAX: usize = 32;
/// The place of the counters of every interface that nobody watches: behind those of the slots.
pub const UNKNOWN_INTERFACE: u32 = INTERFACES_MAX as u32;
/// Size of a block in bytes: the value size of the kernel's maps.
pub const BLOCK_BYTES: usize = 512;
/// Slots in a group: the ways that one hash value can use.
pub const WAYS: usize = 8;

/// The unit of the kernel's arrays. Its position in the run gives it a meaning.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Block(pub [u8; BLOCK_BYTES]);

/// Counters of one interface on one CPU. A counted packet touches the first cache line only.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterfaceCounters {
    /// Frames that entered the program. The program counts a frame before it reads it.
    pub seen_packets: u64,
    /// Octets of those frames, with the link header and without the frame check sequence.
    pub seen_octets: u64,
    /// IP octets of the packets that the policy lets through: a record or a residual counter holds them.
    pub octets_counted: u64,
    /// The program computes `clock` anew from this tick count on.
    pub clock_until_tick: u64,
    /// Time of the latest packet; see [`crate::settings::clock`].
    pub clock: u64,
    /// Packets by [`Outcome`].
    pub outcomes: [u64; OUTCOMES_MAX],
}

/// Room for outcomes in [`InterfaceCounters`].
pub const OUTCOMES_MAX: usize = 59;

/// State of one CPU.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuState {
    /// Slots used in the spill log.
    pub spilled: u64,
    /// Key of the pseudonyms of this generation's addresses; zero when the policy has no pseudonyms. The
    /// agent writes it before the kernel gets the generation, and zeroes it once it has drained the
    /// generation.
    pub pseudonym_key: [u64; 2],
    /// Wall clock minus monotonic clock in this generation, in nanoseconds; the sum wraps. The agent writes it before
    /// the kernel gets the generation, so that every time in a generation is by one clock.
    pub realtime_offset_ns: u64,
    /// The time unit, counted from 1970, that a slot of this generation stores as 0.
    pub time_base_units: u64,
    /// Unused, zero.
    pub reserved: [u64; 59],
}

/// Packets that found neither slot nor spill room, by interface, IP version and protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
}

/// Residual counters in a block.
pub const RESIDUALS_PER_BLOCK: usize = BLOCK_BYTES / size_of::<Counts>();
/// Residual counters of a CPU: interface × IP version × protocol.
pub const RESIDUALS: usize = INTERFACES_MAX * 2 * 256;

/// Index of a residual counter among a CPU's [`RESIDUALS`].
#[inline(always)]
#[must_use]
pub const fn residual_index(interface: u32, ipv6: bool, protocol: u8) -> u32 {
    (interface * 2 + ipv6 as u32) * 256 + protocol as u32
}

/// The slots in which a tuple of one hash value can lie, or a piece of the spill log.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group(pub [Slot; WAYS]);

const _: () = {
    assert!(size_of::<Block>() == BLOCK_BYTES);
    assert!(size_of::<InterfaceCounters>() == BLOCK_BYTES);
    assert!(size_of::<CpuState>() == BLOCK_BYTES);
    assert!(size_of::<Group>() == BLOCK_BYTES);
    assert!(RESIDUALS_PER_BLOCK * size_of::<Counts>() == BLOCK_BYTES);
    assert!(Outcome::COUNT <= OUTCOMES_MAX);
};

/// Block index, within a CPU's run, of its [`CpuState`].
pub const CPU_STATE_BLOCK: u32 = UNKNOWN_INTERFACE + 1;
/// Block index, within a CPU's run, of the first block of [`Counts`] counters.
pub const RESIDUAL_BLOCK: u32 = CPU_STATE_BLOCK + 1;
/// Block index, within a CPU's run, of the spill log.
pub const SPILL_BLOCK: u32 = RESIDUAL_BLOCK + (RESIDUALS / RESIDUALS_PER_BLOCK) as u32;

/// The sizes of a generation, fixed when the agent starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Runs: the possible CPUs.
    pub cpus: u32,
    /// Blocks of spill log in a run.
    pub spill_blocks: u32,
    /// Groups in a run: a power of two.
    pub groups: u32,
}

impl Shape {
    /// The shape in which `flows_per_cpu` flows fill half of the slots of each of `cpus` CPUs.
    ///
    /// Returns `None` when the blocks of all CPUs cannot be numbered with 32 bits.
    #[must_use]
    pub const fn for_flows(cpus: u32, flows_per_cpu: u32) -> Option<Self> {
        let slots = flows_per_cpu as u64 * 2;
        let groups = slots.div_ceil(WAYS as u64).next_power_of_two();
        if groups > 1 << 26 {
            return None;
        }
        let spill_blocks = if groups < 8 { 1 } else { groups / 8 };
        let run = SPILL_BLOCK as u64 + spill_blocks + groups;
        if run * cpus as u64 > u32::MAX as u64 {
            return None;
        }
        Some(Self { cpus, spill_blocks: spill_blocks as u32, groups: groups as u32 })
    }

    /// Blocks in the run of one CPU.
    #[must_use]
    pub const fn run_blocks(&self) -> u32 {
        SPILL_BLOCK + self.spill_blocks + self.groups
    }

    /// Blocks in the generation: the entries of its map.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.run_blocks() * self.cpus
    }

    /// Bytes of the generation.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks() as u64 * BLOCK_BYTES as u64
    }

    /// Slots of one CPU.
    #[must_use]
    pub const fn slots_per_cpu(&self) -> u64 {
        self.groups as u64 * WAYS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{RESIDUALS, Shape, residual_index};

    #[test]
    fn half_of_the_slots_hold_the_flows() {
        let shape = Shape::for_flows(2, 65_536).expect("fits");
        assert_eq!(shape.slots_per_cpu(), 131_072);
        assert_eq!(Shape::for_flows(1, 1).expect("fits").slots_per_cpu(), 8);
        assert_eq!(Shape::for_flows(1, 5).expect("fits").slots_per_cpu(), 16);
    }

    #[test]
    fn a_shape_that_cannot_be_numbered_is_refused() {
        assert_eq!(Shape::for_flows(u32::MAX, 1), None);
        assert_eq!(Shape::for_flows(1, u32::MAX), None);
    }

    #[test]
    fn the_last_residual_is_the_last_index() {
        assert_eq!(residual_index(31, true, 255) as usize, RESIDUALS - 1);
    }
}
