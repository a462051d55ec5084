//! What the first packet of a flow costs, against a further one in the same table.

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
}

/// Measures programs, each of which begins every round with an empty table.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let flows = effort.table_flows;
    let size = Size::of(flows);
    let schedule = Schedule::each_once(0, u64::from(flows));
    let mut wrapper = Wrapper::load(Traffic::Ipv4Tcp, &schedule)?;
    let mut again = Wrapper::load(Traffic::Ipv4Tcp, &schedule.reordered())?;
    let mut empty = Contender::load(Kind::Empty, size)?;
    let mut rows = Vec::new();
    for kind in [Kind::Minimizer, Kind::PerCpuHash] {
        let mut contender = Contender::load(kind, size)?;
        let (mut base, mut first, mut further) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.runs {
            wrapper.send(&mut empty, flows)?;
            base.push(cost(&mut wrapper, &mut empty, flows)?);
            wrapper.seek(0)?;
            again.seek(0)?;
            first.push(cost(&mut wrapper, &mut contender, flows)?);
            further.push(cost(&mut again, &mut contender, flows)?);
            // Empties the table, and a flip gives the real program its other generation.
            let account = contender.account()?;
            let packets = 2 * u64::from(flows);
            let expected = Account {
                packets,
                octets: packets * Traffic::Ipv4Tcp.octets(),
                missed: 0,
                flows: Some(u64::from(flows)),
            };
            ensure!(account == Some(expected), "{} counted {account:?}, not {expected:?}", kind.name());
        }
        let (first, further) = (difference(&first, &base), difference(&further, &base));
        rows.push(Row {
            name: kind.name(),
            flows,
            new_ns: Spread::of(first.iter().copied()),
            existing_ns: Spread::of(further.iter().copied()),
            ratio: ratio(&first, &further),
        });
    }
    Ok(rows)
}
