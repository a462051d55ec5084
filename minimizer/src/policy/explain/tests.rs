//! What explanations say, and that each fits one page.

mod plan;

use std::path::Path;

use crate::policy::builtin::BUILT_IN;
use crate::policy::model::Policy;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");

fn example(name: &str) -> Policy {
    let path = format!("{EXAMPLES}/{name}.toml");
    Policy::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn all_policies_fit_100_columns_and_have_no_escapes() {
    let built_in = BUILT_IN.map(|policy| Policy::load(policy.name, &[]).expect(policy.name));
    for policy in built_in.into_iter().chain(["active-cyberdefence", "recipient-abroad"].map(example)) {
        let text = policy.explain().to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 100 && !line.contains('\x1b'), "{}: {line}", policy.name);
            assert_eq!(line, line.trim_end());
        }
        assert!(text.contains("Payload is never read."), "{text}");
        assert!(text.contains(&policy.digest), "{text}");
    }
}

#[test]
fn the_sentences_answer_what_an_inspector_asks() {
    let text = example("active-cyberdefence").explain().to_string();
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Mandate EXAMPLE-2026-017: to find and stop attacks on critical infrastructure from abroad.",
        "Valid from 2026-03-31T15:00:00Z until 2027-03-31T15:00:00Z.",
        "Packets from foreign to foreign, from foreign to domestic and from domestic to foreign addresses, and no others.",
        "Communications between domestic parties are not collected.",
        "Packets from or to 2 prefixes are never collected",
        "4 indicators in 5 lines; the first expires at 2026-06-30T15:00:00Z, the last at 2026-12-31T00:00:00Z; 1 line never expires.",
        "Inside of gtp-u the headers of the inner packet are read",
        "May keep records for 30 days.",
        "Packets and octets are always counted exactly",
        "- ipClassOfService, icmpTypeIPv4",
    ] {
        assert!(flowing.contains(part), "`{part}` is missing in: {text}");
    }
}

#[test]
fn each_recipient_has_what_remains_and_who_can_turn_it_back() {
    let text = example("recipient-abroad").explain().to_string();
    for line in [
        "  own-soc: foreign             as it is                    none                   is not hidden",
        "  partner-abroad: foreign      first 24 bits               truncation             nobody",
        "  statistics                   nothing                     black marker           nobody",
        "  own-soc, partner-abroad:     pseudonym under its own key permutation            holder of the",
        "  domestic                                                                        key, probing",
        "  kept in the kernel           rounded down to 1 second    precision degradation  nobody",
    ] {
        assert!(text.lines().any(|said| said == line), "`{line}` is missing in: {text}");
    }
}

#[test]
fn special_and_embedded_addresses_are_explained_with_what_is_not_seen() {
    let policy = |scope: &str, indicators: &str| {
        let text = format!(
            "name = \"p\"\n{scope}{indicators}[[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = {{ protocolIdentifier = \"exact\" }}\n"
        );
        let policy = Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"));
        policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let scope = "[scope]\ndomestic = [\"192.0.2.0/24\", \"192.168.7.0/24\"]\nforeign = [\"100.64.0.0/10\"]\n\
                 nat64 = [\"2001:db8:64::/96\"]\ndirections = [\"foreign-domestic\"]\n";
    let said = policy(scope, "");
    for part in [
        "every other address is foreign, apart from those that are never collected, are special or carry an IPv4 address.",
        "Packets from or to them are not collected, except where the policy lists their prefix as domestic or foreign.",
        "The policy lists prefixes with special addresses: 100.64.0.0/10 as foreign, 192.168.7.0/24 as domestic.",
        "An IPv6 address in ::ffff:0.0.0.0/96 (IPv4-mapped), 64:ff9b::/96 (NAT64), 2002::/16 (6to4) and the network's \
         2001:db8:64::/96 (NAT64) has the class of the IPv4 address in it",
        "Not seen is an IPv4 address in other places: in addresses of NAT64, 464XLAT, 6rd, MAP and ISATAP whose prefix is not",
        "IPv4 packets with a source route, or with more than four octets of options, are not collected, nor are IPv6 packets whose \
         routing header has segments left",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    let one = "[selectors]\nindicators = [\"1 - 203.0.113.7\"]\n";
    let (also, only) =
        ("An indicator of IPv4 also selects IPv6 packets", "only those of NAT64 are looked for");
    assert!(!said.contains(also));
    let with_scope = policy(scope, one);
    assert!(with_scope.contains(also) && !with_scope.contains(only), "{with_scope}");
    let said = policy("", one);
    assert!(said.contains(also) && said.contains(only) && said.contains("neither a scope"), "{said}");
    assert!(!said.contains("Special are private addresses"), "{said}");
    let many: Vec<_> = (0..1025).map(|n| format!("\"1 - 203.0.{}.{}\"", n / 256, n % 256)).collect();
    let said = policy(scope, &format!("[selectors]\nindicators = [{}]\n", many.join(", ")));
    assert!(said.contains("because there are more than 1024 of them"), "{said}");
}

#[test]
fn what_is_said_of_pseudonyms_is_said_of_those_that_are_made() {
    let said = |before: &str, after: &str| {
        let text = format!("name = \"p\"\n{before}[[recipients]]\nname = \"r\"\npurpose = \"x\"\n{after}");
        let policy = Policy::parse(&text, Path::new("p.toml")).expect("is fine");
        policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let threshold =
        said("interval = \"10s\"\n", "k_threshold = 5\n[recipients.fields]\npacketDeltaCount = \"log2\"\n");
    assert!(threshold.contains("Pseudonyms of foreign IPv4 addresses"), "{threshold}");
    assert!(!threshold.contains("Pseudonyms of IPv6 addresses"), "{threshold}");
    assert!(threshold.contains("keyed permutations") && !threshold.contains("keyed hash"), "{threshold}");
    let by_rank = said(
        "[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\"]\n",
        "[recipients.fields]\nsourceIPv4Address = \"pseudonym\"\n",
    );
    for part in [
        "those of IPv4 also change when a reload changes the domestic IPv4 prefixes",
        "but a foreign one can share one with a domestic one",
    ] {
        assert!(by_rank.contains(part), "`{part}` is missing in: {by_rank}");
    }
}

#[test]
fn versions_without_domestic_prefixes_are_cautioned_of() {
    let text = "name = \"p\"\n[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\"]\n\
                [[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = { vlanId = \"exact\" }\n";
    let policy = Policy::parse(text, Path::new("p.toml")).expect("is fine");
    let said = policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.contains("so that no IPv6 address is but those that carry a domestic IPv4 address."),
        "{said}"
    );
}

#[test]
fn preserved_prefixes_end_with_their_epoch() {
    let text = "name = \"p\"\n[pseudonyms]\nepoch = \"2h\"\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\n\
                fields = { sourceIPv4Address = \"crypto-pan\" }\n";
    let policy = Policy::parse(text, Path::new("p.toml")).expect("is fine");
    let said = policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Preserved prefixes are made at the drain, under a key of the recipient that is used for 2 hours",
        "zeroed when the epoch is over and its last records are delivered or lost: then nobody can any more.",
        "Who knows some of the true addresses learns first bits of others",
    ] {
        assert!(said.contains(part), "`{part}` is missing in: {said}");
    }
    assert!(policy.has_epochs(), "its keys end");
}

#[test]
fn noise_at_a_threshold_is_explained_by_what_it_leaves() {
    let text = "name = \"p\"\ninterval = \"10s\"\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\nk_threshold = 10\nKEYS\n\
                fields = { packetDeltaCount = \"log2\" }\n";
    let said = |keys: &str| {
        let policy = Policy::parse(&text.replace("KEYS", keys), Path::new("p.toml")).expect("is fine");
        policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let sharp = "Whoever forges 9 sources learns by the record whether there was another one.";
    assert!(said("").contains(sharp) && said("").contains("down to a power of two"), "{}", said(""));
    let noisy = said("k_noise = 19");
    for part in ["adds 0 to 19 for each record", "a probability of at most 1 in 20", "down or up to a power"]
    {
        assert!(noisy.contains(part), "`{part}` is missing in: {noisy}");
    }
    assert!(!noisy.contains(sharp), "{noisy}");
    let scope = "[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"domestic-foreign\"]\n[[recipients]]";
    let domestic = text.replace("[[recipients]]", scope).replace("KEYS", "k_counts = \"domestic\"");
    let policy = Policy::parse(&domestic, Path::new("p.toml")).expect("is fine");
    let said = policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("Whoever makes 9 domestic hosts answer") && !said.contains(sharp), "{said}");
}
