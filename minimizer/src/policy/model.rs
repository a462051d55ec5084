//! A policy: who receives which records, why, and until when. A privacy officer approves this.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use minimizer_common::tunnel::Tunnels;

use crate::policy::class::Class;
use crate::policy::field::Field;
use crate::policy::indicators::Indicator;
use crate::policy::mandate::Mandate;
use crate::policy::prefixes::Prefix;
use crate::policy::transform::Transform;
use crate::policy::translation::Translation;

/// Pseudonyms of IPv4 addresses have this prefix.
pub const PSEUDONYMS_IPV4: Prefix = prefix_of(false, [240, 0, 0, 0, 0, 0, 0, 0], 4);
/// Pseudonyms of IPv6 addresses have this prefix.
pub const PSEUDONYMS_IPV6: Prefix = prefix_of(true, *b"\xfdminimiz", 64);

const fn prefix_of(ipv6: bool, first: [u8; 8], bits: u8) -> Prefix {
    let [a, b, c, d, e, f, g, h] = first;
    Prefix { ipv6, octets: [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0], bits }
}

/// A policy that the check has accepted: the agent can keep all that it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// What it is for, in one sentence; may be empty.
    pub description: String,
    /// The authority and its period. A laboratory needs none.
    pub mandate: Option<Mandate>,
    /// Which packets it collects; all if absent.
    pub scope: Option<Scope>,
    /// Indicators. It collects only packets that match one of them; all packets if absent.
    pub selectors: Option<Vec<Indicator>>,
    /// Tunnels whose inner packets are counted in place of the outer ones.
    pub tunnels: Tunnels,
    /// Prefixes of the network's own gateways: under the scope they are no party of a communication.
    pub tunnel_endpoints: Vec<Prefix>,
    /// The network's own translations, in order: under the scope, addresses in them are judged by the IPv4 address that they carry.
    pub translations: Vec<Translation>,
    /// How long a key of pseudonyms and preserved prefixes lasts.
    pub pseudonym_epoch: Duration,
    /// Who receives which records: at least one recipient, and no two of one name.
    pub recipients: Vec<Recipient>,
    /// Pairs of recipients, by name, whose records nobody can join.
    pub unlinkable: Vec<[String; 2]>,
    /// SHA-256 of the policy's text, in hexadecimal.
    pub digest: String,
    /// SHA-256 of each file that it names, by the name in the policy.
    pub inputs: BTreeMap<String, String>,
    /// What it commits itself to.
    pub commitments: Commitments,
}

/// What a policy commits itself to, beside its mandate, its scope and its recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commitments {
    /// Number of this version of the policy, above 0.
    pub serial: Option<u64>,
    /// A lower number that the agent may go back to while this policy is in force.
    pub allow_serial: Option<u64>,
    /// Sentences without which the policy would be refused.
    pub acknowledged: Vec<String>,
    /// The shortest and the longest time between drains.
    pub interval: Option<(Duration, Duration)>,
    /// The longest period of the mandate, if the policy sets one of its own.
    pub max_period: Option<Duration>,
    /// The longest retention of a recipient.
    pub max_retention: Option<Duration>,
    /// Why an indicator is one domestic party.
    pub domestic_target: Option<String>,
    /// Files that the policy names without their digest.
    pub unpinned: BTreeSet<String>,
}

impl Policy {
    /// Whether keys end with an epoch: a recipient gets pseudonyms or preserved prefixes, or the agent counts sources or matches
    /// flows by pseudonyms.
    #[must_use]
    pub fn has_epochs(&self) -> bool {
        self.recipients.iter().any(|recipient| {
            recipient.k_threshold.is_some()
                || recipient.mitigations.established_only
                || recipient.has_keyed_addresses()
        })
    }

    /// The prefixes of addresses that look like pseudonyms which the policy makes: a packet with such an address ends as
    /// `reserved_address`. All of 240.0.0.0/4 is among them but 255.255.255.255.
    #[must_use]
    pub fn reserved(&self) -> Vec<Prefix> {
        let mut reserved = Vec::new();
        if self.has_pseudonyms_of(false) {
            // 240.0.0.0/5, 248.0.0.0/6 and so on to 255.255.255.254/32 leave out the last address.
            reserved.extend((5..=32).map(|bits: u8| {
                let first = u32::MAX.checked_shl(33 - u32::from(bits)).unwrap_or(0);
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&first.to_be_bytes());
                Prefix { ipv6: false, octets, bits }
            }));
        }
        if self.has_pseudonyms_of(true) {
            reserved.push(PSEUDONYMS_IPV6);
        }
        reserved
    }

    /// Whether addresses of an IP version become pseudonyms, in the kernel or in the view of a recipient.
    #[must_use]
    pub fn has_pseudonyms_of(&self, ipv6: bool) -> bool {
        let fields = if ipv6 {
            [Field::SourceIPv6Address, Field::DestinationIPv6Address]
        } else {
            [Field::SourceIPv4Address, Field::DestinationIPv4Address]
        };
        let stored = self.collected().fields;
        let all = self.recipients.iter().map(|recipient| &recipient.fields).chain([&stored]);
        all.flat_map(|of| fields.iter().filter_map(|field| of.get(field))).any(Transform::is_pseudonym)
    }
}

/// Which packets the policy collects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Prefixes and their classes, as the policy lists them. The longest prefix that covers an address decides, except that
    /// [`Class::Never`] always wins. [`crate::policy::embedded`] says what they mean for special ranges and for IPv4 addresses
    /// inside of IPv6 addresses. None is [`Class::Embedded`].
    pub prefixes: Vec<(Prefix, Class)>,
    /// Directions that the policy collects: class of the source, class of the destination.
    pub directions: Vec<(Class, Class)>,
}

impl Scope {
    /// Whether it collects some direction and not the opposite one, so that answers are missing.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.directions.iter().any(|(from, to)| !self.directions.contains(&(*to, *from)))
    }
}

/// Who receives records, and what the records contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Its name, which binds sinks to it.
    pub name: String,
    /// What the recipient may use the records for.
    pub purpose: String,
    /// How long the recipient may keep them.
    pub retention: Option<Duration>,
    /// The agent folds records that come from fewer distinct source addresses than this into one record
    /// without a key.
    pub k_threshold: Option<u32>,
    /// The sources that the threshold counts.
    pub counted: Sources,
    /// What else is held back from it, and how.
    pub mitigations: Mitigations,
    /// Where its records may go over the network; anywhere if absent.
    pub destinations: Option<Vec<Destination>>,
    /// The transform of each field that the recipient gets.
    pub fields: BTreeMap<Field, Transform>,
}

impl Recipient {
    /// One that is in no policy and gets these fields.
    #[must_use]
    pub const fn assumed(name: String, fields: BTreeMap<Field, Transform>) -> Self {
        Self {
            name,
            purpose: String::new(),
            retention: None,
            k_threshold: None,
            counted: Sources::All,
            mitigations: Mitigations::NONE,
            destinations: None,
            fields,
        }
    }

    /// Whether it gets pseudonyms or preserved prefixes: addresses that packets of somebody's choice can tell apart.
    #[must_use]
    pub fn has_keyed_addresses(&self) -> bool {
        self.fields.values().any(Transform::is_keyed)
    }

    /// The unit to which the times that the recipient gets are rounded down; `None` if it gets none.
    #[must_use]
    pub fn time_unit(&self) -> Option<Duration> {
        let unit = |transform: &Transform| match transform {
            Transform::Coarsened { unit } => Some(*unit),
            _ => None,
        };
        self.fields.values().filter_map(unit).max()
    }

    /// The one of begin and end that the recipient gets and the one that it lacks, if it gets only one of them: a sink `ipfix`
    /// then sends none, because collectors take the missing one for the year 1970.
    #[must_use]
    pub fn half_of_times(&self) -> Option<(Field, Field)> {
        let times = [Field::FlowStartMilliseconds, Field::FlowEndMilliseconds];
        match times.map(|field| self.fields.contains_key(&field)) {
            [true, false] => Some((times[0], times[1])),
            [false, true] => Some((times[1], times[0])),
            [true, true] | [false, false] => None,
        }
    }
}

/// What makes it harder to learn from records by sending packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mitigations {
    /// The agent folds records of fewer packets than this into the record without a key; 0 and 1 hold nothing back.
    pub min_packets: u32,
    /// The agent folds flows into the record without a key of which it did not see both directions in one interval.
    pub established_only: bool,
    /// By how many sources at most the threshold of each record is higher, drawn anew in each interval.
    pub k_noise: u32,
}

impl Mitigations {
    /// Nothing is held back.
    pub const NONE: Self = Self { min_packets: 0, established_only: false, k_noise: 0 };
}

/// The sources that a threshold counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sources {
    /// All.
    #[default]
    All,
    /// Those with a domestic address: packets that others forge do not count.
    Domestic,
}

/// A server to which records may go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// Its name or address, as agent.toml writes it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// SHA-256 of the certificate that it must show, in lowercase hexadecimal.
    pub certificate: Option<String>,
    /// The country that it is in: two letters of ISO 3166.
    pub country: String,
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, certificate, country } = self;
        write!(formatter, "{host} port {port} in {country}")?;
        certificate.iter().try_for_each(|pin| write!(formatter, " with the certificate {pin}"))
    }
}
