//! What the agent knows after a drain, in plain numbers: metrics, status, page and readiness are made from it.

mod policy;
mod published;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::agent::AgentOptions;
use crate::agent::progress::Progress;
use crate::delivery::history::History;
use crate::delivery::ledger::Ledger;
use crate::interfaces::slot::Watched;
use crate::kernel::cost::Cost;
use crate::kernel::error::ProgramError;
use crate::kernel::program::{Program, object_digest};
use crate::kernel::table_size;
use crate::records::drain::Occupancy;
use crate::serve::drains::Drains;
pub use policy::{PolicyInForce, Reloads};
pub use published::Published;

/// State of the agent after a drain.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What was built and loaded.
    pub build: Build,
    /// The policy in force.
    pub policy: PolicyInForce,
    /// How often the agent was told to take another policy.
    pub reloads: Reloads,
    /// When the agent started.
    pub started: SystemTime,
    /// Time between drains.
    pub interval: Duration,
    /// The watched interfaces, in the order of the ledger.
    pub watched: Vec<Watched>,
    /// Interfaces that are selected but have no slot, because all slots are taken.
    pub refused: usize,
    /// Why nothing is attached although the mandate has not ended.
    pub paused: Option<String>,
    /// Totals since the start.
    pub ledger: Ledger,
    /// How full the generation of the last drain was.
    pub occupancy: Occupancy,
    /// Memory of the flow tables in bytes, all CPUs and generations.
    pub table_bytes: u64,
    /// How the drains went.
    pub drains: Drains,
    /// What the loaded programs cost, by name; empty while the kernel does not measure it.
    pub costs: Vec<(&'static str, Cost)>,
    /// The last drains.
    pub history: Arc<History>,
    /// When the agent started, by a clock that nobody sets.
    pub begun: Instant,
    /// Why the agent will end although nobody wants it: a thread has panicked.
    pub failed: Option<String>,
    /// Whether the last drain is done, and nothing is attached any more.
    pub is_ending: bool,
}

/// Why the agent does not work as it must.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unhealthy {
    /// A thread has panicked.
    #[error("the agent has failed and ends: {0}")]
    Failed(String),
    /// The drain has been at it for too long, or waits for something.
    #[error(
        "the last successful drain is {:.1} s ago, more than {:.1} s: the drain thread hangs, or the machine is overloaded",
        .age.as_secs_f64(),
        .limit.as_secs_f64()
    )]
    Late {
        /// Time since the last successful drain, or since the start.
        age: Duration,
        /// The longest it may be.
        limit: Duration,
    },
}

/// What the drain may be late beyond three intervals, before the agent is unhealthy and somebody may start it anew.
const LATE: Duration = Duration::from_secs(30);

/// What identifies the code that runs.
#[derive(Clone, Debug)]
pub struct Build {
    /// Version of the agent.
    pub version: &'static str,
    /// SHA-256 of the kernel object, in hexadecimal.
    pub object_digest: String,
    /// The kernel's own tag of the loaded program, in hexadecimal: a digest of its instructions, the same under every policy.
    pub program_tag: String,
}

/// Why the agent is not ready.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotReady {
    /// The agent ends: the last drain is done, and sinks have their time to take what waits.
    #[error("the agent is ending: nothing is attached any more, and sinks take what waits")]
    Ending,
    /// No drain has ended yet.
    #[error("no drain has ended yet")]
    NoDrain,
    /// The last successful drain is too old.
    #[error(
        "the last successful drain is {:.1} s old, more than 3 intervals ({:.1} s)",
        .age.as_secs_f64(),
        .limit.as_secs_f64()
    )]
    Stale {
        /// Its age.
        age: Duration,
        /// The oldest it may be.
        limit: Duration,
    },
}

impl Snapshot {
    /// The snapshot before the first drain.
    ///
    /// # Errors
    /// When the kernel gives no information on the loaded program.
    pub fn starting(program: &mut Program, options: &AgentOptions) -> Result<Self, ProgramError> {
        let program_tag = program.tag()?;
        let shape = program.generations().shape();
        Ok(Self {
            build: Build { version: env!("CARGO_PKG_VERSION"), object_digest: object_digest(), program_tag },
            policy: PolicyInForce::of(&program.compiled().policy),
            reloads: Reloads::default(),
            started: SystemTime::now(),
            interval: options.interval,
            watched: Vec::new(),
            paused: None,
            refused: 0,
            ledger: Ledger::new(Vec::new()),
            occupancy: Occupancy::empty(shape),
            table_bytes: table_size::bytes(&shape),
            drains: Drains::default(),
            costs: Vec::new(),
            history: Arc::default(),
            begun: Instant::now(),
            failed: None,
            is_ending: false,
        })
    }

    /// Takes what a drain found, or how the interfaces changed.
    fn progressed(&mut self, progress: &Progress<'_>) {
        self.advance(progress.ledger);
        self.watched.clone_from(&progress.watched);
        self.paused = progress.paused.map(str::to_owned);
        self.refused = progress.refused;
        self.table_bytes = progress.table_bytes;
        if let Some((totals, duration)) = progress.drained {
            self.occupancy = totals.occupancy;
            self.drains.succeeded(duration);
            self.costs.clone_from(&progress.costs);
            let names = progress.ledger.unwatched().map(|(name, _)| name);
            self.history = Arc::new(self.history.after(names, totals, duration, Instant::now()));
        }
    }

    /// Records that were handed over since the start, to all sinks together.
    #[must_use]
    pub fn exported_records(&self) -> u64 {
        self.ledger.sinks().iter().map(|sink| sink.exported.records).sum()
    }

    /// Takes a ledger, unless the present one is later. Drain and export run side by side, so whoever publishes last need
    /// not have the later ledger.
    fn advance(&mut self, ledger: &Ledger) {
        if ledger.revision() >= self.ledger.revision() {
            self.ledger = ledger.clone();
        }
    }

    /// Whether every thread that must live does, and in time, at `now`.
    ///
    /// # Errors
    /// Why it is not so.
    pub fn healthy(&self, now: Instant) -> Result<(), Unhealthy> {
        if let Some(reason) = &self.failed {
            return Err(Unhealthy::Failed(reason.clone()));
        }
        let last = self.drains.last_success.map_or(self.begun, |(ended, _)| ended);
        let (age, limit) = (now.saturating_duration_since(last), self.interval.saturating_mul(3) + LATE);
        if age > limit { Err(Unhealthy::Late { age, limit }) } else { Ok(()) }
    }

    /// Whether the agent does its work at `now`: its last successful drain is at most three intervals old.
    ///
    /// # Errors
    /// Why it is not ready.
    pub fn ready(&self, now: Instant) -> Result<(), NotReady> {
        if self.is_ending {
            return Err(NotReady::Ending);
        }
        let (ended, _) = self.drains.last_success.ok_or(NotReady::NoDrain)?;
        let (age, limit) = (now.saturating_duration_since(ended), self.interval.saturating_mul(3));
        if age > limit { Err(NotReady::Stale { age, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
pub(crate) mod example;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use minimizer_common::generation::Counts;

    use super::example::example;
    use super::{LATE, NotReady, Unhealthy};
    use crate::agent::progress::Progress;

    #[test]
    fn healthy_until_the_drain_is_late_or_a_thread_has_panicked() {
        let mut snapshot = example();
        let (ended, _) = snapshot.drains.last_success.expect("the example has a drain");
        let limit = snapshot.interval * 3 + LATE;
        assert_eq!(snapshot.healthy(ended + limit), Ok(()));
        let age = limit + Duration::from_millis(1);
        assert_eq!(snapshot.healthy(ended + age), Err(Unhealthy::Late { age, limit }));
        snapshot.drains.last_success = None;
        assert_eq!(snapshot.healthy(snapshot.begun + age), Err(Unhealthy::Late { age, limit }));
        snapshot.failed = Some("thread drain".to_owned());
        assert_eq!(snapshot.healthy(snapshot.begun), Err(Unhealthy::Failed("thread drain".to_owned())));
    }

    #[test]
    fn ready_from_the_first_drain_until_three_intervals_later() {
        let mut snapshot = example();
        let (ended, _) = snapshot.drains.last_success.expect("the example has a drain");
        assert_eq!(snapshot.ready(ended), Ok(()));
        let limit = snapshot.interval * 3;
        assert_eq!(snapshot.ready(ended + limit), Ok(()));
        let age = limit + Duration::from_millis(1);
        assert_eq!(snapshot.ready(ended + age), Err(NotReady::Stale { age, limit }));
        snapshot.drains.last_success = None;
        assert_eq!(snapshot.ready(Instant::now()), Err(NotReady::NoDrain));
    }

    #[test]
    fn an_older_ledger_never_replaces_a_later_one() {
        let mut snapshot = example();
        let older = snapshot.ledger.clone();
        let mut later = older.clone();
        later.add_exported(Counts { packets: 2, octets: 400 }, Counts::default());
        snapshot.advance(&later);
        let progress = Progress {
            ledger: &older,
            watched: Vec::new(),
            paused: None,
            refused: 0,
            drained: None,
            table_bytes: 1,
            costs: Vec::new(),
        };
        snapshot.progressed(&progress);
        assert_eq!(snapshot.ledger.exported().packets, 96);
        assert!(snapshot.watched.is_empty());
    }
}
