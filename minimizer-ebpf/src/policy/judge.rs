//! What the tables of the policy say of a packet: whether it may be collected, and which indicator asks for it.
//!
//! Most packets match nothing: for them this is two classes and two bits of the filter. A call is dear where returns are
//! guarded against speculation, so that everything up to the first entry of an address's list is in line. A table that
//! cannot be read, which never happens, lets nothing pass.

use minimizer_common::outcome::Outcome;
use minimizer_common::plan::{Plan, Steps};
use minimizer_common::tables::{ANY_PROTOCOL, CLASS_FOREIGN, Entry, Leaf, Node, Roots, direction_bit};

use crate::policy::{hosts, lists, prefixes};
use crate::untraced;

/// The tables of the policy. A copy is passed on, so that it should be nothing but a name.
pub trait Nodes: Copy {
    /// One node of the array.
    fn node(&self, index: u32) -> Option<&Node>;
    /// One entry of a list.
    fn entry(&self, index: u32) -> Option<Entry>;
    /// What comes before it: constants of the program, of which the compiler must not believe what it sees.
    fn roots(&self) -> &Roots;
}

/// What is known of a packet that may be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Class of the source address.
    pub source_class: u32,
    /// Class of the destination address.
    pub destination_class: u32,
    /// Number of the indicator that selects the packet; 0 without selectors.
    pub selector: u32,
}

/// An address in memory order. Of IPv4 the lower half of the first word, and the rest is zero.
#[derive(Clone, Copy)]
pub struct Address {
    /// The first eight octets, the very first in the lowest bits.
    pub high: u64,
    /// The other eight.
    pub low: u64,
}

impl Address {
    /// The addresses of a tuple: source, destination.
    #[inline(always)]
    #[must_use]
    pub const fn pair<const IPV6: bool>(addresses: &[u64; 4]) -> (Self, Self) {
        if IPV6 {
            let [source, source_low, destination, destination_low] = *addresses;
            (Self { high: source, low: source_low }, Self { high: destination, low: destination_low })
        } else {
            let both = addresses[0];
            (Self { high: both & 0xffff_ffff, low: 0 }, Self { high: both >> 32, low: 0 })
        }
    }
}

/// Reads one constant, volatile since the agent replaces them before the program is loaded: what the compiler
/// sees in the object says nothing. The verifier sees the real ones, and removes what they rule out.
macro_rules! constant {
    ($($field:tt)+) => {
        // SAFETY: reads a field of a borrowed struct.
        unsafe { ::core::ptr::read_volatile(&raw const $($field)+) }
    };
}
pub(crate) use constant;

/// Looks a packet up in the tables of the policy. `addresses` and `ports` are those of the tuple, `now_seconds`
/// counts from 1970.
///
/// # Errors
/// [`Outcome::OutOfScope`] of a packet whose direction may not be collected, [`Outcome::NotSelected`] of one that no
/// indicator asks for.
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
    // Directions with a class that is never collected are not among them.
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
            // The list of a host has the indicators of its prefixes in it.
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
    }
    Ok(Judgement { source_class, destination_class, selector })
}

/// What an indicator may ask for, beside an address.
#[derive(Clone, Copy)]
struct Packet {
    ports: (u16, u16),
    protocol: u8,
    now_seconds: u32,
}

/// The first indicator that matches the source, then the destination, then any address; 0 when none does.
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

/// The list of the indicators that name no address, by port or protocol.
#[inline(always)]
fn list_of_any(nodes: &impl Nodes, first_node: u32, number: u32) -> u32 {
    let number = untraced(number);
    nodes.node(first_node + (number >> 8)).map_or(0, |node| node[(number & 255) as usize])
}
