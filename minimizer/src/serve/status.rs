//! What a running agent says about itself: the report behind `/status`, and the verb that asks for it.

mod rates;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::delivery::account::Account;
use crate::kernel::attach::Action;
use crate::serve::snapshot::{InForce, Reloads, Snapshot};
/// For those who speak HTTP where TLS is spoken.
pub const TLS_IS_SPOKEN: &str = "TLS is spoken here: ask with https://\n";

pub use rates::{Course, InterfaceCourse, Rates};

/// Longest time to wait for an agent on this host.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read; a report of 32 interfaces is a tenth of it.
const ANSWER_OCTETS_MAX: u64 = 1 << 20;

/// State of a running agent, as `/status` gives it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// SHA-256 of the kernel object, in hexadecimal.
    pub object_sha256: String,
    /// The kernel's digest of the loaded program, in hexadecimal.
    pub program_tag: String,
    /// Number of the agent's process.
    pub process: u32,
    /// The policy in force.
    pub policy: PolicyReport,
    /// When the agent started, in milliseconds since 1970.
    pub started_milliseconds: u64,
    /// Time since then.
    pub uptime_milliseconds: u64,
    /// Whether the last successful drain is at most three intervals old.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Watched interfaces.
    pub interfaces: Vec<InterfaceReport>,
    /// The flow table.
    pub table: TableReport,
    /// The drains.
    pub drains: DrainReport,
    /// Records handed over.
    pub exported_records: u64,
    /// What became of what each sink was offered.
    #[serde(default)]
    pub sinks: Vec<Account>,
    /// The last drains.
    #[serde(default)]
    pub course: Course,
    /// The ledger, in the format of a ledger file.
    pub ledger: Value,
}

/// The policy in force.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PolicyReport {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// Names of its recipients.
    pub recipients: Vec<String>,
    /// Number of its mandate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// When the mandate begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Timestamp>,
    /// When the mandate ends, and the agent with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// Why nothing is attached although the mandate has not ended: the clock of the host is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Prefixes of its scope.
    pub prefixes: usize,
    /// Indicators, expired ones included.
    pub indicators: usize,
    /// How often another policy was put in force.
    pub reloads: u64,
    /// How often a policy could not be put in force and the one before stayed.
    pub reload_failures: u64,
    /// Why the latest reload failed; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_error: Option<String>,
}

impl PolicyReport {
    fn new(policy: &InForce, reloads: &Reloads, paused: Option<&str>) -> Self {
        let mandate = policy.mandate.as_ref();
        Self {
            name: policy.name.clone(),
            sha256: policy.digest.clone(),
            recipients: policy.recipients.clone(),
            mandate: mandate.map(|mandate| mandate.id.clone()),
            valid_from: mandate.map(|mandate| mandate.valid_from),
            valid_until: mandate.map(|mandate| mandate.valid_until),
            paused: paused.map(str::to_owned),
            prefixes: policy.prefixes,
            indicators: policy.indicators,
            reloads: reloads.succeeded,
            reload_failures: reloads.failed,
            reload_error: reloads.error.clone(),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{}, sha256 {}, for {}", self.name, self.sha256, self.recipients.join(", "));
        if let (Some(mandate), Some(until)) = (&self.mandate, self.valid_until) {
            line += &format!(", mandate {mandate} until {until}");
        }
        line
    }
}

/// A watched interface.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InterfaceReport {
    /// Name.
    pub name: String,
    /// `native`, `skb`, or absent when nothing is attached (any more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether every frame is dropped once it is counted.
    #[serde(default)]
    pub tap: bool,
    /// Whether the interface is up.
    #[serde(default)]
    pub up: bool,
    /// The kernel's number of the interface, when it is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_index: Option<u32>,
    /// The kernel's number of the program, when it is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_id: Option<u32>,
    /// Why it is not attached, or why the attachment is of no use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it saw between the last two drains; absent before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
}

/// How full the flow table was at the last drain.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TableReport {
    /// Slots, all CPUs.
    pub slots: u64,
    /// Slots in use.
    pub slots_used: u64,
    /// Slots of one CPU.
    #[serde(default)]
    pub cpu_slots: u64,
    /// Slots in use on the CPU that used most.
    #[serde(default)]
    pub cpu_slots_used_max: u64,
    /// Spill log entries, all CPUs.
    pub spill_entries: u64,
    /// Spill log entries in use.
    pub spill_entries_used: u64,
    /// Memory of all generations.
    pub memory_bytes: u64,
}

/// How the drains went.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DrainReport {
    /// Time between drains.
    pub interval_milliseconds: u64,
    /// Drains that succeeded.
    pub succeeded: u64,
    /// Mean duration of the successful ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_duration_microseconds: Option<u64>,
    /// Time since the last successful one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_age_milliseconds: Option<u64>,
}

impl Report {
    /// The report of a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let not_ready = snapshot.ready(now).err().map(|reason| reason.to_string());
        let started = snapshot.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (drains, occupancy) = (&snapshot.drains, &snapshot.occupancy);
        let succeeded = drains.count();
        let mean = u32::try_from(succeeded).ok().and_then(|count| drains.duration_sum.checked_div(count));
        let age = drains.last_success.map(|(ended, _)| now.saturating_duration_since(ended));
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
            interfaces: snapshot
                .watched
                .iter()
                .map(|watched| InterfaceReport {
                    name: watched.name.clone(),
                    mode: watched.attached.map(|attached| attached.mode.name().to_owned()),
                    tap: watched.action == Action::Drop,
                    up: watched.up,
                    if_index: watched.attached.map(|attached| attached.if_index),
                    program_id: watched.attached.map(|attached| attached.program_id),
                    reason: watched.reason.clone(),
                    rates: snapshot
                        .history
                        .latest()
                        .and_then(|drained| Some(Rates::new(drained, drained.of(&watched.name)?))),
                })
                .collect(),
            table: TableReport {
                slots: occupancy.slots,
                slots_used: occupancy.slots_used,
                cpu_slots: occupancy.slots_per_cpu,
                cpu_slots_used_max: occupancy.slots_used_max,
                spill_entries: occupancy.spill,
                spill_entries_used: occupancy.spill_used,
                memory_bytes: snapshot.table_bytes,
            },
            drains: DrainReport {
                interval_milliseconds: milliseconds(snapshot.interval),
                succeeded,
                mean_duration_microseconds: mean.and_then(|mean| u64::try_from(mean.as_micros()).ok()),
                last_success_age_milliseconds: age.map(milliseconds),
            },
            exported_records: snapshot.exported_records(),
            sinks: snapshot.ledger.sinks().to_vec(),
            course: Course::new(&snapshot.history),
            ledger: serde_json::to_value(&snapshot.ledger).unwrap_or_default(),
        }
    }

    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a string cannot fail.
            writeln!(text, "{name:<12} {value}").unwrap_or_default();
        };
        row("agent", format!("minimizer {}, up {}", self.version, span(self.uptime_milliseconds)));
        row("program", format!("tag {}, object sha256 {}", self.program_tag, self.object_sha256));
        row("policy", self.policy.line());
        if let Some(error) = &self.policy.reload_error {
            row("", format!("the latest reload failed, and this policy stays: {error}"));
        }
        if let Some(reason) = &self.policy.paused {
            row("", format!("paused: {reason}"));
        }
        row("ready", self.not_ready.as_ref().map_or("yes".to_owned(), |reason| format!("no: {reason}")));
        let drains = &self.drains;
        let age = drains.last_success_age_milliseconds.map_or("never".to_owned(), |age| span(age) + " ago");
        let mean = drains.mean_duration_microseconds.map_or("-".to_owned(), |mean| format!("{mean} µs"));
        let every = span(drains.interval_milliseconds);
        row("drains", format!("{} done, last {age}, mean {mean}, every {every}", drains.succeeded));
        row(
            "flow table",
            format!(
                "{} of {} slots, on the fullest CPU {} of {}, {} of {} spill entries, {} MiB",
                self.table.slots_used,
                self.table.slots,
                self.table.cpu_slots_used_max,
                self.table.cpu_slots,
                self.table.spill_entries_used,
                self.table.spill_entries,
                self.table.memory_bytes >> 20
            ),
        );
        for interface in &self.interfaces {
            let tap = if interface.tap { ", tap" } else { "" };
            let mode = interface.mode.as_deref().unwrap_or("not attached").to_owned() + tap;
            let totals = &self.ledger["interfaces"][&interface.name];
            let mut outcomes = String::new();
            for (name, count) in totals["outcomes"].as_object().into_iter().flatten() {
                let packets = packets(count);
                if packets != 0 {
                    write!(outcomes, ", {name} {packets}").unwrap_or_default();
                }
            }
            let state = if interface.up || interface.mode.is_none() { "" } else { ", down" };
            let unwatched = totals["unwatched_times"].as_u64().map_or(String::new(), |times| {
                let seconds = totals["unwatched_seconds"].as_f64().unwrap_or(0.0);
                format!(", unwatched {times} times for {seconds:.1} s")
            });
            let seen = packets(&totals["seen"]);
            row(&interface.name, format!("{mode}{state}, seen {seen}{outcomes}{unwatched}"));
            if let Some(reason) = &interface.reason {
                row(
                    "",
                    if interface.mode.is_some() { reason.clone() } else { format!("not attached: {reason}") },
                );
            }
        }
        let [exported, suppressed, overflow] = ["exported", "suppressed", "overflow"].map(|name| {
            let counts = &self.ledger[name];
            format!("{} packets, {} octets", packets(&counts["packets"]), packets(&counts["octets"]))
        });
        for sink in &self.sinks {
            let lost: u64 = sink.dropped.values().map(|tally| tally.packets).sum();
            let lost = if lost == 0 { String::new() } else { format!(", {lost} packets dropped") };
            let (exported, queued) = (sink.exported.packets + sink.suppressed.packets, sink.queued.packets);
            let state = if sink.failing.is_none() { "works" } else { "FAILS" };
            row(
                "sink",
                format!(
                    "{} ({} for {}) {state}, {exported} packets exported, {queued} queued{lost}",
                    sink.name, sink.kind, sink.recipient
                ),
            );
            if let Some(failing) = &sink.failing {
                row("", format!("{}: {}", failing.reason, failing.message));
            }
        }
        row("exported", format!("{} records, {exported}", self.exported_records));
        row("suppressed", suppressed);
        row("overflow", overflow);
        let balanced = self.ledger["balanced"].as_bool() == Some(true);
        row("ledger", if balanced { "balanced" } else { "NOT BALANCED" }.to_owned());
        text
    }
}

/// A count of the ledger; an outcome with reasons is the sum of its reasons.
pub(crate) fn packets(count: &Value) -> u64 {
    match count {
        Value::Object(reasons) => reasons.values().map(packets).sum(),
        count => count.as_u64().unwrap_or(0),
    }
}

/// A time span as people say it.
pub(crate) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..10 => format!("{seconds}.{} s", milliseconds / 100 % 10),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Why no report was had.
#[derive(Debug, Error)]
pub enum StatusError {
    /// Nothing answers.
    #[error(
        "no agent answers at {address}: {source}; start one with 'minimizer run -i INTERFACE', or name the \
         address of a running one with '--listen'"
    )]
    NoAgent {
        /// Where it was asked.
        address: SocketAddr,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// Its web configuration holds there.
    #[error(
        "the agent at {address} asks for a certificate or a password, which its web configuration says; give it an \
         address for this host beside the other, 'minimizer run … --listen http://127.0.0.1:{}', and name that with \
         '--listen'", .address.port().saturating_add(1)
    )]
    Guarded {
        /// Where it was asked.
        address: SocketAddr,
    },
    /// Something else answers.
    #[error(
        "what answers at {address} is not a minimizer agent: {evidence}; name the address of the agent with \
         '--listen'"
    )]
    NotAnAgent {
        /// Where it was asked.
        address: SocketAddr,
        /// What is wrong with the answer.
        evidence: String,
    },
}

/// Asks the agent that listens on `address`.
///
/// # Errors
/// When nothing, or something else, answers there.
pub fn ask(address: SocketAddr) -> Result<Report, StatusError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // The agent is on this host: a proxy in the environment is for other things.
        .proxy(None)
        .max_redirects(0)
        .build()
        .into();
    let no_agent = |source| StatusError::NoAgent { address, source: Box::new(source) };
    let not_an_agent = |evidence| StatusError::NotAnAgent { address, evidence };
    let mut answer = match agent.get(format!("http://{address}/status")).call() {
        Err(error @ ureq::Error::Protocol(_)) => return Err(not_an_agent(error.to_string())),
        answer => answer.map_err(no_agent)?,
    };
    let guarded = StatusError::Guarded { address };
    match answer.status().as_u16() {
        401 => return Err(guarded),
        400 if answer.body_mut().read_to_string().is_ok_and(|body| body == TLS_IS_SPOKEN) => {
            return Err(guarded);
        }
        _ => {}
    }
    if answer.status() != 200 {
        return Err(not_an_agent(format!("it says {}", answer.status())));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_OCTETS_MAX).read_to_string();
    let body = body.map_err(|error| not_an_agent(error.to_string()))?;
    serde_json::from_str(&body).map_err(|error| not_an_agent(error.to_string()))
}

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;

    use super::{Report, span};
    use crate::serve::snapshot::tests::example;

    #[test]
    fn a_report_survives_its_own_json() {
        let report = Report::new(&example());
        let json = serde_json::to_string(&report).expect("a report is JSON");
        let read: Report = serde_json::from_str(&json).expect("a report is read back");
        assert_eq!(serde_json::to_string(&read).expect("a report is JSON"), json);
        assert_eq!(read.ledger["balanced"], true);
    }

    #[test]
    fn the_table_shows_every_interface_and_whether_the_ledger_balances() {
        let table = Report::new(&example()).table();
        let packets = || Outcome::ALL.iter().zip(101..);
        let seen = packets().map(|(_, packets)| packets).sum::<u64>();
        let malformed = packets().filter(|(outcome, _)| outcome.name() == "malformed");
        let malformed = malformed.map(|(_, packets)| packets).sum::<u64>();
        for part in [
            "eth\"0\\",
            &format!("native, seen {seen}, counted 101"),
            &format!("malformed {malformed}"),
            "not attached, tap, seen 0, unwatched 7 times for 2.8 s",
            "not attached: there is no such interface",
            "ledger       balanced",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
    }

    #[test]
    fn spans_are_short() {
        let cases =
            [(40, "0.0 s"), (2_560, "2.5 s"), (12_700, "12 s"), (180_000, "3 min"), (7_261_000, "2 h 1 min")];
        for (milliseconds, text) in cases {
            assert_eq!(span(milliseconds), text);
        }
    }
}
