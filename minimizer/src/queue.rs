//! A bounded queue between the drain and whoever exports: the drain never waits, the oldest gives way.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue of at most `capacity` items for one producer and one consumer.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        let state = State { items: VecDeque::new(), is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    /// Appends an item and returns the oldest one if it had to give way.
    #[must_use = "what gives way must be counted"]
    pub fn push(&self, item: T) -> Option<T> {
        let mut state = self.lock();
        let oldest = if state.items.len() >= self.capacity { state.items.pop_front() } else { None };
        state.items.push_back(item);
        drop(state);
        self.changed.notify_all();
        oldest
    }

    /// Waits for an item; `None` when the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that nothing more will be appended.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits until the queue is closed, at most `timeout`; returns whether it is.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| !state.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_closed
    }

    /// The items are whole whenever the lock is free, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn the_oldest_gives_way() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1), None);
        assert_eq!(queue.push(2), None);
        assert_eq!(queue.push(3), Some(1));
        queue.close();
        assert_eq!(queue.pop(), Some(2));
        assert_eq!(queue.pop(), Some(3));
        assert_eq!(queue.pop(), None);
    }
}
