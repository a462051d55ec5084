//! What the plan keeps of a packet: the tuple that the program stores, and nothing else.
//!
//! Each step is behind its bit of the plan. The verifier knows these bits and removes every step that the
//! plan does not take. No branch here depends on the packet, except the one on its protocol, so that the
//! verifier walks few paths.

use minimizer_common::permutation::{LAST, Permutation};
use minimizer_common::plan::{IPV4_PSEUDONYM, IPV6_PSEUDONYM, Plan, Steps, listed_place};
use minimizer_common::tables::is_below;
use minimizer_common::tuple::{Tags, Tuple};

use crate::parser::walk::Packet;
use crate::policy::nodes::{Nodes, constant};
use crate::policy::{permutation, siphash};
use crate::{untraced, untraced_word};

/// Protocol number of ICMP (RFC 792).
const ICMP: u8 = 1;
/// Protocol number of ICMPv6 (RFC 4443).
const ICMPV6: u8 = 58;
/// First registered port (RFC 6335).
pub const REGISTERED: u16 = 1024;
/// First dynamic port (RFC 6335).
pub const DYNAMIC: u16 = 49_152;

/// The classes of a packet's addresses: [`minimizer_common::tables::CLASS_FOREIGN`] or
/// [`minimizer_common::tables::CLASS_DOMESTIC`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Class of the source address.
    pub source: u32,
    /// Class of the destination address.
    pub destination: u32,
}

/// The keys of pseudonyms.
pub trait Pseudonyms {
    /// That of IPv4.
    fn ipv4(&self) -> Option<&Permutation>;
    /// The key of IPv6.
    fn ipv6(&self) -> [u64; 2];
}

/// The steps of the plan.
#[inline(always)]
#[must_use]
pub fn steps(plan: &Plan) -> Steps {
    Steps(constant!(plan.steps))
}

/// What the program stores of a packet from the interface with slot number `interface`: its tuple, without a
/// selector, and its control bits. `None` only if a map of the program is empty, which never happens.
#[inline(always)]
pub fn minimize<const IPV6: bool>(
    nodes: &impl Nodes,
    plan: &Plan,
    packet: &Packet,
    interface: u32,
    classes: Classes,
    keys: &impl Pseudonyms,
) -> Option<(Tuple, u16)> {
    let steps = steps(plan);
    let addresses = addresses::<IPV6>(nodes, plan, packet.addresses, classes, keys)?;
    let mut ports = packet.ports;
    if steps.intersects(Steps::PORTS) {
        ports = match packet.protocol {
            ICMP => masked(ports, constant!(plan.icmp_masks[0])),
            ICMPV6 => masked(ports, constant!(plan.icmp_masks[1])),
            _ => (port(plan, 0, ports.0), port(plan, 1, ports.1)),
        };
        // Whatever they are: else the verifier would walk the rest once for each protocol.
        let both = untraced(u32::from(ports.0) << 16 | u32::from(ports.1));
        ports = ((both >> 16) as u16, both as u16);
    }
    let mut tags = packet.tags.with_interface(interface);
    if steps.intersects(Steps::NO_TAGS) {
        tags = Tags::NONE;
    } else if steps.intersects(Steps::TAGS) {
        tags = Tags(tags.0 & constant!(plan.tags_mask));
    }
    let mut tuple = Tuple::new(addresses, ports, tags, packet.protocol, packet.traffic_class);
    let mut control_bits = packet.control_bits;
    if steps.intersects(Steps::KIND) {
        let mask = constant!(plan.kind_mask);
        tuple.kind &= mask as u16;
        control_bits &= (mask >> 16) as u16;
    }
    Some((tuple, control_bits))
}

/// What the program stores of the addresses of a packet; see [`minimize`].
#[inline(always)]
pub fn addresses<const IPV6: bool>(
    nodes: &impl Nodes,
    plan: &Plan,
    whole: [u64; 4],
    classes: Classes,
    keys: &impl Pseudonyms,
) -> Option<[u64; 4]> {
    let steps = steps(plan);
    let (masks, omits) = if IPV6 { (Steps::IPV6, Steps::NO_IPV6) } else { (Steps::IPV4, Steps::NO_IPV4) };
    if !steps.intersects(masks) || steps.intersects(omits) {
        return Some(whole);
    }
    let classes = if steps.intersects(Steps::CLASSES) { classes } else { Classes::default() };
    let kept = if IPV6 { ipv6(plan, steps, whole, classes) } else { ipv4(plan, steps, whole, classes) };
    if !steps.intersects(Steps::PSEUDONYMS) {
        return Some(kept);
    }
    Some(if IPV6 {
        ipv6_pseudonyms(plan, whole, kept, classes, keys.ipv6())
    } else if constant!(plan.ipv4_pseudonyms) == 0 {
        kept
    } else {
        ipv4_pseudonyms(nodes, plan, whole[0], kept[0], classes, keys.ipv4()?)
    })
}

/// Whether a policy with pseudonyms does not collect the packet, because one of its addresses looks like a pseudonym.
/// 255.255.255.255 is an address that packets carry, and no pseudonym.
#[inline(always)]
#[must_use]
pub fn is_reserved<const IPV6: bool>(plan: &Plan, addresses: &[u64; 4]) -> bool {
    let steps = steps(plan);
    if IPV6 {
        const PREFIX: u64 = u64::from_ne_bytes(IPV6_PSEUDONYM);
        steps.intersects(Steps::RESERVED_IPV6) && (addresses[0] == PREFIX || addresses[2] == PREFIX)
    } else {
        let looks = |address: u32| {
            let bits = u32::from_be(address) ^ u32::from_be_bytes(IPV4_PSEUDONYM);
            bits < LAST
        };
        steps.intersects(Steps::RESERVED_IPV4)
            && (looks(addresses[0] as u32) | looks((addresses[0] >> 32) as u32))
    }
}

/// Masks IPv4 addresses.
#[inline(always)]
fn ipv4(plan: &Plan, steps: Steps, addresses: [u64; 4], classes: Classes) -> [u64; 4] {
    let mut mask = constant!(plan.ipv4_masks[0]);
    if steps.intersects(Steps::CLASSES) {
        let domestic = constant!(plan.ipv4_masks[1]);
        let sources = u64::from(u32::MAX);
        mask = either(classes.source, mask, domestic) & sources
            | either(classes.destination, mask, domestic) & !sources;
    }
    [addresses[0] & mask, 0, 0, 0]
}

/// Masks IPv6 addresses.
#[inline(always)]
fn ipv6(plan: &Plan, steps: Steps, addresses: [u64; 4], classes: Classes) -> [u64; 4] {
    let mask = |side: usize, class: u32, word: usize| {
        let foreign = constant!(plan.ipv6_masks[side][0][word]);
        if steps.intersects(Steps::CLASSES) {
            either(class, foreign, constant!(plan.ipv6_masks[side][1][word]))
        } else {
            foreign
        }
    };
    [
        addresses[0] & mask(0, classes.source, 0),
        addresses[1] & mask(0, classes.source, 1),
        addresses[2] & mask(1, classes.destination, 0),
        addresses[3] & mask(1, classes.destination, 1),
    ]
}

/// Replaces the IPv4 addresses that become pseudonyms. Their masks have left zeroes.
#[inline(always)]
fn ipv4_pseudonyms(
    nodes: &impl Nodes,
    plan: &Plan,
    whole: u64,
    kept: u64,
    classes: Classes,
    keys: &Permutation,
) -> [u64; 4] {
    let choice = constant!(plan.ipv4_pseudonyms);
    let pseudonym = |address: u32| {
        let number = permutation::number(nodes, plan, keys, address);
        u64::from(permutation::pseudonym(permutation::permuted(keys, number)))
    };
    let mut addresses = kept;
    if is_chosen(choice, 0, classes.source) {
        addresses |= pseudonym(whole as u32);
    }
    if is_chosen(choice, 1, classes.destination) {
        addresses |= pseudonym((whole >> 32) as u32) << 32;
    }
    // Whichever of them became pseudonyms: else the verifier would walk the rest once for each choice.
    [untraced_word(addresses), 0, 0, 0]
}

/// Replaces the IPv6 addresses that become pseudonyms. Their masks have left zeroes.
#[inline(always)]
fn ipv6_pseudonyms(
    plan: &Plan,
    whole: [u64; 4],
    kept: [u64; 4],
    classes: Classes,
    [k0, k1]: [u64; 2],
) -> [u64; 4] {
    let choice = constant!(plan.ipv6_pseudonyms);
    let [mut first, mut second, mut third, mut fourth] = kept;
    if is_chosen(choice, 0, classes.source) {
        (first, second) = siphash::ipv6_pseudonym(k0, k1, whole[0], whole[1]);
    }
    if is_chosen(choice, 1, classes.destination) {
        (third, fourth) = siphash::ipv6_pseudonym(k0, k1, whole[2], whole[3]);
    }
    [first, second, third, fourth].map(untraced_word)
}

/// Whether addresses of a class become pseudonyms on this side.
#[inline(always)]
const fn is_chosen(choice: u32, side: u32, class: u32) -> bool {
    choice >> (side * 2 + (class & 1)) & 1 != 0
}

/// The first word for class 0, the second for class 1. It uses no branch.
#[inline(always)]
const fn either(class: u32, foreign: u64, domestic: u64) -> u64 {
    foreign ^ (foreign ^ domestic) & ((class & 1) as u64).wrapping_neg()
}

/// Masks an ICMP type and code.
#[inline(always)]
const fn masked(ports: (u16, u16), mask: u32) -> (u16, u16) {
    (ports.0 & mask as u16, ports.1 & (mask >> 16) as u16)
}

/// What the plan keeps of a port, without a branch on the port. A protocol without ports has port 0, which
/// every plan keeps as 0.
#[inline(always)]
pub fn port(plan: &Plan, side: usize, port: u16) -> u16 {
    let port = untraced(port.into());
    let mut kept = is_below(port, constant!(plan.ports_below[side]));
    let multiplier = constant!(plan.listed_multipliers[side]);
    if multiplier != 0 {
        let listed = constant!(plan.listed_ports[side][listed_place(multiplier, port)]);
        kept |= is_below(port ^ u32::from(listed), 1);
    }
    let mut left = port & kept;
    let [registered, dynamic] = [0, 1].map(|class| constant!(plan.port_classes[side][class]));
    if dynamic != 0 {
        let from = |first: u16| !is_below(port, first.into());
        let class = registered & from(REGISTERED) & !from(DYNAMIC) | dynamic & from(DYNAMIC);
        left |= class & !kept;
    }
    left as u16
}
