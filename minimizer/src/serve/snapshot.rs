//! What the agent knows after a drain, in plain numbers: the source of metrics, status and readiness.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::agent::AgentOptions;
use crate::agent::progress::Progress;
use crate::delivery::history::History;
use crate::delivery::ledger::Ledger;
use crate::interfaces::slot::Watched;
use crate::kernel::cost::Cost;
use crate::kernel::error::ProgramError;
use crate::kernel::program::{Program, object_digest};
use crate::kernel::table_size;
use crate::policy::explain::Explanation;
use crate::policy::mandate::Mandate;
use crate::policy::model::Policy;
use crate::records::drain::Occupancy;
use crate::serve::drains::Drains;

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
    /// What the loaded programs cost, by name; empty where the kernel does not measure it.
    pub costs: Vec<(&'static str, Cost)>,
    /// The last drains.
    pub history: Arc<History>,
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
    /// Whether interface and protocol of packets are collected under it.
    pub has_protocols: bool,
    /// What it means.
    pub explanation: Arc<Explanation>,
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
            has_protocols: policy.collected().has_protocols(),
            explanation: Arc::new(policy.explain()),
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
            policy: InForce::of(&program.compiled().policy),
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
        })
    }

    /// Takes what a drain found, or what has changed of the interfaces.
    fn progressed(&mut self, progress: &Progress<'_>) {
        self.advance(progress.ledger);
        self.watched.clone_from(&progress.watched);
        self.paused = progress.paused.map(str::to_owned);
        self.refused = progress.refused;
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

    /// Publishes that a sink took records, lost some or failed, after which the ledger stands so.
    pub fn settled(&self, ledger: &Ledger) {
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
    use std::sync::Arc;
    use std::time::{Duration, Instant, SystemTime};

    use minimizer_common::generation::Counts;
    use minimizer_common::outcome::Outcome;
    use minimizer_common::tuple::{Tags, Tuple};

    use jiff::Timestamp;

    use crate::agent::progress::Progress;
    use crate::delivery::account::{Account, Tally};
    use crate::delivery::ledger::Ledger;
    use crate::interfaces::slot::Unwatched;
    use crate::interfaces::slot::{Attached, Watched};
    use crate::kernel::attach::{Action, Mode};
    use crate::kernel::cost::Cost;
    use crate::policy::mandate::Mandate;
    use crate::records::drain::{InterfaceTotals, Occupancy, ResidualTotals, Totals};
    use crate::records::record::Record;
    use crate::serve::drains::Drains;
    use crate::serve::snapshot::{Build, InForce, NotReady, Reloads, Snapshot};

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
            unknown: InterfaceTotals::ZERO,
            recorded: Counts { packets, octets: 70_000 },
            interfaces: vec![totals, InterfaceTotals::ZERO],
            residuals: vec![residual],
            occupancy,
        });
        let suppressed = Counts { packets: 4, octets: 300 };
        ledger.add_exported(Counts { packets: packets - 3, octets: 69_000 }, suppressed);
        ledger.add_dropped(Counts { packets: 1, octets: 600 });
        assert!(ledger.is_balanced());
        ledger.add_protocols([Record {
            tuple: Tuple::new([0; 4], (0, 0), Tags::default(), 17, 0),
            ingress_interface: 13,
            control_bits: 0,
            packets: 43,
            octets: 0,
            start_ms: 0,
            end_ms: 0,
            selector_id: 0,
        }]);
        let mut soc = Account::new("soc", "operations", "ipfix");
        soc.offered = Tally { records: 60, packets: 101, octets: 70_000 };
        soc.exported = Tally { records: 42, packets: 88, octets: 60_000 };
        soc.suppressed = Tally { records: 1, packets: 5, octets: 310 };
        soc.queued = Tally { records: 14, packets: 6, octets: 9_000 };
        soc.dropped.insert("unreachable".to_owned(), Tally { records: 3, packets: 2, octets: 690 });
        soc.octets_written = 2_345;
        soc.failures = 15;
        ledger.set_sinks([soc].into_iter());
        assert!(ledger.is_balanced());
        let unwatched = Unwatched { times: 7, time: Duration::from_millis(2750) };
        ledger.enter(1, "gone", unwatched);
        let watched = vec![
            Watched {
                name: "eth\"0\\".to_owned(),
                action: Action::Pass,
                attached: Some(Attached { if_index: 13, mode: Mode::Native, program_id: 4711 }),
                reason: None,
                is_blind: false,
                up: true,
            },
            Watched {
                name: "gone".to_owned(),
                action: Action::Drop,
                attached: None,
                reason: Some("there is no such interface".to_owned()),
                is_blind: false,
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
                has_protocols: true,
                explanation: Arc::default(),
            },
            reloads: Reloads { succeeded: 33, failed: 34, error: Some("a reason".to_owned()) },
            build: Build { version: "1.2.3", object_digest: "ab".repeat(32), program_tag: "cd".repeat(8) },
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
            interval: Duration::from_millis(2500),
            watched,
            paused: None,
            refused: 8,
            ledger,
            occupancy,
            table_bytes: 9_000_000,
            drains,
            costs: vec![("minimizer", Cost { runs: 35, time: Duration::from_micros(1500) })],
            history: Arc::default(),
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
        later.add_exported(Counts { packets: 2, octets: 400 }, Counts::default());
        snapshot.advance(&later);
        let progress = Progress {
            ledger: &older,
            watched: Vec::new(),
            paused: None,
            refused: 0,
            drained: None,
            costs: Vec::new(),
        };
        snapshot.progressed(&progress);
        assert_eq!(snapshot.ledger.exported().packets, 96);
        assert!(snapshot.watched.is_empty());
    }
}
