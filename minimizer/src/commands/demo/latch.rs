//! A latch: one thread sets it, others wait for it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether the demo is over.
#[derive(Debug, Default)]
pub struct Latch {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Sets the latch and wakes all waiters.
    pub fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it is set, at most `timeout`; returns whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, timeout, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
