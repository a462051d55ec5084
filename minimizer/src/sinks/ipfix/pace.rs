//! A pace for datagrams: a collector silently loses those that arrive faster than it reads.

use std::time::{Duration, Instant};

/// Messages that may be sent without a pause; twice as many after a pause that took too long. They fit into a socket's
/// default receive buffer (212,992 octets on Linux, of which a datagram of 1400 octets takes 2304).
const BURST: u32 = 32;

/// Limits messages to so many a second, in bursts.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    gap: Duration,
    /// When the sent messages would have ended if they had been evenly spaced.
    over_at: Option<Instant>,
}

impl Pace {
    /// A pace of at most so many messages a second.
    pub(super) fn new(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second.max(1), over_at: None }
    }

    /// How long to wait before the next message, now that one was sent.
    pub(super) fn pause(&mut self, now: Instant) -> Duration {
        let burst = self.gap * BURST;
        // Sleeping threads wake late. Up to one burst of that delay is made up for, or the rate would never be reached.
        let earliest = now.checked_sub(burst).unwrap_or(now);
        let over_at = self.over_at.map_or(now, |over_at| over_at.max(earliest)) + self.gap;
        self.over_at = Some(over_at);
        let ahead = over_at.saturating_duration_since(now);
        if ahead >= burst { ahead } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BURST, Pace};

    #[test]
    fn a_second_has_as_many_messages_as_it_may() {
        let mut pace = Pace::new(1000);
        let begin = Instant::now();
        let (mut now, mut sent, mut longest, mut burst) = (begin, 0, 0, 0);
        while now < begin + Duration::from_secs(1) {
            let pause = pace.pause(now);
            (sent, burst) = (sent + 1, burst + 1);
            if !pause.is_zero() {
                (longest, burst) = (burst.max(longest), 0);
            }
            now += pause;
        }
        assert_eq!(longest, BURST);
        assert!((1000..=1000 + BURST).contains(&sent), "{sent}");
    }

    #[test]
    fn of_time_that_passed_a_burst_is_saved_up_and_no_more() {
        let mut pace = Pace::new(1000);
        let begin = Instant::now();
        assert_eq!(pace.pause(begin), Duration::ZERO);
        let later = begin + Duration::from_secs(60);
        let pauses = (1..=2 * BURST).map(|_| pace.pause(later)).filter(|pause| !pause.is_zero());
        assert_eq!(pauses.collect::<Vec<_>>(), [Duration::from_millis(1) * BURST]);
    }

    #[test]
    fn whoever_wakes_late_still_sends_so_many() {
        let mut pace = Pace::new(1000);
        let begin = Instant::now();
        let (mut now, mut sent) = (begin, 0);
        while now < begin + Duration::from_secs(10) {
            let pause = pace.pause(now);
            sent += 1;
            if !pause.is_zero() {
                now += pause + Duration::from_millis(5);
            }
        }
        assert!((9_950..=10_000 + 2 * BURST).contains(&sent), "{sent}");
    }
}
