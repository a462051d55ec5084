//! Reads a frame by the rules, and finds the rule where tshark's display differs.

use std::net::IpAddr;

use anyhow::ensure;

use super::rule::{Reading, Rule};
use super::walk::Rules;
use super::{Frame, Part};

/// Reads a frame by the rules. `octets` is the frame, for the headers that tshark does not show.
/// Says which rules made the difference where tshark's display would have one take the frame for
/// something else.
///
/// # Errors
/// When no rule explains a difference.
pub fn read(frame: &Frame, octets: &[u8]) -> anyhow::Result<(Reading, Vec<Rule>)> {
    let mut rules = Rules { frame, octets, rules: Vec::new() };
    let reading = rules.link()?;
    let mut rules = rules.rules;
    let displayed = displayed(frame);
    let counted = match &reading {
        Reading::Counted { flow, .. } => Some((flow.source, flow.destination, flow.protocol, flow.ports)),
        _ => None,
    };
    if displayed == counted {
        // What would be read otherwise from the same display has no rule to name.
        rules.retain(|rule| *rule == Rule::NotShown);
        return Ok((reading, rules));
    }
    if counted.is_some() && frame.parts.iter().filter(|part| is_ip(part)).count() > 1 {
        rules.push(Rule::OuterPacket);
    }
    ensure!(!rules.is_empty(), "no rule explains {displayed:?} for {reading:?} in {}", layers(frame));
    Ok((reading, rules))
}

type Displayed = (IpAddr, IpAddr, u8, (u16, u16));

/// What a column of tshark's display would hold: the first address pair of the frame, the protocol
/// of that packet, the first ports.
fn displayed(frame: &Frame) -> Option<Displayed> {
    let text = |name: &str| {
        let part = frame.parts.iter().find(|part| part.name == name && !part.show.is_empty());
        part.map(|part| (part.position, part.show.as_str()))
    };
    let first = |names: [&str; 2]| names.iter().filter_map(|name| text(name)).min_by_key(|(at, _)| *at);
    let (_, source) = first(["ip.src", "ipv6.src"])?;
    let (_, destination) = first(["ip.dst", "ipv6.dst"])?;
    // The last next header in front of the second IP header.
    let mut layers = frame.parts.iter().skip_while(|part| !is_ip(part));
    layers.next();
    let next_headers = layers.take_while(|part| !is_ip(part)).filter(|part| {
        let is_next = NEXT_HEADERS.contains(&part.name.as_str());
        is_next && !part.show.is_empty()
    });
    let protocol = next_headers.last()?.show.parse().ok()?;
    let port = |kinds: [&str; 2]| {
        let names = TRANSPORTS.iter().flat_map(|name| kinds.map(|kind| format!("{name}.{kind}")));
        names.filter_map(|name| text(&name)).min_by_key(|(at, _)| *at)
    };
    let number = |text: Option<(u32, &str)>| text.and_then(|(_, text)| text.parse().ok()).unwrap_or(0);
    let ports = (number(port(["srcport", "type"])), number(port(["dstport", "code"])));
    Some((source.parse().ok()?, destination.parse().ok()?, protocol, ports))
}

/// The protocols of a frame, for messages.
pub(super) fn layers(frame: &Frame) -> String {
    let protocols = frame.parts.iter().filter(|part| part.is_protocol);
    let protocols = protocols.map(|part| format!("{}@{}", part.name, part.position));
    format!("{} of {} octets", protocols.collect::<Vec<_>>().join(" "), frame.octets)
}

fn is_ip(part: &Part) -> bool {
    part.is_protocol && matches!(part.name.as_str(), "ip" | "ipv6")
}

const NEXT_HEADERS: [&str; 10] = [
    "ip.proto",
    "ipv6.nxt",
    "ipv6.hopopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.fraghdr.nxt",
    "ipv6.dstopts.nxt",
    "ah.next_header",
    "mip6.proto",
    "hip.proto",
    "shim6.nxt",
];

/// Transport protocols by display filter name.
const TRANSPORTS: [&str; 6] = ["tcp", "udp", "sctp", "dccp", "icmp", "icmpv6"];
