//! What a packet costs in the kernel, measured in the kernel.
//!
//! A *wrapper* writes the next flow of a [`traffic`] schedule into the packet and tail-calls the
//! program under test, so that one `BPF_PROG_TEST_RUN` of a million repetitions sees a million
//! packets of many flows without a system call between them. The same wrapper around an empty
//! program is the base that is subtracted. [`contenders`] are the programs, [`packets`] alternates
//! them within each round so that noise hits all alike, [`drain`] measures how records leave.

pub mod batch;
pub mod contenders;
pub mod drain;
pub mod packets;
pub mod report;
pub mod statistics;
pub mod traffic;

use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Pins this thread to the last CPU it may use, which takes fewer interrupts than the first, and
/// returns its number.
///
/// # Errors
/// When the kernel refuses.
pub fn pin() -> anyhow::Result<u32> {
    let allowed = sched_getaffinity(None)?;
    let cpu = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let cpu = cpu.ok_or_else(|| anyhow::anyhow!("this thread may run on no CPU"))?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    Ok(u32::try_from(cpu)?)
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
