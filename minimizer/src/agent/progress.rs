//! What the agent tells while it runs.

use std::time::Duration;

use crate::delivery::ledger::Ledger;
use crate::interfaces::slot::Watched;
use crate::kernel::cost::Cost;
use crate::records::drain::Totals;

/// What is known after each drain, and when interfaces have changed.
#[derive(Debug)]
pub struct Progress<'drain> {
    /// Totals since the start.
    pub ledger: &'drain Ledger,
    /// The watched interfaces, in the order of the ledger's.
    pub watched: Vec<Watched>,
    /// Why nothing is attached although the mandate has not ended: the wall clock is wrong.
    pub paused: Option<&'drain str>,
    /// Interfaces that are selected and find no slot.
    pub refused: usize,
    /// What the drain found beside the records, and how long flip, copy, zeroing and merge took; `None`
    /// when there was none.
    pub drained: Option<(&'drain Totals, Duration)>,
    /// What the loaded programs cost, by name; empty where the kernel does not measure it.
    pub costs: Vec<(&'static str, Cost)>,
}
