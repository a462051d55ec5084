//! The account that a contender gives of the packets it was sent.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use bench_ebpf::{Burst, HalfSlot, Key, Line, Pending, PerCpuValue, SharedValue};
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
    /// Packets that found no room, counted as such; of a hash that evicts, those that are missing.
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
            Kind::Empty | Kind::EmptyTc | Kind::Discard | Kind::Minimizer | Kind::Beside => return Ok(None),
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
                take_hash(hash(ebpf, kind)?, octets * cpus()?, octets, 0, &mut Vec::new())?
            }
            Kind::PerCpuHashBurst => {
                let mut pending = take_pending(ebpf)?;
                let octets = size_of::<PerCpuValue>();
                take_hash(hash(ebpf, kind)?, octets * cpus()?, octets, 0, &mut pending)?
            }
            Kind::SharedMap | Kind::TcLru => {
                let mut direct = if kind == Kind::TcLru { take_direct(ebpf)? } else { Vec::new() };
                let octets = size_of::<PerCpuValue>();
                take_hash(hash(ebpf, kind)?, octets, octets, 0, &mut direct)?
            }
            Kind::SharedHash | Kind::TcHash => {
                let mut direct = if kind == Kind::TcHash { take_direct(ebpf)? } else { Vec::new() };
                let octets = size_of::<SharedValue>();
                take_hash(hash(ebpf, kind)?, octets, octets, 1, &mut direct)?
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
        let Some(mut account) = self.account()? else { return Ok(Account::default()) };
        if kind == Kind::TcLru {
            // What the kernel evicts is told to nobody: only who sent the packets knows how many are missing.
            account.missed = sent.saturating_sub(account.packets);
        }
        // The programs that by their nature have no room for some flows of a table half full, or lose them.
        let may_miss = matches!(kind, Kind::HalfLine | Kind::TcLru);
        // And the one whose sums of octets end at 32 bits.
        let is_beyond = kind == Kind::HalfLine && sent * octets > u64::from(u32::MAX);
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
        Some(Map::PerCpuHashMap(map) | Map::HashMap(map) | Map::LruHashMap(map)) => Ok(map),
        _ => anyhow::bail!("{} has no hash", kind.name()),
    }
}

/// A packet that lies outside of the hash.
struct Outside {
    key: Vec<u8>,
    octets: u64,
}

/// What the burst program has set aside and not yet accounted for; afterwards it has set nothing aside.
fn take_pending(ebpf: &mut Ebpf) -> anyhow::Result<Vec<Outside>> {
    const WORDS: usize = size_of::<Burst>() / 8;
    const PACKET_WORDS: usize = size_of::<Pending>() / 8;
    const KEY_WORDS: usize = size_of::<Key>() / 8;
    let mut bursts: PerCpuArray<_, [u64; WORDS]> =
        PerCpuArray::try_from(ebpf.map_mut("BURSTS").context("no map BURSTS")?)?;
    let mut pending = Vec::new();
    for burst in bursts.get(&0, 0)?.iter() {
        let count = usize::try_from(burst[0])?;
        pending.extend(burst.chunks_exact(PACKET_WORDS).skip(1).take(count).map(|packet| Outside {
            key: packet[..KEY_WORDS].iter().flat_map(|word| word.to_ne_bytes()).collect(),
            // After the key and the clock.
            octets: packet[KEY_WORDS + 1] & 0xffff_ffff,
        }));
    }
    bursts.set(0, PerCpuValues::try_from(vec![[0; WORDS]; cpus()?])?, 0)?;
    Ok(pending)
}

/// What the programs on the TC hook have sent to user space by itself.
fn take_direct(ebpf: &mut Ebpf) -> anyhow::Result<Vec<Outside>> {
    let mut ring = RingBuf::try_from(ebpf.map_mut("DIRECT").context("no map DIRECT")?)?;
    let mut direct = Vec::new();
    while let Some(item) = ring.next() {
        let (key, packet) = item.split_at_checked(size_of::<Key>()).context("a short item in the ring")?;
        // After the clock, octets and control bits share a word.
        direct.push(Outside { key: key.to_vec(), octets: word(packet, 1) & 0xffff_ffff });
    }
    Ok(direct)
}

/// Empties a hash; `first` is the word of a value in which the packets are, followed by octets. Packets outside
/// of the hash are added.
fn take_hash(
    map: &MapData,
    value_octets: usize,
    per_cpu_octets: usize,
    first: usize,
    outside: &mut Vec<Outside>,
) -> anyhow::Result<Account> {
    let mut account = sum(outside.iter().map(|packet| (1, packet.octets)));
    let mut flows = 0;
    batch::take_all(map.fd(), size_of::<Key>(), value_octets, |keys, values| {
        flows += (keys.len() / size_of::<Key>()) as u64;
        if !outside.is_empty() {
            let known: BTreeSet<&[u8]> = keys.chunks_exact(size_of::<Key>()).collect();
            outside.retain(|packet| !known.contains(&packet.key[..]));
        }
        for value in values.chunks_exact(per_cpu_octets) {
            account.packets += word(value, first);
            account.octets += word(value, first + 1);
        }
    })?;
    let new: BTreeSet<&[u8]> = outside.iter().map(|packet| &packet.key[..]).collect();
    account.flows = Some(flows + new.len() as u64);
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
