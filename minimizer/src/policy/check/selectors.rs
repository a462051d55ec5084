//! Selectors: they select something, not everything, and no single domestic party without a reason.

use minimizer_common::protocol::{TCP, UDP};

use super::acknowledged::Acknowledged;
use super::inputs::Inputs;
use crate::policy::class::Class;
use crate::policy::classes::Classes;
use crate::policy::file::SelectorsFile;
use crate::policy::indicators::{self, Indicator};
use crate::policy::model::Scope;
use crate::policy::translation::Translation;
use crate::support::toml::{At, Document, Finding};

/// The shortest prefixes that one party has: a customer's few IPv4 addresses, and an IPv6 site (RFC 6177).
const PARTY_IPV4_BITS: u8 = 29;
const PARTY_IPV6_BITS: u8 = 48;

/// Reads the indicators and notes what is wrong with them.
pub fn check(
    document: &mut Document<'_>,
    inputs: &mut Inputs<'_>,
    acknowledged: &mut Acknowledged<'_>,
    at: &At<SelectorsFile>,
    scope: Option<&Scope>,
    translations: &[Translation],
) -> Vec<Indicator> {
    let selectors = at.get();
    let mut indicators = Vec::new();
    if selectors.files.is_empty() && selectors.indicators.is_empty() {
        document.refuse(
            at,
            "the selectors name no indicator, so that nothing would be collected: add `files` or `indicators`, or \
             remove the section to collect every packet in scope",
        );
    }
    for file in &selectors.files {
        let Some(text) = inputs.read(document, file) else { continue };
        for (line, indicator) in indicators::lines(&text) {
            match indicator {
                Ok(indicator) => indicators.push(indicator),
                Err(error) => document.also(Finding {
                    file: inputs.place(file.get()),
                    line,
                    column: 0,
                    message: error.to_string(),
                }),
            }
        }
    }
    for text in &selectors.indicators {
        match Indicator::parse(text.get()) {
            Ok(indicator) => indicators.push(indicator),
            Err(error) => document.refuse(text, error.to_string()),
        }
    }
    refuse_everything(document, acknowledged, at, &indicators);
    if at.get().domestic_target.is_none() {
        refuse_domestic_targets(document, at, &indicators, scope, translations);
    }
    indicators
}

/// Refuses indicators that together select all packets of an IP version, or all of TCP or UDP.
fn refuse_everything(
    document: &mut Document<'_>,
    acknowledged: &mut Acknowledged<'_>,
    at: &At<SelectorsFile>,
    indicators: &[Indicator],
) {
    for ipv6 in [false, true] {
        if covers(indicators, ipv6, |protocol| protocol.is_none()) {
            let version = if ipv6 { "IPv6" } else { "IPv4" };
            document.limit(
                at,
                format!("the indicators select every {version} packet: remove some, or remove the section, which says so"),
            );
            return;
        }
    }
    for protocol in [TCP, UDP] {
        let is_selected = |ipv6| covers(indicators, ipv6, |of| of.is_none_or(|of| of == protocol));
        if is_selected(false) || is_selected(true) {
            let name = indicators::protocol_name(protocol).to_uppercase();
            acknowledged.demand(
                document,
                at.span().start,
                &format!("the indicators select every {name} packet"),
                &format!("the indicators select every {name} packet, as if there were none: name addresses or ports"),
            );
        }
    }
}

/// Whether the indicators of these protocols select all addresses of the IP version, whatever the port.
fn covers(indicators: &[Indicator], ipv6: bool, is_of: impl Fn(Option<u8>) -> bool) -> bool {
    let has_all_ports = |indicator: &Indicator| matches!(&*indicator.ports, [] | [(1, u16::MAX)]);
    let of_all_ports =
        indicators.iter().filter(|indicator| is_of(indicator.protocol) && has_all_ports(indicator));
    let mut prefixes = Vec::new();
    for indicator in of_all_ports {
        match indicator.prefix {
            None => return true,
            Some(prefix) if prefix.ipv6 == ipv6 => prefixes.push((prefix, Class::Domestic)),
            Some(_) => {}
        }
    }
    let classes = Classes::of(&prefixes);
    !classes.may_be(ipv6, 0, 0, Class::Foreign)
}

/// Refuses indicators that are one domestic party.
fn refuse_domestic_targets(
    document: &mut Document<'_>,
    at: &At<SelectorsFile>,
    indicators: &[Indicator],
    scope: Option<&Scope>,
    translations: &[Translation],
) {
    let Some(scope) = scope else { return };
    let classes = Classes::new(scope, translations);
    let is_target = |indicator: &&Indicator| {
        indicator.prefix.is_some_and(|prefix| {
            let party = if prefix.ipv6 { PARTY_IPV6_BITS } else { PARTY_IPV4_BITS };
            let address = u128::from_be_bytes(prefix.octets);
            prefix.bits >= party && classes.may_be(prefix.ipv6, address, prefix.bits, Class::Domestic)
        })
    };
    let mut targets = indicators.iter().filter(is_target);
    if let Some(first) = targets.next() {
        let more = match targets.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        document.limit(
            at,
            format!(
                "the indicator {} {}{more} is one domestic party, whose communications would be collected: remove it, or add \
                 the reason as domestic_target = \"…\"",
                first.id,
                first.what()
            ),
        );
    }
}
