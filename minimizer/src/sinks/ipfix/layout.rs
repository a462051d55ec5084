//! The template of a record: the record's shape decides on elements and number.

use netgauze_flow_pkt::ipfix::TemplateRecord;
use sha2::{Digest as _, Sha256};

use super::element::{Element, elements};
use crate::policy::field::{Field, Fields};
use crate::records::record::{Record, Transport};

/// All shapes: IP version, transport (three bits for five kinds), each of two tags or not, a selector or not.
const SHAPES: u8 = 1 << 7;
/// The first number that a template may have (RFC 7011, 3.4.1).
pub(super) const TEMPLATE_ID_MIN: u16 = 256;
/// Blocks of template numbers, each with a number for every shape. Block 0 is for options.
const BLOCKS: u16 = (u16::MAX - TEMPLATE_ID_MIN) / 128;

/// The templates for all records with these fields of the policy.
#[derive(Debug)]
pub(super) struct Layout {
    fields: Fields,
    block: u16,
    /// For each shape, the first shape with the same elements, which represents all of them.
    same: [u8; SHAPES as usize],
    /// The templates, at the shapes that represent others.
    templates: Vec<Option<Template>>,
    /// A bit for each shape whose template the other end has.
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
    /// The templates for these fields. Their numbers follow from the fields alone, unless another layout uses them now.
    pub(super) fn new<'a>(fields: Fields, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let taken: Vec<u16> = others.into_iter().map(|other| other.block).collect();
        let first = block(fields);
        let is_free = |block: &u16| !taken.contains(block);
        let block = (0..BLOCKS - 1).map(|step| 1 + (first + step) % (BLOCKS - 1)).find(is_free).unwrap_or(1);
        let (mut same, mut templates) = ([0; SHAPES as usize], Vec::new());
        let mut seen: Vec<(Fields, u8)> = Vec::new();
        for shape in 0..SHAPES {
            let present = present(fields, shape);
            let first = seen.iter().find(|(fields, _)| *fields == present).map(|(_, shape)| *shape);
            same[usize::from(shape)] = first.unwrap_or(shape);
            templates.push(first.is_none().then(|| {
                seen.push((present, shape));
                let elements = elements(present);
                let octets = elements.iter().map(|element| usize::from(element.octets())).sum();
                Template {
                    id: TEMPLATE_ID_MIN + block * u16::from(SHAPES) + u16::from(shape),
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

    /// The shape that represents the shape of a record.
    pub(super) fn shape(&self, record: &Record) -> u8 {
        self.same[usize::from(shape(record))]
    }

    /// The template of a shape that represents others.
    pub(super) fn template(&self, shape: u8) -> Option<&Template> {
        self.templates.get(usize::from(shape))?.as_ref()
    }

    /// The templates that were announced to the other end.
    pub(super) fn announced(&self) -> impl Iterator<Item = &Template> {
        let is_announced = |shape: &u8| self.announced >> shape & 1 == 1;
        (0..SHAPES).filter(is_announced).filter_map(|shape| self.template(shape))
    }
}

/// What decides on the elements of a record: IP version in bit 0, transport in bits 1 to 3, presence of tags in bits 4 and
/// 5, of a selector in bit 6.
fn shape(record: &Record) -> u8 {
    let tags = record.tuple.tags();
    u8::from(tags.is_ipv6())
        | (Transport::of(record.tuple.protocol()) as u8) << 1
        | u8::from(tags.vlan_id().is_some()) << 4
        | u8::from(tags.customer_vlan_id().is_some()) << 5
        | u8::from(record.selector_id != 0) << 6
}

/// The fields that a record of this shape has.
fn present(fields: Fields, shape: u8) -> Fields {
    let has = |bit: u8| shape >> bit & 1 == 1;
    let is_transport = |transport: Transport| shape >> 1 & 7 == transport as u8;
    let is_present = |field: &Field| match field {
        Field::SourceIPv4Address | Field::DestinationIPv4Address => !has(0),
        Field::SourceIPv6Address | Field::DestinationIPv6Address => has(0),
        Field::SourceTransportPort | Field::DestinationTransportPort => {
            is_transport(Transport::Tcp) || is_transport(Transport::Ports)
        }
        Field::TcpControlBits => is_transport(Transport::Tcp),
        Field::IcmpTypeIPv4 | Field::IcmpCodeIPv4 => is_transport(Transport::Icmp),
        Field::IcmpTypeIPv6 | Field::IcmpCodeIPv6 => is_transport(Transport::IcmpV6),
        Field::VlanId => has(4),
        Field::Dot1qCustomerVlanId => has(5),
        Field::SelectorId => has(6),
        _ => true,
    };
    Field::ALL.iter().copied().filter(|field| fields.has(*field)).filter(is_present).collect()
}

/// The first block to try for the templates of these fields: the same after every start, on every host and in every
/// release.
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

    use super::{BLOCKS, Layout, SHAPES, TEMPLATE_ID_MIN};
    use crate::policy::field::{Field, Fields};

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
        let shapes = u32::from(SHAPES);
        let last = u32::from(TEMPLATE_ID_MIN) + u32::from(BLOCKS - 1) * shapes + shapes - 1;
        assert!(last <= u32::from(u16::MAX), "{last}");
    }

    #[test]
    fn records_that_cannot_differ_share_a_template() {
        let sum = [Field::PacketDeltaCount, Field::OctetDeltaCount].into_iter().collect();
        assert_eq!(ids(&Layout::new(sum, &[])).len(), 1);
        let nothing = Layout::new(Fields::NONE, &[]);
        assert_eq!(nothing.template(0).map(|template| template.octets), Some(1));
        // Transport has three bits for five kinds; numbers without a kind are as those without ports.
        assert_eq!(ids(&Layout::new(Fields::ALL, &[])).len(), 2 * 5 * 4 * 2);
    }
}
