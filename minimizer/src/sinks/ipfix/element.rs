//! The information elements of a record, with their lengths and values.

use chrono::{DateTime, Utc};
use netgauze_flow_pkt::FieldSpecifier;
use netgauze_flow_pkt::ie::{IE, InformationElementTemplate as _};
use thiserror::Error;

use crate::policy::field::{Field, Fields};
use crate::records::fields::{Number, Reader, octets, read_one};
use crate::records::record::Record;

/// Enterprise number of the elements in the IANA registry.
const IANA: u32 = 0;
/// Value of `flowDirection` for frames that came in.
const INGRESS: u8 = 0;

/// A record's values are longer than its template says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no room for it in its record")]
pub(super) struct TooShort;

/// An element of a data record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// A field of the record.
    Of(Field),
    /// `ipVersion`: collectors drop records that have neither an address nor it. In records without addresses whose version
    /// the recipient does not get, it is 4.
    IpVersion,
    /// `icmpTypeCodeIPv4`: collectors know it, but not type and code as two elements.
    IcmpTypeCodeIPv4,
    /// `icmpTypeCodeIPv6`.
    IcmpTypeCodeIPv6,
    /// `flowDirection`, beside the interface that received the frames.
    FlowDirection,
}

impl Element {
    /// Number in the IANA registry.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Of(field) => field.number(),
            Self::IpVersion => IE::ipVersion.id(),
            Self::IcmpTypeCodeIPv4 => IE::icmpTypeCodeIPv4.id(),
            Self::IcmpTypeCodeIPv6 => IE::icmpTypeCodeIPv6.id(),
            Self::FlowDirection => IE::flowDirection.id(),
        }
    }

    /// Length in octets.
    pub(super) const fn octets(self) -> usize {
        match self {
            Self::Of(field) => octets_of(field),
            Self::IcmpTypeCodeIPv4 | Self::IcmpTypeCodeIPv6 => 2,
            Self::IpVersion | Self::FlowDirection => 1,
        }
    }

    /// Its description in a template.
    ///
    /// # Panics
    /// If the library does not know the number or does not allow the length: a mistake in this program, which a test
    /// would find.
    pub(super) fn specifier(self) -> FieldSpecifier {
        let element = IE::try_from((IANA, self.number())).expect("every field is an element of the registry");
        specifier(element, u16::try_from(self.octets()).expect("an element has few octets"))
    }

    /// The field of the policy that it shows.
    pub(super) const fn field(self) -> Option<Field> {
        match self {
            Self::Of(field) => Some(field),
            Self::IcmpTypeCodeIPv4 => Some(Field::IcmpTypeIPv4),
            Self::IcmpTypeCodeIPv6 => Some(Field::IcmpTypeIPv6),
            Self::IpVersion | Self::FlowDirection => None,
        }
    }

    /// Whether it is an address.
    pub(super) const fn is_address(self) -> bool {
        matches!(
            self,
            Self::Of(
                Field::SourceIPv4Address
                    | Field::DestinationIPv4Address
                    | Field::SourceIPv6Address
                    | Field::DestinationIPv6Address
            )
        )
    }

    /// Writes its value in a record at the start of `octets`, and leaves the rest there.
    #[inline]
    pub(super) fn write(self, record: &Record, octets: &mut &mut [u8]) -> Result<(), TooShort> {
        let tuple = &record.tuple;
        match self {
            Self::Of(field) => read_one(field, &mut Writer { record, octets }),
            Self::IpVersion => put(octets, &[if tuple.tags().is_ipv6() { 6 } else { 4 }]),
            Self::IcmpTypeCodeIPv4 | Self::IcmpTypeCodeIPv6 => {
                put(octets, &(tuple.source_port() << 8 | tuple.destination_port()).to_be_bytes())
            }
            Self::FlowDirection => put(octets, &[INGRESS]),
        }
    }
}

/// Length of a field's value.
const fn octets_of(field: Field) -> usize {
    match field {
        // Reduced size (RFC 7011, 6.2): some collectors read nothing where control bits have two octets.
        Field::TcpControlBits => 1,
        _ => octets(field),
    }
}

/// Writes values in network byte order.
struct Writer<'record, 'octets, 'message> {
    record: &'record Record,
    octets: &'octets mut &'message mut [u8],
}

impl Reader for Writer<'_, '_, '_> {
    type Error = TooShort;

    #[inline(always)]
    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), TooShort> {
        let value: u64 = of(self.record).into();
        let octets = value.to_be_bytes();
        put(self.octets, &octets[octets.len() - octets_of(field)..])
    }

    #[inline(always)]
    fn ipv4(&mut self, _: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), TooShort> {
        put(self.octets, &of(self.record))
    }

    #[inline(always)]
    fn ipv6(&mut self, _: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), TooShort> {
        put(self.octets, &of(self.record))
    }
}

#[inline(always)]
fn put(octets: &mut &mut [u8], value: &[u8]) -> Result<(), TooShort> {
    octets.split_off_mut(..value.len()).ok_or(TooShort)?.copy_from_slice(value);
    Ok(())
}

/// The description of an element in a template.
///
/// # Panics
/// If the registry does not allow that length for the element: a mistake in this program, which a test would find.
pub(super) fn specifier(element: IE, octets: u16) -> FieldSpecifier {
    FieldSpecifier::new(element, octets).expect("every length is one that the registry allows")
}

/// A moment in milliseconds since 1970.
pub(super) fn time(milliseconds: u64) -> DateTime<Utc> {
    i64::try_from(milliseconds).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default()
}

/// The elements of a record that has these fields. Begin and end are both in it or none of them: collectors take a missing
/// end for the year 1970, and the flow for one of minus some years.
pub(super) fn elements(present: Fields) -> Vec<Element> {
    let mut elements = Vec::new();
    let has_times = present.has(Field::FlowStartMilliseconds) && present.has(Field::FlowEndMilliseconds);
    let is_sent = |field: &Field| {
        let is_time = matches!(field, Field::FlowStartMilliseconds | Field::FlowEndMilliseconds);
        present.has(*field) && (has_times || !is_time)
    };
    for field in Field::ALL.iter().copied().filter(is_sent) {
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
    // Addresses come first, and the version after them.
    let addresses = elements.iter().filter(|element| element.is_address()).count();
    elements.insert(addresses, Element::IpVersion);
    elements
}
