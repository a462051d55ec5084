//! A policy: who receives what, why, and until when. This is what a privacy officer signs off.

use std::collections::BTreeMap;
use std::time::Duration;

use minimizer_common::tunnel::Tunnels;

use crate::policy::class::Class;
use crate::policy::field::Field;
use crate::policy::indicators::Indicator;
use crate::policy::mandate::Mandate;
use crate::policy::prefixes::Prefix;
use crate::policy::transform::Transform;

/// A policy that was checked: it says nothing that it cannot keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence; may be empty.
    pub description: String,
    /// On what authority, and for how long; a laboratory needs none.
    pub mandate: Option<Mandate>,
    /// Which packets may be collected; all when absent.
    pub scope: Option<Scope>,
    /// Indicators of which one must match; every packet is collected when absent.
    pub selectors: Option<Vec<Indicator>>,
    /// Tunnels whose inner packets are collected in place of the outer ones.
    pub tunnels: Tunnels,
    /// How long a key of pseudonyms is used.
    pub pseudonym_epoch: Duration,
    /// Who receives what: at least one, with different names.
    pub recipients: Vec<Recipient>,
    /// SHA-256 of the policy's text, in hexadecimal.
    pub digest: String,
    /// SHA-256 of each file that it names, by the name it gives.
    pub inputs: BTreeMap<String, String>,
}

impl Policy {
    /// Whether any recipient is given pseudonyms, or sources are counted by them.
    #[must_use]
    pub fn has_pseudonyms(&self) -> bool {
        self.recipients.iter().any(|recipient| {
            recipient.k_threshold.is_some() || recipient.fields.values().any(Transform::is_pseudonym)
        })
    }
}

/// Which packets may be collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Prefixes and their classes; the longest that covers an address decides, but [`Class::Never`] always wins.
    pub prefixes: Vec<(Prefix, Class)>,
    /// Directions (class of the source, of the destination) that may be collected.
    pub directions: Vec<(Class, Class)>,
}

/// Who receives records, and what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Its name, by which sinks are bound to it.
    pub name: String,
    /// What it may use the records for.
    pub purpose: String,
    /// How long it may keep them.
    pub retention: Option<Duration>,
    /// Records that fewer distinct source addresses than this made are folded into one without a key.
    pub k_threshold: Option<u32>,
    /// What becomes of each field that it receives.
    pub fields: BTreeMap<Field, Transform>,
}
