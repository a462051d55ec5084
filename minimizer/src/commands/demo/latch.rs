//! A latch: set once, and waited for.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether something is over.
#[derive(Debug, Default)]
pub struct Latch {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Says that it is over.
    pub fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it is over, at most `timeout`; returns whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, timeout, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
