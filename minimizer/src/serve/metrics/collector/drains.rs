//! How long drains take, and when the last one ended.

use std::fmt;

use prometheus_client::encoding::{NativeHistogram, NativeHistogramBuckets, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Families, split};
use crate::serve::drains::{DURATION_BOUNDS, Drains, NativeBuckets};
use crate::serve::metrics::unix_seconds;
use crate::serve::snapshot::Snapshot;

const EMPTY: NativeHistogramBuckets<'_> = NativeHistogramBuckets { spans: &[], deltas: &[] };
/// Durations below this would count as zero. A drain takes longer than a system call, so none does.
const ZERO_SECONDS: f64 = 1e-9;

impl Families<'_> {
    pub(super) fn drains(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let drains = &snapshot.drains;
        self.durations(drains)?;
        self.gauge(
            "minimizer_drain_last_success_timestamp_seconds",
            "When the last successful drain ended, since 1970; 0 before the first",
            drains.last_success.map_or(0.0, |(_, time)| unix_seconds(time)),
        )?;
        self.gauge("minimizer_drain_interval_seconds", "Time between drains", snapshot.interval.as_secs_f64())
    }

    /// The classic histogram, and with protobuf also the native one.
    fn durations(&mut self, drains: &Drains) -> fmt::Result {
        let bounds = DURATION_BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(drains.durations).collect();
        let (spans, deltas) = drains.native.spans_and_deltas();
        let native = NativeHistogram {
            schema: NativeBuckets::SCHEMA,
            zero_threshold: ZERO_SECONDS,
            zero_count: 0,
            negative: EMPTY,
            positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
            created: None,
        };
        // Buckets, sum and count.
        self.series += u64::try_from(buckets.len()).unwrap_or(u64::MAX) + 2;
        let (name, unit) = split("minimizer_drain_duration_seconds");
        let help =
            "Time that a drain takes, from flipping the generations until all of its records are merged";
        self.encoder
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?
            .encode_histogram_with_native::<NoLabelSet>(
                drains.duration_sum.as_secs_f64(),
                drains.count(),
                &buckets,
                None,
                native,
            )
    }
}
