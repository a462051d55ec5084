//! Indicators of single addresses: a filter, and two buckets in which an address may lie.
//!
//! The filter rules out most addresses that no indicator names. Filter and buckets are found by a product
//! with a secret odd number. The agent puts an address into the emptier of its two buckets. With one bucket
//! for each address, a table without an overflow would need many times the memory.

use minimizer_common::plan::Plan;
use minimizer_common::tables::{
    IPV4_BUCKET_HOSTS, IPV4_HOST_WORDS, IPV4_NODE_BUCKETS, IPV6_BUCKET_HOSTS, IPV6_HOST_WORDS,
    IPV6_NODE_BUCKETS, Node, is_below,
};

use crate::policy::nodes::{Address, Nodes, constant};
use crate::table::hash;
use crate::untraced;

/// The position of an address. Its masked bits give the bit of the filter and the first bucket.
#[inline(always)]
#[must_use]
pub const fn position<const IPV6: bool>(multiplier: u64, address: Address) -> u32 {
    let Address { high, low } = address;
    if IPV6 {
        // Only the upper bits of a product depend on all bits of the factor. Two shifts bring them down.
        let mixed = high.wrapping_mul(multiplier);
        let mixed = (mixed ^ mixed >> 32).wrapping_add(low).wrapping_mul(multiplier);
        ((mixed ^ mixed >> 32).wrapping_mul(multiplier) >> 32) as u32
    } else {
        (high.wrapping_mul(multiplier) >> 32) as u32
    }
}

/// The position of an address's second bucket.
#[inline(always)]
#[must_use]
pub const fn second(position: u32) -> u32 {
    hash::second(position)
}

/// The list of a host, or 0.
#[inline(always)]
#[must_use]
pub fn list<const IPV6: bool>(nodes: &impl Nodes, plan: &Plan, address: Address) -> u32 {
    let multiplier = constant!(plan.tables.multiplier);
    let position = position::<IPV6>(multiplier, address);
    let bit = position & constant!(plan.tables.filter_mask);
    let Some(node) = nodes.node(constant!(plan.tables.filter) + (bit >> 13)) else { return 0 };
    if node[(bit >> 5 & 255) as usize] >> (bit & 31) & 1 == 0 {
        return 0;
    }
    if IPV6 {
        let (first_node, mask) = (constant!(plan.tables.ipv6_hosts), constant!(plan.tables.ipv6_hosts_mask));
        let list = untraced(in_ipv6_bucket(*nodes, first_node, position & mask, address.high, address.low));
        if list != 0 {
            return list;
        }
        untraced(in_ipv6_bucket(*nodes, first_node, second(position) & mask, address.high, address.low))
    } else {
        let (first_node, mask) = (constant!(plan.tables.ipv4_hosts), constant!(plan.tables.ipv4_hosts_mask));
        let list =
            |position: u32| in_ipv4_bucket(nodes, first_node, untraced(position & mask), address.high as u32);
        untraced(list(position) | list(second(position)))
    }
}

/// The list of an IPv4 address in a bucket, or 0. It compares every host of the bucket without a branch: no
/// processor can predict which host matches, and in which bucket.
#[inline(always)]
fn in_ipv4_bucket(nodes: &impl Nodes, first_node: u32, bucket: u32, address: u32) -> u32 {
    const BUCKET_WORDS: usize = IPV4_HOST_WORDS * IPV4_BUCKET_HOSTS;
    let Some(node) = nodes.node(first_node + bucket / IPV4_NODE_BUCKETS) else { return 0 };
    let start = (bucket % IPV4_NODE_BUCKETS) as usize * BUCKET_WORDS;
    let mut list = 0;
    for host in 0..IPV4_BUCKET_HOSTS {
        let at = start | (host * IPV4_HOST_WORDS);
        list |= word(node, at | 1) & is_below(word(node, at) ^ address, 1);
    }
    list
}

/// The list of an IPv6 address in a bucket, or 0.
#[inline(never)]
fn in_ipv6_bucket<N: Nodes>(nodes: N, first_node: u32, bucket: u32, high: u64, low: u64) -> u32 {
    const BUCKET_WORDS: usize = IPV6_HOST_WORDS * IPV6_BUCKET_HOSTS;
    let Some(node) = nodes.node(first_node + bucket / IPV6_NODE_BUCKETS) else { return 0 };
    let start = (bucket % IPV6_NODE_BUCKETS) as usize * BUCKET_WORDS;
    for host in 0..IPV6_BUCKET_HOSTS {
        let at = start + host * IPV6_HOST_WORDS;
        let pair = |at: usize| u64::from(word(node, at)) | u64::from(word(node, at + 1)) << 32;
        if (pair(at) ^ high) | (pair(at + 2) ^ low) == 0 {
            return word(node, at + 4);
        }
    }
    0
}

/// A word of a node. Every index is below 256; the mask shows that to the compiler.
#[inline(always)]
const fn word(node: &Node, index: usize) -> u32 {
    node[index & 255]
}
