//! Where flows end up as a table fills, computed with the table's own code and without a kernel.
//!
//! What was chosen, groups of eight with a second choice, stands beside what was not: fewer ways, no
//! second choice. A group of fewer ways is one in which the other slots are taken from the start.

use minimizer_common::generation::{Group, Shape, WAYS};
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tuple::{Slot, Tags, Tuple};
use minimizer_ebpf::table::group::{self, Count, Parts};
use minimizer_ebpf::table::hash;
use serde::Serialize;

use super::schedule::mix;

/// Flows in percent of the slots.
const LOADS: [u64; 11] = [10, 25, 40, 50, 60, 75, 90, 100, 125, 150, 200];
/// Packets of a flow. They come in rounds: every flow's first, every flow's second, and so on.
const PACKETS: u64 = 4;
/// Flows for which the table is made, so that they fill half of it.
pub const FLOWS: u32 = 1 << 16;

/// How a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Slots in a group.
    pub ways: usize,
    /// Whether a flow without room in its group has another.
    pub second_choice: bool,
}

/// What was chosen, and then what was not.
pub const LAYOUTS: [Layout; 4] = [
    Layout { ways: 8, second_choice: true },
    Layout { ways: 8, second_choice: false },
    Layout { ways: 4, second_choice: false },
    Layout { ways: 2, second_choice: false },
];

/// Which tuples come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tuples {
    /// Addresses and ports at random.
    Random,
    /// Consecutive source addresses.
    Sequential,
}

/// What became of the packets at one load, as shares of all; and of the flows.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Layout of the table.
    pub layout: Layout,
    /// Which tuples came.
    pub tuples: Tuples,
    /// Flows in percent of the slots.
    pub load_percent: u64,
    /// Packets counted in the second group.
    pub second: f64,
    /// Packets that took a place in the spill log.
    pub spilled: f64,
    /// Packets that only a residual counter holds.
    pub overflow: f64,
    /// Flows with no slot, whose every packet needs a place in the spill log.
    pub flows_without_slot: f64,
}

/// Fills tables for `flows` flows at every load, with every layout.
#[must_use]
pub fn measure(flows: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for tuples in [Tuples::Random, Tuples::Sequential] {
        for layout in LAYOUTS {
            rows.extend(LOADS.map(|load_percent| fill(flows, layout, tuples, load_percent)));
        }
    }
    rows
}

fn fill(flows: u32, layout: Layout, tuples: Tuples, load_percent: u64) -> Row {
    let shape = Shape::for_flows(1, flows).expect("one CPU's table of this size can be numbered");
    let slots = shape.slots_per_cpu();
    let mut table = Table::new(shape, layout);
    let flows = slots * load_percent / 100;
    for _ in 0..PACKETS {
        (0..flows).for_each(|flow| table.count(&tuple(tuples, flow)));
    }
    let share = |packets: u64| packets as f64 / (flows * PACKETS) as f64;
    let Table { second, spilled, overflow, .. } = table;
    let without = flows - table.flows();
    Row {
        layout,
        tuples,
        load_percent,
        second: share(second),
        spilled: share(spilled),
        overflow: share(overflow),
        flows_without_slot: without as f64 / flows as f64,
    }
}

fn tuple(tuples: Tuples, flow: u64) -> Tuple {
    let (addresses, ports) = match tuples {
        Tuples::Random => {
            let [low, high, ..] = mix(!flow).to_ne_bytes();
            (mix(flow), u16::from_ne_bytes([low, high]))
        }
        Tuples::Sequential => {
            // The source address is first in memory, and its last octet is the one that counts up.
            let [.., a, b, c, d] = (0x0a00_0000 + flow).to_be_bytes();
            (u64::from_ne_bytes([a, b, c, d, 198, 51, 100, 7]), 40_000)
        }
    };
    Tuple::new([addresses, 0, 0, 0], (ports, 443), Tags::NONE, 6, 0)
}

/// One CPU's groups and spill log, as the kernel program goes through them.
struct Table {
    groups: Vec<Group>,
    keys: [u64; HASH_KEYS],
    layout: Layout,
    spill_room: u64,
    second: u64,
    spilled: u64,
    overflow: u64,
}

/// No policy has selectors here.
const PARTS: Parts = Parts { selector: false, ..Parts::ALL };

/// Matches no tuple here: its kind is no protocol's.
const TAKEN: Slot =
    Slot { addresses: [0; 4], transport: 0, counters: Slot::ONE_PACKET | 0xffff, volume: 0, times: 0 };

impl Table {
    fn new(shape: Shape, layout: Layout) -> Self {
        let mut group = Group([Slot::default(); WAYS]);
        group.0[layout.ways..].fill(TAKEN);
        let groups = shape.groups as usize * (WAYS / layout.ways);
        Self {
            groups: vec![group; groups],
            keys: std::array::from_fn(|index| mix(index as u64)),
            layout,
            spill_room: u64::from(shape.spill_blocks) * WAYS as u64,
            second: 0,
            spilled: 0,
            overflow: 0,
        }
    }

    fn count(&mut self, tuple: &Tuple) {
        let position = hash::ipv4(&self.keys, tuple, PARTS);
        if self.count_at(position, tuple) {
            return;
        }
        if self.layout.second_choice && self.count_at(hash::second(position), tuple) {
            self.second += 1;
        } else if self.spilled < self.spill_room {
            self.spilled += 1;
        } else {
            self.overflow += 1;
        }
    }

    fn count_at(&mut self, position: u32, tuple: &Tuple) -> bool {
        let group = position as usize & (self.groups.len() - 1);
        // SAFETY: the group is borrowed exclusively.
        let slot = unsafe { group::find::<false>(&mut self.groups[group], position, tuple, PARTS) };
        let count = Count { octets: 40, control_bits: 0, first: 0, last: 0 };
        slot.map(|slot| group::count::<false>(slot, tuple, count)).is_some()
    }

    /// Flows that have a slot.
    fn flows(&self) -> u64 {
        let taken = |slot: &&Slot| slot.packets() != 0 && slot.counters != TAKEN.counters;
        self.groups.iter().flat_map(|group| &group.0).filter(taken).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{LAYOUTS, Tuples, fill};

    const FLOWS: u32 = 1 << 12;

    #[test]
    fn nothing_overflows_at_the_load_that_the_table_is_made_for() {
        for tuples in [Tuples::Random, Tuples::Sequential] {
            let [choice, ..] = LAYOUTS;
            let row = fill(FLOWS, choice, tuples, 50);
            assert!(row.overflow == 0.0 && row.spilled < 0.001, "{row:?}");
            assert!(row.second > 0.001 && row.second < 0.05, "{row:?}");
        }
    }

    #[test]
    fn fewer_ways_leave_more_flows_without_a_slot() {
        let without = LAYOUTS.map(|layout| fill(FLOWS, layout, Tuples::Random, 50).flows_without_slot);
        assert!(without.is_sorted(), "{without:?}");
        // Two slots for a mean of one flow: e⁻¹/2 · Σ (k−2)/k! of them, a tenth, find none.
        assert!((without[3] - 0.104).abs() < 0.01, "{without:?}");
    }

    #[test]
    fn a_flow_too_many_for_each_slot_has_none() {
        for layout in LAYOUTS {
            let row = fill(FLOWS, layout, Tuples::Random, 200);
            assert!(row.flows_without_slot >= 0.5 && row.overflow > 0.3, "{row:?}");
        }
    }
}
