//! What a policy means, for people who approve it and for inspectors: sentences first, then a table.

mod addresses;
mod sentences;
mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::field::Field;
use super::joins::Pair;
use super::transform::Transform;
use super::words;
use crate::policy::class::Class;
use crate::policy::model::Policy;
use crate::policy::ranks::Ranks;

/// The table's name for what the program stores.
const KERNEL: &str = "kept in the kernel";
/// The table's word for a pseudonym.
const PSEUDONYM: &str = "pseudonym";
/// Who can turn back what takes a key: those who hold it, and of what leaves the host also those who send packets.
const BY_PROBING: &str = "holder of the key, probing";
/// What remains of a count whose rounding is blurred.
const BLURRED: &str = "down or up to a power of two, at random";

/// What a policy means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Name of the policy.
    pub name: String,
    /// SHA-256 of its text.
    pub digest: String,
    /// SHA-256 of each file that it names.
    pub inputs: BTreeMap<String, String>,
    /// Sentences, grouped by the question that they answer.
    pub sentences: Vec<Section>,
    /// What remains of each collected field.
    pub fields: Vec<FieldExplained>,
    /// Each two recipients, and whether their records can be joined.
    pub pairs: Vec<Pair>,
    /// Fields that no table and no record has.
    pub not_collected: Vec<Field>,
    /// What the words of the table mean.
    pub notes: Vec<String>,
}

/// Sentences that answer one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The question, in a word or two.
    pub title: &'static str,
    /// The answers.
    pub sentences: Vec<String>,
}

/// What remains of one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldExplained {
    /// The field.
    pub field: Field,
    /// The bytes that it comes from.
    pub source: &'static str,
    /// What remains, and where: the kernel first, then each recipient.
    pub remains: Vec<Remains>,
}

/// What remains of a field in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// The kernel, or the recipients that get the same.
    #[serde(rename = "where")]
    pub places: Vec<String>,
    /// The class of the addresses; all addresses if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What remains.
    pub what: String,
    /// The technique by its name in RFC 6235.
    pub technique: &'static str,
    /// Who can find the original value.
    pub reversible_by: &'static str,
}

impl Policy {
    /// Explains the policy, as of now.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        self.explain_at(Timestamp::now())
    }

    /// Explains the policy, as of that moment: indicators may have expired by then.
    #[must_use]
    pub fn explain_at(&self, now: Timestamp) -> Explanation {
        let collected = self.collected().fields;
        let fields = collected.iter().map(|(field, stored)| self.explain_field(*field, *stored)).collect();
        Explanation {
            name: self.name.clone(),
            digest: self.digest.clone(),
            inputs: self.inputs.clone(),
            sentences: sentences::sentences(self, &collected, now),
            fields,
            pairs: self.pairs(),
            not_collected: Field::ALL
                .iter()
                .copied()
                .filter(|field| !collected.contains_key(field))
                .collect(),
            notes: sentences::notes(self, &collected),
        }
    }

    fn explain_field(&self, field: Field, stored: Transform) -> FieldExplained {
        let is_ipv4 = matches!(field, Field::SourceIPv4Address | Field::DestinationIPv4Address);
        let is_ranked = is_ipv4 && self.scope.as_ref().and_then(Ranks::new).is_some();
        let kernel = (KERNEL.to_owned(), Some(stored), false);
        let views = self.recipients.iter().map(|recipient| {
            (recipient.name.clone(), recipient.fields.get(&field).copied(), recipient.mitigations.k_noise > 0)
        });
        let mut remains: Vec<Remains> = Vec::new();
        for (place, transform, is_blurred) in [kernel].into_iter().chain(views) {
            for mut one in explain_transform(&place, transform) {
                let is_domestic = one.class.as_deref() == Some(&*Class::Domestic.to_string());
                if one.what == PSEUDONYM && is_ipv4 {
                    // RFC 6235 has no name for one that the first bits of an address choose among several.
                    one.technique =
                        if is_domestic && is_ranked { "permutation" } else { "keyed permutations" };
                }
                if place != KERNEL && one.what == PSEUDONYM {
                    // Recipients that share this line have different pseudonyms.
                    one.what += " under its own key";
                }
                if place != KERNEL && one.reversible_by == words::HOLDER {
                    one.reversible_by = BY_PROBING;
                }
                if is_blurred && transform == Some(Transform::Log2) {
                    BLURRED.clone_into(&mut one.what);
                }
                // Recipients that get the same share a line. The kernel has its own line.
                let same = remains.iter_mut().skip_while(|other| other.places[0] == KERNEL).find(|other| {
                    (&other.what, &other.class, other.technique) == (&one.what, &one.class, one.technique)
                });
                match same {
                    Some(same) => same.places.extend(one.places),
                    None => remains.push(one),
                }
            }
        }
        FieldExplained { field, source: field.source(), remains }
    }
}

/// One line, or one line for each class of addresses.
fn explain_transform(place: &str, transform: Option<Transform>) -> Vec<Remains> {
    let remains = |class: Option<Class>, transform: Transform| Remains {
        places: vec![place.to_owned()],
        class: class.map(|class| class.to_string()),
        what: words::remains(transform),
        technique: words::technique(transform),
        reversible_by: words::reversible_by(transform),
    };
    match transform {
        None => vec![Remains {
            places: vec![place.to_owned()],
            class: None,
            what: "nothing".to_owned(),
            technique: "black marker",
            reversible_by: "nobody",
        }],
        Some(transform) if transform.is_by_class() => [Class::Foreign, Class::Domestic]
            .map(|class| remains(Some(class), Transform::address(transform.of_class(class))))
            .to_vec(),
        Some(transform) => vec![remains(None, transform)],
    }
}

#[cfg(test)]
mod tests;
