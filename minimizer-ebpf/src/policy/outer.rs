//! What the addresses of a tunnel's outer packet say about the packet inside, under a policy with a scope.
//!
//! An address at which the network's own tunnels end is no party of a communication. Any other is one, and the directions between it and
//! the parties inside must be collected, too.

use minimizer_common::plan::{ENDPOINTS_MAX, Plan, Steps};
use minimizer_common::tables::{CLASS_FOREIGN, CLASS_NEVER, Leaf, direction_bit, is_below};

use crate::parser::walk::Packet;
use crate::policy::minimize::Classes;
use crate::policy::nodes::{Address, Nodes, constant};
use crate::policy::prefixes;
use crate::{untraced, whole};

/// What is left to be compared when the classes of the inner addresses are known. It has three bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer(pub u32);

impl Outer {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// The outer source is a party: foreign here, domestic in the next one.
    const SOURCE: u32 = 1;
    /// The outer destination is a party: foreign here, domestic in the next one.
    const DESTINATION: u32 = 3;
    /// The packet is not collected.
    pub const REFUSED: Self = Self(7);

    /// What the outer addresses say.
    #[inline(always)]
    #[must_use]
    pub fn of<const IPV6: bool>(nodes: &impl Nodes, plan: &Plan, addresses: &[u64; 4]) -> Self {
        let (source, destination) = Address::pair::<IPV6>(addresses);
        let ends = (is_endpoint::<IPV6>(plan, source), is_endpoint::<IPV6>(plan, destination));
        let (from, to) = (class::<IPV6>(nodes, plan, source), class::<IPV6>(nodes, plan, destination));
        // What is never collected is so at an endpoint, too. A special address is none there.
        if from == CLASS_NEVER || to == CLASS_NEVER {
            return Self::REFUSED;
        }
        match ends {
            (true, true) => Self::NOTHING,
            (false, false) if is_collected(plan, from, to) => Self::NOTHING,
            (false, true) if from < CLASS_NEVER => Self(Self::SOURCE + from),
            (true, false) if to < CLASS_NEVER => Self(Self::DESTINATION + to),
            _ => Self::REFUSED,
        }
    }

    /// Whether the policy collects an inner packet whose addresses have these classes.
    #[inline(always)]
    #[must_use]
    pub fn permits(self, plan: &Plan, inner: Classes) -> bool {
        match self {
            Self::NOTHING => true,
            Self(party @ 1..=2) => is_collected(plan, party - Self::SOURCE, inner.destination),
            Self(party @ 3..=4) => is_collected(plan, inner.source, party - Self::DESTINATION),
            Self(_) => false,
        }
    }
}

#[inline(always)]
fn class<const IPV6: bool>(nodes: &impl Nodes, plan: &Plan, address: Address) -> u32 {
    if Steps(constant!(plan.steps)).intersects(Steps::TRIE) {
        Leaf(untraced(prefixes::leaf::<IPV6>(nodes, address).0)).class()
    } else {
        CLASS_FOREIGN
    }
}

#[inline(always)]
fn is_collected(plan: &Plan, from: u32, to: u32) -> bool {
    constant!(plan.tables.directions) & direction_bit(from, to) != 0
}

/// Whether tunnels of the network itself end at an address.
#[inline(always)]
#[must_use]
fn is_endpoint<const IPV6: bool>(plan: &Plan, address: Address) -> bool {
    if !Steps(constant!(plan.steps)).intersects(Steps::ENDPOINTS) {
        return false;
    }
    if IPV6 {
        is_ipv6_endpoint(&plan.ipv6_endpoints, address.high, address.low) != 0
    } else {
        is_ipv4_endpoint(&plan.ipv4_endpoints, address.high as u32) != 0
    }
}

/// All bits if the address is in one of the prefixes, else none. A loop of its own: in line, the compiler would keep all prefixes on the
/// caller's stack. It has one end, so that the verifier walks what follows once.
#[inline(never)]
fn is_ipv4_endpoint(prefixes: &[[u32; 2]; ENDPOINTS_MAX], address: u32) -> u32 {
    let (mut number, mut found) = (0, 0);
    while number < ENDPOINTS_MAX {
        let (mask, prefix) = (constant!(prefixes[number][0]), constant!(prefixes[number][1]));
        found |= is_below((address & mask) ^ prefix, 1);
        number = whole(number as u64 + 1) as usize;
    }
    untraced(found)
}

/// See [`is_ipv4_endpoint`].
#[inline(never)]
fn is_ipv6_endpoint(prefixes: &[[u64; 4]; ENDPOINTS_MAX], high: u64, low: u64) -> u32 {
    let (mut number, mut found) = (0, 0);
    while number < ENDPOINTS_MAX {
        let (high_mask, low_mask) = (constant!(prefixes[number][0]), constant!(prefixes[number][1]));
        let (first, second) = (constant!(prefixes[number][2]), constant!(prefixes[number][3]));
        let differs = (high & high_mask) ^ first | (low & low_mask) ^ second;
        found |= is_below((differs >> 32 | differs) as u32, 1);
        number = whole(number as u64 + 1) as usize;
    }
    untraced(found)
}

/// Whether an address of a packet is an endpoint.
#[inline(always)]
#[must_use]
pub fn has_endpoint(plan: &Plan, packet: &Packet) -> bool {
    let is_any = |(source, destination), is_endpoint: fn(&Plan, Address) -> bool| {
        is_endpoint(plan, source) | is_endpoint(plan, destination)
    };
    if packet.tags.is_ipv6() {
        is_any(Address::pair::<true>(&packet.addresses), is_endpoint::<true>)
    } else {
        is_any(Address::pair::<false>(&packet.addresses), is_endpoint::<false>)
    }
}
