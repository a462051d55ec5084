//! Which flows were seen in both directions.
//!
//! Somebody who sends packets with a mark in them, to learn which pseudonym is whose, mostly gets no answer. Flows are matched by what
//! the kernel stored, which is finer than what the recipient gets: both addresses, both ports and the protocol. Interfaces, tags and
//! traffic classes are not compared, because the answer has others.
//!
//! Resets alone are no answer, because any host resets where it has no service. ICMP is none either: any host answers an echo, and
//! errors have no opposite. A fragment that is not the first has no ports, so that it is matched with such fragments only.

use std::collections::HashSet;

use minimizer_common::protocol::Transport;
use minimizer_common::tuple::{Tags, Tuple};

use crate::policy::transform::{FIN, PSH, RST, SYN};
use crate::records::record::Record;

/// Directions of flows in which there was more than resets.
pub(super) struct Answered(HashSet<Tuple>);

impl Answered {
    /// Those of a batch.
    pub(super) fn of(records: impl Iterator<Item = Record>) -> Self {
        Self(records.filter(speaks).map(|record| flow(&record.tuple)).collect())
    }

    /// Whether both directions of the flow of this tuple were there.
    pub(super) fn has(&self, tuple: &Tuple) -> bool {
        let flow = flow(tuple);
        self.0.contains(&opposite(&flow)) && self.0.contains(&flow)
    }
}

/// Whether a direction is more than what any host sends.
fn speaks(record: &Record) -> bool {
    match Transport::of(record.tuple.protocol()) {
        Transport::Icmp | Transport::IcmpV6 => false,
        Transport::Tcp => record.control_bits & RST == 0 || record.control_bits & (FIN | SYN | PSH) != 0,
        Transport::Ports | Transport::Other => true,
    }
}

/// What tells flows apart, without what their directions have of their own.
const fn flow(tuple: &Tuple) -> Tuple {
    let tags = if tuple.tags().is_ipv6() { Tags::NONE.with_ipv6() } else { Tags::NONE };
    let ports = (tuple.source_port(), tuple.destination_port());
    Tuple::new(tuple.addresses, ports, tags, tuple.protocol(), 0)
}

/// The other direction of a flow.
fn opposite(flow: &Tuple) -> Tuple {
    let [first, second, third, fourth] = flow.addresses;
    let addresses = if flow.tags().is_ipv6() {
        [third, fourth, first, second]
    } else {
        // Both IPv4 addresses lie in one word.
        [first.rotate_right(u32::BITS), 0, 0, 0]
    };
    let ports = (flow.destination_port(), flow.source_port());
    Tuple::new(addresses, ports, flow.tags(), flow.protocol(), 0)
}
