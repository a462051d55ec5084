//! `cargo xtask bench`: what a packet costs in the kernel, beside what others do.

use std::fs;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bench::end_to_end::Case;
use bench::report::Report;
use bench::rounds::Effort;
use bench::schedule::Popularity;
use bench::traffic::Traffic;
use bench::{
    allowed_cpus, curve, drain, end_to_end, executed, full_table, kinds, live, memory, new_flows, packets,
    pin, plot, policies, sinks, tables, targets, two_cpus,
};
use bench_ebpf::SCHEDULE_ENTRIES;
use clap::{Parser, ValueEnum};
use tests::records::Mix;

/// Measures the kernel program on this machine's kernel, beside usual flow tables and the floor.
#[derive(Parser)]
struct Arguments {
    /// Check in less than a minute that every program counts every packet; the times mean nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds behind each median.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Numbers of flows to measure; by default 1, 1000, 65536, 1048576, and for IPv4 4194304.
    #[arg(long, value_delimiter = ',')]
    flows: Vec<u64>,
    /// Only these parts, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only the curve of overflow against load, which needs no privilege.
    #[arg(long, conflicts_with = "only")]
    curve: bool,
    /// Only live frames on a virtual cable.
    #[arg(long, conflicts_with_all = ["only", "curve"])]
    live: bool,
    /// The agent of another build, an executable, measured in the same rounds.
    #[arg(long, value_name = "AGENT")]
    beside: Option<PathBuf>,
    /// A table for people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Where the picture goes that is drawn when IPv4 was measured with three numbers of flows or more.
    #[arg(long, value_name = "FILE", default_value = "docs/bench.svg")]
    plot: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Every program on IPv4 and TCP, by number of flows.
    Ipv4,
    /// Every program on IPv6 and TCP, by number of flows.
    Ipv6,
    /// The real program on other kinds of packets: UDP, VLAN, MPLS, GTP-U.
    Kinds,
    /// The real program under policies of all kinds.
    Policies,
    /// Instructions, branches and lines of memory of a packet, counted by an interpreter.
    Executed,
    /// Every packet a new flow.
    NewFlows,
    /// A table without room.
    FullTable,
    /// One flow on two CPUs.
    TwoCpus,
    /// Taking records out.
    Drain,
    /// Memory of the tables.
    Tables,
    /// Overflow against load, computed.
    Curve,
    /// Live frames on a virtual cable.
    Live,
    /// The whole agent with each sink.
    EndToEnd,
    /// Each sink, without an agent.
    Sinks,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

const FULL: Effort = Effort {
    runs: 7,
    packets: 1 << 20,
    period: SCHEDULE_ENTRIES,
    table_flows: 1 << 20,
    full_table_flows: 1 << 16,
    live_packets: 1 << 19,
    with_agents: true,
};
const QUICK: Effort = Effort {
    runs: 1,
    packets: 1 << 16,
    period: 1 << 16,
    table_flows: 1 << 13,
    full_table_flows: 1 << 12,
    live_packets: 1 << 16,
    with_agents: false,
};
/// Numbers of flows at which every program is measured; the last, which takes some 7 GiB, for IPv4 only.
const FLOWS: [u64; 5] = [1, 1000, 65_536, 1_048_576, 4_194_304];
/// Numbers of flows at which other kinds of packets are measured, if they are at all.
const KINDS_FLOWS: [u64; 3] = [1000, 65_536, 1_048_576];
/// Numbers of flows at which policies are measured.
const POLICIES_FLOWS: [u64; 3] = [1, 1000, 65_536];
/// The one number of flows of which some come more often than others.
const ZIPF_FLOWS: u64 = 1_048_576;
const LIVE_FLOWS: [u64; 4] = [1, 1000, 65_536, 1_048_576];
/// The number of flows at which policies are measured on IPv6.
const POLICIES_FLOWS_IPV6: u64 = 1_048_576;
/// Numbers of flows for which tables are made whose memory is compared.
const TABLES_FLOWS: [u32; 2] = [65_536, 1_048_576];
/// Records in an interval with which the whole agent is measured.
const END_TO_END_RECORDS: [u32; 3] = [100_000, 1_000_000, 4_000_000];
/// Those with which IPv6 is measured, and those with which another build is.
const IPV6_RECORDS: u32 = 4_000_000;
const BESIDE_RECORDS: u32 = 1_000_000;
/// Records of a batch for a sink.
const SINKS_RECORDS: usize = 1_000_000;
/// Time between the drains of the whole agent.
const END_TO_END_INTERVAL: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = if arguments.quick { QUICK } else { Effort { runs: arguments.runs.max(1), ..FULL } };
    let parts = match () {
        () if arguments.curve => vec![Part::Curve],
        () if arguments.live => vec![Part::Live],
        () if arguments.only.is_empty() => Part::value_variants().to_vec(),
        () => arguments.only.clone(),
    };
    let beside = arguments.beside.as_ref().map(fs::canonicalize).transpose().context("--beside")?;
    let mut bench = Bench {
        effort,
        flows: arguments.flows.clone(),
        is_quick: arguments.quick,
        beside,
        report: Report::new(effort, pin()?),
    };
    if parts != [Part::Curve] {
        bench.report.note_programs(bench.beside.as_deref())?;
    }
    for part in parts {
        bench.measure(part)?;
    }
    let mut report = bench.report;
    if !arguments.quick {
        report.targets = targets::judge(&report);
        if plot::is_worth(&report) {
            plot::draw(&report, &arguments.plot)
                .with_context(|| format!("cannot draw {}", arguments.plot.display()))?;
        }
    }
    match arguments.output {
        Output::Table => write!(stdout(), "{report}")?,
        Output::Json => writeln!(stdout(), "{}", serde_json::to_string_pretty(&report)?)?,
    }
    ensure!(report.failed.is_empty(), "{} rows failed", report.failed.len());
    Ok(())
}

struct Bench {
    effort: Effort,
    flows: Vec<u64>,
    is_quick: bool,
    beside: Option<PathBuf>,
    report: Report,
}

impl Bench {
    fn measure(&mut self, part: Part) -> anyhow::Result<()> {
        let effort = self.effort;
        let beside = self.beside.clone();
        let beside = beside.as_deref();
        eprintln!(
            "measuring: {}",
            part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        );
        match part {
            Part::Ipv4 => self.by_flows(Traffic::Ipv4Tcp),
            Part::Ipv6 => self.by_flows(Traffic::Ipv6Tcp),
            Part::Kinds => {
                let is_asked = |flows: &u64| self.is_quick || KINDS_FLOWS.contains(flows);
                for flows in self.flows(&FLOWS).into_iter().filter(is_asked) {
                    let row = kinds::measure(effort, flows, beside);
                    self.report
                        .kinds
                        .extend(self.report.failed.unless(&format!("kinds, {flows} flows"), row));
                }
            }
            Part::Policies => {
                let ipv4 = self.flows(&POLICIES_FLOWS).into_iter().map(|flows| (Traffic::Ipv4Tcp, flows));
                let ipv6 =
                    self.flows(&[POLICIES_FLOWS_IPV6]).into_iter().map(|flows| (Traffic::Ipv6Tcp, flows));
                for (traffic, flows) in ipv4.chain(ipv6) {
                    let what = format!("policies, {}, {flows} flows", traffic.name());
                    eprintln!("  {what}");
                    let row = policies::measure(effort, traffic, flows, beside);
                    self.report.policies.extend(self.report.failed.unless(&what, row));
                }
            }
            Part::Executed => match executed::measure(self.report.cpu_number) {
                Ok(rows) => self.report.executed = rows,
                Err(error) if self.is_quick => return Err(error),
                // The kernel may hide the names of its functions, or list what the interpreter does not know yet.
                Err(error) => self.report.left_out.push(format!("what is executed: {error:#}")),
            },
            Part::NewFlows => {
                let rows = self.report.failed.unless("new flows", new_flows::measure(effort, beside));
                self.report.new_flows = rows.unwrap_or_default();
            }
            Part::FullTable => {
                let rows = self.report.failed.unless("a full table", full_table::measure(effort, beside));
                self.report.full_table = rows.unwrap_or_default();
            }
            Part::TwoCpus => {
                self.report.two_cpus = two_cpus::measure(effort)?;
                if self.report.two_cpus.is_empty() {
                    self.report.left_out.push("two CPUs: this process may use but one".to_owned());
                }
            }
            Part::Drain => self.drain()?,
            Part::Tables => {
                for flows in self.numbers(&TABLES_FLOWS)? {
                    let rows = tables::measure(flows, beside);
                    let rows = self.report.failed.unless(&format!("tables for {flows} flows"), rows);
                    self.report.tables.extend(rows.into_iter().flatten());
                }
            }
            Part::Curve => self.report.curve = curve::measure(curve::FLOWS),
            Part::EndToEnd => {
                let interval = if self.is_quick { Duration::from_millis(500) } else { END_TO_END_INTERVAL };
                for case in self.end_to_end_cases()? {
                    let Case { kind, traffic, records, .. } = &case;
                    let what = format!("{}, {}, {records} records", kind.name(), traffic.name());
                    eprintln!("  {what}");
                    let row = end_to_end::measure(&case, interval);
                    self.report.end_to_end.extend(self.report.failed.unless(&what, row));
                }
            }
            Part::Sinks => {
                let records = if self.is_quick { 8192 } else { SINKS_RECORDS };
                for kind in sinks::Kind::ALL {
                    for mix in Mix::ALL {
                        match sinks::measure(effort.runs, kind, mix, records) {
                            Ok(row) => self.report.sinks.push(row),
                            // Brokers are installed for tests.
                            Err(error) if kind.is_kafka() => {
                                self.report.left_out.push(format!("{}: {error:#}", kind.name()));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
            Part::Live => {
                for flows in self.flows(&LIVE_FLOWS) {
                    let what = format!("live frames, {flows} flows");
                    eprintln!("  {what}");
                    let row = live::measure(effort, flows, beside);
                    self.report.live.extend(self.report.failed.unless(&what, row));
                }
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        let cpu = self.report.cpu_number;
        for spreading in drain::Spreading::ALL {
            if allowed_cpus()?.len() < 2 && spreading != drain::Spreading::OneCpu {
                self.report.left_out.push("a drain of two CPUs: this process may use but one".to_owned());
                break;
            }
            for records in if self.is_quick { vec![8192] } else { vec![65_536, 1 << 20] } {
                let Effort { runs, table_flows, .. } = self.effort;
                let row = drain::measure(runs, spreading, records, table_flows, cpu);
                let what = format!("drain, {}, {records} records", spreading.name());
                self.report.per_record.extend(self.report.failed.unless(&what, row));
            }
        }
        Ok(())
    }

    /// Every sink with IPv4; of IPv6 and of the other build only what a target is set for.
    fn end_to_end_cases(&self) -> anyhow::Result<Vec<Case>> {
        let mut cases = Vec::new();
        let asked: Vec<u32> = self.numbers(&END_TO_END_RECORDS)?;
        let mut add = |kind, traffic, records, beside| cases.push(Case { kind, traffic, records, beside });
        for kind in end_to_end::Kind::ALL {
            asked.iter().for_each(|records| add(kind, Traffic::Ipv4Tcp, *records, None));
        }
        for records in asked {
            let is = |target| self.is_quick || records == target;
            if is(IPV6_RECORDS) {
                add(end_to_end::Kind::IpfixUdp, Traffic::Ipv6Tcp, records, None);
            }
            if let Some(beside) = self.beside.clone().filter(|_| is(BESIDE_RECORDS)) {
                add(end_to_end::Kind::IpfixUdp, Traffic::Ipv4Tcp, records, Some(beside));
            }
        }
        Ok(cases)
    }

    /// The numbers of flows that were asked for, or else the default.
    fn flows(&self, default: &[u64]) -> Vec<u64> {
        match &self.flows[..] {
            [] if self.is_quick => vec![1000],
            [] => default.to_vec(),
            asked => asked.to_vec(),
        }
    }

    /// The same for numbers that are flows and records at once.
    fn numbers(&self, default: &[u32]) -> anyhow::Result<Vec<u32>> {
        if self.is_quick && self.flows.is_empty() {
            return Ok(vec![8192]);
        }
        let default: Vec<u64> = default.iter().copied().map(u64::from).collect();
        self.flows(&default).into_iter().map(|flows| Ok(u32::try_from(flows)?)).collect()
    }

    /// One kind of packets with every number of flows.
    fn by_flows(&mut self, traffic: Traffic) {
        let default = if traffic.is_ipv6() { &FLOWS[..4] } else { &FLOWS };
        for flows in self.flows(default) {
            if let Err(reason) = memory::is_enough_for(flows, self.beside.is_some()) {
                self.report.left_out.push(format!("{}, {flows} flows: {reason}", traffic.name()));
                continue;
            }
            self.row(traffic, Popularity::Uniform, flows);
            if flows == ZIPF_FLOWS || self.is_quick {
                self.row(traffic, Popularity::Zipf, flows);
            }
        }
    }

    fn row(&mut self, traffic: Traffic, popularity: Popularity, flows: u64) {
        let what = format!("{}, {flows} flows, {popularity}", traffic.name());
        eprintln!("  {what}");
        let row = packets::measure(self.effort, traffic, popularity, flows, self.beside.as_deref());
        self.report.per_packet.extend(self.report.failed.unless(&what, row));
    }
}
