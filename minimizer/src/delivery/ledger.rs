//! The ledger: where every packet went, and whether it adds up.

use std::collections::BTreeMap;
use std::sync::Arc;

use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;

use crate::delivery::account::Account;
use crate::delivery::settlement::Entry;
use crate::delivery::tally::Tally;
use crate::interfaces::slot::Unwatched;
use crate::records::drain::{InterfaceTotals, ProtocolPackets, Totals};

/// Name of the entry for interfaces whose slots others have now. No interface has a space in its name.
pub const FORMER: &str = "former interfaces";

/// Name of the entry for interfaces that nobody watches, but on which a driver ran the program.
pub const UNKNOWN: &str = "unknown interfaces";

/// One interface.
#[derive(Clone, Debug)]
struct InterfaceEntry {
    name: String,
    totals: InterfaceTotals,
    unwatched: Unwatched,
}

impl InterfaceEntry {
    const fn new(name: String, unwatched: Unwatched) -> Self {
        Self { name, totals: InterfaceTotals::ZERO, unwatched }
    }
}

/// Whether the ledger has everything that it will ever have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has the drains so far, and more may come.
    #[default]
    SoFar,
    /// The last drain is in it, and what has become of its records.
    Complete,
    /// It lacks something for this reason, and nobody knows how much.
    Incomplete(Arc<str>),
}

/// What was handed over since the start, as it is told outside of the ledger file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// With and without keys.
    pub exported: Counts,
    /// The part that no sink has confirmed. If there is any, what went without keys is in it.
    pub sent_unconfirmed: Counts,
    /// The part that went without keys, rounded.
    pub suppressed: Counts,
}

/// Totals since the start, over all batches.
#[derive(Clone, Debug)]
pub struct Ledger {
    standing: Standing,
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
    /// The part of `exported` that no sink has confirmed.
    sent_unconfirmed: Counts,
    /// Packets and octets in records that were lost on the way out.
    dropped: Counts,
    /// Packets and octets in records that wait to be handed over.
    queued: Counts,
    /// Packets and octets that were handed over without keys: a threshold or a mitigation held their records back.
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
        let (exported, sent_unconfirmed, dropped, queued, suppressed, overflow) = Default::default();
        Self {
            standing: Standing::SoFar,
            entries,
            former: None,
            unknown: InterfaceTotals::ZERO,
            revision: 0,
            exported,
            sent_unconfirmed,
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
        }
    }

    /// A number that grows with every change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Nothing will come any more. What is known to be missing stays missing.
    pub fn complete(&mut self) {
        self.revision += 1;
        if self.standing == Standing::SoFar {
            self.standing = Standing::Complete;
        }
    }

    /// Something is missing, for this reason. The first reason stays.
    pub fn lacks(&mut self, reason: &str) {
        self.revision += 1;
        if !matches!(self.standing, Standing::Incomplete(_)) {
            self.standing = Standing::Incomplete(reason.into());
        }
    }

    /// Whether everything is in it.
    #[must_use]
    pub const fn standing(&self) -> &Standing {
        &self.standing
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
        for (id, packets) in &drained.selected {
            *self.selected.entry(*id).or_default() += packets;
        }
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
    pub fn settle(&mut self, Entry { exported, suppressed, dropped, unconfirmed, confirmed }: Entry) {
        let mut counts = exported;
        add(&mut counts, suppressed);
        self.add_exported(counts, suppressed);
        self.add_dropped(dropped);
        add(&mut self.sent_unconfirmed, unconfirmed);
        self.sent_unconfirmed.packets -= confirmed.packets;
        self.sent_unconfirmed.octets -= confirmed.octets;
    }

    /// Packets in records by interface, IP version and protocol.
    pub fn protocols(&self) -> impl Iterator<Item = (&str, &ProtocolPackets)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.totals.protocols))
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

    /// The part of [`Self::exported`] that was sent and that no sink has confirmed.
    #[must_use]
    pub const fn sent_unconfirmed(&self) -> Counts {
        self.sent_unconfirmed
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

    /// Packets and octets that were handed over without keys, because a threshold or a mitigation held their records back.
    #[must_use]
    pub const fn suppressed(&self) -> Counts {
        self.suppressed
    }

    /// What was handed over, as it is told outside of the ledger file: see [`Account::told`].
    #[must_use]
    pub fn told(&self) -> Told {
        let mut exported = self.exported;
        add(&mut exported, self.suppressed);
        let mut sent_unconfirmed = self.sent_unconfirmed;
        if sent_unconfirmed.packets != 0 {
            add(&mut sent_unconfirmed, self.suppressed);
        }
        let suppressed = Tally::new(0, self.suppressed).rounded().counts();
        Told { exported, sent_unconfirmed, suppressed }
    }

    /// Packets and octets in residual counters.
    #[must_use]
    pub const fn overflow(&self) -> Counts {
        self.overflow
    }

    /// Whether every packet has exactly one outcome, records and residual counters hold exactly the packets and
    /// octets that the interfaces counted, and every sink accounts for all that it was offered. If something is missing,
    /// nobody knows, and it is not balanced.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sum = |part: fn(&InterfaceTotals) -> u64| {
            self.interfaces().map(|(_, totals)| part(totals)).sum::<u64>()
        };
        let every_packet_has_an_outcome =
            self.interfaces().all(|(_, totals)| totals.seen_packets == totals.outcomes.iter().sum::<u64>());
        let parts = [self.exported, self.dropped, self.queued, self.suppressed];
        let recorded = |part: fn(&Counts) -> u64| parts.iter().map(part).sum::<u64>();
        !matches!(self.standing, Standing::Incomplete(_))
            && every_packet_has_an_outcome
            && self.sent_unconfirmed.packets <= self.exported.packets
            && self.sent_unconfirmed.octets <= self.exported.octets
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
    use std::collections::BTreeMap;
    use std::time::Duration;

    use minimizer_common::generation::Counts;
    use minimizer_common::outcome::Outcome;

    use super::{FORMER, Ledger, Standing, UNKNOWN};
    use crate::interfaces::slot::Unwatched;
    use crate::records::drain::{InterfaceTotals, Totals};

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
            ..Totals::default()
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
    fn what_lacks_something_is_never_balanced_or_complete() {
        let mut ledger = Ledger::new(vec!["eth0".to_owned()]);
        ledger.add(&drained(&[3]));
        assert_eq!((ledger.standing(), ledger.is_balanced()), (&Standing::SoFar, true));
        ledger.complete();
        assert_eq!((ledger.standing(), ledger.is_balanced()), (&Standing::Complete, true));
        ledger.lacks("a thread panicked");
        ledger.lacks("later");
        ledger.complete();
        assert_eq!(*ledger.standing(), Standing::Incomplete("a thread panicked".into()));
        assert!(!ledger.is_balanced());
    }

    #[test]
    fn packets_are_counted_by_version_and_protocol_of_each_interface() {
        let mut ledger = Ledger::new(vec!["a".to_owned(), "b".to_owned()]);
        let mut totals = drained(&[2, 9]);
        totals.interfaces[0].protocols[0][0] = 2;
        totals.interfaces[1].protocols = [[3, 4, 0, 0], [0, 0, 5, 6]];
        ledger.add(&totals);
        ledger.add(&totals);
        let counted = |ledger: &Ledger| -> Vec<_> {
            ledger.protocols().map(|(name, packets)| (name.to_owned(), *packets)).collect()
        };
        let expected = [[[4, 0, 0, 0], [0; 4]], [[6, 8, 0, 0], [0, 0, 10, 12]]];
        assert_eq!(counted(&ledger), [("a".to_owned(), expected[0]), ("b".to_owned(), expected[1])]);
        ledger.retire(1);
        assert_eq!(counted(&ledger)[1].1, [[0; 4]; 2]);
    }

    #[test]
    fn packets_are_counted_by_the_indicator_that_selected_them() {
        let mut ledger = Ledger::new(Vec::new());
        assert!(ledger.selected().is_empty());
        ledger.add(&Totals { selected: BTreeMap::from([(1001, 3), (1002, 4)]), ..drained(&[]) });
        ledger.add(&Totals { selected: BTreeMap::from([(1001, 5)]), ..drained(&[]) });
        assert_eq!(*ledger.selected(), [(1001, 8), (1002, 4)].into());
    }
}
