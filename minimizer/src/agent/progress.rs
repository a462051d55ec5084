//! Progress: what the agent tells while it runs.

use std::time::Duration;

use crate::delivery::ledger::Ledger;
use crate::interfaces::slot::Watched;
use crate::kernel::cost::Cost;
use crate::records::drain::Totals;

/// What the agent tells after each drain, and when interfaces have changed.
#[derive(Debug)]
pub struct Progress<'drain> {
    /// Totals since the start.
    pub ledger: &'drain Ledger,
    /// The watched interfaces, in the order of the ledger.
    pub watched: Vec<Watched>,
    /// Why nothing is attached although the mandate has not ended: the wall clock is wrong.
    pub paused: Option<&'drain str>,
    /// How many selected interfaces found no slot.
    pub refused: usize,
    /// What the drain found beside the records, and how long it took with flip, copy, zeroing and merge; `None` when there was
    /// no drain.
    pub drained: Option<(&'drain Totals, Duration)>,
    /// Memory of the flow tables, in octets.
    pub table_bytes: u64,
    /// What the loaded programs cost, by name. Empty where the kernel does not measure it.
    pub costs: Vec<(&'static str, Cost)>,
}
