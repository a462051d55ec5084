//! Metrics of the sinks: what each was offered, where it went, and whether the sink works.

use std::fmt;

use super::{Families, Labels};
use crate::delivery::account::{Account, SinkState};
use crate::delivery::loss::Loss;
use crate::delivery::tally::Tally;
use crate::serve::snapshot::Snapshot;

/// A counter that every sink has: name, help, value.
type SinkCounter = (&'static str, &'static str, fn(&Account) -> u64);

const COUNTERS: [SinkCounter; 10] = [
    ("minimizer_sink_exported_records_total", "Records that the sink handed over", |sink| {
        sink.exported.records
    }),
    (
        "minimizer_sink_exported_packets_total",
        "Packets in the records that the sink handed over, sums without keys included",
        |sink| sink.exported.packets,
    ),
    (
        "minimizer_sink_exported_octets_total",
        "IP octets (layer 3) in the records that the sink handed over, sums without keys included",
        |sink| sink.exported.octets,
    ),
    (
        "minimizer_sink_sent_unconfirmed_records_total",
        "The part of the exported records that was sent and that nobody confirmed",
        |sink| sink.sent_unconfirmed.records,
    ),
    (
        "minimizer_sink_sent_unconfirmed_packets_total",
        "Packets in the part of the exported records that was sent and that nobody confirmed",
        |sink| sink.sent_unconfirmed.packets,
    ),
    (
        "minimizer_sink_sent_unconfirmed_octets_total",
        "IP octets (layer 3) in the part of the exported records that was sent and that nobody confirmed",
        |sink| sink.sent_unconfirmed.octets,
    ),
    (
        "minimizer_sink_suppressed_packets_total",
        "The part of the exported packets that the sink handed over in sums without keys, rounded down to a power of two: a threshold or a mitigation held their records back",
        |sink| sink.suppressed.packets,
    ),
    (
        "minimizer_sink_written_bytes_total",
        "Bytes that the sink sent or wrote; 0 for the standard output",
        |sink| sink.octets_written,
    ),
    ("minimizer_sink_failures_total", "How often the sink failed; it tries again after each", |sink| {
        sink.failures
    }),
    (
        "minimizer_sink_retention_failures_total",
        "How often the sink could not delete a file whose retention was over; it tries again each minute",
        |sink| sink.retention_failures,
    ),
];

impl Families<'_> {
    pub(super) fn sinks(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let sinks: Vec<_> = snapshot.ledger.sinks().iter().map(Account::told).collect();
        let label = |sink: &'_ Account| ("sink", sink.name.clone());
        let whose = |sink: &Account| {
            vec![label(sink), ("recipient", sink.recipient.clone()), ("kind", sink.kind.clone())]
        };
        let known = sinks.iter().filter(|sink| sink.state != SinkState::Unknown);
        self.gauges(
            "minimizer_sink_up",
            "Whether the sink works (1) or failed when it was used last (0); absent while nobody knows",
            known.map(|sink| (whose(sink), u64::from(sink.state == SinkState::Up))),
        )?;
        let states = sinks.iter().flat_map(|sink| SinkState::ALL.map(|state| (sink, state)));
        self.gauges(
            "minimizer_sink_state",
            "Whether the sink is in this state (1) or not (0): up, down, or unknown, because it was not used yet or nobody confirms what it sends",
            states.map(|(sink, state)| {
                let mut labels = whose(sink);
                labels.push(("state", state.name().to_owned()));
                (labels, u64::from(sink.state == state))
            }),
        )?;
        for (name, help, value) in COUNTERS {
            let series = sinks.iter().map(|sink| (labels(sink, None), value(sink)));
            self.counters(name, help, series)?;
        }
        let lost = |part: fn(&Tally) -> u64| {
            sinks.iter().flat_map(move |sink| {
                Loss::ALL.iter().map(move |loss| {
                    let value = sink.dropped.get(loss.name()).map_or(0, part);
                    (labels(sink, Some(*loss)), value)
                })
            })
        };
        self.counters(
            "minimizer_sink_dropped_records_total",
            "Records that the sink did not hand over, and why; those of a batch that was never prepared as they were collected",
            lost(|tally| tally.records),
        )?;
        self.counters(
            "minimizer_sink_dropped_packets_total",
            "Packets in records that the sink did not hand over, and why",
            lost(|tally| tally.packets),
        )?;
        self.gauges(
            "minimizer_sink_queued_records",
            "Records that wait for the sink or are held by it",
            sinks.iter().map(|sink| (vec![label(sink)], sink.queued.records)),
        )?;
        self.gauges(
            "minimizer_sink_queued_packets",
            "Packets in records that wait for the sink or are held by it",
            sinks.iter().map(|sink| (vec![label(sink)], sink.queued.packets)),
        )?;
        self.gauges(
            "minimizer_sink_queued_bytes",
            "Memory of the batches that wait for the sink or are being handed to it",
            sinks.iter().map(|sink| (vec![label(sink)], sink.queue_bytes)),
        )?;
        self.gauges(
            "minimizer_sink_last_success_timestamp_seconds",
            "When the sink last took a batch as a whole, since 1970; 0 before the first",
            sinks.iter().map(|sink| {
                let milliseconds = sink.last_success_milliseconds.unwrap_or(0);
                (vec![label(sink)], milliseconds as f64 / 1000.0)
            }),
        )
    }
}

fn labels(sink: &Account, loss: Option<Loss>) -> Labels<'_> {
    let mut labels: Labels<'_> = vec![("sink", &sink.name)];
    labels.extend(loss.map(|loss| ("reason", loss.name())));
    labels
}
