//! The accounting: the ledger and the queues with the accounts of the sinks, shared by the drain, the senders and whoever
//! asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minimizer_common::generation::Counts;

use crate::delivery::batch::Batch;
use crate::delivery::ledger::Ledger;
use crate::delivery::loss::Loss;
use crate::delivery::queue::Queue;
use crate::delivery::settlement::Entry;

/// A handle of the accounting. Copies share it.
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

    /// Offers a batch to all sinks. It waits for none of them.
    pub fn push(&self, batch: &Arc<Batch>) {
        for queue in &*self.queues {
            self.enter(queue.push(batch));
        }
    }

    /// Enters a batch that left `queue` and was handed over as a whole: this many records with their keys, and `suppressed` of
    /// its packets without.
    pub fn exported(&self, queue: &Queue, batch: &Batch, records: usize, suppressed: Counts) {
        self.enter(queue.exported(batch, records, suppressed));
    }

    /// Enters a batch that left `queue` and was lost as a whole.
    pub fn lost(&self, queue: &Queue, batch: &Batch, loss: Loss) {
        self.enter(queue.lost(batch, loss));
    }

    /// Gives up what is still in the queues at the end of the agent: it is lost.
    pub fn abandon(&self) {
        for queue in &*self.queues {
            self.enter(queue.abandon());
        }
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
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the entries of batches that are settled.
    pub(super) fn enter(&self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.lock().settle(entry);
        }
    }
}
