//! What is printed when there is no terminal: the report once, as a table.

use std::fmt::Write as _;

use super::TopView;
use super::rows::{InterfaceRow, TableColumn};
use crate::support::units::scaled;

/// The cells of a row, in the order of the columns.
pub fn cells(row: &InterfaceRow) -> [String; TableColumn::ALL.len()] {
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

impl TopView {
    /// The table of the report, followed by the rates of the interfaces.
    pub fn plain(&self) -> String {
        let mut text = self.restricted().map_or_else(String::new, |report| report.table());
        if self.rows().is_empty() {
            text.push_str("no interface is selected by '-i' and the filter\n");
            return text;
        }
        let titles = TableColumn::ALL.map(|column| column.title().to_owned());
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
