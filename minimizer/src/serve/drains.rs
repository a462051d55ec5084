//! How the drains went: how many, how long they took, and when the last one ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// Upper bounds of the classic histogram of drain durations, in seconds.
pub const DURATION_BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Count and durations of the drains, and when the last one ended.
#[derive(Clone, Debug, Default)]
pub struct Drains {
    /// Drains by the first bound that their duration does not exceed. The last place is for longer drains.
    pub durations: [u64; DURATION_BOUNDS.len() + 1],
    /// The same drains in the buckets of a native histogram.
    pub native: NativeBuckets,
    /// Sum of the durations.
    pub duration_sum: Duration,
    /// When the last successful drain ended, on both clocks.
    pub last_success: Option<(Instant, SystemTime)>,
}

impl Drains {
    /// Counts a successful drain that ends now.
    pub fn succeeded(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bound = DURATION_BOUNDS.iter().position(|bound| seconds <= *bound);
        self.durations[bound.unwrap_or(DURATION_BOUNDS.len())] += 1;
        self.native.observe(seconds);
        self.duration_sum += duration;
        self.last_success = Some((Instant::now(), SystemTime::now()));
    }

    /// Number of successful drains.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.durations.iter().sum()
    }
}

/// The buckets of a native histogram that are not empty. The upper bound of each is that of the one before times
/// 2 to the power of 1/8, so that a quantile is off by at most a twentieth.
#[derive(Clone, Debug, Default)]
pub struct NativeBuckets(BTreeMap<i32, u64>);

impl NativeBuckets {
    /// Prometheus' schema number: each doubling has 2 to the power of this many buckets.
    pub const SCHEMA: i32 = 3;
    /// Buckets from a microsecond to a thousand seconds. Anything shorter or longer counts in the outermost one.
    const RANGE: (i32, i32) = (-160, 80);

    fn observe(&mut self, seconds: f64) {
        let place = (seconds.log2() * f64::from(1 << Self::SCHEMA)).ceil();
        let place = place.clamp(f64::from(Self::RANGE.0), f64::from(Self::RANGE.1));
        #[expect(clippy::cast_possible_truncation, reason = "the range is far within that of the type")]
        let place = place as i32;
        *self.0.entry(place).or_default() += 1;
    }

    /// The encoding that Prometheus wants: spans of adjacent buckets, each with its distance from the previous span, and
    /// each count as the difference from the previous count.
    #[must_use]
    pub fn spans_and_deltas(&self) -> (Vec<(i32, u32)>, Vec<i64>) {
        let mut spans: Vec<(i32, u32)> = Vec::new();
        let mut deltas = Vec::new();
        let (mut next, mut before) = (0, 0);
        for (place, count) in &self.0 {
            match spans.last_mut() {
                Some((_, length)) if *place == next => *length += 1,
                _ => spans.push((*place - next, 1)),
            }
            next = *place + 1;
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            deltas.push(count - before);
            before = count;
        }
        (spans, deltas)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DURATION_BOUNDS, Drains, NativeBuckets};

    #[test]
    fn a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut drains = Drains::default();
        drains.succeeded(Duration::from_millis(1));
        drains.succeeded(Duration::from_micros(1001));
        drains.succeeded(Duration::from_secs(11));
        assert_eq!((drains.durations[0], drains.durations[1]), (1, 1));
        assert_eq!(drains.durations[DURATION_BOUNDS.len()], 1);
        assert_eq!(drains.duration_sum, Duration::from_micros(11_002_001));
        assert_eq!(drains.count(), 3);
    }

    #[test]
    fn native_buckets_are_spans_and_differences() {
        let mut buckets = NativeBuckets::default();
        // The bounds of buckets -1, 0, 1 and 16: 2 to the power of place / 8.
        for seconds in [0.91, 1.0, 1.0, 1.09, 4.0] {
            buckets.observe(seconds);
        }
        assert_eq!(buckets.spans_and_deltas(), (vec![(-1, 3), (14, 1)], vec![1, 1, -1, 0]));
        for seconds in [0.0, f64::NAN, f64::INFINITY] {
            buckets.observe(seconds);
        }
        assert!(buckets.0.keys().all(|place| (-160..=80).contains(place)), "{buckets:?}");
    }
}
