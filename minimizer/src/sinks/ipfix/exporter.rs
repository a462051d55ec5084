//! The sink: records become messages, templates and options go with them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::anonymization;
use super::layout::Layout;
use super::options::{self, Statistics};
use super::outbox::{EncodeError, Outbox};
use super::transport::{Retirement, Transport};
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, Interface, Sink, SinkError, Taken};
use crate::policy::field::{Field, Fields};
use crate::policy::model::Recipient;
use crate::records::record::Record;

/// Indicators that are described at most, of those that selected something: a policy may have a million.
const INDICATORS_MAX: usize = 4096;
/// How long the end of a batch waits for the other end to confirm it.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);
/// Pause until it is asked again whether what was sent has arrived.
const CONFIRM_PAUSE: Duration = Duration::from_millis(200);

/// Sends the records of one recipient as IPFIX.
pub(super) struct Exporter {
    transport: Box<dyn Transport>,
    outbox: Outbox,
    /// Templates: those in use, and retired ones that messages on their way may still need.
    layouts: Vec<(Layout, Use)>,
    terms: Option<Terms>,
    /// Indicators that were described.
    indicators: BTreeSet<u64>,
    statistics: Statistics,
    /// The batch in which statistics were last sent.
    batch: u64,
    /// When templates were last sent.
    described_at: Option<Instant>,
    /// Variant of each record of a call.
    variants: Vec<u8>,
    /// Whether something was sent of which it is not known that it arrived.
    is_held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Current,
    Retired,
}

/// What descriptions are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    recipient: Recipient,
    interfaces: Vec<Interface>,
}

impl From<EncodeError> for SinkError {
    fn from(error: EncodeError) -> Self {
        Self::new(Loss::Refused, format!("{error}; this is an error of Minimizer: please report it"))
    }
}

impl Exporter {
    pub(super) fn new(transport: Box<dyn Transport>, outbox: Outbox) -> Self {
        Self {
            transport,
            outbox,
            layouts: Vec::new(),
            terms: None,
            indicators: BTreeSet::new(),
            statistics: Statistics::default(),
            batch: 0,
            described_at: None,
            variants: Vec::new(),
            is_held: false,
        }
    }

    /// Sees to it that there is a session, that the other end knows what it must, and that nothing waits.
    fn ready(&mut self) -> Result<(), SinkError> {
        let is_new = self.transport.open(&mut self.outbox)?;
        if is_new || self.must_repeat() {
            self.describe()?;
        }
        self.transport.send(&mut self.outbox)
    }

    fn must_repeat(&self) -> bool {
        self.repeat_at().is_some_and(|at| Instant::now() >= at)
    }

    /// When templates are to be sent again.
    fn repeat_at(&self) -> Option<Instant> {
        Some(self.described_at? + self.transport.template_interval()?)
    }

    /// Puts templates and options before everything that waits.
    fn describe(&mut self) -> Result<(), SinkError> {
        let Self { outbox, layouts, terms, indicators, .. } = self;
        let Some(terms) = terms else { return Ok(()) };
        outbox.first(|outbox| {
            for template in layouts.iter().flat_map(|(layout, _)| layout.announced()) {
                outbox.template(&template.record())?;
            }
            options::templates(outbox)?;
            describe_terms(outbox, terms, layouts, indicators)
        })?;
        self.described_at = Some(Instant::now());
        Ok(())
    }

    /// Takes over what the heading says of the recipient; `true` if templates or options changed.
    fn heed(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        let is_same =
            |terms: &Terms| terms.recipient == *heading.recipient && terms.interfaces == heading.interfaces;
        if self.terms.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        let is_first = self.terms.is_none();
        let fields = |recipient: &Recipient| recipient.fields.keys().copied().collect::<Fields>();
        let keeps_fields =
            self.terms.as_ref().is_some_and(|terms| fields(&terms.recipient) == fields(heading.recipient));
        if !is_first {
            // Whatever was said under the former terms goes out under them.
            self.ready()?;
            if !keeps_fields {
                self.retire()?;
            }
        }
        self.terms =
            Some(Terms { recipient: heading.recipient.clone(), interfaces: heading.interfaces.to_vec() });
        if !is_first && let Some(terms) = &self.terms {
            describe_terms(&mut self.outbox, terms, &self.layouts, &self.indicators)?;
            self.outbox.finish()?;
        }
        Ok(())
    }

    /// Gives up all templates: the recipient gets other fields.
    fn retire(&mut self) -> Result<(), SinkError> {
        let retirement = self.transport.retire(&mut self.outbox)?;
        for (layout, used) in &mut self.layouts {
            if *used == Use::Current && retirement == Retirement::Withdrawn {
                for template in layout.announced() {
                    self.outbox.template(&template.withdrawal())?;
                }
            }
            *used = Use::Retired;
        }
        self.outbox.finish()?;
        self.indicators.clear();
        Ok(())
    }

    /// The templates for these fields.
    fn layout(&mut self, fields: Fields) -> usize {
        if self.outbox.is_empty() {
            self.layouts.retain(|(_, used)| *used == Use::Current);
        }
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
        let Self { outbox, layouts, variants, terms, indicators, .. } = self;
        let layout = &mut layouts[index].0;
        let mut occurring = 0_u128;
        variants.clear();
        variants.extend(records.iter().map(|record| {
            let variant = layout.variant(record);
            occurring |= 1 << variant;
            variant
        }));
        announce(outbox, layout, occurring, terms.as_ref())?;
        if fields.has(Field::SelectorId) {
            for id in records.iter().map(|record| record.selector_id).filter(|id| *id != 0) {
                if indicators.len() < INDICATORS_MAX && indicators.insert(id) {
                    options::indicator(outbox, id)?;
                }
            }
        }
        // By variant: every change of it begins a set.
        for variant in (0..128_u8).filter(|variant| occurring >> variant & 1 == 1) {
            let Some(template) = layout.template(variant) else { continue };
            for (record, _) in records.iter().zip(&*variants).filter(|(_, other)| **other == variant) {
                let mut octets = outbox.data_record(template.id, template.octets)?;
                for element in &template.elements {
                    element.write(record, &mut octets)?;
                }
            }
        }
        outbox.finish()
    }

    fn confirm(&mut self, patience: Duration) -> Result<Taken, SinkError> {
        let taken = self.transport.confirm(&mut self.outbox, patience)?;
        self.is_held = taken == Taken::Held;
        self.statistics.octets = self.transport.octets_written();
        Ok(taken)
    }
}

/// Sends the templates of variants that did not occur before.
fn announce(
    outbox: &mut Outbox,
    layout: &mut Layout,
    occurring: u128,
    terms: Option<&Terms>,
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
            let Some(terms) = terms else { continue };
            let anonymization = anonymization::of(*element, &terms.recipient);
            options::anonymization(outbox, template.id, element.number(), anonymization)?;
        }
    }
    Ok(())
}

/// Writes the options of all that is in use.
fn describe_terms(
    outbox: &mut Outbox,
    terms: &Terms,
    layouts: &[(Layout, Use)],
    indicators: &BTreeSet<u64>,
) -> Result<(), EncodeError> {
    options::sampling(outbox)?;
    indicators.iter().try_for_each(|id| options::indicator(outbox, *id))?;
    options::interfaces(outbox, &terms.interfaces)?;
    let current = layouts.iter().filter(|(_, used)| *used == Use::Current);
    for template in current.flat_map(|(layout, _)| layout.announced()) {
        for element in &template.elements {
            let anonymization = anonymization::of(*element, &terms.recipient);
            options::anonymization(outbox, template.id, element.number(), anonymization)?;
        }
    }
    Ok(())
}

impl Sink for Exporter {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        self.transport.heed(heading);
        self.heed(heading)?;
        self.ready()?;
        if self.batch != heading.number {
            self.batch = heading.number;
            self.statistics.note(heading.losses, heading.end_ms);
            self.statistics.write(&mut self.outbox)?;
            self.outbox.finish()?;
            self.transport.send(&mut self.outbox)?;
        }
        Ok(())
    }

    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError> {
        self.ready()?;
        self.encode(records, fields)?;
        self.statistics.flows += u64::try_from(records.len()).unwrap_or(u64::MAX);
        // They are messages now, which wait until they can be sent: what fails here fails the next call.
        if self.transport.send(&mut self.outbox).is_err() {
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
        [confirm_at, self.repeat_at(), self.transport.tend_at()].into_iter().flatten().min()
    }

    fn tend(&mut self) -> Result<Taken, SinkError> {
        self.transport.tend()?;
        if self.must_repeat() || !self.outbox.is_sent() {
            self.ready()?;
        }
        self.confirm(Duration::ZERO)
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        if !self.outbox.is_sent() {
            self.ready()?;
        }
        let taken = self.transport.close(&mut self.outbox)?;
        self.is_held = taken == Taken::Held;
        Ok(taken)
    }

    fn octets_written(&self) -> u64 {
        self.transport.octets_written()
    }
}
