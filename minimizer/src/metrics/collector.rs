//! The metric families, their names and what they say, encoded from a snapshot.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use minimizer_common::LAYOUT_VERSION;
use minimizer_common::outcome::Outcome;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelValue, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::snapshot::{DURATION_BOUNDS, Snapshot};
use crate::program::Action;
use crate::watch::Watched;

/// Encodes one snapshot.
#[derive(Debug)]
pub struct SnapshotCollector(pub Arc<Snapshot>);

type Labels<'snapshot> = Vec<(&'static str, &'snapshot str)>;

impl Collector for SnapshotCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        families.interfaces(&self.0)?;
        families.records(&self.0)?;
        families.policy(&self.0)?;
        families.table(&self.0)?;
        families.drains(&self.0)?;
        families.agent(&self.0)
    }
}

struct Families<'encoder>(DescriptorEncoder<'encoder>);

impl Families<'_> {
    fn interfaces(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let totals = || snapshot.ledger.interfaces();
        self.counters(
            "minimizer_seen_packets",
            "Frames that entered the kernel program",
            totals().map(|(name, totals)| (vec![("interface", name)], totals.seen_packets)),
        )?;
        self.counters(
            "minimizer_seen_octets",
            "Octets of the frames that entered the kernel program: layer 2, link header included, frame check sequence excluded",
            totals().map(|(name, totals)| (vec![("interface", name)], totals.seen_octets)),
        )?;
        self.counters(
            "minimizer_packets",
            "How packets ended: every packet seen has exactly one outcome; malformed and unsupported have a reason",
            totals().flat_map(|(name, totals)| {
                Outcome::ALL.iter().map(move |outcome| {
                    let mut labels: Labels<'_> = vec![("interface", name), ("outcome", outcome.name())];
                    labels.extend(outcome.reason().map(|reason| ("reason", reason)));
                    (labels, totals.outcome(*outcome))
                })
            }),
        )?;
        self.counters(
            "minimizer_counted_octets",
            "Octets of the packets in records and residual counters: layer 3, the length that the IP header declares",
            totals().map(|(name, totals)| (vec![("interface", name)], totals.octets_counted)),
        )?;
        self.attachments(snapshot)
    }

    fn attachments(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let watched = || snapshot.watched.iter();
        let label = |watched: &'_ Watched| ("interface", watched.name.clone());
        let attached = watched().map(|watched| {
            let mode = watched.attached.map_or("none", |attached| attached.mode.name()).to_owned();
            (vec![label(watched), ("mode", mode)], u64::from(watched.attached.is_some()))
        });
        self.gauges(
            "minimizer_interface_attached",
            "Whether the program is attached to the interface (1) or not (0), and in which mode",
            None,
            attached,
        )?;
        let infos = watched().filter_map(|watched| {
            let attached = watched.attached?;
            let labels = vec![
                label(watched),
                ("mode", attached.mode.name().to_owned()),
                ("tap", (watched.action == Action::Drop).to_string()),
                ("if_index", attached.if_index.to_string()),
                ("program_id", attached.program_id.to_string()),
            ];
            Some((labels, 1_u64))
        });
        self.gauges(
            "minimizer_interface_info",
            "How the program is attached to the interface, by the kernel's numbers of both: always 1",
            None,
            infos,
        )?;
        self.gauges(
            "minimizer_interface_up",
            "Whether the interface is up (1) or down or gone (0)",
            None,
            watched().map(|watched| (vec![label(watched)], u64::from(watched.up))),
        )?;
        self.gauges(
            "minimizer_interface_tap",
            "Whether frames of the interface are dropped once they are counted (1) or passed on (0)",
            None,
            watched().map(|watched| (vec![label(watched)], u64::from(watched.action == Action::Drop))),
        )?;
        let unwatched = || snapshot.ledger.unwatched();
        self.counters(
            "minimizer_interface_unwatched_times",
            "How often the program was not attached to the interface, from its first attachment on",
            unwatched().map(|(name, unwatched)| (vec![("interface", name)], unwatched.times)),
        )?;
        self.counters(
            "minimizer_interface_unwatched_seconds",
            "How long the program was not attached to the interface, from its first attachment on",
            unwatched().map(|(name, unwatched)| (vec![("interface", name)], unwatched.time.as_secs_f64())),
        )?;
        self.gauge(
            "minimizer_interfaces_refused",
            "Interfaces that are selected and find no slot",
            u64::try_from(snapshot.refused).unwrap_or(u64::MAX),
        )
    }

    fn records(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let ledger = &snapshot.ledger;
        for (name, help, value) in [
            ("minimizer_exported_records", "Records handed over", snapshot.exported_records),
            ("minimizer_exported_packets", "Packets in the records handed over", ledger.exported().packets),
            ("minimizer_exported_octets", "IP octets in the records handed over", ledger.exported().octets),
            (
                "minimizer_dropped_packets",
                "Packets in the records that no sink took",
                ledger.dropped().packets,
            ),
            (
                "minimizer_dropped_octets",
                "IP octets in the records that no sink took",
                ledger.dropped().octets,
            ),
            (
                "minimizer_suppressed_packets",
                "Packets handed over in sums without keys: fewer sources than the policy's threshold made their records",
                ledger.suppressed().packets,
            ),
            (
                "minimizer_suppressed_octets",
                "IP octets handed over in sums without keys",
                ledger.suppressed().octets,
            ),
            (
                "minimizer_overflow_packets",
                "Packets in residual counters, because flow table and spill log were full",
                ledger.overflow().packets,
            ),
            ("minimizer_overflow_octets", "IP octets in residual counters", ledger.overflow().octets),
        ] {
            self.counters(name, help, [(Vec::new(), value)])?;
        }
        for (name, help, value) in [
            (
                "minimizer_queued_packets",
                "Packets in records that wait to be handed over",
                ledger.queued().packets,
            ),
            (
                "minimizer_queued_octets",
                "IP octets in records that wait to be handed over",
                ledger.queued().octets,
            ),
            (
                "minimizer_ledger_balanced",
                "Whether every packet seen is accounted for exactly once (1) or not (0)",
                u64::from(ledger.is_balanced()),
            ),
        ] {
            self.gauge(name, help, value)?;
        }
        Ok(())
    }

    fn policy(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let (policy, reloads) = (&snapshot.policy, &snapshot.reloads);
        let mandate = policy.mandate.as_ref();
        let labels: Labels<'_> = vec![
            ("name", &policy.name),
            ("sha256", &policy.digest),
            ("mandate", mandate.map_or("", |mandate| &mandate.id)),
        ];
        self.gauges("minimizer_policy_info", "The policy in force: always 1", None, [(labels, 1u64)])?;
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        self.gauge("minimizer_policy_prefixes", "Prefixes of the policy's scope", count(policy.prefixes))?;
        self.gauge(
            "minimizer_policy_indicators",
            "Indicators of the policy, expired ones included",
            count(policy.indicators),
        )?;
        self.counters(
            "minimizer_policy_reloads",
            "How often another policy was put in force without a packet missed",
            [(Vec::new(), reloads.succeeded)],
        )?;
        self.counters(
            "minimizer_policy_reload_failures",
            "How often a policy could not be put in force and the one before stayed",
            [(Vec::new(), reloads.failed)],
        )?;
        if let Some(mandate) = mandate {
            let seconds = |time: jiff::Timestamp| time.as_second() as f64;
            self.seconds(
                "minimizer_mandate_valid_from_timestamp",
                "When the mandate begins, since 1970",
                seconds(mandate.valid_from),
            )?;
            self.seconds(
                "minimizer_mandate_valid_until_timestamp",
                "When the mandate ends and the agent with it, since 1970",
                seconds(mandate.valid_until),
            )?;
        }
        Ok(())
    }

    fn table(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let occupancy = &snapshot.occupancy;
        let used = "in use when the last generation was drained, all CPUs";
        self.gauge("minimizer_table_slots", "Slots of the flow table, all CPUs", occupancy.slots)?;
        self.gauge("minimizer_table_slots_used", &format!("Slots {used}"), occupancy.slots_used)?;
        self.gauge("minimizer_table_spill_entries", "Entries of the spill log, all CPUs", occupancy.spill)?;
        self.gauge(
            "minimizer_table_spill_entries_used",
            &format!("Spill log entries {used}"),
            occupancy.spill_used,
        )?;
        let used_max = "in use when the last generation was drained, on the CPU that used most";
        self.gauge(
            "minimizer_table_cpu_slots",
            "Slots of the flow table of one CPU",
            occupancy.slots_per_cpu,
        )?;
        self.gauge(
            "minimizer_table_cpu_slots_used_max",
            &format!("Slots {used_max}"),
            occupancy.slots_used_max,
        )?;
        self.gauge(
            "minimizer_table_cpu_spill_entries",
            "Entries of the spill log of one CPU",
            occupancy.spill_per_cpu,
        )?;
        self.gauge(
            "minimizer_table_cpu_spill_entries_used_max",
            &format!("Spill log entries {used_max}"),
            occupancy.spill_used_max,
        )?;
        self.gauge(
            "minimizer_table_memory_bytes",
            "Memory of the flow tables, all CPUs and generations",
            snapshot.table_bytes,
        )
    }

    fn drains(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let drains = &snapshot.drains;
        let unit = Unit::Seconds;
        let bounds = DURATION_BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(drains.durations).collect();
        self.0
            .encode_descriptor(
                "minimizer_drain_duration",
                "Time that a drain takes, from flipping the generations until all of its records are merged",
                Some(&unit),
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(
                drains.duration_sum.as_secs_f64(),
                drains.durations.iter().sum(),
                &buckets,
                None,
            )?;
        let last = drains.last_success.map_or(0.0, |(_, time)| unix_seconds(time));
        self.seconds(
            "minimizer_drain_last_success_timestamp",
            "When the last successful drain ended, since 1970; 0 before the first",
            last,
        )?;
        self.seconds("minimizer_drain_interval", "Time between drains", snapshot.interval.as_secs_f64())
    }

    fn agent(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let build = &snapshot.build;
        let layout = LAYOUT_VERSION.to_string();
        let labels: Labels<'_> = vec![
            ("version", build.version),
            ("layout", &layout),
            ("object_sha256", &build.object_digest),
            ("program_tag", &build.program_tag),
        ];
        self.gauges("minimizer_build_info", "What runs: always 1", None, [(labels, 1u64)])?;
        self.seconds(
            "process_start_time",
            "When the agent started, since 1970",
            unix_seconds(snapshot.started),
        )
    }

    fn counters<'snapshot, Value: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'snapshot>, Value)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<Label: EncodeLabelValue, Value: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Vec<(&'static str, Label)>, Value)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges::<&str, _>(name, help, None, [(Vec::new(), value)])
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges::<&str, _>(name, help, Some(&Unit::Seconds), [(Vec::new(), value)])
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
