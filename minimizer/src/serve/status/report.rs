//! The report itself: everything that `/status` says, made from a snapshot.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Course, InterfaceRates, LedgerReport, PolicyReport};
use crate::delivery::account::Account;
use crate::delivery::history::History;
use crate::interfaces::slot::Watched;
use crate::kernel::attach::Action;
use crate::serve::snapshot::Snapshot;

/// State of a running agent, as `/status` gives it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// SHA-256 of the kernel object, in hexadecimal.
    pub object_sha256: String,
    /// The kernel's tag of the loaded program, in hexadecimal: a digest of its instructions, the same under every policy.
    pub program_tag: String,
    /// Process identifier of the agent.
    pub process: u32,
    /// The policy in force.
    pub policy: PolicyReport,
    /// When the agent started, in milliseconds since 1970.
    pub started_milliseconds: u64,
    /// Time since the start.
    pub uptime_milliseconds: u64,
    /// Whether the last successful drain is at most three intervals old.
    pub ready: bool,
    /// Why the agent is not ready; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Whether counts are withheld from who asked: they are then 0 or absent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub withheld: bool,
    /// Watched interfaces.
    pub interfaces: Vec<InterfaceReport>,
    /// The flow table.
    pub table: TableReport,
    /// The drains.
    pub drains: DrainReport,
    /// Records handed over, to all sinks together.
    #[serde(default)]
    pub exported_records: u64,
    /// The account of each sink: what it was offered and where that went.
    #[serde(default)]
    pub sinks: Vec<Account>,
    /// The last drains.
    #[serde(default)]
    pub course: Course,
    /// The ledger, in the format of a ledger file, as it is told.
    pub ledger: LedgerReport,
}

impl Report {
    /// The report of a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let not_ready = snapshot.ready(now).err().map(|reason| reason.to_string());
        let started = snapshot.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: snapshot.build.version.to_owned(),
            object_sha256: snapshot.build.object_digest.clone(),
            program_tag: snapshot.build.program_tag.clone(),
            process: std::process::id(),
            policy: PolicyReport::new(&snapshot.policy, &snapshot.reloads, snapshot.paused.as_deref()),
            started_milliseconds: milliseconds(started),
            uptime_milliseconds: milliseconds(wall.duration_since(snapshot.started).unwrap_or_default()),
            ready: not_ready.is_none(),
            not_ready,
            withheld: false,
            interfaces: snapshot
                .watched
                .iter()
                .map(|watched| InterfaceReport::new(watched, &snapshot.history))
                .collect(),
            table: TableReport::new(snapshot),
            drains: DrainReport::new(snapshot, now),
            exported_records: snapshot.exported_records(),
            sinks: snapshot.ledger.sinks().iter().map(Account::told).collect(),
            course: Course::new(&snapshot.history),
            // The ledger file alone says more, which not everybody on this host can read.
            ledger: LedgerReport::told(&snapshot.ledger),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A watched interface.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InterfaceReport {
    /// Name.
    pub name: String,
    /// `native` or `skb`; absent when the program is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether the program drops every frame after counting it.
    #[serde(default)]
    pub tap: bool,
    /// Whether the interface is up.
    #[serde(default)]
    pub up: bool,
    /// The kernel's index of the interface; absent when the program is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_index: Option<u32>,
    /// The kernel's identifier of the program; absent when it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_id: Option<u32>,
    /// Why the program is not attached; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it saw between the last two drains; absent before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<InterfaceRates>,
}

impl InterfaceReport {
    fn new(watched: &Watched, history: &History) -> Self {
        let latest = history.latest().and_then(|drained| Some((drained, drained.of(&watched.name)?)));
        Self {
            name: watched.name.clone(),
            mode: watched.attached.map(|attached| attached.mode.name().to_owned()),
            tap: watched.action == Action::Drop,
            up: watched.up,
            if_index: watched.attached.map(|attached| attached.if_index),
            program_id: watched.attached.map(|attached| attached.program_id),
            reason: watched.reason.clone(),
            rates: latest.map(|(drained, packets)| InterfaceRates::new(drained, packets)),
        }
    }

    /// How the program is attached and, if it is, whether the interface is down. People read this.
    #[must_use]
    pub fn state(&self) -> String {
        let mut state = self.mode.as_deref().unwrap_or("not attached").to_owned();
        if self.tap {
            state += ", tap";
        }
        if self.mode.is_some() && !self.up {
            state += ", down";
        }
        state
    }
}

/// How full the flow table was at the last drain.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TableReport {
    /// Slots of all CPUs.
    pub slots: u64,
    /// Slots in use on all CPUs.
    #[serde(default)]
    pub slots_used: u64,
    /// Slots of one CPU.
    #[serde(default)]
    pub cpu_slots: u64,
    /// Slots in use on the CPU that used most.
    #[serde(default)]
    pub cpu_slots_used_max: u64,
    /// Spill log entries of all CPUs.
    pub spill_entries: u64,
    /// Spill log entries in use on all CPUs.
    #[serde(default)]
    pub spill_entries_used: u64,
    /// Memory of all generations, on all CPUs.
    pub memory_bytes: u64,
}

impl TableReport {
    const fn new(snapshot: &Snapshot) -> Self {
        let occupancy = &snapshot.occupancy;
        Self {
            slots: occupancy.slots,
            slots_used: occupancy.slots_used,
            cpu_slots: occupancy.slots_per_cpu,
            cpu_slots_used_max: occupancy.slots_used_max,
            spill_entries: occupancy.spill,
            spill_entries_used: occupancy.spill_used,
            memory_bytes: snapshot.table_bytes,
        }
    }
}

/// How the drains went.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DrainReport {
    /// Time between drains.
    pub interval_milliseconds: u64,
    /// Successful drains.
    pub succeeded: u64,
    /// Mean duration of the successful drains; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_duration_microseconds: Option<u64>,
    /// Time since the last successful drain; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_age_milliseconds: Option<u64>,
}

impl DrainReport {
    fn new(snapshot: &Snapshot, now: Instant) -> Self {
        let drains = &snapshot.drains;
        let succeeded = drains.count();
        let mean = u32::try_from(succeeded).ok().and_then(|count| drains.duration_sum.checked_div(count));
        let age = drains.last_success.map(|(ended, _)| now.saturating_duration_since(ended));
        Self {
            interval_milliseconds: milliseconds(snapshot.interval),
            succeeded,
            mean_duration_microseconds: mean.and_then(|mean| u64::try_from(mean.as_micros()).ok()),
            last_success_age_milliseconds: age.map(milliseconds),
        }
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::records::drain::Totals;
    use crate::serve::snapshot::example::example;

    #[test]
    fn what_an_indicator_matched_is_in_no_report() {
        let mut snapshot = example();
        snapshot.ledger.add(&Totals { selected: [(1001, 3)].into(), ..Totals::default() });
        let json = serde_json::to_value(Report::new(&snapshot)).expect("a report is JSON");
        assert_eq!(json["ledger"].get("selected"), None);
        assert!(!json.to_string().contains("1001"), "{json:#}");
    }

    #[test]
    fn a_report_survives_its_own_json() {
        let report = Report::new(&example());
        let json = serde_json::to_string(&report).expect("a report is JSON");
        let read: Report = serde_json::from_str(&json).expect("a report is read back");
        assert_eq!(serde_json::to_string(&read).expect("a report is JSON"), json);
        assert!(read.ledger.balanced);
    }
}
