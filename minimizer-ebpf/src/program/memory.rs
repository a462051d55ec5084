//! The program's maps, and the memory of this CPU in the current generation.

use core::cell::UnsafeCell;
use core::ptr;

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use minimizer_common::generation::{
    BLOCK_BYTES, Counts, GROUPS_BLOCK, Group, HEAD_BLOCK, Head, InterfaceCounters, Place, RESIDUAL_BLOCKS,
    RESIDUALS, UNKNOWN_INTERFACE, residual_index,
};
use minimizer_common::permutation::Permutation;
use minimizer_common::settings::{VALUE_IS_RUN, VALUES_PLACEHOLDER, WORDS_PLACEHOLDER};
use minimizer_common::slot::{Half, Line};
use minimizer_common::tables::{ENTRY_WORDS, Entry, NODE_WORDS, Node, Roots};
use minimizer_ebpf::policy::minimize::Pseudonyms;
use minimizer_ebpf::policy::nodes::Nodes;
use minimizer_ebpf::table::burst::{Table, spill_place};
use minimizer_ebpf::table::first_line::FirstLine;
use minimizer_ebpf::table::group::{self, Image, Volume};
use minimizer_ebpf::untraced;

use crate::program::constants::{ROOTS, setting};

const MMAPABLE: usize = 1 << 10;

/// Both generations. The values are words: the agent replaces their number.
pub type Generations = Array<[u64; WORDS_PLACEHOLDER], VALUES_PLACEHOLDER, MMAPABLE>;

#[btf_map]
static GENERATIONS: Generations = Array::new();

/// The number of the generation that the program writes. The agent changes it, and then waits until no program uses the
/// other one. It changes one octet, so that no program reads half of a change.
static CURRENT: Variable = Variable(UnsafeCell::new(0));

#[repr(transparent)]
struct Variable(UnsafeCell<u32>);

// SAFETY: the program only reads it, in one load.
unsafe impl Sync for Variable {}

/// The nodes of the policy's tables. The agent sets their number, writes them before it loads the program,
/// and freezes the map. The map is not declared read-only for the program: if a map is frozen and read-only,
/// the verifier reads values at known places itself, and it can do that only in arrays of one element.
#[btf_map]
static TABLES: Array<[u32; NODE_WORDS], 1> = Array::new();

/// The entries of the policy's lists. The agent treats this map like [`TABLES`].
#[btf_map]
static LISTS: Array<[u32; ENTRY_WORDS], 1> = Array::new();

/// The permutation of each generation. The agent writes it before the kernel gets the generation, and zeroes it once it has
/// drained the generation.
#[btf_map]
static PERMUTATIONS: Array<Permutation, 1, MMAPABLE> = Array::new();

/// The keys of a generation.
pub struct Keys {
    /// Of IPv6.
    pub key: [u64; 2],
    /// The number of the generation.
    pub generation: u64,
}

impl Pseudonyms for Keys {
    #[inline(always)]
    fn ipv4(&self) -> Option<&Permutation> {
        PERMUTATIONS.get(self.generation as u32)
    }

    #[inline(always)]
    fn ipv6(&self) -> [u64; 2] {
        self.key
    }
}

/// [`ROOTS`], [`TABLES`] and [`LISTS`], for the look-ups.
#[derive(Clone, Copy)]
pub struct PolicyTables;

impl Nodes for PolicyTables {
    #[inline(always)]
    fn node(&self, index: u32) -> Option<&Node> {
        TABLES.get(index)
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> Option<Entry> {
        LISTS.get(index).map(|words| Entry::of(*words))
    }

    #[inline(always)]
    fn roots(&self) -> &Roots {
        &ROOTS
    }
}

/// The memory of this CPU in the current generation.
#[derive(Clone, Copy)]
pub struct Run {
    /// The value in which the run begins.
    pub start: *mut u8,
    /// The number of that value, if a value is a block.
    pub first_block: u32,
}

impl Run {
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Self> {
        // SAFETY: the helper has no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        // SAFETY: reads a variable. The read is volatile, because the agent writes it.
        let current = unsafe { ptr::read_volatile(CURRENT.0.get()) };
        let run = cpu * 2 + current;
        let first_block = if is_one_value() { run } else { run * setting!(run_blocks) };
        let start = GENERATIONS.get_ptr_mut(first_block)?.cast();
        Some(Self { start, first_block })
    }

    /// What the CPU has besides its table.
    #[inline(always)]
    pub fn head(&self) -> &'static mut Head {
        const _: () = assert!(HEAD_BLOCK == 0);
        // SAFETY: a run begins with its head, and only this CPU writes it.
        unsafe { &mut *self.start.cast() }
    }

    /// Where to find what lies at an offset behind the start of a block: the start of that block, or of a later one, and the
    /// offset that is left. The offset must be so small that the verifier knows it to be within the run.
    #[inline(always)]
    fn find(&self, block: u32, offset: u32) -> Option<(*mut u8, usize)> {
        Some(if is_one_value() {
            (self.start.wrapping_add(block as usize * BLOCK_BYTES), offset as usize)
        } else {
            let number = self.first_block + block + offset / BLOCK_BYTES as u32;
            (GENERATIONS.get_ptr_mut(number)?.cast(), offset as usize % BLOCK_BYTES)
        })
    }

    /// What lies at an offset behind the start of a block; see [`Self::find`].
    #[inline(always)]
    fn part<T>(&self, block: u32, offset: u32) -> Option<*mut T> {
        let (start, byte) = self.find(block, offset)?;
        Some(start.wrapping_add(byte).cast())
    }

    /// The line in which probing for a packet starts.
    #[inline(always)]
    pub fn first_line(&self, place: Place) -> Option<FirstLine> {
        let (start, byte) = self.find(GROUPS_BLOCK, place.position() & setting!(table_mask))?;
        // SAFETY: a half of a group lies there, in memory that only this CPU writes.
        Some(unsafe { FirstLine::new(start, byte) })
    }
}

/// Whether a value of the generations is the whole run of a CPU.
#[inline(always)]
fn is_one_value() -> bool {
    setting!(value) == VALUE_IS_RUN
}

/// The counters of an interface.
#[inline(always)]
pub fn counters(head: &mut Head, interface: u32) -> &mut InterfaceCounters {
    // The verifier needs a bound; no number is larger.
    let position = if interface > UNKNOWN_INTERFACE { UNKNOWN_INTERFACE } else { interface };
    &mut head.interfaces[position as usize]
}

impl Table for Run {
    #[inline(always)]
    fn group(&mut self, position: u32) -> Option<&mut Group> {
        let mask = setting!(table_mask) & !(size_of::<Group>() as u32 - 1);
        let group = self.part(GROUPS_BLOCK, position & mask)?;
        // SAFETY: a group lies there, and only this CPU writes it.
        Some(unsafe { &mut *group })
    }

    #[inline(always)]
    fn spill_half(&mut self) -> Option<&mut Half> {
        let half = self.spill(false)?;
        // SAFETY: a half of the spill log lies there, and only this CPU writes it.
        Some(unsafe { &mut *half })
    }

    #[inline(always)]
    fn spill_line(&mut self) -> Option<&mut [Half; 2]> {
        let half = self.spill(true)?;
        // SAFETY: the half is the first of a line.
        Some(unsafe { &mut *half.cast() })
    }

    #[inline(always)]
    fn overflow(&mut self, place: Place, image: &Image) -> Option<()> {
        const OCTETS: u32 = size_of::<Counts>() as u32;
        const _: () = assert!(RESIDUALS.is_power_of_two());
        let Volume { protocol, is_ipv6, packets, octets } = group::volume(image);
        let index = untraced(residual_index(place.interface(), is_ipv6, protocol));
        let mask = (RESIDUALS as u32 - 1) * OCTETS;
        let residual = self.part::<Counts>(setting!(residual_block), (index * OCTETS) & mask)?;
        // SAFETY: a residual counter lies there, and only this CPU writes it.
        let residual = unsafe { &mut *residual };
        residual.packets += packets;
        residual.octets += octets;
        counters(self.head(), place.interface()).overflow(packets);
        Some(())
    }
}

impl Run {
    /// The next place in the spill log; for a line its first half.
    #[inline(always)]
    fn spill(&self, is_line: bool) -> Option<*mut Half> {
        let room = setting!(spill_halves);
        let state = &mut self.head().state;
        let (start, spilled) = spill_place(state.spilled, is_line, room)?;
        let unit = if is_line { size_of::<Line>() } else { size_of::<Half>() } as u32;
        let mask = room * size_of::<Half>() as u32 - unit;
        let block = setting!(residual_block) + RESIDUAL_BLOCKS;
        let half = self.part(block, (untraced(start) * size_of::<Half>() as u32) & mask)?;
        state.spilled = spilled;
        Some(half)
    }
}
