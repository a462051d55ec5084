//! The program's maps, and the blocks of this CPU in the current generation.

use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::btf_map;
use minimizer_common::generation::{
    BLOCK_BYTES, Block, CPU_STATE_BLOCK, Counts, CpuState, Group, InterfaceCounters, RESIDUAL_BLOCK,
    RESIDUALS_PER_BLOCK, SPILL_BLOCK, WAYS, residual_index,
};
use minimizer_common::settings::{BLOCKS_PLACEHOLDER, Control};
use minimizer_common::tables::{ENTRY_WORDS, Entry, NODE_WORDS, Node, Roots};
use minimizer_common::tuple::Tuple;
use minimizer_ebpf::policy::nodes::Nodes;
use minimizer_ebpf::table::group::{self, Count};
use minimizer_ebpf::untraced;

use crate::program::constants::{ROOTS, setting};

const MMAPABLE: usize = 1 << 10;

/// The values are words and not [`Block`]s. If type information says that the values of an inner map are
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

    #[inline(always)]
    fn block(&self, index: u32) -> Option<*mut Block> {
        Some(self.generation.get_ptr_mut(self.first_block + index)?.cast())
    }

    #[inline(always)]
    pub fn interface(&self, slot: u32) -> Option<&'static mut InterfaceCounters> {
        let block = self.block(slot)?.cast::<InterfaceCounters>();
        // SAFETY: a block at this index holds interface counters, and only this CPU writes it.
        Some(unsafe { &mut *block })
    }

    #[inline(always)]
    pub fn group(&self, position: u32) -> Option<*mut Group> {
        let group = position & setting!(group_mask);
        Some(self.block(SPILL_BLOCK + setting!(spill_blocks) + group)?.cast())
    }

    #[inline(always)]
    pub fn state(&self) -> Option<&'static mut CpuState> {
        let state = self.block(CPU_STATE_BLOCK)?.cast::<CpuState>();
        // SAFETY: the block holds the CPU's state, and only this CPU writes it.
        Some(unsafe { &mut *state })
    }

    /// The key of this generation's pseudonyms.
    #[inline(always)]
    pub fn pseudonym_key(&self) -> Option<[u64; 2]> {
        Some(self.state()?.pseudonym_key)
    }

    /// Appends a packet to the spill log and returns `true`, or adds it to a residual counter and returns
    /// `false`.
    #[inline(always)]
    pub fn spill(&self, packet: &Displaced) -> Option<bool> {
        let state = self.state()?;
        let spilled = state.spilled as u32;
        let block = spilled / WAYS as u32;
        if block < setting!(spill_blocks) {
            let group = self.block(SPILL_BLOCK + block)?.cast::<Group>();
            // SAFETY: the block is a piece of spill log, and only this CPU writes it.
            let group = unsafe { &mut *group };
            group::count::<true>(&mut group.0[spilled as usize % WAYS], &packet.tuple, packet.count);
            state.spilled += 1;
            return Some(true);
        }
        let tuple = &packet.tuple;
        let index = untraced(residual_index(packet.interface, tuple.tags().is_ipv6(), tuple.protocol()));
        let per_block = RESIDUALS_PER_BLOCK as u32;
        let residuals =
            self.block(RESIDUAL_BLOCK + index / per_block)?.cast::<[Counts; RESIDUALS_PER_BLOCK]>();
        // SAFETY: the block holds residual counters, and only this CPU writes it.
        let residual = unsafe { &mut (*residuals)[(index % per_block) as usize] };
        residual.packets += 1;
        residual.octets += packet.count.octets;
        Some(false)
    }
}

/// A packet whose first group is full.
pub struct Displaced {
    pub tuple: Tuple,
    pub count: Count,
    pub position: u32,
    pub interface: u32,
}
