//! Pauses between attempts, each twice as long as the one before, up to a longest one.

use std::time::Duration;

/// The pauses after consecutive failures.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    has_jitter: bool,
    failures: u32,
}

impl Backoff {
    /// Pauses that begin with `min` and double up to `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, has_jitter: false, failures: 0 }
    }

    /// The same, each shortened at random by up to half: many agents that lost one server must not come back to it at
    /// the same moment.
    #[must_use]
    pub const fn with_jitter(min: Duration, max: Duration) -> Self {
        Self { min, max, has_jitter: true, failures: 0 }
    }

    /// The pause after another failure.
    #[must_use]
    pub fn fail(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = self.min.saturating_mul(factor).min(self.max);
        if !self.has_jitter {
            return pause;
        }
        let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        pause.mul_f64(0.5 + random / 2.0)
    }

    /// An attempt succeeded: the next pause is the shortest again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(15);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(MIN, MAX);
        let pauses: Vec<_> = (0..9).map(|_| backoff.fail().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000]);
        // Also after more failures than a number has bits.
        assert!((0..100).all(|_| backoff.fail() == MAX));
        backoff.reset();
        assert_eq!(backoff.fail(), MIN);
    }

    #[test]
    fn jitter_takes_off_half_at_most() {
        let mut backoff = Backoff::with_jitter(MIN, MAX);
        for doubled in [100, 200, 400, 800].map(Duration::from_millis) {
            let pause = backoff.fail();
            assert!(pause >= doubled / 2 && pause <= doubled, "{pause:?} of {doubled:?}");
        }
    }
}
