//! A pace for datagrams: a collector silently loses those that arrive faster than it reads.

use std::time::{Duration, Instant};

/// Messages that may be sent without a pause; twice as many after a pause that took too long. They fit into a socket's
/// default receive buffer (212,992 octets on Linux, of which a datagram of 1400 octets takes 2304).
const BURST: u32 = 32;
/// The shortest gap: with messages of 1400 octets, 224 Mbit/s, and a million IPv4 records in little more than two seconds.
const GAP_MIN: Duration = Duration::from_micros(50);
/// The longest gap. At this pace the default receive buffer holds what comes in some 90 ms, for which the collector may do
/// something else than read.
const GAP_MAX: Duration = Duration::from_millis(1);
/// The longest time that a batch is spread over.
const SPREAD_MAX: Duration = Duration::from_millis(2500);
/// The interval of a batch that does not say.
const INTERVAL: Duration = Duration::from_secs(1);
/// What is left of the time that the agent has for its end, for batches that still come and for the last errors.
const ENDING: Duration = Duration::from_secs(3);

/// Limits messages to so many a second, in bursts; or spreads those of a batch over half of the time until the next batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// The gap that was configured.
    fixed: Option<Duration>,
    /// Records of the batch that are not sent, and until when they should be.
    records: u64,
    until: Option<Instant>,
    /// When the sent messages would have ended if they had been evenly spaced.
    over_at: Option<Instant>,
}

impl Pace {
    /// A pace of at most so many messages a second, whatever a batch has.
    pub(super) fn new(per_second: u32) -> Self {
        Self { fixed: Some(Duration::from_secs(1) / per_second.max(1)), ..Self::default() }
    }

    /// Begins a batch of so many records, which come once in such an interval. Half of it is used: a queue that has grown
    /// while nothing could be sent gets shorter.
    pub(super) fn spread(&mut self, records: u64, interval: Duration, now: Instant) {
        let interval = if interval.is_zero() { INTERVAL } else { interval };
        self.records = records;
        self.until = Some(now + (interval / 2).min(SPREAD_MAX));
    }

    /// How long to wait before the next message, now that one with so many records was sent. All of them must be by `deadline`.
    pub(super) fn pause(&mut self, records: u64, deadline: Option<Instant>, now: Instant) -> Duration {
        let gap = self.fixed.unwrap_or_else(|| self.even(records, deadline, now));
        let burst = gap * BURST;
        // Sleeping threads wake late. Up to one burst of that delay is made up for, or the rate would never be reached.
        let earliest = now.checked_sub(burst).unwrap_or(now);
        let over_at = self.over_at.map_or(now, |over_at| over_at.max(earliest)) + gap;
        self.over_at = Some(over_at);
        let ahead = over_at.saturating_duration_since(now);
        if ahead >= burst { ahead } else { Duration::ZERO }
    }

    /// The share of a message with so many records in the time that is left for its batch.
    fn even(&mut self, records: u64, deadline: Option<Instant>, now: Instant) -> Duration {
        let latest = deadline.map(|deadline| deadline.checked_sub(ENDING).unwrap_or(now));
        let until = self.until.into_iter().chain(latest).min();
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let all = self.records.max(records).max(1);
        self.records = self.records.saturating_sub(records);
        let share = left.as_nanos() * u128::from(records) / u128::from(all);
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX)).clamp(GAP_MIN, GAP_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BURST, Pace};

    /// Records of a message.
    const RECORDS: u64 = 25;
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_second_has_as_many_messages_as_it_may() {
        let mut pace = Pace::new(1000);
        let begin = Instant::now();
        let (mut now, mut sent, mut longest, mut burst) = (begin, 0, 0, 0);
        while now < begin + Duration::from_secs(1) {
            let pause = pace.pause(RECORDS, None, now);
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
        assert_eq!(pace.pause(RECORDS, None, begin), Duration::ZERO);
        let later = begin + Duration::from_secs(60);
        let pauses = (1..=2 * BURST).map(|_| pace.pause(RECORDS, None, later));
        assert_eq!(pauses.filter(|pause| !pause.is_zero()).collect::<Vec<_>>(), [MILLISECOND * BURST]);
    }

    #[test]
    fn whoever_wakes_late_still_sends_so_many() {
        let mut pace = Pace::new(1000);
        let begin = Instant::now();
        let (mut now, mut sent) = (begin, 0);
        while now < begin + Duration::from_secs(10) {
            let pause = pace.pause(RECORDS, None, now);
            sent += 1;
            if !pause.is_zero() {
                now += pause + Duration::from_millis(5);
            }
        }
        assert!((9_950..=10_000 + 2 * BURST).contains(&sent), "{sent}");
    }

    /// Sends a batch. Returns the time that it took, and the most messages that came in any 50 ms.
    fn send(
        pace: &mut Pace,
        messages: u64,
        interval: Duration,
        deadline: Option<Duration>,
    ) -> (Duration, usize) {
        let begin = Instant::now();
        pace.spread(messages * RECORDS, interval, begin);
        let mut now = begin;
        let mut sent = Vec::new();
        for _ in 0..messages {
            sent.push(now);
            now += pace.pause(RECORDS, deadline.map(|deadline| begin + deadline), now);
        }
        let within = |first: &Instant| {
            sent.iter().filter(|at| **at >= *first && **at < *first + 50 * MILLISECOND).count()
        };
        (now - begin, sent.iter().map(within).max().unwrap_or_default())
    }

    #[test]
    fn a_collector_with_a_default_buffer_may_pause_while_a_batch_comes() {
        // The records of a unit of one second, and of the last one, whose times are all in one moment.
        for interval in [Duration::from_secs(1), Duration::ZERO] {
            let (_, most) = send(&mut Pace::default(), 400, interval, None);
            assert!(most <= 92, "{most} messages in 50 ms");
            let (_, most) = send(&mut Pace::new(20_000), 400, interval, None);
            assert!(most > 92, "only {most} messages in 50 ms without spreading them");
        }
    }

    #[test]
    fn a_large_batch_is_spread_over_half_of_its_interval_and_two_and_a_half_seconds_at_most() {
        for (messages, interval_ms, most_ms) in
            [(4000, 1000, 500), (4000, 200, 200), (40_000, 10_000, 2500), (100_000, 3_600_000, 5000)]
        {
            let (took, _) = send(&mut Pace::default(), messages, MILLISECOND * interval_ms, None);
            let expected = MILLISECOND * most_ms;
            let tolerance = expected / 20;
            assert!(took >= expected - tolerance && took <= expected + tolerance, "{messages}: {took:?}");
        }
    }

    #[test]
    fn a_small_batch_is_out_as_soon_as_a_collector_can_be_expected_to_read_it() {
        let (took, _) = send(&mut Pace::default(), 200, Duration::from_secs(3600), None);
        assert!(took <= 200 * MILLISECOND, "{took:?}");
    }

    #[test]
    fn the_end_of_the_agent_leaves_time_for_what_still_comes() {
        let hour = Duration::from_secs(3600);
        let (took, _) = send(&mut Pace::default(), 20_000, hour, Some(Duration::from_secs(4)));
        assert!(took > 900 * MILLISECOND && took < 1100 * MILLISECOND, "{took:?}");
        // There is less time than is left over: as fast as ever.
        let (took, _) = send(&mut Pace::default(), 20_000, hour, Some(Duration::from_secs(2)));
        assert!(took > 900 * MILLISECOND && took < 1100 * MILLISECOND, "{took:?}");
    }
}
