//! What the real program costs on other kinds of packets, as a multiple of plain IPv4 in the same rounds.

use std::path::Path;

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
    /// The same as a share of what the other build costs on these packets, where that is measured.
    pub beside_ratio: Option<Spread>,
}

/// The kind of packets on which the other build is measured, too.
const BESIDE: Traffic = Traffic::GtpU;

/// Measures all kinds with `flows` flows, each in a table of its own.
///
/// # Errors
/// What the kernel answers; packets that were not counted exactly.
pub fn measure(effort: Effort, flows: u64, beside: Option<&Path>) -> anyhow::Result<Row> {
    let mut field = Field::default();
    let mut places = Vec::new();
    let schedule = Schedule::drawn(flows, Popularity::Uniform, effort.period_for(flows));
    for traffic in Traffic::ALL {
        field.wrappers.push(Wrapper::load(traffic, &schedule)?);
        let table_flows = effort.table_flows;
        let (room, tunnels) = (traffic.room(table_flows), traffic.tunnels());
        let size = Size { room, tunnels, beside, ..Size::of(table_flows) };
        let other = beside.filter(|_| traffic == BESIDE).map(|_| Kind::Beside);
        for kind in [Kind::Empty, Kind::Minimizer].into_iter().chain(other) {
            field.queues.push((field.wrappers.len() - 1, field.contenders.len()));
            field.contenders.push(Contender::load(kind, size)?);
            places.push((traffic, kind));
        }
    }
    field.pass(effort.period_for(flows))?;
    let gross = field.rounds(effort)?;
    let net = |traffic: Traffic, kind: Kind| {
        let series =
            |kind| places.iter().position(|place| *place == (traffic, kind)).map(|place| &gross[place]);
        Some(difference(series(kind)?, series(Kind::Empty)?))
    };
    for ((traffic, _), contender) in places.iter().zip(&mut field.contenders) {
        contender.check(traffic.octets(), schedule.distinct)?;
    }
    let plain = net(Traffic::Ipv4Tcp, Kind::Minimizer).unwrap_or_default();
    let figure = |traffic| {
        let series = net(traffic, Kind::Minimizer)?;
        Some(Figure {
            traffic,
            ns: Spread::of(series.iter().copied()),
            plain_ratio: ratio(&series, &plain),
            beside_ratio: net(traffic, Kind::Beside).map(|other| ratio(&series, &other)),
        })
    };
    let figures = Traffic::ALL.into_iter().filter_map(figure).collect();
    field.end()?;
    Ok(Row { flows, figures })
}
