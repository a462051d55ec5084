//! What the last drains found, in the report: the present rates of each interface, and their course.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::delivery::history::{Drained, History, OUTCOMES, Packets};

/// Drains that the report covers.
pub const DRAINS_MAX: usize = 120;

/// What an interface saw between the last two drains, per second.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct InterfaceRates {
    /// Packets.
    pub packets_per_second: f64,
    /// Octets, link header included.
    pub octets_per_second: f64,
    /// Packets by outcome; outcomes that did not occur are absent.
    pub outcomes_per_second: BTreeMap<String, f64>,
}

impl InterfaceRates {
    /// The rates of an interface in a drain.
    #[must_use]
    pub fn new(drained: &Drained, packets: &Packets) -> Self {
        let outcomes = OUTCOMES.iter().zip(packets.outcomes).filter(|(_, packets)| *packets != 0);
        Self {
            packets_per_second: drained.per_second(packets.packets),
            octets_per_second: drained.per_second(packets.octets),
            outcomes_per_second: outcomes
                .map(|(name, packets)| ((*name).to_owned(), drained.per_second(packets)))
                .collect(),
        }
    }
}

/// The course of the last [`DRAINS_MAX`] drains, the oldest first.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Course {
    /// Time since the drain before.
    pub span_milliseconds: Vec<u64>,
    /// How long flip, copy, zeroing and merge took.
    pub duration_microseconds: Vec<u64>,
    /// By name of the interface, for those that have a slot now.
    pub interfaces: BTreeMap<String, InterfaceCourse>,
}

/// The course of an interface.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct InterfaceCourse {
    /// Packets of each drain.
    pub packets: Vec<u64>,
    /// Octets of these packets, link header included.
    pub octets: Vec<u64>,
}

impl Course {
    /// The course of a history.
    #[must_use]
    pub fn new(history: &History) -> Self {
        let skipped = history.drains().len().saturating_sub(DRAINS_MAX);
        let mut course = Self::default();
        let latest = history.latest();
        for drained in history.drains().skip(skipped) {
            course.span_milliseconds.push(u64::try_from(drained.span.as_millis()).unwrap_or(u64::MAX));
            let duration = u64::try_from(drained.duration.as_micros()).unwrap_or(u64::MAX);
            course.duration_microseconds.push(duration);
            for present in latest.into_iter().flat_map(|latest| &latest.interfaces) {
                let packets = drained.of(&present.interface);
                let interface = course.interfaces.entry(present.interface.to_string()).or_default();
                interface.packets.push(packets.map_or(0, |packets| packets.packets));
                interface.octets.push(packets.map_or(0, |packets| packets.octets));
            }
        }
        course
    }
}
