//! What is stored, and what a recipient gets of it, by definition: slow, and plain.

use std::collections::HashSet;

use minimizer_common::protocol::Transport;
use minimizer_common::tuple::{Tags, Tuple};

use super::{Transforms, epoch};
use crate::policy::field::{Field, Kind};
use crate::policy::model::{Recipient, Sources};
use crate::policy::ranks::NO_RANKS;
use crate::policy::transform::{AddressTransform, PrefixScheme, Transform};
use crate::records::keys::RecipientKeys;
use crate::records::merge::Flow as _;
use crate::records::prefix_preserving::PrefixPreserving;
use crate::records::record::Record;
use crate::records::view::address::{ipv4_number, ipv6_pseudonym, permutation_of};
use minimizer_ebpf::policy::permutation;

/// The class by definition.
fn is_domestic(address: &[u8]) -> bool {
    match address {
        [10, second, _, _] => *second != 9,
        [first, second, _, _] => (*first, *second) == (192, 168),
        _ => address.starts_with(&[0x20, 0x01, 0x0d, 0xb8]),
    }
}

/// The least that is enough for all.
pub(super) fn join(recipients: &[Recipient]) -> Transforms {
    let mut joined = Transforms::new();
    for field in Field::ALL.iter().copied() {
        let wanted = recipients.iter().filter_map(|recipient| recipient.fields.get(&field).copied());
        let mut wanted = wanted.collect::<Vec<_>>();
        if recipients.iter().any(|recipient| recipient.mitigations.established_only) {
            wanted.extend(match field.kind() {
                Kind::Ipv4Address | Kind::Ipv6Address => {
                    Some(Transform::address(AddressTransform::Pseudonym))
                }
                Kind::Port => Some(Transform::Exact),
                Kind::ControlBits => Some(Transform::ControlBits { mask: 0x00f }),
                _ => (field == Field::ProtocolIdentifier).then_some(Transform::Exact),
            });
        }
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
            Transform::Address { foreign: Exact, domestic: Pseudonym }
        }
        Transform::Address { foreign, domestic } => {
            Transform::Address { foreign: raw(foreign), domestic: raw(domestic) }
        }
        other => other,
    }
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
        (AddressTransform::Pseudonym, keys) if ipv6 => {
            let stored = ipv6_pseudonym((*epoch()).as_ref(), whole);
            keys.map_or(stored, |keys| ipv6_pseudonym(&keys.pseudonym, stored))
        }
        (AddressTransform::Pseudonym, keys) => {
            let permutation = permutation_of((*epoch()).as_ref(), &NO_RANKS).expect("memory");
            let stored = ipv4_number(&permutation, None, u32::try_from(whole >> 96).expect("32 bits"));
            let number = keys.map_or(stored, |keys| {
                let numbered = permutation::Number::of_rank(stored);
                permutation::permuted(&permutation_of(&keys.pseudonym, &NO_RANKS).expect("memory"), numbered)
            });
            u128::from(u32::from_be(permutation::pseudonym(number))) << 96
        }
        (AddressTransform::PrefixPreserving(_), None) => panic!("not in the kernel"),
        (AddressTransform::PrefixPreserving(scheme), Some(keys)) => {
            let key = if scheme == PrefixScheme::Ipcrypt { &keys.ipcrypt } else { &keys.crypto_pan };
            let permutation = PrefixPreserving::new(scheme, key);
            return match octets.try_into() {
                Ok(octets) => permutation.ipv4(octets).to_vec(),
                Err(_) => permutation.ipv6(octets.try_into().unwrap()).to_vec(),
            };
        }
    };
    becomes.to_be_bytes()[..octets.len()].to_vec()
}

/// What the transforms leave of a record, by definition.
pub(super) fn minimized(transforms: &Transforms, record: &Record, keys: Option<&RecipientKeys>) -> Record {
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
        Some(Transform::ListedPorts { below, listed })
            if port >= *below && !listed.ports().contains(&port) =>
        {
            0
        }
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

/// Whether both directions of a flow are there, and neither is of resets alone or of ICMP.
fn is_answered(record: &Record, all: &[Record]) -> bool {
    type Ends = [(Vec<u8>, u16); 2];
    let ends = |record: &Record| -> Ends {
        let tuple = &record.tuple;
        let addresses = if tuple.tags().is_ipv6() {
            let (source, destination) = tuple.ipv6();
            [source.to_vec(), destination.to_vec()]
        } else {
            let (source, destination) = tuple.ipv4();
            [source.to_vec(), destination.to_vec()]
        };
        let [source, destination] = addresses;
        [(source, tuple.source_port()), (destination, tuple.destination_port())]
    };
    let speaks = |other: &Record| match other.tuple.protocol() {
        1 | 58 => false,
        6 => other.control_bits & 0x0f != 0x04,
        _ => true,
    };
    let [source, destination] = ends(record);
    [[source.clone(), destination.clone()], [destination, source]].iter().all(|direction| {
        let is_same =
            |other: &&Record| other.tuple.protocol() == record.tuple.protocol() && ends(other) == *direction;
        all.iter().filter(is_same).any(speaks)
    })
}

/// The view of packets by definition: what is exported, and the residual record.
pub(super) fn expected(
    recipient: &Recipient,
    packets: &[Record],
    stored: &[Record],
    keys: &RecipientKeys,
) -> (Vec<Record>, Option<Record>) {
    let mut records = Vec::<(Record, HashSet<(bool, [u64; 2])>)>::new();
    let mut held_back = Vec::new();
    for (packet, own) in packets.iter().zip(stored) {
        let record = minimized(&recipient.fields, packet, Some(keys));
        if recipient.mitigations.established_only && !is_answered(own, stored) {
            held_back.push(record);
            continue;
        }
        let stored = own;
        let words = stored.tuple.addresses;
        let ipv6 = stored.tuple.tags().is_ipv6();
        let source = (
            ipv6,
            if ipv6 {
                // The network gives the first 64 bits.
                [words[0], 0]
            } else {
                [words[0] & u64::from_ne_bytes([255, 255, 255, 255, 0, 0, 0, 0]), 0]
            },
        );
        let (ipv4, source_ipv6) = (stored.tuple.ipv4().0, stored.tuple.ipv6().0);
        let is_counted = recipient.counted == Sources::All
            || is_domestic(if ipv6 { source_ipv6.as_slice() } else { ipv4.as_slice() });
        let source = is_counted.then_some(source);
        let same = |(known, _): &&mut (Record, _)| {
            (known.tuple, known.selector_id) == (record.tuple, record.selector_id)
        };
        if let Some((known, sources)) = records.iter_mut().find(same) {
            assert!(known.absorb(&record));
            sources.extend(source);
        } else {
            records.push((record, HashSet::from_iter(source)));
        }
    }
    let k = recipient.k_threshold.map_or(0, |k| usize::try_from(k).unwrap());
    let least = u64::from(recipient.mitigations.min_packets);
    let (kept, folded) = records
        .into_iter()
        .partition::<Vec<_>, _>(|(record, sources)| sources.len() >= k && record.packets >= least);
    let folded = folded.into_iter().map(|(record, _)| record).chain(held_back).reduce(|mut sum, record| {
        assert!(sum.absorb(&record));
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
