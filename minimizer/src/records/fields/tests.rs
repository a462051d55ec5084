//! Which fields records have, and with which values, written out for every kind of packet.

use std::convert::Infallible;

use minimizer_common::tuple::{Tags, Tuple};

use super::{Number, Reader, Variant, done, octets, read_all, read_one};
use crate::policy::field::{Field, Fields};
use crate::records::record::Record;

/// Names and values in the order in which they are read.
struct Read<'record> {
    record: &'record Record,
    all: Vec<(&'static str, u128)>,
}

impl Reader for Read<'_> {
    type Error = Infallible;

    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), Infallible> {
        assert_eq!(octets(field), size_of::<N>());
        let value: u64 = of(self.record).into();
        self.all.push((field.name(), value.into()));
        Ok(())
    }

    fn ipv4(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), Infallible> {
        self.all.push((field.name(), u32::from_be_bytes(of(self.record)).into()));
        Ok(())
    }

    fn ipv6(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), Infallible> {
        self.all.push((field.name(), u128::from_be_bytes(of(self.record))));
        Ok(())
    }
}

fn record(tags: Tags, ports: (u16, u16), protocol: u8, selector_id: u64) -> Record {
    let [first, second] = [u64::from_ne_bytes([1; 8]), u64::from_ne_bytes([2; 8])];
    let ipv4 = u64::from_ne_bytes([1, 1, 1, 1, 2, 2, 2, 2]);
    let addresses = if tags.is_ipv6() { [first, first, second, second] } else { [ipv4, 0, 0, 0] };
    Record {
        tuple: Tuple::new(addresses, ports, tags, protocol, 11),
        ingress_interface: 12,
        control_bits: 0x313,
        packets: 14,
        octets: 15,
        start_ms: 16,
        end_ms: 17,
        selector_id,
    }
}

fn read(record: &Record, fields: Fields) -> Vec<(&'static str, u128)> {
    let mut read = Read { record, all: Vec::new() };
    done(read_all(fields, Variant::of(record), &mut read));
    read.all
}

/// What a record has of its own kind, without what all have.
fn own(record: &Record) -> Vec<(&'static str, u128)> {
    let common = [
        ("protocolIdentifier", u128::from(record.tuple.protocol())),
        ("ipClassOfService", 11),
        ("ingressInterface", 12),
        ("packetDeltaCount", 14),
        ("octetDeltaCount", 15),
        ("flowStartMilliseconds", 16),
        ("flowEndMilliseconds", 17),
    ];
    let mut all = read(record, Fields::ALL);
    let present: Vec<_> = all.iter().copied().filter(|entry| common.contains(entry)).collect();
    assert_eq!(present, common);
    all.retain(|entry| !common.contains(entry));
    all
}

#[test]
fn records_have_the_fields_of_their_packets() {
    let addresses = [("sourceIPv4Address", 0x0101_0101), ("destinationIPv4Address", 0x0202_0202)];
    let ports = [("sourceTransportPort", 1000), ("destinationTransportPort", 443)];
    let tcp = record(Tags::NONE, (1000, 443), 6, 0);
    assert_eq!(own(&tcp), [&addresses[..], &ports, &[("tcpControlBits", 0x313)]].concat());
    for protocol in [17, 33, 132, 136] {
        assert_eq!(own(&record(Tags::NONE, (1000, 443), protocol, 0)), [addresses, ports].concat());
    }
    let icmp = record(Tags::NONE, (3, 4), 1, 0);
    assert_eq!(own(&icmp), [addresses, [("icmpTypeIPv4", 3), ("icmpCodeIPv4", 4)]].concat());
    let icmpv6 = record(Tags::NONE, (3, 4), 58, 0);
    assert_eq!(own(&icmpv6), [addresses, [("icmpTypeIPv6", 3), ("icmpCodeIPv6", 4)]].concat());
    assert_eq!(own(&record(Tags::NONE, (0, 0), 47, 0)), addresses);
    let tagged = record(Tags::NONE.with_vlan(7), (0, 0), 47, 0);
    assert_eq!(own(&tagged), [&addresses[..], &[("vlanId", 7)]].concat());
    let all = record(Tags::NONE.with_vlan(7).with_vlan(8).with_ipv6(), (0, 0), 47, 1 << 40);
    let expected = [
        ("sourceIPv6Address", u128::from_be_bytes([1; 16])),
        ("destinationIPv6Address", u128::from_be_bytes([2; 16])),
        ("vlanId", 7),
        ("dot1qCustomerVlanId", 8),
        ("selectorId", 1 << 40),
    ];
    assert_eq!(own(&all), expected);
}

#[test]
fn fields_are_read_alike_one_by_one_and_all_at_once() {
    let vlans = Tags::NONE.with_vlan(7).with_vlan(8);
    for (tags, protocol) in
        [(vlans, 6), (vlans.with_ipv6(), 17), (Tags::NONE, 1), (Tags::NONE.with_ipv6(), 58)]
    {
        let record = record(tags, (3, 4), protocol, 9);
        let present = Variant::of(&record).fields();
        let mut one_by_one = Read { record: &record, all: Vec::new() };
        for field in Field::ALL.iter().filter(|field| present.has(**field)) {
            done(read_one(*field, &mut one_by_one));
        }
        assert_eq!(one_by_one.all, read(&record, Fields::ALL));
        for field in Field::ALL {
            let wanted = read(&record, Fields::NONE.with(*field));
            assert_eq!(wanted.first().map(|(name, _)| *name), present.has(*field).then(|| field.name()));
        }
    }
}
