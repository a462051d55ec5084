//! The programs that are compared, loaded into this kernel, and the accounts that each must give.

use anyhow::{Context as _, ensure};
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, TestRun as _, TestRunOptions, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use bench_ebpf::{Key, Line, PerCpuValue, SCHEDULE_ENTRIES, SharedValue};
use minimizer::drain::{Records, Totals, drain};
use minimizer::program::{Options, Program};
use minimizer::sys::Mapping;
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::ACTION_PASS;

use super::batch;
use super::traffic::{Family, Schedule};

const OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// Interface index that a test run shows to the program: the loopback interface.
pub const TEST_RUN_IF_INDEX: u32 = 1;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: what wrapper and test run cost, subtracted from all others.
    Empty,
    /// The walk of the real program, and one counter.
    ParseOnly,
    /// The parser and one random cache line of an array as large as the table.
    Floor,
    /// The usual per-CPU hash with the precise clock.
    PerCpuHash,
    /// The usual shared hash with a spin lock and the precise clock.
    SharedHash,
    /// The real program.
    Minimizer,
    /// The real program of another build.
    Beside,
}

impl Kind {
    /// Name in tables and JSON; for the bench's own programs, also that of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ParseOnly => "parse_only",
            Self::Floor => "floor",
            Self::PerCpuHash => "per_cpu_hash",
            Self::SharedHash => "shared_hash",
            Self::Minimizer => "minimizer",
            Self::Beside => "beside",
        }
    }
}

/// A loaded program.
pub struct Contender {
    /// Which.
    pub kind: Kind,
    /// What the kernel tells about it.
    pub info: ProgramInfo,
    program: ProgramFd,
    sent: u64,
}

/// What a program's tables hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// Packets counted.
    pub packets: u64,
    /// IP octets counted.
    pub octets: u64,
    /// Different flows, where the program keeps them apart.
    pub flows: Option<u64>,
}

/// All programs in this kernel, with tables for the same number of flows.
pub struct Contenders {
    /// The programs, in the order in which they are shown.
    pub all: Vec<Contender>,
    ebpf: Ebpf,
    real: Vec<(Kind, Program)>,
    schedule: Mapping,
    position: PerCpuArray<MapData, u64>,
    slot: ProgramArray<MapData>,
    in_slot: Option<Kind>,
}

impl Contenders {
    /// Loads everything with room for `flows` flows in half of each table.
    ///
    /// # Errors
    /// What the kernel answers; without the kernel programs in this build, or without privilege.
    pub fn load(flows: u32, beside: Option<&[u8]>) -> anyhow::Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "built without the kernel programs; run `cargo xtask setup` and build again"
        );
        let slots = flows.next_power_of_two() * 2;
        let mask = slots - 1;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("PER_CPU_FLOWS", slots)
            .map_max_entries("SHARED_FLOWS", slots)
            .map_max_entries("LINES", slots)
            .override_global("LINE_MASK", &mask, true)
            .load(OBJECT)?;
        for family in [Family::Ipv4, Family::Ipv6] {
            xdp(&mut ebpf, family.wrapper())?.load()?;
        }
        let mut all = Vec::new();
        for kind in [Kind::Empty, Kind::ParseOnly, Kind::Floor, Kind::PerCpuHash, Kind::SharedHash] {
            let program = xdp(&mut ebpf, kind.name())?;
            program.load().with_context(|| format!("the kernel refuses {}", kind.name()))?;
            all.push(Contender::new(kind, program)?);
        }
        let mut real = Vec::new();
        let options = Options { flows_per_cpu: flows, ..Options::default() };
        let objects = [(Kind::Minimizer, Some(minimizer::program::OBJECT)), (Kind::Beside, beside)];
        for (kind, object) in objects {
            let Some(object) = object else { continue };
            let mut program = Program::load_object(object, &options)?;
            program.watch(TEST_RUN_IF_INDEX, 0)?;
            all.push(Contender::new(kind, program.xdp()?)?);
            real.push((kind, program));
        }
        let schedule: Array<_, u64> = take_map(&mut ebpf, "SCHEDULE")?;
        let schedule = Mapping::new(schedule.map().fd(), SCHEDULE_ENTRIES as usize * size_of::<u64>())?;
        let position = take_map(&mut ebpf, "POSITION")?;
        let slot = take_map(&mut ebpf, "PROGRAM")?;
        Ok(Self { all, ebpf, real, schedule, position, slot, in_slot: None })
    }

    /// Sets the order of the flows to come, from its start.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn follow(&mut self, schedule: &Schedule) -> anyhow::Result<()> {
        for (index, entry) in schedule.entries.iter().enumerate() {
            self.schedule.write(index * size_of::<u64>(), *entry);
        }
        let zeroes = PerCpuValues::try_from(vec![0; cpus()?])?;
        Ok(self.position.set(0, zeroes, 0)?)
    }

    /// Sends packets through one program.
    ///
    /// # Errors
    /// What the kernel answers; a packet that does not pass.
    pub fn send(&mut self, kind: Kind, family: Family, packets: u32) -> anyhow::Result<()> {
        let contender = self.all.iter_mut().find(|contender| contender.kind == kind);
        let contender = contender.context("the program is not loaded")?;
        // Replacing the program patches the wrapper's code, which is none of the packet's cost.
        if self.in_slot != Some(kind) {
            self.slot.set(0, &contender.program, 0)?;
            self.in_slot = Some(kind);
        }
        let frame = family.frame();
        let options = TestRunOptions { data_in: Some(&frame), repeat: packets, ..TestRunOptions::default() };
        let result = xdp(&mut self.ebpf, family.wrapper())?.test_run(options)?;
        ensure!(result.return_value == ACTION_PASS, "{} returned {}", kind.name(), result.return_value);
        contender.sent += u64::from(packets);
        Ok(())
    }

    /// Packets sent through one program since it was loaded.
    #[must_use]
    pub fn sent(&self, kind: Kind) -> u64 {
        self.all.iter().filter(|contender| contender.kind == kind).map(|contender| contender.sent).sum()
    }

    /// Flips and drains the real program.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn real(&mut self, kind: Kind) -> anyhow::Result<&mut Program> {
        let program = self.real.iter_mut().find(|(real, _)| *real == kind);
        Ok(&mut program.context("not the real program")?.1)
    }

    /// Takes all out of a program's tables and adds it up.
    ///
    /// # Errors
    /// What the kernel answers; a real program whose ledger is not in balance.
    pub fn account(&mut self, kind: Kind) -> anyhow::Result<Option<Account>> {
        match kind {
            Kind::Empty => Ok(None),
            Kind::ParseOnly => {
                let parsed: PerCpuArray<_, [u64; size_of::<Line>() / 8]> =
                    PerCpuArray::try_from(self.ebpf.map("PARSED").context("no map PARSED")?)?;
                let lines = parsed.get(&0, 0)?;
                Ok(Some(sum_lines(lines.iter().map(|line| (line[0], line[1])))))
            }
            Kind::Floor => {
                let lines: Array<_, [u64; size_of::<Line>() / 8]> =
                    Array::try_from(self.ebpf.map("LINES").context("no map LINES")?)?;
                let count = lines.len() as usize;
                let lines = Mapping::new(lines.map().fd(), count * size_of::<Line>())?;
                let line = |index| lines.read::<[u64; 2]>(index * size_of::<Line>());
                Ok(Some(sum_lines((0..count).map(|index| line(index).into()))))
            }
            Kind::PerCpuHash => {
                let per_cpu = size_of::<PerCpuValue>();
                self.take_hash("PER_CPU_FLOWS", per_cpu * cpus()?, per_cpu, 0).map(Some)
            }
            Kind::SharedHash => {
                let octets = size_of::<SharedValue>();
                self.take_hash("SHARED_FLOWS", octets, octets, 1).map(Some)
            }
            Kind::Minimizer | Kind::Beside => {
                let mut quiet = self.real(kind)?.generations().flip()?;
                let mut records = Records::new(vec![TEST_RUN_IF_INDEX]);
                let totals = drain(&mut quiet, &mut records, u64::from);
                balanced(&totals, records.take().len()).map(Some)
            }
        }
    }

    /// Empties a hash; `first` is the word of a value in which the packets are, followed by octets.
    fn take_hash(
        &mut self,
        name: &'static str,
        value_octets: usize,
        per_cpu_octets: usize,
        first: usize,
    ) -> anyhow::Result<Account> {
        let mut account = Account { packets: 0, octets: 0, flows: None };
        let mut flows = 0;
        let map = self.hash(name)?;
        batch::take_all(map.fd(), size_of::<Key>(), value_octets, |keys, values| {
            flows += (keys.len() / size_of::<Key>()) as u64;
            for value in values.chunks_exact(per_cpu_octets) {
                account.packets += word(value, first);
                account.octets += word(value, first + 1);
            }
        })?;
        account.flows = Some(flows);
        Ok(account)
    }

    /// The map of a hash.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn hash(&self, name: &str) -> anyhow::Result<&MapData> {
        match self.ebpf.map(name) {
            Some(aya::maps::Map::PerCpuHashMap(map) | aya::maps::Map::HashMap(map)) => Ok(map),
            _ => anyhow::bail!("{name} is not a hash"),
        }
    }
}

impl Contender {
    fn new(kind: Kind, program: &Xdp) -> anyhow::Result<Self> {
        Ok(Self { kind, info: program.info()?, program: program.fd()?.try_clone()?, sent: 0 })
    }
}

/// Number of CPUs of which per-CPU maps keep values.
///
/// # Errors
/// When it cannot be read.
pub fn cpus() -> anyhow::Result<usize> {
    nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))
}

fn balanced(totals: &Totals, records: usize) -> anyhow::Result<Account> {
    let interface = totals.interfaces.first().context("no interface was watched")?;
    let recorded = totals.recorded;
    let outcomes: u64 = interface.outcomes.iter().sum();
    ensure!(
        interface.seen_packets == outcomes,
        "{} packets seen, {outcomes} outcomes",
        interface.seen_packets
    );
    ensure!(
        interface.outcome(Outcome::Counted) == recorded.packets
            && interface.octets_counted == recorded.octets,
        "counters {interface:?} and records {recorded:?} disagree"
    );
    ensure!(totals.residuals.is_empty(), "the table overflowed at half its size");
    Ok(Account { packets: interface.seen_packets, octets: recorded.octets, flows: Some(records as u64) })
}

fn sum_lines(lines: impl Iterator<Item = (u64, u64)>) -> Account {
    lines.fold(Account { packets: 0, octets: 0, flows: None }, |sum, (packets, octets)| Account {
        packets: sum.packets + packets,
        octets: sum.octets + octets,
        flows: None,
    })
}

fn word(value: &[u8], index: usize) -> u64 {
    value
        .chunks_exact(8)
        .nth(index)
        .map_or(0, |word| word.iter().rev().fold(0, |number, octet| number << 8 | u64::from(*octet)))
}

fn xdp<'ebpf>(ebpf: &'ebpf mut Ebpf, name: &str) -> anyhow::Result<&'ebpf mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn take_map<M>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<M>
where
    M: TryFrom<aya::maps::Map>,
    M::Error: std::error::Error + Send + Sync + 'static,
{
    Ok(M::try_from(ebpf.take_map(name).with_context(|| format!("no map {name}"))?)?)
}
