//! What mitigations hold back, by packets whose answer is known. All of it is in the sum.

use std::path::Path;

use minimizer_common::protocol::{ICMP, TCP, UDP};
use minimizer_common::tuple::{Tags, Tuple};

use super::definition::minimized;
use super::view;
use crate::policy::model::Policy;
use crate::policy::transform::{PSH, RST, SYN};
use crate::records::record::Record;
use crate::records::view::threshold::NO_FLOW;

const PROBER: [u8; 4] = [198, 51, 100, 7];
/// Domestic by [`super::classes`].
const SUBSCRIBER: [u8; 4] = [10, 0, 0, 1];
const ACK: u16 = 0x10;

/// A policy whose first recipient has these keys. Its domestic prefixes are those of [`super::classes`].
fn policy(keys: &str, fields: &str, others: &str) -> Policy {
    let text = format!(
        "name = \"p\"\ninterval = \"10s\"\n[scope]\ndomestic = [\"10.0.0.0/8\", \"2001:db8::/32\"]\nforeign = [\"10.9.0.0/16\"]\n\
         directions = [\"foreign-domestic\", \"domestic-foreign\"]\n\
         [[recipients]]\nname = \"soc\"\npurpose = \"to look\"\n{keys}\n[recipients.fields]\nprotocolIdentifier = \"exact\"\n\
         sourceIPv4Address = {{ foreign = {{ truncate = 24 }}, domestic = \"pseudonym\" }}\n\
         destinationIPv4Address = {{ foreign = {{ truncate = 24 }}, domestic = \"pseudonym\" }}\n\
         sourceIPv6Address = {{ foreign = {{ truncate = 48 }}, domestic = \"pseudonym\" }}\n\
         destinationIPv6Address = {{ foreign = {{ truncate = 48 }}, domestic = \"pseudonym\" }}\n\
         packetDeltaCount = \"exact\"\noctetDeltaCount = \"exact\"\n{fields}\n{others}"
    );
    Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
}

/// IPv4 packets from one end to the other, on an interface.
fn packets(from: ([u8; 4], u16), to: ([u8; 4], u16), protocol: u8, interface: u32) -> Record {
    let octets = [from.0, to.0].concat();
    let addresses = [u64::from_ne_bytes(octets.try_into().expect("eight")), 0, 0, 0];
    let tags = Tags::NONE.with_interface(interface);
    Record {
        tuple: Tuple::new(addresses, (from.1, to.1), tags, protocol, 0),
        packets: 3,
        octets: 180,
        ..NO_FLOW
    }
}

/// The packets that answer these, on another interface and with another traffic class.
fn answer(record: &Record) -> Record {
    let (source, destination) = record.tuple.ipv4();
    let (from, to) = (record.tuple.source_port(), record.tuple.destination_port());
    let answer = packets((destination, to), (source, from), record.tuple.protocol(), 1);
    let tuple = Tuple::new(
        answer.tuple.addresses,
        (to, from),
        answer.tuple.tags().with_vlan(7),
        answer.tuple.protocol(),
        8,
    );
    Record { tuple, control_bits: record.control_bits, ..answer }
}

/// How many records the first recipient gets of these packets. The rest is in the sum, and nothing vanishes.
fn records(policy: &Policy, packets: &[Record]) -> usize {
    let collected = policy.collected().fields;
    let stored: Vec<_> = packets.iter().map(|packet| minimized(&collected, packet, None)).collect();
    let viewed = view(&policy.recipients[0], &collected, 1).of(&stored);
    let sum = |of: fn(&Record) -> u64, records: &[Record]| records.iter().map(of).sum::<u64>();
    for (of, suppressed) in
        [(packets_of as fn(&Record) -> u64, viewed.suppressed.packets), (octets_of, viewed.suppressed.octets)]
    {
        assert_eq!(sum(of, &viewed.records) + suppressed, sum(of, packets), "something vanished");
        assert_eq!(viewed.residual.as_ref().map_or(0, of), suppressed);
    }
    if let Some(residual) = viewed.residual {
        assert_eq!((residual.tuple, residual.control_bits, residual.selector_id), (NO_FLOW.tuple, 0, 0));
    }
    viewed.records.len()
}

fn packets_of(record: &Record) -> u64 {
    record.packets
}

fn octets_of(record: &Record) -> u64 {
    record.octets
}

/// 127 subscribers, each with its number in the port that a packet goes to.
#[test]
fn a_mark_in_packets_that_nobody_answers_reaches_nobody() {
    let fields = "destinationTransportPort = { services_below = 1024 }\nsourceTransportPort = { services_below = 1024 }";
    let probes: Vec<_> = (1..128)
        .map(|number| packets((PROBER, 443), ([10, 0, 0, number], u16::from(number)), UDP, 0))
        .collect();
    assert_eq!(records(&policy("", fields, ""), &probes), 127, "each tells one subscriber");
    let established = policy("established_only = true", fields, "");
    assert_eq!(records(&established, &probes), 0);
    let mut answered = probes;
    answered.push(answer(&answered[6]));
    assert_eq!(records(&established, &answered), 2, "both directions of the one flow that was answered");
}

#[test]
fn the_answer_is_found_by_what_is_stored_and_not_by_what_the_recipient_gets() {
    // A recipient without ports and with a /24 of the prober: another host of it talks with the subscriber.
    let neighbour = packets(([198, 51, 100, 8], 443), (SUBSCRIBER, 50_000), TCP, 0);
    let talk = [neighbour, answer(&neighbour)];
    let keyed = "{ foreign = \"exact\", domestic = \"pseudonym\" }";
    let more: String = ["sourceIPv4", "destinationIPv4", "sourceIPv6", "destinationIPv6"]
        .map(|side| format!("{side}Address = {keyed}\n"))
        .concat();
    let less = "sourceIPv4Address = { foreign = { truncate = 16 }, domestic = \"omit\" }\n";
    for other in ["", &more, less] {
        let others = if other.is_empty() {
            String::new()
        } else {
            format!("[[recipients]]\nname = \"other\"\npurpose = \"to look\"\n[recipients.fields]\n{other}")
        };
        let policy = policy("established_only = true", "", &others);
        assert_eq!(records(&policy, &talk), 2, "{others}");
        let sums = |probe: Record| {
            let collected = policy.collected().fields;
            let all = [talk[0], talk[1], probe];
            let stored: Vec<_> = all.iter().map(|packet| minimized(&collected, packet, None)).collect();
            view(&policy.recipients[0], &collected, 1).of(&stored).suppressed.packets
        };
        for probe in [
            packets((PROBER, 443), (SUBSCRIBER, 50_000), TCP, 0),
            packets(([198, 51, 100, 8], 443), (SUBSCRIBER, 50_001), TCP, 0),
            packets(([198, 51, 100, 8], 444), (SUBSCRIBER, 50_000), TCP, 0),
            packets(([198, 51, 100, 8], 443), (SUBSCRIBER, 50_000), UDP, 0),
            packets(([198, 51, 100, 8], 443), ([10, 0, 0, 2], 50_000), TCP, 0),
        ] {
            assert_eq!(sums(probe), 3, "nobody answered {probe:?} under {others}");
        }
        assert_eq!(sums(talk[0]), 0, "more of the same flow");
    }
}

#[test]
fn what_any_host_sends_is_no_answer() {
    let policy = policy("established_only = true", "", "");
    let with = |bits: u16, record: Record| Record { control_bits: bits, ..record };
    let probe = with(SYN, packets((PROBER, 40_000), (SUBSCRIBER, 443), TCP, 0));
    for (bits, expected) in
        [(RST | ACK, 0), (RST, 0), (SYN | ACK, 2), (ACK, 2), (RST | ACK | PSH, 2), (SYN | ACK | RST, 2)]
    {
        assert_eq!(records(&policy, &[probe, with(bits, answer(&probe))]), expected, "{bits:#x}");
    }
    // One packet of an answer on another interface is enough.
    let reset = with(RST | ACK, answer(&probe));
    assert_eq!(records(&policy, &[probe, reset, with(SYN | ACK, answer(&answer(&reset)))]), 2);
    let echo = packets((PROBER, 8), (SUBSCRIBER, 0), ICMP, 0);
    let reply = packets((SUBSCRIBER, 0), (PROBER, 0), ICMP, 1);
    assert_eq!(records(&policy, &[echo, reply]), 0, "any host answers an echo");
    let quiet = packets((SUBSCRIBER, 40_000), (PROBER, 53), UDP, 1);
    assert_eq!(records(&policy, &[quiet]), 0, "one direction, whoever began");
    assert_eq!(records(&policy, &[quiet, answer(&quiet)]), 2);
    // A fragment that is not the first has no ports.
    let fragment = packets((PROBER, 0), (SUBSCRIBER, 0), UDP, 0);
    assert_eq!(records(&policy, &[quiet, answer(&quiet), fragment]), 2);
    let tunnel = packets((PROBER, 0), (SUBSCRIBER, 0), 50, 0);
    assert_eq!(
        records(&policy, &[tunnel, answer(&tunnel)]),
        2,
        "protocols without ports, by their addresses"
    );
}

#[test]
fn ipv6_is_answered_like_ipv4() {
    let policy = policy("established_only = true", "", "");
    let host = |last: u64| [u64::from_ne_bytes([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0]), last.to_be()];
    let foreign = [u64::from_ne_bytes([0x2a, 0, 0, 0, 0, 0, 0, 1]), 7_u64.to_be()];
    let packets = |from: ([u64; 2], u16), to: ([u64; 2], u16)| {
        let addresses = [from.0[0], from.0[1], to.0[0], to.0[1]];
        let tuple = Tuple::new(addresses, (from.1, to.1), Tags::NONE.with_ipv6(), UDP, 0);
        Record { tuple, packets: 1, octets: 60, ..NO_FLOW }
    };
    let probe = packets((foreign, 4000), (host(1), 53));
    let answer = packets((host(1), 53), (foreign, 4000));
    assert_eq!(records(&policy, &[probe]), 0);
    assert_eq!(records(&policy, &[probe, answer]), 2);
    assert_eq!(records(&policy, &[probe, packets((host(2), 53), (foreign, 4000))]), 0);
}

#[test]
fn records_of_few_packets_are_in_the_sum() {
    let fields = "destinationTransportPort = \"exact\"";
    let few = packets((PROBER, 443), (SUBSCRIBER, 1), UDP, 0);
    for (keys, expected) in [("", 1), ("min_packets = 3", 1), ("min_packets = 4", 0)] {
        assert_eq!(records(&policy(keys, fields, ""), &[few]), expected, "{keys}");
    }
    let policy = policy("min_packets = 4", fields, "");
    let more = packets((PROBER, 444), (SUBSCRIBER, 1), UDP, 1);
    assert_eq!(records(&policy, &[few, more]), 1, "they are one record of the recipient");
    let other = packets((PROBER, 444), (SUBSCRIBER, 2), UDP, 1);
    assert_eq!(records(&policy, &[few, other]), 0);
}
