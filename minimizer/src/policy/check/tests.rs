//! Every refusal, and a policy beside it that is accepted.

mod limits;
mod translations;

use std::fs;
use std::path::Path;

use crate::policy::builtin::PolicyError;
use crate::policy::field::Field;
use crate::policy::model::Policy;
use crate::policy::transform::{AddressTransform, Transform};

const SCOPE: &str = "[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\"]\n";
const WORDS: &str = "acknowledged = [\"every communication is collected, between domestic parties too\"]\n";
const RECIPIENT: &str = "[[recipients]]\nname = \"soc\"\npurpose = \"to look\"\n";

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text, Path::new("p.toml"))
}

fn said(text: &str) -> String {
    match parse(text) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("is accepted:\n{text}"),
    }
}

/// Checks that the text is refused, with all these parts in the message.
fn refused(text: &str, parts: &[&str]) {
    let said = said(text);
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing in: {said}\n{text}");
    }
}

/// A policy with one recipient that has these fields.
fn with_fields(fields: &str) -> String {
    format!("name = \"p\"\n{SCOPE}{RECIPIENT}[recipients.fields]\n{fields}\n")
}

/// A policy with this section between its name and its recipient.
fn with_section(section: &str) -> String {
    format!("name = \"p\"\n{section}\n{RECIPIENT}fields = {{ protocolIdentifier = \"exact\" }}\n")
}

#[test]
fn the_place_is_file_line_and_column() {
    let text = "name = \"p\"\n\n[[recipients]]\nname = \"soc\"\npurpose = \"x\"\n[recipients.fields]\nvlanId = \"log2\"";
    let said = said(text);
    assert_eq!(said, "the policy is refused: p.toml:7:10: vlanId cannot be \"log2\": allowed are \"exact\"");
}

#[test]
fn unknown_keys_and_wrong_kinds_are_refused() {
    refused(&with_section("secret = 1"), &["p.toml:2:1", "unknown field `secret`", "`tunnels`"]);
    refused(&with_section("[scope]\nbytes = 1"), &["p.toml:3:1", "unknown field `bytes`", "`never_files`"]);
    refused(&with_section("description = 7"), &["p.toml:2:15", "expected a string"]);
    refused("name = ", &["p.toml:1:8"]);
    refused("", &["missing field `name`"]);
}

#[test]
fn all_refusals_are_told_at_once_by_place() {
    let said = said(&with_fields("vlanId = \"log2\"\npayload = \"exact\""));
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].ends_with("2 things are wrong:"), "{said}");
    assert!(lines[1].starts_with("  p.toml:9:10: ") && lines[2].starts_with("  p.toml:10:1: "), "{said}");
}

#[test]
fn names_are_short_and_plain() {
    refused("name = \"a b\"", &["no name of a policy", "nobody receives anything"]);
    refused("name = \"\"", &["no name of a policy"]);
    refused("name = \"-a\"", &["no name of a policy"]);
}

#[test]
fn recipients_have_a_purpose_a_name_of_their_own_and_fields() {
    let fields = "fields = { vlanId = \"exact\" }\n";
    refused(&format!("name = \"p\"\n[[recipients]]\nname = \"a\"\n{fields}"), &["p.toml:2:1", "no purpose"]);
    refused(
        &format!("name = \"p\"\n[[recipients]]\nname = \"a\"\npurpose = \" \"\n{fields}"),
        &["p.toml:4:11", "says nothing"],
    );
    refused(&format!("name = \"p\"\n{RECIPIENT}{fields}{RECIPIENT}{fields}"), &["p.toml:7:8", "above"]);
    refused(&format!("name = \"p\"\n{RECIPIENT}"), &["receives no field"]);
    refused(&format!("name = \"p\"\n{RECIPIENT}retention = \"long\"\n{fields}"), &["like \"30 days\""]);
    assert!(parse(&format!("name = \"p\"\n{RECIPIENT}retention = \"30 days\"\n{fields}")).is_ok());
}

#[test]
fn a_mandate_has_a_begin_and_a_later_end() {
    let mandate = |times: &str| {
        with_section(&format!("[mandate]\nid = \"1\"\npurpose = \"x\"\nlegal_basis = \"y\"\n{times}"))
    };
    let from = "valid_from = 2026-04-01T00:00:00+09:00\n";
    refused(&mandate(from), &["p.toml:2:1", "no end", "valid_until"]);
    refused(&mandate("valid_until = 2026-04-01T00:00:00Z"), &["from when", "valid_from"]);
    refused(
        &mandate(&format!("{from}valid_until = 2026-03-31T15:00:00Z")),
        &["p.toml:7:15", "ends before it begins"],
    );
    refused(
        &mandate(&format!("{from}valid_until = 2026-05-01T00:00:00")),
        &["p.toml:7:15", "offset from UTC"],
    );
    refused(&mandate(&format!("{from}valid_until = 2026-05-01")), &["offset from UTC"]);
    refused(
        &with_section("[mandate]\nid = \"1\"\npurpose = \"\"\nlegal_basis = \"y\""),
        &["`purpose` says nothing"],
    );
    let policy =
        parse(&format!("{WORDS}{}", mandate(&format!("{from}valid_until = 2027-04-01T00:00:00+09:00"))))
            .expect("is fine");
    assert_eq!(policy.mandate.expect("has one").valid_from.to_string(), "2026-03-31T15:00:00Z");
}

#[test]
fn domestic_to_domestic_takes_the_words() {
    let scope = |rest: &str| with_section(&format!("[scope]\ndomestic = [\"192.0.2.0/24\"]\n{rest}"));
    let words = "domestic_domestic = \"communications between domestic parties are collected\"\n";
    refused(
        &scope("directions = [\"domestic-domestic\"]"),
        &["p.toml:4:15", "in so many words", words.trim()],
    );
    refused(
        &scope("directions = [\"domestic-domestic\"]\ndomestic_domestic = \"yes\""),
        &["only words allowed"],
    );
    refused(
        &scope(&format!("directions = [\"foreign-foreign\"]\n{words}")),
        &["say more than the directions"],
    );
    assert!(parse(&scope(&format!("directions = [\"domestic-domestic\"]\n{words}"))).is_ok());
}

#[test]
fn tunnel_endpoints_are_few_prefixes() {
    let endpoints = |prefixes: &str| with_section(&format!("{SCOPE}tunnel_endpoints = [{prefixes}]"));
    let policy =
        parse(&endpoints("\"203.0.113.0/29\", \"2001:db8:f::/64\", \"203.0.113.0/29\"")).expect("is fine");
    let listed: Vec<_> = policy.tunnel_endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(listed, ["203.0.113.0/29", "2001:db8:f::/64"]);
    refused(&endpoints("\"0.0.0.0/0\""), &["0.0.0.0/0 is every address"]);
    refused(&endpoints("\"gateway\""), &["is no prefix"]);
    let many =
        |count: u8| (0..count).map(|last| format!("\"198.18.{last}.0/24\"")).collect::<Vec<_>>().join(", ");
    assert!(parse(&endpoints(&many(16))).is_ok());
    refused(&endpoints(&many(17)), &["16 prefixes of tunnel endpoints of IPv4"]);
    let cautions = |text: &str| parse(text).expect("is fine").cautions(jiff::Timestamp::UNIX_EPOCH);
    let says = |text: &str, word: &str| cautions(text).iter().any(|caution| caution.contains(word));
    let tunnels = |text: &str| format!("tunnels = [\"gtp-u\"]\n{text}");
    assert!(says(&endpoints("\"203.0.113.0/29\""), "lists no tunnel"));
    assert!(says(&tunnels(&with_section(SCOPE)), "lists no gateway"));
    assert!(!says(&tunnels(&endpoints("\"203.0.113.0/29\"")), "tunnel_endpoints"));
}

#[test]
fn a_scope_means_something() {
    refused(&with_section("[scope]\ndomestic = [\"192.0.2.0/24\"]"), &["no direction"]);
    refused(&with_section("[scope]\ndirections = [\"foreign-foreign\"]"), &["lists no prefix"]);
    refused(
        &with_section("[scope]\nnever = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\"]"),
        &["no prefix is domestic"],
    );
    refused(
        &with_section("[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"inward\"]"),
        &["p.toml:4:15", "unknown variant `inward`", "`foreign-domestic`"],
    );
    refused(
        &with_section(
            "[scope]\ndomestic = [\"192.0.2.1/24\"]\nnever = [\"192.0.3.0/24\"]\ndirections = [\"foreign-foreign\"]",
        ),
        &["p.toml:3:13", "write 192.0.2.0/24"],
    );
    refused(
        &with_section(
            "[scope]\ndomestic = [\"192.0.2.0/24\"]\nnever = [\"192.0.2.0/24\"]\ndirections = [\"foreign-foreign\"]",
        ),
        &["p.toml:4:10", "listed as never here and as domestic in the policy"],
    );
}

#[test]
fn transforms_fit_their_fields() {
    for (fields, part) in [
        ("sourceIPv4Address = \"classes\"", "p.toml:9:21: sourceIPv4Address cannot be \"classes\""),
        ("sourceIPv4Address = \"omit\"", "do not list it"),
        ("sourceIPv4Address = { truncate = 0 }", "1 to 31"),
        ("sourceIPv4Address = { truncate = 32 }", "1 to 31"),
        ("sourceIPv6Address = { truncate = 128 }", "1 to 127"),
        ("sourceIPv6Address = { truncate = 64, mask = 1 }", "allowed are"),
        ("sourceIPv6Address = { foreign = \"exact\" }", "`domestic` is missing"),
        ("sourceIPv6Address = { foreign = \"omit\", domestic = \"omit\" }", "do not list the field"),
        ("sourceIPv6Address = { foreign = \"log2\", domestic = \"omit\" }", "allowed are"),
        ("sourceTransportPort = { services_below = 0 }", "1 to 65535"),
        ("sourceTransportPort = { services_below = 65536 }", "1 to 65535"),
        ("sourceTransportPort = \"pseudonym\"", "\"classes\""),
        ("sourceTransportPort = { services_below = 1024, also = [] }", "1 to 8 ports"),
        ("sourceTransportPort = { services_below = 1024, also = [80] }", "from `services_below` to 32767"),
        ("sourceTransportPort = { services_below = 1024, also = [32768] }", "clients of Linux"),
        (
            "sourceTransportPort = { services_below = 1024, also = [1025,1026,1027,1028,1029,1030,1031,1032,1033] }",
            "1 to 8",
        ),
        ("sourceTransportPort = { services_below = 1024, more = [8080] }", "also = [8080, …]"),
        ("tcpControlBits = { mask = [] }", "FIN, SYN"),
        ("tcpControlBits = { mask = [\"SYNACK\"] }", "FIN, SYN"),
        ("packetDeltaCount = { truncate = 8 }", "\"log2\""),
        ("flowStartMilliseconds = \"exact\"", "the finest is { coarsen"),
        ("flowStartMilliseconds = { coarsen = \"9ms\" }", "10ms"),
        ("flowStartMilliseconds = { coarsen = \"10500us\" }", "whole milliseconds"),
        ("flowStartMilliseconds = { coarsen = \"61m\" }", "1h"),
        ("payload = \"exact\"", "allowed are sourceIPv4Address"),
    ] {
        refused(&with_fields(fields), &[part]);
    }
}

#[test]
fn fields_mean_something_together() {
    for field in ["sourceTransportPort", "tcpControlBits", "icmpTypeIPv4", "icmpCodeIPv6"] {
        refused(&with_fields(&format!("{field} = \"exact\"")), &["add protocolIdentifier"]);
        assert!(parse(&with_fields(&format!("{field} = \"exact\"\nprotocolIdentifier = \"exact\""))).is_ok());
    }
    refused(&with_fields("dot1qCustomerVlanId = \"exact\""), &["add vlanId"]);
    refused(&with_fields("selectorId = \"exact\""), &["without [selectors]"]);
    refused(
        &with_fields(
            "flowStartMilliseconds = { coarsen = \"1s\" }\nflowEndMilliseconds = { coarsen = \"2s\" }",
        ),
        &["p.toml:10:1", "the same unit"],
    );
    let by_class = "sourceIPv4Address = { foreign = \"exact\", domestic = \"pseudonym\" }";
    let text = with_fields(by_class);
    let policy = parse(&text).expect("has a scope");
    let transform = policy.recipients[0].fields[&Field::SourceIPv4Address];
    let wanted =
        Transform::Address { foreign: AddressTransform::Exact, domestic: AddressTransform::Pseudonym };
    assert_eq!(transform, wanted);
    refused(&text.replace(SCOPE, ""), &["no class without a [scope]"]);
}

#[test]
fn times_of_all_recipients_have_a_unit_the_program_can_store() {
    let recipient = |name: &str, unit: &str| {
        format!(
            "[[recipients]]\nname = \"{name}\"\npurpose = \"x\"\nfields = {{ flowEndMilliseconds = {{ coarsen = \"{unit}\" }} }}\n"
        )
    };
    let text = |one, other| format!("name = \"p\"\n{}{}", recipient("a", one), recipient("b", other));
    refused(&text("15ms", "25ms"), &["p.toml:6:1", "no common unit"]);
    assert!(parse(&text("20ms", "50ms")).is_ok());
}

#[test]
fn epochs_and_tunnels_are_known_ones() {
    for epoch in ["59s", "367 days", "1m 1ms", "daily"] {
        refused(&with_section(&format!("[pseudonyms]\nepoch = \"{epoch}\"")), &["p.toml:3:9", "366 days"]);
    }
    assert!(parse(&with_section("[pseudonyms]\nepoch = \"366 days\"")).is_ok());
    refused(&with_section("tunnels = [\"wireguard\"]"), &["p.toml:2:12", "allowed are gtp-u, vxlan"]);
}

#[test]
fn selectors_name_something() {
    refused(&with_section("[selectors]"), &["p.toml:2:1", "name no indicator"]);
    refused(&with_section("[selectors]\nindicators = [\"0 - *\"]"), &["p.toml:3:15", "allowed are 1 to"]);
    let policy = parse(&with_section("[selectors]\nindicators = [\"7 - 192.0.2.1\"]")).expect("is fine");
    assert_eq!(policy.selectors.expect("has some")[0].id, 7);
}

#[test]
fn files_are_read_beside_the_policy_with_line_and_digest() {
    let folder = tempfile::tempdir().expect("a folder");
    let parse = |text: &str| Policy::parse(text, &folder.path().join("p.toml"));
    let text = with_section("[scope]\ndomestic_files = [\"home\"]\ndirections = [\"foreign-domestic\"]");
    let said = |text: &str| parse(text).expect_err("is refused").to_string();
    assert!(said(&text).contains("relative to the policy's folder"), "{}", said(&text));
    let write = |content: &str| fs::write(folder.path().join("home"), content).expect("can be written");
    write("# nothing\n");
    assert!(said(&text).contains("lists no prefix"), "{}", said(&text));
    write("192.0.2.0/24\n\n192.0.3.1/24 # here\n");
    assert!(said(&text).contains("home:3: `192.0.3.1/24` has bits set"), "{}", said(&text));
    write("192.0.2.0/24\n");
    let policy = parse(&text).expect("is fine");
    assert!(policy.commitments.unpinned.contains("home"));
    let digest = policy.inputs["home"].clone();
    assert_eq!(digest.len(), 64);
    let pin =
        |digest: &str| text.replace("\"home\"", &format!("{{ path = \"home\", sha256 = \"{digest}\" }}"));
    assert!(parse(&pin(&digest)).expect("is fine").commitments.unpinned.is_empty());
    write("192.0.2.0/25\n");
    assert!(said(&pin(&digest)).contains("is not the file that was signed off"));
}

#[test]
fn the_digest_is_of_the_text() {
    let one = parse(&with_section("")).expect("is fine").digest;
    let other = parse(&with_section("# more")).expect("is fine").digest;
    assert!(one.len() == 64 && one != other);
}

#[test]
fn what_is_neither_a_file_nor_built_in_is_told_with_what_is() {
    let said = Policy::load("no-such", &[]).expect_err("is none").to_string();
    assert!(said.contains("built in are carrier-default and full-record"), "{said}");
}
