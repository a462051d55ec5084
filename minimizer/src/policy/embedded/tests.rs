//! The class of addresses that carry others, compared with what is written in words.

use super::{Class, Prefix, Translation, count, each};

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).expect("a prefix")
}

/// The class of an address: the longest prefix decides.
fn class(listed: &[(&str, Class)], own: &[Translation], address: &str) -> Class {
    let listed: Vec<_> = listed.iter().map(|(text, class)| (prefix(text), *class)).collect();
    let mut all = Vec::new();
    each(&listed, own, |prefix, class| all.push((prefix, class)));
    assert!(all.len() <= count(&listed, own), "{} of {}", all.len(), count(&listed, own));
    let (ipv6, octets) = match address.parse().expect("an address") {
        std::net::IpAddr::V4(address) => (false, address.to_ipv6_mapped().octets()),
        std::net::IpAddr::V6(address) => (true, address.octets()),
    };
    let mut address = Prefix { ipv6, octets, bits: if ipv6 { 128 } else { 32 } };
    if !ipv6 {
        address.octets = [0; 16];
        address.octets[..4].copy_from_slice(&octets[12..]);
    }
    let covering = || all.iter().filter(|(prefix, _)| prefix.covers(&address));
    if covering().any(|(_, class)| *class == Class::Never) {
        return Class::Never;
    }
    covering().max_by_key(|(prefix, _)| prefix.bits).map_or(Class::Foreign, |(_, class)| *class)
}

#[test]
fn an_embedded_address_has_the_class_of_its_ipv4_address() {
    let listed = [
        ("203.0.113.0/24", Class::Domestic),
        ("203.0.113.128/25", Class::Foreign),
        ("203.0.113.192/26", Class::Never),
        ("2001:db8::/32", Class::Domestic),
    ];
    let own = ["2001:db8:64::/96", "64:ff9b:1:9::/96"].map(|text| Translation::nat64(prefix(text)));
    for (last, expected) in [(1, Class::Domestic), (129, Class::Foreign), (200, Class::Never)] {
        assert_eq!(class(&listed, &own, &format!("203.0.113.{last}")), expected);
        let form = format!("cb00:71{last:02x}");
        for address in [
            format!("64:ff9b::{form}"),
            format!("64:ff9b:1:9::{form}"),
            format!("2001:db8:64::{form}"),
            format!("2002:{form}::1"),
            format!("::ffff:{form}"),
        ] {
            assert_eq!(class(&listed, &own, &address), expected, "{address}");
        }
    }
    for (address, expected) in [
        ("64:ff9b::198.51.100.1", Class::Foreign),
        ("64:ff9b::10.0.0.1", Class::Special),
        ("64:ff9b:1::203.0.113.1", Class::Special),
        ("2001:db8:64::198.51.100.1", Class::Foreign),
        ("2001:db8:64::10.0.0.1", Class::Special),
        ("2001:db8:64:1::1", Class::Domestic),
        ("2002:a00:1::1", Class::Special),
        ("2002:c633:6401::1", Class::Foreign),
        ("::ffff:224.0.0.1", Class::Special),
        ("fd00::1", Class::Special),
    ] {
        assert_eq!(class(&listed, &own, address), expected, "{address}");
    }
}

#[test]
fn what_is_listed_is_not_special() {
    let listed = [
        ("100.64.0.0/10", Class::Foreign),
        ("10.0.0.0/8", Class::Domestic),
        ("10.9.0.0/16", Class::Never),
        ("192.168.7.0/24", Class::Domestic),
        ("ff00::/8", Class::Foreign),
        ("2001::/32", Class::Never),
        ("64:ff9b::7f00:0/104", Class::Foreign),
        ("2002::/16", Class::Domestic),
    ];
    for (address, expected) in [
        ("100.64.1.1", Class::Foreign),
        ("10.1.1.1", Class::Domestic),
        ("10.9.1.1", Class::Never),
        ("192.168.7.1", Class::Domestic),
        ("192.168.8.1", Class::Special),
        ("172.16.0.1", Class::Special),
        ("ff02::1", Class::Foreign),
        ("2001::1", Class::Never),
        ("64:ff9b::100.64.1.1", Class::Foreign),
        ("64:ff9b::10.1.1.1", Class::Domestic),
        ("64:ff9b::10.9.1.1", Class::Never),
        ("64:ff9b::127.0.0.1", Class::Foreign),
        ("64:ff9b::192.168.8.1", Class::Special),
        // The policy lists 6to4 as a whole.
        ("2002:c0a8:801::1", Class::Domestic),
        ("2002:6440:1::1", Class::Foreign),
        ("2002:a09:1::1", Class::Never),
    ] {
        assert_eq!(class(&listed, &[], address), expected, "{address}");
    }
    let all = [("0.0.0.0/0", Class::Domestic), ("::/0", Class::Domestic)];
    for (address, expected) in [
        ("10.0.0.1", Class::Domestic),
        ("fe80::1", Class::Domestic),
        ("64:ff9b::10.0.0.1", Class::Domestic),
        ("2002:c633:6401::1", Class::Domestic),
    ] {
        assert_eq!(class(&all, &[], address), expected, "{address}");
    }
}

#[test]
fn translations_of_a_network_judge_as_their_rfcs_place_the_ipv4_address() {
    let listed = [
        ("203.0.113.0/24", Class::Domestic),
        ("203.0.113.128/25", Class::Foreign),
        ("203.0.113.192/26", Class::Never),
        ("2001:db8::/32", Class::Domestic),
        ("2001:db8:100:77::/64", Class::Foreign),
    ];
    let nat64 = |text| Translation::nat64(prefix(text));
    let mut own: Vec<_> = [
        "2001:db8:100::/40",
        "2001:db8:248::/48",
        "2001:db8:356:1200::/56",
        "2001:db8:464::/64",
        "2a00:32::/32",
    ]
    .map(nat64)
    .to_vec();
    own.push(Translation::six_rd(prefix("2a00:6d::/32"), prefix("203.0.113.0/24")));
    own.push(Translation::six_rd(prefix("2a01::/24"), prefix("0.0.0.0/0")));
    own.push(Translation::map(prefix("2a02::/40"), prefix("203.0.113.0/24"), 16));
    own.push(Translation::map(prefix("2a02:1::/40"), prefix("203.0.113.0/24"), 1));
    own.push(Translation::map(prefix("2a02:2::/56"), prefix("203.0.113.200"), 8));
    own.extend(Translation::isatap(prefix("2001:db8:1:2::/64")));
    for (address, expected) in [
        // 203.0.113.1, .129, .200, and 198.51.100.1, 10.0.0.1.
        ("2001:db8:1cb:71:1::", Class::Domestic),
        ("2001:db8:1cb:71:81::", Class::Foreign),
        ("2001:db8:1cb:71:c8::", Class::Never),
        ("2001:db8:1c6:3364:1::", Class::Foreign),
        ("2001:db8:10a:0:1::", Class::Special),
        ("2001:db8:248:cb00:71:100::", Class::Domestic),
        ("2001:db8:248:cb00:71:8100::", Class::Foreign),
        ("2001:db8:248:cb00:71:c800::9", Class::Never),
        ("2001:db8:248:a00:0:100::", Class::Special),
        ("2001:db8:356:12cb:0:7101::", Class::Domestic),
        ("2001:db8:356:12cb:0:7181::", Class::Foreign),
        ("2001:db8:464:0:cb:71:100:0", Class::Domestic),
        ("2001:db8:464:0:cb:71:8100:0", Class::Foreign),
        ("2001:db8:464:0:cb:71:c800:0", Class::Never),
        ("2001:db8:464:0:c6:3364:100:0", Class::Foreign),
        ("2001:db8:464:0:c0:a801:100:0", Class::Special),
        ("2a00:32:cb00:7101::1", Class::Domestic),
        ("2a00:32:cb00:71c8::1", Class::Never),
        // Bits 64 to 71 are not zero: nobody knows who it is, except where the bits in front decide.
        ("2001:db8:1cb:71:101::", Class::Special),
        ("2001:db8:1cb:72:101::", Class::Foreign),
        ("2001:db8:248:cb00:171:100::", Class::Special),
        ("2001:db8:464:0:1cb:71:100:0", Class::Special),
        // The scope lists a part itself.
        ("2001:db8:100:77::1", Class::Foreign),
        // 6rd: customers .1, .129, .200, with and without a common prefix.
        ("2a00:6d:100::1", Class::Domestic),
        ("2a00:6d:8100::1", Class::Foreign),
        ("2a00:6d:c8ff::1", Class::Never),
        ("2a01:cb:71:100::1", Class::Domestic),
        ("2a01:cb:71:8100::1", Class::Foreign),
        ("2a01:c6:3364:100::1", Class::Foreign),
        ("2a01:a:0:100::1", Class::Special),
        // MAP: with ports of an address, with half of the prefix, of which a part is never collected, and of one address.
        ("2a02:0:1:3400::1", Class::Domestic),
        ("2a02:0:81:3400::1", Class::Foreign),
        ("2a02:0:c8:3400::1", Class::Never),
        ("2a02:1:0::1", Class::Domestic),
        ("2a02:1:80::1", Class::Never),
        ("2a02:2::1", Class::Never),
        // ISATAP, and other addresses of the site.
        ("2001:db8:1:2:0:5efe:cb00:7101", Class::Domestic),
        ("2001:db8:1:2:200:5efe:cb00:7181", Class::Foreign),
        ("2001:db8:1:2:200:5efe:cb00:71c8", Class::Never),
        ("2001:db8:1:2:0:5efe:a00:1", Class::Special),
        ("2001:db8:1:2::7", Class::Domestic),
    ] {
        assert_eq!(class(&listed, &own, address), expected, "{address}");
    }
}

#[test]
fn customers_with_several_ipv4_addresses_are_protected_as_the_one_that_is_protected_most() {
    let rule = [Translation::map(prefix("2a02::/40"), prefix("203.0.113.0/24"), 2)];
    let listed = [
        ("203.0.113.0/26", Class::Foreign),
        ("203.0.113.8/29", Class::Domestic),
        ("203.0.113.64/26", Class::Domestic),
        ("203.0.113.72/29", Class::Foreign),
        ("203.0.113.129", Class::Never),
    ];
    for (address, expected) in [
        ("2a02::1", Class::Domestic),
        ("2a02:0:40::1", Class::Domestic),
        ("2a02:0:80::1", Class::Never),
        ("2a02:0:c0::1", Class::Foreign),
    ] {
        assert_eq!(class(&listed, &rule, address), expected, "{address}");
    }
    // All customers have one prefix.
    let rule = [Translation::map(prefix("2a02::/40"), prefix("203.0.113.0/24"), 0)];
    assert_eq!(class(&listed[..2], &rule, "2a02::1"), Class::Domestic);
}
