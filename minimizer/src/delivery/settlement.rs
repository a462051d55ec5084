//! The settlement of a batch: what its sinks have made of it, and what the ledger has to enter in the end.
//!
//! A packet in records is exported as soon as one sink has handed it over. Of several sinks the one that handed over most
//! therefore counts. The entry is made when one sink has handed over everything, or when all sinks have settled. Nothing
//! here knows sinks, accounts or the ledger: whoever settles is told what to enter.

use std::sync::{Arc, Mutex, PoisonError};

use minimizer_common::generation::Counts;

use crate::delivery::tally::{Portion, Tally};

/// What the ledger has to enter for a batch, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Handed over in records with their keys.
    pub exported: Counts,
    /// Handed over in sums without keys.
    pub suppressed: Counts,
    /// Lost.
    pub dropped: Counts,
}

/// What has become of a batch so far, over all sinks.
#[derive(Debug)]
pub struct Settlement {
    recorded: Counts,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Sinks that have not settled.
    open: usize,
    is_entered: bool,
    /// What the sink that handed over most has handed over.
    most: Portion,
}

impl Settlement {
    /// The settlement of a batch that is offered to `sinks` sinks, with so much in its records.
    #[must_use]
    pub fn new(recorded: Counts, sinks: usize) -> Self {
        let state = State { open: sinks, is_entered: false, most: Portion::default() };
        Self { recorded, state: Mutex::new(state) }
    }

    /// Settles for one sink, which handed over this much. Returns what the ledger has to enter, to one caller only.
    #[must_use]
    pub(super) fn settle(&self, delivered: Portion) -> Option<Entry> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        if delivered.sum().packets > state.most.sum().packets {
            state.most = delivered;
        }
        let taken = state.most.sum();
        if state.is_entered || (taken.packets < self.recorded.packets && state.open > 0) {
            return None;
        }
        state.is_entered = true;
        Some(Entry {
            exported: state.most.records.counts(),
            suppressed: state.most.suppressed.counts(),
            dropped: Counts {
                packets: self.recorded.packets - taken.packets,
                octets: self.recorded.octets - taken.octets,
            },
        })
    }
}

/// What one sink has made of a batch so far.
#[derive(Debug)]
pub(super) struct Share {
    settlement: Arc<Settlement>,
    /// Out of the agent's hands.
    delivered: Portion,
    /// Taken by the sink, which can still lose it.
    held: Portion,
}

impl Share {
    /// The share of a sink that has taken nothing yet.
    pub(super) fn new(settlement: &Arc<Settlement>) -> Self {
        let (delivered, held) = Default::default();
        Self { settlement: Arc::clone(settlement), delivered, held }
    }

    /// The sink has taken records.
    pub(super) fn hold(&mut self, portion: Portion) {
        self.held.add(portion);
    }

    /// Whether the sink can still lose something.
    pub(super) fn is_held(&self) -> bool {
        self.held.sum() != Tally::default()
    }

    /// What was held is out of the agent's hands. Returns how much that was.
    pub(super) fn deliver(&mut self) -> Portion {
        let held = std::mem::take(&mut self.held);
        self.delivered.add(held);
        held
    }

    /// The sink has lost what it held. Returns how much that was.
    pub(super) fn lose(&mut self) -> Portion {
        std::mem::take(&mut self.held)
    }

    /// Settles for a sink that handed over this much at once.
    #[must_use]
    pub(super) fn settle_as(mut self, delivered: Portion) -> Option<Entry> {
        self.delivered = delivered;
        self.settle()
    }

    /// Settles for the sink: it will take no more of the batch. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn settle(self) -> Option<Entry> {
        self.settlement.settle(self.delivered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use minimizer_common::generation::Counts;

    use super::{Entry, Portion, Settlement, Share};
    use crate::delivery::tally::Tally;

    const NOTHING: Counts = Counts { packets: 0, octets: 0 };

    fn counts(packets: u64) -> Counts {
        Counts { packets, octets: packets * 100 }
    }

    /// So many packets with keys, and so many without.
    fn portion(records: u64, suppressed: u64) -> Portion {
        Portion { records: Tally::new(1, counts(records)), suppressed: Tally::new(1, counts(suppressed)) }
    }

    #[test]
    fn the_sink_that_delivers_everything_makes_the_entry_and_later_ones_make_none() {
        let settlement = Settlement::new(counts(10), 3);
        assert_eq!(settlement.settle(portion(4, 0)), None);
        let entry = Entry { exported: counts(7), suppressed: counts(3), dropped: NOTHING };
        assert_eq!(settlement.settle(portion(7, 3)), Some(entry));
        assert_eq!(settlement.settle(portion(10, 0)), None);
    }

    #[test]
    fn the_last_sink_makes_the_entry_of_the_one_that_delivered_most() {
        let settlement = Settlement::new(counts(10), 3);
        assert_eq!(settlement.settle(portion(2, 0)), None);
        assert_eq!(settlement.settle(portion(5, 1)), None);
        let entry = Entry { exported: counts(5), suppressed: counts(1), dropped: counts(4) };
        assert_eq!(settlement.settle(Portion::default()), Some(entry));
        assert_eq!(settlement.settle(portion(10, 0)), None, "nobody is left to settle");
    }

    #[test]
    fn an_empty_batch_is_entered_as_nothing() {
        let entry = Entry { exported: NOTHING, suppressed: NOTHING, dropped: NOTHING };
        let settlement = Settlement::new(NOTHING, 2);
        assert_eq!(settlement.settle(Portion::default()), Some(entry));
        assert_eq!(settlement.settle(Portion::default()), None);
    }

    #[test]
    fn a_share_counts_what_was_delivered_and_not_what_was_held_and_lost() {
        let settlement = Arc::new(Settlement::new(counts(10), 1));
        let mut share = Share::new(&settlement);
        share.hold(portion(3, 0));
        share.hold(portion(2, 1));
        assert!(share.is_held());
        assert_eq!(share.deliver().sum().counts(), counts(6));
        assert!(!share.is_held());
        share.hold(portion(4, 0));
        assert_eq!(share.lose().sum().counts(), counts(4));
        assert!(!share.is_held());
        let entry = Entry { exported: counts(5), suppressed: counts(1), dropped: counts(4) };
        assert_eq!(share.settle(), Some(entry));
    }
}
