//! What was taken and is not acknowledged yet, by partition; sink and senders meet here.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::messages::Messages;
use crate::delivery::loss::Loss;

/// Why messages are not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Under which reason records are counted that are lost by it.
    pub loss: Loss,
    /// What failed, on what, and the fix.
    pub message: String,
}

/// Requests that wait for their acknowledgement.
#[derive(Debug)]
pub struct Backlog {
    state: Mutex<BacklogState>,
    changed: Condvar,
    more: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct BacklogState {
    /// By partition, the oldest first.
    lanes: Vec<VecDeque<Arc<Messages>>>,
    octets: usize,
    /// Octets of what was acknowledged since the start.
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

    /// Says when there is more to send.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.more.subscribe()
    }

    /// Makes as many lanes as there are partitions now.
    pub fn resize(&self, partitions: usize) {
        let mut state = self.state();
        let beyond = state.lanes.len().min(partitions);
        let homeless: Vec<_> = state.lanes.drain(beyond..).flatten().collect();
        state.lanes.resize_with(partitions, VecDeque::new);
        // A topic that was made anew with fewer partitions.
        for (number, messages) in homeless.into_iter().enumerate() {
            state.lanes[number % partitions].push_back(messages);
        }
    }

    /// Partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.state().lanes.len()
    }

    /// Adds requests behind those of their partitions.
    pub fn add(&self, requests: Vec<(usize, Messages)>) {
        let mut state = self.state();
        for (partition, messages) in requests {
            state.octets += messages.octets();
            state.lanes[partition].push_back(Arc::new(messages));
        }
        drop(state);
        self.more.send_replace(());
    }

    /// The next request of a partition, which is on its way from now on; none after a failure.
    #[must_use]
    pub fn depart(&self, partition: usize) -> Option<Arc<Messages>> {
        let mut state = self.state();
        if state.failure.is_some() {
            return None;
        }
        let messages = state.lanes.get(partition)?.front().map(Arc::clone)?;
        state.in_flight += 1;
        Some(messages)
    }

    /// What was on its way to a partition has arrived, or has not.
    pub fn arrive(&self, partition: usize, messages: &Arc<Messages>, result: Result<(), Failure>) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        match result {
            // A connection that was given up may still bring an acknowledgement of what another one sends again.
            Ok(()) => {
                let is_first = |first: &mut Arc<Messages>| Arc::ptr_eq(first, messages);
                if state.lanes.get_mut(partition).and_then(|lane| lane.pop_front_if(is_first)).is_some() {
                    state.octets -= messages.octets();
                    state.acknowledged += messages.octets() as u64;
                }
            }
            // The first is the cause, the others may be its consequences.
            Err(failure) => _ = state.failure.get_or_insert(failure),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Octets of what was acknowledged since the start.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Octets that are not acknowledged.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.state().octets
    }

    /// Waits until no more octets than these are left, or something failed. Returns whether so few are left.
    ///
    /// # Errors
    /// With the failure.
    pub fn wait(&self, octets: usize, limit: Duration) -> Result<bool, Failure> {
        let state = self.wait_while(limit, |state| state.failure.is_none() && state.octets > octets);
        state.failure.clone().map_or(Ok(state.octets <= octets), Err)
    }

    /// Waits until nothing is on its way; then, or when the time is over, nothing is, and no failure is known.
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
