//! The rows of the interface table: which, in which order, with which numbers.

use std::cmp::Ordering;

use super::TopView;
use crate::delivery::history::OUTCOMES;
use crate::serve::status::{InterfaceReport, Report};

/// A column of the table. The table is sorted by one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableColumn {
    /// Name of the interface.
    Name,
    /// How it is attached.
    State,
    /// Packets per second.
    #[default]
    Packets,
    /// Bits per second.
    Bits,
    /// Packets since the start.
    Seen,
    /// Packets since the start that are in records.
    Counted,
    /// Packets since the start that could not be put into records: malformed, unsupported, overflow.
    Faults,
}

impl TableColumn {
    /// All columns, from left to right.
    pub const ALL: [Self; 7] =
        [Self::Name, Self::State, Self::Packets, Self::Bits, Self::Seen, Self::Counted, Self::Faults];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Name => "INTERFACE",
            Self::State => "STATE",
            Self::Packets => "PACKETS/S",
            Self::Bits => "BIT/S",
            Self::Seen => "SEEN",
            Self::Counted => "COUNTED",
            Self::Faults => "FAULTS",
        }
    }

    /// The column to its right; the first after the last.
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

/// An interface in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceRow {
    pub name: String,
    pub state: String,
    pub is_well: bool,
    pub packets_per_second: f64,
    pub bits_per_second: f64,
    pub seen: u64,
    pub counted: u64,
    pub faults: u64,
}

impl InterfaceRow {
    fn new(report: &Report, interface: &InterfaceReport) -> Self {
        let totals = report.ledger.interface(&interface.name);
        let outcome = |name: &str| totals.outcome(name);
        let rates = interface.rates.clone().unwrap_or_default();
        Self {
            name: interface.name.clone(),
            state: interface.state(),
            is_well: interface.mode.is_some() && interface.up,
            packets_per_second: rates.packets_per_second,
            bits_per_second: rates.octets_per_second * 8.0,
            seen: totals.seen,
            counted: outcome("counted"),
            faults: ["malformed", "unsupported", "overflow"].map(outcome).iter().sum(),
        }
    }

    /// Names in alphabetical order, numbers from the largest to the smallest.
    fn order(&self, other: &Self, column: TableColumn) -> Ordering {
        match column {
            TableColumn::Name => self.name.cmp(&other.name),
            TableColumn::State => self.state.cmp(&other.state),
            TableColumn::Packets => other.packets_per_second.total_cmp(&self.packets_per_second),
            TableColumn::Bits => other.bits_per_second.total_cmp(&self.bits_per_second),
            TableColumn::Seen => other.seen.cmp(&self.seen),
            TableColumn::Counted => other.counted.cmp(&self.counted),
            TableColumn::Faults => other.faults.cmp(&self.faults),
        }
    }
}

impl TopView {
    /// Whether the user asked for this interface.
    fn is_wanted(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// The rows to show, sorted.
    pub fn rows(&self) -> Vec<InterfaceRow> {
        let Some(report) = &self.report else { return Vec::new() };
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<_> = report
            .interfaces
            .iter()
            .filter(|interface| self.is_wanted(&interface.name))
            .map(|interface| InterfaceRow::new(report, interface))
            .filter(|row| row.name.to_lowercase().contains(&filter) || row.state.contains(&filter))
            .collect();
        rows.sort_by(|one, other| {
            let order = one.order(other, self.sort);
            let order = if self.is_reversed { order.reverse() } else { order };
            order.then_with(|| one.name.cmp(&other.name))
        });
        rows
    }

    /// The place of the selected interface in these rows; the first place when it is not among them.
    pub fn selected_place(&self, rows: &[InterfaceRow]) -> usize {
        let is_selected = |row: &InterfaceRow| self.selected.as_ref() == Some(&row.name);
        rows.iter().position(is_selected).unwrap_or(0)
    }

    /// Packets since the start and packets per second by outcome, of all interfaces that the user asked for.
    pub fn outcomes(&self) -> Vec<(&'static str, u64, f64)> {
        let Some(report) = &self.report else { return Vec::new() };
        let wanted = || report.interfaces.iter().filter(|interface| self.is_wanted(&interface.name));
        let mut outcomes = Vec::new();
        for name in OUTCOMES {
            let of = |interface: &InterfaceReport| report.ledger.interface(&interface.name).outcome(name);
            let rate = |interface: &InterfaceReport| {
                interface.rates.as_ref().and_then(|rates| rates.outcomes_per_second.get(name)).copied()
            };
            let (packets, rate) = (wanted().map(of).sum::<u64>(), wanted().filter_map(rate).sum::<f64>());
            if packets != 0 {
                outcomes.push((name, packets, rate));
            }
        }
        outcomes
    }

    /// The report, with only those interfaces that the user asked for.
    pub fn restricted(&self) -> Option<Report> {
        let mut report = self.report.clone()?;
        report.interfaces.retain(|interface| self.is_wanted(&interface.name));
        report.course.interfaces.retain(|name, _| self.is_wanted(name));
        report.ledger.interfaces.retain(|name, _| self.is_wanted(name));
        Some(report)
    }
}
