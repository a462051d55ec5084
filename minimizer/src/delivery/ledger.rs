//! The ledger: where every packet went, and whether it adds up.

use std::collections::BTreeMap;

use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;

use crate::delivery::account::Account;
use crate::delivery::settlement::Entry;
use crate::interfaces::slot::Unwatched;
use crate::records::drain::{InterfaceTotals, Totals};
use crate::records::record::Record;

/// Name of the entry for interfaces whose slots others have now. No interface has a space in its name.
pub const FORMER: &str = "former interfaces";

/// Classes of protocols, for whoever does not need each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolClass {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// All others.
    Other,
}

impl ProtocolClass {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// The class of a protocol number.
    #[must_use]
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            6 => Self::Tcp,
            17 => Self::Udp,
            1 | 58 => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }
}

/// Packets of IPv4 and of IPv6, in the order of [`ProtocolClass::ALL`].
pub type ProtocolPackets = [[u64; ProtocolClass::ALL.len()]; 2];

/// Name of the entry for interfaces that nobody watches, but on which a driver ran the program.
pub const UNKNOWN: &str = "unknown interfaces";

/// One interface.
#[derive(Clone, Debug)]
struct InterfaceEntry {
    name: String,
    totals: InterfaceTotals,
    unwatched: Unwatched,
    protocols: ProtocolPackets,
}

impl InterfaceEntry {
    const fn new(name: String, unwatched: Unwatched) -> Self {
        Self { name, totals: InterfaceTotals::ZERO, unwatched, protocols: [[0; 4]; 2] }
    }
}

/// Totals since the start, over all batches.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// By slot number.
    entries: Vec<InterfaceEntry>,
    /// Sum over the interfaces whose slots others have now.
    former: Option<InterfaceTotals>,
    /// Interfaces that nobody watches.
    unknown: InterfaceTotals,
    /// Grows with every change.
    revision: u64,
    /// Packets and octets in records that were handed over.
    exported: Counts,
    /// Packets and octets in records that were lost on the way out.
    dropped: Counts,
    /// Packets and octets in records that wait to be handed over.
    queued: Counts,
    /// Packets and octets that were handed over without keys: too few sources made their records.
    suppressed: Counts,
    /// Packets and octets in residual counters.
    overflow: Counts,
    /// Packets in records by the number of the indicator that selected them.
    selected: BTreeMap<u64, u64>,
    /// What became of what each sink was offered.
    sinks: Vec<Account>,
}

impl Ledger {
    /// An empty ledger for interfaces with these names, by slot number.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        let entry = |name| InterfaceEntry::new(name, Unwatched::default());
        let entries = names.into_iter().map(entry).collect();
        let (exported, dropped, queued, suppressed, overflow) = Default::default();
        Self {
            entries,
            former: None,
            unknown: InterfaceTotals::ZERO,
            revision: 0,
            exported,
            dropped,
            queued,
            suppressed,
            overflow,
            selected: BTreeMap::new(),
            sinks: Vec::new(),
        }
    }

    /// Enters the present name of the interface in a slot, and how often and how long nobody watched it. A slot beyond the
    /// last one is added.
    pub fn enter(&mut self, slot: usize, name: &str, unwatched: Unwatched) {
        self.revision += 1;
        while self.entries.len() <= slot {
            self.entries.push(InterfaceEntry::new(name.to_owned(), unwatched));
        }
        name.clone_into(&mut self.entries[slot].name);
        self.entries[slot].unwatched = unwatched;
    }

    /// Moves what the interface in a slot saw to [`FORMER`], because another interface gets the slot. All packets of the
    /// former one must have been entered.
    pub fn retire(&mut self, slot: usize) {
        self.revision += 1;
        if let Some(entry) = self.entries.get_mut(slot) {
            let totals = std::mem::replace(&mut entry.totals, InterfaceTotals::ZERO);
            self.former.get_or_insert(InterfaceTotals::ZERO).add_all(&totals);
            entry.protocols = ProtocolPackets::default();
        }
    }

    /// A number that grows with every change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Names of the interfaces that have slots, and how often and how long nobody watched them.
    pub fn unwatched(&self) -> impl Iterator<Item = (&str, Unwatched)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), entry.unwatched))
    }

    /// Adds what a drain found. Its records wait until they are exported or dropped.
    pub fn add(&mut self, drained: &Totals) {
        self.revision += 1;
        for (entry, batch) in self.entries.iter_mut().zip(&drained.interfaces) {
            entry.totals.add_all(batch);
        }
        self.unknown.add_all(&drained.unknown);
        add(&mut self.queued, drained.recorded);
        add(&mut self.overflow, drained.overflow());
    }

    /// Enters records that were handed over, `suppressed` of their packets without keys.
    pub fn add_exported(&mut self, counts: Counts, suppressed: Counts) {
        self.revision += 1;
        self.queued.packets -= counts.packets;
        self.queued.octets -= counts.octets;
        self.exported.packets += counts.packets - suppressed.packets;
        self.exported.octets += counts.octets - suppressed.octets;
        add(&mut self.suppressed, suppressed);
    }

    /// Enters records that were lost on the way out.
    pub fn add_dropped(&mut self, counts: Counts) {
        self.revision += 1;
        self.queued.packets -= counts.packets;
        self.queued.octets -= counts.octets;
        add(&mut self.dropped, counts);
    }

    /// Enters what became of a batch, in the end.
    pub fn settle(&mut self, Entry { exported, suppressed, dropped }: Entry) {
        let mut counts = exported;
        add(&mut counts, suppressed);
        self.add_exported(counts, suppressed);
        self.add_dropped(dropped);
    }

    /// Counts the packets of records by the indicator that selected them.
    pub fn add_selected(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records.into_iter().filter(|record| record.selector_id != 0) {
            *self.selected.entry(record.selector_id).or_default() += record.packets;
        }
    }

    /// Counts the packets of records by interface, IP version and protocol. All three must have been collected.
    pub fn add_protocols(&mut self, records: impl IntoIterator<Item = Record>) {
        for Record { tuple, packets, .. } in records {
            let slot = usize::try_from(tuple.tags().interface()).unwrap_or(usize::MAX);
            if let Some(entry) = self.entries.get_mut(slot) {
                let version = usize::from(tuple.tags().is_ipv6());
                entry.protocols[version][ProtocolClass::of(tuple.protocol()) as usize] += packets;
            }
        }
    }

    /// Packets in records by interface, IP version and protocol.
    pub fn protocols(&self) -> impl Iterator<Item = (&str, &ProtocolPackets)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.protocols))
    }

    /// Packets in records by the number of the indicator that selected them. Empty where no recipient gets that number.
    #[must_use]
    pub const fn selected(&self) -> &BTreeMap<u64, u64> {
        &self.selected
    }

    /// Replaces the accounts of the sinks by these.
    pub fn set_sinks(&mut self, sinks: impl Iterator<Item = Account>) {
        self.revision += 1;
        self.sinks.clear();
        self.sinks.extend(sinks);
    }

    /// What became of what each sink was offered.
    #[must_use]
    pub fn sinks(&self) -> &[Account] {
        &self.sinks
    }

    /// Enters a packet whose outcome is known although the kernel program could not be given it.
    pub fn add_outcome(&mut self, interface: usize, outcome: Outcome, frame_octets: u64) {
        if let Some(total) = self.entries.get_mut(interface).map(|entry| &mut entry.totals) {
            total.seen_packets += 1;
            total.seen_octets += frame_octets;
            total.outcomes[outcome as usize] += 1;
        }
    }

    /// Names and totals of the interfaces, by slot number, and after them those of [`FORMER`] and [`UNKNOWN`] ones, if there are
    /// any.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &InterfaceTotals)> {
        let present = self.entries.iter().map(|entry| (entry.name.as_str(), &entry.totals));
        let unknown = (self.unknown.seen_packets != 0).then_some((UNKNOWN, &self.unknown));
        present.chain(self.former.iter().map(|totals| (FORMER, totals))).chain(unknown)
    }

    /// Packets and octets in records that were handed over.
    #[must_use]
    pub const fn exported(&self) -> Counts {
        self.exported
    }

    /// Packets and octets in records that were lost on the way out.
    #[must_use]
    pub const fn dropped(&self) -> Counts {
        self.dropped
    }

    /// Packets and octets in records that wait to be handed over.
    #[must_use]
    pub const fn queued(&self) -> Counts {
        self.queued
    }

    /// Packets and octets that were handed over without keys, because too few sources made their records.
    #[must_use]
    pub const fn suppressed(&self) -> Counts {
        self.suppressed
    }

    /// Packets and octets in residual counters.
    #[must_use]
    pub const fn overflow(&self) -> Counts {
        self.overflow
    }

    /// Whether every packet has exactly one outcome, records and residual counters hold exactly the packets and
    /// octets that the interfaces counted, and every sink accounts for all that it was offered.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sum = |part: fn(&InterfaceTotals) -> u64| {
            self.interfaces().map(|(_, totals)| part(totals)).sum::<u64>()
        };
        let every_packet_has_an_outcome =
            self.interfaces().all(|(_, totals)| totals.seen_packets == totals.outcomes.iter().sum::<u64>());
        let parts = [self.exported, self.dropped, self.queued, self.suppressed];
        let recorded = |part: fn(&Counts) -> u64| parts.iter().map(part).sum::<u64>();
        every_packet_has_an_outcome
            && self.sinks.iter().all(Account::is_balanced)
            && sum(|totals| totals.outcome(Outcome::Counted)) == recorded(|counts| counts.packets)
            && sum(|totals| totals.outcome(Outcome::Overflow)) == self.overflow.packets
            && sum(|totals| totals.octets_counted) == recorded(|counts| counts.octets) + self.overflow.octets
    }
}

fn add(total: &mut Counts, counts: Counts) {
    total.packets += counts.packets;
    total.octets += counts.octets;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use minimizer_common::generation::Counts;
    use minimizer_common::outcome::Outcome;
    use minimizer_common::tuple::{Tags, Tuple};

    use super::{FORMER, Ledger, UNKNOWN};
    use crate::interfaces::slot::Unwatched;
    use crate::records::drain::{InterfaceTotals, Occupancy, Totals};
    use crate::records::record::Record;

    fn drained(packets: &[u64]) -> Totals {
        let interface = |packets: &u64| {
            let mut totals = InterfaceTotals {
                seen_packets: *packets,
                octets_counted: packets * 40,
                ..InterfaceTotals::ZERO
            };
            totals.outcomes[Outcome::Counted as usize] = *packets;
            totals
        };
        let sum = packets.iter().sum();
        Totals {
            interfaces: packets.iter().map(interface).collect(),
            unknown: InterfaceTotals::ZERO,
            recorded: Counts { packets: sum, octets: sum * 40 },
            residuals: Vec::new(),
            occupancy: Occupancy::default(),
        }
    }

    #[test]
    fn a_slot_that_changes_hands_leaves_its_packets_in_the_ledger() {
        let mut ledger = Ledger::new(vec!["eth0".to_owned()]);
        ledger.add(&drained(&[3]));
        ledger.enter(1, "eth1", Unwatched::default());
        ledger.add(&drained(&[4, 5]));
        ledger.retire(1);
        ledger.enter(1, "eth2", Unwatched { times: 2, time: Duration::from_millis(1500) });
        ledger.add(&drained(&[0, 6]));
        let seen: Vec<_> = ledger.interfaces().map(|(name, totals)| (name, totals.seen_packets)).collect();
        assert_eq!(seen, [("eth0", 7), ("eth2", 6), (FORMER, 5)]);
        assert!(ledger.is_balanced());
    }

    #[test]
    fn packets_of_interfaces_that_nobody_watches_are_nobody_elses() {
        let mut ledger = Ledger::new(vec!["eth0".to_owned()]);
        let mut totals = drained(&[3]);
        totals.unknown.seen_packets = 2;
        totals.unknown.outcomes[Outcome::UnknownInterface as usize] = 2;
        ledger.add(&totals);
        assert!(ledger.is_balanced());
        let json = serde_json::to_value(&ledger).expect("a ledger is JSON");
        assert_eq!(json["interfaces"]["eth0"]["seen"], 3);
        assert_eq!(json["interfaces"]["eth0"]["outcomes"]["unknown_interface"], 0);
        assert_eq!(json["interfaces"][UNKNOWN]["seen"], 2);
        assert_eq!(json["interfaces"][UNKNOWN]["outcomes"]["unknown_interface"], 2);
        totals.unknown.outcomes[Outcome::UnknownInterface as usize] = 1;
        ledger.add(&totals);
        assert!(!ledger.is_balanced());
    }

    #[test]
    fn packets_are_counted_by_version_and_protocol_of_each_interface() {
        let record = |tags, protocol, packets| Record {
            tuple: Tuple::new([0; 4], (0, 0), tags, protocol, 0),
            ingress_interface: 0,
            control_bits: 0,
            packets,
            octets: 0,
            start_ms: 0,
            end_ms: 0,
            selector_id: 0,
        };
        let second = Tags::default().with_interface(1);
        let mut ledger = Ledger::new(vec!["a".to_owned(), "b".to_owned()]);
        ledger.add_protocols([
            record(Tags::default(), 6, 2),
            record(second, 6, 3),
            record(second, 17, 4),
            record(second.with_ipv6(), 58, 5),
            record(second.with_ipv6(), 132, 6),
            record(Tags::default().with_interface(2), 6, 7),
        ]);
        let counted: Vec<_> = ledger.protocols().map(|(name, packets)| (name, *packets)).collect();
        let expected = [("a", [[2, 0, 0, 0], [0; 4]]), ("b", [[3, 4, 0, 0], [0, 0, 5, 6]])];
        assert_eq!(counted, expected);
    }

    #[test]
    fn packets_are_counted_by_the_indicator_that_selected_them() {
        let record = |selector_id, packets| Record {
            tuple: Tuple::default(),
            ingress_interface: 1,
            control_bits: 0,
            packets,
            octets: 0,
            start_ms: 0,
            end_ms: 0,
            selector_id,
        };
        let mut ledger = Ledger::new(Vec::new());
        assert!(ledger.selected().is_empty());
        ledger.add_selected([record(1001, 3), record(0, 9), record(1002, 4), record(1001, 5)]);
        assert_eq!(*ledger.selected(), [(1001, 8), (1002, 4)].into());
    }
}
