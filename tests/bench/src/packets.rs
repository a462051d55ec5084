//! Nanoseconds per packet, by program and number of flows.

use std::path::Path;

use serde::Serialize;

use super::contenders::{Contender, Hook, Kind, Size};
use super::rounds::{Effort, Field};
use super::schedule::{Popularity, Schedule};
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Among more flows, hashes that differ from another one only in how they are updated are left out, for their memory.
pub const EVERY_CONTENDER_FLOWS: u64 = 1 << 20;

/// Result for one kind of packets and number of flows.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The packets.
    pub traffic: Traffic,
    /// How often each flow comes.
    pub popularity: Popularity,
    /// Flows from which the packets are drawn.
    pub flows: u64,
    /// Wrapper and empty program, ns per packet: what is subtracted.
    pub base_ns: Spread,
    /// All other programs.
    pub programs: Vec<Figure>,
}

/// Result of one program in a row.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// See [`Kind::name`].
    pub name: &'static str,
    /// Nanoseconds per packet, the base of the same hook and round subtracted.
    pub ns: Spread,
    /// What the real program costs as a share of this one, round by round; absent for itself.
    pub minimizer_ratio: Option<Spread>,
    /// Packets that found no room or were lost with an evicted flow, as a share of all.
    pub missed: f64,
    #[serde(skip)]
    kind: Kind,
}

impl Row {
    /// The figure of one program.
    #[must_use]
    pub fn figure(&self, kind: Kind) -> Option<&Figure> {
        self.programs.iter().find(|figure| figure.kind == kind)
    }
}

/// Programs that are compared on packets of this kind; the first is the base of those on the XDP hook.
#[must_use]
pub fn kinds(traffic: Traffic, beside: Option<&Path>) -> Vec<Kind> {
    let mut kinds = vec![Kind::Empty, Kind::ParseOnly, Kind::Floor];
    if !traffic.is_ipv6() {
        kinds.push(Kind::HalfLine);
    }
    kinds.push(Kind::PerCpuHash);
    if !traffic.is_ipv6() {
        kinds.push(Kind::PerCpuHashBurst);
    }
    kinds.push(Kind::SharedHash);
    if !traffic.is_ipv6() {
        kinds.extend([Kind::SharedMap, Kind::EmptyTc, Kind::TcHash, Kind::TcLru]);
    }
    kinds.push(Kind::Minimizer);
    kinds.extend(beside.map(|_| Kind::Beside));
    kinds
}

/// Measures all programs on packets of `flows` flows, and checks that each counted every packet.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(
    effort: Effort,
    traffic: Traffic,
    popularity: Popularity,
    flows: u64,
    beside: Option<&Path>,
) -> anyhow::Result<Row> {
    let mut kinds = kinds(traffic, beside);
    kinds.retain(|kind| flows <= EVERY_CONTENDER_FLOWS || !kind.is_for_fewer());
    let table_flows = effort.table_flows.max(u32::try_from(flows)?);
    let size = Size { room: traffic.room(table_flows), beside, ..Size::of(table_flows) };
    let schedule = Schedule::drawn(flows, popularity, effort.period_for(flows));
    let contenders = kinds.iter().map(|kind| Contender::load(*kind, size)).collect::<Result<Vec<_>, _>>()?;
    let hook = |kind: Kind| usize::from(kind.hook() == Hook::Tc);
    let queues = kinds.iter().enumerate().map(|(contender, kind)| (hook(*kind), contender)).collect();
    let hooks = if kinds.contains(&Kind::EmptyTc) { &[Hook::Xdp, Hook::Tc][..] } else { &[Hook::Xdp] };
    let reordered = schedule.reordered();
    let wrappers = hooks
        .iter()
        .map(|hook| Wrapper::load_on(*hook, traffic, &reordered))
        .collect::<Result<Vec<_>, _>>()?;
    let mut field = Field { wrappers, contenders, queues };
    // The first pass makes every flow known.
    field.pass(effort.period_for(flows))?;
    field.wrappers.iter_mut().try_for_each(|wrapper| wrapper.follow(&schedule))?;
    let gross = field.rounds(effort)?;
    let series = |kind: Kind| {
        kinds.iter().zip(&gross).find(|(other, _)| **other == kind).map_or(&[][..], |(_, series)| series)
    };
    let base = series(Kind::Empty);
    let ours = difference(series(Kind::Minimizer), base);
    let mut programs = Vec::new();
    for (contender, gross) in field.contenders.iter_mut().zip(&gross) {
        let kind = contender.kind;
        if kind == kind.base() {
            continue;
        }
        let account = contender.check(traffic.octets(), schedule.distinct)?;
        let net = difference(gross, series(kind.base()));
        programs.push(Figure {
            name: kind.name(),
            ns: Spread::of(net.iter().copied()),
            minimizer_ratio: (kind != Kind::Minimizer).then(|| ratio(&ours, &net)),
            missed: account.missed as f64 / contender.sent as f64,
            kind,
        });
    }
    field.end()?;
    Ok(Row { traffic, popularity, flows, base_ns: Spread::of(base.iter().copied()), programs })
}
