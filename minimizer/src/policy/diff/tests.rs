//! Every kind of difference, and that its direction reverses when the policies change places.

use std::path::Path;

use super::{Difference, Effect};
use crate::policy::model::Policy;

const BASE: &str = r#"
name = "p"
serial = 7
interval = "10s"
[mandate]
id = "1"
purpose = "x"
legal_basis = "y"
valid_from = 2026-01-01T00:00:00Z
valid_until = 2026-07-01T00:00:00Z
[scope]
domestic = ["192.0.2.0/24"]
never = ["198.51.100.0/24"]
directions = ["foreign-domestic"]
[selectors]
indicators = ["7 2026-12-31T00:00:00Z 203.0.113.7"]
[pseudonyms]
epoch = "24h"
[[recipients]]
name = "r"
purpose = "z"
retention = "30 days"
k_threshold = 10
[recipients.fields]
protocolIdentifier = "exact"
destinationIPv4Address = { truncate = 16 }
"#;

fn diff(before: &str, after: &str) -> Vec<Difference> {
    let parse =
        |text: &str| Policy::parse(text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
    parse(before).diff(&parse(after))
}

/// Checks that replacing one text by the other is wider, and the reverse narrower.
fn wider(from: &str, to: &str, about: &str) {
    assert!(BASE.contains(from), "{from}");
    let changed = BASE.replacen(from, to, 1);
    for (before, after, way) in [(BASE, &*changed, Effect::Wider), (&changed, BASE, Effect::Narrower)] {
        let differences = diff(before, after);
        let found = differences.iter().find(|difference| difference.about == about);
        let found = found.unwrap_or_else(|| panic!("{about} is missing in {differences:?}"));
        assert_eq!(found.way, way, "{found}");
    }
}

/// The effect of the first difference about this.
fn way_of(before: &str, after: &str, about: &str) -> Effect {
    let differences = diff(before, after);
    let found = differences.iter().find(|difference| difference.about == about);
    found.unwrap_or_else(|| panic!("{about} is missing in {differences:?}")).way
}

#[test]
fn a_policy_does_not_differ_from_itself() {
    assert_eq!(diff(BASE, BASE), []);
    assert_eq!(diff(BASE, &format!("# a comment\n{BASE}")), []);
}

#[test]
fn what_joins_the_records_of_two_recipients_is_wider() {
    let other =
        "[[recipients]]\nname = \"s\"\npurpose = \"z\"\nfields = { protocolIdentifier = \"exact\" }\n";
    let before = format!("unlinkable = [[\"r\", \"s\"]]\n{BASE}{other}");
    let after = format!("{BASE}{other}").replacen("k_threshold = 10\n", "", 1).replace(
        "fields = { protocolIdentifier",
        "fields = { destinationIPv4Address = { truncate = 16 }, protocolIdentifier",
    );
    for (before, after, way) in [(&before, &after, Effect::Wider), (&after, &before, Effect::Narrower)] {
        let differences = diff(before, after);
        for about in ["unlinkable, r and s", "records of r and s"] {
            let found = differences.iter().find(|difference| difference.about == about);
            assert_eq!(found.map(|difference| difference.way), Some(way), "{about}: {differences:?}");
        }
    }
}

#[test]
fn what_collects_or_tells_more_is_wider() {
    wider("2026-01-01", "2025-12-01", "mandate, valid from");
    wider("2026-07-01", "2026-12-01", "mandate, valid until");
    wider(
        "[\"foreign-domestic\"]",
        "[\"foreign-domestic\", \"domestic-foreign\"]",
        "direction domestic-foreign",
    );
    wider("00Z 203.0.113.7\"]", "00Z 203.0.113.7\", \"8 - * udplite\"]", "selectors");
    wider("2026-12-31", "2027-12-31", "selectors");
    wider("[selectors]\nindicators = [\"7 2026-12-31T00:00:00Z 203.0.113.7\"]", "", "selectors");
    wider("\"24h\"", "\"48h\"", "pseudonym epoch");
    wider("retention = \"30 days\"", "retention = \"31 days\"", "recipient r, retention");
    wider("retention = \"30 days\"", "", "recipient r, retention");
    wider("interval = \"10s\"", "interval = { min = \"5s\", max = \"10s\" }", "interval");
    wider("serial = 7", "serial = 7\nallow_serial = 6", "allow_serial");
    let longest = "max_period = \"2 years\"\nmax_retention = \"30 days\"";
    wider("legal_basis = \"y\"", &format!("legal_basis = \"y\"\n{longest}"), "mandate, max_period");
    let anywhere = "retention = \"30 days\"";
    let one = "destinations = [{ host = \"a.example\", port = 4739, country = \"JP\" }]";
    let somewhere = BASE.replace(anywhere, &format!("{anywhere}\n{one}"));
    let about = "recipient r, destinations";
    assert_eq!(way_of(&somewhere, BASE, about), Effect::Wider);
    assert_eq!(way_of(BASE, &somewhere, about), Effect::Narrower);
    let elsewhere = somewhere.replace("a.example", "b.example");
    assert_eq!(way_of(&somewhere, &elsewhere, about), Effect::Wider);
    let counted = BASE.replace("k_threshold = 10", "k_threshold = 10\nk_counts = \"domestic\"");
    assert_eq!(way_of(&counted, BASE, "recipient r, k_counts"), Effect::Wider);
    wider("k_threshold = 10", "k_threshold = 9", "recipient r, k_threshold");
    wider("k_threshold = 10", "", "recipient r, k_threshold");
    wider("truncate = 16", "truncate = 17", "recipient r, destinationIPv4Address");
    wider("truncate = 16", "truncate = 17", "kept in the kernel, destinationIPv4Address");
    wider("protocolIdentifier", "vlanId = \"exact\"\nprotocolIdentifier", "recipient r, vlanId");
    let scope = &BASE[BASE.find("[scope]").expect("is there")..BASE.find("[selectors]").expect("is there")];
    let words =
        "serial = 7\nacknowledged = [\"every communication is collected, between domestic parties too\"]";
    let everything = BASE.replacen(scope, "", 1).replace("serial = 7", words);
    assert_eq!(way_of(BASE, &everything, "scope"), Effect::Wider);
    assert_eq!(way_of(&everything, BASE, "scope"), Effect::Narrower);
    let mandate = &BASE[BASE.find("[mandate]").expect("is there")..BASE.find("[scope]").expect("is there")];
    wider(mandate, "", "mandate");
    let another = "[[recipients]]\nname = \"s\"\npurpose = \"z\"\nfields = { ipClassOfService = \"exact\" }\n[[recipients]]";
    wider("[[recipients]]", another, "recipient s");
}

#[test]
fn what_somebody_approved_is_wider_whichever_way_it_changes() {
    for (from, to, about) in [
        ("purpose = \"z\"", "purpose = \"w\"", "recipient r, purpose"),
        ("purpose = \"x\"", "purpose = \"w\"", "mandate, purpose"),
        ("legal_basis = \"y\"", "legal_basis = \"w\"", "mandate, legal basis"),
        ("name = \"r\"", "name = \"s\"", "recipient s"),
        ("serial = 7", "serial = 6", "serial"),
    ] {
        assert_eq!(way_of(BASE, &BASE.replacen(from, to, 1), about), Effect::Wider, "{about}");
    }
}

/// Each line is what an officer reads: which addresses, and what becomes of packets from them and to them.
#[test]
fn addresses_that_move_are_wider_and_both_directions_are_told() {
    let home = BASE.replace("192.0.2.0/24", "203.0.113.0/24").replace("203.0.113.7", "198.51.100.7").replace(
        "never = [\"198.51.100.0/24\"]\ndirections = [\"foreign-domestic\"]",
        "directions = [\"foreign-domestic\", \"domestic-foreign\"]",
    );
    let listed = "domestic = [\"203.0.113.0/24\"]";
    let to = |prefixes: &str| home.replace(listed, prefixes);
    let lost = "addresses that were domestic and are foreign";
    for hole in [
        "domestic = [\"203.0.113.0/25\"]",
        "domestic = [\"203.0.113.0/24\"]\nforeign = [\"203.0.113.128/25\"]",
    ] {
        let differences = diff(&home, &to(hole));
        let [found] = &*differences else { panic!("{differences:?}") };
        assert_eq!((found.way, &*found.about), (Effect::Wider, lost));
        assert_eq!(
            found.change,
            "1 prefix (203.0.113.128/25); \
             packets from them to foreign addresses: domestic-foreign and collected -> foreign-foreign and not collected; \
             packets to them from foreign addresses: foreign-domestic and collected -> foreign-foreign and not collected; \
             packets from them to domestic addresses: domestic-domestic and not collected -> foreign-domestic and collected; \
             packets to them from domestic addresses: domestic-domestic and not collected -> domestic-foreign and collected"
        );
    }
    let more = to("domestic = [\"203.0.113.0/24\", \"192.0.2.0/24\"]");
    assert_eq!(way_of(&home, &more, "addresses that were foreign and are domestic"), Effect::Wider);
    // Listed in another way, and the same addresses.
    assert_eq!(diff(&home, &to("domestic = [\"203.0.113.0/25\", \"203.0.113.128/25\"]")), []);
    let never = to("domestic = [\"203.0.113.0/24\"]\nnever = [\"203.0.113.128/25\"]");
    assert_eq!(way_of(&home, &never, "addresses that were domestic and are never"), Effect::Narrower);
    assert_eq!(way_of(&never, &home, "addresses that were never and are domestic"), Effect::Wider);
}

#[test]
fn special_ranges_and_prefixes_of_nat64_that_are_listed_are_wider() {
    for (listed, about) in [
        ("foreign = [\"100.64.0.0/10\"]", "addresses that were special and are foreign"),
        ("nat64 = [\"2001:db8:64::/96\"]", "addresses that were foreign and are embedded IPv4"),
        ("nat64 = [\"64:ff9b:1::/96\"]", "addresses that were special and are embedded IPv4"),
    ] {
        let more = BASE.replace("never = ", &format!("{listed}\nnever = "));
        let differences = diff(BASE, &more);
        let (found, others) = differences.split_first().expect("they differ");
        assert_eq!((found.way, &*found.about), (Effect::Wider, about));
        assert!(found.change.starts_with("1 prefix ("), "{found}");
        assert!(others.iter().all(|other| other.about.starts_with("translation ")), "{others:?}");
    }
    let named = BASE.replace("never = ", "foreign = [\"100.64.0.0/10\"]\nnever = ");
    assert_eq!(way_of(&named, BASE, "addresses that were foreign and are special"), Effect::Narrower);
    let never = BASE.replace("never = [", "never = [\"100.64.0.0/10\", ");
    assert_eq!(way_of(BASE, &never, "addresses that were special and are never"), Effect::Changed);
}

#[test]
fn translations_that_come_go_or_change_are_wider() {
    let with = |keys: &str| BASE.replace("never = ", &format!("{keys}\nnever = "));
    let rule = |ipv4: &str| with(&format!("6rd = [{{ ipv6 = \"2001:db8::/32\", ipv4 = \"{ipv4}\" }}]"));
    let (one, other) = (rule("192.0.2.0/24"), rule("192.0.0.0/16"));
    let about = "translation 2001:db8::/32 (6rd of 192.0.2.0/24)";
    assert_eq!(way_of(BASE, &one, about), Effect::Wider);
    assert_eq!(way_of(&one, BASE, about), Effect::Wider);
    // The prefix is judged by another IPv4 address.
    assert_eq!(way_of(&one, &other, about), Effect::Wider);
    assert_eq!(diff(&one, &one), []);
    // Inside of another translation no address is judged otherwise than by an IPv4 address.
    let site = with("isatap = [\"2002:c000:201:1::/64\"]");
    assert_eq!(way_of(&site, BASE, "translation 2002:c000:201:1:200:5efe::/96 (ISATAP)"), Effect::Wider);
}

#[test]
fn what_looks_like_a_pseudonym_is_collected_in_no_policy_that_makes_some() {
    let policy = |scope: &str, transform: &str| {
        format!(
            "name = \"p\"\n[scope]\ndomestic = [\"192.0.2.0/24\"]\n{scope}\ndirections = [\"foreign-domestic\"]\n[[recipients]]\n\
             name = \"r\"\npurpose = \"x\"\nfields = {{ destinationIPv4Address = \"{transform}\" }}\n"
        )
    };
    let (listed, both) = ("foreign = [\"240.0.0.0/4\"]", "foreign = [\"240.0.0.0/4\", \"fd00::/8\"]");
    let about = "addresses that were special and are foreign";
    assert_eq!(way_of(&policy("", "exact"), &policy(listed, "exact"), about), Effect::Wider);
    let found = diff(&policy("", "pseudonym"), &policy(listed, "pseudonym"));
    let [found] = &*found else { panic!("{found:?}") };
    assert!(found.about == about && found.change.starts_with("1 prefix (255.255.255.255/32)"), "{found}");
    // Without pseudonyms of IPv6, that range is collected as any other.
    let found = diff(&policy(listed, "pseudonym"), &policy(both, "pseudonym"));
    assert!(found[0].change.starts_with("1 prefix (fd00::/8)"), "{found:?}");
    // The last pseudonym is gone: now packets of these addresses are in records.
    assert_eq!(way_of(&policy(listed, "pseudonym"), &policy(listed, "exact"), about), Effect::Wider);
}

#[test]
fn pseudonyms_that_change_with_the_domestic_prefixes_are_told() {
    let policy = |domestic: &str, transform: &str| {
        format!(
            "name = \"p\"\n[scope]\ndomestic = [{domestic}]\ndirections = [\"foreign-domestic\"]\n[[recipients]]\n\
             name = \"r\"\npurpose = \"x\"\nfields = {{ destinationIPv4Address = \"{transform}\" }}\n"
        )
    };
    let about = "pseudonyms of IPv4";
    let (one, other) = ("\"192.0.2.0/24\"", "\"192.0.2.0/24\", \"203.0.113.0/24\"");
    let told = |before: &str, after: &str, transform: &str| {
        let differences = diff(&policy(before, transform), &policy(after, transform));
        let found = differences.into_iter().find(|difference| difference.about == about);
        found.map(|found| (found.way, found.change))
    };
    let is_told = |before: &str, after: &str, part: &str| {
        let (way, change) = told(before, after, "pseudonym").expect("they change");
        assert!(way == Effect::Changed && change.contains("every address has another one"), "{change}");
        assert!(change.contains(part), "{change}");
    };
    is_told(one, other, "have other ranks");
    is_told(one, "\"192.0.2.0/24\", \"16.0.0.0/4\"", "made of their last 28 bits and no longer of ranks");
    is_told("\"192.0.2.0/24\", \"16.0.0.0/4\"", one, "made of ranks and no longer of their last 28 bits");
    is_told(one, "\"2001:db8::/32\"", "made of their last 28 bits");
    // Other prefixes of the same blocks, of IPv6, or of a policy without pseudonyms of IPv4.
    assert_eq!(told(one, "\"192.0.2.0/25\"", "pseudonym"), None);
    assert_eq!(told(one, "\"192.0.2.0/24\", \"2001:db8::/32\"", "pseudonym"), None);
    assert_eq!(told(one, other, "exact"), None);
}

#[test]
fn who_becomes_a_tunnel_endpoint_or_a_party_again_is_wider() {
    let more = BASE.replace("never = ", "tunnel_endpoints = [\"203.0.113.0/29\"]\nnever = ");
    assert_eq!(way_of(BASE, &more, "tunnel endpoint 203.0.113.0/29"), Effect::Wider);
    // Fragments that end as out of scope at an endpoint are collected at a party.
    assert_eq!(way_of(&more, BASE, "tunnel endpoint 203.0.113.0/29"), Effect::Wider);
}

#[test]
fn a_tunnel_that_comes_or_goes_is_wider_under_a_scope() {
    let unscoped = "name = \"p\"\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = { protocolIdentifier = \"exact\" }\n";
    // Whose inner addresses were out of scope is collected when only the outer ones count.
    for (base, gone) in [(BASE, Effect::Wider), (unscoped, Effect::Narrower)] {
        let more = base.replacen("name = \"p\"", "name = \"p\"\ntunnels = [\"gre\"]", 1);
        assert_eq!(way_of(base, &more, "tunnel gre"), Effect::Wider);
        assert_eq!(way_of(&more, base, "tunnel gre"), gone);
    }
}

#[test]
fn words_reasons_and_pins_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("list"), "192.0.2.0/24\n").expect("is written");
    let digest = crate::support::digest::sha256(b"192.0.2.0/24\n");
    let listed =
        |file: &str| BASE.replace("domestic = [\"192.0.2.0/24\"]", &format!("domestic_files = [{file}]"));
    let parse = |text: &str| {
        Policy::parse(text, &folder.path().join("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    };
    let (free, pinned) =
        (listed("\"list\""), listed(&format!("{{ path = \"list\", sha256 = \"{digest}\" }}")));
    for (before, after, way) in [
        (&pinned, &free, Some(Effect::Wider)),
        (&free, &pinned, Some(Effect::Narrower)),
        (&BASE.to_owned(), &free, Some(Effect::Wider)),
        (&BASE.to_owned(), &pinned, Some(Effect::Changed)),
        (&free, &free, None),
    ] {
        let differences = parse(before).diff(&parse(after));
        let found = differences.iter().find(|difference| difference.about == "file list");
        assert_eq!(found.map(|found| found.way), way, "{differences:?}");
    }
    let words = "acknowledged = [\"the indicators select every TCP packet\"]\nserial = 7";
    let all = BASE.replace("203.0.113.7\"]", "203.0.113.7\", \"8 - * tcp\"]").replace("serial = 7", words);
    assert_eq!(way_of(BASE, &all, "acknowledged"), Effect::Wider);
    let target = BASE.replace("203.0.113.7\"]", "192.0.2.7\"]\ndomestic_target = \"it is attacked\"");
    assert_eq!(way_of(BASE, &target, "domestic_target"), Effect::Wider);
}

#[test]
fn what_cannot_be_compared_is_changed() {
    for (from, to, about) in [
        ("{ truncate = 16 }", "\"pseudonym\"", "recipient r, destinationIPv4Address"),
        ("name = \"p\"", "name = \"q\"", "name"),
    ] {
        let base = BASE.replace("k_threshold = 10\n", "");
        let differences = diff(&base, &base.replacen(from, to, 1));
        let found = differences.iter().find(|difference| difference.about == about).expect(about);
        assert_eq!(found.way, Effect::Changed);
    }
}

#[test]
fn many_prefixes_are_counted_and_ten_are_named() {
    let many: Vec<_> = (0..12).map(|number| format!("\"203.0.113.{}\"", 2 * number)).collect();
    let after = BASE.replace("\"198.51.100.0/24\"", &format!("\"198.51.100.0/24\", {}", many.join(", ")));
    let said = diff(BASE, &after)[0].to_string();
    let start = "- narrower  addresses that were foreign and are never: 12 prefixes (203.0.113.0/32, ";
    assert!(said.starts_with(start), "{said}");
    assert!(said.contains("203.0.113.18/32 and 2 more); packets from them to "), "{said}");
}

#[test]
fn a_mitigation_that_goes_or_shrinks_is_wider() {
    let with = |keys: &str| {
        BASE.replace(
            "directions = [\"foreign-domestic\"]",
            "directions = [\"foreign-domestic\", \"domestic-foreign\"]",
        )
        .replace("k_threshold = 10", keys)
        .replace("{ truncate = 16 }", "\"pseudonym\"")
    };
    for (more, less, about) in [
        ("established_only = true", "", "recipient r, established_only"),
        ("established_only = true", "established_only = false", "recipient r, established_only"),
        ("min_packets = 3", "min_packets = 2", "recipient r, min_packets"),
        ("min_packets = 2", "", "recipient r, min_packets"),
    ] {
        assert_eq!(way_of(&with(more), &with(less), about), Effect::Wider, "{more}, {less}");
        assert_eq!(way_of(&with(less), &with(more), about), Effect::Narrower, "{more}, {less}");
    }
    let noise = |noise: &str| BASE.replace("k_threshold = 10", &format!("k_threshold = 10\n{noise}"));
    for (more, less) in [("k_noise = 5", "k_noise = 4"), ("k_noise = 1", "")] {
        let about = "recipient r, k_noise";
        assert_eq!(way_of(&noise(more), &noise(less), about), Effect::Wider);
        assert_eq!(way_of(&noise(less), &noise(more), about), Effect::Narrower);
    }
}
