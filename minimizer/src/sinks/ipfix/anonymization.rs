//! What RFC 6235 calls what the policy makes of a field.

use netgauze_flow_pkt::ie::anonymizationTechnique as Technique;

use super::element::Element;
use crate::policy::field::Field;
use crate::policy::model::Recipient;
use crate::policy::transform::{AddressTransform, Transform};

/// Stability class 3: equal values give equal values, at all times (RFC 6235, 5.1).
const STABLE: u16 = 3;
/// Stability class 0: nothing is said. Keys change with their epochs, which end with no session.
const UNDEFINED: u16 = 0;

/// What an options record says of an element: `anonymizationFlags` and `anonymizationTechnique`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anonymization {
    pub(super) flags: u16,
    pub(super) technique: Technique,
}

const NONE: Anonymization = Anonymization { flags: UNDEFINED, technique: Technique::None };
const LESS_PRECISE: Anonymization =
    Anonymization { flags: STABLE, technique: Technique::PrecisionDegradationTruncation };
const BINNED: Anonymization = Anonymization { flags: STABLE, technique: Technique::Binning };

/// How the values of an element were changed for the recipient.
pub(super) fn of(element: Element, recipient: &Recipient) -> Anonymization {
    let transform = |field: Field| recipient.fields.get(&field).copied().unwrap_or(Transform::Exact);
    element.field().map_or(NONE, |field| of_transform(transform(field)))
}

fn of_transform(transform: Transform) -> Anonymization {
    match transform {
        Transform::Exact => NONE,
        Transform::Address { foreign, domestic } => match (of_address(foreign), of_address(domestic)) {
            (one, other) if one == other => one,
            // Those of one class are as they were: what is done to the others is what is to be known.
            (changed, NONE) | (NONE, changed) => changed,
            // A record has one technique for each field, and here it depends on the address.
            _ => Anonymization { flags: UNDEFINED, technique: Technique::Undefined },
        },
        Transform::PortClasses | Transform::ServicePorts { .. } | Transform::Log2 => BINNED,
        // RFC 6235, 4.3: the most precise components of a timestamp are removed.
        Transform::ControlBits { .. } | Transform::Coarsened { .. } => LESS_PRECISE,
    }
}

const fn of_address(transform: AddressTransform) -> Anonymization {
    match transform {
        AddressTransform::Exact => NONE,
        // An address of which no bit is left.
        AddressTransform::Omitted | AddressTransform::Truncated { .. } => LESS_PRECISE,
        AddressTransform::Pseudonym => Anonymization { flags: UNDEFINED, technique: Technique::Permutation },
        AddressTransform::PrefixPreserving(_) => {
            Anonymization { flags: UNDEFINED, technique: Technique::StructuredPermutation }
        }
    }
}
