//! Recipients: each needs a purpose, and fields that make sense together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{check_name, check_said, transform};
use crate::policy::field::Field;
use crate::policy::file::{FieldsFile, RecipientFile};
use crate::policy::join::common_unit;
use crate::policy::model::Recipient;
use crate::policy::transform::Transform;
use crate::support::toml::{At, Document};
use crate::support::units;

/// What the other sections of the policy make possible.
#[derive(Clone, Copy)]
pub struct Context {
    /// The policy has a scope, so that addresses have classes.
    pub has_scope: bool,
    /// The policy has selectors, so that records have indicators.
    pub has_selectors: bool,
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
pub fn check(document: &mut Document<'_>, files: &[At<RecipientFile>], context: Context) -> Vec<Recipient> {
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
        recipients.push(recipient);
    }
    recipients
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
    let fields = check_fields(document, at, context);
    let k_threshold = file.k_threshold.as_ref().map(|threshold| {
        check_threshold(document, threshold, &fields);
        *threshold.get()
    });
    Recipient { name, purpose, retention, k_threshold, fields }
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

/// Notes a threshold below 2, and source addresses in the records: the agent could not count distinct sources.
fn check_threshold(document: &mut Document<'_>, threshold: &At<u32>, fields: &BTreeMap<Field, Transform>) {
    if *threshold.get() < 2 {
        document.refuse(
            threshold,
            "a record that one source made already meets this threshold, so that it protects nobody: write 2 or more, \
             or remove it",
        );
    }
    for field in [Field::SourceIPv4Address, Field::SourceIPv6Address] {
        let Some(transform) = fields.get(&field) else { continue };
        let why = if is_truncated(*transform) {
            "the sources of a record are then of one prefix, and how many there were behind it is not what the \
             recipient would be told"
        } else {
            "each record then has one source, and none would ever reach the threshold"
        };
        document.refuse(
            threshold,
            format!("a threshold cannot be kept while the recipient receives {field}: {why}; remove {field} or the threshold"),
        );
    }
}

fn is_truncated(transform: Transform) -> bool {
    use crate::policy::class::Class::{Domestic, Foreign};
    use crate::policy::transform::AddressTransform::Truncated;
    [Foreign, Domestic].into_iter().any(|class| matches!(transform.of_class(class), Truncated { .. }))
}
