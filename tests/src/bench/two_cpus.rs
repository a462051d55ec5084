//! What one flow costs each of two CPUs when both run it at once, against one of them alone.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use anyhow::Context as _;
use serde::Serialize;

use super::contenders::{Contender, Kind, Size};
use super::rounds::{Effort, cost};
use super::schedule::{Popularity, Schedule};
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;
use super::{allowed_cpus, pin_to};

/// Result of one program on one CPU.
#[derive(Debug, Serialize)]
pub struct Row {
    /// See [`Kind::name`].
    pub name: &'static str,
    /// The CPU.
    pub cpu: u32,
    /// Nanoseconds per packet while the other CPU does nothing for the bench.
    pub alone_ns: Spread,
    /// Nanoseconds per packet while the other CPU runs the same program on the same flow.
    pub together_ns: Spread,
    /// The second as a multiple of the first, round by round. What both CPUs share of a core is in it, as
    /// it is for the parser, which shares no data.
    pub ratio: Spread,
}

/// Programs that are measured. The first is the base, and the second what the CPUs share of a core.
const KINDS: [Kind; 5] = [Kind::Empty, Kind::ParseOnly, Kind::Minimizer, Kind::PerCpuHash, Kind::SharedHash];

/// Measures each program on the first two CPUs that this thread may use. No rows where there is one.
///
/// # Errors
/// What the kernel answers; a program that miscounted.
pub fn measure(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let [first, second, ..] = allowed_cpus()?[..] else { return Ok(Vec::new()) };
    // A thread of its own, so that this one stays where it is.
    thread::scope(|scope| scope.spawn(|| on(effort, [first, second])).join())
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

fn on(effort: Effort, cpus: [u32; 2]) -> anyhow::Result<Vec<Row>> {
    let schedule = Schedule::drawn(1, Popularity::Uniform, 1);
    let load = || Wrapper::load(Traffic::Ipv4Tcp, &schedule);
    let (mut wrapper, mut other) = (load()?, load()?);
    let size = Size::of(1 << 10);
    let mut contenders =
        KINDS.iter().map(|kind| Contender::load(*kind, size)).collect::<Result<Vec<_>, _>>()?;
    // By CPU and program: alone, together.
    let mut series = vec![[Vec::new(), Vec::new()]; 2 * KINDS.len()];
    for _ in 0..effort.runs {
        for (number, cpu) in cpus.into_iter().enumerate() {
            for (place, contender) in contenders.iter_mut().enumerate() {
                pin_to(cpu)?;
                wrapper.send(contender, effort.packets)?;
                let [alone, together] = &mut series[number * KINDS.len() + place];
                alone.push(cost(&mut wrapper, contender, effort.packets)?);
                let crowded = against(&mut wrapper, &mut other, contender, effort.packets, cpus[1 - number])?;
                together.push(crowded);
            }
        }
    }
    for contender in &mut contenders {
        contender.check(Traffic::Ipv4Tcp.octets(), 1)?;
    }
    let mut rows = Vec::new();
    for (place, kind) in KINDS.iter().enumerate().skip(1) {
        for (number, cpu) in cpus.into_iter().enumerate() {
            let of = |place: usize, mode: usize| &series[number * KINDS.len() + place][mode];
            let [alone, together] = [0, 1].map(|mode| difference(of(place, mode), of(0, mode)));
            rows.push(Row {
                name: kind.name(),
                cpu,
                alone_ns: Spread::of(alone.iter().copied()),
                together_ns: Spread::of(together.iter().copied()),
                ratio: ratio(&together, &alone),
            });
        }
    }
    Ok(rows)
}

/// The cost on this CPU while another CPU runs the same program without a pause.
fn against(
    wrapper: &mut Wrapper,
    other: &mut Wrapper,
    contender: &mut Contender,
    packets: u32,
    cpu: u32,
) -> anyhow::Result<f64> {
    /// Packets between two looks at whether to stop.
    const BURST: u32 = 1 << 14;
    let (stop, bursts) = (AtomicBool::new(false), AtomicU32::new(0));
    let (id, program) = (contender.info.id(), contender.program.try_clone()?);
    let measured = thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            pin_to(cpu)?;
            while !stop.load(Ordering::Relaxed) {
                other.through(id, &program, BURST)?;
                bursts.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        while bursts.load(Ordering::Relaxed) == 0 && !neighbour.is_finished() {
            thread::yield_now();
        }
        let measured = cost(wrapper, contender, packets);
        stop.store(true, Ordering::Relaxed);
        neighbour.join().ok().context("the neighbour panicked")??;
        measured
    });
    contender.sent += u64::from(bursts.into_inner()) * u64::from(BURST);
    measured
}
