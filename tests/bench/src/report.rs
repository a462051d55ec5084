//! Everything that one run of the bench found, on what machine and with what effort.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::contenders::{Contender, Size};
use super::rounds::Effort;
use super::targets::Target;
use super::traffic::Traffic;
use super::{
    curve, drain, end_to_end, executed, full_table, kinds, live, new_flows, packets, policies, sinks, tables,
    two_cpus,
};

/// The findings. What was not measured is empty.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Kernel release.
    pub kernel: String,
    /// Model name of the CPU.
    pub cpu: String,
    /// The CPU that everything ran on that needs but one.
    pub cpu_number: u32,
    /// Whether the kernel reads a clock before and after every run of a program (`kernel.bpf_stats_enabled`), which is
    /// part of the base, and between the packets.
    pub is_timed_by_kernel: bool,
    /// How long was measured.
    pub effort: Effort,
    /// The programs.
    pub programs: Vec<ProgramSize>,
    /// Nanoseconds per packet, by program.
    pub per_packet: Vec<packets::Row>,
    /// Nanoseconds per packet, by kind of packet.
    pub kinds: Vec<kinds::Row>,
    /// Nanoseconds per packet, by policy.
    pub policies: Vec<policies::Row>,
    /// What is executed for a packet.
    pub executed: Vec<executed::Row>,
    /// New flows.
    pub new_flows: Vec<new_flows::Row>,
    /// A table without room.
    pub full_table: Vec<full_table::Row>,
    /// One flow on two CPUs.
    pub two_cpus: Vec<two_cpus::Row>,
    /// Nanoseconds per record.
    pub per_record: Vec<drain::Row>,
    /// Memory of the tables.
    pub tables: Vec<tables::Row>,
    /// Overflow by load.
    pub curve: Vec<curve::Row>,
    /// Live frames on a cable.
    pub live: Vec<live::Row>,
    /// The whole agent, by sink and number of records.
    pub end_to_end: Vec<end_to_end::Row>,
    /// Sinks alone, by what the records are of.
    pub sinks: Vec<sinks::Row>,
    /// What was not measured that was asked for, and why.
    pub left_out: Vec<String>,
    /// Rows that failed: programs that miscounted, and what the kernel refused.
    pub failed: Failed,
    /// What was aimed at, judged by all of this.
    pub targets: Vec<Target>,
}

/// Rows that failed, each with its error. The others are measured all the same.
#[derive(Debug, Default, Serialize)]
pub struct Failed(Vec<String>);

impl Failed {
    /// The row, unless it failed.
    pub fn unless<T>(&mut self, what: &str, row: anyhow::Result<T>) -> Option<T> {
        row.map_err(|error| self.0.push(format!("{what}: {error:#}"))).ok()
    }

    /// Whether none did.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many did.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// What failed, and why.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }
}

/// How large a program is.
#[derive(Debug, Serialize)]
pub struct ProgramSize {
    /// See [`super::contenders::Kind::name`].
    pub name: &'static str,
    /// Instructions that the verifier walked.
    pub verified_instructions: Option<u32>,
    /// Octets of machine code.
    pub jited_octets: u32,
}

impl Report {
    /// A report without findings.
    #[must_use]
    pub fn new(effort: Effort, cpu_number: u32) -> Self {
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpu: cpu_model().unwrap_or_else(|| "unknown".to_owned()),
            cpu_number,
            is_timed_by_kernel: fs::read("/proc/sys/kernel/bpf_stats_enabled")
                .is_ok_and(|switch| switch[..] != *b"0\n"),
            effort,
            programs: Vec::new(),
            per_packet: Vec::new(),
            kinds: Vec::new(),
            policies: Vec::new(),
            executed: Vec::new(),
            new_flows: Vec::new(),
            full_table: Vec::new(),
            two_cpus: Vec::new(),
            per_record: Vec::new(),
            tables: Vec::new(),
            curve: Vec::new(),
            live: Vec::new(),
            end_to_end: Vec::new(),
            sinks: Vec::new(),
            left_out: Vec::new(),
            failed: Failed::default(),
            targets: Vec::new(),
        }
    }

    /// Loads every program once, to note its size.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn note_programs(&mut self, beside: Option<&Path>) -> anyhow::Result<()> {
        let size = Size { beside, ..Size::of(1 << 10) };
        for kind in packets::kinds(Traffic::Ipv4Tcp, beside) {
            let contender = Contender::load(kind, size)?;
            self.programs.push(ProgramSize {
                name: kind.name(),
                verified_instructions: contender.info.verified_instruction_count(),
                jited_octets: contender.info.size_jitted(),
            });
            contender.end()?;
        }
        Ok(())
    }
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
