//! The key of a record's flow, and the partition for the key.

use std::convert::Infallible;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use crate::policy::field::{Field, Fields};
use crate::records::fields::{Number, Reader, Variant, done, read_one};
use crate::records::record::Record;

/// Octets of a message's key.
pub const KEY_OCTETS: usize = 8;

/// The fields that make a flow, in the order in which they are hashed.
const KEY_FIELDS: [Field; 11] = [
    Field::SourceIPv4Address,
    Field::DestinationIPv4Address,
    Field::SourceIPv6Address,
    Field::DestinationIPv6Address,
    Field::SourceTransportPort,
    Field::DestinationTransportPort,
    Field::IcmpTypeIPv4,
    Field::IcmpCodeIPv4,
    Field::IcmpTypeIPv6,
    Field::IcmpCodeIPv6,
    Field::ProtocolIdentifier,
];

/// The key of the record's flow: SipHash-2-4 under the key 0 of those of its addresses, ports, ICMP type and code and
/// protocol that its recipient receives. `None` if the recipient receives none of them.
///
/// It tells nothing that the record does not tell, and is the same on every host and after every start.
#[must_use]
pub fn key(record: &Record, fields: Fields) -> Option<[u8; KEY_OCTETS]> {
    let present = fields.and(Variant::of(record).fields());
    let mut key = FlowKey { hasher: SipHasher24::new(), record, is_empty: true };
    for field in KEY_FIELDS.into_iter().filter(|field| present.has(*field)) {
        done(read_one(field, &mut key));
    }
    (!key.is_empty).then(|| key.hasher.finish().to_be_bytes())
}

/// Hashes each value after the number of its field.
struct FlowKey<'record> {
    hasher: SipHasher24,
    record: &'record Record,
    is_empty: bool,
}

impl FlowKey<'_> {
    fn add(&mut self, field: Field, value: &[u8]) {
        self.hasher.write(&field.number().to_be_bytes());
        self.hasher.write(value);
        self.is_empty = false;
    }
}

impl Reader for FlowKey<'_> {
    type Error = Infallible;

    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), Infallible> {
        // ICMP types and codes are hashed as two octets, like ports. Other keys would move flows to other partitions.
        let octets = if field == Field::ProtocolIdentifier { 1 } else { 2 };
        let value: u64 = of(self.record).into();
        self.add(field, &value.to_be_bytes()[8 - octets..]);
        Ok(())
    }

    fn ipv4(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), Infallible> {
        self.add(field, &of(self.record));
        Ok(())
    }

    fn ipv6(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), Infallible> {
        self.add(field, &of(self.record));
        Ok(())
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
