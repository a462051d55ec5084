//! Turns records into messages, and sends templates and options with them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::anonymization;
use super::carrier::{Carrier, Retirement};
use super::layout::Layout;
use super::options::{self, Options, Statistics};
use super::outbox::{EncodeError, Outbox};
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, Interface, Losses, Sink, SinkError, Taken};
use crate::policy::field::{Field, Fields};
use crate::policy::model::Recipient;
use crate::records::record::Record;
use crate::sinks::folder::Sums;

/// Most indicators that are described, of those that selected something: a policy may have a million.
const INDICATORS_MAX: usize = 4096;
/// How long the end of a batch waits for its confirmation.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);
/// Age of the templates that a collector may have missed, from which on a batch begins with them again.
const TEMPLATES_FRESH: Duration = Duration::from_secs(1);
/// Pause before asking again whether everything arrived.
const CONFIRM_PAUSE: Duration = Duration::from_millis(200);

/// Exports the records of one recipient.
pub(super) struct Exporter {
    carrier: Box<dyn Carrier>,
    outbox: Outbox,
    /// Which options are sent; `None` for none.
    options: Option<Options>,
    /// Templates in use, and retired ones that messages on their way may still need.
    layouts: Vec<(Layout, Use)>,
    subject: Option<Subject>,
    /// Indicators that the other end knows.
    indicators: BTreeSet<u64>,
    statistics: Statistics,
    /// Number of the batch in which statistics were last sent.
    batch: u64,
    /// When templates and all options were last sent, and when templates were.
    described_at: Option<Instant>,
    templates_at: Option<Instant>,
    /// Whether the session lacks templates or options: they could not be written when it began.
    is_undescribed: bool,
    /// The variant of each record of a call; kept for its memory.
    variants: Vec<u8>,
    /// Whether something was sent and is not confirmed.
    is_held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Current,
    Retired,
}

/// What the other end is told: whose records these are, and from which interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    recipient: Recipient,
    has_ranks: bool,
    interfaces: Vec<Interface>,
}

impl From<EncodeError> for SinkError {
    fn from(error: EncodeError) -> Self {
        Self::new(Loss::Refused, format!("{error}; this is an error of Minimizer: please report it"))
    }
}

impl Exporter {
    pub(super) fn new(carrier: Box<dyn Carrier>, outbox: Outbox, options: Option<Options>) -> Self {
        Self {
            carrier,
            outbox,
            options,
            layouts: Vec::new(),
            subject: None,
            indicators: BTreeSet::new(),
            statistics: Statistics::default(),
            batch: 0,
            described_at: None,
            templates_at: None,
            is_undescribed: false,
            variants: Vec::new(),
            is_held: false,
        }
    }

    /// Makes sure that there is a session, that it has all templates and options, and that nothing waits.
    fn ready(&mut self) -> Result<(), SinkError> {
        self.is_undescribed |= self.carrier.open(&mut self.outbox)?;
        if self.is_undescribed || self.must_repeat() {
            self.describe()?;
        }
        self.carrier.send(&mut self.outbox)
    }

    fn must_repeat(&self) -> bool {
        self.repeat_at().is_some_and(|at| Instant::now() >= at)
    }

    /// When templates must be sent again.
    fn repeat_at(&self) -> Option<Instant> {
        Some(self.described_at? + self.carrier.template_interval()?)
    }

    /// Puts templates and options in front of everything that waits.
    fn describe(&mut self) -> Result<(), SinkError> {
        let Self { outbox, layouts, subject, indicators, options, .. } = self;
        let Some(subject) = subject else { return Ok(()) };
        outbox.first(|outbox| {
            templates(outbox, layouts, *options)?;
            describe_subject(outbox, subject, layouts, indicators, *options)
        })?;
        self.described_at = Some(Instant::now());
        self.templates_at = self.described_at;
        self.is_undescribed = false;
        Ok(())
    }

    /// Puts templates, and the options without which flows are misread, in front of everything that waits, unless they were sent
    /// a moment ago: a collector that was started since the last batch has none, and nobody would know.
    fn refresh(&mut self) -> Result<(), SinkError> {
        let is_fresh = |at: Instant| at.elapsed() < TEMPLATES_FRESH;
        if self.carrier.template_interval().is_none() || self.templates_at.is_none_or(is_fresh) {
            return Ok(());
        }
        let Self { outbox, layouts, subject, options, .. } = self;
        let Some(subject) = subject else { return Ok(()) };
        outbox.first(|outbox| {
            templates(outbox, layouts, *options)?;
            options.map_or(Ok(()), |options| {
                options::sampling(outbox)?;
                options.interfaces(outbox, &subject.interfaces)
            })
        })?;
        self.templates_at = Some(Instant::now());
        Ok(())
    }

    /// Takes over what the heading says of the recipient. `starts_anew`: the batch goes into a new session, which needs
    /// neither what the former one was told nor its end.
    fn heed(&mut self, heading: &Heading<'_>, starts_anew: bool) -> Result<(), SinkError> {
        // Who does not learn where packets came in gets no names of interfaces either.
        let is_told = heading.fields.has(Field::IngressInterface);
        let interfaces = if is_told { heading.interfaces } else { &[] };
        let is_same = |said: &Subject| {
            said.recipient == *heading.recipient
                && said.has_ranks == heading.has_ranks
                && said.interfaces == interfaces
        };
        if self.subject.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let fields = |recipient: &Recipient| recipient.fields.keys().copied().collect::<Fields>();
        let keeps_fields =
            self.subject.as_ref().is_some_and(|said| fields(&said.recipient) == fields(heading.recipient));
        // A session that was never described needs to hear of the new subject only.
        let goes_on = self.subject.is_some() && !starts_anew && !self.is_undescribed;
        if goes_on {
            // Messages that wait belong to the former subject: they go out before the new one is described.
            self.ready()?;
        }
        if !keeps_fields {
            self.retire(goes_on)?;
        }
        let subject = self.subject.insert(Subject {
            recipient: heading.recipient.clone(),
            has_ranks: heading.has_ranks,
            interfaces: interfaces.to_vec(),
        });
        if goes_on {
            self.is_undescribed = true;
            describe_subject(&mut self.outbox, subject, &self.layouts, &self.indicators, self.options)?;
            self.outbox.finish()?;
            self.is_undescribed = false;
        }
        Ok(())
    }

    /// Gives up all templates: the recipient gets other fields.
    fn retire(&mut self, goes_on: bool) -> Result<(), EncodeError> {
        let is_withdrawn = goes_on && self.carrier.retirement() == Retirement::Withdrawn;
        for (layout, used) in &mut self.layouts {
            if *used == Use::Current && is_withdrawn {
                for template in layout.announced() {
                    self.outbox.template(&template.withdrawal())?;
                }
            }
            *used = Use::Retired;
        }
        self.outbox.finish()?;
        self.indicators.clear();
        self.drop_retired();
        Ok(())
    }

    /// Drops templates that no message needs any more.
    fn drop_retired(&mut self) {
        if self.outbox.is_empty() {
            self.layouts.retain(|(_, used)| *used == Use::Current);
        }
    }

    /// The templates for these fields.
    fn layout(&mut self, fields: Fields) -> usize {
        self.drop_retired();
        let is_wanted = |(layout, used): &(Layout, Use)| *used == Use::Current && layout.fields() == fields;
        self.layouts.iter().position(is_wanted).unwrap_or_else(|| {
            let layout = Layout::new(fields, self.layouts.iter().map(|(layout, _)| layout));
            self.layouts.push((layout, Use::Current));
            self.layouts.len() - 1
        })
    }

    /// Makes messages of records.
    fn encode(&mut self, records: &[Record], fields: Fields) -> Result<(), EncodeError> {
        let index = self.layout(fields);
        let Self { outbox, layouts, variants, subject, indicators, options, .. } = self;
        let layout = &mut layouts[index].0;
        let mut occurring = 0_u128;
        variants.clear();
        variants.extend(records.iter().map(|record| {
            let variant = layout.variant(record);
            occurring |= 1 << variant;
            variant
        }));
        announce(outbox, layout, occurring, subject.as_ref().filter(|_| options.is_some()))?;
        if options.is_some() && fields.has(Field::SelectorId) {
            for id in records.iter().map(|record| record.selector_id).filter(|id| *id != 0) {
                if indicators.len() < INDICATORS_MAX && indicators.insert(id) {
                    options::indicator(outbox, id)?;
                }
            }
        }
        // Ordered by variant, because every change of variant starts a new set.
        for variant in (0..128_u8).filter(|variant| occurring >> variant & 1 == 1) {
            let Some(template) = layout.template(variant) else { continue };
            for (record, _) in records.iter().zip(&*variants).filter(|(_, other)| **other == variant) {
                let sums = Sums::of(std::slice::from_ref(record), fields);
                let mut octets = outbox.data_record(template.id, template.octets, sums)?;
                for element in &template.elements {
                    element.write(record, &mut octets)?;
                }
            }
        }
        outbox.finish()
    }

    /// Whether something is not delivered after a call that returned this.
    fn holds(&self, taken: Taken) -> bool {
        match taken {
            Taken::Delivered => false,
            Taken::Sent { .. } => self.outbox.oldest_flows().is_some(),
            Taken::Held => true,
        }
    }

    fn confirm(&mut self, patience: Duration) -> Result<Taken, SinkError> {
        let taken = self.carrier.confirm(&mut self.outbox, patience)?;
        self.is_held = self.holds(taken);
        self.statistics.octets = self.carrier.octets_written();
        Ok(taken)
    }
}

/// Writes the templates of variants that occur for the first time, and how their elements are anonymized where that is described.
fn announce(
    outbox: &mut Outbox,
    layout: &mut Layout,
    occurring: u128,
    described: Option<&Subject>,
) -> Result<(), EncodeError> {
    let new = occurring & !layout.announced;
    if new == 0 {
        return Ok(());
    }
    layout.announced |= new;
    let is_new = |variant: &u8| new >> variant & 1 == 1;
    for template in (0..128).filter(is_new).filter_map(|variant| layout.template(variant)) {
        outbox.template(&template.record())?;
    }
    for template in (0..128).filter(is_new).filter_map(|variant| layout.template(variant)) {
        for element in &template.elements {
            let Some(subject) = described else { continue };
            let anonymization =
                anonymization::of(*element, &template.elements, &subject.recipient, subject.has_ranks);
            options::anonymization(outbox, template.id, element.number(), anonymization)?;
        }
    }
    Ok(())
}

/// Writes all templates that the other end may need.
fn templates(
    outbox: &mut Outbox,
    layouts: &[(Layout, Use)],
    options: Option<Options>,
) -> Result<(), EncodeError> {
    for template in layouts.iter().flat_map(|(layout, _)| layout.announced()) {
        outbox.template(&template.record())?;
    }
    options.map_or(Ok(()), |options| options.templates(outbox))
}

/// Writes the options for everything in use.
fn describe_subject(
    outbox: &mut Outbox,
    subject: &Subject,
    layouts: &[(Layout, Use)],
    indicators: &BTreeSet<u64>,
    options: Option<Options>,
) -> Result<(), EncodeError> {
    let Some(options) = options else { return Ok(()) };
    options::sampling(outbox)?;
    indicators.iter().try_for_each(|id| options::indicator(outbox, *id))?;
    options.interfaces(outbox, &subject.interfaces)?;
    let current = layouts.iter().filter(|(_, used)| *used == Use::Current);
    for template in current.flat_map(|(layout, _)| layout.announced()) {
        for element in &template.elements {
            let anonymization =
                anonymization::of(*element, &template.elements, &subject.recipient, subject.has_ranks);
            options::anonymization(outbox, template.id, element.number(), anonymization)?;
        }
    }
    Ok(())
}

impl Sink for Exporter {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        let starts_anew = self.carrier.heed(heading);
        self.heed(heading, starts_anew)?;
        self.ready()?;
        if self.batch != heading.number {
            self.batch = heading.number;
            self.refresh()?;
            let Losses { overflow, dropped } = heading.losses;
            let told = Losses { overflow: heading.told(overflow), dropped: heading.told(dropped) };
            self.statistics.note(told, heading.rounded(heading.end_ms));
            if self.options.is_some() {
                self.statistics.write(&mut self.outbox)?;
            }
            self.outbox.finish()?;
            self.carrier.send(&mut self.outbox)?;
        }
        Ok(())
    }

    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError> {
        self.ready()?;
        if let Err(error) = self.encode(records, fields) {
            // Templates may be among what is missing.
            self.is_undescribed = true;
            return Err(error.into());
        }
        self.statistics.flows += u64::try_from(records.len()).unwrap_or(u64::MAX);
        // The records are messages now, and wait until they can be sent. The next call reports an error that persists.
        if self.carrier.send(&mut self.outbox).is_err() {
            self.is_held = true;
            return Ok(Taken::Held);
        }
        Ok(self.confirm(Duration::ZERO).unwrap_or(Taken::Held))
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        self.ready()?;
        self.confirm(CONFIRMED_WITHIN)
    }

    fn tend_at(&self) -> Option<Instant> {
        let confirm_at = self.is_held.then(|| Instant::now() + CONFIRM_PAUSE);
        [confirm_at, self.repeat_at(), self.carrier.tend_at()].into_iter().flatten().min()
    }

    fn tend(&mut self) -> Result<Taken, SinkError> {
        self.carrier.tend(&mut self.outbox)?;
        if self.must_repeat() || !self.outbox.is_sent() {
            self.ready()?;
        }
        self.confirm(Duration::ZERO)
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        if !self.outbox.is_sent() {
            self.ready()?;
        }
        let taken = self.carrier.close(&mut self.outbox)?;
        self.is_held = self.holds(taken);
        Ok(taken)
    }

    fn is_confirmed(&self) -> bool {
        self.carrier.is_confirmed()
    }

    fn holds_nothing(&self) -> bool {
        self.carrier.holds_nothing(&self.outbox)
    }

    fn octets_written(&self) -> u64 {
        self.carrier.octets_written()
    }

    fn retention_failures(&self) -> u64 {
        self.carrier.retention_failures()
    }
}
