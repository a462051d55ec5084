//! What programs execute for a packet: instructions, branches, lines of memory. Counted, not measured.
//!
//! The machine interprets the program as the kernel lists it, after its verifier removed dead code and inlined
//! look-ups, with copies of its maps in its own memory. Its result is written into the kernel's maps, and
//! the account of them must be that of the kernel's own run of the same packets.

mod instruction;
mod kernel;
mod machine;
mod maps;
mod memory;

use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::ensure;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::model::Policy;
use minimizer::support::sys::bpf;
use minimizer_common::settings::ACTION_PASS;
use serde::Serialize;

use self::instruction::Instruction;
use self::kernel::Functions;
use self::machine::{Counts, Machine};
use super::contenders::{Contender, Kind, Size, TEST_RUN_IF_INDEX, cpus};
use super::schedule::{Popularity, Schedule};
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Packets that are counted, after as many that bring the flows where these are to be known.
const PACKETS: usize = 4096;
/// Flows that are known: so few that each comes before the count begins.
const FLOWS: u64 = 256;
/// Flows that fill half of every table: as many as packets, so that a table of new flows is half full in the end.
const TABLE_FLOWS: u32 = 4096;

/// What one program executes for packets of one kind.
#[derive(Debug, Serialize)]
pub struct Row {
    /// See [`Kind::name`].
    pub name: &'static str,
    /// The policy of the real program.
    pub policy: Option<&'static str>,
    /// The packets.
    pub traffic: Traffic,
    /// Whether every packet is of another flow, instead of one that is known.
    pub is_new: bool,
    /// Instructions, for a packet on average.
    pub instructions: f64,
    /// Of these, jumps on a condition.
    pub branches: f64,
    /// Of these, calls of functions of the kernel, whose own instructions and lines are not in any figure.
    pub calls: f64,
    /// Different cache lines of maps, without constants.
    pub lines: f64,
    /// Different cache lines of constants.
    pub constant_lines: f64,
    /// Octets of machine code of the whole program.
    pub machine_octets: u32,
}

/// Counts for the real program under two policies, the parser and both programs with the per-CPU hash.
///
/// # Errors
/// What the kernel answers; what the interpreter does not know; an interpreted program that counted other than
/// the kernel's.
pub fn measure(cpu: u32) -> anyhow::Result<Vec<Row>> {
    let functions = Functions::read()?;
    let mut rows = Vec::new();
    for (kind, policy) in [
        (Kind::Minimizer, Some("full-record")),
        (Kind::Minimizer, Some("carrier-default")),
        (Kind::ParseOnly, None),
        (Kind::PerCpuHash, None),
        (Kind::PerCpuHashBurst, None),
    ] {
        for traffic in [Traffic::Ipv4Tcp, Traffic::Ipv6Tcp] {
            for is_new in [false, true] {
                if kind != Kind::ParseOnly || !is_new {
                    rows.push(count(&functions, cpu, kind, policy, traffic, is_new)?);
                }
            }
        }
    }
    Ok(rows)
}

fn count(
    functions: &Functions,
    cpu: u32,
    kind: Kind,
    policy: Option<&'static str>,
    traffic: Traffic,
    is_new: bool,
) -> anyhow::Result<Row> {
    let compiled =
        policy.map(|name| anyhow::Ok(Arc::new(CompiledPolicy::compile(Policy::load(name, &[])?)?)));
    let compiled = compiled.transpose()?;
    let load = || Contender::load(kind, Size { compiled: compiled.as_ref(), ..Size::of(TABLE_FLOWS) });
    let (schedule, before) = if is_new {
        (Schedule::each_once(0, PACKETS as u64), 0)
    } else {
        (Schedule::drawn(FLOWS, Popularity::Uniform, u32::try_from(2 * PACKETS)?), PACKETS)
    };
    let entries = &schedule.entries[..before + PACKETS];

    let mut contender = load()?;
    Wrapper::load(traffic, &schedule)?.send(&mut contender, u32::try_from(entries.len())?)?;
    let by_kernel = contender.account()?;

    let mut contender = load()?;
    let program = Instruction::all(&bpf::instructions(contender.program.as_fd())?);
    let mut machine = Machine::new(program, functions, TEST_RUN_IF_INDEX, cpu, cpus()?)?;
    let mut sum = Counts::default();
    for (number, entry) in entries.iter().enumerate() {
        let (verdict, counts) = machine.run(&traffic.varied(*entry))?;
        ensure!(verdict == u64::from(ACTION_PASS), "{} answered {verdict}", kind.name());
        if number >= before {
            sum.add(counts);
        }
    }
    machine.write_back()?;
    let by_machine = contender.account()?;
    ensure!(
        by_kernel == by_machine && by_kernel.is_some_and(|all| all.packets == entries.len() as u64),
        "{}, {}: the kernel counted {by_kernel:?}, the interpreter {by_machine:?}",
        kind.name(),
        traffic.name()
    );

    let mean = |sum: u64| sum as f64 / PACKETS as f64;
    Ok(Row {
        name: kind.name(),
        policy,
        traffic,
        is_new,
        instructions: mean(sum.instructions),
        branches: mean(sum.branches),
        calls: mean(sum.calls),
        lines: mean(sum.lines),
        constant_lines: mean(sum.constant_lines),
        machine_octets: contender.info.size_jitted(),
    })
}
