//! The kernel program: its object, how it is loaded, attached and run.

mod prepared;

use std::collections::BTreeMap;
use std::io;

use aya::maps::{ArrayOfMaps, Map, MapError};
use aya::programs::links::FdLink;
use aya::programs::{
    Program as AyaProgram, ProgramError as AyaError, TestRun as _, TestRunOptions, Xdp, XdpMode,
};
use aya::{Ebpf, EbpfError, VerifierLogLevel};
use minimizer_common::generation::INTERFACES_MAX;
use minimizer_common::settings::{
    CONTROL_MAP, GENERATION_MAP, HASH_KEYS, PROGRAM, PROGRAM_INNER, PROGRAM_INNER_TAP, PROGRAM_TAP,
};
use minimizer_common::tunnel::Tunnels;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::clock;
use crate::control::ControlPage;
use crate::generation::{GenerationError, Generations};
use crate::kernel::Kernel;
use crate::size::TooLarge;

pub(crate) use prepared::Prepared;

/// The kernel program as it was built, before sizes and settings are put in. Empty in a build
/// without bpf-linker.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/minimizer.o"));

/// Time unit of the `full-record` policy.
pub const FULL_RECORD_UNIT_NS: u64 = 1_000_000_000;

/// Why the program could not be loaded, attached or run.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// The agent was built without bpf-linker.
    #[error("this agent was built without the kernel program; run `cargo xtask setup` and build it again")]
    NoObject,
    /// The object is not what the build makes.
    #[error("the kernel program in this agent is damaged: {0}")]
    Object(&'static str),
    /// The tables do not fit into memory.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// The table's blocks cannot be numbered.
    #[error("--flows-per-cpu {flows_per_cpu} is too large for {cpus} CPUs")]
    Size {
        /// What was asked for.
        flows_per_cpu: u32,
        /// Possible CPUs of this host.
        cpus: u32,
    },
    /// The number of CPUs is not to be had.
    #[error("cannot read the number of CPUs from {path}: {source}")]
    Cpus {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No random numbers for the hash.
    #[error("the kernel gives no random numbers for the table's hash: {0}")]
    Random(getrandom::Error),
    /// The kernel refused maps or object.
    #[error("the kernel refuses the program's maps: {0}")]
    Load(#[source] Box<EbpfError>),
    /// The verifier refused the program.
    #[error("the kernel refuses the program: {0}")]
    Verify(#[source] Box<AyaError>),
    /// A map could not be used.
    #[error("cannot use map {map}: {source}")]
    Map {
        /// Its name in the object.
        map: &'static str,
        /// Why.
        source: MapError,
    },
    /// The control page could not be mapped.
    #[error("cannot map the control page: {0}")]
    Control(io::Error),
    /// The flow table could not be made.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// More interfaces than slot numbers.
    #[error("at most {INTERFACES_MAX} interfaces can be watched by one agent")]
    TooManyInterfaces,
    /// Another program holds the interface.
    #[error("interface {if_index} already has an XDP program; it is left alone")]
    Busy {
        /// Index of the interface.
        if_index: u32,
    },
    /// The driver cannot run the program.
    #[error("interface {if_index} does not take the program in this mode: {source}")]
    Attach {
        /// Index of the interface.
        if_index: u32,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel has no XDP links, and an attachment that outlives a crash is not wanted.
    #[error("this kernel cannot attach XDP through a link (5.9 or later can); nothing was left attached")]
    NoLink,
    /// The kernel did not run the program on a given frame.
    #[error("the kernel does not run a frame of {octets} bytes: {source}")]
    Run {
        /// Length of the frame.
        octets: usize,
        /// What the kernel answered.
        source: Box<AyaError>,
    },
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the network stack, for drivers without XDP.
    Skb,
}

impl Mode {
    /// The mode's name in options, metrics and `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Skb => "skb",
        }
    }
}

/// What becomes of a frame once it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The network stack gets it.
    Pass,
    /// Nobody gets it: the interface is a tap.
    Drop,
}

impl Action {
    /// Name of the program that does this, and nothing else.
    #[must_use]
    pub const fn program(self, tunnels: Tunnels) -> &'static str {
        match (self, tunnels.is_empty()) {
            (Self::Pass, true) => PROGRAM,
            (Self::Drop, true) => PROGRAM_TAP,
            (Self::Pass, false) => PROGRAM_INNER,
            (Self::Drop, false) => PROGRAM_INNER_TAP,
        }
    }
}

/// Where the time of a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's tick.
    Tick,
    /// The control page: [`Program::set_time`].
    Control,
}

/// What is fixed when the program is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Flows per CPU and interval that fill half of the slots.
    pub flows_per_cpu: u32,
    /// Where the time of a packet comes from.
    pub clock: Clock,
    /// Keys of the table's hash; drawn at random when `None`, as they must be on a live link.
    pub hash_keys: Option<[u64; HASH_KEYS]>,
    /// Tunnels whose inner packets are counted.
    pub tunnels: Tunnels,
}

impl Default for Options {
    /// What `run` takes when nothing else is said.
    fn default() -> Self {
        Self { flows_per_cpu: 65_536, clock: Clock::Tick, hash_keys: None, tunnels: Tunnels::NONE }
    }
}

/// The time units that a program stores: a distance in [`FULL_RECORD_UNIT_NS`] from a base.
#[derive(Clone, Copy, Debug)]
pub struct TimeUnits {
    base: u64,
}

impl TimeUnits {
    /// Milliseconds since 1970 at which a stored time unit begins.
    #[must_use]
    pub const fn milliseconds(self, units: u32) -> u64 {
        (self.base + units as u64) * (FULL_RECORD_UNIT_NS / 1_000_000)
    }
}

/// The loaded programs with their maps and attachments. Dropping it detaches and frees everything.
pub struct Program {
    ebpf: Ebpf,
    tunnels: Tunnels,
    control: ControlPage,
    generations: Generations,
    links: BTreeMap<u32, FdLink>,
    time_base_units: u64,
}

impl Program {
    /// Loads the program and its maps. Nothing is attached.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn load(options: &Options) -> Result<Self, ProgramError> {
        Self::load_object(OBJECT, options)
    }

    /// Loads the program as for a kernel that lacks what `kernel` lacks.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn load_for(kernel: Kernel, options: &Options) -> Result<Self, ProgramError> {
        Self::load_object_for(kernel, OBJECT, options)
    }

    /// Loads the program from another build's object, to compare the two.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn load_object(object: &[u8], options: &Options) -> Result<Self, ProgramError> {
        Self::load_object_for(Kernel::detect(), object, options)
    }

    fn load_object_for(kernel: Kernel, object: &[u8], options: &Options) -> Result<Self, ProgramError> {
        let Prepared { mut ebpf, shape, time_base_units } =
            Prepared::new(kernel, object, options, VerifierLogLevel::default())?;
        #[cfg(feature = "kernel-log")]
        crate::kernel_log::follow(&mut ebpf);
        xdp_mut(&mut ebpf, Action::Pass.program(options.tunnels))?
            .load()
            .map_err(|source| ProgramError::Verify(Box::new(source)))?;
        let outer = take_map(&mut ebpf, GENERATION_MAP)?;
        let outer = ArrayOfMaps::try_from(outer)
            .map_err(|source| ProgramError::Map { map: GENERATION_MAP, source })?;
        let generations = Generations::new(outer, shape)?;
        // Both maps stay open: the program for taps may be loaded later, and is to find them.
        let control = match ebpf.map(CONTROL_MAP).ok_or(ProgramError::Object("a map is missing"))? {
            Map::Array(map) => ControlPage::new(map).map_err(ProgramError::Control)?,
            _ => return Err(ProgramError::Object("CONTROL is not an array")),
        };
        let mut program = Self {
            ebpf,
            tunnels: options.tunnels,
            control,
            generations,
            links: BTreeMap::new(),
            time_base_units,
        };
        program.control.set_realtime_offset(clock::realtime_offset_ns());
        Ok(program)
    }

    /// Gives an interface the slot number `slot`, under which its packets are counted.
    ///
    /// # Errors
    /// When the slot number is out of range.
    pub fn watch(&mut self, if_index: u32, slot: u32) -> Result<(), ProgramError> {
        self.watch_all(&[(if_index, slot)])
    }

    /// The same for several interfaces at once.
    ///
    /// # Errors
    /// When a slot number is out of range.
    pub fn watch_all(&mut self, pairs: &[(u32, u32)]) -> Result<(), ProgramError> {
        self.control.watch(pairs).ok_or(ProgramError::TooManyInterfaces)
    }

    /// Whether a flip should come before the next [`Self::watch`].
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.control.is_unsettled()
    }

    /// A flip has returned since the latest [`Self::watch`].
    pub fn settled(&mut self) {
        self.control.settled();
    }

    /// Attaches the program to an interface that [`Self::watch`] knows, through a link that ends with
    /// this process.
    ///
    /// # Errors
    /// See [`ProgramError`]; then nothing is attached.
    pub fn attach(&mut self, if_index: u32, mode: Mode) -> Result<(), ProgramError> {
        self.attach_for(Action::Pass, if_index, mode)
    }

    /// As [`Self::attach`], but for `action`: [`Action::Drop`] takes every frame from the network stack.
    ///
    /// # Errors
    /// See [`ProgramError`]; then nothing is attached.
    pub fn attach_for(&mut self, action: Action, if_index: u32, mode: Mode) -> Result<(), ProgramError> {
        if action == Action::Drop {
            self.load_tap()?;
        }
        let mode = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Skb => XdpMode::Skb,
        };
        let xdp = xdp_mut(&mut self.ebpf, action.program(self.tunnels))?;
        let id = xdp.attach_to_if_index(if_index, mode).map_err(|error| attach_error(if_index, error))?;
        let link = xdp.take_link(id).map_err(|error| attach_error(if_index, error))?;
        // aya falls back to netlink when the kernel answers EINVAL; dropping that link detaches it.
        let link = FdLink::try_from(link).map_err(|_| ProgramError::NoLink)?;
        self.links.insert(if_index, link);
        Ok(())
    }

    /// Loads the program for taps, which shares every map with the other. It is loaded only where there
    /// are taps.
    ///
    /// # Errors
    /// When the verifier refuses it.
    pub fn load_tap(&mut self) -> Result<(), ProgramError> {
        let tap = xdp_mut(&mut self.ebpf, Action::Drop.program(self.tunnels))?;
        if tap.fd().is_err() {
            tap.load().map_err(|source| ProgramError::Verify(Box::new(source)))?;
        }
        Ok(())
    }

    /// Detaches from one interface. In-flight packets may still be counted until the next flip.
    pub fn detach(&mut self, if_index: u32) {
        self.links.remove(&if_index);
    }

    /// Detaches from all interfaces.
    pub fn detach_all(&mut self) {
        self.links.clear();
    }

    /// Runs the program in the kernel on one frame, as if it came from interface index 1 (the
    /// loopback interface of this network namespace), and returns the program's verdict.
    ///
    /// # Errors
    /// The kernel refuses frames below 14 bytes and beyond its buffers.
    pub fn run(&self, frame: &[u8]) -> Result<u32, ProgramError> {
        let failed = |source: AyaError| ProgramError::Run { octets: frame.len(), source: Box::new(source) };
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = self.xdp()?.test_run(options).map_err(failed)?;
        Ok(result.return_value)
    }

    /// Sets the time of the packets to come, in time units since 1970, for [`Clock::Control`].
    pub fn set_time(&mut self, units: u64) {
        self.control.set_time(units);
    }

    /// The generations, to be flipped and drained.
    pub fn generations(&mut self) -> &mut Generations {
        // The wall clock may have been set since; the kernel adds this to its monotonic clock.
        self.control.set_realtime_offset(clock::realtime_offset_ns());
        &mut self.generations
    }

    /// How the time units in slots are to be read.
    #[must_use]
    pub const fn time(&self) -> TimeUnits {
        TimeUnits { base: self.time_base_units }
    }

    /// The program as the kernel knows it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn info(&self) -> Result<aya::programs::ProgramInfo, ProgramError> {
        self.info_of(Action::Pass)
    }

    /// The program for `action` as the kernel knows it.
    ///
    /// # Errors
    /// When the kernel does not tell, or the program is not loaded.
    pub fn info_of(&self, action: Action) -> Result<aya::programs::ProgramInfo, ProgramError> {
        self.xdp_of(action)?.info().map_err(|source| ProgramError::Verify(Box::new(source)))
    }

    /// The loaded XDP program.
    ///
    /// # Errors
    /// When the object has none, which a build cannot make.
    pub fn xdp(&self) -> Result<&Xdp, ProgramError> {
        self.xdp_of(Action::Pass)
    }

    fn xdp_of(&self, action: Action) -> Result<&Xdp, ProgramError> {
        match self.ebpf.program(action.program(self.tunnels)) {
            Some(AyaProgram::Xdp(xdp)) => Ok(xdp),
            _ => Err(ProgramError::Object("there is no XDP program in it")),
        }
    }
}

pub(crate) fn xdp_mut<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<&'ebpf mut Xdp, ProgramError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut Xdp>::try_from(program).ok())
        .ok_or(ProgramError::Object("there is no XDP program in it"))
}

/// SHA-256 of [`OBJECT`], in hexadecimal.
#[must_use]
pub fn object_digest() -> String {
    Sha256::digest(OBJECT).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, ProgramError> {
    ebpf.take_map(name).ok_or(ProgramError::Object("a map is missing"))
}

fn attach_error(if_index: u32, error: AyaError) -> ProgramError {
    match error {
        AyaError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EBUSY) => {
            ProgramError::Busy { if_index }
        }
        AyaError::SyscallError(error) => ProgramError::Attach { if_index, source: error.io_error },
        AyaError::XdpError(error) => ProgramError::Attach { if_index, source: io::Error::other(error) },
        other => ProgramError::Attach { if_index, source: io::Error::other(other) },
    }
}
