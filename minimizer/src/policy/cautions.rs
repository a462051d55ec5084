//! What a policy permits and a reader may not expect: it is no error, and `check` and `explain` say it.

use jiff::Timestamp;

use super::field::{Field, Kind};
use super::words;
use crate::policy::class::Class;
use crate::policy::classes::Classes;
use crate::policy::embedded;
use crate::policy::indicators::Indicator;
use crate::policy::model::{PSEUDONYMS_IPV4, PSEUDONYMS_IPV6, Policy, Recipient};
use crate::policy::prefixes::Prefix;
use crate::policy::transform::Transform;
use crate::policy::translation::{Mechanism, Translation};

/// Ports below this one need privileges on most systems, so that clients rarely use them.
const PRIVILEGED_PORTS: u16 = 1024;
/// More prefixes that translations add take some 100 MiB.
const FORMS_MAX: usize = 1_000_000;
/// The most examples in a sentence.
const EXAMPLES_MAX: usize = 3;

impl Policy {
    /// What a reader should know, as of this moment.
    #[must_use]
    pub fn cautions(&self, now: Timestamp) -> Vec<String> {
        let mut said = Vec::new();
        said.extend(self.selectors.as_deref().and_then(|indicators| expired(indicators, now)));
        said.extend(self.outer_addresses());
        said.extend(self.reserved_listed());
        said.extend(self.customers_abroad());
        said.extend(self.many_forms());
        said.extend(self.recipients.iter().filter_map(client_ports));
        said.extend(self.probed());
        said.extend(self.recipients.iter().filter_map(half_of_times));
        said.extend(self.commitments.unpinned.iter().map(|name| {
            format!(
                "{name} has no `sha256`: whoever writes to it changes the policy. An agent that requires a signature refuses it; \
                 `minimizer policy pin` writes the digest."
            )
        }));
        said
    }
}

impl Policy {
    /// What becomes of tunnels under a scope.
    fn outer_addresses(&self) -> Option<String> {
        self.scope.as_ref()?;
        match (self.tunnels.is_empty(), self.tunnel_endpoints.is_empty()) {
            (false, true) => Some(
                "`scope.tunnel_endpoints` lists no gateway, so that the outer addresses of a tunnel are parties, too: of a tunnel between \
                 two domestic gateways nothing is collected unless the direction domestic-domestic is, and a fragment of a tunnel counts as \
                 a communication between its gateways."
                    .to_owned(),
            ),
            (true, false) => {
                Some("`scope.tunnel_endpoints` has no effect: the policy lists no tunnel.".to_owned())
            }
            _ => None,
        }
    }
}

impl Policy {
    /// Prefixes listed as domestic or foreign of which nothing is collected, because pseudonyms have them.
    fn reserved_listed(&self) -> Option<String> {
        let scope = self.scope.as_ref()?;
        let ranges = [PSEUDONYMS_IPV4, PSEUDONYMS_IPV6];
        let reserved = ranges.iter().filter(|range| self.has_pseudonyms_of(range.ipv6)).collect::<Vec<_>>();
        let is_reserved = |(prefix, class): &&(Prefix, Class)| {
            matches!(class, Class::Foreign | Class::Domestic)
                && reserved.iter().any(|range| range.covers(prefix) || prefix.covers(range))
        };
        let listed: Vec<_> = scope
            .prefixes
            .iter()
            .filter(is_reserved)
            .map(|(prefix, class)| format!("{prefix} as {class}"))
            .collect();
        if listed.is_empty() {
            return None;
        }
        let listed = words::examples(listed, EXAMPLES_MAX);
        Some(format!(
            "The scope lists {}, where addresses look like pseudonyms that the policy makes: packets from or to {} end as \
             reserved_address and are in no record.",
            listed,
            words::list(&reserved_ranges(self))
        ))
    }
}

/// The ranges of addresses that look like pseudonyms which the policy makes, as a reader knows them.
pub fn reserved_ranges(policy: &Policy) -> Vec<String> {
    let mut said = Vec::new();
    if policy.has_pseudonyms_of(false) {
        said.push(format!("{PSEUDONYMS_IPV4} (all but 255.255.255.255)"));
    }
    if policy.has_pseudonyms_of(true) {
        said.push(PSEUDONYMS_IPV6.to_string());
    }
    said
}

impl Policy {
    /// Customers whose IPv4 addresses are not domestic, so that their IPv6 addresses are not, either.
    fn customers_abroad(&self) -> Option<String> {
        let scope = self.scope.as_ref()?;
        let classes = Classes::new(scope, &[]);
        let is_abroad = |translation: &&Translation| {
            let Translation { ipv4, mechanism, .. } = translation;
            let address = u128::from_be_bytes(ipv4.octets);
            matches!(mechanism, Mechanism::SixRd | Mechanism::Map)
                && ipv4.bits > 0
                && classes.may_be(false, address, ipv4.bits, Class::Foreign)
        };
        let abroad: Vec<_> = self.translations.iter().filter(is_abroad).map(ToString::to_string).collect();
        if abroad.is_empty() {
            return None;
        }
        let abroad = words::examples(abroad, EXAMPLES_MAX);
        Some(format!(
            "Customers have IPv4 addresses that are not domestic, in {}: their IPv6 addresses are judged so, too, whatever prefix \
             around lists them. List the IPv4 addresses under `domestic`.",
            abroad
        ))
    }

    /// Translations that multiply the prefixes of the scope.
    fn many_forms(&self) -> Option<String> {
        let prefixes = &self.scope.as_ref()?.prefixes;
        let forms = embedded::count(prefixes, &self.translations) - embedded::count(prefixes, &[]);
        (forms > FORMS_MAX).then(|| {
            format!(
                "The network's own translations repeat the listed IPv4 prefixes inside of IPv6: up to {forms} prefixes more. `policy \
                 check` tells the memory that they take; fewer translations, or prefixes of IPv4 that are joined, take less."
            )
        })
    }
}

fn expired(indicators: &[Indicator], now: Timestamp) -> Option<String> {
    let expired: Vec<_> = indicators
        .iter()
        .filter_map(|indicator| indicator.expires.filter(|expires| *expires <= now).map(|at| (at, indicator)))
        .collect();
    let latest = expired.iter().map(|(at, _)| *at).max()?;
    let mut examples: Vec<_> =
        expired.iter().map(|(_, indicator)| format!("{} {}", indicator.id, indicator.what())).collect();
    let more = examples.len().saturating_sub(EXAMPLES_MAX);
    examples.truncate(EXAMPLES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let all =
        if expired.len() == indicators.len() { " No indicator is left: nothing is collected." } else { "" };
    Some(format!(
        "{} of indicators expired, the last at {latest}, and match nothing any more: {}{more}.{all}",
        words::count(expired.len(), "line", "lines"),
        examples.join(", ")
    ))
}

/// A recipient of ports that clients use.
fn client_ports(recipient: &Recipient) -> Option<String> {
    let keeps = |field: &&Field| match recipient.fields.get(*field) {
        Some(Transform::ServicePorts { below } | Transform::ListedPorts { below, .. }) => {
            *below > PRIVILEGED_PORTS
        }
        Some(Transform::Exact) => true,
        _ => false,
    };
    let ports = Field::ALL.iter().filter(|field| field.kind() == Kind::Port);
    let kept: Vec<_> = ports.filter(keeps).map(|field| field.name().to_owned()).collect();
    if kept.is_empty() {
        return None;
    }
    Some(format!(
        "{} gets ports of clients in {}: those of Linux are 32768 to 60999, and behind NAT any from 1024 on. {{ services_below = \
         1024 }} keeps none of them.",
        recipient.name,
        words::list(&kept)
    ))
}

fn half_of_times(recipient: &Recipient) -> Option<String> {
    let (has, lacks) = recipient.half_of_times()?;
    Some(format!(
        "{} gets {has} without {lacks}: a sink `ipfix` sends neither, because collectors take a missing time for the year 1970",
        recipient.name
    ))
}
