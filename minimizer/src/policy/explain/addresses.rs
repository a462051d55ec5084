//! What is said of special addresses, of IPv4 addresses inside of IPv6 addresses, and of parties that no prefix can tell.

use crate::policy::class::Class;
use crate::policy::embedded::WELL_KNOWN;
use crate::policy::model::{Policy, Scope};
use crate::policy::special::{RANGES, Range};
use crate::policy::tables::TRIE_HOSTS_MAX;
use crate::policy::words;

/// The most examples in a sentence.
const EXAMPLES_MAX: usize = 10;

/// How special addresses are judged, and IPv6 addresses that carry an IPv4 address, and which parties no prefix can tell.
pub fn special_and_embedded(scope: &Scope) -> Vec<String> {
    let mut said = vec![
        "Special are private addresses, those of carriers' NAT (100.64.0.0/10), loopback, link-local, unique-local, multicast, \
         broadcast, Teredo, and the other special ranges of docs/POLICY.md. Packets from or to them are not collected, except \
         where the policy lists their prefix."
            .to_owned(),
    ];
    let mut named: Vec<_> = scope
        .prefixes
        .iter()
        .filter(|(prefix, class)| {
            let meets = |range: &Range| range.prefix.covers(prefix) || prefix.covers(&range.prefix);
            matches!(class, Class::Foreign | Class::Domestic) && RANGES.iter().any(meets)
        })
        .map(|(prefix, class)| format!("{prefix} as {class}"))
        .collect();
    if !named.is_empty() {
        let more = named.len().saturating_sub(EXAMPLES_MAX);
        named.truncate(EXAMPLES_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        said.push(format!("The policy lists prefixes with special addresses: {}{more}.", named.join(", ")));
    }
    let mut embeddings: Vec<_> =
        WELL_KNOWN.iter().map(|known| format!("{} ({})", known.prefix, known.purpose)).collect();
    let nat64 = scope.prefixes.iter().filter(|(_, class)| *class == Class::Embedded);
    embeddings.extend(nat64.map(|(prefix, _)| format!("{prefix} (NAT64 of the network)")));
    said.push(format!(
        "An IPv6 address in {} has the class of the IPv4 address in it (domestic, foreign, never or special), unless the policy \
         lists this very IPv6 prefix or a part of it.",
        words::list(&embeddings)
    ));
    said.push(
        "Not seen is an IPv4 address in other places: in ISATAP addresses, behind NAT64 prefixes that the policy does not list or \
         that have not 96 bits, and in 6rd, MAP-E, MAP-T and 464XLAT prefixes of a network. Not seen either is who is behind a \
         NAT, a VPN, a relay or a home agent of Mobile IPv6."
            .to_owned(),
    );
    said.push(
        "IPv4 packets with a source route, or with more than four octets of options, are not collected, nor are IPv6 packets whose \
         routing header has segments left. Of a later fragment only the headers in front are seen."
            .to_owned(),
    );
    said
}

/// Which IPv6 packets the indicators of IPv4 select.
pub fn carried_indicators(policy: &Policy) -> Option<String> {
    let indicators = policy.selectors.as_deref()?;
    let prefixes = || indicators.iter().filter_map(|indicator| indicator.prefix);
    let is_host = |bits: u8, ipv6: bool| bits == if ipv6 { 128 } else { 32 };
    prefixes().find(|prefix| !prefix.ipv6)?;
    let hosts = prefixes().filter(|prefix| !prefix.ipv6 && prefix.bits == 32).count();
    let has_trie = policy.scope.is_some() || prefixes().any(|prefix| !is_host(prefix.bits, prefix.ipv6));
    let mut said = "An indicator of IPv4 also selects IPv6 packets with an address that carries its address: NAT64 (64:ff9b::/96 \
         and the NAT64 prefixes of the scope), 6to4 and IPv4-mapped."
        .to_owned();
    if hosts > 0 && (!has_trie || hosts > TRIE_HOSTS_MAX) {
        let why = if has_trie {
            format!("because there are more than {TRIE_HOSTS_MAX} of them")
        } else {
            "because the policy has neither a scope nor an indicator of a prefix".to_owned()
        };
        said += &format!(" Of indicators of single addresses only those of NAT64 are looked for, {why}.");
    }
    Some(said)
}
