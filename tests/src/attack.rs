//! The adversaries: a recipient who is curious, two recipients who talk, a party abroad who sends packets, and an engineer who edits
//! files. Each plays against policies drawn at random; what it reaches stands beside chance, and beside what the policy says of itself.
//!
//! docs/THREATS.md says who they are, and what remains.

mod ask;
mod collect;
mod curious;
mod drawn;
mod engineer;
mod evade;
mod joins;
mod probe;
mod report;
mod statistics;
mod traffic;

use std::path::Path;

use anyhow::{Context as _, Result};
use minimizer::policy::class::Class;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use crate::command::minimizer;
use crate::tmpfs::Tmpfs;
use collect::Collector;
use drawn::{Drawn, Sort};
use report::Report;
use traffic::{BUSY, QUIET, World};

/// Batches of each epoch.
const BATCHES: usize = 2;
/// Batches that follow where two recipients can compare what parties do. A day has 8,640 of ten seconds.
const QUIET_BATCHES: usize = 30;

/// Room for the files of one policy.
const ROOM_OCTETS: u64 = 1 << 30;

/// Attacks so many policies, from this seed on.
///
/// # Errors
/// When a policy cannot be attacked.
pub fn attack(seed: u64, policies: u64) -> Result<Report> {
    // Built before the first attack.
    minimizer();
    let mut report = Report::default();
    // Every batch of every recipient becomes a file, and the sink waits until the disk has it.
    let folder = tempfile::tempdir()?;
    let memory = Tmpfs::mount(folder.path().join("memory"), ROOM_OCTETS)?;
    for seed in seed..seed + policies {
        report.begin(seed);
        one(&mut report, seed, &memory.0)?;
    }
    // One agent that starts and ends is enough: no drawn part of a policy has to do with it.
    let folder = tempfile::tempdir_in(&memory.0)?;
    let drawn = Drawn::draw(&mut ChaCha8Rng::seed_from_u64(seed), Sort::Any, folder.path())?;
    engineer::roll_back(&mut report, &drawn, folder.path())?;
    Ok(report)
}

fn one(report: &mut Report, seed: u64, memory: &Path) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir_in(memory)?;
    let drawn = Drawn::draw(&mut random, Sort::of(seed), folder.path())?;
    played(report, &mut random, &drawn, folder.path())
        .with_context(|| format!("seed {seed}:\n{}", drawn.text))
}

fn played(report: &mut Report, random: &mut ChaCha8Rng, drawn: &Drawn, folder: &Path) -> Result<()> {
    let policy = &drawn.policy;
    let world = World::draw(random);
    let mut collector = Collector::new(policy)?;
    let mut epochs = Vec::new();
    for _ in 0..2 {
        collector.begin_epoch()?;
        let batches = (0..BATCHES).map(|_| collector.batch(&world.batch(random, BUSY), folder));
        epochs.push(batches.collect::<Result<Vec<_>>>()?);
    }
    curious::play(report, random, policy, [&epochs[0], &epochs[1]]);
    joins::play(report, random, policy, &collector.pairs, &epochs[1]);
    let apart = joins::apart(policy, &collector.pairs);
    if !apart.is_empty() {
        let quiet = (0..QUIET_BATCHES).map(|_| collector.batch(&world.batch(random, QUIET), folder));
        joins::chain(report, policy, &apart, &quiet.collect::<Result<Vec<_>>>()?);
    }
    let to_subscribers = (Class::Foreign, Class::Domestic);
    if policy.scope.as_ref().is_none_or(|scope| scope.directions.contains(&to_subscribers)) {
        probe::play(report, random, policy, &mut collector, folder)?;
        ask::play(report, random, policy, &mut collector, folder)?;
        evade::play(report, random, policy, &mut collector, folder)?;
    }
    engineer::play(report, random, drawn, folder)
}
