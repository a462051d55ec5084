//! Whether a record of one recipient finds its twin among those of another, by what both are told of it.
//!
//! Two recipients who talk compare their records of a batch. What both are told of a packet is for each field the finer of what can
//! be made of either's value. The more values that can take, the fewer records share each of them. The verdict counts values, and
//! not packets: `minimizer policy risk` measures it on a capture.
//!
//! Two recipients who both tell parties apart have more than single records: over an epoch each party has a pattern of its own, of the
//! batches in which it has records. Thirty batches join all parties, whatever else both are told (`cargo xtask attack`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::field::{Field, Kind};
use super::join::common_unit;
use super::transform::{AddressTransform, Transform};
use super::words;
use crate::policy::class::Class;
use crate::policy::model::{Policy, Recipient};

/// What both are told singles records out if it can take more than 2 to the power of this many values: 1,024.
pub const BITS: f64 = 10.0;
/// The longest prefixes that are a network of many parties. The global table has no longer IPv4 prefix, and 48 bits of IPv6 are one site
/// (RFC 6177).
pub const NETWORK_IPV4_BITS: u8 = 24;
/// See [`NETWORK_IPV4_BITS`].
pub const NETWORK_IPV6_BITS: u8 = 48;
/// Longest time between drains, of which the times of a batch are.
const BATCH_MS: f64 = 60_000.0;

/// Whether a record finds its twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// By addresses, ports and whatever else tells flows apart.
    Joinable,
    /// By these together with counts, times and control bits, or by the batches in which a party has records.
    JoinableByCounts,
    /// Many records share what both are told, or none has a twin.
    NotJoinable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Joinable => "joinable",
            Self::JoinableByCounts => "joinable by counts",
            Self::NotJoinable => "not joinable",
        })
    }
}

/// Two recipients, and what joins their records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// Their names.
    pub recipients: [String; 2],
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
    /// What would make it [`Verdict::NotJoinable`]; empty where it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recipients: [one, other], verdict, why, remedy } = self;
        write!(formatter, "{one} and {other}: {verdict}: {why}")?;
        if remedy.is_empty() { Ok(()) } else { write!(formatter, "; {remedy}") }
    }
}

/// What both are told by some fields, in bits.
struct Told {
    fields: Vec<Field>,
    bits: f64,
    /// Whether it tells flows apart, and is no count, time or control bit.
    is_key: bool,
}

impl Policy {
    /// Each two recipients, in the order of the policy, and whether their records can be joined.
    #[must_use]
    pub fn pairs(&self) -> Vec<Pair> {
        let each = |number: usize| self.recipients[number + 1..].iter();
        let firsts = self.recipients.iter().enumerate();
        firsts.flat_map(|(number, one)| each(number).map(|other| self.pair(one, other))).collect()
    }

    /// Whether the records of these recipients can be joined.
    #[must_use]
    pub fn pair(&self, one: &Recipient, other: &Recipient) -> Pair {
        let recipients = [one.name.clone(), other.name.clone()];
        for (folded, single) in [(one, other), (other, one)] {
            if let Some(k) = folded.k_threshold.filter(|_| self.tells_sources_apart(single)) {
                let why = format!(
                    "each record of {} is of {k} sources or more, and each of {} of one",
                    folded.name, single.name
                );
                return Pair { recipients, verdict: Verdict::NotJoinable, why, remedy: String::new() };
            }
        }
        let mut told = self.told(one, other);
        told.sort_by(|one, other| {
            (other.is_key, other.bits)
                .partial_cmp(&(one.is_key, one.bits))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let bits = |keys_only: bool| -> f64 {
            told.iter().filter(|told| told.is_key || !keys_only).map(|told| told.bits).sum()
        };
        let (keys, all) = (bits(true), bits(false));
        let parties = self.parties_of_both(one, other);
        let verdict = match (keys >= BITS, all >= BITS) {
            (true, _) => Verdict::Joinable,
            (false, true) => Verdict::JoinableByCounts,
            (false, false) if !parties.is_empty() => {
                let why = "both tell the same parties apart, under whatever names, and over an epoch find them by the batches in \
                           which each has records"
                    .to_owned();
                let remedy = remedy(&mut told, all, &parties);
                return Pair { recipients, verdict: Verdict::JoinableByCounts, why, remedy };
            }
            (false, false) => Verdict::NotJoinable,
        };
        let named = |told: &Told| -> String {
            let fields: Vec<_> = told.fields.iter().map(|field| field.name().to_owned()).collect();
            format!("{} ({:.0} bits)", words::list(&fields), told.bits.ceil())
        };
        let said: Vec<_> = told
            .iter()
            .filter(|told| told.is_key || verdict != Verdict::Joinable)
            .filter(|told| told.bits > 0.0)
            .map(named)
            .collect();
        let why = match (verdict, said.is_empty()) {
            (_, true) => "both are told nothing in common".to_owned(),
            (Verdict::NotJoinable, _) => format!("both are told no more than {}", words::list(&said)),
            (_, _) => format!("both are told {}", words::list(&said)),
        };
        Pair { recipients, verdict, why, remedy: remedy(&mut told, all, &parties) }
    }

    /// Whether every record of the recipient has one source: it is told of each, under whatever name.
    fn tells_sources_apart(&self, recipient: &Recipient) -> bool {
        use AddressTransform::{Exact, PrefixPreserving, Pseudonym};
        let sources = self.directions().into_iter().map(|(source, _)| source).collect::<BTreeSet<_>>();
        recipient.k_threshold.is_none()
            && [Field::SourceIPv4Address, Field::SourceIPv6Address].iter().all(|field| {
                recipient.fields.get(field).is_some_and(|transform| {
                    let is_single = |class: &Class| {
                        matches!(transform.of_class(*class), Exact | Pseudonym | PrefixPreserving(_))
                    };
                    sources.iter().all(is_single)
                })
            })
    }

    /// The fields by which these recipients tell the same parties apart; none if they do not.
    fn parties_of_both(&self, one: &Recipient, other: &Recipient) -> BTreeSet<Field> {
        let directions = self.directions();
        let told = |recipient: &Recipient| {
            let mut told = BTreeMap::new();
            for (field, transform) in &recipient.fields {
                let (is_source, is_ipv6) = match field {
                    Field::SourceIPv4Address => (true, false),
                    Field::DestinationIPv4Address => (false, false),
                    Field::SourceIPv6Address => (true, true),
                    Field::DestinationIPv6Address => (false, true),
                    _ => continue,
                };
                for (source, destination) in &directions {
                    let class = if is_source { *source } else { *destination };
                    if is_party(transform.of_class(class), is_ipv6) {
                        told.entry((class, is_ipv6)).or_insert_with(BTreeSet::new).insert(*field);
                    }
                }
            }
            told
        };
        let (one, other) = (told(one), told(other));
        one.into_iter()
            .filter_map(|(parties, fields)| Some((fields, other.get(&parties)?.clone())))
            .flat_map(|(fields, others)| fields.into_iter().chain(others))
            .collect()
    }

    /// The classes that source and destination of a packet can have together.
    fn directions(&self) -> Vec<(Class, Class)> {
        self.scope
            .as_ref()
            .map_or_else(|| vec![(Class::Foreign, Class::Foreign)], |scope| scope.directions.clone())
    }

    /// What both are told: addresses together, then field by field.
    fn told(&self, one: &Recipient, other: &Recipient) -> Vec<Told> {
        let common = |field: Field, class: Class| -> f64 {
            let of = |recipient: &Recipient| {
                recipient.fields.get(&field).map(|transform| transform.of_class(class))
            };
            of(one).zip(of(other)).map_or(0.0, |(one, other)| common_address(field, one, other))
        };
        let versions = [
            [Field::SourceIPv4Address, Field::DestinationIPv4Address],
            [Field::SourceIPv6Address, Field::DestinationIPv6Address],
        ];
        let mut told = Vec::new();
        // A packet has one IP version and one direction: those of which most is told decide.
        let best = versions
            .into_iter()
            .flat_map(|sides| self.directions().into_iter().map(move |classes| (sides, classes)))
            .map(|([source, destination], (from, to))| {
                let bits = [common(source, from), common(destination, to)];
                (bits[0] + bits[1], vec![(source, bits[0]), (destination, bits[1])])
            })
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        if let Some((bits, _)) = best.filter(|(bits, _)| *bits > 0.0) {
            // A remedy for one version or direction alone would leave the others.
            let is_told = |field: &&Field| {
                [Class::Foreign, Class::Domestic].into_iter().any(|class| common(**field, class) > 0.0)
            };
            let fields = versions.as_flattened().iter().filter(is_told).copied().collect();
            told.push(Told { fields, bits, is_key: true });
        }
        let selectors =
            self.selectors.iter().flatten().map(|indicator| indicator.id).collect::<BTreeSet<_>>().len();
        for field in Field::ALL {
            let Some((one, other)) = one.fields.get(field).zip(other.fields.get(field)) else { continue };
            let bits = common_bits(*field, *one, *other, selectors);
            let is_key = !matches!(field.kind(), Kind::Count | Kind::Time | Kind::ControlBits);
            if bits > 0.0 {
                told.push(Told { fields: vec![*field], bits, is_key });
            }
        }
        told
    }

    /// The transforms of what both are told, as if a recipient got it.
    #[must_use]
    pub fn common(one: &Recipient, other: &Recipient) -> Recipient {
        let fields: BTreeMap<_, _> = one
            .fields
            .iter()
            .filter_map(|(field, transform)| {
                Some((*field, common(*field, *transform, *other.fields.get(field)?)?))
            })
            .collect();
        Recipient::assumed(format!("{}+{}", one.name, other.name), fields)
    }
}

/// Whether what remains of an address is of one party, or of few: whoever has it tells parties apart.
const fn is_party(transform: AddressTransform, is_ipv6: bool) -> bool {
    match transform {
        AddressTransform::Omitted => false,
        AddressTransform::Exact | AddressTransform::Pseudonym | AddressTransform::PrefixPreserving(_) => true,
        AddressTransform::Truncated { bits } => {
            bits > if is_ipv6 { NETWORK_IPV6_BITS } else { NETWORK_IPV4_BITS }
        }
    }
}

/// What to take from either recipient until the rest singles no record out, the most telling first, and no party.
fn remedy(told: &mut [Told], mut bits: f64, parties: &BTreeSet<Field>) -> String {
    told.sort_by(|one, other| other.bits.total_cmp(&one.bits));
    let mut without = Vec::new();
    for Told { fields, bits: of, .. } in told.iter() {
        if bits < BITS {
            break;
        }
        bits -= of;
        without.extend(fields.iter().copied());
    }
    without.extend(parties.iter().filter(|field| !without.contains(field)).copied().collect::<Vec<_>>());
    let names: Vec<_> = without.iter().map(|field| field.name().to_owned()).collect();
    match &names[..] {
        [] => String::new(),
        [field] => format!("not joinable if one of them got no {field}"),
        names => format!("not joinable if one of them got none of {}", words::list(names)),
    }
}

/// The bits of an address that both are told.
fn common_address(field: Field, one: AddressTransform, other: AddressTransform) -> f64 {
    use AddressTransform::{Exact, Omitted, PrefixPreserving, Pseudonym, Truncated};
    let whole = if field.kind() == Kind::Ipv4Address { 32.0 } else { 64.0 };
    let bits = |transform| match transform {
        // Pseudonyms are under each recipient's own key.
        Omitted | Pseudonym => 0.0,
        // Whoever knows some addresses finds the others by the prefixes that they share.
        Exact | PrefixPreserving(_) => whole,
        Truncated { bits } => f64::from(bits).min(whole),
    };
    bits(one).min(bits(other))
}

/// The bits of any other field that both are told.
fn common_bits(field: Field, one: Transform, other: Transform, selectors: usize) -> f64 {
    let bits = |transform: Transform| match (field, transform) {
        (_, Transform::PortClasses) => 2.0,
        (_, Transform::ServicePorts { below }) => f64::from(below).log2(),
        (_, Transform::ControlBits { mask }) => f64::from(mask.count_ones()),
        (_, Transform::Coarsened { unit }) => (BATCH_MS / unit.as_millis() as f64).log2().max(0.0),
        (Field::PacketDeltaCount, Transform::Log2) => 4.0,
        (Field::OctetDeltaCount, Transform::Log2) => 5.0,
        (Field::SourceTransportPort | Field::DestinationTransportPort | Field::OctetDeltaCount, _) => 16.0,
        (Field::PacketDeltaCount, _) => 10.0,
        (Field::VlanId | Field::Dot1qCustomerVlanId, _) => 12.0,
        (Field::SelectorId, _) => (selectors.max(1) as f64).log2(),
        (Field::IngressInterface, _) => 5.0,
        (Field::TcpControlBits, _) => 9.0,
        (Field::ProtocolIdentifier | Field::IpClassOfService, _) => 3.0,
        (Field::IcmpTypeIPv4 | Field::IcmpCodeIPv4 | Field::IcmpTypeIPv6 | Field::IcmpCodeIPv6, _) => 1.0,
        // Addresses are counted together.
        _ => 0.0,
    };
    match (one, other) {
        (Transform::ControlBits { mask }, Transform::ControlBits { mask: other }) => {
            bits(Transform::ControlBits { mask: mask & other })
        }
        _ => bits(one).min(bits(other)),
    }
}

/// What of a field both are told, as a transform; `None` if it is nothing.
fn common(field: Field, one: Transform, other: Transform) -> Option<Transform> {
    use Transform::{Coarsened, ControlBits, Exact, Log2, PortClasses, ServicePorts};
    if matches!(field.kind(), Kind::Ipv4Address | Kind::Ipv6Address) {
        let of = |class| common_of_addresses(one.of_class(class), other.of_class(class));
        let (foreign, domestic) = (of(Class::Foreign), of(Class::Domestic));
        let is_nothing = [foreign, domestic] == [AddressTransform::Omitted; 2];
        return (!is_nothing).then_some(Transform::Address { foreign, domestic });
    }
    Some(match (one, other) {
        (Exact, transform) | (transform, Exact) => transform,
        (ServicePorts { below }, ServicePorts { below: other }) => ServicePorts { below: below.min(other) },
        // Below that the classes tell which ports are services, and no transform says only that.
        (PortClasses, ServicePorts { below }) | (ServicePorts { below }, PortClasses) => {
            (below >= 49_152).then_some(PortClasses)?
        }
        (ControlBits { mask }, ControlBits { mask: other }) => ControlBits { mask: mask & other },
        (Coarsened { unit }, Coarsened { unit: other }) => Coarsened { unit: common_multiple(unit, other) },
        (Log2, Log2) | (PortClasses, PortClasses) => one,
        _ => return None,
    })
}

fn common_of_addresses(one: AddressTransform, other: AddressTransform) -> AddressTransform {
    use AddressTransform::{Exact, Omitted, Truncated};
    match (one, other) {
        (Exact, Exact) => Exact,
        (Exact, Truncated { bits }) | (Truncated { bits }, Exact) => Truncated { bits },
        (Truncated { bits }, Truncated { bits: other }) => Truncated { bits: bits.min(other) },
        _ => Omitted,
    }
}

/// The smallest unit that is a multiple of both.
fn common_multiple(one: Duration, other: Duration) -> Duration {
    let common = common_unit(one, other).as_millis().max(1);
    let multiple = one.as_millis() / common * other.as_millis();
    Duration::from_millis(u64::try_from(multiple).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
