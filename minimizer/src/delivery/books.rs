//! The books: the ledger and the accounts of the sinks, shared by the drain, the couriers and whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::delivery::ledger::Ledger;
use crate::delivery::queue::Lane;

/// A handle of the books.
#[derive(Clone)]
pub struct Books {
    ledger: Arc<Mutex<Ledger>>,
    lanes: Arc<[Arc<Lane>]>,
}

impl Books {
    /// Empty books of these lanes.
    #[must_use]
    pub fn new(lanes: Vec<Arc<Lane>>) -> Self {
        Self { ledger: Arc::new(Mutex::new(Ledger::new(Vec::new()))), lanes: lanes.into() }
    }

    /// The lanes of the sinks, in the order of the configuration.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// A copy of the ledger as it stands, with the accounts of the sinks.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.copy(&mut self.lock())
    }

    /// The same under a lock that is held already.
    pub(crate) fn copy(&self, ledger: &mut Ledger) -> Ledger {
        ledger.set_sinks(self.lanes.iter().map(|lane| lane.account()));
        ledger.clone()
    }

    /// The ledger for an entry. Every entry is complete when the lock is released.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
