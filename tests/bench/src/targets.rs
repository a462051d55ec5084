//! What was aimed at, and whether this run reached it, so that nobody has to compute.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::contenders::Kind;
use super::live::Subject;
use super::packets;
use super::policies;
use super::report::Report;
use super::schedule::Popularity;
use super::statistics::Spread;
use super::traffic::Traffic;
use super::{end_to_end, sinks};

/// One target and what was measured for it.
#[derive(Debug, Serialize)]
pub struct Target {
    /// What is compared with what.
    pub name: String,
    /// The figure.
    pub figure: Spread,
    /// What it is to be.
    pub limit: f64,
    /// Whether the limit is the least, and not the most.
    pub at_least: bool,
    /// `×`, `ns` or `MiB`.
    pub unit: &'static str,
    /// Whether the median keeps to the limit.
    pub is_reached: bool,
}

impl Target {
    fn at_most(name: String, figure: Spread, limit: f64, unit: &'static str) -> Self {
        let is_reached = figure.median <= limit;
        Self { name, figure, limit, at_least: false, unit, is_reached }
    }

    fn at_least(name: String, figure: Spread, limit: f64) -> Self {
        let is_reached = figure.median >= limit;
        Self { name, figure, limit, at_least: true, unit: "×", is_reached }
    }
}

impl Display for Target {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, figure, limit, unit, .. } = self;
        let decimals = if *unit == "ns" { 1 } else { 2 };
        let verdict = if self.is_reached { "reached" } else { "not reached" };
        let relation = if self.at_least { '≥' } else { '≤' };
        write!(out, "{verdict:<11}  {figure:>24.decimals$} {unit} {relation} {limit:.decimals$}  {name}")
    }
}

/// The targets of all that was measured.
#[must_use]
pub fn judge(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    for row in &report.per_packet {
        rows(row, &mut targets);
    }
    for row in &report.kinds {
        for figure in &row.figures {
            let limit = match figure.traffic {
                Traffic::Ipv6Tcp => 1.5,
                Traffic::GtpU => 2.0,
                _ => continue,
            };
            let name =
                format!("{} to {}, {} flows", figure.traffic.name(), Traffic::Ipv4Tcp.name(), row.flows);
            targets.push(Target::at_most(name, figure.plain_ratio, limit, "×"));
        }
    }
    for row in &report.policies {
        let figure = |name| row.figures.iter().find(|figure| figure.name == name);
        match row.flows {
            1 => {
                if let Some(figure) = figure(policies::ACTIVE_CYBERDEFENCE) {
                    let name = format!("a hot flow under {} to full-record", figure.name);
                    targets.push(Target::at_most(name, figure.full_record_ratio, 1.6, "×"));
                }
            }
            65_536 => {
                if let Some(figure) = figure(policies::SCOPE) {
                    let name = format!("{} flows, added by a {}", row.flows, figure.name);
                    targets.push(Target::at_most(name, figure.added_ns, 15.0, "ns"));
                }
            }
            _ => {}
        }
    }
    let ours = Kind::Minimizer.name();
    for row in report.new_flows.iter().filter(|row| row.name == ours) {
        targets.push(Target::at_most("a new flow to an existing one".to_owned(), row.ratio, 2.0, "×"));
    }
    for row in report.full_table.iter().filter(|row| row.name == ours) {
        let name = "in a full table, a packet that overflows".to_owned();
        targets.push(Target::at_most(name.clone(), row.overflow_ns, 90.0, "ns"));
        targets.push(Target::at_most(format!("{name}, to an existing flow"), row.ratio, 2.0, "×"));
    }
    for row in report.two_cpus.iter().filter(|row| row.name == ours) {
        // Two runs of the very same program differ by as much on a machine that is not quiet.
        let name = format!("one flow on two CPUs at once to one alone, CPU {}", row.cpu);
        targets.push(Target::at_most(name, row.ratio, 1.1, "×"));
    }
    let most = report.per_record.iter().max_by_key(|row| row.records);
    if let Some(row) = most {
        let name = format!("drain, copied and cleared, to batches; {} records", row.records);
        targets.push(Target::at_most(name, row.copy_ratio, 0.10, "×"));
    }
    for row in &report.live {
        let figure = |subject| row.figure(subject).map(|figure| figure.empty_ratio);
        if let Some(ratio) = figure(Subject::Program(Kind::Minimizer)).filter(|_| row.flows > 1) {
            let name = format!("live, pass, {} flows, to an empty program", row.flows);
            targets.push(Target::at_least(name, ratio, 0.95));
        }
        if let Some(ratio) = figure(Subject::Tap).filter(|_| row.flows == 1) {
            targets.push(Target::at_least(
                "live, tap, one flow, to an empty program".to_owned(),
                ratio,
                0.88,
            ));
        }
    }
    for row in &report.sinks {
        let millions = match row.kind {
            sinks::Kind::IpfixUdp | sinks::Kind::IpfixFile => 2.0,
            sinks::Kind::JsonLines | sinks::Kind::Parquet => 1.0,
            sinks::Kind::Kafka | sinks::Kind::KafkaTogether => continue,
        };
        let name = format!("CPU of a record to {}, {}", row.kind.name(), row.mix.name());
        targets.push(Target::at_most(name, row.cpu_ns, 1e3 / millions, "ns"));
    }
    for row in &report.end_to_end {
        let name = |what: &str| format!("{what}: {} records to {}", row.records, row.kind.name());
        if (row.kind, row.records) == (end_to_end::Kind::IpfixUdp, 1_000_000) {
            let share = Spread::of([row.cpu_share]);
            targets.push(Target::at_most(name("CPU of an interval of 10 s"), share, 0.25, "×"));
        }
        let memory = Spread::of([row.memory_mib]);
        targets.push(Target::at_most(name("memory beside the tables"), memory, 256.0, "MiB"));
    }
    targets
}

/// Targets of one row of the matrix.
fn rows(row: &packets::Row, targets: &mut Vec<Target>) {
    let on = format!("{}, {} flows, {}", row.traffic.name(), row.flows, row.popularity);
    let mut against = |kind: Kind, limit: f64| {
        if let Some(ratio) = row.figure(kind).and_then(|figure| figure.minimizer_ratio) {
            targets.push(Target::at_most(format!("to {}: {on}", kind.name()), ratio, limit, "×"));
        }
    };
    match (row.flows, row.popularity) {
        (1 | 1000, Popularity::Uniform) => against(Kind::PerCpuHash, 0.25),
        (65_536 | 1_048_576, _) => against(Kind::PerCpuHash, 0.20),
        _ => {}
    }
    match (row.flows, row.popularity) {
        (65_536, Popularity::Uniform) => against(Kind::Floor, 1.5),
        (1_048_576, Popularity::Uniform) => against(Kind::Floor, 1.35),
        _ => {}
    }
    if (row.flows, row.traffic) == (1, Traffic::Ipv4Tcp) {
        let ns = |kind| row.figure(kind).map(|figure| figure.ns);
        if let (Some(ours), Some(parse)) = (ns(Kind::Minimizer), ns(Kind::ParseOnly)) {
            let limit = (4.0 * parse.median).max(12.0);
            targets.push(Target::at_most(
                format!("at most 4 × parse_only or 12 ns: {on}"),
                ours,
                limit,
                "ns",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;
    use crate::statistics::Spread;

    #[test]
    fn a_line_says_what_and_whether() {
        let figure = Spread { median: 0.25, min: 0.2, max: 0.3 };
        let target = Target::at_most("to that".to_owned(), figure, 0.25, "×");
        assert_eq!(target.to_string(), "reached              0.25 (0.20–0.30) × ≤ 0.25  to that");
        let target = Target::at_least("to that".to_owned(), figure, 0.26);
        assert_eq!(target.to_string(), "not reached          0.25 (0.20–0.30) × ≥ 0.26  to that");
    }
}
