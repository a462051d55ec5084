//! Random recipients and records: the view of what the kernel stores is what the policy says of the packets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use minimizer_common::tuple::{Tags, Tuple};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use zeroize::Zeroizing;

use super::address::pseudonym;
use super::{Classes, View, Viewed};
use crate::keys::{PseudonymKey, RecipientKeys};
use crate::policy::field::{Field, Kind};
use crate::policy::transform::{AddressTransform, PrefixScheme, Transform};
use crate::policy::{Class, Prefix, Recipient, Scope};
use crate::prefix_preserving::PrefixPreserving;
use crate::record::{Record, Transport};

type Transforms = BTreeMap<Field, Transform>;

fn epoch() -> PseudonymKey {
    [11, 12].into()
}

fn keys(number: u8) -> RecipientKeys {
    let key = std::array::from_fn(|index| number.wrapping_add(u8::try_from(index).unwrap()));
    RecipientKeys {
        pseudonym: [u64::from(number), 2].into(),
        ipcrypt: Zeroizing::new(key),
        crypto_pan: Zeroizing::new(key),
    }
}

/// Domestic: 10.0.0.0/8 without 10.9.0.0/16, 192.168.0.0/16, 2001:db8::/32.
fn classes() -> Arc<Classes> {
    let prefix = |ipv6, start: &[u8], bits| {
        let mut octets = [0; 16];
        octets[..start.len()].copy_from_slice(start);
        Prefix { ipv6, octets, bits }
    };
    Arc::new(Classes::new(&Scope {
        prefixes: vec![
            (prefix(false, &[10], 8), Class::Domestic),
            (prefix(false, &[10, 9], 16), Class::Foreign),
            (prefix(false, &[192, 168], 16), Class::Domestic),
            (prefix(true, &[0x20, 0x01, 0x0d, 0xb8], 32), Class::Domestic),
        ],
        directions: Vec::new(),
    }))
}

/// The class by definition.
fn is_domestic(address: &[u8]) -> bool {
    match address {
        [10, second, _, _] => *second != 9,
        [first, second, _, _] => (*first, *second) == (192, 168),
        _ => address.starts_with(&[0x20, 0x01, 0x0d, 0xb8]),
    }
}

fn recipient(fields: Transforms, k_threshold: Option<u32>) -> Recipient {
    let (name, purpose) = ("r".to_owned(), "p".to_owned());
    Recipient { name, purpose, retention: None, k_threshold, fields }
}

fn view(recipient: &Recipient, collected: &Transforms, number: u8) -> View {
    View::new(recipient, collected, epoch(), &keys(number), classes())
}

fn random_recipient(random: &mut ChaCha8Rng) -> Recipient {
    let mut fields = Transforms::new();
    let density = random.random_range(0.3..1.0);
    for field in Field::ALL.iter().copied() {
        if random.random_bool(density) {
            fields.insert(field, random_transform(random, field));
        }
    }
    let k = random.random_bool(0.4).then(|| random.random_range(1..6));
    recipient(fields, k)
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
        Kind::Port if random.random() => Transform::PortClasses,
        Kind::Port => Transform::ServicePorts { below: random.random_range(1..=u16::MAX) },
        Kind::ControlBits => Transform::ControlBits { mask: random.random_range(0..4096) },
        Kind::Number => Transform::Exact,
        Kind::Count => Transform::Log2,
        Kind::Time => Transform::Coarsened {
            unit: Duration::from_millis(*[10, 100, 1000, 60_000].choose(random).unwrap()),
        },
    }
}

/// The least that is enough for all.
fn join(recipients: &[Recipient]) -> Transforms {
    let mut joined = Transforms::new();
    for field in Field::ALL.iter().copied() {
        let wanted = recipients.iter().filter_map(|recipient| recipient.fields.get(&field).copied());
        let wanted = wanted.collect::<Vec<_>>();
        let source = matches!(field, Field::SourceIPv4Address | Field::SourceIPv6Address);
        if source && recipients.iter().any(|recipient| recipient.k_threshold.is_some()) {
            joined.insert(field, Transform::Exact);
        } else if let Some(transform) =
            wanted.iter().copied().reduce(|one, other| join_two(field, one, other))
        {
            joined.insert(field, kernel_part(transform, &wanted));
        }
    }
    joined
}

fn join_two(field: Field, one: Transform, other: Transform) -> Transform {
    match (one, other) {
        _ if one == other => one,
        (Transform::Address { foreign: f, domestic: d }, Transform::Address { foreign: g, domestic: e }) => {
            Transform::Address { foreign: join_addresses(f, g), domestic: join_addresses(d, e) }
        }
        (Transform::ControlBits { mask: one }, Transform::ControlBits { mask: other }) => {
            Transform::ControlBits { mask: one | other }
        }
        (Transform::Coarsened { unit: one }, Transform::Coarsened { unit: other }) => {
            Transform::Coarsened { unit: one.min(other) }
        }
        _ => {
            assert_ne!(field.kind(), Kind::Number);
            Transform::Exact
        }
    }
}

fn join_addresses(one: AddressTransform, other: AddressTransform) -> AddressTransform {
    use AddressTransform::{Exact, Omitted, Truncated};
    match (one, other) {
        _ if one == other => one,
        (Omitted, more) | (more, Omitted) => more,
        (Truncated { bits: one }, Truncated { bits: other }) => Truncated { bits: one.max(other) },
        _ => Exact,
    }
}

/// What the kernel can do of it. Where two classes become pseudonyms it is not known any more which was which.
fn kernel_part(joined: Transform, wanted: &[Transform]) -> Transform {
    use AddressTransform::{Exact, PrefixPreserving, Pseudonym};
    let raw = |transform| if matches!(transform, PrefixPreserving(_)) { Exact } else { transform };
    match joined {
        Transform::Log2 => Transform::Exact,
        Transform::Address { foreign: Pseudonym, domestic: Pseudonym }
            if wanted.iter().any(|transform| *transform != joined) =>
        {
            Transform::Exact
        }
        Transform::Address { foreign, domestic } => {
            Transform::Address { foreign: raw(foreign), domestic: raw(domestic) }
        }
        other => other,
    }
}

/// Few values of each kind, so that records become the same often.
fn random_record(random: &mut ChaCha8Rng) -> Record {
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

fn random_records(random: &mut ChaCha8Rng) -> Vec<Record> {
    (0..random.random_range(1..300)).map(|_| random_record(random)).collect()
}

/// What an address becomes, by definition: at the kernel (without a recipient's keys), or for a recipient.
fn address(transforms: &Transforms, field: Field, octets: &[u8], keys: Option<&RecipientKeys>) -> Vec<u8> {
    let transform = match transforms.get(&field) {
        None => AddressTransform::Omitted,
        Some(Transform::Address { domestic, .. }) if is_domestic(octets) => *domestic,
        Some(Transform::Address { foreign, .. }) => *foreign,
        Some(_) => AddressTransform::Exact,
    };
    let ipv6 = octets.len() == 16;
    let mut whole = [0; 16];
    whole[..octets.len()].copy_from_slice(octets);
    let whole = u128::from_be_bytes(whole);
    let becomes = match (transform, keys) {
        (AddressTransform::Omitted, _) => 0,
        (AddressTransform::Exact, _) => whole,
        (AddressTransform::Truncated { bits }, _) => whole >> (128 - bits) << (128 - bits),
        (AddressTransform::Pseudonym, None) => pseudonym(&epoch(), ipv6, whole),
        (AddressTransform::Pseudonym, Some(keys)) => {
            pseudonym(&keys.pseudonym, ipv6, pseudonym(&epoch(), ipv6, whole))
        }
        (AddressTransform::PrefixPreserving(_), None) => panic!("not in the kernel"),
        (AddressTransform::PrefixPreserving(scheme), Some(keys)) => {
            let permutation = PrefixPreserving::new(scheme, keys);
            return match octets.try_into() {
                Ok(octets) => permutation.ipv4(octets).to_vec(),
                Err(_) => permutation.ipv6(octets.try_into().unwrap()).to_vec(),
            };
        }
    };
    becomes.to_be_bytes()[..octets.len()].to_vec()
}

/// What the transforms leave of a record, by definition.
fn minimized(transforms: &Transforms, record: &Record, keys: Option<&RecipientKeys>) -> Record {
    let has = |field: Field| transforms.contains_key(&field);
    let tuple = &record.tuple;
    let addresses = Field::ALL.iter().filter(|field| field.name().ends_with("Address"));
    let version = addresses.copied().any(has);
    let words = if tuple.tags().is_ipv6() {
        let (source, destination) = tuple.ipv6();
        let source = address(transforms, Field::SourceIPv6Address, &source, keys);
        let destination = address(transforms, Field::DestinationIPv6Address, &destination, keys);
        let octets = [source, destination].concat();
        std::array::from_fn(|word| u64::from_ne_bytes(octets[8 * word..8 * word + 8].try_into().unwrap()))
    } else {
        let (source, destination) = tuple.ipv4();
        let source = address(transforms, Field::SourceIPv4Address, &source, keys);
        let destination = address(transforms, Field::DestinationIPv4Address, &destination, keys);
        [u64::from_ne_bytes([source, destination].concat().try_into().unwrap()), 0, 0, 0]
    };
    let port = |field: Field, port: u16| match transforms.get(&field) {
        None => 0,
        Some(Transform::PortClasses) => [0, 1024, 49_152].into_iter().rfind(|first| *first <= port).unwrap(),
        Some(Transform::ServicePorts { below }) if port >= *below => 0,
        Some(_) => port,
    };
    let protocol = has(Field::ProtocolIdentifier);
    let (first, second) = match Transport::of(tuple.protocol()) {
        _ if !protocol && keys.is_some() => (None, None),
        Transport::Tcp | Transport::Ports => {
            (Some(Field::SourceTransportPort), Some(Field::DestinationTransportPort))
        }
        Transport::Icmp => (Some(Field::IcmpTypeIPv4), Some(Field::IcmpCodeIPv4)),
        Transport::IcmpV6 => (Some(Field::IcmpTypeIPv6), Some(Field::IcmpCodeIPv6)),
        Transport::Other => (None, None),
    };
    let ports = (
        first.map_or(0, |field| port(field, tuple.source_port())),
        second.map_or(0, |field| port(field, tuple.destination_port())),
    );
    let tags = tuple.tags();
    let mut kept = Tags::NONE;
    if keys.is_none() {
        // The kernel clears bits; the depth stays when one of the identifiers does.
        let vlan = [Field::VlanId, Field::Dot1qCustomerVlanId].map(has);
        for (kept_id, id) in vlan.into_iter().zip([tags.vlan_id(), tags.customer_vlan_id()]) {
            if let Some(id) = id
                && vlan != [false; 2]
            {
                kept = kept.with_vlan(if kept_id { id } else { 0 });
            }
        }
    } else {
        match [Field::VlanId, Field::Dot1qCustomerVlanId].map(has) {
            [true, true] => {
                for id in [tags.vlan_id(), tags.customer_vlan_id()].into_iter().flatten() {
                    kept = kept.with_vlan(id);
                }
            }
            [true, false] => kept = tags.vlan_id().map_or(kept, |id| kept.with_vlan(id)),
            [false, true] => {
                kept = tags.customer_vlan_id().map_or(kept, |id| kept.with_vlan(0).with_vlan(id))
            }
            [false, false] => {}
        }
    }
    if tags.is_ipv6() && version {
        kept = kept.with_ipv6();
    }
    if has(Field::IngressInterface) {
        kept = kept.with_interface(tags.interface());
    }
    let number = |field: Field, value: u64| match transforms.get(&field) {
        None => 0,
        Some(Transform::Coarsened { unit }) => {
            let unit = u64::try_from(unit.as_millis()).unwrap();
            value / unit * unit
        }
        Some(_) => value,
    };
    Record {
        tuple: Tuple::new(
            if version { words } else { [0; 4] },
            ports,
            kept,
            if protocol { tuple.protocol() } else { 0 },
            if has(Field::IpClassOfService) { tuple.traffic_class() } else { 0 },
        ),
        ingress_interface: if has(Field::IngressInterface) { record.ingress_interface } else { 0 },
        control_bits: match transforms.get(&Field::TcpControlBits) {
            Some(_) if !protocol && keys.is_some() => 0,
            Some(Transform::ControlBits { mask }) => record.control_bits & mask,
            Some(_) => record.control_bits,
            None => 0,
        },
        packets: record.packets,
        octets: record.octets,
        start_ms: number(Field::FlowStartMilliseconds, record.start_ms),
        end_ms: number(Field::FlowEndMilliseconds, record.end_ms),
        selector_id: if has(Field::SelectorId) { record.selector_id } else { 0 },
    }
}

type Key = ([u64; 4], u64, u16, u64);
type Values = (u32, u16, u64, u64, u64, u64);

fn set(records: &[Record]) -> BTreeMap<Key, Values> {
    let entry = |record: &Record| {
        let Record { tuple, ingress_interface, control_bits, packets, octets, start_ms, end_ms, selector_id } =
            *record;
        let values = (ingress_interface, control_bits, packets, octets, start_ms, end_ms);
        ((tuple.addresses, tuple.transport, tuple.kind, selector_id), values)
    };
    let set = records.iter().map(entry).collect::<BTreeMap<_, _>>();
    assert_eq!(set.len(), records.len(), "two records have the same key");
    set
}

/// The view of packets by definition: what is exported, and the residual record.
fn expected(
    recipient: &Recipient,
    packets: &[Record],
    stored: &[Record],
    keys: &RecipientKeys,
) -> (Vec<Record>, Option<Record>) {
    let mut records = Vec::<(Record, HashSet<(bool, [u64; 2])>)>::new();
    for (packet, stored) in packets.iter().zip(stored) {
        let record = minimized(&recipient.fields, packet, Some(keys));
        let words = stored.tuple.addresses;
        let ipv6 = stored.tuple.tags().is_ipv6();
        let source = (
            ipv6,
            if ipv6 {
                [words[0], words[1]]
            } else {
                [words[0] & u64::from_ne_bytes([255, 255, 255, 255, 0, 0, 0, 0]), 0]
            },
        );
        let same = |(known, _): &&mut (Record, _)| {
            (known.tuple, known.selector_id) == (record.tuple, record.selector_id)
        };
        if let Some((known, sources)) = records.iter_mut().find(same) {
            known.absorb(&record);
            sources.insert(source);
        } else {
            records.push((record, HashSet::from([source])));
        }
    }
    let k = recipient.k_threshold.map_or(0, |k| usize::try_from(k).unwrap());
    let (kept, folded) = records.into_iter().partition::<Vec<_>, _>(|(_, sources)| sources.len() >= k);
    let folded = folded.into_iter().map(|(record, _)| record).reduce(|mut sum, record| {
        sum.absorb(&record);
        sum
    });
    let folded = folded.map(|record| Record {
        tuple: Tuple::default(),
        ingress_interface: 0,
        control_bits: 0,
        selector_id: 0,
        ..record
    });
    let counted = |record: Record| {
        let count = |field, value: u64| match recipient.fields.get(&field) {
            None => 0,
            Some(Transform::Log2) => (0..64).map(|bit| 1 << bit).rfind(|power| *power <= value).unwrap_or(0),
            Some(_) => value,
        };
        let packets = count(Field::PacketDeltaCount, record.packets);
        Record { packets, octets: count(Field::OctetDeltaCount, record.octets), ..record }
    };
    (kept.into_iter().map(|(record, _)| counted(record)).collect(), folded.map(counted))
}

#[test]
fn the_view_of_what_is_stored_is_what_the_policy_says_of_the_packets() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let [mut folded, mut merged] = [0; 2];
    for round in 0..200 {
        let recipients =
            (0..random.random_range(1..4)).map(|_| random_recipient(&mut random)).collect::<Vec<_>>();
        let collected = join(&recipients);
        let packets = random_records(&mut random);
        let stored = packets.iter().map(|packet| minimized(&collected, packet, None)).collect::<Vec<_>>();
        for (number, recipient) in (1..).zip(&recipients) {
            let view = view(recipient, &collected, number);
            let Viewed { records, suppressed, residual } = view.of(&stored);
            let (expected, expected_residual) = expected(recipient, &packets, &stored, &keys(number));
            if matches!(records, Cow::Borrowed(_)) {
                assert!(*records == *stored);
                continue;
            }
            if view.work == super::Work::Values {
                assert_eq!(records.len(), stored.len());
                continue;
            }
            assert_eq!(set(&records), set(&expected), "round {round}: {recipient:#?} of {collected:#?}");
            assert_eq!(residual, expected_residual, "round {round}: {recipient:#?}");
            folded += u32::from(residual.is_some());
            merged += u32::from(records.len() < stored.len());

            let all = |count: fn(&Record) -> u64| stored.iter().map(count).sum::<u64>();
            let exported = |count: fn(&Record) -> u64| records.iter().map(count).sum::<u64>();
            if recipient.fields.get(&Field::PacketDeltaCount) == Some(&Transform::Exact) {
                assert_eq!(
                    exported(|record| record.packets) + suppressed.packets,
                    all(|record| record.packets)
                );
            }
            if recipient.fields.get(&Field::OctetDeltaCount) == Some(&Transform::Exact) {
                assert_eq!(exported(|record| record.octets) + suppressed.octets, all(|record| record.octets));
            }

            let mut permuted = stored.clone();
            permuted.shuffle(&mut random);
            let again = view.of(&permuted);
            assert_eq!(set(&again.records), set(&records));
            assert_eq!((again.suppressed, again.residual), (suppressed, residual));
        }
    }
    assert!(folded > 10 && merged > 100, "{folded} {merged}");
}

#[test]
fn who_gets_what_is_stored_gets_it_as_it_is() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let fields = Field::ALL.iter().map(|field| (*field, Transform::Exact)).collect::<Transforms>();
    let records = random_records(&mut random);
    let recipient = recipient(fields.clone(), None);
    let viewed = view(&recipient, &fields, 1).of(&records).records;
    assert!(
        matches!(viewed, Cow::Borrowed(same) if same.as_ptr() == records.as_ptr() && same.len() == records.len())
    );

    let mut coarse = recipient.clone();
    let unit = Duration::from_secs(1);
    coarse.fields.insert(Field::FlowStartMilliseconds, Transform::Coarsened { unit });
    coarse.fields.insert(Field::PacketDeltaCount, Transform::Log2);
    coarse.fields.remove(&Field::OctetDeltaCount);
    let viewed = view(&coarse, &fields, 1).of(&records).records;
    for (viewed, record) in viewed.iter().zip(&records) {
        let start_ms = record.start_ms / 1000 * 1000;
        let packets = 1 << record.packets.ilog2();
        assert_eq!(*viewed, Record { start_ms, packets, octets: 0, ..*record });
    }
}

#[test]
fn pseudonyms_of_two_recipients_have_nothing_in_common() {
    let pseudonyms = Transform::address(AddressTransform::Pseudonym);
    let fields =
        Transforms::from([(Field::SourceIPv4Address, pseudonyms), (Field::SourceIPv6Address, pseudonyms)]);
    let recipient = recipient(fields.clone(), None);
    let exact = fields.keys().map(|field| (*field, Transform::Exact)).collect::<Transforms>();
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let packets = (0..2000).map(|_| random_record(&mut random)).collect::<Vec<_>>();
    let pseudonyms = |collected: &Transforms, number| {
        let stored = packets.iter().map(|packet| minimized(collected, packet, None)).collect::<Vec<_>>();
        let records = view(&recipient, collected, number).of(&stored).records.into_owned();
        records
            .iter()
            .map(|record| (record.tuple.tags().is_ipv6(), record.tuple.addresses))
            .collect::<BTreeSet<_>>()
    };
    let [one, other] = [1, 2].map(|number| pseudonyms(&fields, number));
    assert_eq!(one.len(), other.len());
    assert!(one.len() > 20 && one.is_disjoint(&other));
    assert_eq!(one, pseudonyms(&exact, 1), "another recipient that needs the addresses makes no difference");
    let stored = packets.iter().map(|packet| minimized(&fields, packet, None).tuple.addresses);
    let stored = stored.collect::<BTreeSet<_>>();
    assert!(
        one.iter().all(|(_, addresses)| !stored.contains(addresses)),
        "the kernel's pseudonyms stay here"
    );
}

#[test]
fn of_two_possible_classes_the_recipient_gets_no_more_than_either_gives() {
    use AddressTransform::{Exact, Omitted, Pseudonym, Truncated};
    let address = |foreign, domestic| {
        Transforms::from([(Field::SourceIPv4Address, Transform::Address { foreign, domestic })])
    };
    let source = |collected: &Transforms, wanted: Transforms, octets: [u8; 4]| {
        let mut both = [0; 8];
        both[..4].copy_from_slice(&octets);
        let tuple = Tuple::new([u64::from_ne_bytes(both), 0, 0, 0], (0, 0), Tags::NONE, 0, 0);
        let record = Record { tuple, packets: 1, ..super::threshold::NOTHING };
        let records = view(&recipient(wanted, None), collected, 1).of(&[record]).records.into_owned();
        records[0].tuple.ipv4().0
    };
    let [eight, sixteen] = [8, 16].map(|bits| Truncated { bits });
    let collected = address(eight, eight);
    assert_eq!(
        source(&collected, address(eight, Omitted), [10, 0, 0, 0]),
        [0; 4],
        "10.9.0.0/16 is foreign, the rest is not"
    );
    assert_eq!(source(&collected, address(eight, Omitted), [11, 0, 0, 0]), [11, 0, 0, 0]);
    let collected = address(eight, sixteen);
    assert_eq!(
        source(&collected, address(Omitted, sixteen), [10, 7, 0, 0]),
        [10, 7, 0, 0],
        "more than 8 bits: domestic"
    );
    assert_eq!(source(&collected, address(eight, Truncated { bits: 12 }), [10, 0, 0, 0]), [10, 0, 0, 0]);
    let collected = address(Pseudonym, Pseudonym);
    assert_eq!(source(&collected, address(Pseudonym, Omitted), [241, 1, 2, 3]), [0; 4]);
    let collected = address(Exact, Pseudonym);
    assert_eq!(source(&collected, address(Exact, Omitted), [241, 1, 2, 3]), [0; 4], "a pseudonym");
    assert_eq!(source(&collected, address(Exact, Omitted), [11, 1, 2, 3]), [11, 1, 2, 3]);
    assert_eq!(source(&collected, address(Exact, Omitted), [255; 4]), [255; 4], "no pseudonym");
    let seen = source(&collected, address(Exact, Pseudonym), [241, 1, 2, 3]);
    assert!(seen[0] >= 240 && seen != [241, 1, 2, 3]);
    assert_eq!(source(&collected, address(eight, Pseudonym), [241, 1, 2, 3]), seen);
}
