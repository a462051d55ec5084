//! The settlement of a batch: what its sinks have made of it, and what the ledger has to enter in the end.
//!
//! A packet in records is exported as soon as one sink has handed it over. Of several sinks the one that handed over most
//! therefore counts. The entry is made when one sink has handed over everything, or when all sinks have settled. A packet is
//! confirmed as soon as one sink's other end has confirmed it; what a later sink confirms is a second entry. Nothing here
//! knows sinks, accounts or the ledger: whoever settles is told what to enter.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use minimizer_common::generation::Counts;

use crate::delivery::tally::{Portion, Tally};

/// What the ledger has to enter for a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Handed over in records with their keys.
    pub exported: Counts,
    /// Handed over in sums without keys.
    pub suppressed: Counts,
    /// Lost.
    pub dropped: Counts,
    /// The part of `exported` that nobody has confirmed.
    pub unconfirmed: Counts,
    /// What was entered as unconfirmed before, and is confirmed now.
    pub confirmed: Counts,
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
    /// The most that the other end of a sink has confirmed, in records with their keys.
    confirmed: Counts,
    /// What was entered as unconfirmed.
    unconfirmed: Counts,
}

impl Settlement {
    /// The settlement of a batch that is offered to `sinks` sinks, with so much in its records.
    #[must_use]
    pub fn new(recorded: Counts, sinks: usize) -> Self {
        let (most, confirmed, unconfirmed) = Default::default();
        let state = State { open: sinks, is_entered: false, most, confirmed, unconfirmed };
        Self { recorded, state: Mutex::new(state) }
    }

    /// Settles for one sink, which handed over this much, `unconfirmed` of its records with their keys without a confirmation.
    /// Returns what the ledger has to enter: each entry to one caller only.
    #[must_use]
    pub(super) fn settle(&self, delivered: Portion, unconfirmed: Counts) -> Option<Entry> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        if delivered.sum().packets > state.most.sum().packets {
            state.most = delivered;
        }
        let confirmed = minus(delivered.records.counts(), unconfirmed);
        if confirmed.packets > state.confirmed.packets {
            state.confirmed = confirmed;
        }
        let taken = state.most.sum();
        if state.is_entered {
            let before = state.unconfirmed;
            let after = minus(state.most.records.counts(), state.confirmed);
            state.unconfirmed = Counts {
                packets: after.packets.min(before.packets),
                octets: after.octets.min(before.octets),
            };
            let confirmed = minus(before, state.unconfirmed);
            return (confirmed != Counts::default()).then(|| Entry { confirmed, ..Entry::default() });
        }
        if taken.packets < self.recorded.packets && state.open > 0 {
            return None;
        }
        state.is_entered = true;
        state.unconfirmed = minus(state.most.records.counts(), state.confirmed);
        Some(Entry {
            unconfirmed: state.unconfirmed,
            confirmed: Counts::default(),
            exported: state.most.records.counts(),
            suppressed: state.most.suppressed.counts(),
            dropped: Counts {
                packets: self.recorded.packets - taken.packets,
                octets: self.recorded.octets - taken.octets,
            },
        })
    }
}

fn minus(counts: Counts, less: Counts) -> Counts {
    Counts {
        packets: counts.packets.saturating_sub(less.packets),
        octets: counts.octets.saturating_sub(less.octets),
    }
}

/// A batch as one sink settles it. Its records can leave in several shares; the batch is settled when the last of them is.
#[derive(Debug)]
pub(super) struct Claim {
    settlement: Arc<Settlement>,
    state: Mutex<ClaimState>,
}

#[derive(Debug)]
struct ClaimState {
    /// Shares that are not settled.
    open: usize,
    delivered: Portion,
    unconfirmed: Tally,
}

impl Claim {
    /// The claim on a batch whose records leave in so many shares.
    pub(super) fn new(settlement: &Arc<Settlement>, shares: usize) -> Arc<Self> {
        let (delivered, unconfirmed) = Default::default();
        let state = Mutex::new(ClaimState { open: shares, delivered, unconfirmed });
        Arc::new(Self { settlement: Arc::clone(settlement), state })
    }

    /// Settles one share. Returns what the ledger has to enter.
    fn settle(&self, delivered: Portion, unconfirmed: Tally) -> Option<Entry> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        state.delivered.add(delivered);
        state.unconfirmed.add(unconfirmed);
        if state.open > 0 {
            return None;
        }
        self.settlement.settle(state.delivered, state.unconfirmed.counts())
    }
}

/// What a batch has in a share.
#[derive(Debug)]
pub(super) struct Contribution {
    /// The batch.
    pub(super) claim: Arc<Claim>,
    /// How much of it.
    pub(super) portion: Portion,
}

/// What one sink has made of records so far: those of one batch, or of several that were merged.
#[derive(Debug)]
pub(super) struct Share {
    /// Whose they are, from the oldest on.
    contributions: Vec<Contribution>,
    /// Out of the agent's hands.
    delivered: Portion,
    /// The part of the delivered records with their keys that nobody confirmed.
    unconfirmed: Tally,
    /// Taken by the sink, which can still lose it, and when it took the last of it.
    held: Portion,
    held_at: Option<Instant>,
}

impl Share {
    /// The share of all records of a batch, of which the sink has taken nothing yet.
    pub(super) fn new(settlement: &Arc<Settlement>) -> Self {
        Self::of(vec![Contribution { claim: Claim::new(settlement, 1), portion: Portion::default() }])
    }

    /// The share of merged records, of which the sink has taken nothing yet.
    pub(super) fn of(contributions: Vec<Contribution>) -> Self {
        let (delivered, unconfirmed, held, held_at) = Default::default();
        Self { contributions, delivered, unconfirmed, held, held_at }
    }

    /// The sink has taken records.
    pub(super) fn hold(&mut self, portion: Portion) {
        self.held.add(portion);
        self.held_at = Some(Instant::now());
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

    /// What was held up to that moment was sent, and nobody confirms it. Returns how much that was; `None` when the sink took
    /// some of it later.
    pub(super) fn send(&mut self, until: Instant) -> Option<Portion> {
        if self.held_at.is_some_and(|held_at| held_at > until) {
            return None;
        }
        let sent = self.deliver();
        self.unconfirmed.add(sent.records);
        Some(sent)
    }

    /// The sink has lost what it held. Returns how much that was.
    pub(super) fn lose(&mut self) -> Portion {
        std::mem::take(&mut self.held)
    }

    /// Settles for a sink that handed over this much at once.
    #[must_use]
    pub(super) fn settle_as(mut self, delivered: Portion) -> Vec<Entry> {
        self.delivered = delivered;
        self.settle()
    }

    /// Settles for the sink: it will take no more of the records. What it has taken of merged ones counts for the oldest batches
    /// first. Returns what the ledger has to enter.
    #[must_use]
    pub(super) fn settle(self) -> Vec<Entry> {
        let Self { mut contributions, delivered: mut left, mut unconfirmed, .. } = self;
        let last = contributions.pop();
        let mut entries = Vec::new();
        for Contribution { claim, portion } in contributions {
            let delivered = portion.part_of(&mut left);
            entries.extend(claim.settle(delivered, delivered.records.part_of(&mut unconfirmed)));
        }
        entries.extend(last.and_then(|last| last.claim.settle(left, unconfirmed)));
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use minimizer_common::generation::Counts;

    use super::{Claim, Contribution, Entry, Portion, Settlement, Share};
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
        assert_eq!(settlement.settle(portion(4, 0), NOTHING), None);
        let entry = Entry { exported: counts(7), suppressed: counts(3), ..Entry::default() };
        assert_eq!(settlement.settle(portion(7, 3), NOTHING), Some(entry));
        assert_eq!(settlement.settle(portion(10, 0), NOTHING), None);
    }

    #[test]
    fn the_last_sink_makes_the_entry_of_the_one_that_delivered_most() {
        let settlement = Settlement::new(counts(10), 3);
        assert_eq!(settlement.settle(portion(2, 0), NOTHING), None);
        assert_eq!(settlement.settle(portion(5, 1), NOTHING), None);
        let entry =
            Entry { exported: counts(5), suppressed: counts(1), dropped: counts(4), ..Entry::default() };
        assert_eq!(settlement.settle(Portion::default(), NOTHING), Some(entry));
        assert_eq!(settlement.settle(portion(10, 0), NOTHING), None, "nobody is left to settle");
    }

    #[test]
    fn an_empty_batch_is_entered_as_nothing() {
        let entry = Entry::default();
        let settlement = Settlement::new(NOTHING, 2);
        assert_eq!(settlement.settle(Portion::default(), NOTHING), Some(entry));
        assert_eq!(settlement.settle(Portion::default(), NOTHING), None);
    }

    #[test]
    fn what_a_later_sink_confirms_is_not_unconfirmed_any_more() {
        let settlement = Settlement::new(counts(10), 3);
        let entry =
            Entry { exported: counts(8), suppressed: counts(2), unconfirmed: counts(8), ..Entry::default() };
        assert_eq!(settlement.settle(portion(8, 2), counts(8)), Some(entry));
        let confirmed = |packets| Some(Entry { confirmed: counts(packets), ..Entry::default() });
        assert_eq!(settlement.settle(portion(7, 0), counts(4)), confirmed(3));
        assert_eq!(settlement.settle(portion(8, 2), NOTHING), confirmed(5));
    }

    #[test]
    fn what_one_sink_has_confirmed_is_confirmed_whoever_handed_over_most() {
        let settlement = Settlement::new(counts(10), 2);
        assert_eq!(settlement.settle(portion(6, 0), NOTHING), None);
        let entry = Entry { exported: counts(10), unconfirmed: counts(4), ..Entry::default() };
        assert_eq!(settlement.settle(portion(10, 0), counts(10)), Some(entry));
    }

    #[test]
    fn a_share_is_sent_once_all_of_it_was_held_long_enough() {
        let settlement = Arc::new(Settlement::new(counts(10), 1));
        let (begin, mut share) = (Instant::now(), Share::new(&settlement));
        share.hold(portion(10, 0));
        assert_eq!(share.send(begin), None);
        assert_eq!(share.send(Instant::now()).map(|sent| sent.sum().counts()), Some(counts(10)));
        let entry = Entry { exported: counts(10), unconfirmed: counts(10), ..Entry::default() };
        assert_eq!(share.settle(), [entry]);
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
        let entry =
            Entry { exported: counts(5), suppressed: counts(1), dropped: counts(4), ..Entry::default() };
        assert_eq!(share.settle(), [entry]);
    }

    #[test]
    fn what_was_taken_of_merged_records_counts_for_the_oldest_batches_and_each_is_settled_once() {
        let settlements = [10, 20].map(|packets| Arc::new(Settlement::new(counts(packets), 1)));
        let claims = [Claim::new(&settlements[0], 2), Claim::new(&settlements[1], 1)];
        let contribution =
            |batch: usize, portion| Contribution { claim: Arc::clone(&claims[batch]), portion };
        // The first batch has records in two units.
        let mut earlier = Share::of(vec![contribution(0, portion(4, 0))]);
        let mut later = Share::of(vec![contribution(0, portion(5, 1)), contribution(1, portion(20, 0))]);
        earlier.hold(portion(4, 0));
        earlier.deliver();
        assert_eq!(earlier.settle(), [], "a part of the batch is left");
        later.hold(portion(8, 1));
        later.send(Instant::now());
        let first =
            Entry { exported: counts(9), suppressed: counts(1), unconfirmed: counts(5), ..Entry::default() };
        let second =
            Entry { exported: counts(3), dropped: counts(17), unconfirmed: counts(3), ..Entry::default() };
        assert_eq!(later.settle(), [first, second]);
    }
}
