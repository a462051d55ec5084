//! What the bench prints: a table for people, JSON for machines, both with what was measured on what.

use std::fmt::{self, Display, Formatter};
use std::fs;

use serde::Serialize;

use super::contenders::{Contenders, Kind};
use super::packets::Effort;
use super::statistics::Spread;
use super::{drain, packets};

/// Everything one run of the bench found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Kernel release.
    pub kernel: String,
    /// Model name of the CPU.
    pub cpu: String,
    /// The CPU that everything ran on.
    pub cpu_number: u32,
    /// Rounds behind each median.
    pub runs: usize,
    /// Packets per program and round.
    pub packets: u32,
    /// Flows that fill half of every table.
    pub table_flows: u32,
    /// The programs.
    pub programs: Vec<ProgramSize>,
    /// Nanoseconds per packet.
    pub per_packet: Vec<packets::Row>,
    /// Nanoseconds per record.
    pub per_record: Vec<drain::Row>,
}

/// How large a program is.
#[derive(Debug, Serialize)]
pub struct ProgramSize {
    /// See [`Kind::name`].
    pub name: &'static str,
    /// Instructions that the verifier walked.
    pub verified_instructions: Option<u32>,
    /// Octets of machine code.
    pub jited_octets: u32,
}

impl Report {
    /// A report without rows, with the programs that are loaded.
    #[must_use]
    pub fn new(effort: Effort, cpu_number: u32, contenders: &Contenders) -> Self {
        let size = |contender: &super::contenders::Contender| ProgramSize {
            name: contender.kind.name(),
            verified_instructions: contender.info.verified_instruction_count(),
            jited_octets: contender.info.size_jitted(),
        };
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpu: cpu_model().unwrap_or_else(|| "unknown".to_owned()),
            cpu_number,
            runs: effort.runs,
            packets: effort.packets,
            table_flows: effort.table_flows,
            programs: contenders.all.iter().map(size).collect(),
            per_packet: Vec::new(),
            per_record: Vec::new(),
        }
    }
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "Kernel {}, {}, CPU {}.", self.kernel, self.cpu, self.cpu_number)?;
        writeln!(
            out,
            "60-byte IPv4 and 74-byte IPv6 frames, TCP, no VLAN; flows drawn uniformly; tables of {} slots. \
             Median (range) of {} runs of {} packets, wrapper and empty program subtracted.",
            u64::from(self.table_flows.next_power_of_two()) * 2,
            self.runs,
            self.packets,
        )?;
        for program in &self.programs {
            let verified = program.verified_instructions.unwrap_or(0);
            writeln!(
                out,
                "  {:<13} {verified:>6} instructions verified, {:>6} bytes of machine code",
                program.name, program.jited_octets
            )?;
        }
        for row in &self.per_packet {
            writeln!(out)?;
            write_row(out, row)?;
        }
        if !self.per_record.is_empty() {
            writeln!(out, "\nDrain, ns per record")?;
            write!(out, "  {:>9}  {:>24}  {:>24}", "records", "agent's drain", "copy and clear")?;
            writeln!(out, "  {:>24}  drain/batch  copy/batch", "lookup_and_delete_batch")?;
        }
        for row in &self.per_record {
            write!(out, "  {:>9}", row.records)?;
            for spread in [row.drain_ns, row.copy_ns, row.batch_ns] {
                write!(out, "  {:>24}", nanoseconds(spread))?;
            }
            writeln!(out, "  {:>11.3}  {:>10.3}", row.drain_ratio.median, row.copy_ratio.median)?;
        }
        Ok(())
    }
}

fn write_row(out: &mut Formatter<'_>, row: &packets::Row) -> fmt::Result {
    writeln!(out, "{:?}, {} flows; ns per packet (base {:.1})", row.family, row.flows, row.base_ns.median)?;
    writeln!(out, "  {:<13} {:>26}   minimizer is", "program", "median (range)")?;
    for figure in &row.programs {
        write!(out, "  {:<13} {:>26}", figure.name, nanoseconds(figure.ns))?;
        match figure.minimizer_ratio {
            Some(ratio) => {
                writeln!(out, "   {:.2}× ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)?;
            }
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn nanoseconds(spread: Spread) -> String {
    format!("{:.1} ({:.1}–{:.1})", spread.median, spread.min, spread.max)
}

/// What the real program may cost as a share of the per-CPU hash, at every number of flows.
pub const TARGET: f64 = 0.35;

impl Report {
    /// Rows in which the real program costs more than [`TARGET`] of the per-CPU hash.
    pub fn missed(&self) -> impl Iterator<Item = &packets::Row> {
        self.per_packet.iter().filter(|row| {
            let ratio = row.figure(Kind::PerCpuHash).and_then(|figure| figure.minimizer_ratio);
            ratio.is_some_and(|ratio| ratio.median > TARGET)
        })
    }
}
