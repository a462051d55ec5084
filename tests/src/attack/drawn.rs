//! A policy of the adversaries, drawn at random: a text with its file of prefixes, which the check accepted.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use minimizer::policy::class::Class;
use minimizer::policy::field::{Field, Kind};
use minimizer::policy::joins::Verdict;
use minimizer::policy::model::{Mitigations, Policy, Recipient, Sources};
use minimizer::policy::transform::{AddressTransform, CONTROL_BITS, PrefixScheme, Transform};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

use super::traffic::{DOMESTIC, GATEWAYS, NEVER};
use crate::policies;

/// Time between drains.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// The coarsest unit of times.
const HOUR: Duration = Duration::from_secs(3600);
/// How long a key of pseudonyms lasts.
pub const EPOCH: Duration = Duration::from_secs(3600);
/// Name of the policy, and of its file of domestic prefixes.
pub const POLICY: &str = "policy.toml";
/// Name of its file of domestic prefixes.
pub const PREFIXES: &str = "home.prefixes";
/// Texts that are drawn until one is accepted.
const ATTEMPTS: u32 = 100;

/// What some policies are drawn to have, because it is rare where all is random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Nothing.
    Any,
    /// Two recipients who tell parties apart and are told little else of them.
    Pair,
    /// Thresholds with and without noise, with the services that they count.
    Threshold,
    /// Preserved prefixes, beside addresses as they are.
    Names,
    /// Pseudonyms with one mitigation each.
    Mitigated,
}

impl Sort {
    /// The sort of each ten policies.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        match seed % 10 {
            0 | 5 => Self::Pair,
            1 => Self::Threshold,
            2 => Self::Names,
            3 => Self::Mitigated,
            _ => Self::Any,
        }
    }
}

/// A policy and its text.
pub struct Drawn {
    /// As the check read it.
    pub policy: Policy,
    /// Its text.
    pub text: String,
}

impl Drawn {
    /// Draws texts of a sort into a folder until the check accepts one.
    ///
    /// # Errors
    /// When it accepts none, or the folder takes no file.
    pub fn draw(random: &mut ChaCha8Rng, sort: Sort, folder: &Path) -> Result<Self> {
        fs::write(folder.join(PREFIXES), DOMESTIC.join("\n"))?;
        let mut said = String::new();
        for _ in 0..ATTEMPTS {
            let mut text = text(random, sort);
            match accepted(&mut text, folder) {
                Ok(policy) => {
                    let policy = unlinkable(random, &mut text, policy, folder)?;
                    return Ok(Self { policy, text });
                }
                Err(error) => said = error.to_string(),
            }
        }
        bail!("the check refuses every policy that is drawn: {said}")
    }
}

/// The path of the policy in a folder, as the command line takes it.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join(POLICY)
}

/// Writes the text and reads it as the agent does. What the check wants to be said in so many words is said.
fn accepted(text: &mut String, folder: &Path) -> Result<Policy> {
    let path = path(folder);
    loop {
        fs::write(&path, &*text)?;
        let error = match Policy::load(path.to_str().context("is UTF-8")?, &[]) {
            Ok(policy) => return Ok(policy),
            Err(error) => error.to_string(),
        };
        let mut words: Vec<_> = error
            .split("acknowledged = [\"")
            .skip(1)
            .filter_map(|rest| rest.split("\"]").next())
            .map(|words| format!("\"{words}\""))
            .collect();
        words.sort();
        words.dedup();
        if words.is_empty() || text.contains("acknowledged") {
            bail!("{error}\n{text}");
        }
        *text = format!("acknowledged = [{}]\n{text}", words.join(", "));
    }
}

/// Makes some of the pairs that cannot be joined a promise of the policy.
fn unlinkable(random: &mut ChaCha8Rng, text: &mut String, policy: Policy, folder: &Path) -> Result<Policy> {
    let pairs = policy.pairs();
    let apart = pairs.iter().filter(|pair| pair.verdict == Verdict::NotJoinable);
    let promised: Vec<_> = apart
        .filter(|_| random.random_bool(0.5))
        .map(|pair| format!("[\"{}\", \"{}\"]", pair.recipients[0], pair.recipients[1]))
        .collect();
    if promised.is_empty() {
        return Ok(policy);
    }
    *text = format!("unlinkable = [{}]\n{text}", promised.join(", "));
    accepted(text, folder)
}

fn text(random: &mut ChaCha8Rng, sort: Sort) -> String {
    let by_class = random.random_bool(0.75);
    let has_tunnels = by_class && random.random();
    let mut text = format!(
        "name = \"drawn\"\nserial = 2\ninterval = \"{} s\"\npseudonyms = {{ epoch = \"{} s\" }}\n",
        INTERVAL.as_secs(),
        EPOCH.as_secs()
    );
    if has_tunnels {
        text += "tunnels = [\"ip-in-ip\", \"6in4\"]\n";
    }
    let mut is_one_way = false;
    if by_class {
        let all = ["foreign-domestic", "domestic-foreign"];
        let directions: Vec<_> = if sort == Sort::Mitigated || random.random_bool(0.8) {
            all.to_vec()
        } else {
            all.choose(random).copied().into_iter().collect()
        };
        is_one_way = directions.len() == 1;
        text += &format!("[scope]\ndomestic_files = [\"{PREFIXES}\"]\ndirections = {directions:?}\n");
        let listed = |addresses: &[Ipv4Addr]| {
            let quoted = addresses.iter().map(|address| format!("\"{address}\""));
            quoted.collect::<Vec<_>>().join(", ")
        };
        text += &format!("never = [{}]\n", listed(&NEVER));
        if has_tunnels {
            text += &format!("tunnel_endpoints = [{}]\n", listed(&GATEWAYS));
        }
    }
    let recipients = match sort {
        Sort::Any => random.random_range(1..=3),
        Sort::Threshold => 3,
        _ => 2,
    };
    for number in 0..recipients {
        let mut recipient = policies::recipient(random, format!("r{number}"), by_class, false);
        match random.random_range(0..4) {
            _ if sort == Sort::Pair => {
                recipient.fields.clear();
                coarse(random, &mut recipient, by_class, true);
            }
            _ if sort == Sort::Threshold => {
                recipient.k_threshold = Some(random.random_range(2..=4));
                recipient.mitigations.k_noise = if number == 1 { random.random_range(1..=4) } else { 0 };
                recipient.fields.extend([
                    (Field::DestinationTransportPort, Transform::Exact),
                    (Field::ProtocolIdentifier, Transform::Exact),
                    (Field::PacketDeltaCount, Transform::Log2),
                ]);
            }
            _ if sort == Sort::Names => {
                let preserved = AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt);
                let name = if number == 0 { preserved } else { AddressTransform::Exact };
                recipient.k_threshold = None;
                let addresses = Field::ALL.iter().filter(|field| is_address(**field));
                recipient.fields.extend(addresses.map(|field| (*field, Transform::address(name))));
            }
            _ if sort == Sort::Mitigated => pseudonymous(random, &mut recipient, by_class),
            0 | 1 => pseudonymous(random, &mut recipient, by_class),
            2 => {
                let has_pseudonyms = random.random();
                coarse(random, &mut recipient, by_class, has_pseudonyms);
            }
            _ => {}
        }
        if recipient.k_threshold.is_some() {
            mended(&mut recipient);
            let may_count_domestic = sort != Sort::Threshold || number == 2;
            if may_count_domestic && by_class && random.random() {
                recipient.counted = Sources::Domestic;
            }
        }
        mitigate(random, &mut recipient, is_one_way);
        if sort == Sort::Mitigated {
            let min_packets = if number == 0 { random.random_range(2..=5) } else { 0 };
            recipient.mitigations = Mitigations { min_packets, established_only: number == 1, k_noise: 0 };
        }
        text += &written(&recipient);
    }
    text
}

/// Makes pseudonyms of subscribers, as most policies would.
fn pseudonymous(random: &mut ChaCha8Rng, recipient: &mut Recipient, by_class: bool) {
    let foreign = [
        AddressTransform::Exact,
        AddressTransform::Truncated { bits: 24 },
        AddressTransform::Pseudonym,
        AddressTransform::Omitted,
    ];
    let foreign = if by_class { *foreign.choose(random).expect("some") } else { AddressTransform::Pseudonym };
    let transform = Transform::Address { foreign, domestic: AddressTransform::Pseudonym };
    for field in Field::ALL.iter().filter(|field| is_address(**field)) {
        recipient.fields.insert(*field, transform);
    }
    recipient.k_threshold = None;
}

/// Leaves what a statistic has: no port of a client, little of counts and times, and of addresses nothing or pseudonyms of subscribers.
fn coarse(random: &mut ChaCha8Rng, recipient: &mut Recipient, by_class: bool, has_pseudonyms: bool) {
    recipient.fields.retain(|field, _| !is_address(*field) && random.random_bool(0.6));
    if has_pseudonyms {
        let foreign = if by_class { AddressTransform::Omitted } else { AddressTransform::Pseudonym };
        let transform = Transform::Address { foreign, domestic: AddressTransform::Pseudonym };
        let addresses = Field::ALL.iter().filter(|field| is_address(**field));
        recipient.fields.extend(addresses.map(|field| (*field, transform)));
        recipient.k_threshold = None;
    }
    recipient.fields.insert(Field::ProtocolIdentifier, Transform::Exact);
    for (field, transform) in &mut recipient.fields {
        match field.kind() {
            Kind::Port => *transform = Transform::PortClasses,
            Kind::Count => *transform = Transform::Log2,
            Kind::Time => *transform = Transform::Coarsened { unit: HOUR },
            _ => {}
        }
    }
    if recipient.fields.contains_key(&Field::Dot1qCustomerVlanId) {
        recipient.fields.insert(Field::VlanId, Transform::Exact);
    }
}

/// Gives a recipient mitigations that it can have.
fn mitigate(random: &mut ChaCha8Rng, recipient: &mut Recipient, is_one_way: bool) {
    let is_keyed = recipient.fields.values().any(Transform::is_keyed);
    let Mitigations { min_packets, k_noise, .. } = recipient.mitigations;
    recipient.mitigations = if recipient.k_threshold.is_some() {
        Mitigations { k_noise, ..Mitigations::NONE }
    } else {
        let established_only = is_keyed && !is_one_way && random.random_bool(0.2);
        Mitigations { min_packets, established_only, k_noise: 0 }
    };
}

/// Takes from a recipient what a threshold does not permit.
fn mended(recipient: &mut Recipient) {
    for (field, transform) in &mut recipient.fields {
        match field.kind() {
            Kind::Ipv4Address => *transform = Transform::address(AddressTransform::Truncated { bits: 24 }),
            Kind::Ipv6Address => *transform = Transform::address(AddressTransform::Truncated { bits: 48 }),
            Kind::Count => *transform = Transform::Log2,
            Kind::Time => *transform = Transform::Coarsened { unit: INTERVAL },
            Kind::Port | Kind::ControlBits | Kind::Number => {}
        }
    }
    recipient.fields.remove(&Field::SourceIPv4Address);
    recipient.fields.remove(&Field::SourceIPv6Address);
}

/// Whether the field is an address.
#[must_use]
pub const fn is_address(field: Field) -> bool {
    matches!(field.kind(), Kind::Ipv4Address | Kind::Ipv6Address)
}

/// A recipient as a policy has it.
#[must_use]
pub fn written(recipient: &Recipient) -> String {
    let mut text = format!("[[recipients]]\nname = \"{}\"\npurpose = \"to be attacked\"\n", recipient.name);
    if let Some(k) = recipient.k_threshold {
        text += &format!("k_threshold = {k}\n");
    }
    if recipient.counted == Sources::Domestic {
        text += "k_counts = \"domestic\"\n";
    }
    let Mitigations { min_packets, established_only, k_noise } = recipient.mitigations;
    for (key, number) in [("min_packets", min_packets), ("k_noise", k_noise)] {
        if number > 0 {
            text += &format!("{key} = {number}\n");
        }
    }
    if established_only {
        text += "established_only = true\n";
    }
    text += "[recipients.fields]\n";
    for (field, transform) in &recipient.fields {
        text += &format!("{field} = {}\n", value(*transform));
    }
    text
}

fn value(transform: Transform) -> String {
    match transform {
        Transform::Exact => "\"exact\"".to_owned(),
        Transform::PortClasses => "\"classes\"".to_owned(),
        Transform::Log2 => "\"log2\"".to_owned(),
        Transform::ServicePorts { below } => format!("{{ services_below = {below} }}"),
        Transform::ListedPorts { below, listed } => {
            format!("{{ services_below = {below}, also = {:?} }}", listed.ports())
        }
        Transform::ControlBits { mask } => {
            let bits = CONTROL_BITS.iter().filter(|(_, bit)| mask & bit != 0).map(|(name, _)| name);
            format!("{{ mask = {:?} }}", bits.collect::<Vec<_>>())
        }
        Transform::StoredPorts { .. } => panic!("no policy names it"),
        Transform::Coarsened { unit } => format!("{{ coarsen = \"{} ms\" }}", unit.as_millis()),
        Transform::Address { foreign, domestic } if foreign == domestic => address(foreign),
        Transform::Address { foreign, domestic } => {
            format!("{{ foreign = {}, domestic = {} }}", address(foreign), address(domestic))
        }
    }
}

fn address(transform: AddressTransform) -> String {
    match transform {
        AddressTransform::Omitted => "\"omit\"".to_owned(),
        AddressTransform::Exact => "\"exact\"".to_owned(),
        AddressTransform::Truncated { bits } => format!("{{ truncate = {bits} }}"),
        AddressTransform::Pseudonym => "\"pseudonym\"".to_owned(),
        AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt) => "\"prefix-preserving\"".to_owned(),
        AddressTransform::PrefixPreserving(PrefixScheme::CryptoPan) => "\"crypto-pan\"".to_owned(),
    }
}

/// What a recipient gets of the address of a subscriber, or of a host abroad.
#[must_use]
pub fn treatment(
    policy: &Policy,
    recipient: &Recipient,
    field: Field,
    is_domestic: bool,
) -> AddressTransform {
    let class = if is_domestic && policy.scope.is_some() { Class::Domestic } else { Class::Foreign };
    recipient.fields.get(&field).map_or(AddressTransform::Omitted, |transform| transform.of_class(class))
}
