//! Every kind of difference, and that its direction reverses when the policies change places.

use std::path::Path;

use super::{Difference, Effect};
use crate::policy::model::Policy;

const BASE: &str = r#"
name = "p"
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
    wider("2026-01-01", "2025-01-01", "mandate, valid from");
    wider("2026-07-01", "2027-07-01", "mandate, valid until");
    wider(
        "[\"foreign-domestic\"]",
        "[\"foreign-domestic\", \"domestic-foreign\"]",
        "direction domestic-foreign",
    );
    wider("never = [\"198.51.100.0/24\"]", "", "never prefixes");
    // The policy collects only packets to domestic addresses, and no recipient gets more of foreign ones.
    wider("00Z 203.0.113.7\"]", "00Z 203.0.113.7\", \"8 - * udp\"]", "selectors");
    wider("2026-12-31", "2027-12-31", "selectors");
    wider("[selectors]\nindicators = [\"7 2026-12-31T00:00:00Z 203.0.113.7\"]", "", "selectors");
    wider("\"24h\"", "\"48h\"", "pseudonym epoch");
    wider("retention = \"30 days\"", "retention = \"31 days\"", "recipient r, retention");
    wider("retention = \"30 days\"", "", "recipient r, retention");
    wider("k_threshold = 10", "k_threshold = 9", "recipient r, k_threshold");
    wider("k_threshold = 10", "", "recipient r, k_threshold");
    wider("truncate = 16", "truncate = 17", "recipient r, destinationIPv4Address");
    wider("truncate = 16", "truncate = 17", "kept in the kernel, destinationIPv4Address");
    wider("protocolIdentifier", "vlanId = \"exact\"\nprotocolIdentifier", "recipient r, vlanId");
    wider("name = \"p\"", "name = \"p\"\ntunnels = [\"gre\"]", "tunnel gre");
    let scope = &BASE[BASE.find("[scope]").expect("is there")..BASE.find("[selectors]").expect("is there")];
    wider(scope, "", "scope");
    let mandate = &BASE[BASE.find("[mandate]").expect("is there")..BASE.find("[scope]").expect("is there")];
    wider(mandate, "", "mandate");
    let another =
        "[[recipients]]\nname = \"s\"\npurpose = \"z\"\nfields = { vlanId = \"exact\" }\n[[recipients]]";
    wider("[[recipients]]", another, "recipient s");
}

#[test]
fn domestic_prefixes_widen_or_narrow_by_what_may_be_collected() {
    let more = |text: &str| text.replace("\"192.0.2.0/24\"", "\"192.0.2.0/24\", \"203.0.113.0/24\"");
    let way = |text: &str| diff(text, &more(text))[0].clone();
    // A packet between two foreign addresses would become one from a foreign to a domestic address.
    assert_eq!(way(BASE).way, Effect::Changed);
    let outside = BASE.replace(
        "[\"foreign-domestic\"]",
        "[\"foreign-foreign\", \"foreign-domestic\", \"domestic-foreign\"]",
    );
    assert_eq!(way(&outside).way, Effect::Narrower);
    assert_eq!(way(&outside).change, "1 added (203.0.113.0/24)");
    let exact_at_home =
        outside.replace("{ truncate = 16 }", "{ foreign = { truncate = 16 }, domestic = \"exact\" }");
    assert_eq!(way(&exact_at_home).way, Effect::Changed);
}

#[test]
fn what_cannot_be_compared_is_changed() {
    for (from, to, about) in [
        ("{ truncate = 16 }", "\"pseudonym\"", "recipient r, destinationIPv4Address"),
        ("purpose = \"z\"", "purpose = \"w\"", "recipient r, purpose"),
        ("name = \"p\"", "name = \"q\"", "name"),
    ] {
        let differences = diff(BASE, &BASE.replacen(from, to, 1));
        let found = differences.iter().find(|difference| difference.about == about).expect(about);
        assert_eq!(found.way, Effect::Changed);
    }
}

#[test]
fn many_prefixes_are_counted_and_ten_are_named() {
    let many: Vec<_> = (0..12).map(|number| format!("\"198.51.100.{number}\"")).collect();
    let after = BASE.replace("\"198.51.100.0/24\"", &format!("\"198.51.100.0/24\", {}", many.join(", ")));
    let said = diff(BASE, &after)[0].to_string();
    assert!(said.starts_with("- narrower  never prefixes: 12 added (198.51.100.0/32, "), "{said}");
    assert!(said.ends_with("198.51.100.9/32 and 2 more)"), "{said}");
}
