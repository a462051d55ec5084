//! The end of the agent, as senders learn of it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest pause while the agent ends.
const PAUSE_ENDING: Duration = Duration::from_millis(100);

/// The moment until which senders may still deliver once the agent ends.
#[derive(Clone, Default)]
pub struct Ending(Arc<(Mutex<Option<Instant>>, Condvar)>);

impl Ending {
    /// Says that everything must be delivered by this moment.
    pub fn set(&self, deadline: Instant) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.0.1.notify_all();
    }

    /// Whether that moment has passed.
    pub(super) fn is_over(&self) -> bool {
        let deadline = *self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits this long, or less when the agent ends. Returns whether there is time left to try again.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let deadline = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Little time is left: try again soon.
        if let Some(end) = *deadline {
            let left = end.saturating_duration_since(Instant::now());
            let waited = self.0.1.wait_timeout(deadline, left.min(PAUSE_ENDING));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            return !left.is_zero();
        }
        let waited = self.0.1.wait_timeout_while(deadline, pause, |deadline| deadline.is_none());
        let (deadline, _) = waited.unwrap_or_else(PoisonError::into_inner);
        deadline.is_none_or(|end| Instant::now() < end)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::Ending;

    #[test]
    fn an_end_cuts_a_pause_short() {
        let ending = Ending::default();
        let begin = Instant::now();
        let waiter = thread::spawn({
            let ending = ending.clone();
            move || ending.pause(Duration::from_secs(3600))
        });
        ending.set(Instant::now());
        assert!(!waiter.join().expect("no panic"));
        assert!(begin.elapsed() < Duration::from_secs(600));
    }
}
