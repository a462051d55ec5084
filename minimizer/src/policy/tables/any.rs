//! Indicators that name no address. The program finds them by port or protocol.

use std::collections::BTreeSet;

use minimizer_common::tables::{ANY_PROTOCOL, Node};

use super::lists::Lists;
use super::selectors::Selectors;
use super::{TableError, append_words};

/// The number of ports.
const PORTS: usize = 65_536;

/// Appends the table for the indicators at `positions`.
pub fn append(
    nodes: &mut Vec<Node>,
    positions: &[usize],
    selectors: &Selectors<'_>,
    lists: &mut Lists,
) -> Result<(), TableError> {
    let mut words = by_port(positions, selectors, lists)?;
    debug_assert_eq!(u32::try_from(words.len()), Ok(ANY_PROTOCOL));
    for protocol in 0..=u8::MAX {
        let of_protocol = positions.iter().filter(|position| {
            selectors.ports(**position).is_empty() && selectors.protocol(**position) == Some(protocol)
        });
        let entries = of_protocol.map(|position| selectors.entry(*position, None));
        words.push(lists.join(entries, 0, || format!("protocol {protocol}"))?);
    }
    append_words(nodes, words);
    Ok(())
}

/// The list of each port. It changes only where a range begins or ends.
fn by_port(
    positions: &[usize],
    selectors: &Selectors<'_>,
    lists: &mut Lists,
) -> Result<Vec<u32>, TableError> {
    let mut begins = Vec::new();
    let mut ends = Vec::new();
    for (order, position) in positions.iter().enumerate() {
        for &(first, last) in selectors.ports(*position).iter().filter(|(first, last)| first <= last) {
            begins.push((usize::from(first), order, *position, (first, last)));
            ends.push((usize::from(last) + 1, order, *position, (first, last)));
        }
    }
    let mut changes: Vec<usize> = begins.iter().chain(&ends).map(|(port, ..)| *port).collect();
    changes.sort_unstable();
    changes.dedup();
    begins.sort_unstable();
    ends.sort_unstable();

    let mut words = vec![0; PORTS];
    let mut current = BTreeSet::new();
    let (mut begins, mut ends) = (begins.as_slice(), ends.as_slice());
    for (index, port) in changes.iter().enumerate() {
        while let Some(((_, order, position, range), rest)) =
            ends.split_first().filter(|(end, _)| end.0 == *port)
        {
            current.remove(&(*order, *position, *range));
            ends = rest;
        }
        while let Some(((_, order, position, range), rest)) =
            begins.split_first().filter(|(begin, _)| begin.0 == *port)
        {
            current.insert((*order, *position, *range));
            begins = rest;
        }
        let entries = current.iter().map(|(_, position, range)| selectors.entry(*position, Some(*range)));
        let list = lists.join(entries, 0, || format!("port {port}"))?;
        let next = changes.get(index + 1).copied().unwrap_or(PORTS).min(PORTS);
        if let Some(words) = words.get_mut(*port..next) {
            words.fill(list);
        }
    }
    Ok(words)
}
