//! Describes the transforms of a policy in the terms of RFC 6235.

use netgauze_flow_pkt::ie::anonymizationTechnique as Technique;

use super::element::Element;
use crate::policy::field::Field;
use crate::policy::model::Recipient;
use crate::policy::transform::{AddressTransform, Transform};

/// Stability class 3: equal values are always mapped to equal values (RFC 6235, 5.1).
const STABLE: u16 = 3;
/// Stability class 0, undefined: keys change with their epochs, and no class stands for that.
const UNDEFINED: u16 = 0;

/// The values of `anonymizationFlags` and `anonymizationTechnique` for an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anonymization {
    pub(super) flags: u16,
    pub(super) technique: Technique,
}

const NONE: Anonymization = Anonymization { flags: UNDEFINED, technique: Technique::None };
const LESS_PRECISE: Anonymization =
    Anonymization { flags: STABLE, technique: Technique::PrecisionDegradationTruncation };
const BINNED: Anonymization = Anonymization { flags: STABLE, technique: Technique::Binning };

/// Equal counts are rounded to either of two powers of two.
const BLURRED: Anonymization = Anonymization { flags: UNDEFINED, technique: Technique::Binning };

/// How the values of an element are changed for the recipient, in records of these elements.
pub(super) fn of(
    element: Element,
    elements: &[Element],
    recipient: &Recipient,
    has_ranks: bool,
) -> Anonymization {
    // Without an address, records of both versions are one.
    if element == Element::IpVersion && !elements.iter().any(|element| element.is_address()) {
        return BINNED;
    }
    let transform = |field: Field| recipient.fields.get(&field).copied().unwrap_or(Transform::Exact);
    element.field().map_or(NONE, |field| {
        let is_permuted =
            has_ranks && matches!(field, Field::SourceIPv4Address | Field::DestinationIPv4Address);
        let transform = transform(field);
        if transform == Transform::Log2 && recipient.mitigations.k_noise > 0 {
            return BLURRED;
        }
        of_transform(transform, is_permuted)
    })
}

/// `is_permuted` says that pseudonyms of domestic addresses are a permutation of these.
fn of_transform(transform: Transform, is_permuted: bool) -> Anonymization {
    match transform {
        Transform::Exact => NONE,
        Transform::Address { foreign, domestic } => {
            match (of_address(foreign, false), of_address(domestic, is_permuted)) {
                (one, other) if one == other => one,
                // Addresses of one class are exact: the description tells what happens to the others.
                (changed, NONE) | (NONE, changed) => changed,
                // Options describe one technique for a field, but here it depends on the address.
                _ => Anonymization { flags: UNDEFINED, technique: Technique::Undefined },
            }
        }
        Transform::PortClasses
        | Transform::ServicePorts { .. }
        | Transform::ListedPorts { .. }
        | Transform::StoredPorts { .. }
        | Transform::Log2 => BINNED,
        // RFC 6235, 4.3: the most precise components of a timestamp are removed.
        Transform::ControlBits { .. } | Transform::Coarsened { .. } => LESS_PRECISE,
    }
}

const fn of_address(transform: AddressTransform, is_permuted: bool) -> Anonymization {
    match transform {
        AddressTransform::Exact => NONE,
        // An omitted address is truncated to no bit at all.
        AddressTransform::Omitted | AddressTransform::Truncated { .. } => LESS_PRECISE,
        AddressTransform::Pseudonym if is_permuted => {
            Anonymization { flags: UNDEFINED, technique: Technique::Permutation }
        }
        // A keyed hash, or one of several permutations: RFC 6235 has no name for these.
        AddressTransform::Pseudonym => Anonymization { flags: UNDEFINED, technique: Technique::Undefined },
        AddressTransform::PrefixPreserving(_) => {
            Anonymization { flags: UNDEFINED, technique: Technique::StructuredPermutation }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BINNED, BLURRED, Element, of};
    use crate::policy::field::Field;
    use crate::policy::model::Recipient;
    use crate::policy::transform::Transform;

    #[test]
    fn counts_that_are_rounded_at_random_are_not_called_stable() {
        let field = Field::PacketDeltaCount;
        let element = Element::Of(field);
        let mut recipient = Recipient::assumed("r".to_owned(), [(field, Transform::Log2)].into());
        assert_eq!(of(element, &[element], &recipient, false), BINNED);
        recipient.mitigations.k_noise = 1;
        assert_eq!(of(element, &[element], &recipient, false), BLURRED);
    }
}
