//! The k-threshold: how many distinct sources made a record.

use std::collections::HashSet;

use minimizer_common::tuple::Tuple;

use crate::policy::classes::rest;
use crate::policy::join::COUNTED_IPV6_BITS;
use crate::records::record::Record;

/// Distinct sources of each record, counted up to a number: IPv4 addresses, and prefixes of 64 bits of IPv6.
pub(super) struct Threshold {
    most: u32,
    counts: Vec<u32>,
    seen: HashSet<(usize, bool, u128)>,
}

/// A record of no flow. What is folded into it loses its key.
pub(super) const NO_FLOW: Record = Record {
    tuple: Tuple { addresses: [0; 4], transport: 0, kind: 0, selector: 0 },
    ingress_interface: 0,
    control_bits: 0,
    packets: 0,
    octets: 0,
    start_ms: u64::MAX,
    end_ms: 0,
    selector_id: 0,
};

impl Threshold {
    pub(super) fn new(most: u32, records: usize) -> Self {
        Self { most, counts: Vec::new(), seen: HashSet::with_capacity(records) }
    }

    /// Notes that the record at this position contains this tuple.
    pub(super) fn add(&mut self, position: usize, tuple: &Tuple) {
        if position >= self.counts.len() {
            self.counts.resize(position + 1, 0);
        }
        if self.counts[position] >= self.most {
            return;
        }
        let ipv6 = tuple.tags().is_ipv6();
        let source = if ipv6 {
            u128::from_be_bytes(tuple.ipv6().0) & !rest(COUNTED_IPV6_BITS)
        } else {
            u128::from(u32::from_ne_bytes(tuple.ipv4().0))
        };
        if self.seen.insert((position, ipv6, source)) {
            self.counts[position] += 1;
        }
    }

    /// How many sources the record at this position has, as far as they were counted.
    pub(super) fn sources(&self, position: usize) -> u32 {
        self.counts.get(position).copied().unwrap_or(0)
    }
}
