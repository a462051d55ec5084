//! Which template a record has: the elements and the number that follow from its variant.

use netgauze_flow_pkt::ipfix::TemplateRecord;
use sha2::{Digest as _, Sha256};

use super::element::{Element, elements};
use crate::policy::field::{Field, Fields};
use crate::records::fields::Variant;
use crate::records::record::Record;

/// The first number that a template may have (RFC 7011, 3.4.1).
pub(super) const TEMPLATE_ID_MIN: u16 = 256;
/// Blocks of as many numbers as there are variants. Block 0 is for options.
const BLOCKS: u16 = (u16::MAX - TEMPLATE_ID_MIN) / 128;

/// The templates for all records with these fields of the policy.
#[derive(Debug)]
pub(super) struct Layout {
    fields: Fields,
    block: u16,
    /// By variant: the first variant with the same elements, which stands for all of them.
    same: [u8; Variant::COUNT as usize],
    /// By variant: its template, if it stands for itself and others.
    templates: Vec<Option<Template>>,
    /// Variants whose template the other end has.
    pub(super) announced: u128,
}

/// A template.
#[derive(Debug)]
pub(super) struct Template {
    /// Its number.
    pub(super) id: u16,
    /// The elements of its records.
    pub(super) elements: Vec<Element>,
    /// Length of a record.
    pub(super) octets: usize,
}

impl Template {
    /// The record that announces it.
    pub(super) fn record(&self) -> TemplateRecord {
        TemplateRecord::new(self.id, self.elements.iter().map(|element| element.specifier()).collect())
    }

    /// The record that withdraws it (RFC 7011, 8.1).
    pub(super) fn withdrawal(&self) -> TemplateRecord {
        TemplateRecord::new(self.id, Box::new([]))
    }
}

impl Layout {
    /// The templates for these fields. Their numbers follow from the fields alone, unless `others` use those at the moment.
    pub(super) fn new<'a>(fields: Fields, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let taken: Vec<u16> = others.into_iter().map(|other| other.block).collect();
        let first = block(fields);
        let is_free = |block: &u16| !taken.contains(block);
        let block = (0..BLOCKS - 1).map(|step| 1 + (first + step) % (BLOCKS - 1)).find(is_free).unwrap_or(1);
        let (mut same, mut templates) = ([0; Variant::COUNT as usize], Vec::new());
        let mut seen: Vec<(Fields, u8)> = Vec::new();
        for variant in Variant::all() {
            let (present, number) = (fields.and(variant.fields()), variant.number());
            let first = seen.iter().find(|(fields, _)| *fields == present).map(|(_, number)| *number);
            same[usize::from(number)] = first.unwrap_or(number);
            templates.push(first.is_none().then(|| {
                seen.push((present, number));
                let elements = elements(present);
                let octets = elements.iter().map(|element| element.octets()).sum();
                Template {
                    id: TEMPLATE_ID_MIN + block * u16::from(Variant::COUNT) + u16::from(number),
                    elements,
                    octets,
                }
            }));
        }
        Self { fields, block, same, templates, announced: 0 }
    }

    /// The fields of the policy.
    pub(super) const fn fields(&self) -> Fields {
        self.fields
    }

    /// The number of the variant that stands for the record's.
    pub(super) fn variant(&self, record: &Record) -> u8 {
        self.same[usize::from(Variant::of(record).number())]
    }

    /// The template of a variant that stands for others.
    pub(super) fn template(&self, variant: u8) -> Option<&Template> {
        self.templates.get(usize::from(variant))?.as_ref()
    }

    /// The templates that were announced to the other end.
    pub(super) fn announced(&self) -> impl Iterator<Item = &Template> {
        let is_announced = |variant: &u8| self.announced >> variant & 1 == 1;
        (0..Variant::COUNT).filter(is_announced).filter_map(|variant| self.template(variant))
    }
}

/// The block that is tried first for the templates of these fields. It is the same after every start, on every host and in
/// every release.
fn block(fields: Fields) -> u16 {
    let mut hash = Sha256::new();
    for field in Field::ALL.iter().filter(|field| fields.has(**field)) {
        hash.update(field.number().to_be_bytes());
    }
    let digest = hash.finalize();
    u16::from_be_bytes([digest[0], digest[1]]) % (BLOCKS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BLOCKS, Layout, TEMPLATE_ID_MIN};
    use crate::policy::field::{Field, Fields};
    use crate::records::fields::Variant;

    fn ids(layout: &Layout) -> BTreeSet<u16> {
        layout.templates.iter().flatten().map(|template| template.id).collect()
    }

    #[test]
    fn numbers_follow_from_the_fields() {
        let (one, other) = (Layout::new(Fields::ALL, &[]), Layout::new(Fields::ALL, &[]));
        assert_eq!(ids(&one), ids(&other));
        assert_eq!(ids(&one).first(), Some(&53760), "these numbers must stay what they are");
        let less: Fields = Field::ALL.iter().copied().filter(|field| *field != Field::VlanId).collect();
        assert_ne!(one.block, Layout::new(less, &[]).block);
    }

    #[test]
    fn numbers_that_others_have_are_not_given_again() {
        let first = Layout::new(Fields::ALL, &[]);
        let second = Layout::new(Fields::ALL, std::slice::from_ref(&first));
        assert!(ids(&first).is_disjoint(&ids(&second)));
    }

    #[test]
    fn every_block_fits_into_the_numbers_of_templates() {
        let variants = u32::from(Variant::COUNT);
        let last = u32::from(TEMPLATE_ID_MIN) + u32::from(BLOCKS - 1) * variants + variants - 1;
        assert!(last <= u32::from(u16::MAX), "{last}");
    }

    #[test]
    fn records_that_cannot_differ_share_a_template() {
        let sum = [Field::PacketDeltaCount, Field::OctetDeltaCount].into_iter().collect();
        assert_eq!(ids(&Layout::new(sum, &[])).len(), 1);
        let nothing = Layout::new(Fields::NONE, &[]);
        assert_eq!(nothing.template(0).map(|template| template.octets), Some(1));
        // Transport has three bits for five kinds. Numbers that are no kind get the fields of protocols without ports.
        assert_eq!(ids(&Layout::new(Fields::ALL, &[])).len(), 2 * 5 * 4 * 2);
    }
}
