//! Special addresses, and IPv4 addresses inside of IPv6 addresses: what the program in the kernel collects of their packets.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use minimizer::kernel::features::Kernel;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::model::Policy;
use minimizer::records::record::Record;
use minimizer_common::outcome::Outcome::{self, Counted, NotSelected, OutOfScope, ReservedAddress};
use tests::drained::drained;
use tests::minimum::{IF_INDEX, load};

const SCOPE: &str = "tunnels = [\"gtp-u\"]\n[scope]\n\
    domestic = [\"203.0.113.0/24\", \"2001:db8:100::/40\"]\n\
    never = [\"203.0.113.128/26\"]\n\
    nat64 = [\"2001:db8:164::/96\", \"64:ff9b:1:9::/96\"]\n\
    directions = [\"foreign-foreign\", \"foreign-domestic\", \"domestic-foreign\"]\n";
const RECIPIENT: &str = "[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n[recipients.fields]\n\
    packetDeltaCount = \"exact\"\nprotocolIdentifier = \"exact\"\n";
/// Parties: domestic and foreign of each IP version, and one of whom nothing is ever collected.
const HOME: &str = "203.0.113.7";
const HOME6: &str = "2001:db8:100::7";
const ABROAD: &str = "198.51.100.7";
const ABROAD6: &str = "2001:db8:900::7";
const NEVER: &str = "203.0.113.129";

/// An IP packet with a UDP header and these octets behind.
fn packet(source: &str, destination: &str, port: u16, behind: &[u8]) -> Vec<u8> {
    let length = |octets: usize| u16::try_from(octets + behind.len()).expect("short").to_be_bytes();
    let mut packet = Vec::new();
    match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend([0x45, 0]);
            packet.extend(length(28));
            packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
            packet.extend(source.octets().into_iter().chain(destination.octets()));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length(8));
            packet.extend([17, 64]);
            packet.extend(source.octets().into_iter().chain(destination.octets()));
        }
        mixed => panic!("{mixed:?}"),
    }
    packet.extend([0xc0, 0]);
    packet.extend(port.to_be_bytes());
    packet.extend(length(8));
    packet.extend([0, 0]);
    packet.extend(behind);
    packet
}

/// The frame of a packet of IPv4 or IPv6.
fn frame(packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&[2; 12], &ether_type[..], packet].concat()
}

/// A packet inside of GTP-U, between these gateways.
fn in_gtp_u_between(source: &str, destination: &str, inner: &[u8]) -> Vec<u8> {
    let length = u16::try_from(inner.len()).expect("short").to_be_bytes();
    let message = [&[0x30, 0xff], &length[..], &[0, 0, 0, 1], inner].concat();
    frame(&packet(source, destination, 2152, &message))
}

/// A packet inside of GTP-U, between gateways.
fn in_gtp_u(inner: &[u8]) -> Vec<u8> {
    in_gtp_u_between(HOME, ABROAD, inner)
}

/// The outcome of each frame, and the records, under a policy of this text.
fn outcomes(text: &str, frames: &[Vec<u8>]) -> (Vec<Outcome>, Vec<Record>) {
    let text = format!("name = \"p\"\n{text}{RECIPIENT}");
    let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    let compiled = Arc::new(CompiledPolicy::compile(policy).expect("compiles"));
    let mut program = load(Kernel::detect(), &compiled, None).expect("loads");
    let mut all = Vec::new();
    let mut outcomes = Vec::new();
    for frame in frames {
        program.run(frame).expect("the kernel runs it");
        let (records, totals) = drained(&mut program, &[IF_INDEX]).expect("drains");
        let counts = totals.interfaces[0].outcomes;
        let ended = [Counted, OutOfScope, NotSelected, ReservedAddress]
            .into_iter()
            .find(|it| counts[*it as usize] == 1);
        outcomes.push(ended.unwrap_or_else(|| panic!("{counts:?}")));
        all.extend(records);
    }
    (outcomes, all)
}

/// Checks how packets end under a policy, in both directions.
fn check(text: &str, cases: &[(&str, &str, Outcome)]) {
    let there = cases.iter().map(|(one, other, _)| frame(&packet(one, other, 443, &[])));
    let back = cases.iter().map(|(one, other, _)| frame(&packet(other, one, 443, &[])));
    let frames: Vec<_> = there.chain(back).collect();
    let (outcomes, _) = outcomes(text, &frames);
    for (position, outcome) in outcomes.into_iter().enumerate() {
        let (one, other, expected) = cases[position % cases.len()];
        assert_eq!(outcome, expected, "{one} and {other}, packet {position}");
    }
}

/// The forms of an IPv4 address inside of IPv6 addresses: NAT64 of every network and of this one, 6to4, IPv4-mapped.
fn forms(ipv4: &str) -> [String; 5] {
    let octets = match ipv4.parse().expect("an address") {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => panic!("{address}"),
    };
    let (high, low) = (octets >> 16, octets & 0xffff);
    [
        format!("64:ff9b::{ipv4}"),
        format!("64:ff9b:1:9::{ipv4}"),
        format!("2001:db8:164::{ipv4}"),
        format!("2002:{high:x}:{low:x}::1"),
        format!("::ffff:{ipv4}"),
    ]
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_ipv6_address_that_carries_an_ipv4_address_is_judged_as_this_one() {
    for (ipv4, with_home, with_abroad) in [
        (HOME, OutOfScope, Counted),
        (ABROAD, Counted, Counted),
        (NEVER, OutOfScope, OutOfScope),
        ("10.0.0.1", OutOfScope, OutOfScope),
        ("100.64.0.1", OutOfScope, OutOfScope),
    ] {
        for form in forms(ipv4) {
            check(SCOPE, &[(HOME6, &form, with_home), (ABROAD6, &form, with_abroad)]);
        }
    }
    // RFC 8215: a prefix that the policy does not name, and what lies beside the network's own.
    check(
        SCOPE,
        &[
            (HOME6, "64:ff9b:1::203.0.113.7", OutOfScope),
            (ABROAD6, "64:ff9b:1::198.51.100.7", OutOfScope),
            (ABROAD6, "2001:db8:164:1::1", Counted),
            (HOME6, "2001:db8:164:1::1", OutOfScope),
        ],
    );
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_networks_own_translations_are_judged_by_the_ipv4_address_in_them() {
    let scope = "[scope]\ndomestic = [\"203.0.113.0/24\", \"2001:db8:100::/40\"]\n\
        foreign = [\"203.0.113.32/27\"]\n\
        never = [\"203.0.113.128/26\"]\n\
        nat64 = [\"2001:db8:3200::/40\", \"2001:db8:164::/48\", \"2001:db8:264:1::/64\", \"2a00:64::/32\"]\n\
        6rd = [{ ipv6 = \"2a00:6d::/32\", ipv4 = \"203.0.113.0/24\" }, { ipv6 = \"2a01::/24\" }]\n\
        map = [{ ipv6 = \"2a02::/40\", ipv4 = \"203.0.113.0/24\", ea_bits = 16 }, \
               { ipv6 = \"2a02:1::/40\", ipv4 = \"203.0.113.0/24\", ea_bits = 1 }]\n\
        isatap = [\"2001:db8:900:2::/64\"]\n\
        directions = [\"foreign-foreign\", \"foreign-domestic\", \"domestic-foreign\"]\n";
    // Of 203.0.113.7, .33 and .129: domestic, foreign and never.
    let forms = [
        ["2001:db8:32cb:71:7::", "2001:db8:32cb:71:21::", "2001:db8:32cb:71:81::9"],
        ["2001:db8:164:cb00:71:700::", "2001:db8:164:cb00:71:2100::", "2001:db8:164:cb00:71:8100::9"],
        ["2001:db8:264:1:cb:71:700:0", "2001:db8:264:1:cb:71:2100:0", "2001:db8:264:1:cb:71:8100:9"],
        ["2a00:64:cb00:7107::1", "2a00:64:cb00:7121::1", "2a00:64:cb00:7181::1"],
        ["2a00:6d:700::1", "2a00:6d:2100::1", "2a00:6d:8100::1"],
        ["2a01:cb:71:700::1", "2a01:cb:71:2100::1", "2a01:cb:71:8100::1"],
        ["2a02:0:7:1200::1", "2a02:0:21:1200::1", "2a02:0:81:1200::1"],
        ["2a02:1::1", "2a01:cb:71:2100::2", "2a02:1:80::1"],
        [
            "2001:db8:900:2:0:5efe:203.0.113.7",
            "2001:db8:900:2:200:5efe:203.0.113.33",
            "2001:db8:900:2:200:5efe:203.0.113.129",
        ],
    ];
    for [domestic, foreign, never] in forms {
        check(
            scope,
            &[
                (HOME6, domestic, OutOfScope),
                (ABROAD6, domestic, Counted),
                (HOME6, foreign, Counted),
                (ABROAD6, never, OutOfScope),
            ],
        );
    }
    check(
        scope,
        &[
            // A private address, bits that must be zero and are not, and who is no host of ISATAP.
            (ABROAD6, "2001:db8:264:1:a:0:100:0", OutOfScope),
            (ABROAD6, "2001:db8:264:1:1cb:71:700:0", OutOfScope),
            (HOME6, "2001:db8:900:2::7", Counted),
        ],
    );
    let selected = format!("{scope}[selectors]\nindicators = [\"1 - 198.51.100.7\"]\n");
    check(
        &selected,
        &[
            (HOME6, "2001:db8:264:1:c6:3364:700:0", Counted),
            (HOME6, "2a01:c6:3364:700::9", Counted),
            (HOME6, "2001:db8:900:2:0:5efe:198.51.100.7", Counted),
            (HOME6, "2a01:c6:3364:800::9", NotSelected),
        ],
    );
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn special_addresses_are_not_collected_unless_the_policy_lists_them() {
    // CGN, private, DS-Lite, loopback, link-local, DHCP, IPTV and IGMP, then reserved ranges.
    let ipv4 = "100.64.0.1 100.127.255.254 10.0.0.1 172.16.0.1 192.168.0.1 192.0.0.2 127.0.0.1 \
        169.254.0.1 0.0.0.0 255.255.255.255 239.192.0.1 224.0.0.22 240.0.0.1 192.88.99.1";
    // Unique-local, link-local, MLD, DHCPv6, Teredo, loopback and others.
    let ipv6 = "fd00::1 fe80::1 ff02::16 ff02::1:2 2001:0:c633:6407::1 ::1 ::203.0.113.7 fec0::1 \
        100::1 5f00::1";
    let mut cases = Vec::new();
    for special in ipv4.split_whitespace() {
        cases.extend([(HOME, special, OutOfScope), (ABROAD, special, OutOfScope)]);
    }
    for special in ipv6.split_whitespace() {
        cases.extend([(HOME6, special, OutOfScope), (ABROAD6, special, OutOfScope)]);
    }
    // Examples and benchmarks use documentation and benchmarking ranges.
    cases.extend([
        (HOME, "192.0.2.1", Counted),
        (HOME, "198.18.0.1", Counted),
        (HOME6, "2001:2::1", Counted),
    ]);
    check(SCOPE, &cases);
    let everything: Vec<_> = cases.iter().map(|(one, other, _)| (*one, *other, Counted)).collect();
    check("", &everything);
    let listed = SCOPE.replace(
        "never = [",
        "foreign = [\"100.64.0.0/10\", \"10.1.0.0/16\", \"fc00::/7\"]\nnever = [\"ff00::/8\", ",
    );
    check(
        &listed.replace("domestic = [", "domestic = [\"192.168.0.0/16\", "),
        &[
            (HOME, "100.64.0.1", Counted),
            (HOME6, "64:ff9b::100.64.0.1", Counted),
            (HOME, "10.1.0.1", Counted),
            (HOME, "10.2.0.1", OutOfScope),
            (HOME6, "fd00::1", Counted),
            (ABROAD6, "ff02::16", OutOfScope),
            (ABROAD, "192.168.0.1", Counted),
            (HOME, "192.168.0.1", OutOfScope),
        ],
    );
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_private_address_of_a_handset_is_special_inside_of_gtp_u() {
    let (outcomes, _) = outcomes(
        SCOPE,
        &[
            in_gtp_u(&packet("10.0.0.1", ABROAD, 443, &[])),
            in_gtp_u(&packet(ABROAD, "10.0.0.1", 443, &[])),
            in_gtp_u(&packet(HOME, ABROAD, 443, &[])),
            in_gtp_u(&packet(HOME6, &format!("64:ff9b::{HOME}"), 443, &[])),
        ],
    );
    assert_eq!(outcomes, [OutOfScope, OutOfScope, Counted, OutOfScope]);
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn indicators_of_ipv4_select_addresses_that_carry_them() {
    let indicators = "[selectors]\nindicators = [\"1 - 198.51.100.7 udp/443\", \"2 - 198.51.100.64/28\"]\n";
    let cases: Vec<_> =
        [("198.51.100.7", Counted), ("198.51.100.70", Counted), ("198.51.100.8", NotSelected)]
            .into_iter()
            .flat_map(|(ipv4, outcome)| forms(ipv4).map(|form| (form, outcome)))
            .collect();
    let cases: Vec<_> = cases.iter().map(|(form, outcome)| (HOME6, &**form, *outcome)).collect();
    let frames: Vec<_> = cases.iter().map(|(one, other, _)| frame(&packet(one, other, 443, &[]))).collect();
    let fields = "selectorId = \"exact\"\n";
    let text = format!("{SCOPE}{indicators}");
    let (ended, _) = outcomes(&text, &frames);
    let expected: Vec<_> = cases.iter().map(|(.., outcome)| *outcome).collect();
    assert_eq!(ended, expected);
    let policy = format!("name = \"p\"\n{text}{RECIPIENT}{fields}");
    let policy = Policy::parse(&policy, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    let compiled = Arc::new(CompiledPolicy::compile(policy).expect("compiles"));
    let mut program = load(Kernel::detect(), &compiled, None).expect("loads");
    for frame in &frames {
        program.run(frame).expect("the kernel runs it");
    }
    let (records, _) = drained(&mut program, &[IF_INDEX]).expect("drains");
    let of = |id: u64| -> u64 {
        records.iter().filter(|record| record.selector_id == id).map(|record| record.packets).sum()
    };
    assert_eq!((of(1), of(2)), (5, 5));

    // Without scope and prefixes only NAT64 is looked for: it costs no look-up of its own for IPv4.
    let hosts = "[selectors]\nindicators = [\"1 - 198.51.100.7\"]\n";
    let [nat64, _, _, six_to_four, mapped] = forms("198.51.100.7");
    let frames = [nat64, six_to_four, mapped].map(|form| frame(&packet(HOME6, &form, 443, &[])));
    assert_eq!(outcomes(hosts, &frames).0, [Counted, NotSelected, NotSelected]);
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn who_forges_a_pseudonym_is_in_no_record() {
    let scope = "[scope]\ndomestic = [\"203.0.113.0/24\", \"2001:db8:100::/40\"]\n\
        foreign = [\"240.0.0.0/4\", \"fd00::/8\"]\n\
        directions = [\"foreign-foreign\", \"foreign-domestic\", \"domestic-foreign\"]\n";
    let forged = ["240.0.0.0", "247.1.2.3", "255.255.255.254", "fd6d:696e:696d:697a::7"];
    let honest = ["239.255.255.255", "255.255.255.255", "fd6d:696e:696d:697b::7", "198.51.100.7"];
    let home = |address: &str| if address.contains(':') { HOME6 } else { HOME };
    let cases = |outcome: Outcome, special: Outcome| {
        let forged = forged.iter().map(move |address| (*address, home(address), outcome));
        let honest = honest.iter().map(move |address| {
            // Multicast stays special; the rest is listed as foreign, or is it.
            (*address, home(address), if address.starts_with("239") { special } else { Counted })
        });
        forged.chain(honest).collect::<Vec<_>>()
    };
    let pseudonyms = |version: &str| {
        format!(
            "[[recipients]]\nname = \"p\"\npurpose = \"to test\"\n[recipients.fields]\n\
             sourceIPv{version}Address = {{ foreign = \"exact\", domestic = \"pseudonym\" }}\n\
             protocolIdentifier = \"exact\"\n"
        )
    };
    check(scope, &cases(Counted, OutOfScope));
    let acknowledged = "acknowledged = [\"p and q together get more than each of them\"]\n";
    let both =
        format!("{acknowledged}{scope}{}{}", pseudonyms("4"), pseudonyms("6").replace("\"p\"", "\"q\""));
    check(&both, &cases(ReservedAddress, OutOfScope));
    // A policy that makes pseudonyms of one IP version only: the other has no such address.
    let ipv6 = forged.iter().filter(|address| address.contains(':'));
    let ipv4_only = format!("{scope}{}", pseudonyms("4"));
    check(&ipv4_only, &ipv6.map(|address| (*address, HOME6, Counted)).collect::<Vec<_>>());
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn under_other_prefixes_no_pseudonym_of_a_party_is_that_of_another() {
    let pseudonyms = |domestic: &str| {
        let text = format!(
            "[scope]\ndomestic = [{domestic}]\ndirections = [\"domestic-foreign\"]\n\
             [[recipients]]\nname = \"p\"\npurpose = \"to test\"\n[recipients.fields]\n\
             sourceIPv4Address = \"pseudonym\"\nprotocolIdentifier = \"exact\"\n"
        );
        let sources = (0..64).flat_map(|host| [format!("203.0.113.{host}"), format!("192.0.2.{host}")]);
        let frames = sources.map(|source| frame(&packet(&source, ABROAD, 443, &[]))).collect::<Vec<_>>();
        let (_, records) = outcomes(&text, &frames);
        records.iter().map(|record| record.tuple.ipv4().0).collect::<BTreeSet<_>>()
    };
    // One rank for two parties, under one key.
    let before = pseudonyms("\"203.0.113.0/24\"");
    let after = pseudonyms("\"192.0.2.0/24\", \"203.0.113.0/24\"");
    assert_eq!((before.len(), after.len()), (64, 128));
    assert!(before.is_disjoint(&after), "{:?}", before.intersection(&after));
}

/// A packet of IPv4 whose header has options, which are padded to whole words.
fn with_options(source: &str, destination: &str, options: &[u8]) -> Vec<u8> {
    let plain = packet(source, destination, 443, &[]);
    let padding = vec![0; options.len().wrapping_neg() % 4];
    let options = [options, &padding].concat();
    let mut packet = [&plain[..20], &options, &plain[20..]].concat();
    packet[0] = 0x45 + u8::try_from(options.len() / 4).expect("at most 40 octets");
    let length = u16::try_from(packet.len()).expect("short");
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    frame(&packet)
}

/// A packet of IPv6 with a routing header: its type, the segments that are left, its addresses.
fn routed(source: &str, destination: &str, kind: u8, left: u8, addresses: &[&str]) -> Vec<u8> {
    let plain = packet(source, destination, 443, &[]);
    let mut header = vec![17, u8::try_from(2 * addresses.len()).expect("few"), kind, left, 0, 0, 0, 0];
    for address in addresses {
        let IpAddr::V6(address) = address.parse().expect("an address") else { panic!("{address}") };
        header.extend(address.octets());
    }
    let mut packet = [&plain[..40], &header, &plain[40..]].concat();
    packet[6] = 43;
    let length = u16::try_from(packet.len() - 40).expect("short");
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    frame(&packet)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_sender_who_chooses_the_way_hides_no_party() {
    const RECORD_ROUTE: [u8; 7] = [7, 7, 4, 0, 0, 0, 0];
    const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];
    let loose = [131, 7, 4, 198, 51, 100, 9];
    let strict = [137, 7, 4, 198, 51, 100, 9];
    let cases = vec![
        (with_options(HOME, ABROAD, &ROUTER_ALERT), Counted),
        (with_options(HOME, ABROAD, &[1, 1, 1, 0]), Counted),
        (with_options(HOME, ABROAD, &[7, 3, 4, 0]), Counted),
        (with_options(HOME, ABROAD, &loose), OutOfScope),
        (with_options(HOME, ABROAD, &strict), OutOfScope),
        (with_options(HOME, ABROAD, &[131, 3, 4, 0]), OutOfScope),
        (with_options(HOME, ABROAD, &[1, 137, 3, 4]), OutOfScope),
        // Of longer options only the first are read.
        (with_options(HOME, ABROAD, &[&[1][..], &RECORD_ROUTE, &ROUTER_ALERT, &loose].concat()), OutOfScope),
        (with_options(HOME, ABROAD, &RECORD_ROUTE), OutOfScope),
        (with_options(HOME, ABROAD, &[1; 40]), OutOfScope),
        // Where a packet with segments left ends, only its routing header says; without one it is there.
        (routed(HOME6, ABROAD6, 4, 1, &[HOME6, ABROAD6]), OutOfScope),
        (routed(HOME6, ABROAD6, 2, 1, &[HOME6]), OutOfScope),
        (routed(HOME6, ABROAD6, 0, 2, &[ABROAD6, HOME6]), OutOfScope),
        (routed(HOME6, ABROAD6, 253, 1, &[ABROAD6]), OutOfScope),
        (routed(HOME6, ABROAD6, 4, 0, &[HOME6, ABROAD6]), Counted),
        (routed(HOME6, ABROAD6, 253, 0, &[ABROAD6]), Counted),
    ];
    let (frames, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(outcomes(SCOPE, &frames).0, expected);
    // Without a scope nobody judges the way.
    let all = [routed(HOME6, ABROAD6, 4, 1, &[HOME6, ABROAD6]), with_options(HOME, ABROAD, &loose)];
    assert_eq!(outcomes("", &all).0, [Counted, Counted]);
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn outer_addresses_are_parties_unless_tunnels_of_the_network_end_there() {
    // Gateways of the network, of which one is domestic and one special, and one of each IP version.
    const GATES: [&str; 2] = ["203.0.113.3", "10.1.0.3"];
    const GATES6: [&str; 2] = ["2001:db8:100:f::3", "2001:db8:900:f::3"];
    let scope = |endpoints: &str| {
        format!(
            "tunnels = [\"gtp-u\"]\n[scope]\ndomestic = [\"203.0.113.0/24\", \"2001:db8:100::/40\"]\n\
             never = [\"203.0.113.128/26\", \"198.51.100.128/26\"]\n{endpoints}\
             directions = [\"foreign-foreign\", \"foreign-domestic\", \"domestic-foreign\"]\n"
        )
    };
    let with = scope(
        "tunnel_endpoints = [\"203.0.113.0/30\", \"10.1.0.0/16\", \"203.0.113.129/32\", \"2001:db8:100:f::/64\", \
         \"2001:db8:900:f::/64\"]\n",
    );
    let up = packet(HOME, ABROAD, 443, &[]);
    let inside = packet(HOME, "203.0.113.9", 443, &[]);
    let abroad = packet(ABROAD, "198.51.100.9", 443, &[]);
    let six = packet(HOME6, ABROAD6, 443, &[]);
    let of_never = packet(NEVER, ABROAD, 443, &[]);
    let cases = [
        // Between endpoints only the parties inside count.
        ((GATES[0], GATES[1]), &up, Counted, OutOfScope),
        ((GATES[0], GATES[1]), &inside, OutOfScope, OutOfScope),
        ((GATES[0], GATES[1]), &abroad, Counted, OutOfScope),
        ((GATES6[0], GATES6[1]), &six, Counted, Counted),
        ((GATES6[0], GATES6[1]), &up, Counted, Counted),
        ((GATES[0], GATES[1]), &of_never, OutOfScope, OutOfScope),
        // A roaming partner abroad: the party is foreign, and the inner destination is judged with it.
        ((ABROAD, GATES[0]), &up, Counted, Counted),
        ((ABROAD, GATES[0]), &inside, OutOfScope, OutOfScope),
        ((GATES[0], ABROAD), &up, Counted, Counted),
        // A subscriber who tunnels to the gateway, and the gateway to it.
        ((HOME, GATES[0]), &up, Counted, OutOfScope),
        ((HOME, GATES[0]), &packet(ABROAD, HOME, 443, &[]), OutOfScope, OutOfScope),
        ((GATES[0], HOME), &packet(ABROAD, HOME, 443, &[]), Counted, OutOfScope),
        ((GATES[0], HOME), &up, OutOfScope, OutOfScope),
        // A tunnel of others is judged by both pairs.
        ((ABROAD, "198.51.100.9"), &up, Counted, Counted),
        ((ABROAD, "198.51.100.9"), &inside, OutOfScope, OutOfScope),
        ((HOME, "203.0.113.9"), &up, OutOfScope, OutOfScope),
        ((HOME, ABROAD), &abroad, Counted, Counted),
        // What is never collected is so outside, too, and at an endpoint.
        ((ABROAD, "198.51.100.129"), &up, OutOfScope, OutOfScope),
        ((NEVER, GATES[0]), &up, OutOfScope, OutOfScope),
    ];
    let frames = cases.iter().map(|((from, to), inner, ..)| in_gtp_u_between(from, to, inner));
    let frames = frames.collect::<Vec<_>>();
    let expected = |without: bool| {
        cases.iter().map(move |(.., with, other)| if without { *other } else { *with }).collect::<Vec<_>>()
    };
    assert_eq!(outcomes(&with, &frames).0, expected(false));
    assert_eq!(outcomes(&scope(""), &frames).0, expected(true));

    // A fragment of UDP may be one of GTP-U: the first one, and a later one.
    let fragment = |source: &str, destination: &str, offset: u8| {
        let mut fragment = packet(source, destination, 2152, &[0; 16]);
        fragment[6..8].copy_from_slice(&[0x20, offset]);
        frame(&fragment)
    };
    let [to, other, gate] = [ABROAD, "198.51.100.9", GATES[0]];
    let fragments = [(to, other, 0), (to, other, 8), (to, gate, 0), (gate, to, 8)]
        .map(|(source, destination, offset)| fragment(source, destination, offset));
    assert_eq!(outcomes(&with, &fragments).0, [Counted, Counted, OutOfScope, OutOfScope]);
    assert_eq!(outcomes(&scope(""), &fragments).0, [Counted; 4]);

    // A later fragment of IPv6 says what the fragmented part begins with: an extension header, and nobody knows what is behind it.
    let later = |destination: &str, protocol: u8| {
        let mut fragment = packet(ABROAD6, destination, 2152, &[0; 16]);
        fragment[6] = 44;
        fragment[40..48].copy_from_slice(&[protocol, 0, 0, 8, 0, 0, 0, 1]);
        frame(&fragment)
    };
    let fragments = [60, 0, 43, 17, 6].map(|protocol| later(GATES6[0], protocol));
    assert_eq!(outcomes(&with, &fragments).0, [OutOfScope, OutOfScope, OutOfScope, OutOfScope, Counted]);
    assert_eq!(outcomes(&with, &[later("2001:db8:900:a::9", 60)]).0, [Counted]);
}
