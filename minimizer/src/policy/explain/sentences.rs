//! The sentences: why, which packets, what, who, and what the words of the table mean.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use minimizer_common::tunnel::Tunnel;

use super::{Section, addresses};
use crate::policy::cautions::reserved_ranges;
use crate::policy::class::Class;
use crate::policy::field::Field;
use crate::policy::model::{Commitments, Destination, Policy, Recipient, Scope, Sources};
use crate::policy::probing;
use crate::policy::ranks::Ranks;
use crate::policy::transform::{AddressTransform, Transform};
use crate::policy::translation::Translation;
use crate::policy::words;

/// The transform of each field that the program stores.
type Stored = BTreeMap<Field, Transform>;

/// All sections, in reading order.
pub fn sentences(policy: &Policy, stored: &Stored, now: Timestamp) -> Vec<Section> {
    let mut sections = vec![
        Section { title: "Why", sentences: why(policy) },
        Section { title: "Which packets", sentences: which(policy) },
        Section { title: "What", sentences: what(policy, stored) },
        Section { title: "Who", sentences: who_all(policy) },
    ];
    let cautions = policy.cautions(now);
    if !cautions.is_empty() {
        let said = cautions.iter().map(|caution| format!("CAUTION: {caution}")).collect();
        sections.push(Section { title: "Cautions", sentences: said });
    }
    sections
}

fn why(policy: &Policy) -> Vec<String> {
    let mut said = Vec::new();
    if !policy.description.is_empty() {
        said.push(format!("The policy says of itself: {}", sentence(&policy.description)));
    }
    match &policy.mandate {
        Some(mandate) => {
            said.push(format!("Mandate {}: {}", mandate.id, sentence(&mandate.purpose)));
            said.push(format!("Legal basis: {}", sentence(&mandate.legal_basis)));
            said.push(format!(
                "Valid from {} until {}. Outside of that the agent attaches nothing and collects nothing. `replay` of a capture does not ask for \
                 the period.",
                mandate.valid_from, mandate.valid_until
            ));
        }
        None => said.push("It names no mandate, and does not end by itself.".to_owned()),
    }
    said.extend(committed(&policy.commitments));
    said
}

/// What the policy commits itself to.
fn committed(commitments: &Commitments) -> Vec<String> {
    let Commitments { serial, allow_serial, acknowledged, max_retention, domestic_target, .. } = commitments;
    let mut said: Vec<_> =
        acknowledged.iter().map(|words| format!("It says in so many words: {}", sentence(words))).collect();
    if let Some(reason) = domestic_target {
        said.push(format!("Indicators may be single domestic parties. The reason: {}", sentence(reason)));
    }
    if let Some(longest) = max_retention {
        said.push(format!("No recipient may keep records for longer than {}.", words::duration(*longest)));
    }
    if let Some(serial) = serial {
        said.push(format!(
            "Its serial number is {serial}. After it, an agent that requires a signature takes no policy with a lower number than \
             {}.",
            allow_serial.unwrap_or(*serial)
        ));
    }
    said
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn which(policy: &Policy) -> Vec<String> {
    let mut said = match &policy.scope {
        Some(scope) => in_scope(scope, &policy.translations),
        None => vec![
            "Packets in every direction. Domestic and foreign parties are not told apart: communications between \
             domestic parties are collected too."
                .to_owned(),
        ],
    };
    said.push(match &policy.selectors {
        None => "There are no selectors: every such packet is collected, whoever sends it.".to_owned(),
        Some(indicators) => {
            let mut ids: Vec<_> = indicators.iter().map(|indicator| indicator.id).collect();
            ids.sort_unstable();
            ids.dedup();
            let expiries = indicators.iter().filter_map(|indicator| indicator.expires);
            let (first, last) = (expiries.clone().min(), expiries.max());
            let endless = indicators.iter().filter(|indicator| indicator.expires.is_none()).count();
            let ends = match (first, last) {
                (Some(first), Some(last)) if first == last => format!("; those that expire do so at {first}"),
                (Some(first), Some(last)) => format!("; the first expires at {first}, the last at {last}"),
                _ => String::new(),
            };
            let endless = match endless {
                0 => String::new(),
                1 => "; 1 line never expires".to_owned(),
                endless => format!("; {endless} lines never expire"),
            };
            format!(
                "Of these, only packets of which the source or the destination matches an indicator: {} in {}{ends}{endless}.",
                words::count(ids.len(), "indicator", "indicators"),
                words::count(indicators.len(), "line", "lines"),
            )
        }
    });
    said.extend(addresses::carried_indicators(policy));
    let tunnels: Vec<_> = Tunnel::ALL
        .iter()
        .filter(|tunnel| policy.tunnels.has(**tunnel))
        .map(|tunnel| tunnel.name().to_owned())
        .collect();
    // With endpoints, those that may come from a tunnel are not collected: it is said below.
    let fragments = if policy.scope.is_some() && !policy.tunnel_endpoints.is_empty() {
        ""
    } else {
        " A fragment of a tunnel counts as a packet between its outer addresses."
    };
    said.push(if tunnels.is_empty() {
        "Tunnels are not looked into: what is inside is payload.".to_owned()
    } else {
        format!(
            "Inside of {} the headers of the inner packet are read, and all that is said here is about that packet.{}",
            words::list(&tunnels),
            fragments
        )
    });
    if policy.scope.is_some() && !policy.tunnels.is_empty() {
        let ends = if policy.tunnel_endpoints.is_empty() {
            "The addresses of the outer packet are parties, too: the policy must collect the direction between them.".to_owned()
        } else {
            let endpoints: Vec<_> = policy.tunnel_endpoints.iter().map(ToString::to_string).collect();
            format!(
                "The addresses of the outer packet are parties, too, except those in {}, at which tunnels of the network end: the policy must \
                 collect the directions between all parties. Fragments from or to these that may be of a tunnel are not collected; \
                 any other fragment counts as a packet between its outer addresses.",
                words::list(&endpoints)
            )
        };
        said.push(ends);
    }
    let reserved = reserved_ranges(policy);
    if !reserved.is_empty() {
        said.push(format!(
            "Packets from or to {} look as if pseudonyms sent them: they end as reserved_address and are not collected, whatever else is \
             said here.",
            words::list(&reserved)
        ));
    }
    said.push("Of any other packet nothing is stored; it is only counted.".to_owned());
    said
}

fn in_scope(scope: &Scope, translations: &[Translation]) -> Vec<String> {
    let number = |class, ipv6| {
        scope.prefixes.iter().filter(|(prefix, of)| *of == class && prefix.ipv6 == ipv6).count()
    };
    let directions: Vec<_> = scope
        .directions
        .iter()
        .map(|(source, destination)| format!("from {source} to {destination}"))
        .collect();
    let mut said = vec![format!("Packets {} addresses, and no others.", words::list(&directions))];
    if scope.directions.contains(&(Class::Domestic, Class::Domestic)) {
        said.push("Communications between domestic parties are collected.".to_owned());
    } else if number(Class::Domestic, false) + number(Class::Domestic, true) > 0 {
        said.push("Communications between domestic parties are not collected.".to_owned());
    }
    said.push(format!(
        "Domestic are {} of IPv4 and {} of IPv6; every other address is foreign, apart from those that are never collected, are \
         special or carry an IPv4 address.",
        words::count(number(Class::Domestic, false), "prefix", "prefixes"),
        words::count(number(Class::Domestic, true), "prefix", "prefixes"),
    ));
    for (ipv6, version) in [(false, "IPv4"), (true, "IPv6")] {
        if number(Class::Domestic, ipv6) == 0 {
            let except = if ipv6 { " but those that carry a domestic IPv4 address" } else { "" };
            said.push(format!(
                "CAUTION: no {version} prefix is domestic, so that no {version} address is{except}."
            ));
        }
    }
    let exceptions = number(Class::Foreign, false) + number(Class::Foreign, true);
    if exceptions > 0 {
        said.push(format!(
            "{} listed as foreign, which counts inside of domestic ones and of special ranges.",
            words::count(exceptions, "prefix is", "prefixes are")
        ));
    }
    let never = number(Class::Never, false) + number(Class::Never, true);
    if never > 0 {
        said.push(format!(
            "Packets from or to {} are never collected, whatever else covers them.",
            words::count(never, "prefix", "prefixes")
        ));
    }
    said.extend(addresses::special_and_embedded(scope, translations));
    said
}

fn what(policy: &Policy, stored: &Stored) -> Vec<String> {
    let mut said = vec![
        "Payload is never read. Of each packet, the fields in the table are taken from its headers, and nothing else; \
         what the table says the kernel keeps is all that is ever stored of them."
            .to_owned(),
        format!(
            "At each drain, {}, the kernel's tables are emptied. From then on what they held is only in the agent's \
             memory, until each sink has made its recipient's records of it or has given it up.",
            policy.commitments.interval.map_or_else(
                || "at most a minute apart".to_owned(),
                |interval| format!("{} apart", words::interval(interval))
            )
        ),
        "Packets and octets are always counted exactly in the kernel: with them the ledger proves that no packet \
         vanished."
            .to_owned(),
    ];
    said.extend(compared(policy));
    if has(policy, stored, |transform| matches!(transform, AddressTransform::PrefixPreserving(_))) {
        said.push(format!(
            "Preserved prefixes are made at the drain, under a key of the recipient that is used for {}: the same address becomes the \
             same one as long, and another one after.",
            words::duration(policy.pseudonym_epoch)
        ));
    }
    if has(policy, stored, |transform| transform == AddressTransform::Pseudonym) {
        let makes = |field: &Field, of: &Transform, class: Class| {
            let kept = stored.get(field).map(|kept| kept.of_class(class));
            of.of_class(class) == AddressTransform::Pseudonym && kept != Some(AddressTransform::Pseudonym)
        };
        let mut wanted = policy.recipients.iter().flat_map(|recipient| &recipient.fields);
        let at_drain = wanted.any(|(field, of)| {
            [Class::Foreign, Class::Domestic].into_iter().any(|class| makes(field, of, class))
        });
        let in_kernel = stored.values().any(Transform::is_pseudonym);
        let place = match (in_kernel, at_drain) {
            (true, true) => {
                "in the kernel, and at the drain where the table says that the kernel keeps more of the address"
            }
            (false, _) => "at the drain, because the kernel keeps more of the addresses, as the table says",
            (true, false) => "in the kernel",
        };
        said.push(format!(
            "Pseudonyms are made {place}, under a key that is used for {}: the same address has the same \
             pseudonym as long, and another one after{}. Each recipient's are made again under a key of its own, so \
             that pseudonyms join the records of no two recipients; other fields may.",
            words::duration(policy.pseudonym_epoch),
            if policy.has_pseudonyms_of(false) && policy.scope.is_some() {
                "; those of IPv4 also change when a reload changes the domestic IPv4 prefixes"
            } else {
                ""
            }
        ));
    }
    if policy.recipients.iter().any(|recipient| recipient.k_threshold.is_some()) {
        let kept = |field, otherwise: &'static str| match stored.get(&field) {
            Some(Transform::Exact) => "as they are",
            Some(transform) if transform.is_by_class() => "as the table says",
            _ => otherwise,
        };
        said.push(format!(
            "Source addresses are kept in the kernel also to count how many there were, for the threshold of a recipient who \
             does not receive them: of IPv4 {}, of IPv6 {}.",
            kept(Field::SourceIPv4Address, "as pseudonyms"),
            kept(Field::SourceIPv6Address, "the first 64 bits"),
        ));
    }
    if policy.recipients.iter().any(|recipient| recipient.mitigations.established_only) {
        said.push(
            "Both addresses, as pseudonyms or as the table says, both ports and the protocol of each packet are kept in the kernel also to \
             find the other direction of each flow, for a recipient who gets only flows with both."
                .to_owned(),
        );
    }
    said
}

/// What of a packet decides whether it is collected.
fn compared(policy: &Policy) -> Option<String> {
    let indicators = policy.selectors.as_deref().unwrap_or_default();
    let has_scope = policy.scope.is_some();
    let mut parts = Vec::new();
    if has_scope || indicators.iter().any(|indicator| indicator.prefix.is_some()) {
        parts.push("addresses".to_owned());
    }
    if indicators.iter().any(|indicator| indicator.protocol.is_some() || !indicator.ports.is_empty()) {
        parts.push("protocol".to_owned());
    }
    if indicators.iter().any(|indicator| !indicator.ports.is_empty()) {
        parts.push("ports".to_owned());
    }
    let with = match (has_scope, policy.selectors.is_some()) {
        (false, false) => return None,
        (true, false) => "the prefixes of the scope",
        (false, true) => "the indicators",
        (true, true) => "the prefixes of the scope and the indicators",
    };
    Some(format!(
        "To decide whether a packet is collected, these of its fields are compared with {with}, also where they are not stored: {}.",
        words::list(&parts)
    ))
}

/// Whether the program stores, or a recipient gets, such an address.
fn has(policy: &Policy, stored: &Stored, is_wanted: impl Fn(AddressTransform) -> bool) -> bool {
    let views = policy.recipients.iter().flat_map(|recipient| recipient.fields.values());
    stored.values().chain(views).any(|transform| {
        [Class::Foreign, Class::Domestic].into_iter().any(|class| is_wanted(transform.of_class(class)))
    })
}

fn who_all(policy: &Policy) -> Vec<String> {
    policy.recipients.iter().map(|recipient| who(recipient, policy.commitments.interval)).collect()
}

fn who(recipient: &Recipient, interval: Option<(Duration, Duration)>) -> String {
    let mut said = format!("{}: {}", recipient.name, sentence(&recipient.purpose));
    said += &match recipient.retention {
        Some(retention) => format!(" May keep records for {}.", words::duration(retention)),
        None => " The policy sets no limit to how long records are kept.".to_owned(),
    };
    if let Some(destinations) = &recipient.destinations {
        said += &go_to(destinations);
    }
    if let Some(threshold) = recipient.k_threshold {
        let interval = interval.map_or_else(
            || "interval between two drains".to_owned(),
            |it| format!("interval of {}", words::interval(it)),
        );
        let counted = match recipient.counted {
            Sources::All => "",
            Sources::Domestic => "domestic ",
        };
        said += &format!(
            " Receives no record that fewer than {threshold} different {counted}sources made in one {interval}: such records are \
             folded into one that says only how much there was. A source is an IPv4 address, or the first 64 bits of an IPv6 \
             address."
        );
        let (forged, noise) = (threshold.saturating_sub(1), recipient.mitigations.k_noise);
        if noise > 0 {
            said += &format!(
                " To the threshold the agent adds 0 to {noise} for each record, drawn anew in each interval, and it rounds counts down \
                 or up at random: in one interval, one source more or less makes the record leave or stay with a probability of at most \
                 1 in {}, and in many intervals as many times that.",
                u64::from(noise) + 1
            );
        } else {
            said += &match recipient.counted {
                Sources::All => format!(
                    " Whoever forges {forged} sources learns by the record whether there was another one."
                ),
                // Resets are answers, too.
                Sources::Domestic => format!(
                    " Whoever makes {forged} domestic hosts answer, by packets that it forges, learns by the record of these answers \
                     whether there was another source."
                ),
            };
        }
    }
    for held_back in probing::mitigated(recipient) {
        said += &format!(" {held_back}");
    }
    said
}

fn go_to(destinations: &[Destination]) -> String {
    if destinations.is_empty() {
        return " Its records go to no server.".to_owned();
    }
    let servers: Vec<_> = destinations.iter().map(ToString::to_string).collect();
    format!(" Over the network its records go only to {}.", words::list(&servers))
}

/// Explains the words of the table that occur.
pub fn notes(policy: &Policy, stored: &Stored) -> Vec<String> {
    let mut said = Vec::new();
    let preserves = |transform| matches!(transform, AddressTransform::PrefixPreserving(_));
    let is_pseudonym = |transform| transform == AddressTransform::Pseudonym;
    if has(policy, stored, is_pseudonym) {
        said.push(
            "pseudonym: a number in place of the address, made under the key of the epoch. It looks like an address that \
             nobody has: of 240.0.0.0/4 for IPv4, of fd6d:696e:696d:697a::/64 for IPv6."
                .to_owned(),
        );
        if policy.has_pseudonyms_of(false) {
            let domestic = policy.scope.as_ref().and_then(Ranks::new).map_or("made so, too", |_| {
                "a permutation of their ranks among the domestic ones: no two domestic addresses share a pseudonym, but a \
                 foreign one can share one with a domestic one"
            });
            said.push(format!(
                "Pseudonyms of foreign IPv4 addresses, and of all where there is no scope, are a permutation of the last 28 bits, \
                 which the first 4 bits choose: addresses that differ in these share one by chance, at most 0.4 % of a million \
                 and 4 % of ten million. Those of domestic IPv4 addresses are {domestic}."
            ));
        }
        if policy.has_pseudonyms_of(true) {
            said.push(
                "Pseudonyms of IPv6 addresses are SipHash-2-4, 64 bits: of ten million addresses, two share one in one of 370,000 \
                 epochs."
                    .to_owned(),
            );
        }
    }
    if has(policy, stored, preserves) {
        said.push(
            "common prefixes: another address, which shares with any other as many first bits as the true ones did. \
             Who knows some of the true addresses learns first bits of others, without any key."
                .to_owned(),
        );
    }
    if has(policy, stored, is_pseudonym) || has(policy, stored, preserves) {
        said.push(
            "holder of the key: if the agent is given a key file, whoever holds that file, by trying addresses, also \
             later. If it is not, keys are random, known to no person, and zeroed when the epoch is over and its \
             last records are delivered or lost: then nobody can any more. The kernel and the agent hold the key while the epoch lasts."
                .to_owned(),
        );
    }
    if policy.recipients.iter().any(Recipient::has_keyed_addresses) {
        said.push(
            "probing: whoever sends packets to an address, or has packets sent, and reads the records finds its pseudonym by what was \
             sent: a port, a number of packets or octets, the moment, or any record at all where there would be none. It lasts until the \
             epoch ends. `min_packets` and `established_only` make it harder; what remains then stands with the recipient."
                .to_owned(),
        );
    }
    said.push(
        "nobody: nobody from these records alone. What is missing in the kernel's tables was never stored; who knows \
         it from elsewhere still knows it."
            .to_owned(),
    );
    said
}
