//! The view without a terminal: once, as a table.

use std::fmt::Write as _;

use super::View;
use super::rows::{Column, Row};
use crate::support::units::scaled;

/// The cells of a row, in the order of the columns.
pub fn cells(row: &Row) -> [String; Column::ALL.len()] {
    [
        row.name.clone(),
        row.state.clone(),
        scaled(row.packets_per_second),
        scaled(row.bits_per_second),
        row.seen.to_string(),
        row.counted.to_string(),
        row.faults.to_string(),
    ]
}

impl View {
    /// The report's table, and below it the rates of the interfaces.
    pub fn plain(&self) -> String {
        let mut text = self.restricted().map_or_else(String::new, |report| report.table());
        let titles = Column::ALL.map(|column| column.title().to_owned());
        for cells in std::iter::once(titles).chain(self.rows().iter().map(cells)) {
            let [name, state, packets, bits, seen, counted, faults] = cells;
            // Writing to a string cannot fail.
            let line = format!(
                "{name:<16} {state:<14} {:>10} {:>10} {seen:>14} {counted:>14} {faults:>8}",
                packets.trim_end(),
                bits.trim_end()
            );
            writeln!(text, "{line}").unwrap_or_default();
        }
        text
    }
}
