//! The live view: rates, outcomes and top flows of the last interval, redrawn in place on a terminal.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tuple;
use rustix::termios::tcgetwinsize;

use crate::commands::text;
use crate::delivery::ledger::Ledger;
use crate::policy::field::Fields;
use crate::records::drain::Totals;
use crate::records::record::Record;
use crate::support::units::scaled;

/// Most flows shown, however high the terminal.
const FLOWS_MAX: usize = 20;
/// Fewest flows shown, however low the terminal.
const FLOWS_MIN: usize = 3;
/// Terminal size when it cannot be asked for.
const SIZE_DEFAULT: (usize, usize) = (24, 80);

/// Shows each interval on the standard output.
#[derive(Debug)]
pub struct Live {
    is_terminal: bool,
    lines_drawn: usize,
    start: Instant,
    latest: Instant,
}

/// What is shown of one interval.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'batch> {
    /// The drain's totals.
    pub totals: &'batch Totals,
    /// Number of records that the recipient gets.
    pub records: usize,
    /// The records with the most octets, largest first: as many as can be shown.
    pub top: &'batch [Record],
    /// Their fields.
    pub fields: Fields,
}

/// Rates of an interval.
struct Rates {
    packets_per_second: f64,
    ip_bits_per_second: f64,
}

impl Live {
    /// A view on the standard output: redrawn in place on a terminal, otherwise one line per interval.
    #[must_use]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { is_terminal: io::stdout().is_terminal(), lines_drawn: 0, start: now, latest: now }
    }

    /// Whether the view is redrawn in place.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows the latest interval and the totals since the start.
    ///
    /// # Errors
    /// What writing to the standard output answers.
    pub fn show(&mut self, title: &str, interval: &Interval<'_>, ledger: &Ledger) -> io::Result<()> {
        let now = Instant::now();
        let rates = Rates::of(interval.totals, now - self.latest);
        self.latest = now;
        let elapsed = now - self.start;
        if !self.is_terminal {
            return writeln!(io::stdout().lock(), "{}", line(elapsed, &rates, interval.records, ledger));
        }
        let (rows, columns) = terminal_size();
        let screen = screen(title, elapsed, &rates, interval, ledger, rows);
        let mut out = io::stdout().lock();
        let mut text = String::new();
        if self.lines_drawn > 0 {
            // Move up to the first line of the previous screen, and clear from there.
            let _infallible = write!(text, "\x1b[{}A\x1b[J", self.lines_drawn);
        }
        for line in &screen {
            text.extend(line.chars().take(columns));
            text.push('\n');
        }
        self.lines_drawn = screen.len();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl Rates {
    fn of(totals: &Totals, interval: Duration) -> Self {
        let seconds = interval.as_secs_f64().max(f64::MIN_POSITIVE);
        let packets: u64 = totals.interfaces.iter().map(|totals| totals.seen_packets).sum();
        let octets: u64 = totals.interfaces.iter().map(|totals| totals.octets_counted).sum();
        Self {
            packets_per_second: packets as f64 / seconds,
            ip_bits_per_second: octets as f64 * 8.0 / seconds,
        }
    }
}

fn terminal_size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
        _ => SIZE_DEFAULT,
    }
}

/// Packets since the start by outcome, summed over reasons. Outcomes that did not occur are omitted.
fn outcomes(ledger: &Ledger) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for outcome in Outcome::ALL {
        let packets: u64 = ledger.interfaces().map(|(_, totals)| totals.outcome(*outcome)).sum();
        match sums.iter_mut().find(|(name, _)| *name == outcome.name()) {
            Some((_, sum)) => *sum += packets,
            None => sums.push((outcome.name(), packets)),
        }
    }
    sums.retain(|(_, packets)| *packets != 0);
    sums
}

fn seen(ledger: &Ledger) -> u64 {
    ledger.interfaces().map(|(_, totals)| totals.seen_packets).sum()
}

/// One line per interval, for logs and pipes.
fn line(elapsed: Duration, rates: &Rates, records: usize, ledger: &Ledger) -> String {
    let mut line = format!(
        "{:>6.1} s  {:>12} packets seen, {}packets/s, {}bit/s of IP, {} records",
        elapsed.as_secs_f64(),
        seen(ledger),
        scaled(rates.packets_per_second),
        scaled(rates.ip_bits_per_second),
        records
    );
    for (name, packets) in outcomes(ledger) {
        let _infallible = write!(line, ", {name} {packets}");
    }
    line
}

fn screen(
    title: &str,
    elapsed: Duration,
    rates: &Rates,
    interval: &Interval<'_>,
    ledger: &Ledger,
    rows: usize,
) -> Vec<String> {
    let seen = seen(ledger);
    let occupancy = &interval.totals.occupancy;
    let mut lines = vec![
        format!("minimizer  {title}  ({:.0} s so far)", elapsed.as_secs_f64()),
        format!(
            "{}packets/s  {}bit/s of IP  {} records  table {:.1} % full",
            scaled(rates.packets_per_second),
            scaled(rates.ip_bits_per_second),
            interval.records,
            share(occupancy.slots_used, occupancy.slots)
        ),
        String::new(),
        format!("{:<16} {:>16} {:>8}", "SINCE START", "PACKETS", "SHARE"),
        format!("{:<16} {seen:>16}", "seen"),
    ];
    for (name, packets) in outcomes(ledger) {
        lines.push(format!("  {name:<14} {packets:>16} {:>6.2} %", share(packets, seen)));
    }
    lines.push(String::new());
    lines.push("TOP FLOWS OF THE INTERVAL, BY IP OCTETS".to_owned());
    lines.push(format!(
        "{:<10} {:>5} {:>9} {:>12}  {:<40} {:<40}",
        "PROTOCOL", "VLAN", "PACKETS", "IP OCTETS", "SOURCE", "DESTINATION"
    ));
    // Keep one line free for the cursor.
    let room = rows.saturating_sub(lines.len() + 1).clamp(FLOWS_MIN, FLOWS_MAX);
    lines.extend(interval.top.iter().take(room).map(|record| flow(record, interval.fields)));
    lines
}

/// Keeps the records with the most octets.
#[derive(Debug, Default)]
pub struct Top(Vec<Record>);

impl Top {
    /// Adds records.
    pub fn add(&mut self, records: &[Record]) {
        self.0.extend_from_slice(records);
        if FLOWS_MAX < self.0.len() {
            self.0.select_nth_unstable_by_key(FLOWS_MAX, rank);
            self.0.truncate(FLOWS_MAX);
        }
    }

    /// The records that can be shown, largest first.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Record> {
        self.0.sort_unstable_by_key(rank);
        self.0
    }
}

fn rank(record: &Record) -> (Reverse<u64>, Tuple) {
    (Reverse(record.octets), record.tuple)
}

fn flow(record: &Record, fields: Fields) -> String {
    let (source, destination) = text::endpoints(record, fields);
    let vlan = record.tuple.tags().vlan_id().map_or_else(String::new, |vlan_id| vlan_id.to_string());
    format!(
        "{:<10} {vlan:>5} {:>9} {:>12}  {source:<40} {destination:<40}",
        text::protocol(record, fields),
        record.packets,
        record.octets
    )
}

/// A percentage; 0 of 0 is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use minimizer_common::tuple::{Tags, Tuple};

    use super::{FLOWS_MAX, Top};
    use crate::records::record::Record;

    #[test]
    fn the_top_is_sorted_and_complete() {
        let record = |port: u16, octets| Record {
            tuple: Tuple::new([0; 4], (port, 0), Tags::NONE, 17, 0),
            ingress_interface: 1,
            control_bits: 0,
            packets: 1,
            octets,
            start_ms: 0,
            end_ms: 0,
            selector_id: 0,
        };
        let records: Vec<_> = (0..100).map(|port| record(port, u64::from(port * 37 % 100))).collect();
        for size in [1, 7, FLOWS_MAX, 100] {
            let mut top = Top::default();
            records.chunks(size).for_each(|chunk| top.add(chunk));
            let octets: Vec<_> = top.into_sorted().iter().map(|record| record.octets).collect();
            assert_eq!(octets, (80..100).rev().collect::<Vec<_>>());
        }
        let mut top = Top::default();
        top.add(&records[..3]);
        assert_eq!(top.into_sorted().len(), 3);
    }
}
