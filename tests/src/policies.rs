//! Policies drawn at random: whatever a checked policy can say.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::reference::WITH_PORTS;
use jiff::Timestamp;
use minimizer::policy::class::Class;
use minimizer::policy::field::{Field, Kind};
use minimizer::policy::indicators::Indicator;
use minimizer::policy::model::{Commitments, Mitigations, Policy, Recipient, Scope, Sources};
use minimizer::policy::prefixes::Prefix;
use minimizer::policy::transform::{AddressTransform, Listed, PrefixScheme, Transform};
use minimizer::policy::translation::Translation;
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::walk::Packet;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;

const PREFIXES_MAX: usize = 24;
const INDICATORS_MAX: usize = 24;
const CLASSES: [Class; 2] = [Class::Foreign, Class::Domestic];

/// A policy that has to do with these packets at `now`.
pub fn draw(random: &mut ChaCha8Rng, packets: &[Packet], now: Timestamp) -> Policy {
    let mut scope = random.random_bool(0.6).then(|| scope(random, packets));
    let translations = scope.as_mut().map(|scope| translations(random, packets, scope)).unwrap_or_default();
    let selectors = random.random_bool(0.5).then(|| {
        let count = random.random_range(1..=INDICATORS_MAX);
        (0..count).map(|_| indicator(random, packets, now)).collect::<Vec<_>>()
    });
    let by_class = scope.is_some();
    let has_selectors = selectors.is_some();
    let count = random.random_range(1..=3);
    let recipients = (0..count)
        .map(|number| recipient(random, format!("recipient {number}"), by_class, has_selectors))
        .collect();
    let mut tunnel_endpoints = Vec::new();
    if scope.is_some() {
        tunnel_endpoints.extend((0..random.random_range(0..4)).map(|_| prefix(random, packets, false)));
        tunnel_endpoints.retain(|prefix: &Prefix| prefix.bits > 0);
    }
    Policy {
        name: "drawn".to_owned(),
        description: String::new(),
        mandate: None,
        scope,
        selectors,
        tunnels: *[Tunnels::NONE, Tunnels::NONE, Tunnels::ALL].choose(random).expect("not empty"),
        pseudonym_epoch: Duration::from_secs(3600),
        recipients,
        digest: String::new(),
        tunnel_endpoints,
        translations,
        unlinkable: Vec::new(),
        inputs: BTreeMap::new(),
        commitments: Commitments::default(),
    }
}

/// A policy that makes the program do everything that it can, with these tunnels.
#[must_use]
pub fn everything(tunnels: Tunnels) -> Policy {
    let network = |octets: [u8; 4], bits| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&octets);
        Prefix { ipv6: false, octets: address, bits }
    };
    let mut documentation = [0; 16];
    documentation[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let ipv6 = |bits| Prefix { ipv6: true, octets: documentation, bits };
    let scope = Scope {
        prefixes: vec![
            (network([192, 0, 2, 0], 25), Class::Domestic),
            (network([198, 51, 100, 7], 32), Class::Never),
            // Where most of the frames of tests come from: special if it were not listed.
            (network([10, 0, 0, 0], 8), Class::Foreign),
            (ipv6(33), Class::Domestic),
        ],
        directions: vec![(Class::Foreign, Class::Domestic), (Class::Domestic, Class::Foreign)],
    };
    let indicator = |id, prefix, protocol, ports| Indicator { id, expires: None, prefix, protocol, ports };
    let selectors = vec![
        indicator(1, Some(network([203, 0, 113, 9], 32)), None, Vec::new()),
        indicator(2, Some(network([203, 0, 113, 0], 24)), Some(6), vec![(443, 443)]),
        indicator(3, Some(ipv6(128)), None, Vec::new()),
        indicator(4, Some(ipv6(48)), Some(17), vec![(53, 53), (5353, 5353)]),
        indicator(5, None, Some(6), vec![(4444, 4450)]),
        indicator(6, None, Some(47), Vec::new()),
    ];
    let by_class = |bits| Transform::Address {
        foreign: AddressTransform::Truncated { bits },
        domestic: AddressTransform::Pseudonym,
    };
    let unit = Duration::from_secs(1);
    let listed = Listed::new(vec![3306, 8080]).expect("two");
    let services = Transform::ListedPorts { below: 1024, listed };
    // Of each port, one recipient gets the class and the other one the service.
    let others = [
        (Field::SourceTransportPort, services),
        (Field::DestinationTransportPort, Transform::PortClasses),
        (Field::ProtocolIdentifier, Transform::Exact),
    ];
    let fields = [
        (Field::SourceIPv4Address, by_class(24)),
        (Field::DestinationIPv4Address, by_class(20)),
        (Field::SourceIPv6Address, by_class(48)),
        (Field::DestinationIPv6Address, by_class(47)),
        (Field::SourceTransportPort, Transform::PortClasses),
        (Field::DestinationTransportPort, services),
        (Field::ProtocolIdentifier, Transform::Exact),
        (Field::TcpControlBits, Transform::ControlBits { mask: 0x007 }),
        (Field::IcmpTypeIPv4, Transform::Exact),
        (Field::VlanId, Transform::Exact),
        (Field::SelectorId, Transform::Exact),
        (Field::FlowStartMilliseconds, Transform::Coarsened { unit }),
    ];
    let recipient = |name: &str, fields: BTreeMap<_, _>| Recipient {
        name: name.to_owned(),
        purpose: "a test".to_owned(),
        retention: None,
        k_threshold: None,
        counted: Sources::All,
        mitigations: Mitigations::NONE,
        destinations: None,
        fields,
    };
    Policy {
        name: "everything".to_owned(),
        description: String::new(),
        mandate: None,
        scope: Some(scope),
        selectors: Some(selectors),
        tunnels,
        pseudonym_epoch: Duration::from_secs(3600),
        recipients: vec![recipient("all", fields.into()), recipient("ports", others.into())],
        digest: String::new(),
        tunnel_endpoints: vec![network([198, 18, 0, 0], 15)],
        translations: Vec::new(),
        unlinkable: Vec::new(),
        inputs: BTreeMap::new(),
        commitments: Commitments::default(),
    }
}

/// Source and destination of a packet in network byte order, the first four octets for IPv4.
#[must_use]
pub fn endpoints(packet: &Packet) -> [[u8; 16]; 2] {
    let word = |index: usize| packet.addresses[index].to_ne_bytes();
    if packet.tags.is_ipv6() {
        [[word(0), word(1)], [word(2), word(3)]].map(|words| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&words.concat());
            octets
        })
    } else {
        let mut octets = [[0; 16]; 2];
        octets[0][..4].copy_from_slice(&word(0)[..4]);
        octets[1][..4].copy_from_slice(&word(0)[4..]);
        octets
    }
}

/// The first bits of an address, zeroes behind them.
#[must_use]
pub fn truncated(octets: [u8; 16], bits: u8) -> [u8; 16] {
    let mut truncated = [0; 16];
    for bit in 0..usize::from(bits) {
        truncated[bit / 8] |= octets[bit / 8] & 0x80 >> (bit % 8);
    }
    truncated
}

fn prefix(random: &mut ChaCha8Rng, packets: &[Packet], is_host: bool) -> Prefix {
    let packet = packets.choose(random).expect("there are packets");
    let octets = *endpoints(packet).choose(random).expect("there are two");
    let ipv6 = packet.tags.is_ipv6();
    let whole = if ipv6 { 128 } else { 32 };
    let bits = if is_host { whole } else { random.random_range(0..=whole) };
    Prefix { ipv6, octets: truncated(octets, bits), bits }
}

/// A translation of NAT64 of 96 bits, sometimes, that the scope does not list.
fn translations(random: &mut ChaCha8Rng, packets: &[Packet], scope: &mut Scope) -> Vec<Translation> {
    let host = prefix(random, packets, true);
    if !host.ipv6 || random.random_bool(0.7) {
        return Vec::new();
    }
    let prefix = Prefix { bits: 96, octets: truncated(host.octets, 96), ..host };
    scope.prefixes.retain(|(other, _)| *other != prefix);
    vec![Translation::nat64(prefix)]
}

fn scope(random: &mut ChaCha8Rng, packets: &[Packet]) -> Scope {
    let mut prefixes = BTreeMap::new();
    for _ in 0..random.random_range(0..=PREFIXES_MAX) {
        let class = [Class::Foreign, Class::Domestic, Class::Domestic, Class::Never];
        prefixes.insert(prefix(random, packets, false), *class.choose(random).expect("not empty"));
    }
    let all = CLASSES.into_iter().flat_map(|source| CLASSES.map(|destination| (source, destination)));
    let mut directions: Vec<_> = all.filter(|_| random.random_bool(0.7)).collect();
    if directions.is_empty() {
        directions.push((Class::Foreign, Class::Foreign));
    }
    Scope { prefixes: prefixes.into_iter().collect(), directions }
}

fn indicator(random: &mut ChaCha8Rng, packets: &[Packet], now: Timestamp) -> Indicator {
    let packet = packets.choose(random).expect("there are packets");
    let mut prefix = random.random_bool(0.8).then(|| {
        let is_host = random.random_bool(0.6);
        prefix(random, packets, is_host)
    });
    let protocol = random.random_bool(0.5).then_some(packet.protocol);
    let has_ports = WITH_PORTS.contains(&packet.protocol);
    let ports = if has_ports && random.random_bool(0.5) {
        (0..random.random_range(1..=3))
            .map(|_| {
                let port = *[packet.ports.0, packet.ports.1].choose(random).expect("there are two");
                (
                    port.saturating_sub(random.random_range(0..3)),
                    port.saturating_add(random.random_range(0..3)),
                )
            })
            .collect()
    } else {
        Vec::new()
    };
    if prefix.is_none() && protocol.is_none() && ports.is_empty() {
        prefix = Some(self::prefix(random, packets, true));
    }
    let away = Duration::from_secs(*[0, 1, 2, 100].choose(random).expect("not empty"));
    let expires = match random.random_range(0..4) {
        0 => Some(now - away),
        1 => Some(now + away),
        _ => None,
    };
    Indicator { id: random.random_range(1..=12), expires, prefix, protocol, ports }
}

/// A recipient of that name.
pub fn recipient(random: &mut ChaCha8Rng, name: String, by_class: bool, has_selectors: bool) -> Recipient {
    let k_threshold = random.random_bool(0.2).then(|| random.random_range(2..=4));
    let unit =
        Duration::from_millis(*[10, 250, 1000, 10_000, 60_000, 3_600_000].choose(random).expect("some"));
    let share = *[0.1, 0.5, 0.9, 1.0].choose(random).expect("some");
    let mut fields = BTreeMap::new();
    for field in Field::ALL {
        let is_source = matches!(field, Field::SourceIPv4Address | Field::SourceIPv6Address);
        let is_impossible =
            k_threshold.is_some() && is_source || *field == Field::SelectorId && !has_selectors;
        if is_impossible || !random.random_bool(share) {
            continue;
        }
        let transform = match field.kind() {
            Kind::Ipv4Address => addresses(random, 32, by_class),
            Kind::Ipv6Address => addresses(random, 128, by_class),
            Kind::Port => match random.random_range(0..4) {
                0 => Transform::Exact,
                1 => Transform::PortClasses,
                2 => Transform::ListedPorts {
                    below: random.random_range(1..=1024),
                    listed: Listed::new(vec![1024, 8080]).expect("two"),
                },
                _ => Transform::ServicePorts { below: random.random_range(1..=u16::MAX) },
            },
            Kind::ControlBits if random.random() => {
                Transform::ControlBits { mask: random.random_range(1..=0xfff) }
            }
            Kind::Count if random.random() => Transform::Log2,
            Kind::Time => Transform::Coarsened { unit },
            Kind::ControlBits | Kind::Count | Kind::Number => Transform::Exact,
        };
        fields.insert(*field, transform);
    }
    // What says nothing without the protocol.
    let needs_protocol = |field: &Field| {
        matches!(field.kind(), Kind::Port | Kind::ControlBits) || field.name().starts_with("icmp")
    };
    if fields.keys().any(needs_protocol) {
        fields.insert(Field::ProtocolIdentifier, Transform::Exact);
    }
    if fields.contains_key(&Field::Dot1qCustomerVlanId) {
        fields.insert(Field::VlanId, Transform::Exact);
    }
    if fields.is_empty() {
        fields.insert(Field::PacketDeltaCount, Transform::Exact);
    }
    let is_keyed = fields.values().any(Transform::is_keyed);
    let mitigations = Mitigations {
        min_packets: if k_threshold.is_none() && random.random_bool(0.2) {
            random.random_range(2..=5)
        } else {
            0
        },
        established_only: is_keyed && random.random_bool(0.2),
        k_noise: if k_threshold.is_some() && random.random() { random.random_range(1..=4) } else { 0 },
    };
    Recipient {
        name,
        purpose: "a test".to_owned(),
        retention: None,
        k_threshold,
        counted: Sources::All,
        mitigations,
        destinations: None,
        fields,
    }
}

fn addresses(random: &mut ChaCha8Rng, bits: u8, by_class: bool) -> Transform {
    let mut one = |may_omit: bool| match random.random_range(0..if may_omit { 6 } else { 5 }) {
        0 => AddressTransform::Exact,
        1 | 2 => AddressTransform::Truncated { bits: random.random_range(1..bits) },
        3 => AddressTransform::Pseudonym,
        4 if random.random() => AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt),
        4 => AddressTransform::PrefixPreserving(PrefixScheme::CryptoPan),
        _ => AddressTransform::Omitted,
    };
    let foreign = one(by_class);
    let is_same = !by_class || foreign != AddressTransform::Omitted && one(false) == foreign;
    let domestic = if is_same { foreign } else { one(foreign != AddressTransform::Omitted) };
    Transform::Address { foreign, domestic }
}
