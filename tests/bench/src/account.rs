//! The account that a contender gives of the packets it was sent.

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray};
use bench_ebpf::{HalfSlot, Key, Line, PerCpuValue, SharedValue};
use minimizer::records::drain::Totals;
use minimizer::support::sys::Mapping;
use minimizer_common::outcome::Outcome;

use super::batch;
use super::contenders::{Body, Contender, Kind, TEST_RUN_IF_INDEX, cpus};

use tests::drained::drained;

/// What a program's tables hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Packets in the table.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
    /// Packets that found no room, counted as such.
    pub missed: u64,
    /// Different flows, where the program keeps them apart.
    pub flows: Option<u64>,
}

impl Contender {
    /// Takes all out of the program's tables and adds it up; `None` for one that counts nothing.
    ///
    /// # Errors
    /// What the kernel answers; a real program whose ledger is not in balance.
    pub fn account(&mut self) -> anyhow::Result<Option<Account>> {
        let kind = self.kind;
        let ebpf = match &mut self.body {
            Body::Real(program) => {
                let (records, totals) = drained(program, &[TEST_RUN_IF_INDEX])?;
                return balanced(&totals, records.len()).map(Some);
            }
            Body::Placed(placed) => return placed.agent.account(self.sent).map(Some),
            Body::Attached(agent) => return agent.account(self.sent).map(Some),
            Body::Bench(ebpf) => ebpf,
        };
        let account = match kind {
            Kind::Empty | Kind::Discard | Kind::Minimizer | Kind::Beside => return Ok(None),
            Kind::ParseOnly => {
                let parsed: PerCpuArray<_, [u64; size_of::<Line>() / 8]> =
                    PerCpuArray::try_from(ebpf.map("PARSED").context("no map PARSED")?)?;
                let lines = parsed.get(&0, 0)?;
                sum(lines.iter().map(|line| (line[0], line[1])))
            }
            Kind::Floor => {
                let (lines, count) = mapped::<Line>(ebpf, kind)?;
                sum((0..count).map(|index| lines.read::<[u64; 2]>(index * size_of::<Line>()).into()))
            }
            Kind::HalfLine => half_lines(ebpf)?,
            Kind::PerCpuHash => {
                let octets = size_of::<PerCpuValue>();
                take_hash(hash(ebpf, kind)?, octets * cpus()?, octets, 0)?
            }
            Kind::SharedHash => {
                let octets = size_of::<SharedValue>();
                take_hash(hash(ebpf, kind)?, octets, octets, 1)?
            }
        };
        let missed: PerCpuArray<_, u64> =
            PerCpuArray::try_from(ebpf.map("MISSED").context("no map MISSED")?)?;
        Ok(Some(Account { missed: missed.get(&0, 0)?.iter().sum(), ..account }))
    }

    /// The map of a hash.
    ///
    /// # Errors
    /// When the program has none.
    pub fn hash(&self) -> anyhow::Result<&MapData> {
        match &self.body {
            Body::Bench(ebpf) => hash(ebpf, self.kind),
            _ => anyhow::bail!("the real program has no hash"),
        }
    }

    /// Takes the account and checks it: a fast program may simply not have counted. `flows` is how many
    /// it was sent, where that is known.
    ///
    /// # Errors
    /// A program that miscounted.
    pub fn check(&mut self, octets: u64, flows: u64) -> anyhow::Result<Account> {
        let (kind, sent) = (self.kind, self.sent);
        let Some(account) = self.account()? else { return Ok(Account::default()) };
        // The one program that by its nature has no room for some flows of a table half full.
        let may_miss = kind == Kind::HalfLine;
        // And whose sums of octets end at 32 bits.
        let is_beyond = may_miss && sent * octets > u64::from(u32::MAX);
        ensure!(
            account.packets + account.missed == sent
                && (account.octets == account.packets * octets || is_beyond)
                && (may_miss || account.missed == 0)
                && account.flows.is_none_or(|counted| counted == flows || may_miss && counted < flows),
            "{} counted {account:?} of {sent} packets of {flows} flows",
            kind.name()
        );
        Ok(account)
    }
}

fn hash(ebpf: &Ebpf, kind: Kind) -> anyhow::Result<&MapData> {
    match kind.map().and_then(|name| ebpf.map(name)) {
        Some(aya::maps::Map::PerCpuHashMap(map) | aya::maps::Map::HashMap(map)) => Ok(map),
        _ => anyhow::bail!("{} has no hash", kind.name()),
    }
}

/// Empties a hash; `first` is the word of a value in which the packets are, followed by octets.
fn take_hash(
    map: &MapData,
    value_octets: usize,
    per_cpu_octets: usize,
    first: usize,
) -> anyhow::Result<Account> {
    let mut account = Account::default();
    let mut flows = 0;
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

fn half_lines(ebpf: &Ebpf) -> anyhow::Result<Account> {
    let (slots, count) = mapped::<HalfSlot>(ebpf, Kind::HalfLine)?;
    let mut account = Account::default();
    let mut flows = 0;
    for index in 0..count {
        let [_, _, counters, octets_and_times] = slots.read::<[u64; 4]>(index * size_of::<HalfSlot>());
        account.packets += counters >> 32;
        account.octets += octets_and_times & 0xffff_ffff;
        flows += u64::from(counters != 0);
    }
    account.flows = Some(flows);
    Ok(account)
}

/// The map of a program in memory, and how many values of `T` it holds.
fn mapped<T>(ebpf: &Ebpf, kind: Kind) -> anyhow::Result<(Mapping, usize)> {
    let name = kind.map().context("the program has a map")?;
    let lines: Array<_, [u64; size_of::<Line>() / 8]> =
        Array::try_from(ebpf.map(name).with_context(|| format!("no map {name}"))?)?;
    let octets = lines.len() as usize * size_of::<Line>();
    Ok((Mapping::new(lines.map().fd(), octets)?, octets / size_of::<T>()))
}

/// The account of a real program, from the batch of one drain.
///
/// # Errors
/// When its counters, records and residuals disagree.
pub fn balanced(totals: &Totals, records: usize) -> anyhow::Result<Account> {
    let interface = totals.interfaces.first().context("no interface was watched")?;
    let (recorded, overflow) = (totals.recorded, totals.overflow());
    let outcomes: u64 = interface.outcomes.iter().sum();
    ensure!(
        interface.seen_packets == outcomes
            && outcomes == interface.outcome(Outcome::Counted) + interface.outcome(Outcome::Overflow),
        "{} packets seen, {outcomes} outcomes: {interface:?}",
        interface.seen_packets
    );
    ensure!(
        interface.outcome(Outcome::Counted) == recorded.packets
            && interface.outcome(Outcome::Overflow) == overflow.packets
            && interface.octets_counted == recorded.octets + overflow.octets,
        "counters {interface:?}, records {recorded:?} and residuals {overflow:?} disagree"
    );
    Ok(Account {
        packets: recorded.packets,
        octets: recorded.octets,
        missed: overflow.packets,
        flows: Some(records as u64),
    })
}

fn sum(lines: impl Iterator<Item = (u64, u64)>) -> Account {
    lines.fold(Account::default(), |sum, (packets, octets)| Account {
        packets: sum.packets + packets,
        octets: sum.octets + octets,
        ..sum
    })
}

fn word(value: &[u8], index: usize) -> u64 {
    value
        .chunks_exact(8)
        .nth(index)
        .map_or(0, |word| word.iter().rev().fold(0, |number, octet| number << 8 | u64::from(*octet)))
}
