//! The end of the agent, as senders learn of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest pause while the agent ends.
const PAUSE_ENDING: Duration = Duration::from_millis(100);

/// The moment until which senders may still deliver once the agent ends.
#[derive(Clone, Default)]
pub struct Ending(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    deadline: Option<Instant>,
    /// Nobody wants to wait for the sinks: the deadline will be the moment when it is set.
    is_cut: bool,
    /// The deadline is over, and what a sink still does counts no more.
    is_abandoned: bool,
}

impl Ending {
    /// Says that everything must be delivered by this moment. Returns the moment, which is now if nobody wants to wait.
    pub fn set(&self, deadline: Instant) -> Instant {
        let mut state = self.lock();
        let deadline = if state.is_cut { deadline.min(Instant::now()) } else { deadline };
        state.deadline = Some(deadline);
        drop(state);
        self.0.1.notify_all();
        deadline
    }

    /// Says that nobody wants to wait for the sinks, now or when the deadline is set.
    pub fn cut(&self) {
        let mut state = self.lock();
        state.is_cut = true;
        state.deadline = state.deadline.map(|deadline| deadline.min(Instant::now()));
        drop(state);
        self.0.1.notify_all();
    }

    /// The moment, as it was set or cut.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// Says that nothing that a sink does from now on counts.
    pub fn abandon(&self) {
        self.lock().is_abandoned = true;
    }

    /// Whether nothing counts that a sink does now.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.lock().is_abandoned
    }

    /// Whether that moment has passed.
    pub(super) fn is_over(&self) -> bool {
        self.lock().deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits this long, or less when the agent ends. Returns whether there is time left to try again.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        // Little time is left: try again soon.
        if let Some(end) = state.deadline {
            let left = end.saturating_duration_since(Instant::now());
            let waited = self.0.1.wait_timeout(state, left.min(PAUSE_ENDING));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            return !left.is_zero();
        }
        let waited = self.0.1.wait_timeout_while(state, pause, |state| state.deadline.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.deadline.is_none_or(|end| Instant::now() < end)
    }

    /// Every entry is complete when the lock is released.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_cut_brings_the_deadline_forward_whether_it_comes_before_or_after_it() {
        let far = Instant::now() + Duration::from_secs(3600);
        let (early, late) = (Ending::default(), Ending::default());
        early.cut();
        assert!(!early.is_over(), "it has not begun to end");
        assert!(early.set(far) < far && early.is_over());
        assert!(late.set(far) == far && !late.is_over());
        late.cut();
        assert!(late.is_over() && late.deadline().is_some_and(|deadline| deadline < far));
    }
}
