//! The report as text for people.

use std::fmt::Write as _;

use super::{CountsReport, InterfaceReport, Report};
use crate::delivery::account::{Account, SinkState};

/// Lines that each begin with a name; a line without one continues the line before.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        writeln!(self.0, "{name:<12} {value}").unwrap_or_default();
    }
}

impl Report {
    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines = Lines::default();
        self.push_agent(&mut lines);
        for interface in &self.interfaces {
            self.push_interface(&mut lines, interface);
        }
        if self.withheld {
            for sink in &self.sinks {
                let Account { name, kind, recipient, .. } = sink;
                lines.push("sink", &format!("{name} ({kind} for {recipient}) {}", state(sink)));
            }
            lines.push("counts", "are told to root and to the user of the agent");
            lines.push("ledger", if self.ledger.balanced { "balanced" } else { "NOT BALANCED" });
            return lines.0;
        }
        for sink in &self.sinks {
            push_sink(&mut lines, sink);
        }
        let ledger = &self.ledger;
        let counts = |counts: CountsReport| format!("{} packets, {} octets", counts.packets, counts.octets);
        lines.push("exported", &format!("{} records, {}", self.exported_records, counts(ledger.exported)));
        lines.push("unconfirmed", &format!("{}, of the exported ones", counts(ledger.sent_unconfirmed)));
        lines.push("suppressed", &format!("about {}, of the exported ones", counts(ledger.suppressed)));
        lines.push("overflow", &counts(ledger.overflow));
        lines.push("ledger", if ledger.balanced { "balanced" } else { "NOT BALANCED" });
        lines.0
    }

    fn push_agent(&self, lines: &mut Lines) {
        let (table, drains) = (&self.table, &self.drains);
        lines.push("agent", &format!("minimizer {}, up {}", self.version, span(self.uptime_milliseconds)));
        lines.push("program", &format!("tag {}, object sha256 {}", self.program_tag, self.object_sha256));
        lines.push("policy", &self.policy.line());
        if let Some(error) = &self.policy.reload_error {
            lines.push("", &format!("the latest reload failed, and this policy stays: {error}"));
        }
        if let Some(reason) = &self.policy.paused {
            lines.push("", &format!("paused: {reason}"));
        }
        lines.push(
            "ready",
            &self.not_ready.as_ref().map_or("yes".to_owned(), |reason| format!("no: {reason}")),
        );
        let age = drains.last_success_age_milliseconds.map_or("never".to_owned(), |age| span(age) + " ago");
        let mean = drains.mean_duration_microseconds.map_or("-".to_owned(), |mean| format!("{mean} µs"));
        let every = span(drains.interval_milliseconds);
        if self.withheld {
            lines.push("drains", &format!("{} done, last {age}, every {every}", drains.succeeded));
            let (slots, mebibytes) = (table.slots, table.memory_bytes >> 20);
            return lines.push("flow table", &format!("{slots} slots, {mebibytes} MiB"));
        }
        lines.push("drains", &format!("{} done, last {age}, mean {mean}, every {every}", drains.succeeded));
        lines.push(
            "flow table",
            &format!(
                "{} of {} slots, on the fullest CPU {} of {}, {} of {} spill entries, {} MiB",
                table.slots_used,
                table.slots,
                table.cpu_slots_used_max,
                table.cpu_slots,
                table.spill_entries_used,
                table.spill_entries,
                table.memory_bytes >> 20
            ),
        );
    }

    fn push_interface(&self, lines: &mut Lines, interface: &InterfaceReport) {
        let totals = self.ledger.interface(&interface.name);
        let mut line = interface.state();
        if !self.withheld {
            write!(line, ", seen {}", totals.seen).unwrap_or_default();
        }
        for (name, outcome) in &totals.outcomes {
            let packets = outcome.packets();
            if packets != 0 {
                write!(line, ", {name} {packets}").unwrap_or_default();
            }
        }
        if let Some(times) = totals.unwatched_times {
            let seconds = totals.unwatched_seconds.unwrap_or(0.0);
            write!(line, ", unwatched {times} times for {seconds:.1} s").unwrap_or_default();
        }
        lines.push(&interface.name, &line);
        if let Some(reason) = &interface.reason {
            let attached = interface.mode.is_some();
            lines.push("", &if attached { reason.clone() } else { format!("not attached: {reason}") });
        }
    }
}

fn push_sink(lines: &mut Lines, sink: &Account) {
    let lost: u64 = sink.dropped.values().map(|tally| tally.packets).sum();
    let lost = if lost == 0 { String::new() } else { format!(", {lost} packets dropped") };
    let (exported, queued) = (sink.exported.packets, sink.queued.packets);
    let state = state(sink);
    let unconfirmed = match sink.sent_unconfirmed.packets {
        0 => String::new(),
        packets => format!(" ({packets} of them unconfirmed)"),
    };
    lines.push(
        "sink",
        &format!(
            "{} ({} for {}) {state}, {exported} packets exported{unconfirmed}, {queued} queued{lost}",
            sink.name, sink.kind, sink.recipient
        ),
    );
    if let Some(failing) = &sink.failing {
        lines.push("", &format!("{}: {}", failing.reason, failing.message));
    }
    if sink.retention_failures != 0 {
        let times = sink.retention_failures;
        lines.push(
            "",
            &format!("{times} times a file could not be deleted whose retention was over: see the log"),
        );
    }
}

/// Whether a sink works, in words.
const fn state(sink: &Account) -> &'static str {
    match sink.state {
        SinkState::Up => "works",
        SinkState::Down => "FAILS",
        SinkState::Unknown => "sends or waits, and nobody confirms",
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

#[cfg(test)]
mod tests {
    use minimizer_common::outcome::Outcome;

    use super::{Report, span};
    use crate::serve::snapshot::example::example;

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
            "soc (ipfix for operations) works, 93 packets exported (26 of them unconfirmed), 6 queued",
            "unconfirmed  22 packets, 2200 octets, of the exported ones",
            "suppressed   about 4 packets, 256 octets, of the exported ones",
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
