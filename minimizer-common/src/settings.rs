//! What the agent tells the kernel program: constants that are fixed at load, and a control page.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::generation::INTERFACES_MAX;
use crate::plan::{Plan, Steps};

/// Number of secret 64-bit keys of the table's hash.
pub const HASH_KEYS: usize = 12;

/// Placeholders for the number of values in the map of the generations, and for the words of a value. The agent chooses them
/// at start, and replaces these numbers in the object's type information before it loads the object.
pub const VALUES_PLACEHOLDER: usize = 0x4d49_4e58;
/// See [`VALUES_PLACEHOLDER`].
pub const WORDS_PLACEHOLDER: usize = 0x0d49_4e57;

/// Name of the constant [`Settings`] in the object.
pub const SETTINGS_SYMBOL: &str = "SETTINGS";
/// Name of the constant [`crate::tables::Roots`] in the object.
pub const ROOTS_SYMBOL: &str = "ROOTS";
/// Name of the map of both generations: the memory of CPU 0 in the one, in the other, of CPU 1 in the one, and so on.
pub const GENERATIONS_MAP: &str = "GENERATIONS";
/// Name of the map with the one variable of the program: the number of the generation that it writes, 0 or 1.
pub const CURRENT_MAP: &str = ".bss";
/// Name of the map that holds the nodes of the policy's tables: [`crate::tables`].
pub const TABLES_MAP: &str = "TABLES";
/// Name of the map that holds the entries of the policy's lists.
pub const LISTS_MAP: &str = "LISTS";
/// Name of the program that lets packets pass.
pub const PROGRAM: &str = "minimizer";
/// Name of the program that drops packets after it has counted them.
pub const PROGRAM_TAP: &str = "minimizer_tap";
/// Name of the program that looks into tunnels and lets packets pass.
pub const PROGRAM_INNER: &str = "minimizer_inner";
/// Name of the program that looks into tunnels and drops packets. The kernel keeps 15 characters of a name.
pub const PROGRAM_INNER_TAP: &str = "minimizer_intap";
/// Every program in the object, and the only verdict that it returns.
pub const PROGRAMS: [(&str, u32); 4] = [
    (PROGRAM, ACTION_PASS),
    (PROGRAM_TAP, ACTION_DROP),
    (PROGRAM_INNER, ACTION_PASS),
    (PROGRAM_INNER_TAP, ACTION_DROP),
];

/// Constants of the program, in its read-only data. The verifier knows them and removes the code that they
/// rule out.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Keys of the hash. The agent draws them anew at every start.
    pub hash_keys: [u64; HASH_KEYS],
    /// What the program keeps of a packet under the policy in force.
    pub plan: Plan,
    /// Nanoseconds in a time unit, which is the finest time that any record can have.
    pub time_unit_ns: u64,
    /// Nanoseconds in a timer tick of this kernel.
    pub tick_ns: u64,
    /// Blocks in the run of one CPU; see [`crate::generation::Shape::run_blocks`].
    pub run_blocks: u32,
    /// See [`crate::generation::Shape::table_mask`].
    pub table_mask: u32,
    /// Block index of the residual counters within a run; see [`crate::generation::Shape::residual_block`].
    pub residual_block: u32,
    /// Halves of spill log in a run, a power of two; see [`crate::generation::Shape::spill_halves`].
    pub spill_halves: u32,
    /// [`VALUE_IS_RUN`] or [`VALUE_IS_BLOCK`].
    pub value: u32,
    /// [`CLOCK_TICK`], [`CLOCK_CONTROL`] or [`CLOCK_NONE`].
    pub clock: u32,
    /// [`LENGTH_LINEAR`] or [`LENGTH_BUFFER`].
    pub frame_length: u32,
    /// Tunnels whose inner packet the program counts: a [`crate::tunnel::Tunnels`].
    pub tunnels: u32,
    /// How the program treats packets of a common shape: [`Way`].
    pub way: u32,
    /// Unused, zero.
    pub reserved: u32,
}

/// How the program treats packets of a common shape. The plan says that too; this is one number, so that the program asks
/// with one comparison, of which the verifier leaves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way(pub u32);

impl Way {
    /// Like all others: the policy judges packets.
    pub const JUDGED: Self = Self(0);
    /// By masks.
    pub const MASKED: Self = Self(1);
    /// The policy keeps every field as it is.
    pub const EXACT: Self = Self(2);

    /// The way for the steps of a plan.
    #[must_use]
    pub const fn of(steps: Steps) -> Self {
        if steps.intersects(Steps::JUDGING) {
            Self::JUDGED
        } else if steps.intersects(Steps::UNREAD.union(Steps::MASKING)) {
            Self::MASKED
        } else {
            Self::EXACT
        }
    }
}

/// `XDP_PASS`: hands the packet to the network stack, unaltered.
pub const ACTION_PASS: u32 = 2;
/// `XDP_DROP`: for an interface that the operator has declared a tap.
pub const ACTION_DROP: u32 = 1;
/// A value of the generations' map is the run of a CPU: one look-up finds all of it.
pub const VALUE_IS_RUN: u32 = 0;
/// A value of the generations' map is a block. No map of Linux before 6.9 has values of more than 4 MiB.
pub const VALUE_IS_BLOCK: u32 = 1;
/// Time comes from the kernel's tick.
pub const CLOCK_TICK: u32 = 0;
/// Time comes from [`Control::clock`]: a replayed capture keeps its own time.
pub const CLOCK_CONTROL: u32 = 1;
/// The policy needs no time.
pub const CLOCK_NONE: u32 = 2;
/// The length of a frame is the length of its linear buffer (kernels without multi-buffer XDP).
pub const LENGTH_LINEAR: u32 = 0;
/// The program asks the kernel for the length of a frame, with all its buffers (Linux 5.18 and later).
pub const LENGTH_BUFFER: u32 = 1;

/// A time in one word: the time unit that a slot stores, and seconds since 1970.
#[inline(always)]
#[must_use]
pub const fn clock(units: u32, seconds: u32) -> u64 {
    units as u64 | (seconds as u64) << 32
}

/// What the agent may change while the program runs. It lies once for each CPU in each generation: a packet finds it with
/// everything else.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Control {
    /// The time of packets when [`Settings::clock`] is [`CLOCK_CONTROL`]; see [`clock`].
    pub clock: u64,
    /// A factor that spreads the indices of watched interfaces over [`Control::interfaces`] without a collision.
    pub interface_multiplier: u32,
    /// Unused, zero.
    pub reserved: u32,
    /// The [`InterfaceEntry`] of each watched interface, at the [`interface_position`] of its index.
    pub interfaces: [u64; INTERFACE_POSITIONS],
}

/// Positions in [`Control::interfaces`].
pub const INTERFACE_POSITIONS: usize = 1 << INTERFACE_POSITION_BITS;
const INTERFACE_POSITION_BITS: u32 = 12;

/// The position at which the entry of an interface index lies.
#[inline(always)]
#[must_use]
pub const fn interface_position(if_index: u32, multiplier: u32) -> usize {
    (if_index.wrapping_mul(multiplier) >> (u32::BITS - INTERFACE_POSITION_BITS)) as usize
}

/// An interface index and its slot in one word, so that one store changes both. Zero is no entry: no interface has
/// index 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceEntry(pub u64);

impl InterfaceEntry {
    /// The entry of an interface that has a slot.
    #[must_use]
    pub const fn new(if_index: u32, slot: u8) -> Self {
        Self((if_index as u64) << 32 | slot as u64)
    }

    /// The slot, if the entry is that of the interface. The hash is without collisions for watched interfaces only:
    /// the entry of another one may be found for an interface that nobody watches.
    #[inline(always)]
    #[must_use]
    pub const fn slot_of(self, if_index: u32) -> Option<u32> {
        if (self.0 >> 32) as u32 == if_index {
            Some(self.0 as u32 & (INTERFACES_MAX as u32 - 1))
        } else {
            None
        }
    }
}

const _: () = assert!(size_of::<Settings>() == HASH_KEYS * 8 + size_of::<Plan>() + 2 * 8 + 10 * 4);
const _: () = assert!(size_of::<Control>() == 16 + 8 * INTERFACE_POSITIONS);
