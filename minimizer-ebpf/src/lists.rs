//! The indicators in a list, of which the first that matches selects.

use minimizer_common::tables::{ENTRY_WORDS, LAST, LIST_ENTRIES_MAX, PORTS, PROTOCOL_ANY, has_ports};

use crate::judge::Nodes;
use crate::untraced;

const NODE_ENTRIES: u32 = 64;
const NO_PORT: u32 = 1 << 16;

/// A port, and the protocol of the packet: what [`matching`] compares, in one word, of which the verifier knows nothing.
#[inline(always)]
#[must_use]
pub fn endpoint(port: u16, protocol: u8) -> u32 {
    untraced(u32::from(port) | u32::from(protocol) << 16)
}

/// Number of the first indicator in a list that matches, or 0. `first_node` is that of the lists.
///
/// A function of its own, with nothing but numbers: few packets come here, from many places.
#[inline(never)]
#[must_use]
pub fn matching<N: Nodes>(nodes: N, first_node: u32, list: u32, endpoint: u32, now_seconds: u32) -> u32 {
    let protocol = endpoint >> 16;
    // Type and code are no ports: in their place stands what is in no range.
    let port = if has_ports(protocol) { endpoint & 0xffff } else { NO_PORT };
    let port = untraced(port);
    for step in 0..LIST_ENTRIES_MAX as u32 {
        let number = list + step;
        let Some(node) = nodes.node(first_node + number / NODE_ENTRIES) else { return 0 };
        let at = (number % NODE_ENTRIES) as usize * ENTRY_WORDS;
        let rule = node[at | 1];
        let ports = node[at | 2];
        // Without branches, each of which would double what the verifier walks. One second before 0 is the last.
        let expired = is_below(node[at].wrapping_sub(1), now_seconds);
        // Any protocol: the bit that says so shifts the difference out.
        let other_protocol = ((rule ^ protocol) & 0xff) >> ((rule / (PROTOCOL_ANY / 8)) & 8);
        let other_port = (is_below(port, ports & 0xffff) | is_below(ports >> 16, port)) & (rule / PORTS);
        if untraced(expired | other_protocol | other_port) == 0 {
            return node[at | 3];
        }
        if rule & LAST != 0 {
            return 0;
        }
    }
    0
}

/// Nonzero, in every bit, where a number is below another. The upper half of a difference, and not its sign: that the
/// compiler would take for a comparison and make a branch of.
#[inline(always)]
const fn is_below(number: u32, other: u32) -> u32 {
    ((number as u64).wrapping_sub(other as u64) >> 32) as u32
}
