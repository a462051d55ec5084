//! The information elements of a record, with their lengths and values.

use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Utc};
use netgauze_flow_pkt::FieldSpecifier;
use netgauze_flow_pkt::ie::{self, IE, InformationElementTemplate as _};
use netgauze_flow_pkt::wire::serializer::ie::FieldWritingError;
use netgauze_parse_utils::WritablePduWithOneInput as _;

use crate::policy::field::{Field, Fields};
use crate::records::record::Record;

/// An element of a data record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// The element of one field of the record.
    Of(Field),
    /// `ipVersion`, beside addresses.
    IpVersion,
    /// `icmpTypeCodeIPv4`: some collectors know only this, and not type and code as separate elements.
    IcmpTypeCodeIPv4,
    /// `icmpTypeCodeIPv6`.
    IcmpTypeCodeIPv6,
    /// `flowDirection`, beside the interface that received the frames.
    FlowDirection,
    /// `paddingOctets`, in a record without any field for its recipient: a template needs one element.
    Padding,
}

impl Element {
    const fn ie(self) -> IE {
        match self {
            Self::Of(field) => match field {
                Field::SourceIPv4Address => IE::sourceIPv4Address,
                Field::DestinationIPv4Address => IE::destinationIPv4Address,
                Field::SourceIPv6Address => IE::sourceIPv6Address,
                Field::DestinationIPv6Address => IE::destinationIPv6Address,
                Field::SourceTransportPort => IE::sourceTransportPort,
                Field::DestinationTransportPort => IE::destinationTransportPort,
                Field::ProtocolIdentifier => IE::protocolIdentifier,
                Field::IpClassOfService => IE::ipClassOfService,
                Field::TcpControlBits => IE::tcpControlBits,
                Field::IcmpTypeIPv4 => IE::icmpTypeIPv4,
                Field::IcmpCodeIPv4 => IE::icmpCodeIPv4,
                Field::IcmpTypeIPv6 => IE::icmpTypeIPv6,
                Field::IcmpCodeIPv6 => IE::icmpCodeIPv6,
                Field::VlanId => IE::vlanId,
                Field::Dot1qCustomerVlanId => IE::dot1qCustomerVlanId,
                Field::IngressInterface => IE::ingressInterface,
                Field::SelectorId => IE::selectorId,
                Field::PacketDeltaCount => IE::packetDeltaCount,
                Field::OctetDeltaCount => IE::octetDeltaCount,
                Field::FlowStartMilliseconds => IE::flowStartMilliseconds,
                Field::FlowEndMilliseconds => IE::flowEndMilliseconds,
            },
            Self::IpVersion => IE::ipVersion,
            Self::IcmpTypeCodeIPv4 => IE::icmpTypeCodeIPv4,
            Self::IcmpTypeCodeIPv6 => IE::icmpTypeCodeIPv6,
            Self::FlowDirection => IE::flowDirection,
            Self::Padding => IE::paddingOctets,
        }
    }

    /// Length in octets.
    pub(super) const fn octets(self) -> u16 {
        match self {
            Self::Of(field) => match field {
                Field::SourceIPv6Address | Field::DestinationIPv6Address => 16,
                Field::SelectorId
                | Field::PacketDeltaCount
                | Field::OctetDeltaCount
                | Field::FlowStartMilliseconds
                | Field::FlowEndMilliseconds => 8,
                Field::SourceIPv4Address | Field::DestinationIPv4Address | Field::IngressInterface => 4,
                Field::SourceTransportPort
                | Field::DestinationTransportPort
                | Field::VlanId
                | Field::Dot1qCustomerVlanId => 2,
                // Reduced-size encoding of control bits: some collectors ignore them in two octets.
                Field::TcpControlBits
                | Field::ProtocolIdentifier
                | Field::IpClassOfService
                | Field::IcmpTypeIPv4
                | Field::IcmpCodeIPv4
                | Field::IcmpTypeIPv6
                | Field::IcmpCodeIPv6 => 1,
            },
            Self::IcmpTypeCodeIPv4 | Self::IcmpTypeCodeIPv6 => 2,
            Self::IpVersion | Self::FlowDirection | Self::Padding => 1,
        }
    }

    /// Its specifier in a template.
    pub(super) fn specifier(self) -> FieldSpecifier {
        specifier(self.ie(), self.octets())
    }

    /// Number in the IANA registry.
    pub(super) fn number(self) -> u16 {
        self.ie().id()
    }

    /// The field of the policy that it shows.
    pub(super) const fn field(self) -> Option<Field> {
        match self {
            Self::Of(field) => Some(field),
            Self::IcmpTypeCodeIPv4 => Some(Field::IcmpTypeIPv4),
            Self::IcmpTypeCodeIPv6 => Some(Field::IcmpTypeIPv6),
            Self::IpVersion | Self::FlowDirection | Self::Padding => None,
        }
    }

    /// Writes its value to the front of `octets`, which then starts behind it.
    #[inline]
    pub(super) fn write(self, record: &Record, octets: &mut &mut [u8]) -> Result<(), FieldWritingError> {
        let tuple = &record.tuple;
        let (first, second) = (tuple.source_port(), tuple.destination_port());
        let field = match self {
            Self::Of(field) => match field {
                Field::SourceIPv4Address => ie::Field::sourceIPv4Address(Ipv4Addr::from(tuple.ipv4().0)),
                Field::DestinationIPv4Address => {
                    ie::Field::destinationIPv4Address(Ipv4Addr::from(tuple.ipv4().1))
                }
                Field::SourceIPv6Address => ie::Field::sourceIPv6Address(Ipv6Addr::from(tuple.ipv6().0)),
                Field::DestinationIPv6Address => {
                    ie::Field::destinationIPv6Address(Ipv6Addr::from(tuple.ipv6().1))
                }
                Field::SourceTransportPort => ie::Field::sourceTransportPort(first),
                Field::DestinationTransportPort => ie::Field::destinationTransportPort(second),
                Field::ProtocolIdentifier => ie::Field::protocolIdentifier(tuple.protocol().into()),
                Field::IpClassOfService => ie::Field::ipClassOfService(tuple.traffic_class()),
                Field::TcpControlBits => ie::Field::tcpControlBits(low_octet(record.control_bits).into()),
                Field::IcmpTypeIPv4 => ie::Field::icmpTypeIPv4(low_octet(first)),
                Field::IcmpCodeIPv4 => ie::Field::icmpCodeIPv4(low_octet(second)),
                Field::IcmpTypeIPv6 => ie::Field::icmpTypeIPv6(low_octet(first)),
                Field::IcmpCodeIPv6 => ie::Field::icmpCodeIPv6(low_octet(second)),
                Field::VlanId => ie::Field::vlanId(tuple.tags().vlan_id().unwrap_or(0)),
                Field::Dot1qCustomerVlanId => {
                    ie::Field::dot1qCustomerVlanId(tuple.tags().customer_vlan_id().unwrap_or(0))
                }
                Field::IngressInterface => ie::Field::ingressInterface(record.ingress_interface),
                Field::SelectorId => ie::Field::selectorId(record.selector_id),
                Field::PacketDeltaCount => ie::Field::packetDeltaCount(record.packets),
                Field::OctetDeltaCount => ie::Field::octetDeltaCount(record.octets),
                Field::FlowStartMilliseconds => ie::Field::flowStartMilliseconds(time(record.start_ms)),
                Field::FlowEndMilliseconds => ie::Field::flowEndMilliseconds(time(record.end_ms)),
            },
            Self::IpVersion => ie::Field::ipVersion(if tuple.tags().is_ipv6() { 6 } else { 4 }),
            Self::IcmpTypeCodeIPv4 => ie::Field::icmpTypeCodeIPv4(first << 8 | second),
            Self::IcmpTypeCodeIPv6 => ie::Field::icmpTypeCodeIPv6(first << 8 | second),
            Self::FlowDirection => ie::Field::flowDirection(ie::flowDirection::ingress),
            Self::Padding => ie::Field::paddingOctets(Box::from([0])),
        };
        field.write(octets, Some(self.octets()))
    }
}

/// The specifier of an element in a template.
///
/// # Panics
/// When the registry does not allow this length for the element: an error of this program that tests would show.
pub(super) fn specifier(element: IE, octets: u16) -> FieldSpecifier {
    FieldSpecifier::new(element, octets).expect("every length is one that the registry allows")
}

/// A moment in milliseconds since 1970.
pub(super) fn time(milliseconds: u64) -> DateTime<Utc> {
    i64::try_from(milliseconds).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

const fn low_octet(value: u16) -> u8 {
    value.to_be_bytes()[1]
}

/// The elements of a record that has these fields.
pub(super) fn elements(present: Fields) -> Vec<Element> {
    let mut elements = Vec::new();
    for field in Field::ALL.iter().copied().filter(|field| present.has(*field)) {
        match field {
            Field::IcmpTypeIPv4 if present.has(Field::IcmpCodeIPv4) => {
                elements.push(Element::IcmpTypeCodeIPv4)
            }
            Field::IcmpTypeIPv6 if present.has(Field::IcmpCodeIPv6) => {
                elements.push(Element::IcmpTypeCodeIPv6)
            }
            Field::IcmpCodeIPv4 if present.has(Field::IcmpTypeIPv4) => {}
            Field::IcmpCodeIPv6 if present.has(Field::IcmpTypeIPv6) => {}
            _ => elements.push(Element::Of(field)),
        }
        if field == Field::IngressInterface {
            elements.push(Element::FlowDirection);
        }
    }
    let addresses = [
        Field::SourceIPv4Address,
        Field::DestinationIPv4Address,
        Field::SourceIPv6Address,
        Field::DestinationIPv6Address,
    ];
    // Addresses come first.
    let addresses = addresses.iter().filter(|field| present.has(**field)).count();
    if addresses > 0 {
        elements.insert(addresses, Element::IpVersion);
    }
    if elements.is_empty() {
        elements.push(Element::Padding);
    }
    elements
}
