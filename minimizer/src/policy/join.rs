//! What the program collects: for each field, the least from which the agent can derive every recipient's
//! transform.

use std::collections::BTreeMap;
use std::time::Duration;

use super::field::{Field, Kind};
use super::transform::{AddressTransform, FIN, PSH, RST, SYN, Transform};
use crate::policy::class::Class;
use crate::policy::model::{Policy, Recipient, Sources};
use crate::policy::ports::Ports;

/// What the program stores.
///
/// It has only what the kernel can do: [`Transform::Exact`], [`Transform::Address`] with omitted, exact,
/// truncated and pseudonymous addresses, all that [`Ports`] has, [`Transform::ControlBits`] and [`Transform::Coarsened`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The transform of each field that the program stores. It does not store any other field.
    pub fields: BTreeMap<Field, Transform>,
}

impl Collected {
    /// Whether the program stores the interface and the protocol of each packet.
    #[must_use]
    pub fn has_protocols(&self) -> bool {
        [Field::IngressInterface, Field::ProtocolIdentifier]
            .iter()
            .all(|field| self.fields.contains_key(field))
    }

    /// The least from which all these can be derived. Packets and octets are always in it, because they prove
    /// the ledger.
    #[must_use]
    pub fn of(needs: impl IntoIterator<Item = (Field, Transform)>) -> Self {
        let mut fields: BTreeMap<_, _> =
            [Field::PacketDeltaCount, Field::OctetDeltaCount].map(|field| (field, Transform::Exact)).into();
        for (field, transform) in needs {
            let transform = in_kernel(transform);
            fields
                .entry(field)
                .and_modify(|joined| *joined = join(field.kind(), *joined, transform))
                .or_insert(transform);
        }
        let units = fields.values().filter_map(|transform| match transform {
            Transform::Coarsened { unit } => Some(*unit),
            _ => None,
        });
        // The program has one clock, so that both times have one unit.
        if let Some(unit) = units.reduce(common_unit) {
            let times =
                fields.values_mut().filter(|transform| matches!(transform, Transform::Coarsened { .. }));
            times.for_each(|transform| *transform = Transform::Coarsened { unit });
        }
        Self { fields }
    }
}

impl Policy {
    /// What the program stores under this policy.
    #[must_use]
    pub fn collected(&self) -> Collected {
        let fields = self.recipients.iter().flat_map(|recipient| &recipient.fields);
        let counted = self.recipients.iter().filter(|recipient| recipient.k_threshold.is_some());
        let sources = counted.flat_map(counted_sources);
        let matched = self.recipients.iter().filter(|recipient| recipient.mitigations.established_only);
        let flows = matched.flat_map(|_| matched_flows());
        let fields = fields.map(|(field, transform)| (*field, *transform));
        let mut collected = Collected::of(fields.chain(sources).chain(flows));
        for (field, transform) in &mut collected.fields {
            let of_recipients = || self.recipients.iter().filter_map(|recipient| recipient.fields.get(field));
            let all_pseudonyms = Transform::address(AddressTransform::Pseudonym);
            let counts_domestic = is_source(*field)
                && self.recipients.iter().any(|recipient| recipient.counted == Sources::Domestic);
            if *transform == all_pseudonyms
                && (counts_domestic || of_recipients().any(|transform| transform.is_by_class()))
            {
                // A recipient's transform or threshold depends on the class, which pseudonyms of both do not reveal. Pseudonyms of one
                // do, and the agent makes the others at the drain.
                *transform = of_classes(AddressTransform::Exact, AddressTransform::Pseudonym);
            }
        }
        if self.recipients.iter().any(|recipient| recipient.mitigations.established_only) {
            collected.mirror();
        }
        collected
    }
}

impl Collected {
    /// Stores sources and destinations alike, so that an address looks the same in both directions of a flow.
    fn mirror(&mut self) {
        for [source, destination] in [
            [Field::SourceIPv4Address, Field::DestinationIPv4Address],
            [Field::SourceIPv6Address, Field::DestinationIPv6Address],
        ] {
            if let (Some(one), Some(other)) = (self.fields.get(&source), self.fields.get(&destination)) {
                let both = join(source.kind(), *one, *other);
                self.fields.extend([(source, both), (destination, both)]);
            }
        }
    }
}

/// First bits of an IPv6 address that its network gives: a host forges the others at will, so that a threshold counts these.
pub const COUNTED_IPV6_BITS: u8 = 64;

/// What the agent counts the sources of this recipient's records by.
fn counted_sources(recipient: &Recipient) -> [(Field, Transform); 2] {
    let by = |transform| match recipient.counted {
        Sources::All => Transform::address(transform),
        Sources::Domestic => of_classes(AddressTransform::Omitted, transform),
    };
    [
        (Field::SourceIPv4Address, by(AddressTransform::Pseudonym)),
        (Field::SourceIPv6Address, by(AddressTransform::Truncated { bits: COUNTED_IPV6_BITS })),
    ]
}

/// Control bits of which a direction of a flow has some that is more than resets: FIN, SYN and PSH, beside RST.
const MATCHED_CONTROL_BITS: u16 = FIN | SYN | RST | PSH;

/// What the agent matches the directions of a flow by, in its own interval.
fn matched_flows() -> impl Iterator<Item = (Field, Transform)> {
    let of = |field: &Field| match field.kind() {
        Kind::Ipv4Address | Kind::Ipv6Address => Some(Transform::address(AddressTransform::Pseudonym)),
        Kind::Port => Some(Transform::Exact),
        Kind::ControlBits => Some(Transform::ControlBits { mask: MATCHED_CONTROL_BITS }),
        Kind::Number | Kind::Count | Kind::Time => {
            (*field == Field::ProtocolIdentifier).then_some(Transform::Exact)
        }
    };
    Field::ALL.iter().filter_map(move |field| Some((*field, of(field)?)))
}

const fn is_source(field: Field) -> bool {
    matches!(field, Field::SourceIPv4Address | Field::SourceIPv6Address)
}

/// Whether the agent can derive a recipient's transform from what the program stores.
#[must_use]
pub fn is_derivable(stored: Option<Transform>, wanted: Option<Transform>) -> bool {
    let (Some(stored), Some(wanted)) = (stored, wanted) else { return wanted.is_none() };
    match (stored, wanted) {
        (Transform::Address { .. } | Transform::Exact, Transform::Address { .. })
        | (Transform::Address { .. }, Transform::Exact) => [Class::Foreign, Class::Domestic]
            .into_iter()
            .all(|class| is_address_derivable(stored.of_class(class), wanted.of_class(class))),
        (Transform::Exact, _) => true,
        (Transform::ControlBits { mask }, Transform::ControlBits { mask: wanted }) => mask & wanted == wanted,
        (Transform::Coarsened { unit }, Transform::Coarsened { unit: wanted }) => {
            common_unit(unit, wanted) == unit
        }
        _ => match (Ports::of(stored), Ports::of(wanted)) {
            (Some(stored), Some(wanted)) => stored.tell(wanted),
            _ => stored == wanted,
        },
    }
}

/// Whether one form of an address can be derived from the other.
#[must_use]
pub fn is_address_derivable(stored: AddressTransform, wanted: AddressTransform) -> bool {
    match (stored, wanted) {
        (AddressTransform::Exact, _) | (_, AddressTransform::Omitted) => true,
        (AddressTransform::Truncated { bits }, AddressTransform::Truncated { bits: wanted }) => {
            wanted <= bits
        }
        _ => stored == wanted,
    }
}

/// The largest unit of which both are multiples, in whole milliseconds.
#[must_use]
pub fn common_unit(one: Duration, other: Duration) -> Duration {
    let (mut one, mut other) = (one.as_millis(), other.as_millis());
    while other != 0 {
        (one, other) = (other, one % other);
    }
    // The result is no larger than the smaller duration, so that it fits.
    Duration::from_millis(u64::try_from(one).unwrap_or(u64::MAX))
}

/// The part of a transform that the kernel does. The agent does the rest.
fn in_kernel(transform: Transform) -> Transform {
    match transform {
        Transform::Address { foreign, domestic } => {
            of_classes(address_in_kernel(foreign), address_in_kernel(domestic))
        }
        Transform::Log2 => Transform::Exact,
        _ => Ports::of(transform).map_or(transform, Ports::transform),
    }
}

const fn address_in_kernel(transform: AddressTransform) -> AddressTransform {
    match transform {
        AddressTransform::PrefixPreserving(_) => AddressTransform::Exact,
        _ => transform,
    }
}

/// An exact address has one form only.
const fn of_classes(foreign: AddressTransform, domestic: AddressTransform) -> Transform {
    match (foreign, domestic) {
        (AddressTransform::Exact, AddressTransform::Exact) => Transform::Exact,
        _ => Transform::Address { foreign, domestic },
    }
}

fn join(kind: Kind, one: Transform, other: Transform) -> Transform {
    if matches!(kind, Kind::Ipv4Address | Kind::Ipv6Address) {
        let of = |class| join_addresses(one.of_class(class), other.of_class(class));
        return of_classes(of(Class::Foreign), of(Class::Domestic));
    }
    match (one, other) {
        _ if one == other => one,
        (Transform::ControlBits { mask }, Transform::ControlBits { mask: other }) => {
            Transform::ControlBits { mask: mask | other }
        }
        (Transform::Coarsened { unit }, Transform::Coarsened { unit: other }) => {
            Transform::Coarsened { unit: common_unit(unit, other) }
        }
        _ => match (Ports::of(one), Ports::of(other)) {
            (Some(one), Some(other)) => one.union(other).transform(),
            _ => Transform::Exact,
        },
    }
}

fn join_addresses(one: AddressTransform, other: AddressTransform) -> AddressTransform {
    match (one, other) {
        (AddressTransform::Omitted, transform) | (transform, AddressTransform::Omitted) => transform,
        (AddressTransform::Truncated { bits }, AddressTransform::Truncated { bits: other }) => {
            AddressTransform::Truncated { bits: bits.max(other) }
        }
        _ if one == other => one,
        _ => AddressTransform::Exact,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::{Collected, is_derivable};
    use crate::policy::field::{Field, Kind};
    use crate::policy::model::Policy;
    use crate::policy::transform::{AddressTransform, Listed, PrefixScheme, Transform};

    /// Transforms of a kind. The tests try all their pairs and triples.
    fn transforms(kind: Kind) -> Vec<Transform> {
        match kind {
            Kind::Ipv4Address | Kind::Ipv6Address => {
                let addresses = [
                    AddressTransform::Omitted,
                    AddressTransform::Exact,
                    AddressTransform::Truncated { bits: 8 },
                    AddressTransform::Truncated { bits: 24 },
                    AddressTransform::Pseudonym,
                    AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt),
                ];
                addresses
                    .iter()
                    .flat_map(|foreign| {
                        addresses.map(|domestic| Transform::Address { foreign: *foreign, domestic })
                    })
                    .chain([Transform::Exact])
                    .collect()
            }
            Kind::Port => vec![
                Transform::Exact,
                Transform::PortClasses,
                Transform::ServicePorts { below: 1 },
                Transform::ServicePorts { below: 1024 },
                Transform::ListedPorts { below: 1024, listed: Listed::new(vec![8080, 3306]).expect("two") },
                Transform::ServicePorts { below: 5000 },
                Transform::ListedPorts {
                    below: 22,
                    listed: Listed::new(vec![22, 443, 8080]).expect("three"),
                },
                Transform::ServicePorts { below: 49152 },
            ],
            Kind::ControlBits => vec![
                Transform::Exact,
                Transform::ControlBits { mask: 0x02 },
                Transform::ControlBits { mask: 0x05 },
            ],
            Kind::Number => vec![Transform::Exact],
            Kind::Count => vec![Transform::Exact, Transform::Log2],
            Kind::Time => [10, 1000, 1500, 60_000]
                .map(|unit| Transform::Coarsened { unit: Duration::from_millis(unit) })
                .to_vec(),
        }
    }

    const FIELDS: [Field; 7] = [
        Field::SourceIPv4Address,
        Field::DestinationIPv6Address,
        Field::SourceTransportPort,
        Field::TcpControlBits,
        Field::ProtocolIdentifier,
        Field::PacketDeltaCount,
        Field::FlowEndMilliseconds,
    ];

    #[test]
    fn the_join_is_idempotent_commutative_and_associative() {
        for field in FIELDS {
            let of = |transforms: &[Transform]| {
                Collected::of(transforms.iter().map(|transform| (field, *transform)))
            };
            for one in transforms(field.kind()) {
                assert_eq!(of(&[one]), of(&[one, one]));
                for other in transforms(field.kind()) {
                    let joined = of(&[one, other]);
                    assert_eq!(joined, of(&[other, one]));
                    for third in transforms(field.kind()) {
                        assert_eq!(
                            of(&[joined.fields[&field], third]),
                            of(&[one, of(&[other, third]).fields[&field]])
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_recipient_is_derivable_and_nothing_more_is_stored() {
        for field in FIELDS {
            for one in transforms(field.kind()) {
                for other in transforms(field.kind()) {
                    let joined = Collected::of([(field, one), (field, other)]).fields[&field];
                    for wanted in [one, other] {
                        assert!(
                            is_derivable(Some(joined), Some(wanted)),
                            "{field}: {wanted:?} from {joined:?}"
                        );
                        // If one suffices to derive the other, it alone decides.
                        if is_derivable(Some(one), Some(other)) {
                            assert_eq!(joined, Collected::of([(field, one)]).fields[&field]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn both_times_have_one_unit() {
        let coarsened = |milliseconds| Transform::Coarsened { unit: Duration::from_millis(milliseconds) };
        let collected = Collected::of([
            (Field::FlowStartMilliseconds, coarsened(1000)),
            (Field::FlowEndMilliseconds, coarsened(1500)),
        ]);
        assert_eq!(collected.fields[&Field::FlowStartMilliseconds], coarsened(500));
        assert_eq!(collected.fields[&Field::FlowEndMilliseconds], coarsened(500));
    }

    #[test]
    fn classes_are_told_by_pseudonyms_of_domestic_addresses_alone() {
        let scope = "[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\"]\n";
        let recipient = |name: &str, of: &str| {
            format!(
                "[[recipients]]\nname = \"{name}\"\npurpose = \"x\"\nfields = {{ destinationIPv4Address = {of} }}\n"
            )
        };
        let [all, one] = [
            recipient("a", "\"pseudonym\""),
            recipient("b", "{ foreign = \"omit\", domestic = \"pseudonym\" }"),
        ];
        let text = format!("name = \"p\"\n{scope}{all}{one}");
        let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
        let stored = policy.collected().fields[&Field::DestinationIPv4Address];
        let (foreign, domestic) = (AddressTransform::Exact, AddressTransform::Pseudonym);
        assert_eq!(stored, Transform::Address { foreign, domestic });
        for recipient in &policy.recipients {
            let wanted = recipient.fields.get(&Field::DestinationIPv4Address).copied();
            assert!(is_derivable(Some(stored), wanted), "{wanted:?}");
        }
    }

    #[test]
    fn counts_are_always_collected() {
        let collected = Collected::of([(Field::PacketDeltaCount, Transform::Log2)]);
        assert_eq!(collected.fields.len(), 2);
        assert_eq!(collected.fields[&Field::PacketDeltaCount], Transform::Exact);
        assert_eq!(collected.fields[&Field::OctetDeltaCount], Transform::Exact);
    }
}
