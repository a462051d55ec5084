//! Records of coarse times on their way over a network: held and merged until the unit of their times has ended.
//!
//! Whoever gets times to the hour must not learn from the moment at which a record arrives when in that hour its packets came. So the
//! records of a unit, which many batches have, leave together once a batch begins a later unit: no record of the unit can come after
//! that. A record belongs to the unit of the latest time that the recipient gets of it. No key is held with records: their
//! pseudonyms are made.

use std::sync::Arc;

use minimizer_common::generation::Counts;

use crate::delivery::batch::{Batch, Offered};
use crate::delivery::sink::{Heading, Interface, Losses};
use crate::delivery::tally::{Portion, Tally};
use crate::delivery::waiting::{Bounds, Size};
use crate::policy::compile::CompiledPolicy;
use crate::records::merge::{Flow as _, Merge};
use crate::records::record::Record;
use crate::records::terms::{Series, Terms};
use crate::records::view::{Noise, Values};

/// Octets that a batch takes beside its records while it is held: its settlement, the claim on it and the references to both.
const BATCH_OCTETS: usize = 256;

/// The records of one unit and series.
pub(super) struct Unit {
    /// Names it in the queue.
    pub(super) id: u64,
    series: Series,
    begin_ms: u64,
    length_ms: u64,
    records: Merge<Record>,
    residual: Option<Record>,
    /// What the residual stands for.
    suppressed: Counts,
    /// What it has of batches that the queue has booked, in records as they are merged.
    booked: Tally,
    /// What it has of the batch that is being added.
    added: Portion,
    batches: usize,
    origin: UnitOrigin,
}

/// The batch that came last into a unit.
struct UnitOrigin {
    number: u64,
    end_ms: u64,
    interfaces: Vec<Interface>,
    losses: Losses,
    program_tag: Arc<str>,
    compiled: Arc<CompiledPolicy>,
    /// Position of the recipient in the policy.
    position: usize,
    values: Arc<Values>,
    noise: Noise,
}

/// What a unit has of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The unit.
    pub(super) unit: u64,
    /// How much of the batch.
    pub(super) portion: Portion,
    /// How many records more the unit has with it.
    pub(super) growth: u64,
}

/// A unit that gave way.
#[derive(Clone, Copy, Debug)]
pub(super) struct GaveWay {
    /// The unit.
    pub(super) unit: u64,
    /// What it had of earlier batches.
    pub(super) lost: Tally,
}

impl Unit {
    /// Number of records, with the one that stands for those of too few sources.
    fn len(&self) -> usize {
        self.records.len() + usize::from(self.residual.is_some())
    }

    pub(super) fn octets(&self) -> u64 {
        number(self.records.octets() + self.batches * BATCH_OCTETS)
    }

    const fn end_ms(&self) -> u64 {
        self.begin_ms.saturating_add(self.length_ms)
    }

    /// Whether no record of it can come any more when a batch ends at this time. If somebody set the clock back, none should.
    const fn has_ended(&self, batch_end_ms: u64) -> bool {
        batch_end_ms >= self.end_ms() || batch_end_ms < self.begin_ms
    }

    fn add(&mut self, record: &Record) {
        self.records.add(*record);
        self.added.records.add(Tally::new(1, Counts { packets: record.packets, octets: record.octets }));
    }

    fn add_residual(&mut self, residual: &Record, suppressed: Counts) {
        match &mut self.residual {
            Some(known) => {
                let _always = known.absorb(residual);
            }
            None => self.residual = Some(*residual),
        }
        self.suppressed.packets += suppressed.packets;
        self.suppressed.octets += suppressed.octets;
        self.added.suppressed.add(Tally::new(1, suppressed));
    }

    /// What leaves.
    pub(super) fn offered<'unit>(&'unit self, records: &'unit [Record]) -> Offered<'unit> {
        Offered::held((&self.origin.values, &self.origin.noise), records, self.suppressed, self.residual)
    }

    /// The records; there are none any more.
    pub(super) fn take(&mut self) -> Vec<Record> {
        self.records.take()
    }

    /// The heading of what leaves. Its times are those of the unit.
    pub(super) fn heading(&self) -> Heading<'_> {
        let UnitOrigin {
            number, end_ms, interfaces, losses, program_tag, compiled, position, values, ..
        } = &self.origin;
        let policy = &compiled.policy;
        Heading {
            number: *number,
            begin_ms: self.begin_ms,
            end_ms: (end_ms - end_ms % self.length_ms).clamp(self.begin_ms, self.end_ms()),
            policy,
            recipient: &policy.recipients[*position],
            has_ranks: compiled.ranks.is_some(),
            fields: values.fields(),
            interfaces,
            losses: *losses,
            records: 0,
            program_tag,
        }
    }
}

/// The units of a sender, from the oldest on.
#[derive(Default)]
pub(super) struct Units {
    units: Vec<Unit>,
    /// Name of the next one.
    next: u64,
}

/// A batch that is added: what its recipient gets of it, and for how long that is held.
pub(super) struct Adding<'batch> {
    pub(super) batch: &'batch Batch,
    pub(super) offered: &'batch Offered<'batch>,
    /// The series of its terms.
    pub(super) series: Series,
    /// Position of the recipient in the policy.
    pub(super) position: usize,
    /// The unit of the recipient's times.
    pub(super) length_ms: u64,
}

impl Adding<'_> {
    fn begin_of(&self, record: &Record) -> u64 {
        let latest_ms = self.offered.values.latest_ms(record);
        latest_ms - latest_ms % self.length_ms
    }

    /// When the interval of the batch ended.
    pub(super) const fn end_ms(&self) -> u64 {
        self.batch.origin.interval_ms.1
    }
}

impl Units {
    /// Adds a batch to the units of its records. If what is held for longer then exceeds the bounds, the oldest units give way,
    /// without what they have of this batch. Returns what each unit has of the batch, and which gave way.
    pub(super) fn add(&mut self, adding: &Adding<'_>, bounds: Bounds) -> (Vec<Piece>, Vec<GaveWay>) {
        // Also without records: the recipient learns at the end of each unit that there were none.
        let now = adding.end_ms() - adding.end_ms() % adding.length_ms;
        self.place(adding, now);
        self.fold(adding, None);
        let mut gone = Vec::new();
        while self.exceeds(adding, bounds)
            && let Some(oldest) = self
                .units
                .iter()
                .position(|unit| !unit.has_ended(adding.end_ms()) && unit.booked != Tally::default())
        {
            let unit = self.units.remove(oldest);
            gone.push(GaveWay { unit: unit.id, lost: unit.booked });
            if unit.added != Portion::default() {
                self.fold(adding, Some(unit.begin_ms));
            }
        }
        let pieces = self.units.iter_mut().filter(|unit| unit.added != Portion::default()).map(|unit| {
            let records = number(unit.len());
            let (portion, growth) = (std::mem::take(&mut unit.added), records - unit.booked.records);
            unit.booked.add(Tally { records: growth, ..portion.sum() });
            unit.batches += 1;
            Piece { unit: unit.id, portion, growth }
        });
        (pieces.collect(), gone)
    }

    /// Adds the records of the batch, or only those of the unit that begins then.
    fn fold(&mut self, adding: &Adding<'_>, only: Option<u64>) {
        let is_wanted = |begin: u64| only.is_none_or(|only| only == begin);
        let mut latest = None;
        let Ok(()) = adding.offered.each_exact(0, |exact| {
            for record in exact {
                let begin = adding.begin_of(record);
                if !is_wanted(begin) {
                    continue;
                }
                let place = match latest {
                    Some((known, place)) if known == begin => place,
                    _ => self.place(adding, begin),
                };
                latest = Some((begin, place));
                self.units[place].add(record);
            }
            Ok::<_, std::convert::Infallible>(())
        });
        if let Some(residual) = &adding.offered.residual
            && is_wanted(adding.begin_of(residual))
        {
            let place = self.place(adding, adding.begin_of(residual));
            self.units[place].add_residual(residual, adding.offered.suppressed);
        }
    }

    /// The place of the unit that begins then, for the batch.
    fn place(&mut self, adding: &Adding<'_>, begin_ms: u64) -> usize {
        let Adding { batch, offered, series, position, length_ms } = adding;
        let origin = || UnitOrigin {
            number: batch.origin.number,
            end_ms: adding.end_ms(),
            interfaces: batch.origin.interfaces.clone(),
            losses: batch.origin.losses,
            program_tag: Arc::clone(&batch.origin.program_tag),
            compiled: Arc::clone(&batch.terms.compiled),
            position: *position,
            values: Arc::clone(offered.values),
            noise: batch.noise.clone(),
        };
        let known = self.units.iter().position(|unit| unit.begin_ms == begin_ms && unit.series == *series);
        if let Some(place) = known {
            if self.units[place].origin.number != batch.origin.number {
                self.units[place].origin = origin();
            }
            return place;
        }
        let (booked, added, residual, suppressed) = Default::default();
        self.units.push(Unit {
            id: self.next,
            series: series.clone(),
            begin_ms,
            length_ms: *length_ms,
            records: Merge::default(),
            residual,
            suppressed,
            booked,
            added,
            batches: 0,
            origin: origin(),
        });
        self.next += 1;
        self.units.len() - 1
    }

    fn exceeds(&self, adding: &Adding<'_>, bounds: Bounds) -> bool {
        let Size { records, octets } =
            size(self.units.iter().filter(|unit| !unit.has_ended(adding.end_ms())));
        records > bounds.records || octets > bounds.octets
    }

    /// How much is held.
    pub(super) fn size(&self) -> Size {
        size(self.units.iter())
    }

    /// Takes out the units of which no record can come any more once a batch has ended at this time.
    pub(super) fn take_ended(&mut self, batch_end_ms: u64) -> Vec<Unit> {
        let mut ended: Vec<_> = self.units.extract_if(.., |unit| unit.has_ended(batch_end_ms)).collect();
        ended.iter_mut().for_each(|unit| unit.origin.end_ms = unit.origin.end_ms.max(batch_end_ms));
        ended
    }

    /// Takes out the units of other policies than that of these terms.
    pub(super) fn take_others(&mut self, terms: &Terms) -> Vec<Unit> {
        self.units.extract_if(.., |unit| !unit.series.has_policy_of(terms)).collect()
    }

    /// Takes out all units.
    pub(super) fn take_all(&mut self) -> Vec<Unit> {
        std::mem::take(&mut self.units)
    }
}

fn size<'unit>(units: impl Iterator<Item = &'unit Unit>) -> Size {
    units.fold(Size::default(), |sum, unit| Size {
        records: sum.records + number(unit.len()),
        octets: sum.octets + unit.octets(),
    })
}

fn number(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
