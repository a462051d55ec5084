//! A list of indicators: the first one that matches selects the packet.

use minimizer_common::tables::{Endpoint, LIST_ENTRIES_MAX};

use crate::policy::nodes::Nodes;

/// Number of the first indicator in a list that matches, or 0. Nearly every list has no entry or one, so that
/// only the first comparison is inlined.
#[inline(always)]
#[must_use]
pub fn matching<N: Nodes>(nodes: &N, list: u32, protocol: u8, port: u16, now_seconds: u32) -> u32 {
    if list == 0 {
        return 0;
    }
    let Some(entry) = nodes.entry(list) else { return 0 };
    let endpoint = Endpoint::OF_PROTOCOL[protocol as usize].with_port(port);
    let selector = entry.selector(endpoint, now_seconds);
    if selector == 0 && !entry.is_last() {
        return walk(*nodes, list + 1, endpoint, now_seconds);
    }
    selector
}

/// Compares the entries of a list from one entry on. It is a function of its own because many places call it
/// for few packets. Its arguments are numbers only.
#[inline(never)]
fn walk<N: Nodes>(nodes: N, list: u32, endpoint: Endpoint, now_seconds: u32) -> u32 {
    for step in 0..LIST_ENTRIES_MAX as u32 {
        let Some(entry) = nodes.entry(list + step) else { return 0 };
        let selector = entry.selector(endpoint, now_seconds);
        if selector != 0 || entry.is_last() {
            return selector;
        }
    }
    0
}
