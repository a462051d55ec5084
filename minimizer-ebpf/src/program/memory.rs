//! The program's maps, and the blocks of this CPU in the current generation.

use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use minimizer_common::generation::{
    BLOCK_BYTES, BLOCK_GROUPS, BLOCK_HALVES, Counts, Group, HEAD_BLOCK, Head, InterfaceCounters, Place,
    RESIDUAL_BLOCK, RESIDUALS_PER_BLOCK, SPILL_BLOCK, UNKNOWN_INTERFACE, residual_index,
};
use minimizer_common::settings::{BLOCKS_PLACEHOLDER, Control};
use minimizer_common::slot::Half;
use minimizer_common::tables::{ENTRY_WORDS, Entry, NODE_WORDS, Node, Roots};
use minimizer_ebpf::policy::nodes::Nodes;
use minimizer_ebpf::table::burst::{Table, spill_place};
use minimizer_ebpf::table::first_line::FirstLine;
use minimizer_ebpf::table::group::{self, Image, Volume};
use minimizer_ebpf::untraced;

use crate::program::constants::{ROOTS, setting};

const MMAPABLE: usize = 1 << 10;

/// The values are words and not a struct. If type information says that the values of an inner map are
/// structs, kernels from 5.15 to 6.1 put no other map in its place, unless that one has type information too.
pub type Generation = Array<[u64; BLOCK_BYTES / size_of::<u64>()], BLOCKS_PLACEHOLDER, MMAPABLE>;

/// The generation that the program writes. The agent's replacement of the slot waits until no program uses
/// the old generation.
#[btf_map]
static GENERATION: ArrayOfMaps<Generation, 1> = ArrayOfMaps::new();

/// What the agent may change while the program runs.
#[btf_map]
pub static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// The nodes of the policy's tables. The agent sets their number, writes them before it loads the program,
/// and freezes the map. The map is not declared read-only for the program: if a map is frozen and read-only,
/// the verifier reads values at known places itself, and it can do that only in arrays of one element.
#[btf_map]
static TABLES: Array<[u32; NODE_WORDS], 1> = Array::new();

/// The entries of the policy's lists. The agent treats this map like [`TABLES`].
#[btf_map]
static LISTS: Array<[u32; ENTRY_WORDS], 1> = Array::new();

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

/// The blocks of this CPU in the current generation.
#[derive(Clone, Copy)]
pub struct Run {
    pub generation: &'static Generation,
    pub first_block: u32,
}

impl Run {
    #[inline(always)]
    pub fn of_this_cpu() -> Option<Self> {
        let generation = GENERATION.get(0)?;
        // SAFETY: the helper has no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        Some(Self { generation, first_block: cpu * setting!(run_blocks) })
    }

    /// The line in which probing for a packet starts.
    #[inline(always)]
    pub fn first_line(&self, place: Place) -> Option<FirstLine> {
        let block = self.generation.get_ptr_mut(place.block())?.cast();
        // SAFETY: a half of a group lies there, in a block that only this CPU writes.
        Some(unsafe { FirstLine::new(block, place.half_byte()) })
    }

    #[inline(always)]
    fn block<T>(&self, index: u32) -> Option<*mut T> {
        Some(self.generation.get_ptr_mut(self.first_block + index)?.cast())
    }

    /// What the CPU has besides its table.
    #[inline(always)]
    pub fn head(&self) -> Option<&'static mut Head> {
        let head = self.block::<Head>(HEAD_BLOCK)?;
        // SAFETY: the first block of a run is a head, and only this CPU writes it.
        Some(unsafe { &mut *head })
    }
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
        let group = position & setting!(group_mask);
        let block = setting!(groups_block) + group / BLOCK_GROUPS as u32;
        let groups = self.block::<[Group; BLOCK_GROUPS]>(block)?;
        // SAFETY: the block holds groups, and only this CPU writes it.
        let groups = unsafe { &mut *groups };
        Some(&mut groups[group as usize % BLOCK_GROUPS])
    }

    #[inline(always)]
    fn spill_half(&mut self) -> Option<&mut Half> {
        let halves = self.spill(false)?;
        // SAFETY: the place lies within a block of spill log, and only this CPU writes it.
        Some(unsafe { &mut *halves })
    }

    #[inline(always)]
    fn spill_line(&mut self) -> Option<&mut [Half; 2]> {
        let halves = self.spill(true)?;
        // SAFETY: the place is even, and the block has an even number of halves.
        Some(unsafe { &mut *halves.cast() })
    }

    #[inline(always)]
    fn overflow(&mut self, place: Place, image: &Image) -> Option<()> {
        let Volume { protocol, is_ipv6, packets, octets } = group::volume(image);
        let index = untraced(residual_index(place.interface(), is_ipv6, protocol));
        let per_block = RESIDUALS_PER_BLOCK as u32;
        let residuals = self.block::<[Counts; RESIDUALS_PER_BLOCK]>(RESIDUAL_BLOCK + index / per_block)?;
        // SAFETY: the block holds residual counters, and only this CPU writes it.
        let residual = unsafe { &mut (*residuals)[(index % per_block) as usize] };
        residual.packets += packets;
        residual.octets += octets;
        counters(self.head()?, place.interface()).overflow(packets);
        Some(())
    }
}

impl Run {
    /// The next place in the spill log.
    #[inline(always)]
    fn spill(&self, is_line: bool) -> Option<*mut Half> {
        let head = self.head()?;
        let (start, spilled) = spill_place(head.state.spilled, is_line, setting!(spill_halves))?;
        let start = untraced(start);
        let halves = self.block::<[Half; BLOCK_HALVES]>(SPILL_BLOCK + start / BLOCK_HALVES as u32)?;
        head.state.spilled = spilled;
        let place = if is_line { (start % BLOCK_HALVES as u32) & !1 } else { start % BLOCK_HALVES as u32 };
        // SAFETY: the block holds halves of the spill log, and only this CPU writes it.
        Some(unsafe { &raw mut (*halves)[place as usize] })
    }
}
