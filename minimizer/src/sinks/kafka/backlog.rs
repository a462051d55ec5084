//! Requests that are not acknowledged yet, by partition: what the sink puts in and the connection's tasks send.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::messages::Messages;
use crate::delivery::loss::Loss;

/// Why messages are not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason under which lost records are counted.
    pub loss: Loss,
    /// What failed, on what, and the fix.
    pub message: String,
}

/// Requests that wait for acknowledgement.
#[derive(Debug)]
pub struct Backlog {
    state: Mutex<BacklogState>,
    changed: Condvar,
    more: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct BacklogState {
    /// The requests of each partition, the oldest first.
    partitions: Vec<VecDeque<Arc<Messages>>>,
    octets: usize,
    /// Acknowledged octets since the start.
    acknowledged: u64,
    in_flight: usize,
    failure: Option<Failure>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), more: watch::Sender::new(()) }
    }
}

impl Backlog {
    fn state(&self) -> MutexGuard<'_, BacklogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals when there is more to send.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.more.subscribe()
    }

    /// Adapts to the present number of partitions.
    pub fn resize(&self, partitions: usize) {
        let mut state = self.state();
        let beyond = state.partitions.len().min(partitions);
        let homeless: Vec<_> = state.partitions.drain(beyond..).flatten().collect();
        state.partitions.resize_with(partitions, VecDeque::new);
        // The topic was created anew with fewer partitions: their requests go to those that are left.
        for (number, messages) in homeless.into_iter().enumerate() {
            state.partitions[number % partitions].push_back(messages);
        }
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.state().partitions.len()
    }

    /// Adds requests to their partitions.
    pub fn add(&self, requests: Vec<(usize, Messages)>) {
        let mut state = self.state();
        for (partition, messages) in requests {
            state.octets += messages.octets();
            state.partitions[partition].push_back(Arc::new(messages));
        }
        drop(state);
        self.more.send_replace(());
    }

    /// The next request of a partition, which counts as on its way from now on; none after a failure.
    #[must_use]
    pub fn depart(&self, partition: usize) -> Option<Arc<Messages>> {
        let mut state = self.state();
        if state.failure.is_some() {
            return None;
        }
        let messages = state.partitions.get(partition)?.front().map(Arc::clone)?;
        state.in_flight += 1;
        Some(messages)
    }

    /// Notes that a request on its way to a partition was acknowledged, or failed.
    pub fn arrive(&self, partition: usize, messages: &Arc<Messages>, result: Result<(), Failure>) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        match result {
            // A connection that was given up may still acknowledge a request that another one sends again.
            Ok(()) => {
                let is_first = |first: &mut Arc<Messages>| Arc::ptr_eq(first, messages);
                if state
                    .partitions
                    .get_mut(partition)
                    .and_then(|requests| requests.pop_front_if(is_first))
                    .is_some()
                {
                    state.octets -= messages.octets();
                    state.acknowledged += messages.octets() as u64;
                }
            }
            // The first failure is the cause; others may be its consequences.
            Err(failure) => _ = state.failure.get_or_insert(failure),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Acknowledged octets since the start.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Unacknowledged octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.state().octets
    }

    /// Waits until at most so many octets are unacknowledged, or a request failed; returns whether so few are left.
    ///
    /// # Errors
    /// With the failure.
    pub fn wait(&self, octets: usize, limit: Duration) -> Result<bool, Failure> {
        let state = self.wait_while(limit, |state| state.failure.is_none() && state.octets > octets);
        state.failure.clone().map_or(Ok(state.octets <= octets), Err)
    }

    /// Waits until no request is on its way, or the time is over. Then forgets the requests on their way, and the failure.
    pub fn settle(&self, limit: Duration) {
        let mut state = self.wait_while(limit, |state| state.in_flight > 0);
        (state.in_flight, state.failure) = (0, None);
    }

    fn wait_while(
        &self,
        limit: Duration,
        condition: impl Fn(&BacklogState) -> bool,
    ) -> MutexGuard<'_, BacklogState> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while condition(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}
