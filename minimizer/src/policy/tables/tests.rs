//! The kernel program finds in the tables what the policy says, line by line.

mod reference;
mod sizes;

use jiff::Timestamp;
use minimizer_common::outcome::Outcome;
use minimizer_common::plan::{Plan, Steps};
use minimizer_common::tables::{LIST_ENTRIES_MAX, NODE_WORDS};
use minimizer_ebpf::policy::judge::{Judgement, judge};

use super::{Built, TRIE_HOSTS_MAX, TableError, build};
use crate::policy::class::Class;
use crate::policy::indicators::Indicator;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::translation::Translation;
use reference::Packet;

fn plan(built: &Built) -> Plan {
    Plan { steps: built.steps.0, tables: built.tables, ..Plan::EXACT }
}

fn judged(built: &Built, packet: &Packet) -> Result<Judgement, Outcome> {
    let plan = plan(built);
    let seen = built.content.seen();
    let Packet { ports, protocol, now_seconds, .. } = *packet;
    let addresses = packet.addresses();
    if packet.ipv6 {
        judge::<true>(&seen, &plan, &addresses, ports, protocol, now_seconds)
    } else {
        judge::<false>(&seen, &plan, &addresses, ports, protocol, now_seconds)
    }
}

fn prefix(text: &str) -> Prefix {
    let (address, bits) = text.split_once('/').unwrap();
    let mut octets = [0; 16];
    let ipv6 = address.contains(':');
    if ipv6 {
        octets = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
    } else {
        octets[..4].copy_from_slice(&address.parse::<std::net::Ipv4Addr>().unwrap().octets());
    }
    Prefix { ipv6, octets, bits: bits.parse().unwrap() }
}

fn indicator(id: u64, at: Option<&str>) -> Indicator {
    Indicator { id, expires: None, prefix: at.map(prefix), protocol: None, ports: Vec::new() }
}

fn from_to(source: [u8; 4], destination: [u8; 4]) -> Packet {
    let mut packet =
        Packet { ipv6: false, octets: [[0; 16]; 2], ports: (1000, 443), protocol: 6, now_seconds: 100 };
    packet.octets[0][..4].copy_from_slice(&source);
    packet.octets[1][..4].copy_from_slice(&destination);
    packet
}

#[test]
fn without_scope_and_selectors_there_is_nothing_to_do() {
    let built = build(None, &[], None, None).unwrap();
    assert_eq!((built.content.nodes, built.steps), (vec![[0; NODE_WORDS]], Steps::NONE));
}

#[test]
fn a_few_hosts_take_a_node_for_each_table() {
    let built = build(None, &[], Some(&[indicator(7, Some("192.0.2.1/32"))]), None).unwrap();
    assert_eq!((built.content.nodes.len(), built.content.lists.len()), (3, 2));
    assert_eq!(built.selector_ids, [7]);
    let packet = from_to([192, 0, 2, 1], [198, 51, 100, 1]);
    assert_eq!(judged(&built, &packet).map(|judged| judged.selector), Ok(1));
    let packet = from_to([192, 0, 2, 2], [198, 51, 100, 1]);
    assert_eq!(judged(&built, &packet), Err(Outcome::NotSelected));
}

#[test]
fn an_empty_list_of_selectors_selects_nothing() {
    let built = build(None, &[], Some(&[]), None).unwrap();
    assert_eq!(judged(&built, &from_to([1; 4], [2; 4])), Err(Outcome::NotSelected));
}

#[test]
fn never_wins_inside_and_outside() {
    let prefixes = vec![
        (prefix("10.0.0.0/8"), Class::Never),
        (prefix("10.1.0.0/16"), Class::Domestic),
        (prefix("192.0.2.0/24"), Class::Domestic),
        (prefix("192.0.2.128/25"), Class::Never),
    ];
    let every = [Class::Foreign, Class::Domestic, Class::Never];
    let directions = every.into_iter().flat_map(|from| every.map(|to| (from, to))).collect();
    let built = build(Some(&Scope { prefixes, directions }), &[], None, None).unwrap();
    let class = |source: [u8; 4]| judged(&built, &from_to(source, [8; 4])).map(|judged| judged.source_class);
    assert_eq!(class([10, 1, 0, 1]), Err(Outcome::OutOfScope));
    assert_eq!(class([192, 0, 2, 200]), Err(Outcome::OutOfScope));
    assert_eq!(class([192, 0, 2, 100]), Ok(1));
    assert_eq!(class([192, 0, 3, 100]), Ok(0));
}

#[test]
fn an_indicator_ends_in_its_second() {
    let mut ends = indicator(1, Some("0.0.0.0/0"));
    for (expires, now_seconds, selected) in [
        (101, 100, true),
        (100, 100, false),
        (0, 1, false),
        (-5, 1, false),
        (i64::from(u32::MAX) + 9, 7, true),
    ] {
        ends.expires = Some(Timestamp::from_second(expires).unwrap());
        let built = build(None, &[], Some(std::slice::from_ref(&ends)), None).unwrap();
        let packet = Packet { now_seconds, ..from_to([1; 4], [2; 4]) };
        assert_eq!(judged(&built, &packet).is_ok(), selected, "{expires} {now_seconds}");
    }
}

#[test]
fn a_type_and_a_code_are_no_ports() {
    let ports = Indicator { ports: vec![(0, 65_535)], ..indicator(1, Some("1.1.1.1/32")) };
    let any = Indicator { ports: vec![(8, 8)], ..indicator(2, None) };
    let built = build(None, &[], Some(&[ports, any]), None).unwrap();
    let packet = Packet { ports: (8, 0), protocol: 1, ..from_to([1; 4], [2; 4]) };
    assert_eq!(judged(&built, &packet), Err(Outcome::NotSelected));
    let packet = Packet { protocol: 17, ..packet };
    assert_eq!(judged(&built, &packet).map(|judged| judged.selector), Ok(1));
    let packet = Packet { protocol: 17, ..from_to([3; 4], [2; 4]) };
    assert_eq!(judged(&built, &Packet { ports: (9, 8), ..packet }).map(|judged| judged.selector), Ok(2));
}

#[test]
fn ids_on_several_lines_share_a_number() {
    let lines =
        [indicator(9, Some("1.0.0.0/8")), indicator(4, Some("2.0.0.0/8")), indicator(9, Some("3.0.0.0/8"))];
    let built = build(None, &[], Some(&lines), None).unwrap();
    assert_eq!(built.selector_ids, [9, 4]);
    assert_eq!(judged(&built, &from_to([3; 4], [9; 4])).map(|judged| judged.selector), Ok(1));
}

#[test]
fn many_hosts_are_found_where_one_ipv6_address_carries_them() {
    let many: Vec<_> = (0..=TRIE_HOSTS_MAX)
        .map(|host| indicator(9, Some(&format!("198.51.{}.{}/32", 100 + host / 256, host % 256))))
        .collect();
    let scope = Scope {
        prefixes: vec![(prefix("203.0.113.0/24"), Class::Domestic)],
        directions: vec![(Class::Foreign, Class::Foreign)],
    };
    let own = [
        Translation::nat64(prefix("2001:db8:64::/48")),
        Translation::six_rd(prefix("2a00:6d::/32"), prefix("0.0.0.0/0")),
    ];
    let found = |hosts: &[Indicator], address: &str| {
        let built = build(Some(&scope), &own, Some(hosts), None).unwrap();
        let other: std::net::Ipv6Addr = "2a00::1".parse().unwrap();
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        let octets = [address.octets(), other.octets()];
        let packet = Packet { ipv6: true, octets, ports: (1, 2), protocol: 17, now_seconds: 100 };
        judged(&built, &packet).is_ok()
    };
    for (address, with_few, with_many) in [
        ("64:ff9b::198.51.100.7", true, true),
        ("2001:db8:64:c633:64:700::", true, true),
        ("2001:db8:64:c633:64:700::1", true, false),
        ("2a00:6d:c633:6407::1", true, false),
        ("2001:db8:64:c633:6e:700::", false, false),
    ] {
        assert_eq!(found(&many[..9], address), with_few, "{address}");
        assert_eq!(found(&many, address), with_many, "{address}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let error = |scope: Option<&Scope>, selectors: &[Indicator]| {
        build(scope, &[], Some(selectors), None).unwrap_err()
    };
    assert!(matches!(error(None, &[indicator(3, None)]), TableError::SelectsAll { id: 3 }));

    let many =
        |at: &str| (1..=LIST_ENTRIES_MAX as u64 + 1).map(|id| indicator(id, Some(at))).collect::<Vec<_>>();
    for at in ["10.0.0.0/9", "10.0.0.1/32", "2001:db8::/33", "2001:db8::1/128"] {
        let TableError::TooManyApply { place, count } = error(None, &many(at)) else { panic!("{at}") };
        assert_eq!((place.as_str(), count), (at, LIST_ENTRIES_MAX + 1));
        build(None, &[], Some(&many(at)[1..]), None).unwrap();
    }
    let ports =
        (1..=33).map(|id| Indicator { ports: vec![(5, 443)], ..indicator(id, None) }).collect::<Vec<_>>();
    assert!(error(None, &ports).to_string().contains("port 5"));

    let prefixes = vec![(prefix("10.0.0.0/8"), Class::Domestic), (prefix("10.0.0.0/8"), Class::Foreign)];
    let scope = Scope { prefixes, directions: Vec::new() };
    assert!(error(Some(&scope), &[]).to_string().contains("10.0.0.0/8"));
}
