//! All packets come on one CPU: `--flows N` promises room for N flows, and after one interval they have it.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use minimizer::agent::progress::Progress;
use minimizer::agent::time_mark::TimeMark;
use minimizer::agent::{Agent, AgentOptions};
use minimizer::commands::demo::generator::Traffic;
use minimizer::commands::demo::sender::Handed;
use minimizer::delivery::accounting::Accounting;
use minimizer::interfaces::selection::Selection;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::kernel::table_size::Room;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::drain::Occupancy;
use minimizer::records::keys::Keys;
use minimizer::records::terms::Keyring;
use minimizer::support::clock::SystemClocks;
use minimizer_common::tunnel::Tunnels;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use tests::network::Network;

/// What is asked for, as with `--flows`.
const FLOWS: u16 = 4096;
/// What each of many CPUs has room for at first.
const FLOWS_PER_CPU: u32 = 64;

/// UDP from as many ports.
fn traffic() -> Arc<Traffic> {
    Arc::new(Traffic::of_frames((0..FLOWS).map(|port| {
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let ipv4 = [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7, 203, 0, 113, 1];
        let udp = [&(port + 1024).to_be_bytes()[..], &[1, 0xbb, 0, 26, 0, 0]].concat();
        [&ethernet[..], &ipv4, &udp, &[0; 18]].concat()
    })))
}

/// Sends a frame of each flow, and waits until they have arrived. `handed` is what was sent since the cable was laid.
fn send(network: &mut Network, frames: u64, handed: &mut Handed) -> Result<()> {
    let sender = network.send(0, &traffic(), Some(frames))?;
    while !sender.is_finished() {
        thread::yield_now();
    }
    handed.accepted += sender.finish()?.accepted;
    let arrived = network.settle(0, *handed)?;
    ensure!(arrived == handed.accepted, "{arrived} of {} frames arrived", handed.accepted);
    Ok(())
}

/// What the agent tells of a drain.
#[derive(Clone, Copy, Debug)]
struct Told {
    seen: u64,
    overflow: u64,
    occupancy: Occupancy,
    table_bytes: u64,
}

/// The first that fits.
fn told(drains: &Receiver<Told>, fits: impl Fn(&Told) -> bool) -> Result<Told> {
    loop {
        let told = drains.recv_timeout(Duration::from_secs(30)).context("the agent tells nothing")?;
        if fits(&told) {
            return Ok(told);
        }
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn flows_that_all_come_on_one_cpu_have_room_after_one_interval() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    // The cable's receiving end works on the CPU that sends.
    let mut cpu = CpuSet::new();
    cpu.set(sched_getcpu());
    sched_setaffinity(None, &cpu)?;
    let options = Options {
        flows_per_cpu: FLOWS_PER_CPU,
        room: Room::new(FLOWS_PER_CPU, FLOWS.into()),
        compiled: CompiledPolicy::full_record(Tunnels::NONE),
        ..Options::default()
    };
    let mut program = Program::load(&options)?;
    // As `run` does: what the load needed is in the kernel only.
    program.drop_tables();
    let options = AgentOptions {
        selection: Selection::one(&network.cables()[0].receiver.name),
        force_tap: false,
        mode: Mode::Native,
        interval: Duration::from_millis(500),
    };
    let (teller, drains) = mpsc::channel();
    let observe = move |progress: &Progress<'_>| {
        let Some((totals, _)) = progress.drained else { return };
        // The test may have ended.
        let _unheard = teller.send(Told {
            seen: progress.ledger.interfaces().map(|(_, totals)| totals.seen_packets).sum(),
            overflow: progress.ledger.overflow().packets,
            occupancy: totals.occupancy,
            table_bytes: progress.table_bytes,
        });
    };
    let keyring = Keyring::new(Keys::load(None)?);
    let mark = TimeMark::in_memory(Arc::new(SystemClocks));
    let agent = Agent::start(program, keyring, options, Accounting::new(Vec::new()), mark, observe)?;

    let frames = u64::from(FLOWS);
    let mut handed = Handed::default();
    send(&mut network, frames, &mut handed)?;
    let uneven = told(&drains, |told| told.occupancy.slots_used > 0)?;
    let occupancy = uneven.occupancy;
    assert_eq!(
        (occupancy.slots_used_max, occupancy.spill_used_max),
        (occupancy.slots_used, occupancy.spill_used)
    );
    let grown = told(&drains, |told| told.table_bytes > uneven.table_bytes && told.seen >= frames)?;
    ensure!(grown.overflow > 0, "{grown:?}");

    send(&mut network, frames, &mut handed)?;
    let fits = told(&drains, |told| told.seen >= 2 * frames)?;
    ensure!(fits.seen == 2 * frames && fits.overflow == grown.overflow, "{grown:?}, {fits:?}");
    // They never grow beyond what was asked for.
    ensure!(fits.table_bytes == grown.table_bytes, "{grown:?}, {fits:?}");
    agent.stopper().stop();
    Ok(agent.wait()?)
}
