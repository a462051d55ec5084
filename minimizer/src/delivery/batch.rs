//! A batch: what one drain yields, for all sinks together.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use minimizer_common::generation::Counts;

use crate::delivery::settlement::Settlement;
use crate::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Interface, Losses};
use crate::records::drain::{InterfaceTotals, ResidualTotals, Totals};
use crate::records::order::Order;
use crate::records::packed::Packed;
use crate::records::record::Record;
use crate::records::terms::{NoRecipient, Terms};
use crate::records::view::{Noise, Values, View, Viewed};

/// Octets that an allocation behind an [`Arc`] takes for its two counts of references.
const ARC_OCTETS: usize = 2 * size_of::<usize>();

/// Records of one interval, on their way out.
pub struct Batch {
    /// One record for each distinct tuple.
    pub records: Packed,
    /// What the drain found beside the records, and their sums.
    pub totals: Totals,
    /// The policy under which the records were collected, and what each recipient sees of them.
    pub terms: Arc<Terms>,
    /// What has become of it.
    pub settlement: Arc<Settlement>,
    /// When and where it was drained.
    pub(super) origin: Origin,
    /// The same for all its sinks, so that nobody can average it out.
    pub(super) noise: Noise,
    /// By recipient, its merged records, for as long as somebody uses them. Several sinks may be for one recipient and share
    /// them; a batch that waits holds packed records only, which take less memory.
    merged: Box<[Mutex<Weak<Viewed<'static>>>]>,
}

/// When and where a batch was drained.
pub struct Origin {
    /// Number of the batch since the start of the agent, from 1 on.
    pub number: u64,
    /// When its interval began and ended, in milliseconds since 1970.
    pub interval_ms: (u64, u64),
    /// The interfaces that are watched.
    pub interfaces: Vec<Interface>,
    /// What is in no record that was handed over, since the start, this batch included.
    pub losses: Losses,
    /// The kernel's tag of the program that collected it, in hexadecimal: a digest of its instructions, the same under every
    /// policy.
    pub program_tag: Arc<str>,
}

impl Batch {
    /// A batch that `sinks` sinks are offered.
    #[must_use]
    pub fn new(records: Packed, totals: Totals, terms: Arc<Terms>, origin: Origin, sinks: usize) -> Self {
        let settlement = Arc::new(Settlement::new(totals.recorded, sinks));
        let merged = terms.compiled.policy.recipients.iter().map(|_| Mutex::default()).collect();
        Self { records, totals, terms, settlement, origin, noise: Noise::fresh(), merged }
    }

    /// What the recipient of that name gets, in an order of its own; the first recipient when none is named. Records that must be
    /// merged for it are merged here, unless another caller still has them.
    ///
    /// # Errors
    /// When the policy has no such recipient.
    pub fn offered(&self, recipient: Option<&str>) -> Result<Offered<'_>, NoRecipient> {
        let position = self.terms.position(recipient)?;
        let view = self.terms.view_at(position);
        Ok(if view.merges() {
            let merged = self.merged(position, view);
            let (suppressed, residual) = (merged.suppressed, merged.residual);
            let order = Order::random(merged.records.len());
            let source = Source::Merged(merged);
            Offered {
                values: view.values(),
                noise: &self.noise,
                keeps_values: false,
                source,
                order,
                suppressed,
                residual,
            }
        } else {
            let (source, order) = (Source::Packed(&self.records), Order::random(self.records.len()));
            let keeps_values = view.keeps_values();
            let (suppressed, residual) = Default::default();
            Offered {
                values: view.values(),
                noise: &self.noise,
                keeps_values,
                source,
                order,
                suppressed,
                residual,
            }
        })
    }

    /// The merged records of the recipient at a position of the policy. Who comes second waits for the first.
    fn merged(&self, position: usize, view: &View) -> Arc<Viewed<'static>> {
        let mut shared = self.merged[position].lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let merged = Arc::new(view.merged(self.records.iter(), self.records.len(), &self.noise));
            *shared = Arc::downgrade(&merged);
            merged
        })
    }

    /// The heading of what the recipient of that name gets.
    ///
    /// # Errors
    /// When the policy has no such recipient.
    pub fn heading(&self, recipient: Option<&str>) -> Result<Heading<'_>, NoRecipient> {
        let position = self.terms.position(recipient)?;
        let Origin { number, interval_ms: (begin_ms, end_ms), interfaces, losses, program_tag } =
            &self.origin;
        let policy = &self.terms.compiled.policy;
        Ok(Heading {
            number: *number,
            begin_ms: *begin_ms,
            end_ms: *end_ms,
            policy,
            recipient: &policy.recipients[position],
            has_ranks: self.terms.compiled.ranks.is_some(),
            fields: self.terms.view_at(position).fields(),
            interfaces,
            losses: *losses,
            records: 0,
            program_tag,
        })
    }

    /// Octets of memory that the batch takes while it waits: records, totals, interfaces and whatever else is its own. The
    /// terms and the tag of the program are shared by many batches.
    #[must_use]
    pub fn octets(&self) -> u64 {
        let names: usize = self.origin.interfaces.iter().map(|interface| interface.name.capacity()).sum();
        let own = [
            ARC_OCTETS + size_of::<Self>(),
            ARC_OCTETS + size_of::<Settlement>(),
            size_of_val(&*self.merged),
            self.totals.interfaces.capacity() * size_of::<InterfaceTotals>(),
            self.totals.residuals.capacity() * size_of::<ResidualTotals>(),
            self.origin.interfaces.capacity() * size_of::<Interface>(),
            names,
        ];
        self.records.octets() + u64::try_from(own.iter().sum::<usize>()).unwrap_or(u64::MAX)
    }
}

/// What a recipient gets of a batch. Counts are still exact.
pub struct Offered<'batch> {
    /// What becomes of counts, times and control bits for the recipient.
    pub values: &'batch Arc<Values>,
    noise: &'batch Noise,
    /// Nothing becomes of them.
    keeps_values: bool,
    source: Source<'batch>,
    /// The order in which the records leave.
    order: Order,
    /// What was held back, and suppressed.
    pub suppressed: Counts,
    /// The one record that stands for it.
    pub residual: Option<Record>,
}

/// Where the records are.
enum Source<'batch> {
    Packed(&'batch Packed),
    Merged(Arc<Viewed<'static>>),
    /// Those of several batches.
    Held(&'batch [Record]),
}

impl<'batch> Offered<'batch> {
    /// What a recipient gets of merged records of several batches, in an order of its own.
    pub(super) fn held(
        (values, noise): (&'batch Arc<Values>, &'batch Noise),
        records: &'batch [Record],
        suppressed: Counts,
        residual: Option<Record>,
    ) -> Self {
        let (source, order) = (Source::Held(records), Order::random(records.len()));
        Self { values, noise, keeps_values: false, source, order, suppressed, residual }
    }
}

impl Offered<'_> {
    /// How many records there are, without the one that stands for what was held back.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.positions().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The records at these places of the order, with exact values. They are put into `buffer`.
    pub fn exact<'chunk>(&self, places: Range<usize>, buffer: &'chunk mut Vec<Record>) -> &'chunk [Record] {
        let positions = &self.order.positions()[places];
        match &self.source {
            Source::Packed(packed) => packed.unpack(positions, buffer),
            Source::Merged(merged) => pick(&merged.records, positions, buffer),
            Source::Held(records) => pick(records, positions, buffer),
        }
        buffer
    }

    /// These records with their counts, times and control bits as the recipient gets them. Changed records are put into `buffer`.
    pub fn valued<'chunk>(
        &self,
        exact: &'chunk [Record],
        buffer: &'chunk mut Vec<Record>,
    ) -> &'chunk [Record] {
        if self.keeps_values { exact } else { self.values.of_all(exact, self.noise, buffer) }
    }

    /// Hands over all records as the recipient gets them, [`CHUNK_RECORDS_MAX`] at a time at most.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn each<E>(&self, mut take: impl FnMut(&[Record]) -> Result<(), E>) -> Result<(), E> {
        let mut valued = Vec::new();
        self.each_exact(0, |exact| take(self.valued(exact, &mut valued)))
    }

    /// Hands over the records from a position on with exact values, [`CHUNK_RECORDS_MAX`] at a time at most.
    ///
    /// # Errors
    /// Those of `take`.
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

    /// The record that stands for what was held back, as the recipient gets it.
    #[must_use]
    pub fn valued_residual(&self) -> Option<Record> {
        self.residual.map(|residual| self.values.of(residual, self.noise))
    }
}

/// Puts the records at these positions into `buffer`.
fn pick(records: &[Record], positions: &[u32], buffer: &mut Vec<Record>) {
    buffer.clear();
    buffer.extend(positions.iter().map(|position| records[*position as usize]));
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, PoisonError};

    use jiff::Timestamp;

    use super::{Batch, Interface, Losses, Origin, Source};
    use crate::kernel::wall_clock::TimeUnits;
    use crate::policy::compile::CompiledPolicy;
    use crate::policy::model::Policy;
    use crate::records::drain::{InterfaceTotals, Totals};
    use crate::records::keys::Keys;
    use crate::records::packed::{Packing, SlotDecoder};
    use crate::records::terms::Keyring;

    /// A batch without records, whose recipient has this threshold.
    fn empty(k_threshold: Option<u32>, interfaces: usize) -> Batch {
        let mut policy = Policy::load("full-record", &[]).expect("is built in");
        policy.recipients[0].k_threshold = k_threshold;
        let compiled = Arc::new(CompiledPolicy::compile(policy).expect("has tables"));
        let mut keyring = Keyring::new(Keys::load(None).expect("keys"));
        let terms = keyring.terms(&compiled, Timestamp::now()).expect("terms");
        let decoder = SlotDecoder::new(&compiled, TimeUnits { base: 0, unit_ms: 1 }, &[]);
        let totals = Totals { interfaces: vec![InterfaceTotals::ZERO; interfaces], ..Totals::default() };
        let origin = Origin {
            number: 1,
            interval_ms: (0, 1),
            interfaces: vec![Interface { index: 1, name: "eth0".to_owned() }; interfaces],
            losses: Losses::default(),
            program_tag: "".into(),
        };
        Batch::new(Packing::default().take(decoder), totals, terms, origin, 1)
    }

    #[test]
    fn merged_records_are_shared_while_somebody_uses_them_and_do_not_wait() {
        let batch = empty(Some(2), 1);
        let (one, other) = (batch.offered(None).expect("a view"), batch.offered(None).expect("a view"));
        let (Source::Merged(first), Source::Merged(second)) = (&one.source, &other.source) else {
            panic!("its view merges");
        };
        assert!(Arc::ptr_eq(first, second));
        drop((one, other));
        assert!(batch.merged[0].lock().unwrap_or_else(PoisonError::into_inner).upgrade().is_none());
    }

    #[test]
    fn a_batch_without_records_has_the_octets_of_its_interfaces() {
        let of_one = (size_of::<InterfaceTotals>() + size_of::<Interface>() + "eth0".len()) as u64;
        let octets = [0, 1, 15].map(|interfaces| empty(None, interfaces).octets());
        assert_eq!((octets[1] - octets[0], octets[2] - octets[0]), (of_one, 15 * of_one));
        assert!(octets[0] > size_of::<Batch>() as u64);
    }
}
