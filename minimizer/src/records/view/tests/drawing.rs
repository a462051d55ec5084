//! Recipients and records, drawn at random.

use std::time::Duration;

use minimizer_common::protocol::Transport;
use minimizer_common::tuple::{Tags, Tuple};
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;

use super::{Transforms, recipient};
use crate::policy::field::{Field, Kind};
use crate::policy::model::{Mitigations, Recipient, Sources};
use crate::policy::transform::{AddressTransform, Listed, PrefixScheme, Transform};
use crate::records::record::Record;

pub(super) fn random_recipient(random: &mut ChaCha8Rng) -> Recipient {
    let mut fields = Transforms::new();
    let density = random.random_range(0.3..1.0);
    for field in Field::ALL.iter().copied() {
        if random.random_bool(density) {
            fields.insert(field, random_transform(random, field));
        }
    }
    let k = random.random_bool(0.4).then(|| random.random_range(1..6));
    let counted =
        if k.is_some_and(|k| k > 1) && random.random_bool(0.3) { Sources::Domestic } else { Sources::All };
    let mut mitigations = Mitigations::NONE;
    if k.is_none() && random.random_bool(0.3) {
        mitigations.min_packets = random.random_range(2..80);
    }
    mitigations.established_only = random.random_bool(0.3);
    Recipient { counted, mitigations, ..recipient(fields, k) }
}

fn random_transform(random: &mut ChaCha8Rng, field: Field) -> Transform {
    let exact = random.random_bool(0.3);
    match field.kind() {
        _ if exact => Transform::Exact,
        Kind::Ipv4Address | Kind::Ipv6Address => {
            let bits = match field.kind() {
                Kind::Ipv4Address => random.random_range(16..32),
                _ => random.random_range(32..128),
            };
            let any = [
                AddressTransform::Omitted,
                AddressTransform::Exact,
                AddressTransform::Truncated { bits },
                AddressTransform::Pseudonym,
                AddressTransform::PrefixPreserving(PrefixScheme::Ipcrypt),
                AddressTransform::PrefixPreserving(PrefixScheme::CryptoPan),
            ];
            let mut one = || *any.choose(random).unwrap();
            let (foreign, domestic) = (one(), one());
            Transform::Address { foreign, domestic }
        }
        Kind::Port if random.random_bool(0.3) => Transform::PortClasses,
        Kind::Port if random.random() => Transform::ListedPorts {
            below: random.random_range(1..1024),
            listed: Listed::new(vec![1024, random.random_range(1024..32_768)]).expect("one or two"),
        },
        Kind::Port => Transform::ServicePorts { below: random.random_range(1..=u16::MAX) },
        Kind::ControlBits => Transform::ControlBits { mask: random.random_range(0..4096) },
        Kind::Number => Transform::Exact,
        Kind::Count => Transform::Log2,
        Kind::Time => Transform::Coarsened {
            unit: Duration::from_millis(*[10, 100, 1000, 60_000].choose(random).unwrap()),
        },
    }
}

/// Few values of each kind, so that records become the same often.
pub(super) fn random_record(random: &mut ChaCha8Rng) -> Record {
    let protocol = *[1, 6, 17, 47, 58].choose(random).unwrap();
    let ports = match Transport::of(protocol) {
        Transport::Tcp | Transport::Ports => {
            let mut port = || *[22, 443, 1023, 1024, 49_151, 49_152, 65_535].choose(random).unwrap();
            (port(), port())
        }
        Transport::Icmp | Transport::IcmpV6 => (random.random_range(0..3), random.random_range(0..3)),
        Transport::Other => (0, 0),
    };
    let mut tags = Tags::NONE.with_interface(random.random_range(0..2));
    for _ in 0..random.random_range(0..3) {
        tags = tags.with_vlan(random.random_range(0..2));
    }
    let addresses = if random.random() {
        tags = tags.with_ipv6();
        let start = *[0x2001_0db8_u32, 0x2001_0db9, 0x2a00_0000].choose(random).unwrap();
        let mut address = || {
            let address =
                u128::from(start) << 96 | random.random_range(0..4_u128) << 64 | random.random_range(1..4);
            let (high, low) = (address >> 64, address & u128::from(u64::MAX));
            [high, low].map(|half| u64::try_from(half).unwrap().to_be())
        };
        let [source, destination] = [address(), address()];
        [source[0], source[1], destination[0], destination[1]]
    } else {
        let mut octets = [0; 8];
        for address in octets.chunks_exact_mut(4) {
            address[..2].copy_from_slice([[10, 9], [10, 1], [192, 168], [8, 8]].choose(random).unwrap());
            address[2..].copy_from_slice(&[random.random_range(0..2), random.random_range(1..4)]);
        }
        [u64::from_ne_bytes(octets), 0, 0, 0]
    };
    let start_ms = 1_800_000_000_000 + random.random_range(0..200_000);
    Record {
        tuple: Tuple::new(addresses, ports, tags, protocol, random.random_range(0..2)),
        ingress_interface: tags.interface() + 7,
        control_bits: if protocol == 6 { random.random_range(0..4096) } else { 0 },
        packets: random.random_range(1..100),
        octets: random.random_range(20..10_000),
        start_ms,
        end_ms: start_ms + random.random_range(0..100_000),
        selector_id: random.random_range(0..2),
    }
}

/// A record of the other direction, from any interface.
fn answer(record: &Record, random: &mut ChaCha8Rng) -> Record {
    let Tuple { addresses: [first, second, third, fourth], .. } = record.tuple;
    let tags = record.tuple.tags();
    let addresses =
        if tags.is_ipv6() { [third, fourth, first, second] } else { [first.rotate_left(u32::BITS), 0, 0, 0] };
    let ports = (record.tuple.destination_port(), record.tuple.source_port());
    let other = random_record(random);
    let version = if tags.is_ipv6() { Tags::NONE.with_ipv6() } else { Tags::NONE };
    let slot = other.tuple.tags().interface();
    let tuple = Tuple::new(addresses, ports, version.with_interface(slot), record.tuple.protocol(), 1);
    let control_bits = if record.tuple.protocol() == 6 { random.random_range(0..32) } else { 0 };
    Record { tuple, control_bits, ingress_interface: slot + 7, ..other }
}

pub(super) fn random_records(random: &mut ChaCha8Rng) -> Vec<Record> {
    let mut records = Vec::new();
    for _ in 0..random.random_range(1..300) {
        let record = random_record(random);
        records.push(record);
        if random.random_bool(0.3) {
            records.push(answer(&record, random));
        }
    }
    records
}
