//! The same frames through the parser on the host and the program in the kernel, frame by frame.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use minimizer::kernel::prepared::Clock;
use minimizer::kernel::program::Program;
use minimizer::support::clock::realtime_ns;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::ACTION_PASS;
use rand::RngExt as _;

use super::SEED;
use super::variants::Variant;
use crate::drained::drained;
use crate::expected::Expected;
use crate::packets::{Generator, mutations};

/// Frames that fit one buffer.
const FRAMES: usize = 4000;
/// Frames that do not.
const LARGE_FRAMES: usize = 400;
/// Zeroes behind a large frame's packet: more than a page.
const LARGE_OCTETS: usize = 6000;
/// Damaged variants of each frame.
const MUTATIONS: usize = 7;
/// Newer kernels do not run shorter frames.
const OCTETS_MIN: usize = 14;
/// `BPF_PROG_TEST_RUN` gives frames the loopback interface.
const INTERFACE_INDEX: u32 = 1;
const SECONDS: u64 = 1_700_000_000;

/// The frames.
pub struct Corpus {
    /// Frames of all kinds, and damaged ones, that fit one buffer.
    small: Vec<Vec<u8>>,
    /// Undamaged frames that go on behind the first buffer, where no header is.
    large: Vec<Vec<u8>>,
}

/// Runs the corpus through a variant.
///
/// # Errors
/// The first frame that ends differently, or the first record that differs.
pub fn check(variant: &Variant, corpus: &Corpus) -> Result<String> {
    let large = if variant.kernel.multi_buffer { &corpus.large[..] } else { &[] };
    let frames: Vec<_> = corpus.small.iter().chain(large).collect();
    let mut program = variant.load()?;
    program.watch(INTERFACE_INDEX, 0)?;
    program.set_time(SECONDS * 1000);
    let start_ms = realtime_ns() / 1_000_000;
    let mut expected = Expected::with(variant.options.compiled.policy.tunnels);
    for frame in &frames {
        let verdict = program.run(frame)?;
        ensure!(verdict == ACTION_PASS, "verdict {verdict}: {frame:02x?}");
        expected.add(frame, 1, 0);
        let outcomes = outcomes(&mut program);
        ensure!(outcomes == expected.outcomes, "{frame:02x?} ended otherwise than on the host");
    }
    let end_ms = realtime_ns() / 1_000_000;

    let (records, totals) = drained(&mut program, &[INTERFACE_INDEX])?;
    ensure!(totals.residuals.is_empty(), "the table was too small");
    // What lies behind a packet that ends in the first buffer is not asked for.
    let octets: usize = corpus.small.iter().map(Vec::len).sum();
    let seen_octets = totals.interfaces[0].seen_octets;
    ensure!(
        large.is_empty() && seen_octets == u64::try_from(octets)? || seen_octets > u64::try_from(octets)?,
        "octets of the frames differ"
    );
    ensure!(totals.interfaces[0].octets_counted == expected.octets(), "octets of the packets differ");
    let (earliest_ms, latest_ms) = match variant.options.clock {
        // A unit is stored by its begin, and remembered for one tick too long at the most.
        Clock::Tick => (start_ms.saturating_sub(2000), end_ms),
        Clock::Control => (SECONDS * 1000, SECONDS * 1000),
    };
    let mut flows = HashMap::new();
    for record in records {
        let in_time =
            earliest_ms <= record.start_ms && record.start_ms <= record.end_ms && record.end_ms <= latest_ms;
        ensure!(in_time, "not within {earliest_ms} and {latest_ms}: {record:?}");
        flows.insert(record.tuple, Counts { packets: record.packets, octets: record.octets });
    }
    ensure!(flows == expected.flows, "tuples, packets or octets differ");
    let kinds = expected.outcomes.iter().filter(|count| **count > 0).count();
    Ok(format!("{} frames, {kinds} outcomes, {} records as on the host", frames.len(), flows.len()))
}

/// Draws the frames.
pub fn corpus() -> Corpus {
    let mut generator = Generator::new(SEED);
    let mut frames = Vec::new();
    let mut large = Vec::new();
    while frames.len() < FRAMES {
        let packet = generator.packet();
        let mut damaged = mutations(&packet, generator.random());
        for _ in 0..MUTATIONS {
            let random = generator.random().random_range(0..damaged.len());
            frames.push(damaged.swap_remove(random));
        }
        if large.len() < LARGE_FRAMES {
            large.push([&packet.octets[..], &[0; LARGE_OCTETS]].concat());
        }
        frames.push(packet.octets);
        frames.retain(|frame| frame.len() >= OCTETS_MIN);
    }
    Corpus { small: frames, large }
}

/// Packets by outcome so far, over all CPUs.
fn outcomes(program: &mut Program) -> Vec<u64> {
    let generations = program.generations();
    let mut sums = vec![0; Outcome::COUNT];
    for cpu in 0..generations.shape().cpus {
        for (sum, count) in sums.iter_mut().zip(generations.counters(cpu, 0).outcomes) {
            *sum += count;
        }
    }
    sums
}
