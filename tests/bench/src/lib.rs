//! What a packet costs in the kernel, measured in the kernel.
//!
//! A [`wrapper`] writes the next flow of a [`schedule`] into a packet of some kind of [`traffic`] and
//! tail-calls the program under test, so that one `BPF_PROG_TEST_RUN` of a million repetitions sees a
//! million packets of many flows without a system call between them. The same wrapper around an empty
//! program is the base that is subtracted. [`contenders`] are the programs; [`rounds`] alternates them
//! so that noise hits all alike; an [`account`] says whether they counted at all.
//!
//! Measured are [`packets`] by number of flows, other [`kinds`] of packets, [`policies`], [`new_flows`], a
//! [`full_table`], [`two_cpus`], the [`drain`], memory of [`tables`], and [`live`] frames on a virtual cable; the
//! [`curve`] of overflow is computed, and what a packet makes programs do is [`executed`] by an interpreter. What
//! another build costs [`beside`] this one is measured in the same rounds. A [`report`] holds all of it, [`targets`]
//! judge it, a [`plot`] shows it.

pub mod account;
pub mod batch;
pub mod beside;
pub mod contenders;
pub mod curve;
pub mod drain;
pub mod end_to_end;
pub mod executed;
pub mod full_table;
pub mod kinds;
pub mod live;
pub mod memory;
pub mod new_flows;
pub mod packets;
pub mod plot;
pub mod policies;
pub mod report;
pub mod rounds;
pub mod schedule;
pub mod sinks;
pub mod statistics;
pub mod tables;
pub mod targets;
mod text;
pub mod traffic;
pub mod two_cpus;
pub mod wrapper;

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Pins this thread to the last CPU it may use, which takes fewer interrupts than the first, and
/// returns its number.
///
/// # Errors
/// When the kernel refuses.
pub fn pin() -> anyhow::Result<u32> {
    let cpu = allowed_cpus()?.last().copied();
    let cpu = cpu.ok_or_else(|| anyhow::anyhow!("this thread may run on no CPU"))?;
    pin_to(cpu)?;
    Ok(cpu)
}

/// Pins this thread to one CPU.
///
/// # Errors
/// When the kernel refuses.
pub fn pin_to(cpu: u32) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(usize::try_from(cpu)?);
    Ok(sched_setaffinity(None, &only)?)
}

/// CPUs that this process may use: its main thread's when it started.
///
/// # Errors
/// When the kernel does not tell.
pub fn allowed_cpus() -> anyhow::Result<Vec<u32>> {
    static AT_START: std::sync::OnceLock<Vec<u32>> = std::sync::OnceLock::new();
    if let Some(cpus) = AT_START.get() {
        return Ok(cpus.clone());
    }
    let allowed = sched_getaffinity(None)?;
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).map(u32::try_from);
    let cpus = cpus.collect::<Result<Vec<_>, _>>()?;
    Ok(AT_START.get_or_init(|| cpus).clone())
}

/// Does something while this thread may use every CPU, as a process that is started in it then may, too.
///
/// # Errors
/// Those of `work`; when the kernel refuses.
pub fn on_any_cpu<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let pinned = sched_getaffinity(None)?;
    let mut every = CpuSet::new();
    for cpu in allowed_cpus()? {
        every.set(usize::try_from(cpu)?);
    }
    sched_setaffinity(None, &every)?;
    let result = work();
    sched_setaffinity(None, &pinned)?;
    result
}

/// Runs `work` and returns what it returned and the CPU time that this thread spent on it: the
/// neighbours' share of the CPU is not in it.
///
/// # Errors
/// Those of `work`.
pub fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
    let before = clock_gettime(ClockId::ThreadCPUTime);
    let result = work()?;
    let after = clock_gettime(ClockId::ThreadCPUTime);
    Ok((result, Duration::try_from(after - before)?))
}
