//! The programs that are compared, loaded into this kernel.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use bench_ebpf::HALF_WAYS;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tunnel::Tunnels;

use super::beside::{Order, OtherAgent, Placed};
use super::schedule::mix;

const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// Interface index that a test run shows to the program: the loopback interface.
pub const TEST_RUN_IF_INDEX: u32 = 1;
/// Octets of the ring of the programs on the TC hook, as agents have it.
const RING_OCTETS: u32 = 1 << 24;

/// Where the kernel runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before the frame has a socket buffer.
    Xdp,
    /// After that, at the ingress of traffic control.
    Tc,
}

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: what wrapper and test run cost, subtracted from all others.
    Empty,
    /// The same on the TC hook, subtracted from the programs there.
    EmptyTc,
    /// Nothing, and the packet is dropped.
    Discard,
    /// The walk of the real program, and one counter.
    ParseOnly,
    /// The parser and one random cache line of an array as large as the table.
    Floor,
    /// The parser, the real hash and IPv4 slots of half a line, two to a line.
    HalfLine,
    /// The usual per-CPU hash with the precise clock.
    PerCpuHash,
    /// The same, sixteen packets at a time.
    PerCpuHashBurst,
    /// The usual shared hash with a spin lock and the precise clock.
    SharedHash,
    /// A shared hash that is updated in place by atomic additions, and the precise clock.
    SharedMap,
    /// The shared hash on the TC hook, and a ring buffer for what finds it full.
    TcHash,
    /// The same with a hash that evicts what was not used for long.
    TcLru,
    /// The real program.
    Minimizer,
    /// The real program of another build, loaded by its own agent.
    Beside,
}

impl Kind {
    /// Name in tables and JSON; for the bench's own programs, also that of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::EmptyTc => "empty_tc",
            Self::Discard => "discard",
            Self::ParseOnly => "parse_only",
            Self::Floor => "floor",
            Self::HalfLine => "half_line",
            Self::PerCpuHash => "per_cpu_hash",
            Self::PerCpuHashBurst => "per_cpu_hash_burst",
            Self::SharedHash => "shared_hash",
            Self::SharedMap => "shared_map",
            Self::TcHash => "tc_hash",
            Self::TcLru => "tc_lru",
            Self::Minimizer => "minimizer",
            Self::Beside => "beside",
        }
    }

    /// The map of its flows, for the bench's own programs that have one.
    #[must_use]
    pub const fn map(self) -> Option<&'static str> {
        match self {
            Self::Floor => Some("LINES"),
            Self::HalfLine => Some("HALF_LINES"),
            Self::PerCpuHash | Self::PerCpuHashBurst => Some("PER_CPU_FLOWS"),
            Self::SharedHash => Some("SHARED_FLOWS"),
            Self::SharedMap => Some("ATOMIC_FLOWS"),
            Self::TcHash => Some("TC_FLOWS"),
            Self::TcLru => Some("TC_LRU_FLOWS"),
            _ => None,
        }
    }

    /// Whether the program is left out among very many flows; see [`super::packets::EVERY_CONTENDER_FLOWS`].
    #[must_use]
    pub const fn is_for_fewer(self) -> bool {
        matches!(self, Self::PerCpuHashBurst | Self::SharedMap | Self::EmptyTc | Self::TcHash | Self::TcLru)
    }

    /// Where it runs.
    #[must_use]
    pub const fn hook(self) -> Hook {
        match self {
            Self::EmptyTc | Self::TcHash | Self::TcLru => Hook::Tc,
            _ => Hook::Xdp,
        }
    }

    /// The program that does nothing on the same hook: what is subtracted.
    #[must_use]
    pub const fn base(self) -> Self {
        match self.hook() {
            Hook::Xdp => Self::Empty,
            Hook::Tc => Self::EmptyTc,
        }
    }
}

/// What a contender is loaded for.
#[derive(Clone, Copy)]
pub struct Size<'object> {
    /// Flows that fill half of its table.
    pub flows: u32,
    /// The same for the real program of this build; see [`super::traffic::Traffic::room`].
    pub room: u32,
    /// Tunnels whose inner packets the real program counts.
    pub tunnels: Tunnels,
    /// The policy of the real program; `full-record` when there is none.
    pub compiled: Option<&'object Arc<CompiledPolicy>>,
    /// Name or file of the same policy, for the other build.
    pub policy: &'object str,
    /// Executable of the other build.
    pub beside: Option<&'object Path>,
}

impl<'object> Size<'object> {
    /// For packets without tunnels, and this build.
    #[must_use]
    pub const fn of(flows: u32) -> Self {
        Self {
            flows,
            room: flows,
            tunnels: Tunnels::NONE,
            compiled: None,
            policy: "full-record",
            beside: None,
        }
    }

    /// Slots of every table.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.flows.next_power_of_two() * 2
    }

    /// What the other build is started for.
    ///
    /// # Errors
    /// When none was named.
    pub fn order(&self, interface: &'object str, is_tap: bool) -> anyhow::Result<Order<'object>> {
        let executable = self.beside.context("--beside names the other build")?;
        let Self { flows: flows_per_cpu, tunnels, policy, .. } = *self;
        Ok(Order { executable, policy, tunnels, flows_per_cpu, interface, is_tap })
    }
}

/// A loaded program with tables of its own.
pub struct Contender {
    /// Which.
    pub kind: Kind,
    /// What the kernel tells about it.
    pub info: ProgramInfo,
    /// Packets sent through it since it was loaded.
    pub sent: u64,
    pub(super) program: ProgramFd,
    pub(super) body: Body,
}

/// Programs and maps.
pub(super) enum Body {
    Bench(Box<Ebpf>),
    Real(Box<Program>),
    /// In a network namespace of its own.
    Placed(Box<Placed>),
    /// On an interface where live frames arrive.
    Attached(Box<OtherAgent>),
}

impl Contender {
    /// Loads a program.
    ///
    /// # Errors
    /// What the kernel answers; without the kernel programs in this build, or without privilege.
    pub fn load(kind: Kind, size: Size<'_>) -> anyhow::Result<Self> {
        let body = match kind {
            Kind::Minimizer => real(size)?,
            Kind::Beside => Body::Placed(Box::new(Placed::start(size.order("", false)?)?)),
            _ => bench(kind, size).with_context(|| format!("the kernel refuses {}", kind.name()))?,
        };
        Self::of(kind, body)
    }

    /// The other build on an interface of the calling thread's namespace, to which it stays attached.
    ///
    /// # Errors
    /// When it does not run.
    pub fn attached(order: Order<'_>) -> anyhow::Result<Self> {
        Self::of(Kind::Beside, Body::Attached(Box::new(OtherAgent::start(order)?)))
    }

    fn of(kind: Kind, body: Body) -> anyhow::Result<Self> {
        let (info, program) = match &body {
            Body::Real(program) => known(program.xdp()?)?,
            Body::Placed(placed) => placed.agent.known()?,
            Body::Attached(agent) => agent.known()?,
            Body::Bench(ebpf) => {
                let program = ebpf.program(kind.name()).context("the program is in its object")?;
                (program.info()?, program.fd()?.try_clone()?)
            }
        };
        Ok(Self { kind, info, sent: 0, program, body })
    }

    /// The real program.
    ///
    /// # Errors
    /// For the bench's own.
    pub fn real(&mut self) -> anyhow::Result<&mut Program> {
        match &mut self.body {
            Body::Real(program) => Ok(program),
            _ => anyhow::bail!("{} is not the real program of this build", self.kind.name()),
        }
    }

    /// Does something where a test run finds the program's interface, and says which that is if it is not the loopback
    /// interface.
    ///
    /// # Errors
    /// Those of `work`; the kernel's.
    pub fn within<T>(&self, work: impl FnOnce(Option<u32>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        match &self.body {
            Body::Placed(placed) => placed.within(|| work(Some(placed.if_index))),
            _ => work(None),
        }
    }

    /// Ends what was started for the program: an agent must say a last time that it counted what it was sent.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(self) -> anyhow::Result<()> {
        match self.body {
            Body::Placed(placed) => placed.agent.end(self.sent),
            Body::Attached(agent) => agent.end(self.sent),
            Body::Bench(_) | Body::Real(_) => Ok(()),
        }
    }

    /// The bench's own program, to be attached.
    ///
    /// # Errors
    /// For the real one.
    pub fn own(&mut self) -> anyhow::Result<&mut Xdp> {
        match &mut self.body {
            Body::Bench(ebpf) => xdp(ebpf, self.kind.name()),
            _ => anyhow::bail!("{} is the real program", self.kind.name()),
        }
    }
}

fn known(program: &Xdp) -> anyhow::Result<(ProgramInfo, ProgramFd)> {
    Ok((program.info()?, program.fd()?.try_clone()?))
}

fn real(size: Size<'_>) -> anyhow::Result<Body> {
    let compiled = size.compiled.map_or_else(|| CompiledPolicy::full_record(size.tunnels), Arc::clone);
    let options = Options { flows_per_cpu: size.room, compiled, ..Options::default() };
    let mut program = Program::load(&options)?;
    program.watch(TEST_RUN_IF_INDEX, 0)?;
    Ok(Body::Real(Box::new(program)))
}

fn bench(kind: Kind, size: Size<'_>) -> anyhow::Result<Body> {
    let slots = size.slots();
    let (line_mask, half_line_mask) = (slots - 1, slots / u32::try_from(HALF_WAYS)? - 1);
    let keys: [u64; HASH_KEYS] = std::array::from_fn(|index| mix(index as u64));
    let mut loader = EbpfLoader::new();
    // It belongs to the wrapper, and is large.
    loader.map_max_entries("SCHEDULE", 1);
    if kind.hook() == Hook::Tc {
        loader.map_max_entries("DIRECT", RING_OCTETS);
    }
    if let Some(map) = kind.map() {
        let entries = match kind {
            Kind::HalfLine => (half_line_mask + 1) * u32::try_from(cpus()?)?,
            _ => slots,
        };
        loader.map_max_entries(map, entries);
    }
    let mut ebpf = loader
        .override_global("LINE_MASK", &line_mask, true)
        .override_global("HALF_LINE_MASK", &half_line_mask, true)
        .override_global("KEYS", &keys, true)
        .load(object()?)?;
    match kind.hook() {
        Hook::Xdp => xdp(&mut ebpf, kind.name())?.load()?,
        Hook::Tc => tc(&mut ebpf, kind.name())?.load()?,
    }
    Ok(Body::Bench(Box::new(ebpf)))
}

/// The bench's object.
///
/// # Errors
/// When there is none in this build.
pub(super) fn object() -> anyhow::Result<&'static [u8]> {
    ensure!(!OBJECT.is_empty(), "built without the kernel programs; run `cargo xtask setup` and build again");
    Ok(OBJECT)
}

/// Number of CPUs of which per-CPU maps keep values.
///
/// # Errors
/// When it cannot be read.
pub fn cpus() -> anyhow::Result<usize> {
    nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))
}

/// The program of this name.
pub(super) fn xdp<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// The program of this name for the TC hook.
pub(super) fn tc<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut SchedClassifier> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// The map of this name, which is no longer the object's.
pub(super) fn take_map<M>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<M>
where
    M: TryFrom<aya::maps::Map>,
    M::Error: std::error::Error + Send + Sync + 'static,
{
    Ok(M::try_from(ebpf.take_map(name).with_context(|| format!("no map {name}"))?)?)
}
