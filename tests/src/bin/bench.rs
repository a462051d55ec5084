//! `cargo xtask bench`: what a packet costs in the kernel, beside what others do.

use std::fs;
use std::io::{Write as _, stdout};
use std::path::PathBuf;

use anyhow::Context as _;
use bench_ebpf::SCHEDULE_ENTRIES;
use clap::{Parser, ValueEnum};
use tests::bench::contenders::Contenders;
use tests::bench::packets::Effort;
use tests::bench::report::Report;
use tests::bench::traffic::Family;
use tests::bench::{drain, packets, pin};

/// Measures the kernel program on this machine's kernel, beside usual flow tables and the floor.
#[derive(Parser)]
struct Arguments {
    /// Check in a few seconds that every program counts every packet; the times mean nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds behind each median.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Numbers of flows to measure.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 65_536, 1_048_576])]
    flows: Vec<u64>,
    /// Only packets of this IP version, and no drain.
    #[arg(long)]
    only: Option<Version>,
    /// The real program's object file of another build, measured in the same rounds.
    #[arg(long, value_name = "OBJECT")]
    beside: Option<PathBuf>,
    /// A table for people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

const FULL: Effort = Effort { runs: 7, packets: 1 << 20, period: SCHEDULE_ENTRIES, table_flows: 1 << 20 };
const QUICK: Effort = Effort { runs: 1, packets: 1 << 16, period: 1 << 16, table_flows: 1 << 13 };

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (effort, flows, records) = if arguments.quick {
        (QUICK, vec![1000], vec![8192])
    } else {
        (Effort { runs: arguments.runs.max(1), ..FULL }, arguments.flows, vec![65_536, 1 << 20])
    };
    let families = match arguments.only {
        None => vec![Family::Ipv4, Family::Ipv6],
        Some(Version::Ipv4) => vec![Family::Ipv4],
        Some(Version::Ipv6) => vec![Family::Ipv6],
    };
    let beside = arguments.beside.as_ref().map(fs::read).transpose().context("--beside")?;
    let beside = beside.as_deref();

    let cpu = pin()?;
    let mut report = Report::new(effort, cpu, &Contenders::load(effort.table_flows, beside)?);
    for family in families {
        for flows in &flows {
            eprintln!("measuring {family:?}, {flows} flows");
            report.per_packet.push(packets::measure(effort, family, *flows, beside)?);
        }
    }
    if arguments.only.is_none() {
        for records in records {
            eprintln!("measuring the drain of {records} records");
            report.per_record.push(drain::measure(effort.runs, records, effort.table_flows)?);
        }
    }
    match arguments.output {
        Output::Table => write!(stdout(), "{report}")?,
        Output::Json => writeln!(stdout(), "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(())
}
