//! The two generations: the kernel writes one; the other is quiet and belongs to the agent.

use std::io;
use std::mem::offset_of;

use std::sync::atomic::{Ordering, fence};

use aya::maps::{Array, MapData, MapError};
use minimizer_common::generation::{
    BLOCK_BYTES, BURST, Counts, CpuState, GROUP_HALVES, GROUP_SHIFT, GROUPS_BLOCK, Group, HEAD_BLOCK, Head,
    InterfaceCounters, Latest, Place, RESIDUALS, Shape, residual_index,
};
use minimizer_common::permutation::Permutation;
use minimizer_common::slot::{Half, Line};
use minimizer_ebpf::table::burst::{self, Table, spill_place};
use minimizer_ebpf::table::group::{self, Image, Volume};
use thiserror::Error;
use zerocopy::{FromZeros as _, IntoBytes};

use crate::kernel::permutation;
use crate::kernel::wall_clock::WallClock;
use crate::policy::ranks::Purpose;
use crate::support::refusal::{Asked, told, told_with_causes};
use crate::support::sys::Mapping;
use crate::support::sys::bpf::GracePeriod;
use crate::support::sys::secret::SharedKey;
use crate::support::traces::without_traces;

/// Generations in the memory.
const GENERATIONS: usize = 2;

/// Why the agent cannot create or flip the flow table.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// The kernel did not create the map of the generations.
    #[error("cannot make flow tables of {bytes} bytes: {}", told_with_causes(Asked::FlowTable, .source))]
    Create {
        /// Size of both.
        bytes: u64,
        /// The kernel's error.
        source: MapError,
    },
    /// The kernel gives no grace period.
    #[error("cannot wait until no program uses a flow table: {}", told(Asked::Use, .0))]
    GracePeriod(io::Error),
    /// The agent could not map the generations.
    #[error("cannot map the flow table of {bytes} bytes: {}", told(Asked::Memory, .source))]
    Map {
        /// Size of both.
        bytes: u64,
        /// The error of `mmap(2)`.
        source: io::Error,
    },
    /// The kernel did not replace the current generation.
    #[error("cannot flip generations: {}", told_with_causes(Asked::Use, .0))]
    Flip(#[from] MapError),
}

/// What the agent knows of a generation.
#[derive(Default)]
struct Generation {
    clock: WallClock,
    /// The key that lies in its memory.
    pseudonym_key: Option<SharedKey>,
}

/// Both generations, and the variable through which the kernel finds the current one.
pub struct Generations {
    current: Array<MapData, u32>,
    grace_period: GracePeriod,
    memory: Memory,
    pair: [Generation; 2],
    /// Index in `pair` of the generation that the kernel writes.
    written: usize,
    /// Key of the pseudonyms from the next flip on.
    pseudonym_key: Option<SharedKey>,
    /// Wall clock of the generation that the next flip begins.
    clock: WallClock,
}

/// The memory of both generations.
struct Memory {
    mapping: Mapping,
    /// The permutation of each generation, if the policy has pseudonyms.
    permutations: Option<Mapping>,
    /// What the permutations are for.
    purpose: Purpose,
    shape: Shape,
}

impl Memory {
    /// Where a block lies in the memory.
    fn block(&self, generation: usize, cpu: u32, block: u32) -> usize {
        let run = u64::from(cpu) * GENERATIONS as u64 + generation as u64;
        let index = run * u64::from(self.shape.run_blocks()) + u64::from(block);
        usize::try_from(index).map_or(usize::MAX, |index| index.saturating_mul(BLOCK_BYTES))
    }

    fn head(&self, generation: usize, cpu: u32) -> usize {
        self.block(generation, cpu, HEAD_BLOCK)
    }

    fn state(&self, generation: usize, cpu: u32) -> usize {
        self.head(generation, cpu) + offset_of!(Head, state)
    }

    fn interface(&self, generation: usize, cpu: u32, interface: u32) -> usize {
        let position = usize::try_from(interface).unwrap_or(usize::MAX);
        self.head(generation, cpu) + offset_of!(Head, interfaces) + position * size_of::<InterfaceCounters>()
    }

    /// Writes a key, once for each CPU, and the permutation under it; without one, zeroes.
    fn put_key(&mut self, generation: usize, key: Option<&SharedKey>) {
        if let Some(permutations) = &mut self.permutations {
            let place = generation * size_of::<Permutation>();
            let permutation = &mut permutations.quiet::<Permutation>(place, 1)[0];
            match key {
                Some(key) => {
                    without_traces(|| permutation::derive(permutation, (**key).as_ref(), &self.purpose))
                }
                None => permutation.zero(),
            }
        }
        for cpu in 0..self.shape.cpus {
            let offset = self.state(generation, cpu) + offset_of!(CpuState, pseudonym_key);
            let mapping = &mut self.mapping;
            without_traces(|| mapping.write(offset, key.map_or([0; 2], |key| *(**key).as_ref())));
        }
    }
}

impl Generations {
    /// Maps the memory of both generations. The kernel writes the first.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub(crate) fn new(
        map: &MapData,
        (permutations, purpose): (Option<&MapData>, Purpose),
        current: Array<MapData, u32>,
        shape: Shape,
    ) -> Result<Self, GenerationError> {
        let bytes = GENERATIONS as u64 * shape.bytes();
        let failed = |source| GenerationError::Map { bytes, source };
        let octets = usize::try_from(bytes).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mapping = Mapping::new(map.fd(), octets).map_err(failed)?;
        let permutations = permutations.map(|map| {
            let octets = GENERATIONS * size_of::<Permutation>();
            Mapping::new(map.fd(), octets)
                .map_err(|source| GenerationError::Map { bytes: octets as u64, source })
        });
        let permutations = permutations.transpose()?;
        Ok(Self {
            current,
            grace_period: GracePeriod::new().map_err(GenerationError::GracePeriod)?,
            memory: Memory { mapping, permutations, purpose, shape },
            pair: Default::default(),
            written: 0,
            pseudonym_key: None,
            clock: WallClock::default(),
        })
    }

    /// The sizes of each generation.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.memory.shape
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
        let Self { memory, pair, .. } = self;
        memory.put_key(index, self.pseudonym_key.as_ref());
        // Only now: whoever drops a key last says that it is destroyed.
        pair[index] = Generation { clock: self.clock, pseudonym_key: self.pseudonym_key.clone() };
        let WallClock { realtime_offset_ns, base_units, .. } = self.clock;
        for cpu in 0..memory.shape.cpus {
            let state = memory.state(index, cpu);
            memory.mapping.write(state + offset_of!(CpuState, realtime_offset_ns), realtime_offset_ns);
            memory.mapping.write(state + offset_of!(CpuState, time_base_units), base_units);
            memory.mapping.write(state + offset_of!(CpuState, generation), index as u64);
        }
    }

    /// Hands the other generation to the kernel and returns the one that the kernel wrote. The kernel waits
    /// for the grace period before the call returns, so that no program uses that one any more.
    ///
    /// # Errors
    /// If the kernel refuses. The kernel then writes the same generation as before, and no count is lost.
    pub fn flip(&mut self) -> Result<Quiet<'_>, GenerationError> {
        let quiet = self.written;
        let next = 1 - quiet;
        self.put_states(next);
        // Whoever reads the new number also reads what was written before.
        fence(Ordering::Release);
        self.current.set(0, u32::from(next == 1), 0)?;
        if let Err(error) = self.grace_period.wait() {
            // Packets may lie in both generations now. The next flip finds them all: this one is written again.
            self.current.set(0, u32::from(quiet == 1), 0)?;
            return Err(GenerationError::GracePeriod(error));
        }
        self.written = next;
        Ok(Quiet { memory: &mut self.memory, generation: &mut self.pair[quiet], index: quiet })
    }

    /// Writes a field of [`minimizer_common::settings::Control`] for every CPU, in both generations. The program may read
    /// it meanwhile.
    pub fn write_control<T: IntoBytes + Copy>(&mut self, field: usize, value: T) {
        let memory = &mut self.memory;
        for generation in 0..GENERATIONS {
            for cpu in 0..memory.shape.cpus {
                let control = memory.head(generation, cpu) + offset_of!(Head, control);
                memory.mapping.write(control + field, value);
            }
        }
    }

    /// A copy of the current generation, CPU by CPU. It is consistent only while no packet is processed.
    #[must_use]
    pub fn dump(&self) -> Vec<u64> {
        const PIECE_BYTES: usize = 512;
        let Memory { mapping, shape, .. } = &self.memory;
        let mut words = Vec::new();
        for cpu in 0..shape.cpus {
            let start = self.memory.head(self.written, cpu);
            let end = self.memory.block(self.written, cpu, shape.run_blocks());
            for offset in (start..end).step_by(PIECE_BYTES) {
                words.extend_from_slice(&mapping.read::<[u64; PIECE_BYTES / size_of::<u64>()]>(offset));
            }
        }
        words
    }

    /// A copy of one interface's counters on one CPU. The kernel may write them meanwhile.
    #[must_use]
    pub fn counters(&self, cpu: u32, interface: u32) -> InterfaceCounters {
        self.memory.mapping.read(self.memory.interface(self.written, cpu, interface))
    }
}

/// The kernel frees the memory of a map without overwriting it.
impl Drop for Generations {
    fn drop(&mut self) {
        (0..GENERATIONS).for_each(|generation| self.memory.put_key(generation, None));
    }
}

/// A generation that no program writes any more. Its owner reads and zeroes it.
pub struct Quiet<'generations> {
    memory: &'generations mut Memory,
    generation: &'generations mut Generation,
    index: usize,
}

impl Quiet<'_> {
    /// The sizes of the generation.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.memory.shape
    }

    /// Counters of the interface in `slot` on `cpu`.
    pub fn counters(&mut self, cpu: u32, slot: u32) -> &mut InterfaceCounters {
        let offset = self.memory.interface(self.index, cpu, slot);
        &mut self.memory.mapping.quiet(offset, 1)[0]
    }

    /// State of `cpu`.
    pub fn state(&mut self, cpu: u32) -> &mut CpuState {
        let offset = self.memory.state(self.index, cpu);
        &mut self.memory.mapping.quiet(offset, 1)[0]
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
        let head = self.memory.head(self.index, cpu);
        let images = [offset_of!(Head, waiting), offset_of!(Head, ring)].map(|offset| {
            let ring = self.memory.mapping.quiet::<Image>(head + offset, BURST);
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
        self.memory.put_key(self.index, None);
        // Only now: whoever drops a key last says that it is destroyed.
        self.generation.pseudonym_key = None;
    }

    /// Residual counters of `cpu`, by [`minimizer_common::generation::residual_index`].
    pub fn residuals(&mut self, cpu: u32) -> &mut [Counts] {
        self.values(cpu, self.shape().residual_block(), RESIDUALS)
    }

    /// The slots of every CPU, in the order of their numbers.
    pub fn runs(&mut self) -> impl Iterator<Item = Run<'_>> {
        let Shape { cpus, spill_halves, groups } = self.shape();
        let lines_of = |blocks: u32| blocks as usize * (BLOCK_BYTES / size_of::<Line>());
        let run_lines = lines_of(self.shape().run_blocks());
        let spill_start = lines_of(self.shape().spill_block());
        let all = self.memory.mapping.quiet::<Line>(0, cpus as usize * GENERATIONS * run_lines);
        all.chunks_exact_mut(run_lines).skip(self.index).step_by(GENERATIONS).map(move |run| {
            let (before, spill) = run.split_at_mut(spill_start);
            let spill = &mut spill[..spill_halves as usize / 2];
            let (table, _) = before[lines_of(GROUPS_BLOCK)..].as_chunks_mut();
            Run { groups: &mut table[..groups as usize], spill }
        })
    }

    /// The spill log of `cpu`. [`CpuState::spilled`] says how many halves are in use.
    fn spill_log(&mut self, cpu: u32) -> &mut [Line] {
        let lines = self.shape().spill_halves as usize / 2;
        self.values(cpu, self.shape().spill_block(), lines)
    }

    fn values<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &mut self,
        cpu: u32,
        block: u32,
        count: usize,
    ) -> &mut [T] {
        let offset = self.memory.block(self.index, cpu, block);
        self.memory.mapping.quiet(offset, count)
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
        let room = self.quiet.shape().spill_halves;
        let state = self.quiet.state(self.cpu);
        let (start, spilled) = spill_place(state.spilled, is_line, room)?;
        state.spilled = spilled;
        usize::try_from(start).ok()
    }
}

impl Table for CpuTable<'_, '_> {
    fn group(&mut self, position: u32) -> Option<&mut Group> {
        let Shape { groups, .. } = self.quiet.shape();
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
