//! The queue of a sink: the batches that wait for it, within bounds, and the account of everything that went through.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use minimizer_common::generation::Counts;

use crate::delivery::account::Account;
use crate::delivery::batch::Batch;
use crate::delivery::loss::Loss;
use crate::delivery::settlement::Entry;
use crate::delivery::sink::SinkError;
use crate::delivery::tally::{Portion, Tally};
use crate::delivery::waiting::{Bounds, Size, Waiting};

/// Batches on their way to one sink: the drain appends them, and one sender takes them.
pub struct Queue {
    recipient: Option<String>,
    /// How old a record can be before the sink lets anybody read it.
    unreadable_for: Option<Duration>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: Waiting<Arc<Batch>>,
    /// Octets of the batch that the sender has taken out and is handing over.
    handed_octets: u64,
    is_closed: bool,
    account: Account,
}

/// What a sender does next.
pub enum Next {
    /// Delivers a batch.
    Batch(Arc<Batch>),
    /// Tends the sink: the time it asked for has come.
    Tend,
    /// Ends: no batch will come any more.
    End,
}

impl Queue {
    /// An empty queue to the sink of that name and kind. It gets the records of that recipient, or of the first one of the
    /// policy.
    #[must_use]
    pub fn new(name: &str, recipient: Option<&str>, kind: &str, bounds: Bounds) -> Self {
        let account = Account::new(name, recipient.unwrap_or_default(), kind);
        let state = State { waiting: Waiting::new(bounds), handed_octets: 0, is_closed: false, account };
        let recipient = recipient.map(str::to_owned);
        Self { recipient, unreadable_for: None, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Notes how old a record can be before the sink lets anybody read it.
    #[must_use]
    pub const fn unreadable_for(mut self, age: Option<Duration>) -> Self {
        self.unreadable_for = age;
        self
    }

    /// How old a record can be before the sink lets anybody read it; `None` where it does not wait.
    #[must_use]
    pub const fn readable_from(&self) -> Option<Duration> {
        self.unreadable_for
    }

    /// Whose records go this way; `None` for the first recipient of the policy.
    #[must_use]
    pub fn recipient(&self) -> Option<&str> {
        self.recipient.as_deref()
    }

    /// A copy of the account.
    #[must_use]
    pub fn account(&self) -> Account {
        self.lock().account.clone()
    }

    /// Appends a batch. The oldest give way when too many wait, so that it waits for nobody. Returns what the ledger has to
    /// enter for them.
    #[must_use]
    pub(super) fn push(&self, batch: &Arc<Batch>) -> Vec<Entry> {
        let mut state = self.lock();
        if self.recipient.is_none()
            && let Some(first) = batch.terms.compiled.policy.recipients.first()
        {
            state.account.recipient.clone_from(&first.name);
        }
        let tally = collected(batch);
        state.account.offer(tally);
        let size = Size { records: tally.records, octets: batch.octets() };
        let gone = state.waiting.push(Arc::clone(batch), size);
        let loss = state.account.loss();
        for batch in &gone {
            state.account.lose(collected(batch), loss);
        }
        state.count_octets();
        drop(state);
        self.changed.notify_all();
        gone.iter().filter_map(|batch| batch.settlement.settle(Portion::default())).collect()
    }

    /// Waits for a batch, for `tend_at`, or for the end.
    pub fn next(&self, tend_at: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            if let Some((batch, size)) = state.waiting.pop() {
                state.handed_octets = size.octets;
                state.count_octets();
                return Next::Batch(batch);
            }
            if state.is_closed {
                return Next::End;
            }
            state = match tend_at.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => return Next::Tend,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits for the next batch; `None` when the agent has ended and all batches are out.
    pub fn next_batch(&self) -> Option<Arc<Batch>> {
        match self.next(None) {
            Next::Batch(batch) => Some(batch),
            Next::Tend | Next::End => None,
        }
    }

    /// Says that nothing more will be appended.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Enters a batch that was handed over as a whole: this many records with their keys, and `suppressed` of its packets
    /// without. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn exported(&self, batch: &Batch, records: usize, suppressed: Counts) -> Option<Entry> {
        let recorded = batch.totals.recorded;
        let exported = Counts {
            packets: recorded.packets - suppressed.packets,
            octets: recorded.octets - suppressed.octets,
        };
        let residuals = usize::from(suppressed.packets != 0);
        let portion =
            Portion { records: Tally::new(records, exported), suppressed: Tally::new(residuals, suppressed) };
        self.enter(|account| {
            account.view(collected(batch).records, portion.sum().records);
            account.export(portion);
            account.succeed();
        });
        self.done();
        batch.settlement.settle(portion)
    }

    /// Enters a batch that was lost as a whole. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn lost(&self, batch: &Batch, loss: Loss) -> Option<Entry> {
        self.enter(|account| account.lose(collected(batch), loss));
        self.done();
        batch.settlement.settle(Portion::default())
    }

    /// The sender is done with the batch that it took out.
    pub(super) fn done(&self) {
        let mut state = self.lock();
        state.handed_octets = 0;
        state.count_octets();
    }

    /// Enters that the sink failed. Returns whether it worked before.
    pub(super) fn failed(&self, error: &SinkError) -> bool {
        self.enter(|account| {
            let worked = account.failing.is_none();
            account.fail(error.loss, &error.message);
            worked
        })
    }

    /// Makes an entry in the account.
    pub(super) fn enter<T>(&self, entry: impl FnOnce(&mut Account) -> T) -> T {
        entry(&mut self.lock().account)
    }

    /// Every entry is complete when the lock is released.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count_octets(&mut self) {
        self.account.queue_bytes = self.waiting.octets() + self.handed_octets;
    }
}

/// A batch as it was collected.
pub(super) fn collected(batch: &Batch) -> Tally {
    Tally::new(batch.records.len(), batch.totals.recorded)
}
