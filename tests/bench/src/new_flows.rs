//! What the first packet of a flow costs, against a further one in the same table.

use std::path::Path;

use anyhow::ensure;
use serde::Serialize;

use super::account::Account;
use super::contenders::{Contender, Kind, Size};
use super::rounds::{Effort, cost};
use super::schedule::Schedule;
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Result of one program.
#[derive(Debug, Serialize)]
pub struct Row {
    /// See [`Kind::name`].
    pub name: &'static str,
    /// Flows that come, one packet each, into an empty table of twice as many slots.
    pub flows: u32,
    /// Nanoseconds per packet of a new flow.
    pub new_ns: Spread,
    /// The same packets once more, in another order.
    pub existing_ns: Spread,
    /// The first as a multiple of the second, round by round.
    pub ratio: Spread,
    /// What a new flow costs the real program as a share of what it costs this one, round by round; absent for itself.
    pub minimizer_ratio: Option<Spread>,
}

/// What one program cost in each round.
#[derive(Default)]
struct Series {
    first: Vec<f64>,
    further: Vec<f64>,
}

/// Measures programs, each of which begins every round with an empty table.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(effort: Effort, beside: Option<&Path>) -> anyhow::Result<Vec<Row>> {
    let flows = effort.table_flows;
    let size = Size { beside, ..Size::of(flows) };
    let schedule = Schedule::each_once(0, u64::from(flows));
    let mut wrapper = Wrapper::load(Traffic::Ipv4Tcp, &schedule)?;
    let mut again = Wrapper::load(Traffic::Ipv4Tcp, &schedule.reordered())?;
    let mut empty = Contender::load(Kind::Empty, size)?;
    let kinds = [Kind::Minimizer, Kind::PerCpuHash].into_iter().chain(beside.map(|_| Kind::Beside));
    let mut contenders = kinds.map(|kind| Contender::load(kind, size)).collect::<Result<Vec<_>, _>>()?;
    let mut series: Vec<Series> = contenders.iter().map(|_| Series::default()).collect();
    let mut base = Vec::new();
    for _ in 0..effort.runs {
        wrapper.send(&mut empty, flows)?;
        base.push(cost(&mut wrapper, &mut empty, flows)?);
        for (contender, series) in contenders.iter_mut().zip(&mut series) {
            wrapper.seek(0)?;
            again.seek(0)?;
            series.first.push(cost(&mut wrapper, contender, flows)?);
            series.further.push(cost(&mut again, contender, flows)?);
            // Empties the table, and a flip gives the real program its other generation.
            let account = contender.account()?;
            let packets = 2 * u64::from(flows);
            let expected = Account {
                packets,
                octets: packets * Traffic::Ipv4Tcp.octets(),
                missed: 0,
                flows: Some(u64::from(flows)),
            };
            let name = contender.kind.name();
            ensure!(account == Some(expected), "{name} counted {account:?}, not {expected:?}");
        }
    }
    for series in &mut series {
        series.first = difference(&series.first, &base);
        series.further = difference(&series.further, &base);
    }
    let row = |(contender, Series { first, further }): (&Contender, &Series)| Row {
        name: contender.kind.name(),
        flows,
        new_ns: Spread::of(first.iter().copied()),
        existing_ns: Spread::of(further.iter().copied()),
        ratio: ratio(first, further),
        minimizer_ratio: (contender.kind != Kind::Minimizer).then(|| ratio(&series[0].first, first)),
    };
    let rows = contenders.iter().zip(&series).map(row).collect();
    contenders.into_iter().try_for_each(Contender::end)?;
    Ok(rows)
}
