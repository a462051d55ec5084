//! What the agent knows after a drain, in plain numbers: the source of metrics, status and readiness.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::agent::{AgentOptions, Progress};
use crate::drain::Occupancy;
use crate::ledger::Ledger;
use crate::policy::{Mandate, Policy};
use crate::program::{Program, ProgramError, object_digest};
use crate::size;
use crate::watch::Watched;

/// State of the agent after a drain.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What was built and loaded.
    pub build: Build,
    /// The policy in force.
    pub policy: InForce,
    /// How often another policy was asked for.
    pub reloads: Reloads,
    /// When the agent started.
    pub started: SystemTime,
    /// Time between drains.
    pub interval: Duration,
    /// The watched interfaces, in the order of the ledger's.
    pub watched: Vec<Watched>,
    /// Interfaces that are selected and find no slot.
    pub refused: usize,
    /// Totals since the start.
    pub ledger: Ledger,
    /// Records that were handed over since the start.
    pub exported_records: u64,
    /// How full the generation of the last drain was.
    pub occupancy: Occupancy,
    /// Memory of the flow tables in bytes, all CPUs and generations.
    pub table_bytes: u64,
    /// How the drains went.
    pub drains: Drains,
}

/// What identifies the code that runs.
#[derive(Clone, Debug)]
pub struct Build {
    /// Version of the agent.
    pub version: &'static str,
    /// SHA-256 of the kernel object, in hexadecimal.
    pub object_digest: String,
    /// The kernel's own digest of the loaded program, in hexadecimal.
    pub program_tag: String,
}

/// What identifies the policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub digest: String,
    /// The names of its recipients.
    pub recipients: Vec<String>,
    /// On what authority, and for how long.
    pub mandate: Option<Mandate>,
    /// Prefixes of its scope.
    pub prefixes: usize,
    /// Indicators of its selectors.
    pub indicators: usize,
}

impl InForce {
    fn of(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            digest: policy.digest.clone(),
            recipients: policy.recipients.iter().map(|recipient| recipient.name.clone()).collect(),
            mandate: policy.mandate.clone(),
            prefixes: policy.scope.as_ref().map_or(0, |scope| scope.prefixes.len()),
            indicators: policy.selectors.as_ref().map_or(0, Vec::len),
        }
    }
}

/// How often another policy was asked for, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Those after which another program was in force.
    pub succeeded: u64,
    /// Those after which the one before stayed.
    pub failed: u64,
    /// Why the latest one failed; `None` when it did not.
    pub error: Option<String>,
}

/// Upper bounds of the histogram of drain durations, in seconds.
pub const DURATION_BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Count and duration of the drains, and when the last one ended.
#[derive(Clone, Debug, Default)]
pub struct Drains {
    /// Drains by the first bound that their duration does not exceed; the last is for longer ones.
    pub durations: [u64; DURATION_BOUNDS.len() + 1],
    /// Sum of the durations.
    pub duration_sum: Duration,
    /// When the last successful drain ended, on both clocks.
    pub last_success: Option<(Instant, SystemTime)>,
}

impl Drains {
    /// Enters a successful drain that ends now.
    pub fn succeeded(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bound = DURATION_BOUNDS.iter().position(|bound| seconds <= *bound);
        self.durations[bound.unwrap_or(DURATION_BOUNDS.len())] += 1;
        self.duration_sum += duration;
        self.last_success = Some((Instant::now(), SystemTime::now()));
    }
}

/// Why the agent is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// No drain has ended yet.
    NoDrain,
    /// The last successful drain is too old.
    Stale {
        /// Its age.
        age: Duration,
        /// The oldest it may be.
        limit: Duration,
    },
}

impl std::fmt::Display for NotReady {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDrain => write!(formatter, "no drain has ended yet"),
            Self::Stale { age, limit } => write!(
                formatter,
                "the last successful drain is {:.1} s old, more than 3 intervals ({:.1} s)",
                age.as_secs_f64(),
                limit.as_secs_f64()
            ),
        }
    }
}

impl Snapshot {
    /// What is known before the first drain.
    ///
    /// # Errors
    /// When the kernel does not tell about the loaded program.
    pub fn starting(program: &mut Program, options: &AgentOptions) -> Result<Self, ProgramError> {
        let program_tag = program.tag()?;
        let shape = program.generations().shape();
        Ok(Self {
            build: Build { version: env!("CARGO_PKG_VERSION"), object_digest: object_digest(), program_tag },
            policy: InForce::of(&program.enforced().policy),
            reloads: Reloads::default(),
            started: SystemTime::now(),
            interval: options.interval,
            watched: Vec::new(),
            refused: 0,
            ledger: Ledger::new(Vec::new()),
            exported_records: 0,
            occupancy: Occupancy::empty(shape),
            table_bytes: size::bytes(&shape),
            drains: Drains::default(),
        })
    }

    /// Takes what a drain found, or what has changed of the interfaces.
    fn progressed(&mut self, progress: &Progress<'_>) {
        self.advance(progress.ledger);
        self.watched.clone_from(&progress.watched);
        self.refused = progress.refused;
        if let Some((totals, duration)) = progress.drained {
            self.occupancy = totals.occupancy;
            self.drains.succeeded(duration);
        }
    }

    /// Takes the ledger after records were handed over.
    fn exported(&mut self, ledger: &Ledger, records: usize) {
        self.advance(ledger);
        self.exported_records += u64::try_from(records).unwrap_or(u64::MAX);
    }

    /// Replaces the ledger by a later one. Drain and export run side by side, and whoever publishes
    /// last need not have the later ledger.
    fn advance(&mut self, ledger: &Ledger) {
        if ledger.revision() >= self.ledger.revision() {
            self.ledger = ledger.clone();
        }
    }

    /// Whether the agent does its work at `now`: its last successful drain is at most three intervals old.
    ///
    /// # Errors
    /// Why it is not ready.
    pub fn ready(&self, now: Instant) -> Result<(), NotReady> {
        let (ended, _) = self.drains.last_success.ok_or(NotReady::NoDrain)?;
        let (age, limit) = (now.saturating_duration_since(ended), self.interval.saturating_mul(3));
        if age > limit { Err(NotReady::Stale { age, limit }) } else { Ok(()) }
    }
}

/// Where the drain leaves its latest snapshot for those who serve it. Neither ever waits for the other.
#[derive(Clone, Debug)]
pub struct Published(Arc<ArcSwap<Snapshot>>);

impl Published {
    /// Publishes a first snapshot, from before any drain.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// Publishes the agent's progress. Called on the drain's thread: it waits for nobody.
    pub fn progressed(&self, progress: &Progress<'_>) {
        self.update(|snapshot| snapshot.progressed(progress));
    }

    /// Publishes that `records` were handed over, after which the ledger stands so.
    pub fn exported(&self, ledger: &Ledger, records: usize) {
        self.update(|snapshot| snapshot.exported(ledger, records));
    }

    /// Publishes that records were lost, after which the ledger stands so.
    pub fn dropped(&self, ledger: &Ledger) {
        self.update(|snapshot| snapshot.advance(ledger));
    }

    /// Publishes that another policy, in a program of this tag, is in force.
    pub fn reloaded(&self, policy: &Policy, program_tag: &str) {
        self.update(|snapshot| {
            snapshot.policy = InForce::of(policy);
            program_tag.clone_into(&mut snapshot.build.program_tag);
            snapshot.reloads.succeeded += 1;
            snapshot.reloads.error = None;
        });
    }

    /// Publishes that the policy before stays in force, and why.
    pub fn reload_failed(&self, error: &str) {
        self.update(|snapshot| {
            snapshot.reloads.failed += 1;
            snapshot.reloads.error = Some(error.to_owned());
        });
    }

    /// Publishes a changed copy of the snapshot. `change` may run several times, each time on a fresh copy,
    /// when others publish meanwhile.
    pub(crate) fn update(&self, change: impl Fn(&mut Snapshot)) {
        self.0.rcu(|snapshot| {
            let mut snapshot = Snapshot::clone(snapshot);
            change(&mut snapshot);
            snapshot
        });
    }

    /// The latest snapshot.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, Instant, SystemTime};

    use minimizer_common::generation::Residual;
    use minimizer_common::outcome::Outcome;

    use jiff::Timestamp;

    use super::{Build, DURATION_BOUNDS, Drains, InForce, NotReady, Reloads, Snapshot};
    use crate::agent::Progress;
    use crate::drain::{InterfaceTotals, Occupancy, ResidualTotals, Totals};
    use crate::ledger::{Ledger, Unwatched};
    use crate::policy::Mandate;
    use crate::program::{Action, Mode};
    use crate::watch::{Attached, Watched};

    /// A snapshot in which every number is different, and the ledger balances.
    pub(crate) fn example() -> Snapshot {
        let mut totals = InterfaceTotals {
            seen_packets: 0,
            seen_octets: 90_001,
            octets_counted: 70_002,
            ..InterfaceTotals::ZERO
        };
        for (index, packets) in (0..Outcome::COUNT).zip(101..) {
            totals.outcomes[index] = packets;
            totals.seen_packets += packets;
        }
        let overflow = totals.outcome(Outcome::Overflow);
        let residual =
            ResidualTotals { interface: 0, ipv6: false, protocol: 17, packets: overflow, octets: 2 };
        let occupancy = Occupancy {
            slots_used: 11,
            slots: 262_144,
            spill_used: 12,
            spill: 32_768,
            slots_per_cpu: 131_072,
            slots_used_max: 9,
            spill_per_cpu: 16_384,
            spill_used_max: 10,
        };
        let mut ledger = Ledger::new(vec!["eth\"0\\".to_owned(), "gone".to_owned()]);
        let packets = totals.outcome(Outcome::Counted);
        ledger.add(&Totals {
            recorded: Residual { packets, octets: 70_000 },
            interfaces: vec![totals, InterfaceTotals::ZERO],
            residuals: vec![residual],
            occupancy,
        });
        let suppressed = Residual { packets: 4, octets: 300 };
        ledger.add_exported(Residual { packets: packets - 3, octets: 69_000 }, suppressed);
        ledger.add_dropped(Residual { packets: 1, octets: 600 });
        assert!(ledger.is_balanced());
        let unwatched = Unwatched { times: 7, time: Duration::from_millis(2750) };
        ledger.enter(1, "gone", unwatched);
        let watched = vec![
            Watched {
                name: "eth\"0\\".to_owned(),
                action: Action::Pass,
                attached: Some(Attached { if_index: 13, mode: Mode::Native, program_id: 4711 }),
                reason: None,
                up: true,
            },
            Watched {
                name: "gone".to_owned(),
                action: Action::Drop,
                attached: None,
                reason: Some("there is no such interface".to_owned()),
                up: false,
            },
        ];
        let mut drains = Drains::default();
        drains.succeeded(Duration::from_millis(3));
        let mandate = Mandate {
            id: "NCO-7".to_owned(),
            purpose: "one".to_owned(),
            legal_basis: "a law".to_owned(),
            valid_from: Timestamp::from_second(1_690_000_001).expect("a time"),
            valid_until: Timestamp::from_second(1_710_000_002).expect("a time"),
        };
        Snapshot {
            policy: InForce {
                name: "example".to_owned(),
                digest: "ef".repeat(32),
                recipients: vec!["soc".to_owned()],
                mandate: Some(mandate),
                prefixes: 31,
                indicators: 32,
            },
            reloads: Reloads { succeeded: 33, failed: 34, error: Some("a reason".to_owned()) },
            build: Build { version: "1.2.3", object_digest: "ab".repeat(32), program_tag: "cd".repeat(8) },
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
            interval: Duration::from_millis(2500),
            watched,
            refused: 8,
            ledger,
            exported_records: 42,
            occupancy,
            table_bytes: 9_000_000,
            drains,
        }
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
        later.add_exported(Residual { packets: 2, octets: 400 }, Residual::default());
        snapshot.exported(&later, 1);
        let progress = Progress { ledger: &older, watched: Vec::new(), refused: 0, drained: None };
        snapshot.progressed(&progress);
        assert_eq!(snapshot.ledger.exported().packets, 96);
        assert_eq!(snapshot.exported_records, 43);
        assert!(snapshot.watched.is_empty());
    }

    #[test]
    fn a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut drains = Drains::default();
        drains.succeeded(Duration::from_millis(1));
        drains.succeeded(Duration::from_micros(1001));
        drains.succeeded(Duration::from_secs(11));
        assert_eq!((drains.durations[0], drains.durations[1]), (1, 1));
        assert_eq!(drains.durations[DURATION_BOUNDS.len()], 1);
        assert_eq!(drains.duration_sum, Duration::from_micros(11_002_001));
    }
}
