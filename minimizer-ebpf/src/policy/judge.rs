//! What the tables of the policy say about a packet: whether the program may collect it, and which indicator
//! selects it.
//!
//! Most packets match nothing; they cost two classes and two bits of the filter. A call is expensive where
//! the kernel guards returns against speculation. Everything up to the first entry of an address's list is
//! therefore inlined. A table that cannot be read lets no packet pass; the agent never leaves one so.

use minimizer_common::outcome::Outcome;
use minimizer_common::plan::{Plan, Steps};
use minimizer_common::tables::{ANY_PROTOCOL, CLASS_FOREIGN, Leaf, direction_bit};

use crate::policy::nodes::{Address, Nodes, constant};
use crate::policy::{hosts, lists, prefixes};
use crate::untraced;

/// What is known about a packet that the program may collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Class of the source address.
    pub source_class: u32,
    /// Class of the destination address.
    pub destination_class: u32,
    /// Number of the indicator that selects the packet; 0 if the policy has no selectors.
    pub selector: u32,
}

/// Looks a packet up in the tables of the policy. `addresses` and `ports` are those of the tuple.
/// `now_seconds` counts from 1970.
///
/// # Errors
/// [`Outcome::OutOfScope`] if the policy does not collect the packet's direction, [`Outcome::NotSelected`] if
/// no indicator matches the packet.
#[inline(always)]
pub fn judge<const IPV6: bool>(
    nodes: &impl Nodes,
    plan: &Plan,
    addresses: &[u64; 4],
    ports: (u16, u16),
    protocol: u8,
    now_seconds: u32,
) -> Result<Judgement, Outcome> {
    let steps = Steps(constant!(plan.steps));
    let (source, destination) = Address::pair::<IPV6>(addresses);
    let (mut source_leaf, mut destination_leaf) = (Leaf(CLASS_FOREIGN), Leaf(CLASS_FOREIGN));
    if steps.intersects(Steps::TRIE) {
        source_leaf = Leaf(untraced(prefixes::leaf::<IPV6>(nodes, source).0));
        destination_leaf = Leaf(untraced(prefixes::leaf::<IPV6>(nodes, destination).0));
    }
    let (source_class, destination_class) = (source_leaf.class(), destination_leaf.class());
    // The bits of `directions` exclude every direction with a class that is never collected.
    if steps.intersects(Steps::SCOPE)
        && constant!(plan.tables.directions) & direction_bit(source_class, destination_class) == 0
    {
        return Err(Outcome::OutOfScope);
    }
    let mut selector = 0;
    if steps.intersects(Steps::SELECT) {
        let mut source_list = source_leaf.list();
        let mut destination_list = destination_leaf.list();
        if steps.intersects(if IPV6 { Steps::HOSTS_IPV6 } else { Steps::HOSTS_IPV4 }) {
            // The list of a host includes the indicators of its prefixes.
            let source_host = hosts::list::<IPV6>(nodes, plan, source);
            if source_host != 0 {
                source_list = source_host;
            }
            let destination_host = hosts::list::<IPV6>(nodes, plan, destination);
            if destination_host != 0 {
                destination_list = destination_host;
            }
        }
        let packet = Packet { ports, protocol, now_seconds };
        selector = select(nodes, plan, steps, (source_list, destination_list), packet);
        if selector == 0 {
            return Err(Outcome::NotSelected);
        }
        // Whichever table it is from: else the verifier would walk the rest once for each.
        selector = untraced(selector);
    }
    Ok(Judgement { source_class, destination_class, selector })
}

/// The parts of a packet that an indicator can ask for, beside an address.
#[derive(Clone, Copy)]
struct Packet {
    ports: (u16, u16),
    protocol: u8,
    now_seconds: u32,
}

/// The number of the first indicator that matches the source, then the destination, then any address; 0 if
/// none matches.
#[inline(always)]
fn select(nodes: &impl Nodes, plan: &Plan, steps: Steps, endpoints: (u32, u32), packet: Packet) -> u32 {
    let Packet { ports: (source_port, destination_port), protocol, now_seconds } = packet;
    let matching = |list: u32, port: u16| lists::matching(nodes, list, protocol, port, now_seconds);
    let mut selector = matching(endpoints.0, source_port);
    if selector == 0 {
        selector = matching(endpoints.1, destination_port);
    }
    if steps.intersects(Steps::ANY) {
        let any = constant!(plan.tables.any);
        if selector == 0 {
            selector = matching(list_of_any(nodes, any, u32::from(source_port)), source_port);
        }
        if selector == 0 {
            selector = matching(list_of_any(nodes, any, u32::from(destination_port)), destination_port);
        }
        if selector == 0 {
            selector = matching(list_of_any(nodes, any, ANY_PROTOCOL + u32::from(protocol)), 0);
        }
    }
    selector
}

/// The list of indicators that name no address, for a port or a protocol.
#[inline(always)]
fn list_of_any(nodes: &impl Nodes, first_node: u32, number: u32) -> u32 {
    let number = untraced(number);
    nodes.node(first_node + (number >> 8)).map_or(0, |node| node[(number & 255) as usize])
}
