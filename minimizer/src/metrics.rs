//! Metrics for Prometheus: a fixed set of families over the latest snapshot.
//!
//! The number of series is bounded by interfaces × outcomes; no label ever holds an address or a port.

mod collector;
mod snapshot;
mod text;

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Registry;

pub use snapshot::{Build, DURATION_BOUNDS, Drains, InForce, NotReady, Published, Reloads, Snapshot};

/// A text format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics when it is named with a weight above
    /// that of plain text, else Prometheus text, which everything reads.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let mut open_metrics = 0.0;
        let mut text: f32 = 0.0;
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let media_type = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1.0;
            let mut version = "1.0.0";
            for parameter in parameters {
                match parameter.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    _ => {}
                }
            }
            match media_type.as_str() {
                "application/openmetrics-text" if version == "1.0.0" => open_metrics = weight,
                "text/plain" | "text/*" => text = text.max(weight),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type` of an answer in this format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics of a snapshot in `format`.
///
/// # Errors
/// None that a `String` as destination can cause.
pub fn render(snapshot: Arc<Snapshot>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector::SnapshotCollector(snapshot)));
    let mut open_metrics = String::new();
    prometheus_client::encoding::text::encode(&mut open_metrics, &registry)?;
    Ok(match format {
        Format::OpenMetrics => open_metrics,
        Format::Text => text::from_open_metrics(&open_metrics),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use minimizer_common::outcome::Outcome;

    pub(crate) use super::snapshot::tests::example;
    use super::{Format, render};

    fn lines(format: Format) -> Vec<String> {
        let text = render(Arc::new(example()), format).expect("a string takes everything");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_number_of_a_snapshot_is_there() {
        let lines = lines(Format::Text);
        let mut expected: Vec<String> = [
            r#"minimizer_seen_octets_total{interface="eth\"0\\"} 90001"#,
            r#"minimizer_counted_octets_total{interface="eth\"0\\"} 70002"#,
            r#"minimizer_seen_packets_total{interface="gone"} 0"#,
            r#"minimizer_interface_attached{interface="eth\"0\\",mode="native"} 1"#,
            r#"minimizer_interface_attached{interface="gone",mode="none"} 0"#,
            r#"minimizer_interface_info{interface="eth\"0\\",mode="native",tap="false",if_index="13",program_id="4711"} 1"#,
            r#"minimizer_interface_up{interface="eth\"0\\"} 1"#,
            r#"minimizer_interface_up{interface="gone"} 0"#,
            r#"minimizer_interface_tap{interface="eth\"0\\"} 0"#,
            r#"minimizer_interface_tap{interface="gone"} 1"#,
            r#"minimizer_interface_unwatched_times_total{interface="gone"} 7"#,
            r#"minimizer_interface_unwatched_seconds_total{interface="gone"} 2.75"#,
            r#"minimizer_interface_unwatched_times_total{interface="eth\"0\\"} 0"#,
            &format!(r#"minimizer_policy_info{{name="example",sha256="{}",mandate="NCO-7"}} 1"#, "ef".repeat(32)),
            "minimizer_policy_prefixes 31",
            "minimizer_policy_indicators 32",
            "minimizer_policy_reloads_total 33",
            "minimizer_policy_reload_failures_total 34",
            "minimizer_mandate_valid_from_timestamp_seconds 1690000001.0",
            "minimizer_mandate_valid_until_timestamp_seconds 1710000002.0",
            "minimizer_suppressed_packets_total 4",
            "minimizer_suppressed_octets_total 300",
            "minimizer_interfaces_refused 8",
            "minimizer_exported_records_total 42",
            "minimizer_exported_packets_total 94",
            "minimizer_exported_octets_total 68700",
            "minimizer_dropped_packets_total 1",
            "minimizer_dropped_octets_total 600",
            "minimizer_queued_packets 2",
            "minimizer_queued_octets 400",
            "minimizer_overflow_packets_total 105",
            "minimizer_overflow_octets_total 2",
            "minimizer_ledger_balanced 1",
            "minimizer_table_slots 262144",
            "minimizer_table_slots_used 11",
            "minimizer_table_spill_entries 32768",
            "minimizer_table_spill_entries_used 12",
            "minimizer_table_cpu_slots 131072",
            "minimizer_table_cpu_slots_used_max 9",
            "minimizer_table_cpu_spill_entries 16384",
            "minimizer_table_cpu_spill_entries_used_max 10",
            "minimizer_table_memory_bytes 9000000",
            r#"minimizer_drain_duration_seconds_bucket{le="0.0025"} 0"#,
            r#"minimizer_drain_duration_seconds_bucket{le="0.005"} 1"#,
            r#"minimizer_drain_duration_seconds_bucket{le="+Inf"} 1"#,
            "minimizer_drain_duration_seconds_sum 0.003",
            "minimizer_drain_duration_seconds_count 1",
            "minimizer_drain_interval_seconds 2.5",
            "process_start_time_seconds 1700000000.25",
        ]
        .map(str::to_owned)
        .into();
        let seen: u64 = Outcome::ALL.iter().zip(101..).map(|(_, packets)| packets).sum();
        expected.push(format!(r#"minimizer_seen_packets_total{{interface="eth\"0\\"}} {seen}"#));
        for (outcome, packets) in Outcome::ALL.iter().zip(101..) {
            let name = outcome.name();
            let reason = outcome.reason().map_or(String::new(), |reason| format!(r#",reason="{reason}""#));
            let labels = format!(r#"interface="eth\"0\\",outcome="{name}"{reason}"#);
            expected.push(format!("minimizer_packets_total{{{labels}}} {packets}"));
        }
        for line in expected {
            assert!(lines.contains(&line), "{line} is missing in\n{}", lines.join("\n"));
        }
    }

    #[test]
    fn the_formats_have_the_same_samples() {
        let samples = |format| {
            let mut lines = lines(format);
            lines.retain(|line| !line.starts_with('#') && !line.contains("last_success"));
            lines
        };
        assert_eq!(samples(Format::OpenMetrics), samples(Format::Text));
        assert_eq!(lines(Format::OpenMetrics).last().map(String::as_str), Some("# EOF"));
    }

    #[test]
    fn open_metrics_only_for_those_who_ask_for_it() {
        let cases = [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            // What Prometheus 2.42 sends.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.1", Format::Text),
            ("application/openmetrics-text; version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("APPLICATION/OpenMetrics-Text; q=0.5", Format::OpenMetrics),
            (";;,,q=;", Format::Text),
        ];
        for (accept, format) in cases {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }
}
