//! The history: packets, octets and outcomes of the last drains by interface, for plots. It is bounded and in memory only.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use minimizer_common::outcome::Outcome;

use crate::records::drain::{InterfaceTotals, Totals};

/// Drains that are remembered: an hour at the default interval.
pub const DRAINS_MAX: usize = 360;

/// Names of outcomes in the order of [`Packets::outcomes`]. All reasons of one outcome share its name.
pub const OUTCOMES: [&str; 9] = [
    "counted",
    "out_of_scope",
    "not_selected",
    "reserved_address",
    "non_ip",
    "overflow",
    "malformed",
    "unsupported",
    "unknown_interface",
];

/// What one interface saw from one drain to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Name of the interface.
    pub interface: Arc<str>,
    /// Frames that entered the program.
    pub packets: u64,
    /// Their octets, link header included.
    pub octets: u64,
    /// Packets by outcome, in the order of [`OUTCOMES`].
    pub outcomes: [u64; OUTCOMES.len()],
}

impl Packets {
    fn new(interface: Arc<str>, totals: &InterfaceTotals) -> Self {
        let mut outcomes = [0; OUTCOMES.len()];
        for outcome in Outcome::ALL {
            if let Some(place) = OUTCOMES.iter().position(|name| *name == outcome.name()) {
                outcomes[place] += totals.outcome(*outcome);
            }
        }
        Self { interface, packets: totals.seen_packets, octets: totals.seen_octets, outcomes }
    }
}

/// One drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Time since the drain before, or since the start.
    pub span: Duration,
    /// How long flip, copy, zeroing and merge took.
    pub duration: Duration,
    /// By interface.
    pub interfaces: Vec<Packets>,
}

impl Drained {
    /// A number of this drain as a rate per second.
    #[must_use]
    pub fn per_second(&self, number: u64) -> f64 {
        number as f64 / self.span.as_secs_f64().max(0.001)
    }

    /// What an interface saw.
    #[must_use]
    pub fn of(&self, interface: &str) -> Option<&Packets> {
        self.interfaces.iter().find(|packets| &*packets.interface == interface)
    }
}

/// The last [`DRAINS_MAX`] drains, the oldest first. Copies share the drains.
#[derive(Clone, Debug)]
pub struct History {
    latest: Instant,
    drains: VecDeque<Arc<Drained>>,
}

impl History {
    /// An empty history that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { latest: Instant::now(), drains: VecDeque::new() }
    }

    /// The history after a drain that ended at `now`. `names` are those of the interfaces, by slot number.
    #[must_use]
    pub fn after<'name>(
        &self,
        names: impl Iterator<Item = &'name str>,
        totals: &Totals,
        duration: Duration,
        now: Instant,
    ) -> Self {
        let before = self.drains.back().map(|drained| &drained.interfaces[..]).unwrap_or_default();
        let interfaces = names.zip(&totals.interfaces).enumerate().map(|(slot, (name, totals))| {
            let known = before.get(slot).map(|packets| &packets.interface).filter(|known| &***known == name);
            Packets::new(known.map_or_else(|| Arc::from(name), Arc::clone), totals)
        });
        let span = now.saturating_duration_since(self.latest);
        let drained = Drained { span, duration, interfaces: interfaces.collect() };
        let forgotten = (self.drains.len() + 1).saturating_sub(DRAINS_MAX);
        let mut drains: VecDeque<_> = self.drains.iter().skip(forgotten).cloned().collect();
        drains.push_back(Arc::new(drained));
        Self { latest: now, drains }
    }

    /// The drains, the oldest first.
    pub fn drains(&self) -> impl DoubleEndedIterator<Item = &Drained> + ExactSizeIterator {
        self.drains.iter().map(|drained| &**drained)
    }

    /// The latest drain.
    #[must_use]
    pub fn latest(&self) -> Option<&Drained> {
        self.drains.back().map(|drained| &**drained)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use minimizer_common::generation::Counts;
    use minimizer_common::outcome::Outcome;

    use super::{DRAINS_MAX, History, OUTCOMES};
    use crate::records::drain::{InterfaceTotals, Totals};

    fn totals(packets: u64) -> Totals {
        let mut interface = InterfaceTotals { seen_packets: packets, ..InterfaceTotals::ZERO };
        interface.outcomes[Outcome::Ipv4Version as usize] = 1;
        interface.outcomes[Outcome::VlanTruncated as usize] = 2;
        Totals { recorded: Counts::default(), interfaces: vec![interface], ..Totals::default() }
    }

    #[test]
    fn every_outcome_has_a_place() {
        assert!(Outcome::ALL.iter().all(|outcome| OUTCOMES.contains(&outcome.name())));
    }

    #[test]
    fn the_oldest_drains_are_forgotten_and_rates_are_those_of_the_time_between() {
        let mut history = History::new();
        let begin = history.latest;
        for (number, packets) in (1_u32..).zip(1..=400) {
            let now = begin + Duration::from_secs(2) * number;
            history = history.after(["eth0"].into_iter(), &totals(packets), Duration::from_millis(3), now);
        }
        assert_eq!(history.drains().len(), DRAINS_MAX);
        let latest = history.latest().expect("there were drains");
        let packets = latest.of("eth0").expect("it has a slot");
        assert_eq!((packets.packets, packets.outcomes), (400, [0, 0, 0, 0, 0, 0, 3, 0, 0]));
        assert!((latest.per_second(packets.packets) - 200.0).abs() < 1e-6);
        assert_eq!(
            history.drains().next().and_then(|oldest| oldest.of("eth0")).map(|it| it.packets),
            Some(41)
        );
    }
}
