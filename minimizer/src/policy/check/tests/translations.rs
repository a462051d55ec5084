//! The network's own translations: what their RFCs permit, and one meaning of each address.

use super::{SCOPE, parse, refused, with_section};
use crate::policy::class::Class;
use crate::policy::translation::Mechanism;

fn with(keys: &str) -> String {
    with_section(&format!("{SCOPE}{keys}"))
}

#[test]
fn each_mechanism_has_its_key() {
    let policy = parse(&with(
        "nat64 = [\"64:ff9b:1:9::/96\", \"2001:db8:6400::/40\"]\n\
         6rd = [{ ipv6 = \"2001:db8:6::/48\", ipv4 = \"192.0.2.0/24\" }, { ipv6 = \"2a00::/24\" }]\n\
         map = [{ ipv6 = \"2a01::/40\", ipv4 = \"192.0.2.0/24\", ea_bits = 16 }]\n\
         isatap = [\"2001:db8:1:2::/64\"]",
    ))
    .expect("is fine");
    let listed: Vec<_> = policy.translations.iter().map(ToString::to_string).collect();
    let expected = [
        "64:ff9b:1:9::/96 (NAT64)",
        "2001:db8:1:2:0:5efe::/96 (ISATAP)",
        "2001:db8:1:2:200:5efe::/96 (ISATAP)",
        "2001:db8:6::/48 (6rd of 192.0.2.0/24)",
        "2001:db8:6400::/40 (NAT64)",
        "2a00::/24 (6rd)",
        "2a01::/40 (MAP of 192.0.2.0/24)",
    ];
    assert_eq!(listed, expected);
    let prefixes = policy.scope.expect("has a scope").prefixes;
    assert!(prefixes.iter().all(|(_, class)| *class != Class::Embedded), "{prefixes:?}");
    let twice = parse(&with("nat64 = [\"2001:db8:64::/96\", \"2001:db8:64::/96\"]")).expect("is fine");
    assert_eq!(twice.translations.len(), 1);
    assert_eq!(twice.translations[0].mechanism, Mechanism::Nat64);
}

#[test]
fn what_no_rfc_permits_is_refused_with_cause_and_fix() {
    let rule = |key: &str, ipv6: &str, more: &str| format!("{key} = [{{ ipv6 = \"{ipv6}\", {more} }}]");
    for (keys, said) in [
        ("nat64 = [\"2001:db8:64::/60\"]".to_owned(), "has not 32, 40, 48, 56, 64, or 96 bits"),
        ("nat64 = [\"2001:db8:64::1\"]".to_owned(), "write one of these lengths"),
        ("nat64 = [\"192.0.2.0/24\"]".to_owned(), "no prefix of IPv6"),
        ("nat64 = [\"64:ff9b::/96\"]".to_owned(), "anyway (NAT64)"),
        ("nat64 = [\"2002:c000:200::/96\"]".to_owned(), "anyway (6to4)"),
        ("nat64 = [\"nat64\"]".to_owned(), "is no prefix"),
        (rule("6rd", "2001:db8::/48", "ipv4 = \"10.0.0.0/8\""), "are more than 64 bits"),
        (rule("6rd", "2001:db8::/32", "ipv4 = \"2001:db8::/32\""), "no prefix of IPv4"),
        (rule("6rd", "192.0.2.0/24", "ipv4 = \"192.0.2.0/24\""), "write one like 2001:db8::/32"),
        (rule("6rd", "2002:1::/32", "ipv4 = \"192.0.2.0/24\""), "anyway (6to4)"),
        (rule("6rd", "2001:db8::1/32", "ipv4 = \"192.0.2.0/24\""), "write 2001:db8::/32"),
        (rule("6rd", "2000::/8", "ipv4 = \"192.0.0.0/16\""), "in two ways, because 2002::/16 (6to4)"),
        (
            rule("map", "2001:db8::/41", "ipv4 = \"192.0.2.0/24\", ea_bits = 24"),
            "24 EA bits are more than 64",
        ),
        (rule("map", "2001:db8::/32", "ipv4 = \"192.0.2.0/24\", ea_bits = 25"), "16 of a port set"),
        (rule("map", "2001:db8::/40", "ipv4 = \"192.0.2.0/24\""), "missing field `ea_bits`"),
        ("isatap = [\"2001:db8::/48\"]".to_owned(), "list each /64 of the site"),
        ("isatap = [\"2002::/16\"]".to_owned(), "has not 64 bits"),
    ] {
        refused(&with(&keys), &["p.toml:5:", said]);
    }
}

#[test]
fn no_address_has_two_meanings() {
    let domestic = SCOPE.replace("192.0.2.0/24", "2001:db8:64::/96");
    refused(
        &with_section(&format!("{domestic}nat64 = [\"2001:db8:64::/96\"]")),
        &["2001:db8:64::/96 is listed as embedded IPv4 here and as domestic in the policy"],
    );
    let two = "6rd = [{ ipv6 = \"2001:db8::/32\" }]\n";
    for other in [
        "nat64 = [\"2001:db8::/32\"]",
        "nat64 = [\"2001:db8:6400::/40\"]",
        "map = [{ ipv6 = \"2001:db8:100::/40\", ipv4 = \"192.0.2.0/24\", ea_bits = 16 }]",
    ] {
        refused(&with(&format!("{two}{other}")), &["would be judged in two ways", "remove one of the two"]);
    }
    // The inner one decides: it is longer than whatever the outer one makes.
    parse(&with(&format!("{two}isatap = [\"2001:db8:c000:221::/64\", \"2002:c000:221:1::/64\"]")))
        .expect("is fine");
    parse(&with(&format!("{two}nat64 = [\"2001:db8:64::/96\"]"))).expect("is fine");
}

#[test]
fn customers_who_are_not_domestic_and_many_forms_are_cautioned_of() {
    let cautions = |keys: &str| {
        let policy = parse(&with(keys)).unwrap_or_else(|error| panic!("{error}"));
        policy.cautions(jiff::Timestamp::UNIX_EPOCH).join(" ")
    };
    let said = cautions("6rd = [{ ipv6 = \"2a00::/32\", ipv4 = \"192.0.0.0/16\" }]");
    assert!(said.contains("are not domestic, in 2a00::/32 (6rd of 192.0.0.0/16)"), "{said}");
    assert_eq!(
        cautions("6rd = [{ ipv6 = \"2a00::/32\", ipv4 = \"192.0.2.0/25\" }, { ipv6 = \"2a01::/32\" }]"),
        ""
    );
    let prefixes: Vec<_> = (0..500).map(|n| format!("\"10.{}.{}.0/24\"", n / 256, n % 256)).collect();
    let sites: Vec<_> = (0..1000).map(|n| format!("\"2001:db8:0:{n:x}::/64\"")).collect();
    let many = format!("never = [{}]\nisatap = [{}]", prefixes.join(", "), sites.join(", "));
    let said = cautions(&many);
    assert!(said.contains("repeat the listed IPv4 prefixes inside of IPv6"), "{said}");
}
