//! Why the kernel program cannot be loaded, attached or run.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError as AyaError;
use aya::util::KernelVersion;
use minimizer_common::generation::INTERFACES_MAX;
use thiserror::Error;

use crate::kernel::attach::Mode;
use crate::kernel::generations::GenerationError;
use crate::kernel::table_size::SizeError;
use crate::support::cpus::CpusError;
use crate::support::refusal::{Asked, told, told_with_causes};

/// The first kernel that attaches XDP programs through links.
const LINK_VERSION: KernelVersion = KernelVersion::new(5, 9, 0);

/// Why the program cannot be loaded, attached or run.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The agent was built without bpf-linker.
    #[error("this agent was built without the kernel program; run `cargo xtask setup` and build it again")]
    NoObject,
    /// The object differs from what the build makes.
    #[error("the kernel program in this agent is damaged: {0}")]
    Object(&'static str),
    /// The tables do not fit into memory.
    #[error(transparent)]
    Memory(#[from] SizeError),
    /// The policy's tables cannot be numbered.
    #[error("the policy's prefixes and indicators are too many for one table")]
    Tables,
    /// The blocks of the flow table cannot be numbered.
    #[error("--flows-per-cpu {flows_per_cpu} is too large for {cpus} CPUs")]
    Size {
        /// The requested number of flows.
        flows_per_cpu: u32,
        /// Possible CPUs of this host.
        cpus: u32,
    },
    /// The number of CPUs is unknown.
    #[error(transparent)]
    Cpus(#[from] CpusError),
    /// The system gives no random numbers for the hash.
    #[error("the kernel gives no random numbers for the table's hash: {0}")]
    Random(getrandom::Error),
    /// The kernel refused the maps or the object.
    #[error("the kernel refuses the program's maps: {}", told_with_causes(Asked::Map, .0.as_ref()))]
    Load(#[source] Box<EbpfError>),
    /// The verifier refused the program.
    #[error("the kernel refuses the program: {}", told_with_causes(Asked::Program, .0.as_ref()))]
    Verify(#[source] Box<AyaError>),
    /// The agent could not use a map.
    #[error("cannot use map {map}: {}", told_with_causes(Asked::Use, .source))]
    Map {
        /// Its name in the object.
        map: &'static str,
        /// The cause.
        source: MapError,
    },
    /// The agent could not create the flow table.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// There are more interfaces than slot numbers.
    #[error("at most {INTERFACES_MAX} interfaces can be watched by one agent")]
    TooManyInterfaces,
    /// The interface has another program.
    #[error("interface {if_index} already has an XDP program; it is left alone")]
    Busy {
        /// Index of the interface.
        if_index: u32,
    },
    /// The driver cannot run the program.
    #[error("interface {if_index} does not take the program in mode {}: {}", .mode.name(), told(.mode.asked(), .source))]
    Attach {
        /// Index of the interface.
        if_index: u32,
        /// Where the program should run.
        mode: Mode,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel has no XDP links. Without one, an attachment would outlive a crash of the agent.
    #[error("this kernel cannot attach XDP through a link (5.9 or later can); nothing was left attached")]
    NoLink,
    /// A reload failed: the interface keeps the program that it has.
    #[error("interface {if_index} keeps its program: {}", told(Asked::Replace, .source))]
    Reload {
        /// Index of the interface.
        if_index: u32,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel does not tell about the loaded program.
    #[error("the kernel does not tell about the loaded program: {}", told_with_causes(Asked::Info, .0.as_ref()))]
    Info(#[source] Box<AyaError>),
    /// The instructions of the loaded program cannot be read.
    #[error("the kernel does not show the program's instructions: {}", told(Asked::Info, .0))]
    Instructions(#[source] io::Error),
    /// The kernel did not run the program on a given frame.
    #[error("the kernel does not run a frame of {octets} bytes: {}", told_with_causes(Asked::Frame, .source.as_ref()))]
    Run {
        /// Length of the frame.
        octets: usize,
        /// The kernel's error.
        source: Box<AyaError>,
    },
}

impl ProgramError {
    /// Why an interface does not accept the program, from the kernel's error.
    pub(crate) fn attach(if_index: u32, mode: Mode, source: io::Error) -> Self {
        match source.raw_os_error() {
            // The second stands for a program in the other mode.
            Some(libc::EBUSY | libc::EEXIST) => Self::Busy { if_index },
            Some(libc::EINVAL) if KernelVersion::current().is_ok_and(|version| version < LINK_VERSION) => {
                Self::NoLink
            }
            _ => Self::Attach { if_index, mode, source },
        }
    }
}
