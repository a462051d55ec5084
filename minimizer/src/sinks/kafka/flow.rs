//! The key of a record's flow, and the partition for the key.

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::policy::field::{Field, Fields};
use crate::records::record::{Record, Transport};

/// Octets of a message's key.
pub const KEY_OCTETS: usize = 8;

/// The key of the record's flow: a SipHash-2-4, under the key 0, of addresses, ports, ICMP type and code, and protocol, as far
/// as the recipient receives them. `None` when the recipient receives none of them.
///
/// It reveals nothing that the record does not contain, and is the same on every host and after every start.
#[must_use]
pub fn key(record: &Record, fields: Fields) -> Option<[u8; KEY_OCTETS]> {
    let mut flow = FlowHash { hasher: SipHasher24::new(), fields, is_empty: true };
    let tuple = &record.tuple;
    if tuple.tags().is_ipv6() {
        let (source, destination) = tuple.ipv6();
        flow.address(Field::SourceIPv6Address, source.into());
        flow.address(Field::DestinationIPv6Address, destination.into());
    } else {
        let (source, destination) = tuple.ipv4();
        flow.address(Field::SourceIPv4Address, source.into());
        flow.address(Field::DestinationIPv4Address, destination.into());
    }
    let (first, second) = (tuple.source_port(), tuple.destination_port());
    let [first_field, second_field] = match Transport::of(tuple.protocol()) {
        Transport::Tcp | Transport::Ports => [Field::SourceTransportPort, Field::DestinationTransportPort],
        Transport::Icmp => [Field::IcmpTypeIPv4, Field::IcmpCodeIPv4],
        Transport::IcmpV6 => [Field::IcmpTypeIPv6, Field::IcmpCodeIPv6],
        Transport::Other => return flow.end(tuple.protocol()),
    };
    flow.add(first_field, &first.to_be_bytes());
    flow.add(second_field, &second.to_be_bytes());
    flow.end(tuple.protocol())
}

struct FlowHash {
    hasher: SipHasher24,
    fields: Fields,
    is_empty: bool,
}

impl FlowHash {
    /// Adds the number of a field and its value, if the recipient receives the field.
    fn add(&mut self, field: Field, value: &[u8]) {
        if self.fields.has(field) {
            self.hasher.write(&field.number().to_be_bytes());
            self.hasher.write(value);
            self.is_empty = false;
        }
    }

    fn address(&mut self, field: Field, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.add(field, &address.octets()),
            IpAddr::V6(address) => self.add(field, &address.octets()),
        }
    }

    fn end(mut self, protocol: u8) -> Option<[u8; KEY_OCTETS]> {
        self.add(Field::ProtocolIdentifier, &[protocol]);
        (!self.is_empty).then(|| self.hasher.finish().to_be_bytes())
    }
}

/// The partition for a key, chosen as Kafka's own clients do.
///
/// # Panics
/// When there are no partitions.
#[must_use]
pub fn partition(key: &[u8], partitions: usize) -> usize {
    let positive = murmur2(key) & 0x7fff_ffff;
    positive as usize % partitions
}

/// Austin Appleby's MurmurHash2 with the seed of Kafka's clients.
fn murmur2(octets: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let length = u32::try_from(octets.len()).expect("a key has few octets");
    let (words, rest) = octets.as_chunks::<4>();
    let mut hash = words.iter().fold(SEED ^ length, |hash, word| {
        let mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        hash.wrapping_mul(FACTOR) ^ (mixed ^ mixed >> 24).wrapping_mul(FACTOR)
    });
    if !rest.is_empty() {
        let rest = rest.iter().rev().fold(0, |rest, octet| rest << 8 | u32::from(*octet));
        hash = (hash ^ rest).wrapping_mul(FACTOR);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(FACTOR);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use minimizer_common::tuple::{Tags, Tuple};

    use super::{key, murmur2, partition};
    use crate::policy::field::{Field, Fields};
    use crate::records::record::Record;

    fn record(addresses: [u64; 4], ports: (u16, u16), tags: Tags, protocol: u8) -> Record {
        Record {
            tuple: Tuple::new(addresses, ports, tags, protocol, 0),
            ingress_interface: 2,
            control_bits: 0x12,
            packets: 1,
            octets: 40,
            start_ms: 1,
            end_ms: 2,
            selector_id: 0,
        }
    }

    #[test]
    fn partitions_are_those_of_other_clients() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
        assert_eq!(partition(b"abc", 7), 479_470_107 % 7);
    }

    #[test]
    fn a_key_depends_on_what_the_recipient_receives_and_on_nothing_else() {
        let one = record([0x0102_0304_0506_0708, 0, 0, 0], (1000, 53), Tags::NONE.with_interface(1), 17);
        let mut again = record([0x0102_0304_0506_0708, 0, 0, 0], (1000, 53), Tags::NONE.with_vlan(7), 17);
        (again.packets, again.end_ms, again.control_bits) = (9, 9, 0);
        assert_eq!(key(&one, Fields::ALL), key(&again, Fields::ALL));
        let other = record([0x0102_0304_0506_0708, 0, 0, 0], (1001, 53), Tags::NONE, 17);
        assert_ne!(key(&one, Fields::ALL), key(&other, Fields::ALL));
        let few = Fields::NONE.with(Field::DestinationTransportPort).with(Field::ProtocolIdentifier);
        assert_eq!(key(&one, few), key(&other, few));
        let counts = Fields::NONE.with(Field::PacketDeltaCount).with(Field::FlowEndMilliseconds);
        assert_eq!(key(&one, counts), None);
    }

    #[test]
    fn equal_octets_in_different_fields_are_different_flows() {
        let version_4 = record([7, 0, 0, 0], (8, 0), Tags::NONE, 1);
        let version_6 = record([7, 0, 0, 0], (8, 0), Tags::NONE.with_ipv6(), 58);
        assert_ne!(key(&version_4, Fields::ALL), key(&version_6, Fields::ALL));
        let types = Fields::NONE.with(Field::IcmpTypeIPv4).with(Field::IcmpTypeIPv6);
        assert_ne!(key(&version_4, types), key(&version_6, types));
    }

    #[test]
    fn a_key_stays_the_same() {
        let flow = record(
            [u64::from_ne_bytes([192, 0, 2, 1, 198, 51, 100, 2]), 0, 0, 0],
            (1024, 443),
            Tags::NONE,
            6,
        );
        let key = key(&flow, Fields::ALL).map(u64::from_be_bytes);
        assert_eq!(key, Some(0x5102_4796_bfc8_711d), "{key:x?}");
    }
}
