//! The two generations: the kernel writes one; the other is quiet and belongs to the agent.

use std::io;
use std::mem::offset_of;

use aya::maps::{ArrayOfMaps, MapData, MapError};
use minimizer_common::generation::{
    BLOCK_BYTES, BURST, Counts, CpuState, GROUP_HALVES, GROUP_SHIFT, GROUPS_BLOCK, Group, HEAD_BLOCK, Head,
    InterfaceCounters, Latest, Place, RESIDUALS, Shape, residual_index,
};
use minimizer_common::slot::{Half, Line};
use minimizer_ebpf::table::burst::{self, Table, spill_place};
use minimizer_ebpf::table::group::{self, Image, Volume};
use thiserror::Error;
use zerocopy::{FromZeros as _, IntoBytes};

use crate::kernel::features;
use crate::kernel::prepared::Values;
use crate::kernel::wall_clock::WallClock;
use crate::support::refusal::{Asked, told, told_with_causes};
use crate::support::sys::Mapping;
use crate::support::sys::secret::SharedKey;
use crate::support::traces::without_traces;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// Why the agent cannot create or flip the flow table.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// The kernel did not create a generation's map.
    #[error("cannot make a flow table of {bytes} bytes: {}", told_with_causes(Asked::FlowTable, .source))]
    Create {
        /// Size of one generation.
        bytes: u64,
        /// The kernel's error.
        source: MapError,
    },
    /// The agent could not map a generation.
    #[error("cannot map the flow table of {bytes} bytes: {}", told(Asked::Memory, .source))]
    Map {
        /// Size of one generation.
        bytes: u64,
        /// The error of `mmap(2)`.
        source: io::Error,
    },
    /// The kernel did not replace the current generation.
    #[error("cannot flip generations: {}", told_with_causes(Asked::Use, .0))]
    Flip(#[from] MapError),
}

struct Generation {
    array: MapData,
    mapping: Mapping,
    clock: WallClock,
    /// The key that lies in its memory.
    pseudonym_key: Option<SharedKey>,
}

/// Both generations, and the map through which the kernel finds the current one.
pub struct Generations {
    outer: ArrayOfMaps<MapData>,
    pair: [Generation; 2],
    /// Index in `pair` of the generation that the kernel writes.
    written: usize,
    shape: Shape,
    /// Key of the pseudonyms from the next flip on.
    pseudonym_key: Option<SharedKey>,
    /// Wall clock of the generation that the next flip begins.
    clock: WallClock,
}

impl Generations {
    /// Allocates both generations and hands the first to the kernel.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub(crate) fn new(
        outer: ArrayOfMaps<MapData>,
        shape: Shape,
        values: Values,
    ) -> Result<Self, GenerationError> {
        let make = || -> Result<Generation, GenerationError> {
            let bytes = shape.bytes();
            let parameters = features::array(values.bytes, values.count, MMAPABLE);
            let array = MapData::create(parameters, "generation", None)
                .map_err(|source| GenerationError::Create { bytes, source })?;
            let octets = usize::try_from(bytes).map_err(|_| GenerationError::Map {
                bytes,
                source: io::Error::from(io::ErrorKind::OutOfMemory),
            })?;
            let mapping =
                Mapping::new(array.fd(), octets).map_err(|source| GenerationError::Map { bytes, source })?;
            Ok(Generation { array, mapping, clock: WallClock::default(), pseudonym_key: None })
        };
        let mut generations = Self {
            outer,
            pair: [make()?, make()?],
            written: 0,
            shape,
            pseudonym_key: None,
            clock: WallClock::default(),
        };
        generations.outer.set(0, &generations.pair[0].array, 0)?;
        Ok(generations)
    }

    /// The sizes of each generation.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// Sets the key of the pseudonyms from the next flip on. A generation shares the key until the drain has
    /// overwritten it in the memory of the kernel.
    pub fn set_pseudonym_key(&mut self, key: SharedKey) {
        self.pseudonym_key = Some(key);
    }

    /// Sets the key of the pseudonyms also for the current generation. Call it before the program is
    /// attached: no packet must be on its way.
    pub fn set_first_pseudonym_key(&mut self, key: SharedKey) {
        self.set_pseudonym_key(key);
        self.put_states(self.written);
    }

    /// Sets the wall clock from the next flip on.
    pub fn set_clock(&mut self, clock: WallClock) {
        self.clock = clock;
    }

    /// Sets the wall clock also for the current generation. It must hold no packet, and none must be on its way.
    pub fn set_first_clock(&mut self, clock: WallClock) {
        self.set_clock(clock);
        self.put_states(self.written);
    }

    /// The wall clock of the current generation.
    #[must_use]
    pub const fn clock(&self) -> WallClock {
        self.pair[self.written].clock
    }

    /// Writes the key and the clock into a generation, once for each CPU: a packet then finds them in a line that its
    /// CPU alone uses.
    fn put_states(&mut self, index: usize) {
        let generation = &mut self.pair[index];
        generation.put_key(self.shape, self.pseudonym_key.clone());
        let Generation { mapping, clock, .. } = generation;
        *clock = self.clock;
        for cpu in 0..self.shape.cpus {
            let state = state_offset(self.shape, cpu);
            mapping.write(state + offset_of!(CpuState, realtime_offset_ns), clock.realtime_offset_ns);
            mapping.write(state + offset_of!(CpuState, time_base_units), clock.base_units);
        }
    }

    /// Hands the other generation to the kernel and returns the one that the kernel wrote. The kernel waits
    /// for the grace period before the call returns, so that no program uses that one any more.
    ///
    /// # Errors
    /// If the kernel refuses. Nothing has then changed, and no count is lost.
    pub fn flip(&mut self) -> Result<Quiet<'_>, GenerationError> {
        let next = 1 - self.written;
        self.put_states(next);
        self.outer.set(0, &self.pair[next].array, 0)?;
        let quiet = self.written;
        self.written = next;
        Ok(Quiet { generation: &mut self.pair[quiet], shape: self.shape })
    }

    /// Writes a field of [`minimizer_common::settings::Control`] for every CPU, in both generations. The program may read
    /// it meanwhile.
    pub fn write_control<T: IntoBytes + Copy>(&mut self, field: usize, value: T) {
        let shape = self.shape;
        for generation in &mut self.pair {
            for cpu in 0..shape.cpus {
                generation.mapping.write(control_offset(shape, cpu) + field, value);
            }
        }
    }

    /// A copy of the current generation. It is consistent only while no packet is processed.
    #[must_use]
    pub fn dump(&self) -> Vec<u64> {
        let mapping = &self.pair[self.written].mapping;
        const PIECE_BYTES: usize = 512;
        let mut words = Vec::with_capacity(mapping.len() / size_of::<u64>());
        for offset in (0..mapping.len()).step_by(PIECE_BYTES) {
            words.extend_from_slice(&mapping.read::<[u64; PIECE_BYTES / size_of::<u64>()]>(offset));
        }
        words
    }

    /// A copy of one interface's counters on one CPU. The kernel may write them meanwhile.
    #[must_use]
    pub fn counters(&self, cpu: u32, interface: u32) -> InterfaceCounters {
        self.pair[self.written].mapping.read(interface_offset(self.shape, cpu, interface))
    }
}

impl Generation {
    /// Writes a key into the memory, once for each CPU; without one, zeroes.
    fn put_key(&mut self, shape: Shape, key: Option<SharedKey>) {
        for cpu in 0..shape.cpus {
            let offset = state_offset(shape, cpu) + offset_of!(CpuState, pseudonym_key);
            let mapping = &mut self.mapping;
            without_traces(|| mapping.write(offset, key.as_ref().map_or([0; 2], |key| *(**key).as_ref())));
        }
        // Only now: whoever drops a key last says that it is destroyed.
        self.pseudonym_key = key;
    }
}

/// The kernel frees the memory of a map without overwriting it.
impl Drop for Generations {
    fn drop(&mut self) {
        let shape = self.shape;
        self.pair.iter_mut().for_each(|generation| generation.put_key(shape, None));
    }
}

fn block_offset(shape: Shape, cpu: u32, block: u32) -> usize {
    let index = u64::from(cpu) * u64::from(shape.run_blocks()) + u64::from(block);
    usize::try_from(index).map_or(usize::MAX, |index| index.saturating_mul(BLOCK_BYTES))
}

fn state_offset(shape: Shape, cpu: u32) -> usize {
    block_offset(shape, cpu, HEAD_BLOCK) + offset_of!(Head, state)
}

fn control_offset(shape: Shape, cpu: u32) -> usize {
    block_offset(shape, cpu, HEAD_BLOCK) + offset_of!(Head, control)
}

fn interface_offset(shape: Shape, cpu: u32, interface: u32) -> usize {
    let position = usize::try_from(interface).unwrap_or(usize::MAX);
    block_offset(shape, cpu, HEAD_BLOCK)
        + offset_of!(Head, interfaces)
        + position * size_of::<InterfaceCounters>()
}

/// A generation that no program writes any more. Its owner reads and zeroes it.
pub struct Quiet<'generations> {
    generation: &'generations mut Generation,
    shape: Shape,
}

impl Quiet<'_> {
    /// The sizes of the generation.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// Counters of the interface in `slot` on `cpu`.
    pub fn counters(&mut self, cpu: u32, slot: u32) -> &mut InterfaceCounters {
        &mut self.generation.mapping.quiet(interface_offset(self.shape, cpu, slot), 1)[0]
    }

    /// State of `cpu`.
    pub fn state(&mut self, cpu: u32) -> &mut CpuState {
        &mut self.generation.mapping.quiet(state_offset(self.shape, cpu), 1)[0]
    }

    /// Puts the packets that `cpu` has set aside into slots, as the kernel does, and zeroes what held them.
    pub fn settle(&mut self, cpu: u32) {
        let count = |packets: &mut u64| usize::try_from(std::mem::take(packets)).unwrap_or(BURST).min(BURST);
        let state = self.state(cpu);
        state.latest = Latest::default();
        state.slots_taken = 0;
        let waiting = count(&mut state.waited)..count(&mut state.waiting);
        let set_aside = 0..count(&mut state.set_aside);
        let places = [
            std::mem::replace(&mut state.waiting_places, <[Place; BURST]>::new_zeroed()),
            std::mem::replace(&mut state.places, <[Place; BURST]>::new_zeroed()),
        ];
        let head = block_offset(self.shape, cpu, HEAD_BLOCK);
        let images = [offset_of!(Head, waiting), offset_of!(Head, ring)].map(|offset| {
            let ring = self.generation.mapping.quiet::<Image>(head + offset, BURST);
            let mut images = [Image::default(); BURST];
            images.copy_from_slice(ring);
            ring.zero();
            images
        });
        let mut table = CpuTable { quiet: self, cpu };
        for ((places, images), packets) in places.iter().zip(&images).zip([waiting, set_aside]) {
            for (place, image) in places.iter().zip(images).take(packets.end).skip(packets.start) {
                burst::account(&mut table, *place, image, &mut 0).expect("a generation has all its blocks");
            }
        }
    }

    /// Overwrites the key of the pseudonyms on all CPUs.
    pub fn destroy_pseudonym_key(&mut self) {
        self.generation.put_key(self.shape, None);
    }

    /// Residual counters of `cpu`, by [`minimizer_common::generation::residual_index`].
    pub fn residuals(&mut self, cpu: u32) -> &mut [Counts] {
        self.values(cpu, self.shape.residual_block(), RESIDUALS)
    }

    /// The slots of every CPU, in the order of their numbers.
    pub fn runs(&mut self) -> impl Iterator<Item = Run<'_>> {
        let Shape { cpus, spill_halves, groups } = self.shape;
        let lines_of = |blocks: u32| blocks as usize * (BLOCK_BYTES / size_of::<Line>());
        let run_lines = lines_of(self.shape.run_blocks());
        let spill_start = lines_of(self.shape.spill_block());
        let generation = self.generation.mapping.quiet::<Line>(0, cpus as usize * run_lines);
        generation.chunks_exact_mut(run_lines).map(move |run| {
            let (before, spill) = run.split_at_mut(spill_start);
            let spill = &mut spill[..spill_halves as usize / 2];
            let (table, _) = before[lines_of(GROUPS_BLOCK)..].as_chunks_mut();
            Run { groups: &mut table[..groups as usize], spill }
        })
    }

    /// The spill log of `cpu`. [`CpuState::spilled`] says how many halves are in use.
    fn spill_log(&mut self, cpu: u32) -> &mut [Line] {
        let lines = self.shape.spill_halves as usize / 2;
        self.values(cpu, self.shape.spill_block(), lines)
    }

    fn values<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &mut self,
        cpu: u32,
        block: u32,
        count: usize,
    ) -> &mut [T] {
        self.generation.mapping.quiet(block_offset(self.shape, cpu, block), count)
    }
}

/// Lines of a group.
pub const GROUP_LINES: usize = GROUP_HALVES / 2;

/// The slots of one CPU in a quiet generation.
pub struct Run<'quiet> {
    /// The flow table, by group.
    pub groups: &'quiet mut [[Line; GROUP_LINES]],
    /// The spill log. [`CpuState::spilled`] says how many halves are in use.
    pub spill: &'quiet mut [Line],
}

/// The table of one CPU in a quiet generation.
struct CpuTable<'quiet, 'generations> {
    quiet: &'quiet mut Quiet<'generations>,
    cpu: u32,
}

impl CpuTable<'_, '_> {
    fn spill(&mut self, is_line: bool) -> Option<usize> {
        let room = self.quiet.shape.spill_halves;
        let state = self.quiet.state(self.cpu);
        let (start, spilled) = spill_place(state.spilled, is_line, room)?;
        state.spilled = spilled;
        usize::try_from(start).ok()
    }
}

impl Table for CpuTable<'_, '_> {
    fn group(&mut self, position: u32) -> Option<&mut Group> {
        let Shape { groups, .. } = self.quiet.shape;
        let groups = self.quiet.values::<Group>(self.cpu, GROUPS_BLOCK, groups as usize);
        let last = groups.len() - 1;
        groups.get_mut((position >> GROUP_SHIFT) as usize & last)
    }

    fn spill_half(&mut self) -> Option<&mut Half> {
        let half = self.spill(false)?;
        self.quiet.spill_log(self.cpu).get_mut(half / 2)?.0.get_mut(half % 2)
    }

    fn spill_line(&mut self) -> Option<&mut [Half; 2]> {
        let half = self.spill(true)?;
        Some(&mut self.quiet.spill_log(self.cpu).get_mut(half / 2)?.0)
    }

    fn overflow(&mut self, place: Place, image: &Image) -> Option<()> {
        let Volume { protocol, is_ipv6, packets, octets } = group::volume(image);
        let index = usize::try_from(residual_index(place.interface(), is_ipv6, protocol)).ok()?;
        let residual = self.quiet.residuals(self.cpu).get_mut(index)?;
        residual.packets += packets;
        residual.octets += octets;
        self.quiet.counters(self.cpu, place.interface()).overflow(packets);
        Some(())
    }
}
