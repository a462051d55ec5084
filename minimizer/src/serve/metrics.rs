//! Metrics for Prometheus: a fixed set of families over the latest snapshot.
//!
//! The number of series is bounded by interfaces × outcomes; no label ever holds an address or a port.

mod collector;
mod scrape;
mod text;

use prometheus_client::encoding::prometheus_protobuf::{self, EncodeError};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

pub use scrape::{Process, Scrape, WebTotals, unix_seconds};

/// A format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
    /// Prometheus protobuf, which has native histograms.
    Protobuf,
}

impl Format {
    /// The format that an `Accept` header asks for with the greatest weight. Where weights are equal, protobuf comes
    /// before OpenMetrics: who offers it wants what only it has. Text is for all others; everything reads it.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let [mut protobuf, mut open_metrics, mut text] = [0.0_f32; 3];
        for range in accept.split(',') {
            let mut parameters = range.split(';').map(str::trim);
            let media_type = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1.0;
            let mut version = "1.0.0";
            let (mut message, mut encoding) = ("", "");
            for parameter in parameters {
                match parameter.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    Some(("proto", value)) => message = value.trim_matches('"'),
                    Some(("encoding", value)) => encoding = value.trim_matches('"'),
                    _ => {}
                }
            }
            match media_type.as_str() {
                "application/vnd.google.protobuf"
                    if message == "io.prometheus.client.MetricFamily" && encoding == "delimited" =>
                {
                    protobuf = protobuf.max(weight);
                }
                "application/openmetrics-text" if version == "1.0.0" => open_metrics = weight,
                "text/plain" | "text/*" => text = text.max(weight),
                _ => {}
            }
        }
        if protobuf > 0.0 && protobuf >= open_metrics.max(text) {
            Self::Protobuf
        } else if open_metrics > 0.0 && open_metrics >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The `Content-Type` of an answer in this format.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// All metrics at a scrape in `format`.
///
/// # Errors
/// None that memory as destination can cause.
pub fn render(scrape: Scrape, format: Format) -> Result<Vec<u8>, EncodeError> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    if format == Format::Protobuf {
        return prometheus_protobuf::encode_to_vec(&registry);
    }
    let mut open_metrics = String::new();
    encode(&mut open_metrics, &registry)?;
    Ok(match format {
        Format::Text => text::from_open_metrics(&open_metrics),
        _ => open_metrics,
    }
    .into_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use minimizer_common::outcome::Outcome;

    use super::{Format, Process, Scrape, WebTotals, render};
    use crate::serve::snapshot::tests::example;

    fn scrape() -> Scrape {
        let web = WebTotals {
            open: 51,
            accepted: 52,
            requests: 53,
            refusals: (54..59).collect(),
            reloads: 60,
            reload_failures: 61,
        };
        let process = Process {
            cpu_seconds: 1.25,
            resident_bytes: 62,
            virtual_bytes: 63,
            open_fds: 64,
            max_fds: 65,
            threads: 66,
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_710_000_000);
        Scrape { snapshot: Arc::new(example()), web, process: Some(process), log_lines_lost: 67, time }
    }

    fn lines(format: Format) -> Vec<String> {
        let text = render(scrape(), format).expect("memory takes everything");
        String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect()
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
            "minimizer_mandate_paused 0",
            "minimizer_mandate_remaining_seconds 2.0",
            r#"minimizer_protocol_packets_total{interface="eth\"0\\",ip_version="4",protocol="udp"} 43"#,
            r#"minimizer_protocol_packets_total{interface="gone",ip_version="6",protocol="other"} 0"#,
            r#"minimizer_program_runs_total{program="minimizer"} 35"#,
            r#"minimizer_program_run_seconds_total{program="minimizer"} 0.0015"#,
            "minimizer_web_connections_open 51",
            "minimizer_web_connections_total 52",
            "minimizer_web_requests_total 53",
            r#"minimizer_web_refusals_total{reason="slow_request"} 54"#,
            r#"minimizer_web_refusals_total{reason="busy"} 58"#,
            "minimizer_web_config_reloads_total 60",
            "minimizer_web_config_reload_failures_total 61",
            "minimizer_log_lines_dropped_total 67",
            "process_cpu_seconds_total 1.25",
            "process_resident_memory_bytes 62",
            "process_virtual_memory_bytes 63",
            "process_open_fds 64",
            "process_max_fds 65",
            "process_threads 66",
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

    /// Name, type, labels, unit and meaning of every metric, as docs/METRICS.md lists them.
    fn documented(lines: &[String]) -> Vec<String> {
        let about = |line: &'_ str, what: &str| {
            let (name, text) = line.strip_prefix(what)?.split_once(' ')?;
            Some((name.to_owned(), text.to_owned()))
        };
        let types: BTreeMap<_, _> = lines.iter().filter_map(|line| about(line, "# TYPE ")).collect();
        let row = |(name, help): (String, String)| {
            let samples = lines.iter().filter_map(|line| line.strip_prefix(&format!("{name}{{")));
            let mut labels: Vec<&str> = Vec::new();
            for part in samples.flat_map(|sample| sample.split("=\"")) {
                // What stands before a value is the name of its label, after the end of the value before.
                let label = part.rsplit([',', '"']).next().unwrap_or_default();
                if label.chars().all(|letter| letter.is_ascii_lowercase() || "_0123456789".contains(letter))
                    && !label.is_empty()
                    && !labels.contains(&label)
                {
                    labels.push(label);
                }
            }
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let stem = name.strip_suffix("_total").unwrap_or(&name);
            let unit = ["seconds", "bytes", "octets", "packets", "records"]
                .into_iter()
                .find(|unit| stem.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')));
            let cells =
                [&types[&name], &labels.join(", "), unit.unwrap_or_default(), help.trim_end_matches('.')];
            format!("| `{name}` | {} |", cells.join(" | "))
        };
        lines.iter().filter_map(|line| about(line, "# HELP ")).map(row).collect()
    }

    #[test]
    fn every_metric_is_documented_as_it_is_and_no_other() {
        let written = include_str!("../../../docs/METRICS.md")
            .lines()
            .skip_while(|line| !line.starts_with("| metric |"));
        let written: Vec<_> = written.skip(2).take_while(|line| line.starts_with('|')).collect();
        let documented = documented(&lines(Format::Text));
        assert_eq!(written, documented, "\n{}\n", documented.join("\n"));
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
