//! A batch: what one drain yields, for all sinks together.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use minimizer_common::generation::Residual;

use crate::books::Books;
use crate::drain::Totals;
use crate::ledger::Ledger;
use crate::record::Record;
use crate::sink::{Heading, Interface};
use crate::terms::{NoRecipient, Terms};
use crate::view::{View, Viewed};

/// Records of one interval, on their way out.
pub struct Batch {
    /// One record for each distinct tuple.
    pub records: Vec<Record>,
    /// What the drain found beside them, with the sums of the records.
    pub totals: Totals,
    /// The policy under which they were collected, and what each recipient sees of them.
    pub terms: Arc<Terms>,
    /// What came of it.
    pub delivery: Arc<Delivery>,
    origin: Origin,
    /// By recipient, what had to be merged for it: several sinks may be for one.
    merged: Box<[OnceLock<Viewed<'static>>]>,
}

/// When and where a batch was drained.
pub struct Origin {
    /// Number of the batch since the start of the agent, from 1 on.
    pub number: u64,
    /// When its interval began and ended, in milliseconds since 1970.
    pub interval_ms: (u64, u64),
    /// The interfaces that are watched.
    pub interfaces: Vec<Interface>,
    /// Totals since the start, this batch included.
    pub ledger: Ledger,
    /// The kernel's digest of the program that collected it, in hexadecimal.
    pub program_tag: Arc<str>,
}

impl Batch {
    /// A batch that `sinks` sinks are offered.
    #[must_use]
    pub fn new(
        records: Vec<Record>,
        totals: Totals,
        terms: Arc<Terms>,
        origin: Origin,
        books: &Books,
    ) -> Self {
        let delivery = Arc::new(Delivery::new(totals.recorded, books));
        let merged = terms.enforced.policy.recipients.iter().map(|_| OnceLock::new()).collect();
        Self { records, totals, terms, delivery, origin, merged }
    }

    /// What the recipient of that name gets, the first one when none is named. What must be merged for it is merged by
    /// whoever asks first.
    ///
    /// # Errors
    /// When the policy has no such recipient.
    pub fn viewed(&self, recipient: Option<&str>) -> Result<(&View, Viewed<'_>), NoRecipient> {
        let position = self.terms.position(recipient)?;
        let view = self.terms.view_at(position);
        let viewed = if view.merges() {
            let merged = self.merged[position].get_or_init(|| view.merged(&self.records));
            Viewed { records: Cow::Borrowed(&merged.records), ..*merged }
        } else {
            Viewed::all(&self.records)
        };
        Ok((view, viewed))
    }

    /// What stands over the records of the recipient of that name.
    ///
    /// # Errors
    /// When the policy has no such recipient.
    pub fn heading(&self, recipient: Option<&str>) -> Result<Heading<'_>, NoRecipient> {
        let position = self.terms.position(recipient)?;
        let Origin { number, interval_ms: (begin_ms, end_ms), interfaces, ledger, program_tag } =
            &self.origin;
        let policy = &self.terms.enforced.policy;
        Ok(Heading {
            number: *number,
            begin_ms: *begin_ms,
            end_ms: *end_ms,
            policy,
            recipient: &policy.recipients[position],
            fields: self.terms.view_at(position).fields(),
            interfaces,
            ledger,
            program_tag,
        })
    }

    /// Octets of memory that the records take, before views.
    #[must_use]
    pub fn octets(&self) -> u64 {
        u64::try_from(size_of_val(&*self.records)).unwrap_or(u64::MAX)
    }
}

/// What became of the packets in a batch, as the ledger has it: they are exported when a sink took them, and of several
/// sinks the one that took most counts.
pub struct Delivery {
    recorded: Residual,
    books: Books,
    state: Mutex<State>,
}

struct State {
    /// Sinks that have not said yet what they took.
    open: usize,
    is_entered: bool,
    /// What was taken by the sink that took most, in records and without keys.
    most: (Residual, Residual),
}

impl Delivery {
    fn new(recorded: Residual, books: &Books) -> Self {
        let most = Default::default();
        let state = State { open: books.lanes().len(), is_entered: false, most };
        Self { recorded, books: books.clone(), state: Mutex::new(state) }
    }

    /// Says what one sink took of the batch, once: packets in records, and packets in sums without keys.
    pub fn settle(&self, exported: Residual, suppressed: Residual) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        if exported.packets + suppressed.packets > state.most.0.packets + state.most.1.packets {
            state.most = (exported, suppressed);
        }
        let (exported, suppressed) = state.most;
        let is_all = exported.packets + suppressed.packets >= self.recorded.packets;
        if state.is_entered || !(is_all || state.open == 0) {
            return;
        }
        state.is_entered = true;
        let mut ledger = self.books.lock();
        ledger.add_exported(
            Residual {
                packets: exported.packets + suppressed.packets,
                octets: exported.octets + suppressed.octets,
            },
            suppressed,
        );
        ledger.add_dropped(Residual {
            packets: self.recorded.packets - exported.packets - suppressed.packets,
            octets: self.recorded.octets - exported.octets - suppressed.octets,
        });
    }
}
