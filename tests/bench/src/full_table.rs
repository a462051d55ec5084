//! What a packet costs that finds no room anywhere, and whether the account stays exact.

use std::path::Path;

use anyhow::ensure;
use serde::Serialize;

use super::contenders::{Contender, Hook, Kind, Size};
use super::rounds::{Effort, Field};
use super::schedule::Schedule;
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Result of one program.
#[derive(Debug, Serialize)]
pub struct Row {
    /// See [`Kind::name`].
    pub name: &'static str,
    /// Flows that its table was made for.
    pub flows: u32,
    /// Nanoseconds per packet of a flood in which no two packets have the same tuple and none has room.
    pub overflow_ns: Spread,
    /// Nanoseconds per packet of the flows that were there before the flood, in the same table.
    pub existing_ns: Spread,
    /// The first as a multiple of the second, round by round.
    pub ratio: Spread,
    /// The overflow of the real program as a share of this one's, round by round; absent for itself.
    pub minimizer_ratio: Option<Spread>,
    /// Packets sent.
    pub packets: u64,
    /// Of these, in the table or the spill log.
    pub counted: u64,
    /// Of these, counted as overflow. The sum of both is checked.
    pub overflow: u64,
}

/// Packets of other flows for each slot, so that no group is left with a free way.
const FILL_PER_SLOT: u32 = 24;
/// The numbers of the flows that fill the table, and of those that find it full.
const FILL: u64 = 1 << 32;
const FLOOD: u64 = 2 << 32;

/// Fills tables, floods them, and measures the flood and the flows that were there first.
///
/// # Errors
/// What the kernel answers; a program that miscounted; a packet of the flood that found room.
pub fn measure(effort: Effort, beside: Option<&Path>) -> anyhow::Result<Vec<Row>> {
    full_on_tc()?;
    let flows = effort.full_table_flows;
    let size = Size { beside, ..Size::of(flows) };
    let traffic = Traffic::Ipv4Tcp;
    let every = u64::MAX;
    let mut field = Field::default();
    for schedule in [Schedule::each_once(0, u64::from(flows)), Schedule::each_once(FLOOD, every)] {
        field.wrappers.push(Wrapper::load(traffic, &schedule)?);
    }
    let mut fill = Wrapper::load(traffic, &Schedule::each_once(FILL, every))?;
    let other = beside.map(|_| Kind::Beside);
    for kind in [Kind::Empty, Kind::Minimizer, Kind::PerCpuHash].into_iter().chain(other) {
        let mut contender = Contender::load(kind, size)?;
        let place = field.contenders.len();
        field.queues.extend([(0, place), (1, place)]);
        field.wrappers[0].send(&mut contender, flows)?;
        fill.send(&mut contender, size.slots() * FILL_PER_SLOT)?;
        field.contenders.push(contender);
    }
    let flooded = u64::from(effort.packets) * 2 * effort.runs as u64;
    let gross = field.rounds(effort)?;
    let net = |queue: usize| difference(&gross[queue], &gross[queue % 2]);
    // The real program is the second.
    let ours = net(3);
    let mut rows = Vec::new();
    for (place, contender) in field.contenders.iter_mut().enumerate().skip(1) {
        let (kind, packets) = (contender.kind, contender.sent);
        let name = kind.name();
        let Some(account) = contender.account()? else { continue };
        ensure!(
            account.packets + account.missed == packets && account.missed >= flooded,
            "{name} counted {account:?} of {packets} packets, of which {flooded} flooded it"
        );
        let (existing, overflow) = (net(2 * place), net(2 * place + 1));
        rows.push(Row {
            name,
            flows,
            overflow_ns: Spread::of(overflow.iter().copied()),
            existing_ns: Spread::of(existing.iter().copied()),
            ratio: ratio(&overflow, &existing),
            minimizer_ratio: (kind != Kind::Minimizer).then(|| ratio(&ours, &overflow)),
            packets,
            counted: account.packets,
            overflow: account.missed,
        });
    }
    field.end()?;
    Ok(rows)
}

/// Checks what the accounts of the programs on the TC hook say of full hashes. Their packets are not timed: nobody
/// empties the ring meanwhile, as an agent would.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
fn full_on_tc() -> anyhow::Result<()> {
    const FLOWS: u32 = 4096;
    /// More packets than the ring has room for.
    const MANY: u32 = 1 << 19;
    let traffic = Traffic::Ipv4Tcp;
    let size = Size::of(64);
    let mut wrapper = Wrapper::load_on(Hook::Tc, traffic, &Schedule::each_once(0, u64::MAX))?;

    let mut hash = Contender::load(Kind::TcHash, size)?;
    wrapper.send(&mut hash, FLOWS)?;
    // None is missing: the ring has what the hash has not.
    hash.check(traffic.octets(), u64::from(FLOWS))?;

    hash.sent = 0;
    wrapper.send(&mut hash, MANY)?;
    let Some(account) = hash.account()? else { anyhow::bail!("no account") };
    ensure!(
        account.packets + account.missed == hash.sent
            && account.missed > 0
            && account.packets > u64::from(FLOWS),
        "tc_hash counted {account:?} of {MANY} packets"
    );

    let mut evicting = Contender::load(Kind::TcLru, size)?;
    wrapper.send(&mut evicting, FLOWS)?;
    let account = evicting.check(traffic.octets(), u64::from(FLOWS))?;
    ensure!(
        account.packets > 0 && account.missed >= u64::from(FLOWS - size.slots()),
        "tc_lru lost none of {FLOWS} flows: {account:?}"
    );
    Ok(())
}
