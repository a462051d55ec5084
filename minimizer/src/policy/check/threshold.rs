//! Thresholds: the agent can count the sources, and no record tells what the threshold hides.

use std::collections::BTreeMap;

use super::recipient::Context;
use crate::policy::class::Class;
use crate::policy::field::Field;
use crate::policy::file::Counted;
use crate::policy::joins::{NETWORK_IPV4_BITS, NETWORK_IPV6_BITS};
use crate::policy::transform::{AddressTransform, Transform};
use crate::policy::words;
use crate::support::toml::{At, Document};

/// Notes a threshold below 2, source addresses in the records, and what would single out one of the parties.
pub fn check(
    document: &mut Document<'_>,
    threshold: &At<u32>,
    fields: &BTreeMap<Field, Transform>,
    context: Context,
) {
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
    let Some((_, longest)) = context.interval else {
        document.limit(
            threshold,
            "the agent counts sources in one interval between two drains, and a longer one has more: fix it at the top of the \
             policy, like interval = \"10s\"",
        );
        return;
    };
    for field in [Field::DestinationIPv4Address, Field::DestinationIPv6Address] {
        let Some(transform) = fields.get(&field) else { continue };
        let bits = if field == Field::DestinationIPv4Address { NETWORK_IPV4_BITS } else { NETWORK_IPV6_BITS };
        if !is_network(*transform, bits) {
            document.limit(
                threshold,
                format!(
                    "whoever sends from enough addresses to one destination learns by the record whether others did: truncate \
                     {field} to {bits} bits or fewer, or remove it or the threshold"
                ),
            );
        }
    }
    for field in [Field::PacketDeltaCount, Field::OctetDeltaCount] {
        if fields.get(&field) == Some(&Transform::Exact) {
            document.limit(
                threshold,
                format!(
                    "whoever made most of a record subtracts its own from an exact {field} and has those of the others: write \
                     \"log2\", which rounds, or remove it or the threshold"
                ),
            );
        }
    }
    for field in [Field::FlowStartMilliseconds, Field::FlowEndMilliseconds] {
        if let Some(Transform::Coarsened { unit }) = fields.get(&field)
            && *unit < longest
        {
            document.limit(
                threshold,
                format!(
                    "{field} would tell sources of one interval apart, although the threshold counts them together: coarsen it \
                     to {} or more",
                    words::duration(longest)
                ),
            );
        }
    }
}

/// Notes that there is nothing to count, or that no address is domestic.
pub fn check_counts(document: &mut Document<'_>, at: &At<Counted>, has_threshold: bool, context: Context) {
    if !has_threshold {
        document.refuse(at, "there is no threshold that could count: add `k_threshold`, or remove this");
    } else if matches!(at.get(), Counted::Domestic) && !context.has_scope {
        document.refuse(at, "no address is domestic without a [scope]: add one, or remove this");
    }
}

/// Whether at most this many bits of an address remain, of both classes.
fn is_network(transform: Transform, longest: u8) -> bool {
    [Class::Foreign, Class::Domestic].into_iter().all(|class| match transform.of_class(class) {
        AddressTransform::Omitted => true,
        AddressTransform::Truncated { bits } => bits <= longest,
        _ => false,
    })
}

fn is_truncated(transform: Transform) -> bool {
    [Class::Foreign, Class::Domestic]
        .into_iter()
        .any(|class| matches!(transform.of_class(class), AddressTransform::Truncated { .. }))
}
