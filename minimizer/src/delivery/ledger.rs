//! The ledger: where every packet went, and whether it adds up.

use std::collections::BTreeMap;

use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use serde::ser::{Serialize, SerializeMap as _, SerializeStruct as _, Serializer};

use crate::delivery::account::Account;
use crate::interfaces::slot::Unwatched;
use crate::records::drain::{InterfaceTotals, ProtocolPackets, Totals};

/// Name of the entry for interfaces whose slots were given to others. No interface has a space in its name.
pub const FORMER: &str = "former interfaces";

/// One interface.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    totals: InterfaceTotals,
    unwatched: Unwatched,
}

impl Entry {
    const fn new(name: String, unwatched: Unwatched) -> Self {
        Self { name, totals: InterfaceTotals::ZERO, unwatched }
    }
}

/// Totals since the start, over all batches.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// By slot number.
    entries: Vec<Entry>,
    /// Interfaces that had a slot which another one has now.
    former: Option<InterfaceTotals>,
    /// Grows with every change.
    revision: u64,
    /// Packets and octets in records that were handed over.
    exported: Counts,
    /// Packets and octets in records that were lost on the way out.
    dropped: Counts,
    /// Packets and octets in records that wait to be handed over.
    queued: Counts,
    /// Packets and octets that the policy keeps from the recipient: too few sources made their records.
    suppressed: Counts,
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
        let entry = |name| Entry::new(name, Unwatched::default());
        let entries = names.into_iter().map(entry).collect();
        let (exported, dropped, queued, suppressed, overflow) = Default::default();
        Self {
            entries,
            former: None,
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

    /// Enters the present name of the interface in a slot, and how long nobody watched it; a slot beyond
    /// the last is a new one.
    pub fn enter(&mut self, slot: usize, name: &str, unwatched: Unwatched) {
        self.revision += 1;
        while self.entries.len() <= slot {
            self.entries.push(Entry::new(name.to_owned(), unwatched));
        }
        name.clone_into(&mut self.entries[slot].name);
        self.entries[slot].unwatched = unwatched;
    }

    /// Moves what the interface in a slot saw to [`FORMER`]: another one gets the slot. All packets of the
    /// first must have been entered.
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
        add(&mut self.queued, drained.recorded);
        add(&mut self.overflow, drained.overflow());
        for (id, packets) in &drained.selected {
            *self.selected.entry(*id).or_default() += packets;
        }
    }

    /// Enters records that were handed over; `suppressed` of their packets without their keys.
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

    /// Packets in records by interface, IP version and protocol.
    pub fn protocols(&self) -> impl Iterator<Item = (&str, &ProtocolPackets)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.totals.protocols))
    }

    /// Packets in records by the number of the indicator that selected them; none where no recipient is told.
    #[must_use]
    pub const fn selected(&self) -> &BTreeMap<u64, u64> {
        &self.selected
    }

    /// Takes the accounts of the sinks as they stand.
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

    /// Enters a packet that could not be given to the kernel program but has a known outcome.
    pub fn add_outcome(&mut self, interface: usize, outcome: Outcome, frame_octets: u64) {
        if let Some(total) = self.entries.get_mut(interface).map(|entry| &mut entry.totals) {
            total.seen_packets += 1;
            total.seen_octets += frame_octets;
            total.outcomes[outcome as usize] += 1;
        }
    }

    /// Names and totals of the interfaces, by slot number; then [`FORMER`] ones, if there are any.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &InterfaceTotals)> {
        let present = self.entries.iter().map(|entry| (entry.name.as_str(), &entry.totals));
        present.chain(self.former.iter().map(|totals| (FORMER, totals)))
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

    /// Packets and octets that were handed over in sums without keys, because too few sources made their records.
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

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ledger = serializer.serialize_struct("Ledger", 9)?;
        ledger.serialize_field("interfaces", &Interfaces(self))?;
        ledger.serialize_field("exported", &SerializedCounts(self.exported))?;
        ledger.serialize_field("dropped", &SerializedCounts(self.dropped))?;
        ledger.serialize_field("queued", &SerializedCounts(self.queued))?;
        ledger.serialize_field("suppressed", &SerializedCounts(self.suppressed))?;
        ledger.serialize_field("overflow", &SerializedCounts(self.overflow))?;
        if !self.selected.is_empty() {
            ledger.serialize_field("selected", &self.selected)?;
        }
        if !self.sinks.is_empty() {
            let sinks: BTreeMap<_, _> = self.sinks.iter().map(|sink| (&sink.name, sink)).collect();
            ledger.serialize_field("sinks", &sinks)?;
        }
        ledger.serialize_field("balanced", &self.is_balanced())?;
        ledger.end()
    }
}

struct Interfaces<'ledger>(&'ledger Ledger);

impl Serialize for Interfaces<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let unwatched = self.0.unwatched().map(|(_, unwatched)| unwatched);
        let unwatched = unwatched.chain(std::iter::once(Unwatched::default()));
        for ((name, totals), unwatched) in self.0.interfaces().zip(unwatched) {
            map.serialize_entry(name, &Interface { totals, unwatched })?;
        }
        map.end()
    }
}

struct Interface<'ledger> {
    totals: &'ledger InterfaceTotals,
    unwatched: Unwatched,
}

impl Serialize for Interface<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { totals, unwatched: Unwatched { times, time } } = *self;
        let fields = if times == 0 { 4 } else { 6 };
        let mut interface = serializer.serialize_struct("Interface", fields)?;
        interface.serialize_field("seen", &totals.seen_packets)?;
        interface.serialize_field("seen_octets", &totals.seen_octets)?;
        interface.serialize_field("outcomes", &Outcomes(totals))?;
        interface.serialize_field("octets_counted", &totals.octets_counted)?;
        if times != 0 {
            interface.serialize_field("unwatched_times", &times)?;
            interface.serialize_field("unwatched_seconds", &time.as_secs_f64())?;
        }
        interface.end()
    }
}

/// All outcomes by name; those with reasons as an object of the reasons that occurred.
struct Outcomes<'ledger>(&'ledger InterfaceTotals);

impl Serialize for Outcomes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut done = Vec::new();
        for outcome in Outcome::ALL {
            let name = outcome.name();
            if outcome.reason().is_none() {
                map.serialize_entry(name, &self.0.outcome(*outcome))?;
            } else if !done.contains(&name) {
                done.push(name);
                let reasons: serde_json::Map<String, serde_json::Value> = Outcome::ALL
                    .iter()
                    .filter(|other| other.name() == name && self.0.outcome(**other) != 0)
                    .filter_map(|other| Some((other.reason()?.to_owned(), self.0.outcome(*other).into())))
                    .collect();
                map.serialize_entry(name, &reasons)?;
            }
        }
        map.end()
    }
}

struct SerializedCounts(Counts);

impl Serialize for SerializedCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut counts = serializer.serialize_struct("Counts", 2)?;
        counts.serialize_field("packets", &self.0.packets)?;
        counts.serialize_field("octets", &self.0.octets)?;
        counts.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use minimizer_common::generation::Counts;
    use minimizer_common::outcome::Outcome;

    use super::{FORMER, Ledger};
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
        let json = serde_json::to_value(&ledger).expect("a ledger is JSON");
        assert_eq!(json["interfaces"]["eth2"]["unwatched_times"], 2);
        assert_eq!(json["interfaces"]["eth2"]["unwatched_seconds"], 1.5);
        assert_eq!(json["interfaces"]["eth0"].get("unwatched_times"), None);
        assert_eq!(json["interfaces"][FORMER]["seen"], 5);
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
        assert_eq!(serde_json::to_value(&ledger).expect("a ledger is JSON").get("selected"), None);
        ledger.add(&Totals { selected: BTreeMap::from([(1001, 3), (1002, 4)]), ..drained(&[]) });
        ledger.add(&Totals { selected: BTreeMap::from([(1001, 5)]), ..drained(&[]) });
        let json = serde_json::to_value(&ledger).expect("a ledger is JSON");
        assert_eq!(json["selected"], serde_json::json!({"1001": 8, "1002": 4}));
    }
}
