//! Recipients: each needs a purpose, and fields that make sense together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::acknowledged::Acknowledged;
use super::{check_name, check_said, mitigations, threshold, transform};
use crate::policy::class::Class;
use crate::policy::field::{Field, Kind};
use crate::policy::file::{Counted, DestinationFile, FieldsFile, RecipientFile};
use crate::policy::join::common_unit;
use crate::policy::model::{Destination, Recipient, Sources};
use crate::policy::transform::{AddressTransform, LISTED_STORED_MAX, Transform};
use crate::policy::words;
use crate::support::toml::{At, Document};
use crate::support::units;

/// What the other sections of the policy make possible.
#[derive(Clone, Copy)]
pub struct Context {
    /// The policy has a scope, so that addresses have classes.
    pub has_scope: bool,
    /// The policy has selectors, so that records have indicators.
    pub has_selectors: bool,
    /// The policy collects some direction and not the opposite one.
    pub is_one_way: bool,
    /// The shortest and the longest time between drains.
    pub interval: Option<(Duration, Duration)>,
    /// The longest retention.
    pub max_retention: Option<Duration>,
}

/// Fields that make no sense without another field.
const MEANINGLESS_ALONE: [(Field, Field, &str); 8] = [
    (Field::SourceTransportPort, Field::ProtocolIdentifier, "a port of which protocol"),
    (Field::DestinationTransportPort, Field::ProtocolIdentifier, "a port of which protocol"),
    (Field::TcpControlBits, Field::ProtocolIdentifier, "no bit set and no TCP at all"),
    (Field::IcmpTypeIPv4, Field::ProtocolIdentifier, "type 0 and no ICMP at all"),
    (Field::IcmpCodeIPv4, Field::ProtocolIdentifier, "code 0 and no ICMP at all"),
    (Field::IcmpTypeIPv6, Field::ProtocolIdentifier, "type 0 and no ICMPv6 at all"),
    (Field::IcmpCodeIPv6, Field::ProtocolIdentifier, "code 0 and no ICMPv6 at all"),
    (Field::Dot1qCustomerVlanId, Field::VlanId, "the customer's tag below which service tag"),
];

/// Reads the recipients and notes what is wrong with them.
pub fn check(
    document: &mut Document<'_>,
    files: &[At<RecipientFile>],
    context: Context,
    acknowledged: &mut Acknowledged<'_>,
) -> Vec<Recipient> {
    if files.is_empty() {
        document.refuse_at(0, "nobody receives anything: add [[recipients]] with name, purpose and fields");
    }
    let mut recipients: Vec<Recipient> = Vec::with_capacity(files.len());
    let mut unit: Option<Duration> = None;
    for at in files {
        let name = &at.get().name;
        check_name(document, name, "recipient");
        if recipients.iter().any(|other| other.name == *name.get()) {
            document
                .refuse(name, format!("`{}` is the name of a recipient above: give it another", name.get()));
        }
        let recipient = check_one(document, at, context);
        for transform in recipient.fields.values() {
            let Transform::Coarsened { unit: other } = *transform else { continue };
            let common = common_unit(unit.unwrap_or(other), other);
            if common < transform::UNIT_MIN {
                document.refuse(
                    at,
                    "the times of the recipients have no common unit of 10 ms or more, in which the program could \
                     store them: choose units that are multiples of each other, like \"1s\" and \"10s\"",
                );
                break;
            }
            unit = Some(common);
        }
        for other in recipients.iter().filter(|other| are_complementary(other, &recipient)) {
            let (one, other) = (&other.name, &recipient.name);
            acknowledged.demand(
                document,
                at.span().start,
                &format!("{one} and {other} together get more than each of them"),
                &format!(
                    "`{one}` and `{other}` each get addresses, ports, tags or indicators that the other does not, so that \
                     together they get more than the policy gives to anyone: give one of them nothing that the other lacks"
                ),
            );
        }
        recipients.push(recipient);
        for field in [Field::SourceTransportPort, Field::DestinationTransportPort] {
            let listed: BTreeSet<_> = recipients
                .iter()
                .filter_map(|recipient| recipient.fields.get(&field))
                .flat_map(listed)
                .collect();
            if listed.len() > LISTED_STORED_MAX {
                document.refuse(
                    at,
                    format!(
                        "with this recipient, {} ports are listed for {field}; the program stores {LISTED_STORED_MAX}: list fewer, \
                         or raise `services_below`",
                        listed.len()
                    ),
                );
            }
        }
    }
    recipients
}

/// The ports that a transform lists.
fn listed(transform: &Transform) -> Vec<u16> {
    match transform {
        Transform::ListedPorts { listed, .. } => listed.ports(),
        _ => Vec::new(),
    }
}

fn check_one(document: &mut Document<'_>, at: &At<RecipientFile>, context: Context) -> Recipient {
    let file = at.get();
    let name = file.name.get().clone();
    let purpose = match &file.purpose {
        Some(purpose) => check_said(document, purpose, "purpose"),
        None => {
            document.refuse(
                at,
                format!("`{name}` has no purpose, and nobody receives anything without one: add `purpose`"),
            );
            String::new()
        }
    };
    let retention = file.retention.as_ref().and_then(|text| {
        let message = match units::time(text.get()) {
            Ok(retention) if !retention.is_zero() => return Some(retention),
            Ok(_) => {
                format!("`{}` is no time to keep records: allowed are like \"30 days\"", text.get())
            }
            Err(error) => format!("{error}; as a time to keep records, allowed are like \"30 days\""),
        };
        document.refuse(text, message);
        None
    });
    if let Some(longest) = context.max_retention
        && retention.is_none_or(|retention| retention > longest)
    {
        let message = format!(
            "`{name}` may keep records for longer than `max_retention` of the mandate, {}: write this or less as `retention`",
            words::duration(longest)
        );
        match &file.retention {
            Some(place) => document.limit(place, message),
            None => document.limit(at, message),
        }
    }
    let fields = check_fields(document, at, context);
    let counted = match file.k_counts.as_ref().map(At::get) {
        None | Some(Counted::All) => Sources::All,
        Some(Counted::Domestic) => Sources::Domestic,
    };
    if let Some(at) = &file.k_counts {
        threshold::check_counts(document, at, file.k_threshold.is_some(), context);
    }
    let k_threshold = file.k_threshold.as_ref().map(|threshold| {
        threshold::check(document, threshold, &fields, context);
        *threshold.get()
    });
    let mitigations = mitigations::check(document, file, &fields, context);
    let destinations = file.destinations.as_ref().map(|listed| check_destinations(document, listed));
    Recipient { name, purpose, retention, k_threshold, counted, mitigations, destinations, fields }
}

fn check_destinations(document: &mut Document<'_>, listed: &[At<DestinationFile>]) -> Vec<Destination> {
    let mut destinations = Vec::with_capacity(listed.len());
    for at in listed {
        let DestinationFile { host, port, certificate_sha256, country } = at.get();
        if host.is_empty()
            || host.chars().any(|character| character.is_whitespace() || character.is_control())
        {
            document.refuse(at, format!("`{host}` is no name or address of a server"));
        }
        if *port == 0 {
            document.refuse(at, "no server has the port 0: write 1 to 65535");
        }
        if country.len() != 2 || !country.bytes().all(|letter| letter.is_ascii_uppercase()) {
            document.refuse(
                at,
                format!("`{country}` is no country: write two capital letters of ISO 3166, like \"JP\""),
            );
        }
        let is_digest = |pin: &String| pin.len() == 64 && pin.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Some(pin) = certificate_sha256.as_ref().filter(|pin| !is_digest(pin)) {
            document.refuse(at, format!("`{pin}` is no SHA-256: write 64 hexadecimal digits"));
        }
        let destination = Destination {
            host: host.clone(),
            port: *port,
            certificate: certificate_sha256.as_ref().map(|pin| pin.to_ascii_lowercase()),
            country: country.clone(),
        };
        destinations.push(destination);
    }
    destinations
}

/// Whether each of two recipients gets something finer than the other about the parties: an address, a port, a tag or an
/// indicator.
fn are_complementary(one: &Recipient, other: &Recipient) -> bool {
    let (one, other) = (parties(one), parties(other));
    let is_finer = |(one, other): (&u32, &u32)| one > other;
    one.iter().zip(&other).any(is_finer) && other.iter().zip(&one).any(is_finer)
}

/// How fine each part of the parties is that a recipient gets; 0 is nothing.
fn parties(recipient: &Recipient) -> Vec<u32> {
    let fields = Field::ALL.iter().filter(|field| match field.kind() {
        Kind::Ipv4Address | Kind::Ipv6Address | Kind::Port => true,
        _ => matches!(field, Field::VlanId | Field::Dot1qCustomerVlanId | Field::SelectorId),
    });
    fields
        .flat_map(|field| {
            let transform = recipient.fields.get(field).copied();
            [Class::Foreign, Class::Domestic].map(|class| match (field.kind(), transform) {
                (_, None) => 0,
                (Kind::Ipv4Address | Kind::Ipv6Address, Some(transform)) => match transform.of_class(class) {
                    AddressTransform::Omitted => 0,
                    AddressTransform::Truncated { bits } => u32::from(bits),
                    AddressTransform::Pseudonym => 200,
                    AddressTransform::PrefixPreserving(_) => 201,
                    AddressTransform::Exact => 202,
                },
                (_, Some(Transform::PortClasses)) => 1,
                (_, Some(Transform::ServicePorts { below })) => 1 + u32::from(below),
                (_, Some(Transform::ListedPorts { listed, .. })) => 1 + u32::from(listed.last()),
                (_, Some(_)) => u32::MAX,
            })
        })
        .collect()
}

fn check_fields(
    document: &mut Document<'_>,
    at: &At<RecipientFile>,
    context: Context,
) -> BTreeMap<Field, Transform> {
    let file: &FieldsFile = &at.get().fields;
    let mut fields = BTreeMap::new();
    let mut places = BTreeMap::new();
    if file.is_empty() {
        document.refuse(
            at,
            format!("`{}` receives no field: list some under [recipients.fields]", at.get().name.get()),
        );
    }
    for (name, value) in file {
        let offset = name.span().start;
        let Some(field) = Field::named(name.get_ref()) else {
            let names: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
            document.refuse_at(
                offset,
                format!("`{}` is no field: allowed are {}", name.get_ref(), names.join(", ")),
            );
            continue;
        };
        places.insert(field, offset);
        match transform::check(field, value.get()) {
            Ok(transform) => {
                if transform.is_by_class() && !context.has_scope {
                    document.refuse(
                        value,
                        "addresses have no class without a [scope]: add one, or write one transform for all",
                    );
                }
                fields.insert(field, transform);
            }
            Err(message) => document.refuse(value, message),
        }
    }
    for (field, needed, why) in MEANINGLESS_ALONE {
        if let Some(place) = places.get(&field).filter(|_| !places.contains_key(&needed)) {
            document.refuse_at(
                *place,
                format!("{field} without {needed} cannot be read ({why}?): add {needed}, or remove it"),
            );
        }
    }
    if let Some(place) = places.get(&Field::SelectorId).filter(|_| !context.has_selectors) {
        document.refuse_at(
            *place,
            "no indicator could be in a record without [selectors]: add them, or remove it",
        );
    }
    let (start, end) = (Field::FlowStartMilliseconds, Field::FlowEndMilliseconds);
    if let (Some(one), Some(other)) = (fields.get(&start), fields.get(&end))
        && one != other
    {
        document.refuse_at(
            places[&end],
            format!("{end} is coarsened in another way than {start}, so that flows would seem to end before they start \
                     or to last longer: write the same unit for both"),
        );
    }
    fields
}
