//! The rows of the interface table: which, in which order, with which numbers.

use std::cmp::Ordering;

use super::View;
use crate::delivery::history::OUTCOMES;
use crate::serve::status::{InterfaceReport, Report, packets};

/// By what the table is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
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
    /// Those of them that are in records.
    Counted,
    /// Those of them that could not be counted: malformed, unsupported, overflow.
    Faults,
}

impl Column {
    /// In the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Name, Self::State, Self::Packets, Self::Bits, Self::Seen, Self::Counted, Self::Faults];

    /// What is above it.
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

    /// The one to its right; after the last, the first.
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

/// One interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: String,
    pub state: String,
    pub is_well: bool,
    pub packets_per_second: f64,
    pub bits_per_second: f64,
    pub seen: u64,
    pub counted: u64,
    pub faults: u64,
}

impl Row {
    fn new(report: &Report, interface: &InterfaceReport) -> Self {
        let totals = &report.ledger["interfaces"][&interface.name];
        let outcome = |name: &str| packets(&totals["outcomes"][name]);
        let mut state = interface.mode.clone().unwrap_or_else(|| "not attached".to_owned());
        if interface.tap {
            state += ", tap";
        }
        if interface.mode.is_some() && !interface.up {
            state += ", down";
        }
        let rates = interface.rates.clone().unwrap_or_default();
        Self {
            name: interface.name.clone(),
            state,
            is_well: interface.mode.is_some() && interface.up,
            packets_per_second: rates.packets_per_second,
            bits_per_second: rates.octets_per_second * 8.0,
            seen: packets(&totals["seen"]),
            counted: outcome("counted"),
            faults: ["malformed", "unsupported", "overflow"].map(outcome).iter().sum(),
        }
    }

    /// Names from the first, numbers from the largest.
    fn order(&self, other: &Self, column: Column) -> Ordering {
        match column {
            Column::Name => self.name.cmp(&other.name),
            Column::State => self.state.cmp(&other.state),
            Column::Packets => other.packets_per_second.total_cmp(&self.packets_per_second),
            Column::Bits => other.bits_per_second.total_cmp(&self.bits_per_second),
            Column::Seen => other.seen.cmp(&self.seen),
            Column::Counted => other.counted.cmp(&self.counted),
            Column::Faults => other.faults.cmp(&self.faults),
        }
    }
}

impl View {
    /// Whether an interface was asked for.
    fn is_wanted(&self, name: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// The rows that are shown, sorted.
    pub fn rows(&self) -> Vec<Row> {
        let Some(report) = &self.report else { return Vec::new() };
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<_> = report
            .interfaces
            .iter()
            .filter(|interface| self.is_wanted(&interface.name))
            .map(|interface| Row::new(report, interface))
            .filter(|row| row.name.to_lowercase().contains(&filter) || row.state.contains(&filter))
            .collect();
        rows.sort_by(|one, other| {
            let order = one.order(other, self.sort);
            let order = if self.is_reversed { order.reverse() } else { order };
            order.then_with(|| one.name.cmp(&other.name))
        });
        rows
    }

    /// Place of the selected interface in these rows; the first when it is not among them.
    pub fn selected_place(&self, rows: &[Row]) -> usize {
        let is_selected = |row: &Row| self.selected.as_ref() == Some(&row.name);
        rows.iter().position(is_selected).unwrap_or(0)
    }

    /// Packets since the start by outcome, of all interfaces that were asked for.
    pub fn outcomes(&self) -> Vec<(&'static str, u64, f64)> {
        let Some(report) = &self.report else { return Vec::new() };
        let wanted = || report.interfaces.iter().filter(|interface| self.is_wanted(&interface.name));
        let mut outcomes = Vec::new();
        for name in OUTCOMES {
            let of = |interface: &InterfaceReport| {
                packets(&report.ledger["interfaces"][&interface.name]["outcomes"][name])
            };
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

    /// The report without the interfaces that were not asked for.
    pub fn restricted(&self) -> Option<Report> {
        let mut report = self.report.clone()?;
        report.interfaces.retain(|interface| self.is_wanted(&interface.name));
        report.course.interfaces.retain(|name, _| self.is_wanted(name));
        if let Some(interfaces) = report.ledger["interfaces"].as_object_mut() {
            interfaces.retain(|name, _| self.is_wanted(name));
        }
        Some(report)
    }
}
