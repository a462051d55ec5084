//! What one flow costs each of two CPUs when both run it at once, against one of them alone.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::contenders::{Contender, Kind, Size};
use super::rounds::{Effort, cost};
use super::schedule::{Popularity, Schedule};
use super::statistics::{Spread, difference, ratio};
use super::traffic::Traffic;
use super::wrapper::Wrapper;
use super::{allowed_cpus, pin_to, timed};

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
    let mut wrapper = Wrapper::load(Traffic::Ipv4Tcp, &schedule)?;
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
                let crowded = against(&mut wrapper, contender, effort.packets, cpus[1 - number])?;
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

/// The cost on this CPU while another CPU runs the same program.
fn against(wrapper: &mut Wrapper, contender: &mut Contender, packets: u32, cpu: u32) -> anyhow::Result<f64> {
    /// So many times longer does the other CPU run.
    const LONGER: u32 = 6;
    /// By then it has begun, after a grace period.
    const AHEAD: Duration = Duration::from_millis(60);
    let aimed = wrapper.aim(contender.info.id(), &contender.program)?;
    let aimed = &aimed;
    let time = thread::scope(|scope| {
        let neighbour = scope.spawn(move || {
            pin_to(cpu)?;
            aimed.send(packets.saturating_mul(LONGER))
        });
        thread::park_timeout(AHEAD);
        let measured = timed(|| aimed.send(packets));
        neighbour.join().ok().context("the neighbour panicked")??;
        measured.map(|((), time)| time)
    })?;
    contender.sent += u64::from(packets) * u64::from(LONGER + 1);
    Ok(time.as_secs_f64() * 1e9 / f64::from(packets))
}
