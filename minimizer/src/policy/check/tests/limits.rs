//! What is refused because of what it permits: limits, words, thresholds, targets and destinations.

use super::{RECIPIENT, SCOPE, WORDS, parse, refused, with_section};
use crate::policy::field::Field;
use crate::policy::transform::{AddressTransform, Transform};
use crate::policy::words;

/// A policy whose recipient has a threshold, these fields, and this at the top.
fn with_threshold(top: &str, threshold: &str, fields: &str) -> String {
    format!(
        "name = \"p\"\n{top}\n{SCOPE}{RECIPIENT}k_threshold = {threshold}\n[recipients.fields]\nvlanId = \"exact\"\n{fields}\n"
    )
}

#[test]
fn a_threshold_can_be_kept_only_without_sources() {
    let with =
        |threshold: u32, fields: &str| with_threshold("interval = \"10s\"", &threshold.to_string(), fields);
    refused(&with(1, ""), &["p.toml:9:15", "2 or more"]);
    refused(
        &with(10, "sourceIPv4Address = { truncate = 24 }"),
        &["of one prefix", "remove sourceIPv4Address"],
    );
    for transform in ["\"exact\"", "\"pseudonym\"", "\"prefix-preserving\"", "\"crypto-pan\""] {
        refused(
            &with(10, &format!("sourceIPv6Address = {transform}")),
            &["one source", "remove sourceIPv6Address"],
        );
    }
    refused(
        &with(10, "sourceIPv4Address = { foreign = \"omit\", domestic = \"exact\" }"),
        &["each record then has one source"],
    );
    let policy = parse(&with(10, "destinationIPv4Address = { truncate = 24 }")).expect("can be kept");
    let collected = policy.collected().fields;
    assert_eq!(collected[&Field::SourceIPv4Address], Transform::address(AddressTransform::Pseudonym));
    let network = AddressTransform::Truncated { bits: 64 };
    assert_eq!(collected[&Field::SourceIPv6Address], Transform::address(network));
}

#[test]
fn a_threshold_is_of_one_interval_and_hides_what_its_records_tell() {
    let top = "interval = { min = \"5s\", max = \"10s\" }";
    let with = |fields: &str| with_threshold(top, "10", fields);
    refused(
        &with_threshold("", "10", ""),
        &["p.toml:9:15", "in one interval between two drains", "interval = \"10s\""],
    );
    for (transform, is_allowed) in [
        ("\"exact\"", false),
        ("\"pseudonym\"", false),
        ("\"prefix-preserving\"", false),
        ("{ foreign = \"omit\", domestic = \"exact\" }", false),
        ("{ truncate = 25 }", false),
        ("{ truncate = 24 }", true),
        ("{ foreign = { truncate = 16 }, domestic = \"omit\" }", true),
    ] {
        let text = with(&format!("destinationIPv4Address = {transform}"));
        if is_allowed {
            parse(&text).expect(transform);
        } else {
            refused(&text, &["truncate destinationIPv4Address to 24 bits or fewer"]);
        }
    }
    refused(&with("destinationIPv6Address = { truncate = 64 }"), &["to 48 bits or fewer"]);
    for field in ["packetDeltaCount", "octetDeltaCount"] {
        refused(&with(&format!("{field} = \"exact\"")), &["subtracts its own", "log2"]);
        parse(&with(&format!("{field} = \"log2\""))).expect(field);
    }
    refused(
        &with("flowEndMilliseconds = { coarsen = \"5s\" }"),
        &["flowEndMilliseconds", "to 10 seconds or more"],
    );
    parse(&with("flowEndMilliseconds = { coarsen = \"10s\" }")).expect("is as coarse as the interval");
    for interval in [
        "\"1ms\"",
        "\"61s\"",
        "\"soon\"",
        "{ min = \"10s\", max = \"5s\" }",
        "{ min = \"10s\", max = \"90s\" }",
    ] {
        refused(&with_section(&format!("interval = {interval}")), &["p.toml:2:12"]);
    }
}

#[test]
fn a_threshold_may_count_domestic_sources_only() {
    let counts =
        |counts: &str| with_threshold("interval = \"10s\"", &format!("10\nk_counts = \"{counts}\""), "");
    let collected = parse(&counts("domestic")).expect("has a scope").collected().fields;
    let domestic = |domestic| Transform::Address { foreign: AddressTransform::Omitted, domestic };
    assert_eq!(collected[&Field::SourceIPv4Address], domestic(AddressTransform::Pseudonym));
    assert_eq!(collected[&Field::SourceIPv6Address], domestic(AddressTransform::Truncated { bits: 64 }));
    parse(&counts("all")).expect("is the default");
    refused(&counts("foreign"), &["unknown variant `foreign`", "`domestic`"]);
    refused(&counts("domestic").replace(SCOPE, ""), &["no address is domestic without a [scope]"]);
    refused(&counts("domestic").replace("k_threshold = 10\n", ""), &["no threshold that could count"]);
}

#[test]
fn a_mandate_lasts_a_year_or_says_how_long() {
    let mandate = |until: &str, rest: &str| {
        format!(
            "name = \"p\"\n[mandate]\nid = \"1\"\npurpose = \"x\"\nlegal_basis = \"y\"\nvalid_from = 2026-01-01T00:00:00Z\n\
                 valid_until = {until}\n{rest}\n{SCOPE}{RECIPIENT}fields = {{ vlanId = \"exact\" }}\n"
        )
    };
    parse(&mandate("2027-01-02T00:00:00Z", "")).expect("a year and a leap day");
    refused(
        &mandate("2027-01-02T00:00:01Z", ""),
        &["p.toml:7:15", "lasts 366 days and 1 hour, longer than 366 days", "`max_period`"],
    );
    parse(&mandate("2028-01-01T00:00:00Z", "max_period = \"730 days\"")).expect("says so");
    refused(&mandate("2028-01-02T00:00:00Z", "max_period = \"730 days\""), &["raise `max_period`"]);
    for period in ["3661 days", "0s", "2M"] {
        refused(&mandate("2027-01-01T00:00:00Z", &format!("max_period = \"{period}\"")), &["p.toml:8:14"]);
    }
}

#[test]
fn no_recipient_keeps_records_longer_than_the_mandate_says() {
    let policy = |retention: &str| {
        format!(
            "name = \"p\"\n[mandate]\nid = \"1\"\npurpose = \"x\"\nlegal_basis = \"y\"\nvalid_from = 2026-01-01T00:00:00Z\n\
                 valid_until = 2027-01-01T00:00:00Z\nmax_retention = \"30 days\"\n{SCOPE}{RECIPIENT}{retention}\nfields = {{ vlanId = \"exact\" }}\n"
        )
    };
    parse(&policy("retention = \"30 days\"")).expect("is not longer");
    refused(&policy("retention = \"31 days\""), &["p.toml:15:13", "`soc`", "30 days"]);
    refused(&policy(""), &["p.toml:12:1", "longer than `max_retention`"]);
}

#[test]
fn what_protects_nobody_takes_words() {
    let mandate = "[mandate]\nid = \"1\"\npurpose = \"x\"\nlegal_basis = \"y\"\nvalid_from = 2026-01-01T00:00:00Z\n\
                   valid_until = 2027-01-01T00:00:00Z";
    for section in [mandate, "[scope]\nnever = [\"192.0.2.0/24\"]\ndirections = [\"foreign-foreign\"]"] {
        refused(
            &with_section(section),
            &["p.toml:2:1", "acknowledged = [\"every communication is collected"],
        );
        let policy = parse(&with_section(&format!("{WORDS}{section}"))).expect("says so");
        assert_eq!(policy.commitments.acknowledged.len(), 1);
    }
    refused(&with_section(WORDS), &["p.toml:2:17", "nothing in the policy needs the words"]);
    // What is mistyped may be what needs them.
    let mistyped = parse(&with_section(&format!("{WORDS}[scope]\ndirections = [\"foreign-forein\"]")));
    let said = mistyped.expect_err("no direction").to_string();
    assert!(said.contains("foreign-forein") && !said.contains("needs the words"), "{said}");
}

#[test]
fn selectors_do_not_select_everything() {
    let with =
        |top: &str, indicators: &str| with_section(&format!("{top}[selectors]\nindicators = [{indicators}]"));
    for all in
        ["\"1 - 0.0.0.0/0\"", "\"1 - ::/0\"", "\"1 - 0.0.0.0/1\", \"2 - 128.0.0.0/2\", \"3 - 192.0.0.0/2\""]
    {
        refused(&with("", all), &["p.toml:2:1", "select every IPv"]);
    }
    let words =
        |protocol: &str| format!("acknowledged = [\"the indicators select every {protocol} packet\"]\n");
    for (all, protocol) in [
        ("\"1 - * tcp\"", "TCP"),
        ("\"1 - * udp/1-65535\"", "UDP"),
        ("\"1 - ::/1 tcp\", \"1 - 8000::/1\"", "TCP"),
    ] {
        refused(&with("", all), &[words(protocol).trim()]);
        parse(&with(&words(protocol), all)).expect(all);
    }
    parse(&with("", "\"1 - * tcp/443\", \"2 - * udplite\", \"3 - 0.0.0.0/1\"")).expect("is not everything");
}

#[test]
fn a_domestic_party_is_a_target_only_for_a_reason() {
    let with = |rest: &str, indicator: &str| {
        format!(
            "name = \"p\"\n[scope]\ndomestic = [\"192.0.2.0/24\", \"2001:db8::/32\"]\nforeign = [\"192.0.2.128/25\"]\n\
             directions = [\"foreign-domestic\"]\n[selectors]\nindicators = [\"7 - {indicator}\"]\n{rest}{RECIPIENT}\
             fields = {{ vlanId = \"exact\" }}\n"
        )
    };
    for target in ["192.0.2.7", "192.0.2.8/29 tcp/443", "2001:db8:1::1", "2001:db8:1::/48"] {
        refused(&with("", target), &["p.toml:6:1", "is one domestic party", "domestic_target"]);
        let policy = parse(&with("domestic_target = \"it is attacked\"\n", target)).expect(target);
        assert_eq!(policy.commitments.domestic_target.as_deref(), Some("it is attacked"));
        refused(&with("domestic_target = \" \"\n", target), &["says nothing"]);
    }
    for other in ["192.0.2.0/28", "192.0.2.129", "198.51.100.7", "2001:db8::/40", "2001:db9::1"] {
        parse(&with("", other)).expect(other);
    }
}

#[test]
fn recipients_that_complete_each_other_take_words() {
    let recipient = |name: &str, fields: &str| {
        format!(
            "[[recipients]]\nname = \"{name}\"\npurpose = \"x\"\nfields = {{ protocolIdentifier = \"exact\", {fields} }}\n"
        )
    };
    let with = |top: &str, one: &str, other: &str| {
        format!("name = \"p\"\n{top}{SCOPE}{}{}", recipient("a", one), recipient("b", other))
    };
    let words = "acknowledged = [\"a and b together get more than each of them\"]\n";
    for (one, other) in [
        ("sourceIPv4Address = \"exact\"", "destinationIPv4Address = \"exact\""),
        (
            "sourceIPv6Address = { foreign = \"exact\", domestic = \"omit\" }",
            "sourceIPv6Address = { foreign = \"pseudonym\", domestic = \"exact\" }",
        ),
        (
            "sourceIPv4Address = { truncate = 24 }, destinationIPv4Address = { truncate = 16 }",
            "sourceIPv4Address = { truncate = 16 }, destinationIPv4Address = { truncate = 24 }",
        ),
        ("sourceIPv4Address = \"exact\"", "destinationTransportPort = \"exact\""),
    ] {
        refused(&with("", one, other), &["p.toml:9:1", words.trim()]);
        parse(&with(words, one, other)).expect(one);
    }
    let all = "sourceIPv4Address = \"exact\", destinationTransportPort = \"exact\"";
    for less in ["sourceIPv4Address = { truncate = 8 }", "destinationTransportPort = \"classes\"", all] {
        parse(&with("", all, less)).expect(less);
    }
}

#[test]
fn holes_leave_something_of_a_domestic_prefix() {
    let with = |foreign: &str| {
        with_section(&format!(
            "[scope]\ndomestic = [\"192.0.2.0/24\"]\nforeign = [{foreign}]\ndirections = [\"foreign-domestic\"]"
        ))
    };
    refused(
        &with("\"192.0.2.0/25\", \"192.0.2.128/25\""),
        &["p.toml:2:1", "cover all of the domestic prefix 192.0.2.0/24"],
    );
    for some in ["\"192.0.2.0/25\", \"192.0.2.128/26\"", "\"192.0.0.0/16\""] {
        parse(&with(some)).expect(some);
    }
}

#[test]
fn serials_go_up_and_back_only_below_themselves() {
    let policy = parse(&with_section("serial = 7\nallow_serial = 6")).expect("is fine").commitments;
    assert_eq!((policy.serial, policy.allow_serial), (Some(7), Some(6)));
    refused(&with_section("serial = 0"), &["p.toml:2:10", "begin with 1"]);
    for text in ["serial = 7\nallow_serial = 7", "allow_serial = 1"] {
        refused(&with_section(text), &["not lower than the policy's own `serial`"]);
    }
}

#[test]
fn destinations_are_servers_with_a_country() {
    let with = |destination: &str| {
        format!(
            "name = \"p\"\n{RECIPIENT}destinations = [{destination}]\nfields = {{ vlanId = \"exact\" }}\n"
        )
    };
    let pin = "AB".repeat(32);
    let good =
        format!("{{ host = \"c.example\", port = 4740, country = \"JP\", certificate_sha256 = \"{pin}\" }}");
    let policy = parse(&with(&good)).expect("is fine");
    let said = policy.recipients[0].destinations.as_ref().expect("has some")[0].to_string();
    assert_eq!(said, format!("c.example port 4740 in JP with the certificate {}", "ab".repeat(32)));
    assert_eq!(parse(&with("")).expect("no server").recipients[0].destinations, Some(Vec::new()));
    for (from, to, part) in [
        ("c.example", "", "no name or address of a server"),
        ("4740", "0", "the port 0"),
        ("JP", "Japan", "two capital letters"),
        (&*pin, "ABCD", "64 hexadecimal digits"),
        ("country = \"JP\", ", "", "p.toml:5:17"),
    ] {
        refused(&with(&good.replace(from, to)), &[part]);
    }
}

#[test]
fn listed_services_are_kept_and_no_others() {
    let fields = "protocolIdentifier = \"exact\"\ndestinationTransportPort = { services_below = 1024, also = [8080, 3306] }";
    let policy = parse(&super::with_fields(fields)).expect("is fine");
    let wanted = policy.recipients[0].fields[&Field::DestinationTransportPort];
    assert_eq!(words::remains(wanted), "if below 1024 or 3306, 8080, else 0");
    let kept = policy.collected().fields[&Field::DestinationTransportPort];
    assert_eq!(kept, wanted);
    assert!(policy.cautions(jiff::Timestamp::UNIX_EPOCH).is_empty());
}

#[test]
fn recipients_list_so_many_ports_together_as_the_program_stores() {
    let recipient = |number: u16| {
        let ports: Vec<_> = (0..8).map(|port| (2000 + 100 * number + 2 * port).to_string()).collect();
        format!(
            "[[recipients]]\nname = \"r{number}\"\npurpose = \"x\"\n[recipients.fields]\nprotocolIdentifier = \"exact\"\n\
             destinationTransportPort = {{ services_below = 1024, also = [{}] }}\n",
            ports.join(", ")
        )
    };
    let of = |count| format!("name = \"p\"\n{}", (0..count).map(recipient).collect::<String>());
    let policy = parse(&of(4)).unwrap_or_else(|error| panic!("{error}"));
    let kept = policy.collected().fields[&Field::DestinationTransportPort];
    assert!(matches!(kept, Transform::ListedPorts { below: 1024, listed } if listed.ports().len() == 32));
    refused(&of(5), &["p.toml:26:1", "40 ports are listed for destinationTransportPort", "list fewer"]);
}

#[test]
fn mitigations_protect_something_and_tell_nothing() {
    let with = |directions: &str, keys: &str, fields: &str| {
        format!(
            "name = \"p\"\ninterval = \"10s\"\n[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [{directions}]\n{RECIPIENT}{keys}\n\
             [recipients.fields]\nvlanId = \"exact\"\n{fields}\n"
        )
    };
    let both = "\"foreign-domestic\", \"domestic-foreign\"";
    let keyed = "sourceIPv4Address = \"pseudonym\"";
    for keys in ["min_packets = 0", "min_packets = 1"] {
        refused(&with(both, keys, keyed), &["p.toml:9:15", "protects nobody"]);
    }
    refused(&with(both, "k_threshold = 10\nmin_packets = 5", ""), &["one packet less", "`k_threshold`"]);
    for keys in ["min_packets = 5", "established_only = true"] {
        let anybody_chooses = with(both, keys, keyed).replace("interval = \"10s\"\n", "");
        refused(&anybody_chooses, &["p.toml:8:", "in one interval", "fix it at the top"]);
    }
    refused(&with(both, "k_threshold = 10\nk_noise = 0", ""), &["no noise"]);
    refused(&with(both, "k_noise = 5", ""), &["no threshold that it could blur"]);
    refused(
        &with(both, "established_only = true", ""),
        &["p.toml:9:20", "no pseudonym that it could protect"],
    );
    for one_way in ["\"foreign-domestic\"", "\"foreign-foreign\", \"domestic-foreign\""] {
        refused(&with(one_way, "established_only = true", keyed), &["no answer would ever be seen"]);
    }
    parse(&with(both, "established_only = false", "")).expect("holds nothing back");
    let policy = parse(&with(both, "established_only = true\nmin_packets = 2", keyed)).expect("is fine");
    let mitigations = policy.recipients[0].mitigations;
    assert_eq!((mitigations.min_packets, mitigations.established_only), (2, true));
    let collected = policy.collected().fields;
    for field in [
        Field::SourceIPv4Address,
        Field::DestinationIPv4Address,
        Field::SourceIPv6Address,
        Field::DestinationIPv6Address,
    ] {
        assert_eq!(collected[&field], Transform::address(AddressTransform::Pseudonym), "{field}");
    }
    for field in [Field::SourceTransportPort, Field::DestinationTransportPort, Field::ProtocolIdentifier] {
        assert_eq!(collected[&field], Transform::Exact, "flows are matched by their {field}");
    }
    assert_eq!(collected[&Field::TcpControlBits], Transform::ControlBits { mask: 0x00f });
    for keyed in ["\"prefix-preserving\"", "{ foreign = \"omit\", domestic = \"crypto-pan\" }"] {
        parse(&with(both, "established_only = true", &format!("destinationIPv6Address = {keyed}")))
            .expect(keyed);
    }
    let policy = parse(&with(both, "k_threshold = 10\nk_noise = 5", "")).expect("is fine");
    assert_eq!(policy.recipients[0].mitigations.k_noise, 5);
}
