//! Nanoseconds per packet, by program and number of flows.

use anyhow::ensure;
use serde::Serialize;

use super::contenders::{Contenders, Kind};
use super::statistics::Spread;
use super::timed;
use super::traffic::{Family, Schedule};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds, in each of which every program runs once.
    pub runs: usize,
    /// Packets that a program sees in a round, after as many that warm the caches.
    pub packets: u32,
    /// Packets after which the order of flows repeats.
    pub period: u32,
    /// Flows that fill half of every table.
    pub table_flows: u32,
}

/// Result for one IP version and number of flows.
#[derive(Debug, Serialize)]
pub struct Row {
    /// IP version.
    pub family: Family,
    /// Flows from which the packets are drawn uniformly.
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
    /// Nanoseconds per packet, the base of the same round subtracted.
    pub ns: Spread,
    /// What the real program costs as a share of this one, round by round; absent for itself.
    pub minimizer_ratio: Option<Spread>,
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

/// Measures all programs on packets of `flows` flows, and checks that each counted every packet.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(effort: Effort, family: Family, flows: u64, beside: Option<&[u8]>) -> anyhow::Result<Row> {
    let mut contenders = Contenders::load(effort.table_flows, beside)?;
    let schedule = Schedule::uniform(flows, effort.period);
    contenders.follow(&schedule)?;
    let kinds: Vec<Kind> = contenders.all.iter().map(|contender| contender.kind).collect();
    // The first pass makes every flow known.
    for kind in &kinds {
        contenders.send(*kind, family, effort.period)?;
    }
    let mut nanoseconds = vec![Vec::new(); kinds.len()];
    for _ in 0..effort.runs {
        for (kind, series) in kinds.iter().zip(&mut nanoseconds) {
            // The program before has filled the caches with its own table.
            contenders.send(*kind, family, effort.packets)?;
            let ((), time) = timed(|| contenders.send(*kind, family, effort.packets))?;
            series.push(time.as_secs_f64() * 1e9 / f64::from(effort.packets));
        }
    }
    for kind in &kinds {
        check(&mut contenders, *kind, family, schedule.distinct)?;
    }
    Ok(row(family, flows, &kinds, &nanoseconds))
}

/// A fast program may simply not have counted.
fn check(contenders: &mut Contenders, kind: Kind, family: Family, flows: u64) -> anyhow::Result<()> {
    let Some(account) = contenders.account(kind)? else { return Ok(()) };
    let sent = contenders.sent(kind);
    ensure!(
        account.packets == sent
            && account.octets == sent * family.octets()
            && account.flows.is_none_or(|counted| counted == flows),
        "{} counted {account:?} of {sent} packets of {flows} flows",
        kind.name()
    );
    Ok(())
}

fn row(family: Family, flows: u64, kinds: &[Kind], nanoseconds: &[Vec<f64>]) -> Row {
    let series = |wanted: Kind| {
        kinds.iter().zip(nanoseconds).find(|(kind, _)| **kind == wanted).map_or(&[][..], |(_, series)| series)
    };
    let base = series(Kind::Empty);
    let net = |kind: Kind| series(kind).iter().zip(base).map(|(gross, base)| gross - base);
    let figure = |kind: Kind| Figure {
        name: kind.name(),
        ns: Spread::of(net(kind)),
        minimizer_ratio: (kind != Kind::Minimizer)
            .then(|| Spread::of(net(Kind::Minimizer).zip(net(kind)).map(|(ours, other)| ours / other))),
        kind,
    };
    Row {
        family,
        flows,
        base_ns: Spread::of(base.iter().copied()),
        programs: kinds.iter().filter(|kind| **kind != Kind::Empty).map(|kind| figure(*kind)).collect(),
    }
}
