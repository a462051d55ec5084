//! What the program saw on each interface, and how it is attached there.

use std::fmt;

use minimizer_common::outcome::Outcome;
use minimizer_common::protocol::ProtocolClass;

use super::{Families, Labels};
use crate::interfaces::slot::Watched;
use crate::kernel::attach::Action;
use crate::serve::snapshot::Snapshot;

impl Families<'_> {
    pub(super) fn interfaces(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let totals = || snapshot.ledger.interfaces();
        self.counters(
            "minimizer_seen_packets_total",
            "Frames that entered the kernel program",
            totals().map(|(name, totals)| (vec![("interface", name)], totals.seen_packets)),
        )?;
        self.counters(
            "minimizer_seen_octets_total",
            "Octets of the frames that entered the kernel program: layer 2, link header included, frame check sequence excluded",
            totals().map(|(name, totals)| (vec![("interface", name)], totals.seen_octets)),
        )?;
        self.counters(
            "minimizer_packets_total",
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
            "minimizer_counted_octets_total",
            "Octets of the packets in records and residual counters: layer 3, the length that the IP header declares",
            totals().map(|(name, totals)| (vec![("interface", name)], totals.octets_counted)),
        )?;
        if snapshot.policy.has_protocols {
            self.protocols(snapshot)?;
        }
        self.attachments(snapshot)
    }

    fn protocols(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let series = snapshot.ledger.protocols().flat_map(|(name, versions)| {
            ["4", "6"].into_iter().zip(versions).flat_map(move |(version, packets)| {
                ProtocolClass::ALL.into_iter().zip(packets).map(move |(class, packets)| {
                    let labels =
                        vec![("interface", name), ("ip_version", version), ("protocol", class.name())];
                    (labels, *packets)
                })
            })
        });
        self.counters(
            "minimizer_protocol_packets_total",
            "Packets in records by IP version and protocol; only while the policy collects interface and protocol",
            series,
        )
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
            attached,
        )?;
        self.gauges(
            "minimizer_interface_blind",
            "Whether the program is attached to the interface and sees none of the frames that it receives (1), because the driver does not run it, or not (0)",
            watched().map(|watched| (vec![label(watched)], u64::from(watched.is_blind))),
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
            infos,
        )?;
        self.gauges(
            "minimizer_interface_up",
            "Whether the interface is up (1) or down or gone (0)",
            watched().map(|watched| (vec![label(watched)], u64::from(watched.up))),
        )?;
        self.gauges(
            "minimizer_interface_tap",
            "Whether frames of the interface are dropped once they are counted (1) or passed on (0)",
            watched().map(|watched| (vec![label(watched)], u64::from(watched.action == Action::Drop))),
        )?;
        let unwatched = || snapshot.ledger.unwatched();
        self.counters(
            "minimizer_interface_unwatched_times_total",
            "How often the program was not attached to the interface, or saw nothing of it, from its first attachment on",
            unwatched().map(|(name, unwatched)| (vec![("interface", name)], unwatched.times)),
        )?;
        self.counters(
            "minimizer_interface_unwatched_seconds_total",
            "How long the program was not attached to the interface, or saw nothing of it, from its first attachment on",
            unwatched().map(|(name, unwatched)| (vec![("interface", name)], unwatched.time.as_secs_f64())),
        )?;
        self.gauge(
            "minimizer_interfaces_refused",
            "Interfaces that are selected and find no slot",
            u64::try_from(snapshot.refused).unwrap_or(u64::MAX),
        )
    }
}
