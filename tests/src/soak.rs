//! The soak: agents, one after the other, on one cable, under everything that goes wrong around them, at random. After each one
//! its ledger must be complete and exact, or say that it is not complete.

mod collector;
mod life;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use minimizer::commands::demo::generator::Traffic;
use minimizer::commands::demo::sender::Handed;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use crate::command::minimizer;
use crate::far::Hosts;
use crate::frozen::Disk;
use crate::network::Network;
use collector::Collector;
use life::{Action, End, Life};

/// Fewest and most actions in the life of an agent.
const ACTIONS: (u32, u32) = (4, 25);
/// Traffic that is always the same.
const TRAFFIC_SEED: u64 = 1;

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Frames that the watched interfaces took.
    pub sent: u64,
    /// Packets that ledgers of agents which ended have.
    pub seen: u64,
    /// Packets that ledgers of agents which were killed have, and what had been sent to them.
    pub killed: (u64, u64),
    /// How often each thing was done.
    pub actions: BTreeMap<&'static str, u64>,
    /// How often agents ended in each way.
    pub ends: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seen_by_killed, sent_to_killed) = self.killed;
        writeln!(
            formatter,
            "sent {}: seen {} by agents that ended, with complete ledgers;",
            self.sent, self.seen
        )?;
        writeln!(
            formatter,
            "{seen_by_killed} of {sent_to_killed} in the ledgers of those that were killed, which say they are not complete"
        )?;
        writeln!(formatter, "actions: {:?}", self.actions)?;
        write!(formatter, "ends: {:?}", self.ends)
    }
}

/// Where agents live.
struct World {
    random: ChaCha8Rng,
    network: Network,
    traffic: Arc<Traffic>,
    hosts: Hosts,
    folder: TempDir,
    disk: Disk,
    collector: Option<Collector>,
    /// Frames that were handed to the cable, and those that came out of it.
    handed: Handed,
    taken: u64,
    report: Report,
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let hosts = Hosts::new()?;
        let network = Network::new(1, 1500)?;
        Ok(Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            network,
            traffic: Arc::new(Traffic::mixed(TRAFFIC_SEED)),
            hosts,
            folder: tempfile::tempdir()?,
            disk: Disk::new()?,
            collector: None,
            handed: Handed { accepted: 0, refused: 0, unsendable: 0 },
            taken: 0,
            report: Report::default(),
        })
    }

    /// The file with what is added to the wall clock of agents.
    fn clock(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn pick<T: Copy>(&mut self, all: &[(&'static str, T)]) -> Result<(&'static str, T)> {
        all.choose(&mut self.random).copied().context("there is something to choose")
    }

    /// Sends so many frames, and returns how many of them the watched interface took.
    fn send(&mut self, frames: u64) -> Result<u64> {
        let sender = self.network.send(0, &self.traffic, Some(frames))?;
        while !sender.is_finished() {
            thread::yield_now();
        }
        let handed = sender.finish()?;
        self.handed.accepted += handed.accepted;
        self.handed.refused += handed.refused;
        // The driver's counters are of all that was ever sent.
        let all = self.network.settle(0, self.handed)?;
        let before = std::mem::replace(&mut self.taken, all);
        Ok(all - before)
    }

    /// One agent, from its start to its end.
    fn live(&mut self, until: Instant) -> Result<()> {
        let mut life = Life::begin(self)?;
        for _ in 0..self.random.random_range(ACTIONS.0..=ACTIONS.1) {
            let (name, action) = self.pick(&Action::ALL)?;
            *self.report.actions.entry(name).or_default() += 1;
            life.act(self, action).with_context(|| name.to_owned())?;
            if Instant::now() > until {
                break;
            }
        }
        let (name, end) = self.pick(&End::ALL)?;
        *self.report.ends.entry(name).or_default() += 1;
        life.end(self, end).with_context(|| name.to_owned())
    }
}

/// Runs agents for so long. What happens follows from the seed, but not when.
///
/// # Errors
/// What an agent did wrong, and what had happened before.
pub fn soak(seed: u64, duration: Duration) -> Result<Report> {
    // Built before the time begins.
    minimizer();
    let mut world = World::new(seed)?;
    let until = Instant::now() + duration;
    while Instant::now() < until {
        let lived = world.live(until);
        lived.with_context(|| format!("seed {seed}, after {}", world.report))?;
    }
    Ok(world.report)
}
