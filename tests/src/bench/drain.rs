//! Nanoseconds per record of taking records out of the kernel.

use std::hint::black_box;

use anyhow::ensure;
use bench_ebpf::{Key, PerCpuValue};
use minimizer::drain::{Records, drain};
use minimizer_common::tuple::Slot;
use serde::Serialize;

use super::contenders::{Contenders, Kind, TEST_RUN_IF_INDEX, cpus};
use super::statistics::Spread;
use super::traffic::{Family, Schedule};
use super::{batch, timed};

/// Result for one number of records.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Records that were in the table.
    pub records: u32,
    /// The agent's drain: scanned, turned into records, merged over CPUs, zeroed.
    pub drain_ns: Spread,
    /// Only scanned, copied and zeroed: what stands against the batch call.
    pub copy_ns: Spread,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH` on the per-CPU hash.
    pub batch_ns: Spread,
    /// `copy_ns` as a share of `batch_ns`, run by run.
    pub copy_ratio: Spread,
    /// `drain_ns` as a share of `batch_ns`, run by run.
    pub drain_ratio: Spread,
}

/// Fills the tables with `records` flows and takes them out again, `runs` times each way.
///
/// # Errors
/// What the kernel answers; a way that lost a record.
pub fn measure(runs: usize, records: u32, table_flows: u32) -> anyhow::Result<Row> {
    let mut contenders = Contenders::load(table_flows, None)?;
    contenders.follow(&Schedule::each_once(u64::from(records)))?;
    let ways: [Way; 3] = [drain_real, copy_real, take_batches];
    let mut nanoseconds = [const { Vec::new() }; 3];
    for _ in 0..runs {
        for (way, series) in ways.iter().zip(&mut nanoseconds) {
            let (taken, time_ns) = way(&mut contenders, records)?;
            ensure!(taken == records as usize, "{taken} of {records} records came out");
            series.push(time_ns / f64::from(records));
        }
    }
    let [drain, copy, batch] = &nanoseconds;
    let ratio = |ours: &[f64]| Spread::of(ours.iter().zip(batch).map(|(ours, batch)| ours / batch));
    Ok(Row {
        records,
        drain_ns: Spread::of(drain.iter().copied()),
        copy_ns: Spread::of(copy.iter().copied()),
        batch_ns: Spread::of(batch.iter().copied()),
        copy_ratio: ratio(copy),
        drain_ratio: ratio(drain),
    })
}

/// Fills a table, empties it, and returns the number of records and the time to empty it.
type Way = fn(&mut Contenders, u32) -> anyhow::Result<(usize, f64)>;

fn drain_real(contenders: &mut Contenders, records: u32) -> anyhow::Result<(usize, f64)> {
    contenders.send(Kind::Minimizer, Family::Ipv4, records)?;
    let mut quiet = contenders.real(Kind::Minimizer)?.generations().flip()?;
    let mut taken = Records::new(vec![TEST_RUN_IF_INDEX]);
    let (_, time) = timed(|| Ok(drain(&mut quiet, &mut taken, u64::from)))?;
    Ok((taken.take().len(), time.as_secs_f64() * 1e9))
}

fn copy_real(contenders: &mut Contenders, records: u32) -> anyhow::Result<(usize, f64)> {
    contenders.send(Kind::Minimizer, Family::Ipv4, records)?;
    let mut quiet = contenders.real(Kind::Minimizer)?.generations().flip()?;
    let mut taken = Vec::with_capacity(records as usize);
    let cpus = quiet.shape().cpus;
    let ((), time) = timed(|| {
        for cpu in 0..cpus {
            for slot in quiet.slots(cpu).iter_mut().filter(|slot| slot.packets() != 0) {
                taken.push(*slot);
                *slot = Slot::default();
            }
        }
        Ok(())
    })?;
    // Counters and spill log, which hold next to nothing.
    let mut rest = Records::new(vec![TEST_RUN_IF_INDEX]);
    drain(&mut quiet, &mut rest, u64::from);
    Ok((black_box(taken).len() + rest.take().len(), time.as_secs_f64() * 1e9))
}

fn take_batches(contenders: &mut Contenders, records: u32) -> anyhow::Result<(usize, f64)> {
    contenders.send(Kind::PerCpuHash, Family::Ipv4, records)?;
    let value_octets = size_of::<PerCpuValue>() * cpus()?;
    let map = contenders.hash("PER_CPU_FLOWS")?;
    let mut taken = 0;
    let ((), time) = timed(|| {
        batch::take_all(map.fd(), size_of::<Key>(), value_octets, |keys, values| {
            taken += keys.len() / size_of::<Key>();
            black_box(values);
        })
    })?;
    Ok((taken, time.as_secs_f64() * 1e9))
}
