//! Options: what a collector is told in addition to flows.

use netgauze_flow_pkt::ie::{Field, IE, selectorAlgorithm};
use netgauze_flow_pkt::ipfix::{DataRecord, OptionsTemplateRecord};
use netgauze_parse_utils::WritablePduWithOneInput as _;

use super::anonymization::Anonymization;
use super::element::{specifier, time};
use super::layout::TEMPLATE_ID_MIN;
use super::outbox::{EncodeError, MessageKind, Outbox};
use crate::delivery::sink::{Interface, Losses};

/// `selectorId` of the sampling that selects every packet. Indicators have higher numbers.
const EVERY_PACKET: u64 = 0;
/// A variable length: each record states its own.
const VARIABLE: u16 = u16::MAX;
/// The fixed length of names: the kernel's own are shorter.
const NAME_OCTETS: u16 = 16;

/// In which form options are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Whether names of interfaces have a fixed length, filled with zeros.
    pub(super) has_fixed_names: bool,
}

/// Kinds of options, whose templates have the numbers from 256 on in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptionsKind {
    /// Sampling in the manner of NetFlow: `samplingInterval` of the observation domain.
    SamplingInterval,
    /// Sampling in the manner of PSAMP, and the indicators that selected packets.
    Selector,
    /// Names of interfaces.
    Interface,
    /// Records and octets that were exported (RFC 7011, 4.1).
    Metering,
    /// Packets that were observed and are in no record (RFC 7011, 4.2).
    Ignored,
    /// Packets in records that were not sent (RFC 7011, 4.3).
    NotSent,
    /// How elements were anonymized (RFC 6235, 7.2).
    Anonymization,
}

impl OptionsKind {
    const ALL: [Self; 7] = [
        Self::SamplingInterval,
        Self::Selector,
        Self::Interface,
        Self::Metering,
        Self::Ignored,
        Self::NotSent,
        Self::Anonymization,
    ];

    pub(super) const fn id(self) -> u16 {
        TEMPLATE_ID_MIN + self as u16
    }

    fn template(self, options: Options) -> OptionsTemplateRecord {
        let name_octets = if options.has_fixed_names { NAME_OCTETS } else { VARIABLE };
        let (scope, fields): (&[_], &[_]) = match self {
            // Some collectors accept the interval only when it is the one field.
            Self::SamplingInterval => (&[(IE::observationDomainId, 4)], &[(IE::samplingInterval, 4)]),
            Self::Selector => (
                &[(IE::selectorId, 8)],
                &[(IE::selectorAlgorithm, 2), (IE::samplingPacketInterval, 4), (IE::samplingPacketSpace, 4)],
            ),
            Self::Interface => (&[(IE::ingressInterface, 4)], &[(IE::interfaceName, name_octets)]),
            Self::Metering => (
                &[(IE::observationDomainId, 4)],
                &[(IE::exportedFlowRecordTotalCount, 8), (IE::exportedOctetTotalCount, 8)],
            ),
            Self::Ignored => (
                &[(IE::observationDomainId, 4), (IE::meteringProcessId, 4)],
                &[(IE::ignoredPacketTotalCount, 8), (IE::ignoredOctetTotalCount, 8)],
            ),
            Self::NotSent => (
                &[(IE::exportingProcessId, 4)],
                &[
                    (IE::notSentPacketTotalCount, 8),
                    (IE::notSentOctetTotalCount, 8),
                    (IE::observationTimeMilliseconds, 8),
                    (IE::observationTimeMilliseconds, 8),
                ],
            ),
            Self::Anonymization => (
                &[(IE::templateId, 2), (IE::informationElementId, 2)],
                &[(IE::anonymizationFlags, 2), (IE::anonymizationTechnique, 2)],
            ),
        };
        let specifiers = |elements: &[(IE, u16)]| {
            elements.iter().map(|(element, octets)| specifier(*element, *octets)).collect()
        };
        OptionsTemplateRecord::new(self.id(), specifiers(scope), specifiers(fields))
    }

    fn write(
        self,
        outbox: &mut Outbox,
        scope: impl Into<Box<[Field]>>,
        fields: impl Into<Box<[Field]>>,
    ) -> Result<(), EncodeError> {
        let record = DataRecord::new(scope.into(), fields.into());
        let octets = outbox.record(MessageKind::Description, self.id(), record.len(None))?;
        Ok(record.write(octets, None)?)
    }
}

impl Options {
    /// Writes all templates of options.
    pub(super) fn templates(self, outbox: &mut Outbox) -> Result<(), EncodeError> {
        OptionsKind::ALL.iter().try_for_each(|kind| outbox.options_template(&kind.template(self)))
    }

    /// Names interfaces.
    pub(super) fn interfaces(self, outbox: &mut Outbox, interfaces: &[Interface]) -> Result<(), EncodeError> {
        interfaces.iter().try_for_each(|Interface { index, name }| {
            if self.has_fixed_names {
                return fixed_name(outbox, *index, name);
            }
            let name = Field::interfaceName(name.as_str().into());
            OptionsKind::Interface.write(outbox, [Field::ingressInterface(*index)], [name])
        })
    }
}

/// Names an interface with a fixed length: the library knows strings of variable length only.
fn fixed_name(outbox: &mut Outbox, index: u32, name: &str) -> Result<(), EncodeError> {
    let (id, length) = (OptionsKind::Interface.id(), usize::from(NAME_OCTETS));
    let octets = outbox.record(MessageKind::Description, id, 4 + length)?;
    octets.extend_from_slice(&index.to_be_bytes());
    let end = octets.len() + length;
    octets.extend_from_slice(&name.as_bytes()[..name.floor_char_boundary(length)]);
    octets.resize(end, 0);
    Ok(())
}

/// Describes that every packet is counted, in the two forms that collectors look for.
pub(super) fn sampling(outbox: &mut Outbox) -> Result<(), EncodeError> {
    let domain = outbox.domain();
    let scope = [Field::observationDomainId(domain)];
    OptionsKind::SamplingInterval.write(outbox, scope, [Field::samplingInterval(1)])?;
    let algorithm = selectorAlgorithm::SystematiccountbasedSampling;
    selector(outbox, EVERY_PACKET, algorithm)
}

/// Describes an indicator that selected packets.
pub(super) fn indicator(outbox: &mut Outbox, id: u64) -> Result<(), EncodeError> {
    selector(outbox, id, selectorAlgorithm::PropertymatchFiltering)
}

fn selector(outbox: &mut Outbox, id: u64, algorithm: selectorAlgorithm) -> Result<(), EncodeError> {
    let fields = [
        Field::selectorAlgorithm(algorithm),
        Field::samplingPacketInterval(1),
        Field::samplingPacketSpace(0),
    ];
    OptionsKind::Selector.write(outbox, [Field::selectorId(id)], fields)
}

/// Describes how an element of a template is anonymized.
pub(super) fn anonymization(
    outbox: &mut Outbox,
    template: u16,
    element: u16,
    Anonymization { flags, technique }: Anonymization,
) -> Result<(), EncodeError> {
    let scope = [Field::templateId(template), Field::informationElementId(element)];
    let fields = [Field::anonymizationFlags(flags), Field::anonymizationTechnique(technique)];
    OptionsKind::Anonymization.write(outbox, scope, fields)
}

/// The totals since the start of the agent that options report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Records of flows that this sink took.
    pub(super) flows: u64,
    /// Octets that it sent.
    pub(super) octets: u64,
    ignored: (u64, u64),
    not_sent: (u64, u64),
    /// Ends of the first and the last batch in which something was not sent, in milliseconds since 1970; 0 for none.
    not_sent_ms: (u64, u64),
}

impl Statistics {
    /// Takes over the losses up to the end of a batch.
    pub(super) fn note(&mut self, Losses { overflow, dropped }: Losses, end_ms: u64) {
        self.ignored = (overflow.packets, overflow.octets);
        let not_sent = (dropped.packets, dropped.octets);
        if not_sent != self.not_sent {
            let first = if self.not_sent_ms.0 == 0 { end_ms } else { self.not_sent_ms.0 };
            self.not_sent_ms = (first, end_ms);
        }
        self.not_sent = not_sent;
    }

    /// Writes the totals.
    pub(super) fn write(&self, outbox: &mut Outbox) -> Result<(), EncodeError> {
        let domain = outbox.domain();
        let exported =
            [Field::exportedFlowRecordTotalCount(self.flows), Field::exportedOctetTotalCount(self.octets)];
        OptionsKind::Metering.write(outbox, [Field::observationDomainId(domain)], exported)?;
        let ignored =
            [Field::ignoredPacketTotalCount(self.ignored.0), Field::ignoredOctetTotalCount(self.ignored.1)];
        let scope = [Field::observationDomainId(domain), Field::meteringProcessId(1)];
        OptionsKind::Ignored.write(outbox, scope, ignored)?;
        let not_sent = [
            Field::notSentPacketTotalCount(self.not_sent.0),
            Field::notSentOctetTotalCount(self.not_sent.1),
            Field::observationTimeMilliseconds(time(self.not_sent_ms.0)),
            Field::observationTimeMilliseconds(time(self.not_sent_ms.1)),
        ];
        OptionsKind::NotSent.write(outbox, [Field::exportingProcessId(1)], not_sent)
    }
}
