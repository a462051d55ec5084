//! The ledger: where every packet went, and whether it adds up.

use minimizer_common::generation::Residual;
use minimizer_common::outcome::Outcome;
use serde::ser::{Serialize, SerializeMap as _, SerializeStruct as _, Serializer};

use crate::drain::{InterfaceTotals, Totals};

/// Totals since the start, over all batches.
#[derive(Clone, Debug)]
pub struct Ledger {
    names: Vec<String>,
    interfaces: Vec<InterfaceTotals>,
    /// Packets and octets in records that were handed over.
    exported: Residual,
    /// Packets and octets in records that were lost on the way out.
    dropped: Residual,
    /// Packets and octets in records that wait to be handed over.
    queued: Residual,
    overflow: Residual,
}

impl Ledger {
    /// An empty ledger for interfaces with these names, by slot number.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        let interfaces = vec![InterfaceTotals::ZERO; names.len()];
        let (exported, dropped, queued, overflow) = Default::default();
        Self { names, interfaces, exported, dropped, queued, overflow }
    }

    /// Adds what a drain found. Its records wait until they are exported or dropped.
    pub fn add(&mut self, drained: &Totals) {
        for (total, batch) in self.interfaces.iter_mut().zip(&drained.interfaces) {
            total.seen_packets += batch.seen_packets;
            total.seen_octets += batch.seen_octets;
            total.octets_counted += batch.octets_counted;
            for (total, batch) in total.outcomes.iter_mut().zip(batch.outcomes) {
                *total += batch;
            }
        }
        add(&mut self.queued, drained.recorded);
        add(&mut self.overflow, drained.overflow());
    }

    /// Enters records that were handed over.
    pub fn add_exported(&mut self, counts: Residual) {
        self.queued.packets -= counts.packets;
        self.queued.octets -= counts.octets;
        add(&mut self.exported, counts);
    }

    /// Enters records that were lost on the way out.
    pub fn add_dropped(&mut self, counts: Residual) {
        self.queued.packets -= counts.packets;
        self.queued.octets -= counts.octets;
        add(&mut self.dropped, counts);
    }

    /// Enters a packet that could not be given to the kernel program but has a known outcome.
    pub fn add_outcome(&mut self, interface: usize, outcome: Outcome, frame_octets: u64) {
        if let Some(total) = self.interfaces.get_mut(interface) {
            total.seen_packets += 1;
            total.seen_octets += frame_octets;
            total.outcomes[outcome as usize] += 1;
        }
    }

    /// Names and totals of the interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &InterfaceTotals)> {
        self.names.iter().map(String::as_str).zip(&self.interfaces)
    }

    /// Packets and octets in records that were handed over.
    #[must_use]
    pub const fn exported(&self) -> Residual {
        self.exported
    }

    /// Packets and octets in records that were lost on the way out.
    #[must_use]
    pub const fn dropped(&self) -> Residual {
        self.dropped
    }

    /// Packets and octets in records that wait to be handed over.
    #[must_use]
    pub const fn queued(&self) -> Residual {
        self.queued
    }

    /// Packets and octets in residual counters.
    #[must_use]
    pub const fn overflow(&self) -> Residual {
        self.overflow
    }

    /// Whether every packet has exactly one outcome, and records and residual counters hold exactly
    /// the packets and octets that the interfaces counted.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sum = |part: fn(&InterfaceTotals) -> u64| self.interfaces.iter().map(part).sum::<u64>();
        let every_packet_has_an_outcome =
            self.interfaces.iter().all(|totals| totals.seen_packets == totals.outcomes.iter().sum::<u64>());
        let recorded =
            |part: fn(&Residual) -> u64| part(&self.exported) + part(&self.dropped) + part(&self.queued);
        every_packet_has_an_outcome
            && sum(|totals| totals.outcome(Outcome::Counted)) == recorded(|counts| counts.packets)
            && sum(|totals| totals.outcome(Outcome::Overflow)) == self.overflow.packets
            && sum(|totals| totals.octets_counted) == recorded(|counts| counts.octets) + self.overflow.octets
    }
}

fn add(total: &mut Residual, counts: Residual) {
    total.packets += counts.packets;
    total.octets += counts.octets;
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ledger = serializer.serialize_struct("Ledger", 6)?;
        ledger.serialize_field("interfaces", &Interfaces(self))?;
        ledger.serialize_field("exported", &Counts(self.exported))?;
        ledger.serialize_field("dropped", &Counts(self.dropped))?;
        ledger.serialize_field("queued", &Counts(self.queued))?;
        ledger.serialize_field("overflow", &Counts(self.overflow))?;
        ledger.serialize_field("balanced", &self.is_balanced())?;
        ledger.end()
    }
}

struct Interfaces<'ledger>(&'ledger Ledger);

impl Serialize for Interfaces<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.names.len()))?;
        for (name, totals) in self.0.interfaces() {
            map.serialize_entry(name, &Interface(totals))?;
        }
        map.end()
    }
}

struct Interface<'ledger>(&'ledger InterfaceTotals);

impl Serialize for Interface<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut interface = serializer.serialize_struct("Interface", 4)?;
        interface.serialize_field("seen", &self.0.seen_packets)?;
        interface.serialize_field("seen_octets", &self.0.seen_octets)?;
        interface.serialize_field("outcomes", &Outcomes(self.0))?;
        interface.serialize_field("octets_counted", &self.0.octets_counted)?;
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

struct Counts(Residual);

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut counts = serializer.serialize_struct("Counts", 2)?;
        counts.serialize_field("packets", &self.0.packets)?;
        counts.serialize_field("octets", &self.0.octets)?;
        counts.end()
    }
}
