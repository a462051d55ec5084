//! Metrics for Prometheus: a fixed set of families, made from the latest snapshot.
//!
//! Interfaces × outcomes bound the number of series. No label ever holds an address or a port.

mod collector;
mod format;
mod scrape;
mod text;

use prometheus_client::encoding::prometheus_protobuf::{self, EncodeError};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

pub use format::ExpositionFormat;
pub use scrape::{ProcessUsage, Scrape, unix_seconds};

/// All metrics of a scrape, in `format`.
///
/// # Errors
/// When encoding fails. Writing to memory does not fail by itself.
pub fn render(scrape: Scrape, format: ExpositionFormat) -> Result<Vec<u8>, EncodeError> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    if format == ExpositionFormat::Protobuf {
        return prometheus_protobuf::encode_to_vec(&registry);
    }
    let mut open_metrics = String::new();
    encode(&mut open_metrics, &registry)?;
    Ok(match format {
        ExpositionFormat::Text => text::from_open_metrics(&open_metrics),
        _ => open_metrics,
    }
    .into_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, SystemTime};

    use minimizer_common::outcome::Outcome;

    use super::{ExpositionFormat, ProcessUsage, Scrape, render};
    use crate::serve::access::{AccessCounts, Refusal};
    use crate::serve::snapshot::example::example;

    fn access() -> AccessCounts {
        let access = AccessCounts::default();
        for (counter, value) in [
            (&access.open, 51),
            (&access.accepted, 52),
            (&access.requests, 53),
            (&access.reloads, 60),
            (&access.reload_failures, 61),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        for (refusal, times) in Refusal::ALL.iter().zip(54..62) {
            (0..times).for_each(|_| access.refuse(*refusal));
        }
        access
    }

    fn scrape() -> Scrape {
        let process = ProcessUsage {
            cpu_seconds: 1.25,
            resident_bytes: 62,
            virtual_bytes: 63,
            open_fds: 64,
            max_fds: 65,
            threads: 66,
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_710_000_000);
        Scrape {
            snapshot: Arc::new(example()),
            access: Arc::new(access()),
            process: Some(process),
            log_lines_lost: 67,
            time,
        }
    }

    fn lines(format: ExpositionFormat) -> Vec<String> {
        let text = render(scrape(), format).expect("memory takes everything");
        String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_number_of_a_snapshot_is_there() {
        let lines = lines(ExpositionFormat::Text);
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
            r#"minimizer_web_refusals_total{reason="forbidden"} 60"#,
            r#"minimizer_web_refusals_total{reason="misdirected"} 61"#,
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
            "minimizer_suppressed_octets_total 256",
            "minimizer_interfaces_refused 8",
            "minimizer_exported_records_total 42",
            "minimizer_exported_packets_total 98",
            "minimizer_exported_octets_total 69000",
            r#"minimizer_sink_suppressed_packets_total{sink="soc"} 4"#,
            r#"minimizer_sink_exported_packets_total{sink="soc"} 93"#,
            "minimizer_dropped_packets_total 1",
            "minimizer_dropped_octets_total 600",
            r#"minimizer_sink_up{sink="soc",recipient="operations",kind="ipfix"} 1"#,
            r#"minimizer_sink_state{sink="soc",recipient="operations",kind="ipfix",state="up"} 1"#,
            r#"minimizer_sink_state{sink="soc",recipient="operations",kind="ipfix",state="down"} 0"#,
            r#"minimizer_sink_state{sink="soc",recipient="operations",kind="ipfix",state="unknown"} 0"#,
            r#"minimizer_sink_sent_unconfirmed_records_total{sink="soc"} 19"#,
            r#"minimizer_sink_sent_unconfirmed_packets_total{sink="soc"} 26"#,
            r#"minimizer_sink_sent_unconfirmed_octets_total{sink="soc"} 2510"#,
            "minimizer_sent_unconfirmed_packets 22",
            "minimizer_sent_unconfirmed_octets 2200",
            "minimizer_queued_packets 2",
            "minimizer_queued_octets 400",
            "minimizer_overflow_packets_total 106",
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

    /// Name, type, labels, unit and meaning of every metric, in the form of docs/METRICS.md.
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
                // The name of a label stands between the end of the previous value and its own value.
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
        let documented = documented(&lines(ExpositionFormat::Text));
        assert_eq!(written, documented, "\n{}\n", documented.join("\n"));
    }

    #[test]
    fn the_formats_have_the_same_samples() {
        let samples = |format| {
            let mut lines = lines(format);
            lines.retain(|line| !line.starts_with('#') && !line.contains("last_success"));
            lines
        };
        assert_eq!(samples(ExpositionFormat::OpenMetrics), samples(ExpositionFormat::Text));
        assert_eq!(lines(ExpositionFormat::OpenMetrics).last().map(String::as_str), Some("# EOF"));
    }
}
