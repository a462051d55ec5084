//! A batch: what one drain yields, for all sinks together.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use minimizer_common::generation::Counts;

use crate::delivery::accounting::Accounting;
use crate::delivery::ledger::Ledger;
use crate::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Interface};
use crate::records::drain::Totals;
use crate::records::packed::Packed;
use crate::records::record::Record;
use crate::records::terms::{NoRecipient, Terms};
use crate::records::view::{View, Viewed};

/// Records of one interval, on their way out.
pub struct Batch {
    /// One record for each distinct tuple.
    pub records: Packed,
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
        records: Packed,
        totals: Totals,
        terms: Arc<Terms>,
        origin: Origin,
        accounting: &Accounting,
    ) -> Self {
        let delivery = Arc::new(Delivery::new(totals.recorded, accounting));
        let merged = terms.compiled.policy.recipients.iter().map(|_| OnceLock::new()).collect();
        Self { records, totals, terms, delivery, origin, merged }
    }

    /// What the recipient of that name gets, the first one when none is named. What must be merged for it is merged by
    /// whoever asks first.
    ///
    /// # Errors
    /// When the policy has no such recipient.
    pub fn offered(&self, recipient: Option<&str>) -> Result<Offered<'_>, NoRecipient> {
        let position = self.terms.position(recipient)?;
        let view = self.terms.view_at(position);
        Ok(if view.merges() {
            let merged = || view.merged(self.records.iter(), self.records.len());
            let Viewed { records, suppressed, residual } = self.merged[position].get_or_init(merged);
            Offered { view, source: Source::Merged(records), suppressed: *suppressed, residual: *residual }
        } else {
            let source = Source::Packed(&self.records);
            Offered { view, source, suppressed: Counts::default(), residual: None }
        })
    }

    /// What stands over the records of the recipient of that name.
    ///
    /// # Errors
    /// When the policy has no such recipient.
    pub fn heading(&self, recipient: Option<&str>) -> Result<Heading<'_>, NoRecipient> {
        let position = self.terms.position(recipient)?;
        let Origin { number, interval_ms: (begin_ms, end_ms), interfaces, ledger, program_tag } =
            &self.origin;
        let policy = &self.terms.compiled.policy;
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
        self.records.octets()
    }
}

/// What a recipient gets of a batch, its counts exact yet.
pub struct Offered<'batch> {
    /// The recipient's view.
    pub view: &'batch View,
    source: Source<'batch>,
    /// What was in records that too few sources made.
    pub suppressed: Counts,
    /// The record that is made of them.
    pub residual: Option<Record>,
}

/// Where its records are.
enum Source<'batch> {
    Packed(&'batch Packed),
    Merged(&'batch [Record]),
}

impl Offered<'_> {
    /// Records, without that of too few sources.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.source {
            Source::Packed(packed) => packed.len(),
            Source::Merged(merged) => merged.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of them, by their positions; in `buffer` where they have to be unpacked.
    pub fn exact<'chunk>(
        &'chunk self,
        positions: Range<usize>,
        buffer: &'chunk mut Vec<Record>,
    ) -> &'chunk [Record] {
        match self.source {
            Source::Packed(packed) => {
                packed.unpack(positions, buffer);
                buffer
            }
            Source::Merged(merged) => &merged[positions],
        }
    }

    /// Hands over all of them as the recipient gets them, some thousand at a time.
    ///
    /// # Errors
    /// What `take` answers.
    pub fn each<E>(&self, mut take: impl FnMut(&[Record]) -> Result<(), E>) -> Result<(), E> {
        let mut valued = Vec::new();
        self.each_exact(0, |exact| take(self.view.valued(exact, &mut valued)))
    }

    /// Hands over those from a position on as they were collected, some thousand at a time.
    ///
    /// # Errors
    /// What `take` answers.
    pub fn each_exact<E>(
        &self,
        from: usize,
        mut take: impl FnMut(&[Record]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut unpacked = Vec::new();
        for start in (from..self.len()).step_by(CHUNK_RECORDS_MAX) {
            take(self.exact(start..self.len().min(start + CHUNK_RECORDS_MAX), &mut unpacked))?;
        }
        Ok(())
    }

    /// The record of what too few sources made, as the recipient gets it.
    #[must_use]
    pub fn valued_residual(&self) -> Option<Record> {
        let mut valued = Vec::new();
        self.view.valued(self.residual.as_slice(), &mut valued).first().copied()
    }
}

/// What became of the packets in a batch, as the ledger has it: they are exported when a sink took them, and of several
/// sinks the one that took most counts.
pub struct Delivery {
    recorded: Counts,
    accounting: Accounting,
    state: Mutex<State>,
}

struct State {
    /// Sinks that have not said yet what they took.
    open: usize,
    is_entered: bool,
    /// What was taken by the sink that took most, in records and without keys.
    most: (Counts, Counts),
}

impl Delivery {
    fn new(recorded: Counts, accounting: &Accounting) -> Self {
        let most = Default::default();
        let state = State { open: accounting.queues().len(), is_entered: false, most };
        Self { recorded, accounting: accounting.clone(), state: Mutex::new(state) }
    }

    /// Says what one sink took of the batch, once: packets in records, and packets in sums without keys.
    pub fn settle(&self, exported: Counts, suppressed: Counts) {
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
        let mut ledger = self.accounting.lock();
        ledger.add_exported(
            Counts {
                packets: exported.packets + suppressed.packets,
                octets: exported.octets + suppressed.octets,
            },
            suppressed,
        );
        ledger.add_dropped(Counts {
            packets: self.recorded.packets - exported.packets - suppressed.packets,
            octets: self.recorded.octets - exported.octets - suppressed.octets,
        });
    }
}
