//! What everybody on this host may know of the agent: that it runs, under which policy, and whether it is well. No count of packets,
//! octets or flows is in it.

use jiff::Timestamp;
use serde::Serialize;

use super::{InterfaceReport, PolicyReport, Report};
use crate::delivery::account::SinkState;

/// The part of a [`Report`] that tells no counts. It is read back as a report.
#[derive(Debug, Serialize)]
pub struct BasicReport<'report> {
    version: &'report str,
    object_sha256: &'report str,
    program_tag: &'report str,
    process: u32,
    policy: BasicPolicy<'report>,
    started_milliseconds: u64,
    uptime_milliseconds: u64,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready: Option<&'report str>,
    /// Always true.
    withheld: bool,
    interfaces: Vec<InterfaceReport>,
    table: BasicTable,
    drains: BasicDrains,
    sinks: Vec<BasicSink<'report>>,
    ledger: BasicLedger<'report>,
}

#[derive(Debug, Serialize)]
struct BasicPolicy<'report> {
    name: &'report str,
    sha256: &'report str,
    recipients: &'report [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    mandate: Option<&'report str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<&'report str>,
    reloads: u64,
    reload_failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reload_error: Option<&'report str>,
}

impl<'report> From<&'report PolicyReport> for BasicPolicy<'report> {
    fn from(policy: &'report PolicyReport) -> Self {
        Self {
            name: &policy.name,
            sha256: &policy.sha256,
            recipients: &policy.recipients,
            mandate: policy.mandate.as_deref(),
            valid_from: policy.valid_from,
            valid_until: policy.valid_until,
            paused: policy.paused.as_deref(),
            reloads: policy.reloads,
            reload_failures: policy.reload_failures,
            reload_error: policy.reload_error.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct BasicTable {
    slots: u64,
    cpu_slots: u64,
    spill_entries: u64,
    memory_bytes: u64,
}

#[derive(Debug, Serialize)]
struct BasicDrains {
    interval_milliseconds: u64,
    succeeded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_age_milliseconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct BasicSink<'report> {
    name: &'report str,
    recipient: &'report str,
    kind: &'report str,
    state: SinkState,
}

#[derive(Debug, Serialize)]
struct BasicLedger<'report> {
    balanced: bool,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<&'report str>,
}

impl Report {
    /// What everybody on this host may know of it.
    #[must_use]
    pub fn basic(&self) -> BasicReport<'_> {
        let (table, drains, ledger) = (&self.table, &self.drains, &self.ledger);
        let interfaces = self.interfaces.iter().cloned();
        let sinks = self.sinks.iter().map(|sink| BasicSink {
            name: &sink.name,
            recipient: &sink.recipient,
            kind: &sink.kind,
            state: sink.state,
        });
        BasicReport {
            version: &self.version,
            object_sha256: &self.object_sha256,
            program_tag: &self.program_tag,
            process: self.process,
            policy: (&self.policy).into(),
            started_milliseconds: self.started_milliseconds,
            uptime_milliseconds: self.uptime_milliseconds,
            ready: self.ready,
            not_ready: self.not_ready.as_deref(),
            withheld: true,
            interfaces: interfaces.map(|interface| InterfaceReport { rates: None, ..interface }).collect(),
            table: BasicTable {
                slots: table.slots,
                cpu_slots: table.cpu_slots,
                spill_entries: table.spill_entries,
                memory_bytes: table.memory_bytes,
            },
            drains: BasicDrains {
                interval_milliseconds: drains.interval_milliseconds,
                succeeded: drains.succeeded,
                last_success_age_milliseconds: drains.last_success_age_milliseconds,
            },
            sinks: sinks.collect(),
            ledger: BasicLedger {
                balanced: ledger.balanced,
                complete: ledger.complete,
                incomplete: ledger.incomplete.as_deref(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;
    use crate::serve::snapshot::example::example;

    /// All numbers in a value, with the keys that lead to them.
    fn numbers(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Number(_) => found.push(path.to_owned()),
            serde_json::Value::Array(values) => values.iter().for_each(|value| numbers(value, path, found)),
            serde_json::Value::Object(entries) => {
                entries.iter().for_each(|(key, value)| numbers(value, &format!("{path}/{key}"), found));
            }
            _ => {}
        }
    }

    #[test]
    fn no_count_is_told_to_everybody() {
        let json = serde_json::to_value(Report::new(&example()).basic()).expect("is JSON");
        let mut found = Vec::new();
        numbers(&json, "", &mut found);
        found.sort_unstable();
        found.dedup();
        assert_eq!(
            found,
            [
                "/drains/interval_milliseconds",
                "/drains/last_success_age_milliseconds",
                "/drains/succeeded",
                "/interfaces/if_index",
                "/interfaces/program_id",
                "/policy/reload_failures",
                "/policy/reloads",
                "/process",
                "/started_milliseconds",
                "/table/cpu_slots",
                "/table/memory_bytes",
                "/table/slots",
                "/table/spill_entries",
                "/uptime_milliseconds",
            ]
        );
        let read: Report = serde_json::from_value(json).expect("is read as a report");
        let table = read.table();
        assert!(read.withheld && table.contains("counts       are told to root"), "{table}");
        for absent in ["exported", "seen", "queued", "suppressed"] {
            assert!(!table.contains(absent), "{absent} is in\n{table}");
        }
        assert!(
            table.contains("sink         soc (ipfix for operations) works") && table.contains("balanced"),
            "{table}"
        );
    }
}
