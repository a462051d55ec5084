//! The kernel program: its object, and how it is loaded, attached and run.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use aya::maps::{Array, Map};
use aya::programs::{Program as AyaProgram, ProgramError as AyaError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, VerifierLogLevel};
use minimizer_common::permutation::PERMUTATIONS_MAP;
use minimizer_common::settings::{self, CURRENT_MAP, Control, GENERATIONS_MAP, LISTS_MAP, TABLES_MAP};

use crate::kernel::attach::Action;
use crate::kernel::attach::Mode;
use crate::kernel::control::InterfaceSlots;
use crate::kernel::error::ProgramError;
use crate::kernel::features::Kernel;
use crate::kernel::generations::Generations;
use crate::kernel::prepared::{self, Clock, Options, Prepared};
use crate::kernel::table_size::Room;
use crate::kernel::wall_clock::{TimeUnits, WallClock};
use crate::policy::compile::CompiledPolicy;
use crate::policy::ranks::NO_RANKS;
use crate::support::clock::Clocks;
use crate::support::digest::sha256;
use crate::support::sys::bpf::{self, XdpLink};

/// The kernel program as the build made it, without sizes and settings. A build without bpf-linker has an
/// empty object.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/minimizer.o"));

/// The loaded programs with their maps and attachments. Dropping it detaches the programs and frees
/// everything.
pub struct Program {
    /// Attachments, each with its action, by interface index. Dropped first: no packet meets what is dropped after them.
    links: BTreeMap<u32, (XdpLink, Action)>,
    ebpf: Ebpf,
    interfaces: InterfaceSlots,
    generations: Generations,
    /// What was fixed when it was loaded.
    options: Options,
}

impl Program {
    /// Loads the program and its maps. It attaches nothing.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn load(options: &Options) -> Result<Self, ProgramError> {
        Self::load_for(Kernel::detect(), options)
    }

    /// Loads the same program again, with maps of its own and tables for these flows on each CPU.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn load_again(&self, flows_per_cpu: u32) -> Result<Self, ProgramError> {
        let mut options = Options { flows_per_cpu, ..self.options.clone() };
        if options.compiled.tables.nodes.is_empty() {
            let nodes = prepared::contents(&self.ebpf, TABLES_MAP)?;
            let lists = prepared::contents(&self.ebpf, LISTS_MAP)?;
            options.compiled = Arc::new(options.compiled.with_tables(nodes, lists));
        }
        let mut again = Self::load(&options)?;
        again.drop_tables();
        Ok(again)
    }

    /// The flows on each CPU that fill half of the slots.
    #[must_use]
    pub const fn flows_per_cpu(&self) -> u32 {
        self.options.flows_per_cpu
    }

    /// How far the agent may enlarge the tables.
    #[must_use]
    pub const fn room(&self) -> &Room {
        &self.options.room
    }

    /// Drops the agent's copy of the policy's tables, and what they were built from. The kernel has them.
    pub fn drop_tables(&mut self) {
        self.options.compiled = Arc::new(self.options.compiled.enforced());
    }

    /// Loads the program as for a kernel that lacks what `kernel` lacks.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn load_for(kernel: Kernel, options: &Options) -> Result<Self, ProgramError> {
        let Prepared { mut ebpf, shape } =
            Prepared::new(kernel, OBJECT, options, VerifierLogLevel::default())?;
        #[cfg(feature = "kernel-log")]
        crate::kernel::log::follow(&mut ebpf);
        xdp_mut(&mut ebpf, Action::Pass.program(options.compiled.policy.tunnels))?
            .load()
            .map_err(|source| ProgramError::Verify(Box::new(source)))?;
        let current = Array::try_from(take_map(&mut ebpf, CURRENT_MAP)?)
            .map_err(|source| ProgramError::Map { map: CURRENT_MAP, source })?;
        let Some(Map::Array(map)) = ebpf.map(GENERATIONS_MAP) else {
            return Err(ProgramError::Object("GENERATIONS is not an array"));
        };
        let Some(Map::Array(permutations)) = ebpf.map(PERMUTATIONS_MAP) else {
            return Err(ProgramError::Object("PERMUTATIONS is not an array"));
        };
        let permutations = Some(permutations).filter(|_| options.compiled.has_pseudonyms());
        let purpose = options.compiled.ranks.as_deref().map_or(NO_RANKS, |ranks| *ranks.purpose());
        let generations = Generations::new(map, (permutations, purpose), current, shape)?;
        let mut program = Self {
            links: BTreeMap::new(),
            ebpf,
            interfaces: InterfaceSlots::default(),
            generations,
            options: options.clone(),
        };
        program.date_first_generation();
        Ok(program)
    }

    /// Gives an interface the slot number under which the program counts its packets.
    ///
    /// # Errors
    /// If the slot number is out of range.
    pub fn watch(&mut self, if_index: u32, slot: u32) -> Result<(), ProgramError> {
        self.watch_all(&[(if_index, slot)])
    }

    /// Gives slot numbers to several interfaces at once.
    ///
    /// # Errors
    /// If a slot number is out of range.
    pub fn watch_all(&mut self, pairs: &[(u32, u32)]) -> Result<(), ProgramError> {
        self.interfaces.watch(&mut self.generations, pairs).ok_or(ProgramError::TooManyInterfaces)
    }

    /// Whether a flip should come before the next [`Self::watch`].
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.interfaces.is_unsettled()
    }

    /// Records that a flip has returned since the latest [`Self::watch`].
    pub fn settled(&mut self) {
        self.interfaces.settled(&mut self.generations);
    }

    /// Attaches the program to an interface that [`Self::watch`] knows, through a link that ends with this
    /// process.
    ///
    /// # Errors
    /// See [`ProgramError`]. Nothing is then attached.
    pub fn attach(&mut self, if_index: u32, mode: Mode) -> Result<(), ProgramError> {
        self.attach_for(Action::Pass, if_index, mode)
    }

    /// Like [`Self::attach`], with an action: [`Action::Drop`] takes every frame from the network stack.
    ///
    /// # Errors
    /// See [`ProgramError`]. Nothing is then attached.
    pub fn attach_for(&mut self, action: Action, if_index: u32, mode: Mode) -> Result<(), ProgramError> {
        if action == Action::Drop {
            self.load_tap()?;
        }
        let link = XdpLink::create(self.descriptor(action)?, if_index, mode.flags())
            .map_err(|error| ProgramError::attach(if_index, mode, error))?;
        self.links.insert(if_index, (link, action));
        Ok(())
    }

    /// The kernel's part of a reload: this program takes over every link of `other`, in one step each. Every packet runs
    /// through exactly one of the two. Packets that `other` is still processing end before its next flip returns.
    ///
    /// Returns the interfaces that have disappeared.
    ///
    /// # Errors
    /// If the program for taps or the positions cannot be made, nothing has changed. If the kernel refuses an interface,
    /// this one and those after it keep `other`.
    pub fn reload_from(&mut self, other: &mut Self, slots: &[(u32, u32)]) -> Result<Vec<u32>, ProgramError> {
        if other.links.values().any(|(_, action)| *action == Action::Drop) {
            self.load_tap()?;
        }
        self.watch_all(slots)?;
        let mut gone = Vec::new();
        while let Some((if_index, (link, action))) = other.links.pop_first() {
            match link.update(self.descriptor(action)?, other.descriptor(action)?) {
                Ok(()) => {
                    self.links.insert(if_index, (link, action));
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => gone.push(if_index),
                Err(source) => {
                    other.links.insert(if_index, (link, action));
                    return Err(ProgramError::Reload { if_index, source });
                }
            }
        }
        Ok(gone)
    }

    /// Loads the program for taps, which shares every map with the other program. Only an agent with taps
    /// loads it.
    ///
    /// # Errors
    /// If the verifier refuses it.
    pub fn load_tap(&mut self) -> Result<(), ProgramError> {
        let tap = xdp_mut(&mut self.ebpf, Action::Drop.program(self.options.compiled.policy.tunnels))?;
        if tap.fd().is_err() {
            tap.load().map_err(|source| ProgramError::Verify(Box::new(source)))?;
        }
        Ok(())
    }

    /// Detaches the program from one interface. It may still count packets in flight until the next flip.
    pub fn detach(&mut self, if_index: u32) {
        self.links.remove(&if_index);
    }

    /// Detaches the program from all interfaces.
    pub fn detach_all(&mut self) {
        self.links.clear();
    }

    /// Runs the program in the kernel on one frame, as if the frame came from interface index 1 (the loopback
    /// interface of this network namespace). Returns the program's verdict.
    ///
    /// # Errors
    /// The kernel refuses frames below 14 bytes and beyond its buffers.
    pub fn run(&self, frame: &[u8]) -> Result<u32, ProgramError> {
        let failed = |source: AyaError| ProgramError::Run { octets: frame.len(), source: Box::new(source) };
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let result = self.xdp()?.test_run(options).map_err(failed)?;
        Ok(result.return_value)
    }

    /// Sets the time of later packets, in milliseconds since 1970, for [`Clock::Control`]. A time before the
    /// base becomes the base. A time that does not fit becomes the last one that does.
    pub fn set_time(&mut self, milliseconds: u64) {
        let TimeUnits { base, unit_ms } = self.time();
        let units = (milliseconds / unit_ms.max(1)).saturating_sub(base);
        let seconds = milliseconds / 1000;
        let nearest = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let clock = settings::clock(nearest(units), nearest(seconds));
        self.generations.write_control(offset_of!(Control, clock), clock);
    }

    /// Makes a time, in milliseconds since 1970, the first that a slot can store, for [`Clock::Control`].
    /// Drain all earlier packets first.
    pub fn set_time_base(&mut self, milliseconds: u64) {
        let base_units = milliseconds / self.time().unit_ms.max(1);
        self.generations.set_first_clock(WallClock { base_units, ..WallClock::default() });
    }

    /// Gives the current generation the wall clock as it is now. Call it before the program is attached: the
    /// generation must hold no packet, and none must be on its way.
    pub fn date_first_generation(&mut self) {
        if let Some(clock) = self.clock_now() {
            self.generations.set_first_clock(clock);
        }
    }

    /// The wall clock for a generation that begins now, unless time comes from the control page.
    fn clock_now(&self) -> Option<WallClock> {
        let Options { clock, clocks, .. } = &self.options;
        (*clock == Clock::Tick)
            .then(|| WallClock::now(&**clocks, self.options.time_unit_ns(), self.generations.clock()))
    }

    /// The policy, in the form that the program applies.
    #[must_use]
    pub const fn compiled(&self) -> &Arc<CompiledPolicy> {
        &self.options.compiled
    }

    /// The generations, for flips and drains. The generation that a flip begins has the wall clock as it is now:
    /// somebody may have set it.
    pub fn generations(&mut self) -> &mut Generations {
        if let Some(clock) = self.clock_now() {
            self.generations.set_clock(clock);
        }
        &mut self.generations
    }

    /// The wall clock of the current generation.
    #[must_use]
    pub const fn wall_clock(&self) -> WallClock {
        self.generations.clock()
    }

    /// The clocks from which the agent tells the program the wall clock.
    #[must_use]
    pub const fn clocks(&self) -> &Arc<dyn Clocks> {
        &self.options.clocks
    }

    /// How to read the time units in slots of the current generation. The next flip begins one that may differ.
    #[must_use]
    pub fn time(&self) -> TimeUnits {
        let unit_ms = u64::try_from(self.compiled().time_unit.as_millis()).unwrap_or(u64::MAX);
        TimeUnits { base: self.generations.clock().base_units, unit_ms }
    }

    /// The program as the kernel describes it.
    ///
    /// # Errors
    /// If the kernel does not describe it.
    /// When the kernel does not tell.
    pub fn info(&self) -> Result<aya::programs::ProgramInfo, ProgramError> {
        self.info_of(Action::Pass)
    }

    /// The program for `action` as the kernel describes it.
    ///
    /// # Errors
    /// If the kernel does not describe it, or the program is not loaded.
    pub fn info_of(&self, action: Action) -> Result<aya::programs::ProgramInfo, ProgramError> {
        self.xdp_of(action)?.info().map_err(|source| ProgramError::Info(Box::new(source)))
    }

    /// The kernel's tag of the program, in hexadecimal: a digest of its instructions. The policy is constants and tables beside
    /// these, so that the tag is the same under every policy.
    ///
    /// # Errors
    /// If the kernel does not give it.
    pub fn tag(&self) -> Result<String, ProgramError> {
        Ok(format!("{:016x}", self.info()?.tag()))
    }

    /// The loaded XDP program.
    ///
    /// # Errors
    /// If the object has none, which no build makes.
    pub fn xdp(&self) -> Result<&Xdp, ProgramError> {
        self.xdp_of(Action::Pass)
    }

    /// The instructions of the loaded program, eight octets each. The verifier has removed those that the
    /// constants rule out.
    ///
    /// # Errors
    /// If the kernel does not show them.
    pub fn instructions(&self) -> Result<Vec<u8>, ProgramError> {
        bpf::instructions(self.descriptor(Action::Pass)?).map_err(ProgramError::Instructions)
    }

    fn descriptor(&self, action: Action) -> Result<BorrowedFd<'_>, ProgramError> {
        let fd = self.xdp_of(action)?.fd().map_err(|source| ProgramError::Verify(Box::new(source)))?;
        Ok(fd.as_fd())
    }

    fn xdp_of(&self, action: Action) -> Result<&Xdp, ProgramError> {
        match self.ebpf.program(action.program(self.options.compiled.policy.tunnels)) {
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
    sha256(OBJECT)
}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, ProgramError> {
    ebpf.take_map(name).ok_or(ProgramError::Object("a map is missing"))
}
