//! The memory of one generation: every possible CPU has a run of blocks.
//!
//! ```text
//! CPU 0, generation 0                                                                 CPU 0, generation 1
//! | head: interface counters × 33, state, ring, control | groups | residual | spill log | head …
//! ```
//! Everything that accounts for a packet lies in the one generation that the packet saw. A quiet generation
//! is therefore a closed ledger. Only the owning CPU writes its run. The agent reads and zeroes the run when
//! the generation is quiet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::outcome::Outcome;
use crate::settings::Control;
use crate::slot::{HALF_WORDS, Half, Line};

/// Interfaces that one agent can watch: the width of the slot number in a tuple.
pub const INTERFACES_MAX: usize = 32;
/// The place of the counters of every interface that nobody watches: behind those of the slots.
pub const UNKNOWN_INTERFACE: u32 = INTERFACES_MAX as u32;
/// Size of a block in bytes. Where the kernel takes no value as large as a run, a block is the value of its maps: a look-up
/// finds a block, and what lies in it needs no other one.
pub const BLOCK_BYTES: usize = 64 << 10;
/// The same in the type of the sizes of maps.
pub const BLOCK_OCTETS: u32 = BLOCK_BYTES as u32;
/// Halves of cache lines in a group.
pub const GROUP_HALVES: usize = 16;
/// Groups in a block.
pub const BLOCK_GROUPS: usize = BLOCK_BYTES / size_of::<Group>();
/// Halves in a block of spill log.
pub const BLOCK_HALVES: usize = BLOCK_BYTES / size_of::<Half>();
/// Packets that a CPU sets aside before it accounts for all of them.
pub const BURST: usize = 16;

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

impl InterfaceCounters {
    /// Books packets, which were booked as counted, as packets that found no room.
    #[inline(always)]
    pub const fn overflow(&mut self, packets: u64) {
        self.outcomes[Outcome::Counted as usize] -= packets;
        self.outcomes[Outcome::Overflow as usize] += packets;
    }
}

/// Room for outcomes in [`InterfaceCounters`].
pub const OUTCOMES_MAX: usize = 59;

/// State of one CPU.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuState {
    /// Packets in [`Head::ring`] that are not yet in a slot.
    pub set_aside: u64,
    /// Halves used in the spill log.
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
    /// Packets in [`Head::waiting`], of which the first [`Self::waited`] are in their places.
    pub waiting: u64,
    /// Slots taken in this generation.
    pub slots_taken: u64,
    /// The latest packet; see [`Latest`].
    pub latest: Latest,
    /// See [`Self::waiting`].
    pub waited: u64,
    /// The number of this generation: the index of its value in [`crate::permutation::PERMUTATIONS_MAP`].
    pub generation: u64,
    /// Unused, zero.
    pub reserved: [u64; 5],
    /// Where the packets in [`Head::ring`] belong.
    pub places: [Place; BURST],
    /// Where the packets in [`Head::waiting`] belong.
    pub waiting_places: [Place; BURST],
}

/// The latest packet of a CPU: the hash of its tuple in bits 0..32, and whether it repeats the one before in bit 32. It is
/// then the last of [`Head::ring`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Latest(u64);

impl Latest {
    /// A packet at this position.
    #[inline(always)]
    #[must_use]
    pub const fn new(position: u32, is_repeated: bool) -> Self {
        Self(position as u64 | (is_repeated as u64) << 32)
    }

    /// The hash of its tuple.
    #[inline(always)]
    #[must_use]
    pub const fn position(self) -> u32 {
        self.0 as u32
    }

    /// Whether the packet repeats the one before.
    #[inline(always)]
    #[must_use]
    pub const fn is_repeated(self) -> bool {
        self.0 >> 32 != 0
    }
}

/// With so many slots in use or more, a CPU sets packets aside: it cannot have all their lines in its cache.
pub const FEW_SLOTS: u64 = 4096;

/// Where a packet that was set aside belongs: the hash of its tuple in bits 0..32, the slot number of its interface in bits
/// 32..38.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Place(u64);

impl Place {
    /// The place of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn new(position: u32, interface: u32) -> Self {
        Self(position as u64 | (interface as u64) << 32)
    }

    /// The hash. Its bits from [`HALF_SHIFT`] on are those of an offset in a table: they name a half and its group.
    #[inline(always)]
    #[must_use]
    pub const fn position(self) -> u32 {
        self.0 as u32
    }

    /// Slot number of the interface.
    #[inline(always)]
    #[must_use]
    pub const fn interface(self) -> u32 {
        (self.0 >> 32) as u32 & 0x3f
    }
}

/// Where the number of a half in its group begins in a position.
pub const HALF_SHIFT: u32 = size_of::<Half>().ilog2();
/// Where the number of a group begins in a position.
pub const GROUP_SHIFT: u32 = size_of::<Group>().ilog2();

/// The first block of a CPU's run.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Head {
    /// Counters by the slot number of the interface; the last are those of [`UNKNOWN_INTERFACE`].
    pub interfaces: [InterfaceCounters; INTERFACES_MAX + 1],
    /// What the CPU knows besides.
    pub state: CpuState,
    /// Packets that were set aside, each as the slot that it would fill alone. A narrow one uses the first half of its
    /// line.
    pub ring: [[u64; 2 * HALF_WORDS]; BURST],
    /// Packets of a burst whose first line was full. Each packet after the burst puts one of them into a slot.
    pub waiting: [[u64; 2 * HALF_WORDS]; BURST],
    /// What the agent tells the program while it runs.
    pub control: Control,
    /// Unused, zero.
    pub reserved: [u64; HEAD_RESERVED],
}

const HEAD_RESERVED: usize = (BLOCK_BYTES
    - (INTERFACES_MAX + 1) * size_of::<InterfaceCounters>()
    - size_of::<CpuState>()
    - 2 * BURST * size_of::<Line>()
    - size_of::<Control>())
    / size_of::<u64>();

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

/// Eight cache lines in which the slots of one hash value lie.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Group(pub [Half; GROUP_HALVES]);

const _: () = {
    assert!(size_of::<Head>() == BLOCK_BYTES);
    assert!(size_of::<InterfaceCounters>() == 512);
    assert!(size_of::<CpuState>().is_multiple_of(size_of::<Line>()));
    assert!(size_of::<Group>() == GROUP_HALVES * size_of::<Half>());
    assert!(RESIDUALS.is_multiple_of(RESIDUALS_PER_BLOCK));
    assert!(Outcome::COUNT <= OUTCOMES_MAX);
};

/// Block index, within a CPU's run, of its [`Head`].
pub const HEAD_BLOCK: u32 = 0;
/// Block index, within a CPU's run, of its groups.
pub const GROUPS_BLOCK: u32 = HEAD_BLOCK + 1;
/// Blocks of residual counters in a run.
pub const RESIDUAL_BLOCKS: u32 = (RESIDUALS / RESIDUALS_PER_BLOCK) as u32;
/// Bytes of a CPU's groups, at most: an offset has 32 bits.
const GROUPS_BYTES_MAX: u64 = 1 << 32;

/// The sizes of a generation, fixed when the agent starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Runs: the possible CPUs.
    pub cpus: u32,
    /// Halves of spill log in a run.
    pub spill_halves: u32,
    /// Groups in a run: a power of two.
    pub groups: u32,
}

impl Shape {
    /// The shape in which `flows_per_cpu` flows in narrow slots fill half of the table of each of `cpus` CPUs.
    ///
    /// Returns `None` when the blocks of all CPUs cannot be numbered with 32 bits.
    #[must_use]
    pub const fn for_flows(cpus: u32, flows_per_cpu: u32) -> Option<Self> {
        let halves = flows_per_cpu as u64 * 2;
        let groups = halves.div_ceil(GROUP_HALVES as u64).next_power_of_two();
        if groups > GROUPS_BYTES_MAX >> GROUP_SHIFT {
            return None;
        }
        let spill_halves = if groups < 4 { 8 } else { groups * 2 };
        let shape = Self { cpus, spill_halves: spill_halves as u32, groups: groups as u32 };
        // Those of both generations.
        if shape.run_blocks() as u64 * cpus as u64 * 2 > u32::MAX as u64 {
            return None;
        }
        Some(shape)
    }

    /// Block index, within a CPU's run, of its residual counters.
    #[must_use]
    pub const fn residual_block(&self) -> u32 {
        GROUPS_BLOCK + self.groups.div_ceil(BLOCK_GROUPS as u32)
    }

    /// Block index, within a CPU's run, of the spill log.
    #[must_use]
    pub const fn spill_block(&self) -> u32 {
        self.residual_block() + RESIDUAL_BLOCKS
    }

    /// Blocks in the run of one CPU.
    #[must_use]
    pub const fn run_blocks(&self) -> u32 {
        self.spill_block() + self.spill_halves.div_ceil(BLOCK_HALVES as u32)
    }

    /// Bytes in the run of one CPU.
    #[must_use]
    pub const fn run_bytes(&self) -> u64 {
        self.run_blocks() as u64 * BLOCK_BYTES as u64
    }

    /// The bits of a position that are the offset of a half in a CPU's groups.
    #[must_use]
    pub const fn table_mask(&self) -> u32 {
        (((self.groups as u64) << GROUP_SHIFT) - size_of::<Half>() as u64) as u32
    }

    /// Blocks in one generation.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.run_blocks() * self.cpus
    }

    /// Bytes of the generation.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks() as u64 * BLOCK_BYTES as u64
    }

    /// Narrow slots of one CPU. A wide slot takes the place of two.
    #[must_use]
    pub const fn slots_per_cpu(&self) -> u64 {
        self.groups as u64 * GROUP_HALVES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{RESIDUALS, Shape, residual_index};

    #[test]
    fn half_of_the_slots_hold_the_flows() {
        let shape = Shape::for_flows(2, 65_536).expect("fits");
        assert_eq!(shape.slots_per_cpu(), 131_072);
        assert_eq!(Shape::for_flows(1, 1).expect("fits").slots_per_cpu(), 16);
        assert_eq!(Shape::for_flows(1, 9).expect("fits").slots_per_cpu(), 32);
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
