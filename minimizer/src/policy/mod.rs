//! A policy: who receives what, why, and until when. This is what a privacy officer signs off.

pub mod builtin;
mod check;
pub mod classes;
pub mod compile;
pub mod diff;
pub mod explain;
pub mod field;
pub mod file;
pub mod indicators;
pub mod join;
pub mod mandate;
pub mod prefixes;
pub mod signature;
pub mod tables;
pub mod transform;
pub mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use minimizer_common::tunnel::Tunnels;
use thiserror::Error;

use crate::support::toml::Findings;
use builtin::BUILT_IN;
use field::Field;
use transform::Transform;

/// Why there is no policy to act on.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Neither a file nor built in.
    #[error("there is no policy `{0}`: it is neither a file nor built in; built in are {names}", names = BUILT_IN.map(|policy| policy.name).join(" and "))]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It does not fit the model, or says what it could not keep.
    #[error("the policy is refused: {0}")]
    Refused(Findings),
}

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

/// On what authority records are collected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// Its number in somebody's files.
    pub id: String,
    /// The one purpose.
    pub purpose: String,
    /// The law, and the section of it.
    pub legal_basis: String,
    /// Before this moment nothing is attached.
    pub valid_from: Timestamp,
    /// From this moment on nothing is attached.
    pub valid_until: Timestamp,
}

/// The class of an address, by the prefixes that a policy lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Every address that no other prefix covers.
    Foreign = 0,
    /// An address at home.
    Domestic = 1,
    /// An address that is never collected, whatever else covers it.
    Never = 2,
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Foreign => "foreign",
            Self::Domestic => "domestic",
            Self::Never => "never",
        })
    }
}

/// A prefix: its address, with zeroes behind its length. IPv4 addresses are the first four octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Whether it is one of IPv6.
    pub ipv6: bool,
    /// The address in network byte order; for IPv4 in the first four octets.
    pub octets: [u8; 16],
    /// Bits: 0 to 32, or 0 to 128.
    pub bits: u8,
}

/// Which packets may be collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Prefixes and their classes; the longest that covers an address decides, but [`Class::Never`] always wins.
    pub prefixes: Vec<(Prefix, Class)>,
    /// Directions (class of the source, of the destination) that may be collected.
    pub directions: Vec<(Class, Class)>,
}

/// What to look for: an endpoint of a packet, which is an address with the port beside it.
///
/// A packet is selected when its source or its destination matches all that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indicator {
    /// Its number, which is the record's `selectorId`; above 0.
    pub id: u64,
    /// From this moment on it matches nothing.
    pub expires: Option<Timestamp>,
    /// The endpoint's address lies in this prefix.
    pub prefix: Option<Prefix>,
    /// The packet's protocol.
    pub protocol: Option<u8>,
    /// The endpoint's port lies in one of these ranges (first, last); any port when empty.
    pub ports: Vec<(u16, u16)>,
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
