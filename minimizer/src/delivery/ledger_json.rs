//! The ledger as JSON, as files, the status and the standard error have it.

use std::collections::BTreeMap;

use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use serde::ser::{Serialize, SerializeMap as _, SerializeStruct as _, Serializer};

use crate::delivery::ledger::Ledger;
use crate::interfaces::slot::Unwatched;
use crate::records::drain::InterfaceTotals;

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ledger = serializer.serialize_struct("Ledger", 9)?;
        ledger.serialize_field("interfaces", &Interfaces(self))?;
        ledger.serialize_field("exported", &CountsJson(self.exported()))?;
        ledger.serialize_field("dropped", &CountsJson(self.dropped()))?;
        ledger.serialize_field("queued", &CountsJson(self.queued()))?;
        ledger.serialize_field("suppressed", &CountsJson(self.suppressed()))?;
        ledger.serialize_field("overflow", &CountsJson(self.overflow()))?;
        if !self.selected().is_empty() {
            ledger.serialize_field("selected", self.selected())?;
        }
        if !self.sinks().is_empty() {
            let sinks: BTreeMap<_, _> = self.sinks().iter().map(|sink| (&sink.name, sink)).collect();
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
        let unwatched = unwatched.chain(std::iter::repeat(Unwatched::default()));
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

/// All outcomes by name. One with reasons is an object of the reasons that occurred.
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

struct CountsJson(Counts);

impl Serialize for CountsJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut counts = serializer.serialize_struct("Counts", 2)?;
        counts.serialize_field("packets", &self.0.packets)?;
        counts.serialize_field("octets", &self.0.octets)?;
        counts.end()
    }
}
