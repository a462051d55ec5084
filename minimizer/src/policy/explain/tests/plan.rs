//! Each sentence is there if, and only if, the plan does what it says.

use std::path::Path;

use minimizer_common::plan::Steps;
use minimizer_common::tunnel::Tunnel;

use super::example;
use crate::policy::builtin::BUILT_IN;
use crate::policy::class::Class;
use crate::policy::compile::CompiledPolicy;
use crate::policy::model::Policy;
use crate::policy::transform::AddressTransform;

fn flowing(policy: &Policy) -> String {
    policy.explain().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Policies that do one thing each, beside those that are shipped.
fn drawn() -> Vec<Policy> {
    let scope = "[scope]\ndomestic = [\"192.0.2.0/24\"]\ndirections = [\"foreign-domestic\"]\n";
    let indicators = |line: &str| format!("[selectors]\nindicators = [\"1 - {line}\"]\n");
    let gets = |name: &str, fields: &str| {
        format!("[[recipients]]\nname = \"{name}\"\npurpose = \"x\"\nfields = {{ {fields} }}\n")
    };
    let protocol = gets("r", "protocolIdentifier = \"exact\"");
    let (exact, pseudonym) = ("sourceIPv4Address = \"exact\"", "sourceIPv4Address = \"pseudonym\"");
    let texts = [
        protocol.clone(),
        format!("{scope}{protocol}"),
        format!("tunnels = [\"gtp-u\", \"6in4\"]\n{protocol}"),
        format!("tunnels = [\"vxlan\"]\n{scope}tunnel_endpoints = [\"192.0.2.0/30\"]\n{protocol}"),
        format!("{}{protocol}", indicators("198.51.100.7")),
        format!("{}{protocol}", indicators("198.51.100.0/24 tcp")),
        format!("{}{protocol}", indicators("* udp/4000")),
        format!("{}{protocol}", indicators("* 132")),
        format!("{scope}{}{protocol}", indicators("* udp/4000")),
        gets("r", pseudonym),
        gets("r", "sourceIPv6Address = \"pseudonym\""),
        gets("r", "sourceIPv4Address = \"crypto-pan\""),
        format!("{}{}", gets("r", exact), gets("s", pseudonym)),
        format!(
            "acknowledged = [\"r and s together get more than each of them\"]\n{}{}",
            gets("r", exact),
            gets("s", &format!("{pseudonym}, sourceIPv6Address = \"pseudonym\""))
        ),
        format!(
            "interval = \"10s\"\n{}",
            gets("r", "protocolIdentifier = \"exact\"").replace("fields", "k_threshold = 5\nfields")
        ),
        format!(
            "{scope}{}",
            gets("r", "sourceIPv4Address = { foreign = \"exact\", domestic = \"pseudonym\" }")
        ),
    ];
    let parse = |text: String| {
        Policy::parse(&format!("name = \"p\"\n{text}"), Path::new("p.toml"))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    texts.into_iter().map(parse).collect()
}

#[test]
fn sentences_say_what_the_plan_does() {
    let built_in = BUILT_IN.map(|policy| Policy::load(policy.name, &[]).expect(policy.name));
    let shipped = ["active-cyberdefence", "recipient-abroad"].map(example);
    for policy in built_in.into_iter().chain(shipped).chain(drawn()) {
        let said = flowing(&policy);
        let compiled = CompiledPolicy::compile(policy.clone()).expect("compiles");
        let does = |step: Steps| Steps(compiled.plan.steps).intersects(step);
        let is_said = |part: &str, does: bool| assert_eq!(said.contains(part), does, "`{part}` in: {said}");

        // Which packets.
        let indicators = policy.selectors.as_deref().unwrap_or_default();
        is_said("There are no selectors", !does(Steps::SELECT));
        is_said("To decide whether a packet is collected", does(Steps::SCOPE.union(Steps::SELECT)));
        let compared = said.split("To decide whether a packet is collected, ").nth(1).unwrap_or("");
        let compared = compared.split_once(". ").map_or("", |(sentence, _)| sentence);
        let judges = does(Steps::TRIE.union(Steps::HOSTS_IPV4).union(Steps::HOSTS_IPV6));
        for (part, does) in [
            ("addresses", judges),
            ("ports", indicators.iter().any(|indicator| !indicator.ports.is_empty())),
            ("prefixes of the scope", does(Steps::SCOPE)),
            ("indicators", does(Steps::SELECT)),
        ] {
            assert_eq!(compared.contains(part), does, "`{part}` in: {compared}");
        }
        is_said("Domestic and foreign parties are not told apart", !does(Steps::SCOPE));
        is_said("Special are private addresses", does(Steps::SCOPE));
        is_said("Tunnels are not looked into", policy.tunnels.is_empty());
        for tunnel in Tunnel::ALL {
            let inside = said.split("Inside of ").nth(1).and_then(|rest| rest.split(" the headers").next());
            let names = inside.is_some_and(|names| names.split([' ', ',']).any(|name| name == tunnel.name()));
            assert_eq!(names, policy.tunnels.has(*tunnel), "{} in: {said}", tunnel.name());
        }
        is_said(
            "The addresses of the outer packet are parties",
            does(Steps::SCOPE) && !policy.tunnels.is_empty(),
        );
        is_said("at which tunnels of the network end", does(Steps::ENDPOINTS));
        is_said("240.0.0.0/4 (all but 255.255.255.255)", does(Steps::RESERVED_IPV4));
        is_said("fd6d:696e:696d:697a::/64 look as if pseudonyms sent them", does(Steps::RESERVED_IPV6));
        is_said("end as reserved_address", does(Steps::RESERVED_IPV4.union(Steps::RESERVED_IPV6)));

        // Why, and until when: `replay` does not ask for the period.
        is_said("the agent attaches nothing and collects nothing. `replay`", policy.mandate.is_some());

        // What.
        let gets = |is_it: &dyn Fn(AddressTransform) -> bool| {
            let mut fields = policy.recipients.iter().flat_map(|recipient| recipient.fields.values());
            fields.any(|transform| {
                [Class::Foreign, Class::Domestic].into_iter().any(|class| is_it(transform.of_class(class)))
            })
        };
        is_said("Pseudonyms are made in the kernel", compiled.has_pseudonyms());
        let is_pseudonym = gets(&|transform| transform == AddressTransform::Pseudonym);
        is_said("Pseudonyms are made at the drain", is_pseudonym && !compiled.has_pseudonyms());
        let preserves = gets(&|transform| matches!(transform, AddressTransform::PrefixPreserving(_)));
        is_said("Preserved prefixes are made at the drain", preserves);
        is_said(
            "those of IPv4 also change when a reload changes the domestic IPv4 prefixes",
            policy.has_pseudonyms_of(false) && policy.scope.is_some(),
        );
        is_said("a permutation of their ranks among the domestic ones", compiled.ranks.is_some());
        is_said(
            "Source addresses are kept in the kernel also",
            policy.recipients.iter().any(|it| it.k_threshold.is_some()),
        );

        // Who.
        for recipient in &policy.recipients {
            let threshold = recipient.k_threshold;
            let held = |k: u32| said.contains(&format!("Receives no record that fewer than {k} different"));
            assert!(threshold.is_none_or(held), "{said}");
        }
    }
}

#[test]
fn listed_addresses_that_look_like_pseudonyms_are_cautioned_of() {
    let policy = |listed: &str, transform: &str| {
        let text = format!(
            "name = \"p\"\n[scope]\ndomestic = [\"192.0.2.0/24\"]\nforeign = [{listed}]\ndirections = [\"foreign-domestic\"]\n\
             [[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = {{ destinationIPv4Address = \"{transform}\" }}\n"
        );
        Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    };
    let caution = "where addresses look like pseudonyms that the policy makes";
    for (listed, transform, is_said) in [
        ("\"240.0.0.0/4\"", "pseudonym", true),
        ("\"247.1.0.0/16\"", "pseudonym", true),
        ("\"224.0.0.0/3\"", "pseudonym", true),
        ("\"240.0.0.0/4\"", "exact", false),
        ("\"fd6d:696e:696d:697a::/64\"", "pseudonym", false),
        ("\"100.64.0.0/10\"", "pseudonym", false),
    ] {
        let policy = policy(listed, transform);
        let said = policy.cautions(jiff::Timestamp::UNIX_EPOCH).join(" ");
        assert_eq!(said.contains(caution), is_said, "{listed}: {said}");
        assert_eq!(flowing(&policy).contains(caution), is_said, "{listed}");
    }
}
