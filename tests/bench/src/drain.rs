//! Nanoseconds per record of taking records out of the kernel.

use std::hint::black_box;
use std::time::Duration;

use anyhow::ensure;
use bench_ebpf::{Key, PerCpuValue};
use minimizer::kernel::program::Program;
use minimizer::records::drain::drain;
use minimizer::records::packed::{Packing, SlotDecoder};
use minimizer_common::slot::{Line, Narrow};
use serde::Serialize;

use super::contenders::{Contender, Kind, Size, TEST_RUN_IF_INDEX, cpus};
use super::schedule::Schedule;
use super::statistics::{Spread, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;
use super::{allowed_cpus, batch, pin_to, timed};

/// On which CPUs the packets of a flow come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spreading {
    /// One packet of each flow, all on one CPU.
    OneCpu,
    /// One packet of each flow, half of the flows on each of two CPUs: as receive queues spread connections.
    HalfOfFlows,
    /// Two packets of each flow, one on each of two CPUs, in different orders: every record is put together from both
    /// tables.
    EveryFlow,
}

impl Spreading {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OneCpu, Self::HalfOfFlows, Self::EveryFlow];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneCpu => "one CPU",
            Self::HalfOfFlows => "2 CPUs, half each",
            Self::EveryFlow => "2 CPUs, all on both",
        }
    }
}

/// Result for one number of records.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Records that were in the table.
    pub records: u32,
    /// Where their packets came.
    pub spreading: Spreading,
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

/// Fills the tables with `records` flows and takes them out again, `runs` times each way, on `cpu`, to which this thread is
/// pinned.
///
/// # Errors
/// What the kernel answers; a way that lost a record.
pub fn measure(
    runs: usize,
    spreading: Spreading,
    records: u32,
    table_flows: u32,
    cpu: u32,
) -> anyhow::Result<Row> {
    let size = Size::of(table_flows);
    let mut filling = Filling::new(spreading, records, cpu)?;
    let mut real = Contender::load(Kind::Minimizer, size)?;
    let mut hash = Contender::load(Kind::PerCpuHash, size)?;
    let mut nanoseconds = [const { Vec::new() }; 3];
    for _ in 0..runs {
        for ((way, is_real), series) in WAYS.into_iter().zip(&mut nanoseconds) {
            let contender = if is_real { &mut real } else { &mut hash };
            filling.fill(contender)?;
            let time_ns = way(contender, filling.filled())?;
            series.push(time_ns / f64::from(records));
        }
    }
    let [drain, copy, batch] = &nanoseconds;
    Ok(Row {
        records,
        spreading,
        drain_ns: Spread::of(drain.iter().copied()),
        copy_ns: Spread::of(copy.iter().copied()),
        batch_ns: Spread::of(batch.iter().copied()),
        copy_ratio: ratio(copy, batch),
        drain_ratio: ratio(drain, batch),
    })
}

/// How tables are filled.
struct Filling {
    spreading: Spreading,
    records: u32,
    wrapper: Wrapper,
    /// The same flows in another order.
    again: Wrapper,
    /// The CPU that drains, and another.
    cpus: [u32; 2],
}

impl Filling {
    fn new(spreading: Spreading, records: u32, cpu: u32) -> anyhow::Result<Self> {
        let schedule = Schedule::each_once(0, u64::from(records));
        let other = allowed_cpus()?.into_iter().find(|other| *other != cpu);
        Ok(Self {
            spreading,
            records,
            wrapper: Wrapper::load(Traffic::Ipv4Tcp, &schedule)?,
            again: Wrapper::load(Traffic::Ipv4Tcp, &schedule.reordered())?,
            cpus: [cpu, other.unwrap_or(cpu)],
        })
    }

    /// What is in a table after [`Self::fill`].
    fn filled(&self) -> Filled {
        let (records, is_double) = (u64::from(self.records), self.spreading == Spreading::EveryFlow);
        Filled { records, packets: records * if is_double { 2 } else { 1 } }
    }

    fn fill(&mut self, contender: &mut Contender) -> anyhow::Result<Duration> {
        let Self { records, wrapper, again, cpus: [here, other], .. } = self;
        wrapper.seek(0)?;
        match self.spreading {
            Spreading::OneCpu => wrapper.send(contender, *records),
            Spreading::HalfOfFlows => {
                let half = *records / 2;
                wrapper.send(contender, half)?;
                wrapper.seek(u64::from(half))?;
                on(*other, *here, || wrapper.send(contender, *records - half))
            }
            Spreading::EveryFlow => {
                wrapper.send(contender, *records)?;
                again.seek(0)?;
                on(*other, *here, || again.send(contender, *records))
            }
        }
    }
}

/// Does something on another CPU.
fn on<T>(cpu: u32, home: u32, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    pin_to(cpu)?;
    let result = work();
    pin_to(home)?;
    result
}

/// What is in a table.
#[derive(Clone, Copy)]
struct Filled {
    records: u64,
    packets: u64,
}

/// Empties a table, in which this must have been, and returns the time.
type Way = fn(&mut Contender, Filled) -> anyhow::Result<f64>;

/// The ways, and whether each is one of the real program.
const WAYS: [(Way, bool); 3] = [(drain_real, true), (copy_real, true), (take_batches, false)];

fn drain_real(contender: &mut Contender, filled: Filled) -> anyhow::Result<f64> {
    let program = contender.real()?;
    let decoder = decoder(program);
    let mut quiet = program.generations().flip()?;
    let mut packing = Packing::default();
    let ((records, totals), time) = timed(|| Ok(drain(&mut quiet, &mut packing, decoder)))?;
    let taken = (records.len() as u64, totals.recorded.packets);
    ensure!(taken == (filled.records, filled.packets), "{taken:?} records and packets were drained");
    Ok(time.as_secs_f64() * 1e9)
}

fn copy_real(contender: &mut Contender, filled: Filled) -> anyhow::Result<f64> {
    let program = contender.real()?;
    let decoder = decoder(program);
    let mut quiet = program.generations().flip()?;
    let cpus = quiet.shape().cpus;
    let mut taken = Vec::with_capacity(usize::try_from(filled.packets)?);
    let ((), time) = timed(|| {
        for cpu in 0..cpus {
            quiet.settle(cpu);
            for line in quiet.lines(cpu).iter_mut() {
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
    let (_, rest) = drain(&mut quiet, &mut Packing::default(), decoder);
    let copied: u64 = black_box(taken).iter().map(|slot| Narrow::counted(slot).packets).sum();
    let packets = copied + rest.recorded.packets;
    ensure!(packets == filled.packets, "{packets} of {} packets were copied", filled.packets);
    Ok(time.as_secs_f64() * 1e9)
}

fn decoder(program: &Program) -> SlotDecoder {
    SlotDecoder::new(program.compiled(), program.time(), &[TEST_RUN_IF_INDEX])
}

fn take_batches(contender: &mut Contender, filled: Filled) -> anyhow::Result<f64> {
    let value_octets = size_of::<PerCpuValue>() * cpus()?;
    let map = contender.hash()?;
    let mut taken = 0;
    let ((), time) = timed(|| {
        batch::take_all(map.fd(), size_of::<Key>(), value_octets, |keys, values| {
            taken += (keys.len() / size_of::<Key>()) as u64;
            black_box(values);
        })
    })?;
    ensure!(taken == filled.records, "{taken} of {} records came in batches", filled.records);
    Ok(time.as_secs_f64() * 1e9)
}
