//! The accounting: the ledger and the accounts of the sinks, shared by the drain, the senders and whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::delivery::ledger::Ledger;
use crate::delivery::queue::Queue;

/// A handle of the accounting.
#[derive(Clone)]
pub struct Accounting {
    ledger: Arc<Mutex<Ledger>>,
    queues: Arc<[Arc<Queue>]>,
}

impl Accounting {
    /// Empty accounting of these queues.
    #[must_use]
    pub fn new(queues: Vec<Arc<Queue>>) -> Self {
        Self { ledger: Arc::new(Mutex::new(Ledger::new(Vec::new()))), queues: queues.into() }
    }

    /// The queues of the sinks, in the order of the configuration.
    #[must_use]
    pub fn queues(&self) -> &[Arc<Queue>] {
        &self.queues
    }

    /// A copy of the ledger as it stands, with the accounts of the sinks.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.copy(&mut self.lock())
    }

    /// The same under a lock that is held already.
    pub(crate) fn copy(&self, ledger: &mut Ledger) -> Ledger {
        ledger.set_sinks(self.queues.iter().map(|queue| queue.account()));
        ledger.clone()
    }

    /// The ledger for an entry. Every entry is complete when the lock is released.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
