//! The object with its sizes, settings and maps, before the verifier sees the program.

use std::sync::{Arc, LazyLock};

use aya::maps::{Array, MapError};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod, VerifierLogLevel};
use minimizer_common::generation::{BLOCK_OCTETS, Shape};
use minimizer_common::permutation::PERMUTATIONS_MAP;
use minimizer_common::plan::Steps;
use minimizer_common::settings::{
    CLOCK_CONTROL, CLOCK_NONE, CLOCK_TICK, GENERATIONS_MAP, HASH_KEYS, LENGTH_BUFFER, LENGTH_LINEAR,
    LISTS_MAP, ROOTS_SYMBOL, SETTINGS_SYMBOL, Settings, TABLES_MAP, VALUE_IS_BLOCK, VALUE_IS_RUN,
    VALUES_PLACEHOLDER, WORDS_PLACEHOLDER, Way,
};
use minimizer_common::tunnel::Tunnels;
use object::{Object as _, ObjectSection as _};
use zerocopy::IntoBytes as _;

use crate::kernel::error::ProgramError;
use crate::kernel::features::Kernel;
use crate::kernel::generations::GenerationError;
use crate::kernel::table_size::Room;
use crate::policy::compile::CompiledPolicy;
use crate::support::clock::{Clocks, SystemClocks};
use crate::support::sys::bpf;
use crate::support::{clock, cpus};

/// Where the time of a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's tick.
    Tick,
    /// The control page: [`Program::set_time`](crate::kernel::program::Program::set_time).
    Control,
}

/// The choices that the load of the program fixes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Flows on each CPU in an interval that fill half of the slots.
    pub flows_per_cpu: u32,
    /// How far the agent may enlarge the tables.
    pub room: Room,
    /// Where the time of a packet comes from.
    pub clock: Clock,
    /// Keys of the table's hash. `None` draws random ones, which a live link needs.
    pub hash_keys: Option<[u64; HASH_KEYS]>,
    /// The policy, in the form that the program applies.
    pub compiled: Arc<CompiledPolicy>,
    /// The clocks from which the agent tells the program the wall clock.
    pub clocks: Arc<dyn Clocks>,
}

impl Options {
    /// The time unit of the policy.
    pub(crate) fn time_unit_ns(&self) -> u64 {
        u64::try_from(self.compiled.time_unit.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Options {
    /// The policy `full-record` without tunnels, in tables of the usual size.
    fn default() -> Self {
        static FULL_RECORD: LazyLock<Arc<CompiledPolicy>> =
            LazyLock::new(|| CompiledPolicy::full_record(Tunnels::NONE));
        Self {
            flows_per_cpu: 65_536,
            room: Room::default(),
            clock: Clock::Tick,
            hash_keys: None,
            compiled: Arc::clone(&FULL_RECORD),
            clocks: Arc::new(SystemClocks),
        }
    }
}

/// The program and its maps, before the verifier has seen it.
pub(crate) struct Prepared {
    pub(crate) ebpf: Ebpf,
    pub(crate) shape: Shape,
}

/// The values of the generations' map. Together they are the memory of both, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Values {
    /// Bytes of each.
    bytes: u32,
    /// How many there are.
    count: u32,
    /// [`VALUE_IS_RUN`] or [`VALUE_IS_BLOCK`].
    kind: u32,
}

impl Values {
    /// A value for the run of each CPU if values may have `bytes_max` bytes, or else for each block.
    fn of(shape: &Shape, bytes_max: u32) -> Self {
        match u32::try_from(shape.run_bytes()) {
            Ok(bytes) if bytes <= bytes_max => Self { bytes, count: 2 * shape.cpus, kind: VALUE_IS_RUN },
            _ => Self { bytes: BLOCK_OCTETS, count: 2 * shape.blocks(), kind: VALUE_IS_BLOCK },
        }
    }
}

impl Prepared {
    pub(crate) fn new(
        kernel: Kernel,
        object: &[u8],
        options: &Options,
        log: VerifierLogLevel,
    ) -> Result<Self, ProgramError> {
        let cpus = possible_cpus()?;
        let flows_per_cpu = options.flows_per_cpu;
        let shape =
            Shape::for_flows(cpus, flows_per_cpu).ok_or(ProgramError::Size { flows_per_cpu, cpus })?;
        let values = Values::of(&shape, kernel.value_bytes_max());
        let compiled = &*options.compiled;
        let steps = Steps(compiled.plan.steps);
        let clock = match options.clock {
            _ if steps.intersects(Steps::NO_TIME) && !steps.intersects(Steps::SELECT) => CLOCK_NONE,
            Clock::Tick => CLOCK_TICK,
            Clock::Control => CLOCK_CONTROL,
        };
        let settings = Settings {
            hash_keys: options.hash_keys.map_or_else(random_keys, Ok)?,
            plan: compiled.plan,
            time_unit_ns: options.time_unit_ns(),
            tick_ns: clock::tick_ns(),
            run_blocks: shape.run_blocks(),
            table_mask: shape.table_mask(),
            residual_block: shape.residual_block(),
            spill_halves: shape.spill_halves,
            value: values.kind,
            clock,
            frame_length: if kernel.multi_buffer { LENGTH_BUFFER } else { LENGTH_LINEAR },
            tunnels: compiled.policy.tunnels.0,
            way: Way::of(steps).0,
            reserved: 0,
        };
        let mut object = sized_object(object, values)?;
        kernel.adapt(&mut object);
        let tables = &compiled.tables;
        let count = |length| u32::try_from(length).map_err(|_| ProgramError::Tables);
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(log)
            .map_max_entries(TABLES_MAP, count(tables.nodes.len())?)
            .map_max_entries(LISTS_MAP, count(tables.lists.len())?)
            .map_max_entries(PERMUTATIONS_MAP, if compiled.has_pseudonyms() { 2 } else { 1 })
            .override_global(SETTINGS_SYMBOL, settings.as_bytes(), true)
            .override_global(ROOTS_SYMBOL, tables.roots.as_bytes(), true)
            .load(&object)
            .map_err(|error| match error {
                EbpfError::MapError(source @ MapError::CreateError { .. }) if is_generations(&source) => {
                    let bytes = u64::from(values.bytes) * u64::from(values.count);
                    GenerationError::Create { bytes, source }.into()
                }
                error => ProgramError::Load(Box::new(error)),
            })?;
        fill(&mut ebpf, TABLES_MAP, &tables.nodes)?;
        fill(&mut ebpf, LISTS_MAP, &tables.lists)?;
        Ok(Self { ebpf, shape })
    }
}

fn is_generations(error: &MapError) -> bool {
    matches!(error, MapError::CreateError { name, .. } if name == GENERATIONS_MAP)
}

/// Writes an array of the policy's tables and freezes it.
fn fill<const WORDS: usize>(
    ebpf: &mut Ebpf,
    name: &'static str,
    values: &[[u32; WORDS]],
) -> Result<(), ProgramError>
where
    [u32; WORDS]: Pod,
{
    let failed = |source| ProgramError::Map { map: name, source };
    let map = ebpf.map_mut(name).ok_or(ProgramError::Object("a map is missing"))?;
    let mut array = Array::<_, [u32; WORDS]>::try_from(map).map_err(failed)?;
    for (index, value) in (0..).zip(values) {
        // The kernel has zeroed the new array.
        if value.iter().any(|word| *word != 0) {
            array.set(index, value, 0).map_err(failed)?;
        }
    }
    let map = ebpf.map(name).ok_or(ProgramError::Object("a map is missing"))?;
    let aya::maps::Map::Array(data) = map else {
        return Err(ProgramError::Object("a table of the policy is not an array"));
    };
    bpf::freeze(data.fd()).map_err(|source| failed(MapError::IoError(source)))
}

/// The values of an array of the policy's tables.
pub(crate) fn contents<const WORDS: usize>(
    ebpf: &Ebpf,
    name: &'static str,
) -> Result<Vec<[u32; WORDS]>, ProgramError>
where
    [u32; WORDS]: Pod,
{
    let failed = |source| ProgramError::Map { map: name, source };
    let map = ebpf.map(name).ok_or(ProgramError::Object("a map is missing"))?;
    let array = Array::<_, [u32; WORDS]>::try_from(map).map_err(failed)?;
    array.iter().collect::<Result<_, _>>().map_err(failed)
}

/// The object with the size of a generation in its type information.
fn sized_object(object: &[u8], values: Values) -> Result<Vec<u8>, ProgramError> {
    if object.is_empty() {
        return Err(ProgramError::NoObject);
    }
    let damaged = ProgramError::Object;
    let file = object::File::parse(object).map_err(|_| damaged("it is not an ELF file"))?;
    let section = file.section_by_name(".BTF").ok_or(damaged("it has no type information"))?;
    let (start, length) = section.file_range().ok_or(damaged("its type information is empty"))?;
    let range = usize::try_from(start)
        .ok()
        .zip(usize::try_from(length).ok())
        .map(|(start, length)| start..start + length)
        .ok_or(damaged("its type information is too long"))?;
    let mut sized = object.to_vec();
    let types = sized.get_mut(range).ok_or(damaged("its type information is cut off"))?;
    let words = values.bytes / (u64::BITS / u8::BITS);
    for (placeholder, number) in [(VALUES_PLACEHOLDER, values.count), (WORDS_PLACEHOLDER, words)] {
        let placeholder = u32::try_from(placeholder).unwrap_or(0).to_le_bytes();
        let mut places = types.chunks_exact_mut(4).filter(|word| **word == placeholder);
        let place = places.next().ok_or(damaged("the size of a generation is not in it"))?;
        place.copy_from_slice(&number.to_le_bytes());
        if places.next().is_some() {
            return Err(damaged("the size of a generation is in it more than once"));
        }
    }
    Ok(sized)
}

fn random_keys() -> Result<[u64; HASH_KEYS], ProgramError> {
    let mut keys = [0; HASH_KEYS];
    getrandom::fill(keys.as_mut_bytes()).map_err(ProgramError::Random)?;
    Ok(keys)
}

/// The number of CPUs that can ever run the program, online or not.
fn possible_cpus() -> Result<u32, ProgramError> {
    Ok(cpus::numbers()?)
}
