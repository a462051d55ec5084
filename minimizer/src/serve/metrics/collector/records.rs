//! Where the counted packets are: the totals of the ledger.

use std::fmt;

use super::Families;
use crate::delivery::ledger::Told;
use crate::serve::snapshot::Snapshot;

impl Families<'_> {
    pub(super) fn records(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let ledger = &snapshot.ledger;
        let Told { exported, sent_unconfirmed: unconfirmed, suppressed } = ledger.told();
        let (dropped, queued, overflow) = (ledger.dropped(), ledger.queued(), ledger.overflow());
        for (name, help, value) in [
            (
                "minimizer_exported_records_total",
                "Records handed over, to all sinks",
                snapshot.exported_records(),
            ),
            (
                "minimizer_exported_packets_total",
                "Packets in the records handed over, sums without keys included",
                exported.packets,
            ),
            (
                "minimizer_exported_octets_total",
                "IP octets (layer 3) in the records handed over, sums without keys included",
                exported.octets,
            ),
            ("minimizer_dropped_packets_total", "Packets in the records that no sink took", dropped.packets),
            (
                "minimizer_dropped_octets_total",
                "IP octets (layer 3) in the records that no sink took",
                dropped.octets,
            ),
            (
                "minimizer_suppressed_packets_total",
                "The part of the exported packets that went in sums without keys, rounded down to a power of two: a threshold or a mitigation of the policy held their records back",
                suppressed.packets,
            ),
            (
                "minimizer_suppressed_octets_total",
                "The part of the exported octets that went in sums without keys, rounded down to a power of two",
                suppressed.octets,
            ),
            (
                "minimizer_overflow_packets_total",
                "Packets in residual counters, because flow table and spill log were full",
                overflow.packets,
            ),
            ("minimizer_overflow_octets_total", "IP octets (layer 3) in residual counters", overflow.octets),
        ] {
            self.counter(name, help, value)?;
        }
        let balanced = u64::from(ledger.is_balanced());
        self.gauge(
            "minimizer_sent_unconfirmed_packets",
            "Packets in the part of the records handed over that was sent and that no sink has confirmed so far",
            unconfirmed.packets,
        )?;
        self.gauge(
            "minimizer_sent_unconfirmed_octets",
            "IP octets (layer 3) in the part of the records handed over that was sent and that no sink has confirmed so far",
            unconfirmed.octets,
        )?;
        self.gauge(
            "minimizer_queued_packets",
            "Packets in records that wait to be handed over",
            queued.packets,
        )?;
        self.gauge(
            "minimizer_queued_octets",
            "IP octets (layer 3) in records that wait to be handed over",
            queued.octets,
        )?;
        self.gauge(
            "minimizer_ledger_balanced",
            "Whether every packet seen is accounted for exactly once (1) or not (0)",
            balanced,
        )
    }
}
