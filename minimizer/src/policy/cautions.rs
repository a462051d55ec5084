//! What a policy permits and a reader may not expect: it is no error, and `check` and `explain` say it.

use jiff::Timestamp;

use super::field::{Field, Kind};
use super::words;
use crate::policy::indicators::Indicator;
use crate::policy::model::{Policy, Recipient};
use crate::policy::transform::Transform;

/// Ports below this one need privileges on most systems, so that clients rarely use them.
const PRIVILEGED_PORTS: u16 = 1024;
/// The most examples in a sentence.
const EXAMPLES_MAX: usize = 3;

impl Policy {
    /// What a reader should know, as of this moment.
    #[must_use]
    pub fn cautions(&self, now: Timestamp) -> Vec<String> {
        let mut said = Vec::new();
        said.extend(self.selectors.as_deref().and_then(|indicators| expired(indicators, now)));
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
