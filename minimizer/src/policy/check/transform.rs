//! One transform: which fields can have it, and the limits of its numbers.

use std::time::Duration;

use toml::{Table, Value};

use crate::policy::field::{Field, Kind};
use crate::policy::transform::{AddressTransform, CONTROL_BITS, LISTED_MAX, Listed, PrefixScheme, Transform};

/// The shortest unit of time that the program stores.
pub const UNIT_MIN: Duration = Duration::from_millis(10);
/// The first port that Linux gives to clients, unless somebody sets `ip_local_port_range`.
const CLIENT_PORTS: u16 = 32_768;
const UNIT_MAX: Duration = Duration::from_hours(1);

/// Reads the transform of a field, or tells which transforms the field can have.
pub fn check(field: Field, value: &Value) -> Result<Transform, String> {
    let transform = match field.kind() {
        Kind::Ipv4Address => address(value, 31)?,
        Kind::Ipv6Address => address(value, 127)?,
        Kind::Port => port(value)?,
        Kind::ControlBits => control_bits(value)?,
        Kind::Number => exact(value),
        Kind::Count => count(value),
        Kind::Time => time(value)?,
    };
    transform.ok_or_else(|| {
        let hint = match value {
            Value::String(name) if name == "omit" => "; to omit a field, do not list it",
            Value::String(name) if name == "exact" => {
                "; the program stores no time exactly, the finest is { coarsen = \"10ms\" }"
            }
            _ => "",
        };
        format!("{field} cannot be {value}: allowed are {}{hint}", allowed(field.kind()))
    })
}

/// The transforms of a kind, as a person writes them.
#[must_use]
pub fn allowed(kind: Kind) -> &'static str {
    match kind {
        Kind::Ipv4Address => {
            "\"exact\", \"pseudonym\", \"prefix-preserving\", \"crypto-pan\", { truncate = 1 to 31 } and \
             { foreign = …, domestic = … } of these or \"omit\""
        }
        Kind::Ipv6Address => {
            "\"exact\", \"pseudonym\", \"prefix-preserving\", \"crypto-pan\", { truncate = 1 to 127 } and \
             { foreign = …, domestic = … } of these or \"omit\""
        }
        Kind::Port => {
            "\"exact\", \"classes\", { services_below = 1 to 65535 } and { services_below = …, also = [8080, …] }"
        }
        Kind::ControlBits => "\"exact\" and { mask = [\"SYN\", …] }",
        Kind::Number => "\"exact\"",
        Kind::Count => "\"exact\" and \"log2\"",
        Kind::Time => "{ coarsen = \"10ms\" to \"1h\" }",
    }
}

/// The value of this key, if the table has no other key.
fn only<'value>(value: &'value Value, key: &str) -> Option<&'value Value> {
    let table = value.as_table()?;
    table.get(key).filter(|_| table.len() == 1)
}

fn exact(value: &Value) -> Option<Transform> {
    (value.as_str() == Some("exact")).then_some(Transform::Exact)
}

fn address(value: &Value, longest: u8) -> Result<Option<Transform>, String> {
    let classes = |table: &Table| table.contains_key("foreign") || table.contains_key("domestic");
    match value {
        Value::Table(table) if classes(table) => {
            let of = |class| match table.get(class) {
                Some(value) => address_of_class(value, longest),
                None => Err(format!(
                    "`{class}` is missing: write what becomes of both classes, or one transform for all"
                )),
            };
            if table.len() > 2 {
                return Ok(None);
            }
            match (of("foreign")?, of("domestic")?) {
                (Some(AddressTransform::Omitted), Some(AddressTransform::Omitted)) => {
                    Err("both classes are omitted: do not list the field".to_owned())
                }
                (Some(AddressTransform::Exact), Some(AddressTransform::Exact)) => Ok(Some(Transform::Exact)),
                (Some(foreign), Some(domestic)) => Ok(Some(Transform::Address { foreign, domestic })),
                _ => Ok(None),
            }
        }
        value => {
            let transform = address_of_class(value, longest)?;
            // An exact address has one form only, so that policies can be compared.
            Ok(transform.filter(|transform| *transform != AddressTransform::Omitted).map(|transform| {
                if transform == AddressTransform::Exact {
                    Transform::Exact
                } else {
                    Transform::address(transform)
                }
            }))
        }
    }
}

fn address_of_class(value: &Value, longest: u8) -> Result<Option<AddressTransform>, String> {
    Ok(Some(match value.as_str() {
        Some("omit") => AddressTransform::Omitted,
        Some("exact") => AddressTransform::Exact,
        Some("pseudonym") => AddressTransform::Pseudonym,
        Some("prefix-preserving") => AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt),
        Some("crypto-pan") => AddressTransform::PrefixPreserving(PrefixScheme::CryptoPan),
        Some(_) => return Ok(None),
        None => {
            let Some(bits) = only(value, "truncate") else { return Ok(None) };
            let bits = bits.as_integer().and_then(|bits| u8::try_from(bits).ok());
            let bits = bits.filter(|bits| (1..=longest).contains(bits));
            let bits = bits.ok_or_else(|| {
                format!("`truncate` is the number of first bits that are kept: allowed are 1 to {longest}")
            })?;
            AddressTransform::Truncated { bits }
        }
    }))
}

fn port(value: &Value) -> Result<Option<Transform>, String> {
    if value.as_str() == Some("classes") {
        return Ok(Some(Transform::PortClasses));
    }
    let also = value
        .as_table()
        .and_then(|table| table.get("also"))
        .filter(|_| value.as_table().is_some_and(|table| table.len() == 2));
    let below = match also {
        Some(_) => value.get("services_below"),
        None => only(value, "services_below"),
    };
    let Some(below) = below else { return Ok(exact(value)) };
    let below = below.as_integer().and_then(|below| u16::try_from(below).ok()).filter(|below| *below > 0);
    let below = below.ok_or("`services_below` is the first port that is not kept: allowed are 1 to 65535")?;
    let Some(also) = also else { return Ok(Some(Transform::ServicePorts { below })) };
    let port = |port: &Value| {
        let port = port.as_integer().and_then(|port| u16::try_from(port).ok());
        port.filter(|port| (below..CLIENT_PORTS).contains(port))
    };
    let listed: Option<Vec<_>> = also.as_array().and_then(|ports| ports.iter().map(port).collect());
    let listed = listed.filter(|ports| ports.len() <= LISTED_MAX).and_then(Listed::new).ok_or_else(|| {
        format!(
            "`also` is a list of services that are kept beside: allowed are 1 to {LISTED_MAX} ports, from `services_below` to {}, \
             because clients of Linux have those from {CLIENT_PORTS} on",
            CLIENT_PORTS - 1
        )
    })?;
    Ok(Some(Transform::ListedPorts { below, listed }))
}

fn control_bits(value: &Value) -> Result<Option<Transform>, String> {
    let Some(names) = only(value, "mask") else { return Ok(exact(value)) };
    let bit = |name: &Value| {
        let name = name.as_str()?;
        CONTROL_BITS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit)
    };
    let bits: Option<Vec<_>> = names.as_array().and_then(|names| names.iter().map(bit).collect());
    match bits {
        Some(bits) if !bits.is_empty() => {
            Ok(Some(Transform::ControlBits { mask: bits.into_iter().fold(0, |mask, bit| mask | bit) }))
        }
        _ => {
            let names = CONTROL_BITS.map(|(name, _)| name).join(", ");
            Err(format!("`mask` is a list of the bits that are kept: allowed are {names}"))
        }
    }
}

fn count(value: &Value) -> Option<Transform> {
    if value.as_str() == Some("log2") { Some(Transform::Log2) } else { exact(value) }
}

fn time(value: &Value) -> Result<Option<Transform>, String> {
    let Some(unit) = only(value, "coarsen") else { return Ok(None) };
    let unit = unit.as_str().and_then(|unit| humantime::parse_duration(unit).ok());
    let is_allowed = |unit: &Duration| {
        (UNIT_MIN..=UNIT_MAX).contains(unit) && unit.subsec_nanos().is_multiple_of(1_000_000)
    };
    let unit = unit.filter(is_allowed).ok_or(
        "`coarsen` is what times are rounded down to: allowed are whole milliseconds from \"10ms\" to \"1h\", like \"1s\"",
    )?;
    Ok(Some(Transform::Coarsened { unit }))
}
