//! What was aimed at, and whether this run reached it, so that nobody has to compute.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::contenders::Kind;
use super::live::Subject;
use super::report::Report;
use super::schedule::Popularity;
use super::statistics::Spread;
use super::traffic::Traffic;
use super::{drain, end_to_end, kinds, packets, policies, sinks};

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
    /// `×`, `ns`, `µs` or `MiB`.
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

/// The targets of all that was measured. There is none where what is compared with was not measured.
#[must_use]
pub fn judge(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    report.per_packet.iter().for_each(|row| packets(row, &mut targets));
    live(report, &mut targets);
    for row in &report.kinds {
        kinds(row, &mut targets);
    }
    report.policies.iter().for_each(|row| policies(row, &mut targets));
    tables(report, &mut targets);
    for row in &report.sinks {
        let millions = match row.kind {
            sinks::Kind::IpfixUdp | sinks::Kind::IpfixFile => 2.0,
            sinks::Kind::JsonLines | sinks::Kind::Parquet => 1.0,
            sinks::Kind::Kafka | sinks::Kind::KafkaTogether => continue,
        };
        let name = format!("CPU of a record to {}, {}", row.kind.name(), row.mix.name());
        targets.push(Target::at_most(name, row.cpu_ns, 1e3 / millions, "ns"));
    }
    report.end_to_end.iter().for_each(|row| end_to_end(row, &mut targets));
    targets
}

const OURS: &str = Kind::Minimizer.name();
const BESIDE: &str = Kind::Beside.name();

/// What is aimed at beside another program, for IPv4 packets in test runs and as live frames alike.
fn limit(against: Kind, flows: u64, popularity: Popularity) -> Option<f64> {
    Some(match (against, flows, popularity) {
        (Kind::Beside, 1 | 1000, Popularity::Uniform) => 0.60,
        (Kind::Beside, 65_536, Popularity::Uniform) => 0.55,
        (Kind::Beside, 1_048_576, Popularity::Uniform) => 0.25,
        (Kind::Beside, 1_048_576, Popularity::Zipf) => 0.45,
        (Kind::Floor, 1_048_576, Popularity::Uniform) => 0.75,
        (Kind::PerCpuHash, 1 | 1000, Popularity::Uniform) => 0.20,
        (Kind::PerCpuHash, 65_536, Popularity::Uniform) => 0.14,
        (Kind::PerCpuHash, 1_048_576, Popularity::Zipf) => 0.14,
        (Kind::PerCpuHash, 1_048_576, Popularity::Uniform) => 0.09,
        _ => return None,
    })
}

/// The same for IPv6 packets.
fn limit_ipv6(against: Kind, flows: u64, popularity: Popularity) -> Option<f64> {
    Some(match (against, flows, popularity) {
        (Kind::Beside, 1 | 65_536, Popularity::Uniform) => 0.65,
        (Kind::Beside, 1_048_576, Popularity::Uniform) => 0.35,
        (Kind::Floor, 65_536, Popularity::Uniform) => 1.5,
        (Kind::Floor, 1_048_576, Popularity::Uniform) => 1.35,
        (Kind::PerCpuHash, 1 | 1000, Popularity::Uniform) => 0.25,
        (Kind::PerCpuHash, 65_536 | 1_048_576, _) => 0.20,
        _ => return None,
    })
}

/// With which programs the real one is compared.
const AGAINST: [Kind; 3] = [Kind::Beside, Kind::Floor, Kind::PerCpuHash];

fn packets(row: &packets::Row, targets: &mut Vec<Target>) {
    let on = format!("{}, {} flows, {}", row.traffic.name(), row.flows, row.popularity);
    for kind in AGAINST {
        let limit = if row.traffic.is_ipv6() { limit_ipv6 } else { limit };
        let ratio = row.figure(kind).and_then(|figure| figure.minimizer_ratio);
        if let (Some(ratio), Some(limit)) = (ratio, limit(kind, row.flows, row.popularity)) {
            targets.push(Target::at_most(format!("to {}: {on}", kind.name()), ratio, limit, "×"));
        }
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

fn live(report: &Report, targets: &mut Vec<Target>) {
    for row in &report.live {
        for kind in AGAINST {
            // As a tap where both can be one: the network stack's own work is not in it. Where packets pass, that work varies
            // by more than programs cost that miss no cache line.
            let subject = if kind == Kind::Beside { Subject::Tap(kind) } else { Subject::Program(kind) };
            let ratio = row.figure(subject).and_then(|figure| figure.minimizer_ratio);
            let ratio = ratio.filter(|_| kind == Kind::Beside || row.flows >= 65_536);
            if let (Some(ratio), Some(limit)) = (ratio, limit(kind, row.flows, Popularity::Uniform)) {
                let name = format!("live, added to {}: {} flows", subject.name(), row.flows);
                targets.push(Target::at_most(name, ratio, limit, "×"));
            }
        }
        let to_empty = |subject| row.figure(subject).map(|figure| figure.empty_ratio);
        let (subject, name, limit) = match row.flows {
            1 => (Subject::Tap(Kind::Minimizer), "live, tap, one flow, to an empty program", 0.85),
            1000 => (Subject::Program(Kind::Minimizer), "live, pass, 1000 flows, to an empty program", 0.95),
            _ => continue,
        };
        if let Some(ratio) = to_empty(subject) {
            targets.push(Target::at_least(name.to_owned(), ratio, limit));
        }
    }
    let row = |flows| report.live.iter().find(|row| row.flows == flows);
    if let (Some(few), Some(many)) = (row(1000), row(1_048_576))
        && let Some(ratio) = many.mpps_to(few, Subject::Tap(Kind::Minimizer))
    {
        let name = "live, tap, Mpps with 1048576 flows to Mpps with 1000".to_owned();
        targets.push(Target::at_least(name, ratio, 0.75));
    }
}

fn kinds(row: &kinds::Row, targets: &mut Vec<Target>) {
    for figure in &row.figures {
        let limit = match figure.traffic {
            Traffic::Ipv6Tcp => 1.5,
            Traffic::GtpU => 2.0,
            _ => continue,
        };
        let name = figure.traffic.name();
        let to_plain = format!("{name} to {}, {} flows", Traffic::Ipv4Tcp.name(), row.flows);
        targets.push(Target::at_most(to_plain, figure.plain_ratio, limit, "×"));
        if let Some(ratio) = figure.beside_ratio.filter(|_| row.flows == 1000) {
            targets.push(Target::at_most(
                format!("to {BESIDE}: {name}, {} flows", row.flows),
                ratio,
                0.60,
                "×",
            ));
        }
    }
}

fn policies(row: &policies::Row, targets: &mut Vec<Target>) {
    let figure = |name| row.figures.iter().find(|figure| figure.name == name);
    match (row.traffic, row.flows) {
        (Traffic::Ipv4Tcp, 1) => {
            if let Some(figure) = figure(policies::ACTIVE_CYBERDEFENCE) {
                let name = format!("a hot flow under {} to full-record", figure.name);
                targets.push(Target::at_most(name, figure.full_record_ratio, 1.6, "×"));
            }
            if let Some(ratio) = figure(policies::DOMESTIC_PSEUDONYMS).and_then(|figure| figure.beside_ratio)
            {
                let name = format!("to {BESIDE}: a hot flow under that with domestic pseudonyms");
                targets.push(Target::at_most(name, ratio, 0.60, "×"));
            }
        }
        (Traffic::Ipv4Tcp, 65_536) => {
            if let Some(figure) = figure(policies::SCOPE) {
                let name = format!("{} flows, added by a {}", row.flows, figure.name);
                targets.push(Target::at_most(name, figure.added_ns, 15.0, "ns"));
            }
        }
        (Traffic::Ipv6Tcp, 1_048_576) => {
            if let Some(figure) = figure(policies::CARRIER_DEFAULT) {
                let on = format!("{}, {} flows", row.traffic.name(), row.flows);
                let name = format!("{} to full-record: {on}", figure.name);
                targets.push(Target::at_most(name, figure.full_record_ratio, 0.8, "×"));
            }
        }
        _ => {}
    }
}

/// New flows, full tables, two CPUs, the drain, memory.
fn tables(report: &Report, targets: &mut Vec<Target>) {
    for row in report.new_flows.iter().filter(|row| row.name == OURS) {
        targets.push(Target::at_most("a new flow to an existing one".to_owned(), row.ratio, 2.0, "×"));
    }
    let beside = report.new_flows.iter().find(|row| row.name == BESIDE);
    if let Some((row, ratio)) = beside.and_then(|row| Some((row, row.minimizer_ratio?))) {
        targets.push(Target::at_most(format!("to {BESIDE}: a new flow of {}", row.flows), ratio, 0.45, "×"));
    }
    for row in report.full_table.iter().filter(|row| row.name == OURS) {
        let name = "in a full table, a packet that overflows".to_owned();
        targets.push(Target::at_most(name.clone(), row.overflow_ns, 60.0, "ns"));
        targets.push(Target::at_most(format!("{name}, to an existing flow"), row.ratio, 1.5, "×"));
    }
    for row in report.two_cpus.iter().filter(|row| row.name == OURS) {
        // Two runs of the very same program differ by as much on a machine that is not quiet.
        let name = format!("one flow on two CPUs at once to one alone, CPU {}", row.cpu);
        targets.push(Target::at_most(name, row.ratio, 1.1, "×"));
    }
    let whole = |row: &&drain::Row| (row.spreading, row.records) == (drain::Spreading::EveryFlow, 1 << 20);
    if let Some(row) = report.per_record.iter().find(whole) {
        let of = format!("{} records, each of two CPUs", row.records);
        targets.push(Target::at_most(format!("drain, whole: {of}"), row.drain_ns, 110.0, "ns"));
        let name = format!("drain, copied and cleared, to batches: {of}");
        targets.push(Target::at_most(name, row.copy_ratio, 0.06, "×"));
    }
    let most = report.tables.iter().map(|row| row.flows).max();
    let table = |name| report.tables.iter().find(|row| row.name == name && Some(row.flows) == most);
    if let (Some(ours), Some(beside)) = (table(OURS), table(BESIDE)) {
        let name = format!("to {BESIDE}: memory of the tables for {} flows", ours.flows);
        targets.push(Target::at_most(name, Spread::of([ours.mib / beside.mib]), 0.5, "×"));
    }
}

fn end_to_end(row: &end_to_end::Row, targets: &mut Vec<Target>) {
    if row.name != OURS {
        return;
    }
    let of = format!("{} records of {} to {}", row.records, row.traffic.name(), row.kind.name());
    if (row.kind, row.records) == (end_to_end::Kind::IpfixUdp, 1_000_000) {
        let share = Spread::of([row.cpu_share]);
        targets.push(Target::at_most(format!("CPU of an interval of 10 s: {of}"), share, 0.25, "×"));
        let cost = Spread::of([row.cpu_us_per_record]);
        targets.push(Target::at_most(format!("CPU of a record drained and sent: {of}"), cost, 0.45, "µs"));
    }
    let limit = if row.traffic.is_ipv6() { 448.0 } else { 256.0 };
    let memory = Spread::of([row.memory_mib]);
    targets.push(Target::at_most(format!("memory beside the tables: {of}"), memory, limit, "MiB"));
}

#[cfg(test)]
mod tests {
    use super::{Target, judge};
    use crate::report::Report;
    use crate::rounds::Effort;
    use crate::statistics::Spread;
    use crate::{new_flows, tables};

    fn table(name: &'static str, flows: u32, mib: f64) -> tables::Row {
        tables::Row { name, flows, maps: 7, mib, told_mib: mib }
    }

    fn new_flows(name: &'static str, minimizer_ratio: Option<Spread>) -> new_flows::Row {
        let [new_ns, existing_ns, ratio] = [30.0, 20.0, 1.5].map(|value| Spread::of([value]));
        new_flows::Row { name, flows: 1 << 20, new_ns, existing_ns, ratio, minimizer_ratio }
    }

    #[test]
    fn nothing_is_judged_beside_another_build_that_was_not_measured() {
        let effort = Effort {
            runs: 1,
            packets: 1,
            period: 1,
            table_flows: 1,
            full_table_flows: 1,
            live_packets: 1,
            with_agents: false,
        };
        let names = |report: &Report| {
            let judged = judge(report);
            assert!(judged.iter().all(|target| target.is_reached), "{judged:?}");
            judged.into_iter().map(|target| target.name).collect::<Vec<_>>()
        };
        let mut report = Report::new(effort, 0);
        assert_eq!(names(&report), Vec::<String>::new());
        report.tables = vec![table("minimizer", 1 << 16, 90.0), table("minimizer", 1 << 20, 45.0)];
        report.new_flows = vec![new_flows("minimizer", None)];
        assert_eq!(names(&report), ["a new flow to an existing one"]);
        report.tables.extend([table("beside", 1 << 16, 90.0), table("beside", 1 << 20, 90.0)]);
        report.new_flows.push(new_flows("beside", Some(Spread::of([0.4]))));
        let expected = [
            "a new flow to an existing one",
            "to beside: a new flow of 1048576",
            "to beside: memory of the tables for 1048576 flows",
        ];
        assert_eq!(names(&report), expected);
    }

    #[test]
    fn a_line_says_what_and_whether() {
        let figure = Spread { median: 0.25, min: 0.2, max: 0.3 };
        let target = Target::at_most("to that".to_owned(), figure, 0.25, "×");
        assert_eq!(target.to_string(), "reached              0.25 (0.20–0.30) × ≤ 0.25  to that");
        let target = Target::at_least("to that".to_owned(), figure, 0.26);
        assert_eq!(target.to_string(), "not reached          0.25 (0.20–0.30) × ≥ 0.26  to that");
    }
}
