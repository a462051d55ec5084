//! The network's own translations: each prefix must be one that its RFC permits, and must not meet another one.

use std::fmt::Write as _;

use crate::policy::file::ScopeFile;
use crate::policy::prefixes::Prefix;
use crate::policy::translation::{
    CUSTOMER_BITS, EVERY_IPV4, ISATAP_BITS, NAT64_BITS, Translation, WELL_KNOWN,
};
use crate::support::toml::Document;

/// The most bits of the number of a customer's ports.
const PORT_SET_BITS: u8 = 16;

/// A translation, and where the policy lists it.
pub type Placed = (Translation, usize);

/// Reads the network's own translations, in order, each once. Notes what is wrong with them.
pub fn check(document: &mut Document<'_>, scope: &ScopeFile) -> Vec<Placed> {
    let mut all = Vec::new();
    let mut add =
        |document: &mut Document<'_>, offset: usize, read: Result<Vec<Translation>, String>| match read {
            Ok(translations) => all.extend(translations.into_iter().map(|translation| (translation, offset))),
            Err(message) => document.refuse_at(offset, message),
        };
    for text in &scope.nat64 {
        add(document, text.span().start, nat64(text.get()).map(|translation| vec![translation]));
    }
    for rule in &scope.six_rd {
        let ipv4 = rule.get().ipv4.as_deref();
        add(document, rule.span().start, six_rd(&rule.get().ipv6, ipv4).map(|translation| vec![translation]));
    }
    for rule in &scope.map {
        let read = map(&rule.get().ipv6, &rule.get().ipv4, rule.get().ea_bits);
        add(document, rule.span().start, read.map(|translation| vec![translation]));
    }
    for text in &scope.isatap {
        add(document, text.span().start, isatap(text.get()).map(Vec::from));
    }
    // Stable: the first listing stays the first.
    all.sort_by_key(|(translation, _)| *translation);
    all.dedup_by_key(|(translation, _)| *translation);
    refuse_meeting(document, &all);
    all
}

fn ipv6(text: &str, what: &str, example: &str) -> Result<Prefix, String> {
    let prefix = Prefix::parse(text).map_err(|error| error.to_string())?;
    if !prefix.ipv6 {
        return Err(format!(
            "{prefix} is no prefix of IPv6, as those of {what} are: write one like {example}"
        ));
    }
    Ok(prefix)
}

fn ipv4(text: &str) -> Result<Prefix, String> {
    let prefix = Prefix::parse(text).map_err(|error| error.to_string())?;
    if prefix.ipv6 {
        return Err(format!(
            "{prefix} is no prefix of IPv4: `ipv4` has the customers' IPv4 addresses, like 203.0.113.0/24"
        ));
    }
    Ok(prefix)
}

/// Refuses a prefix in which addresses are judged so anyway.
fn refuse_known(prefix: Prefix) -> Result<Prefix, String> {
    match WELL_KNOWN.iter().find(|known| known.prefix.covers(&prefix)) {
        None => Ok(prefix),
        Some(known) => Err(format!(
            "addresses of {} are judged by the IPv4 address in them anyway ({}): remove this prefix",
            known.prefix,
            known.mechanism.name()
        )),
    }
}

fn nat64(text: &str) -> Result<Translation, String> {
    let prefix = ipv6(text, "NAT64", "2001:db8:64::/96")?;
    if !NAT64_BITS.contains(&prefix.bits) {
        let mut lengths = String::new();
        for bits in &NAT64_BITS[..NAT64_BITS.len() - 1] {
            let _ = write!(lengths, "{bits}, ");
        }
        return Err(format!(
            "{prefix} has not {lengths}or {} bits, as prefixes of NAT64 have (RFC 6052): write one of these lengths, or list the prefix \
             under `domestic`, `foreign` or `never`",
            NAT64_BITS[NAT64_BITS.len() - 1]
        ));
    }
    refuse_known(prefix).map(Translation::nat64)
}

fn six_rd(prefix: &str, common: Option<&str>) -> Result<Translation, String> {
    let prefix = refuse_known(ipv6(prefix, "6rd", "2001:db8::/32")?)?;
    let common = common.map_or(Ok(EVERY_IPV4), ipv4)?;
    let behind = 32 - common.bits;
    if prefix.bits + behind > CUSTOMER_BITS {
        return Err(format!(
            "{prefix} and the {behind} bits of an IPv4 address behind {common} are more than {CUSTOMER_BITS} bits, the longest prefix \
             that a customer can have: write the 6rd prefix and the common IPv4 prefix that the border relay has (RFC 5969)"
        ));
    }
    Ok(Translation::six_rd(prefix, common))
}

fn map(prefix: &str, common: &str, ea_bits: u8) -> Result<Translation, String> {
    let prefix = refuse_known(ipv6(prefix, "MAP", "2001:db8:100::/40")?)?;
    let common = ipv4(common)?;
    let behind = 32 - common.bits;
    if ea_bits > behind + PORT_SET_BITS {
        return Err(format!(
            "{ea_bits} bits are more than the {behind} behind {common} and {PORT_SET_BITS} of a port set: write the length of the EA \
             bits of the rule (RFC 7597)"
        ));
    }
    if prefix.bits + ea_bits > CUSTOMER_BITS {
        return Err(format!(
            "{prefix} and {ea_bits} EA bits are more than {CUSTOMER_BITS} bits, the longest prefix that a customer can have: write the \
             IPv6 prefix and the length of the EA bits of the rule (RFC 7597)"
        ));
    }
    Ok(Translation::map(prefix, common, ea_bits))
}

fn isatap(text: &str) -> Result<[Translation; 2], String> {
    let prefix = ipv6(text, "ISATAP", "2001:db8:1:2::/64")?;
    if prefix.bits != ISATAP_BITS {
        return Err(format!(
            "{prefix} has not {ISATAP_BITS} bits, as the prefix of an ISATAP site has (RFC 5214): list each /{ISATAP_BITS} of the site"
        ));
    }
    Ok(Translation::isatap(prefix))
}

/// Refuses prefixes in which addresses would be judged by two IPv4 addresses. A prefix may lie inside of another one that judges
/// only shorter ones by an IPv4 address: then the inner one decides.
fn refuse_meeting(document: &mut Document<'_>, all: &[Placed]) {
    for (inner, offset) in all {
        let others = all.iter().map(|(outer, _)| outer).chain(&WELL_KNOWN);
        let around = |outer: &&Translation| {
            outer.prefix.covers(&inner.prefix) && *outer != inner && inner.prefix.bits < outer.longest()
        };
        let inside =
            |known: &&Translation| inner.prefix.covers(&known.prefix) && known.prefix.bits < inner.longest();
        let known = WELL_KNOWN.iter().find(inside);
        if let Some(outer) = others.clone().find(around).or(known) {
            document.refuse_at(
                *offset,
                format!(
                    "addresses of {} ({}) would be judged in two ways, because {} ({}) has some of them, too: remove one of the two",
                    inner.prefix,
                    inner.mechanism.name(),
                    outer.prefix,
                    outer.mechanism.name()
                ),
            );
        }
    }
}
