//! What the real program costs on other kinds of packets, as a multiple of plain IPv4 in the same rounds.

use serde::Serialize;

use super::contenders::{Contender, Kind, Size};
use super::rounds::{Effort, Field};
use super::schedule::{Popularity, Schedule};
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Result for one number of flows.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Flows from which the packets are drawn uniformly.
    pub flows: u64,
    /// By kind of packet.
    pub figures: Vec<Figure>,
}

/// Result of one kind of packet.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// The kind.
    pub traffic: Traffic,
    /// Nanoseconds per packet, the base of the same packets and round subtracted.
    pub ns: Spread,
    /// The same as a multiple of IPv4 and TCP, round by round.
    pub plain_ratio: Spread,
}

/// Measures all kinds with `flows` flows, each in a table of its own.
///
/// # Errors
/// What the kernel answers; packets that were not counted exactly.
pub fn measure(effort: Effort, flows: u64) -> anyhow::Result<Row> {
    let mut field = Field::default();
    let schedule = Schedule::drawn(flows, Popularity::Uniform, effort.period_for(flows));
    for traffic in Traffic::ALL {
        field.wrappers.push(Wrapper::load(traffic, &schedule)?);
        let size = Size { tunnels: traffic.tunnels(), ..Size::of(effort.table_flows) };
        for kind in [Kind::Empty, Kind::Minimizer] {
            field.queues.push((field.wrappers.len() - 1, field.contenders.len()));
            field.contenders.push(Contender::load(kind, size)?);
        }
    }
    field.pass(effort.period_for(flows))?;
    let gross = field.rounds(effort)?;
    let net: Vec<Vec<f64>> = gross.chunks_exact(2).map(|pair| difference(&pair[1], &pair[0])).collect();
    let mut figures = Vec::new();
    for ((traffic, pair), series) in Traffic::ALL.into_iter().zip(field.contenders.chunks_mut(2)).zip(&net) {
        pair[1].check(traffic.octets(), schedule.distinct)?;
        let plain_ratio = ratio(series, &net[0]);
        figures.push(Figure { traffic, ns: Spread::of(series.iter().copied()), plain_ratio });
    }
    Ok(Row { flows, figures })
}
