//! Nanoseconds per record of taking records out of the kernel.

use std::hint::black_box;

use anyhow::{Context as _, ensure};
use bench_ebpf::{Key, PerCpuValue};
use minimizer::kernel::program::Program;
use minimizer::records::drain::drain;
use minimizer::records::packed::{Packing, SlotDecoder};
use minimizer_common::slot::Line;
use serde::Serialize;

use super::contenders::{Contender, Kind, Size, TEST_RUN_IF_INDEX, cpus};
use super::schedule::Schedule;
use super::statistics::{Spread, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;
use super::{batch, timed};

/// Result for one number of records.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Records that were in the table.
    pub records: u32,
    /// The agent's drain: scanned, packed, merged over CPUs, zeroed.
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
    let size = Size::of(table_flows);
    let mut wrapper = Wrapper::load(Traffic::Ipv4Tcp, &Schedule::each_once(0, u64::from(records)))?;
    let mut real = Contender::load(Kind::Minimizer, size)?;
    let mut hash = Contender::load(Kind::PerCpuHash, size)?;
    let mut nanoseconds = [const { Vec::new() }; 3];
    for _ in 0..runs {
        for ((way, is_real), series) in WAYS.into_iter().zip(&mut nanoseconds) {
            let contender = if is_real { &mut real } else { &mut hash };
            wrapper.send(contender, records)?;
            let (taken, time_ns) = way(contender, records)?;
            ensure!(taken == records as usize, "{taken} of {records} records came out");
            series.push(time_ns / f64::from(records));
        }
    }
    let [drain, copy, batch] = &nanoseconds;
    Ok(Row {
        records,
        drain_ns: Spread::of(drain.iter().copied()),
        copy_ns: Spread::of(copy.iter().copied()),
        batch_ns: Spread::of(batch.iter().copied()),
        copy_ratio: ratio(copy, batch),
        drain_ratio: ratio(drain, batch),
    })
}

/// Empties a table, and returns the number of records and the time.
type Way = fn(&mut Contender, u32) -> anyhow::Result<(usize, f64)>;

/// The ways, and whether each is one of the real program.
const WAYS: [(Way, bool); 3] = [(drain_real, true), (copy_real, true), (take_batches, false)];

fn drain_real(contender: &mut Contender, _: u32) -> anyhow::Result<(usize, f64)> {
    let program = contender.real()?;
    let decoder = decoder(program);
    let mut quiet = program.generations().flip()?;
    let mut packing = Packing::default();
    let ((records, _), time) = timed(|| Ok(drain(&mut quiet, &mut packing, decoder)))?;
    Ok((records.len(), time.as_secs_f64() * 1e9))
}

fn copy_real(contender: &mut Contender, records: u32) -> anyhow::Result<(usize, f64)> {
    let program = contender.real()?;
    let decoder = decoder(program);
    let mut quiet = program.generations().flip()?;
    let mut taken = Vec::with_capacity(records as usize);
    let cpus = quiet.shape().cpus;
    let ((), time) = timed(|| {
        for cpu in 0..cpus {
            quiet.settle(cpu);
            let run = quiet.runs().nth(cpu as usize).context("a CPU has no run")?;
            for line in run.groups.as_flattened_mut() {
                let used = line.0.into_iter().filter(|half| !half.is_free()).count();
                if used > 0 {
                    taken.extend(line.0.into_iter().filter(|half| !half.is_free()));
                    *line = Line::default();
                }
            }
        }
        Ok(())
    })?;
    // Counters and spill log, which hold next to nothing.
    let (rest, _) = drain(&mut quiet, &mut Packing::default(), decoder);
    Ok((black_box(taken).len() + rest.len(), time.as_secs_f64() * 1e9))
}

fn decoder(program: &Program) -> SlotDecoder {
    SlotDecoder::new(program.compiled(), program.time(), &[TEST_RUN_IF_INDEX])
}

fn take_batches(contender: &mut Contender, _: u32) -> anyhow::Result<(usize, f64)> {
    let value_octets = size_of::<PerCpuValue>() * cpus()?;
    let map = contender.hash()?;
    let mut taken = 0;
    let ((), time) = timed(|| {
        batch::take_all(map.fd(), size_of::<Key>(), value_octets, |keys, values| {
            taken += keys.len() / size_of::<Key>();
            black_box(values);
        })
    })?;
    Ok((taken, time.as_secs_f64() * 1e9))
}
