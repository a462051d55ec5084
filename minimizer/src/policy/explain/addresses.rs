//! What is said of special addresses, of IPv4 addresses inside of IPv6 addresses, and of parties that no prefix can tell.

use crate::policy::class::Class;
use crate::policy::model::{Policy, Scope};
use crate::policy::special::{RANGES, Range};
use crate::policy::tables::TRIE_HOSTS_MAX;
use crate::policy::translation::{Mechanism, Translation, WELL_KNOWN};
use crate::policy::words;

/// The most examples in a sentence.
const EXAMPLES_MAX: usize = 10;

/// How special addresses are judged, and IPv6 addresses that carry an IPv4 address, and which parties no prefix can tell.
pub fn special_and_embedded(scope: &Scope, own: &[Translation]) -> Vec<String> {
    let mut said = vec![
        "Special are private addresses, those of carriers' NAT (100.64.0.0/10), loopback, link-local, unique-local, multicast, \
         broadcast, Teredo, and the other special ranges of docs/POLICY.md. Packets from or to them are not collected, except \
         where the policy lists their prefix as domestic or foreign."
            .to_owned(),
    ];
    let named: Vec<_> = scope
        .prefixes
        .iter()
        .filter(|(prefix, class)| {
            let meets = |range: &Range| range.prefix.covers(prefix) || prefix.covers(&range.prefix);
            matches!(class, Class::Foreign | Class::Domestic) && RANGES.iter().any(meets)
        })
        .map(|(prefix, class)| format!("{prefix} as {class}"))
        .collect();
    if !named.is_empty() {
        let named = words::examples(named, EXAMPLES_MAX);
        said.push(format!("The policy lists prefixes with special addresses: {named}."));
    }
    said.extend(translated(own));
    said.push(
        "IPv4 packets with a source route, or with more than four octets of options, are not collected, nor are IPv6 packets whose \
         routing header has segments left. Of a later fragment only the headers in front are seen."
            .to_owned(),
    );
    said
}

/// Which IPv6 addresses are judged by the IPv4 address in them, and which are not.
fn translated(own: &[Translation]) -> Vec<String> {
    let mut judged: Vec<_> = WELL_KNOWN.iter().map(ToString::to_string).collect();
    judged.extend(own.iter().take(EXAMPLES_MAX).map(|translation| format!("the network's {translation}")));
    let more = own.len().saturating_sub(EXAMPLES_MAX);
    if more > 0 {
        judged.push(format!("{more} more of the network"));
    }
    let mut said = vec![format!(
        "An IPv6 address in {} has the class of the IPv4 address in it (domestic, foreign, never or special), unless the policy \
         lists this very IPv6 prefix or a part of it.",
        words::list(&judged)
    )];
    if own.iter().any(|translation| translation.before_zeroes().is_some()) {
        said.push(
            "Where bits 64 to 71 of an address of NAT64 are not zero, and its class depends on the bits behind them, it is special."
                .to_owned(),
        );
    }
    if own.iter().any(|translation| !translation.is_whole()) {
        said.push(
            "Where a customer of MAP has several IPv4 addresses, the customer's IPv6 addresses are never collected if one of them is \
             not to be, else special if one is, else domestic if one is."
                .to_owned(),
        );
    }
    said.push(
        "Not seen is an IPv4 address in other places: in addresses of NAT64, 464XLAT, 6rd, MAP and ISATAP whose prefix is not among \
         these. Not seen either is who is behind a NAT, a VPN or a relay, or the home address of Mobile IPv6."
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
    let own = if policy.translations.is_empty() { "" } else { ", and those of the network" };
    let mut said = format!(
        "An indicator of IPv4 also selects IPv6 packets with an address that carries its address: NAT64 (64:ff9b::/96), 6to4 and \
         IPv4-mapped{own}."
    );
    if hosts > 0 && (!has_trie || hosts > TRIE_HOSTS_MAX) {
        let why = if has_trie {
            format!("because there are more than {TRIE_HOSTS_MAX} of them")
        } else {
            "because the policy has neither a scope nor an indicator of a prefix".to_owned()
        };
        let kinds =
            if policy.translations.iter().any(|translation| translation.mechanism == Mechanism::Isatap) {
                "NAT64 and ISATAP"
            } else {
                "NAT64"
            };
        let zeroes = if policy.translations.iter().any(|translation| translation.longest() < 128) {
            ", with zeroes behind the IPv4 address,"
        } else {
            ""
        };
        said += &format!(
            " Of indicators of single addresses only those of {kinds}{zeroes} are looked for, {why}."
        );
    }
    Some(said)
}
