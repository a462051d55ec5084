//! The queue of a sink: a bounded queue in which the oldest batch gives way, and the account of what went through it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use minimizer_common::generation::Counts;

use super::account::{Account, Tally};
use crate::delivery::batch::Batch;
use crate::delivery::loss::Loss;
use crate::delivery::sink::SinkError;

/// How much may wait. One batch always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records, as they were collected.
    pub records: u64,
    /// Octets of memory. Sinks share the records: each counts them as its own.
    pub octets: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { records: 1_000_000, octets: 128 << 20 }
    }
}

/// Batches on their way to one sink: the drain appends them, and one sender takes them.
pub struct Queue {
    recipient: Option<String>,
    bounds: Bounds,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<Arc<Batch>>,
    is_closed: bool,
    account: Account,
}

/// What a sender does next.
pub enum Next {
    /// Delivers a batch.
    Batch(Arc<Batch>),
    /// Looks after the sink: the time it asked for has come.
    Tend,
    /// Ends: no batch will come any more.
    End,
}

impl Queue {
    /// An empty queue to the sink of that name and kind, for a recipient or the first one of the policy.
    #[must_use]
    pub fn new(name: &str, recipient: Option<&str>, kind: &str, bounds: Bounds) -> Self {
        let account = Account::new(name, recipient.unwrap_or_default(), kind);
        let state = State { waiting: VecDeque::new(), is_closed: false, account };
        let recipient = recipient.map(str::to_owned);
        Self { recipient, bounds, state: Mutex::new(state), changed: Condvar::new() }
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

    /// Appends a batch, and drops the oldest that wait when there are too many. It waits for nobody.
    pub fn push(&self, batch: &Arc<Batch>) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        if self.recipient.is_none()
            && let Some(first) = batch.terms.compiled.policy.recipients.first()
        {
            state.account.recipient.clone_from(&first.name);
        }
        state.account.offer(collected(batch));
        state.waiting.push_back(Arc::clone(batch));
        while state.waiting.len() > 1 && self.is_exceeded(&state) {
            let Some(oldest) = state.waiting.pop_front() else { break };
            let loss = state.account.loss();
            state.account.lose(collected(&oldest), loss);
            gone.push(oldest);
        }
        state.account.queue_bytes = octets(&state);
        drop(state);
        self.changed.notify_all();
        for batch in gone {
            batch.delivery.settle(Counts::default(), Counts::default());
        }
    }

    fn is_exceeded(&self, state: &State) -> bool {
        let records: u64 = state.waiting.iter().map(|batch| collected(batch).records).sum();
        octets(state) > self.bounds.octets || records > self.bounds.records
    }

    /// Waits for a batch, for `tend_at`, or for the end.
    pub fn next(&self, tend_at: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.waiting.pop_front() {
                state.account.queue_bytes = octets(&state);
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

    /// Enters a batch of which everything was handed over: so many records, and `suppressed` of its packets in sums without
    /// keys.
    pub fn exported(&self, batch: &Batch, records: usize, suppressed: Counts) {
        let recorded = batch.totals.recorded;
        let exported = Counts {
            packets: recorded.packets - suppressed.packets,
            octets: recorded.octets - suppressed.octets,
        };
        let residuals = usize::from(suppressed.packets != 0);
        self.enter(|account| {
            account.view(collected(batch).records, Tally::new(records + residuals, recorded).records);
            account.export(Tally::new(records, exported), Tally::new(residuals, suppressed));
            account.succeed();
        });
        batch.delivery.settle(exported, suppressed);
    }

    /// Enters a batch that was lost as a whole.
    pub fn lost(&self, batch: &Batch, loss: Loss) {
        self.enter(|account| account.lose(collected(batch), loss));
        batch.delivery.settle(Counts::default(), Counts::default());
    }

    /// Enters that the sink failed; returns whether it worked before.
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

fn octets(state: &State) -> u64 {
    state.waiting.iter().map(|batch| batch.octets()).sum()
}

/// A batch as it was collected.
pub(super) fn collected(batch: &Batch) -> Tally {
    Tally::new(batch.records.len(), batch.totals.recorded)
}
