//! Where flows end up as a table fills, computed with the table's own code and without a kernel.
//!
//! What was chosen, for narrow and for wide slots, stands beside what was not: fewer lines, no second choice.

use minimizer_common::generation::{GROUP_HALVES, GROUP_SHIFT, Group, Place, Shape};
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::slot::{Count, Half, Narrow, Wide};
use minimizer_common::tuple::{Tags, Tuple};
use minimizer_ebpf::table::burst::{self, spill_place};
use minimizer_ebpf::table::group::{self, Image};
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
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Half lines, as for IPv4: four lines and a second choice of four.
    Narrow,
    /// Whole lines, as for IPv6: eight lines and a second choice of eight. Each flow takes two slots.
    Wide,
    /// Half lines: the line that the hash names, and a second choice of one.
    TwoLines,
    /// Half lines: the line that the hash names.
    OneLine,
}

impl Layout {
    /// Slots that a flow takes.
    const fn slots(self) -> u64 {
        if matches!(self, Self::Wide) { 2 } else { 1 }
    }

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Narrow => "half lines",
            Self::Wide => "whole lines",
            Self::TwoLines => "two lines",
            Self::OneLine => "one line",
        }
    }
}

/// What was chosen, and then what was not.
pub const LAYOUTS: [Layout; 4] = [Layout::Narrow, Layout::Wide, Layout::TwoLines, Layout::OneLine];

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
    let mut table = Table::new(shape, layout);
    let flows = shape.slots_per_cpu() * load_percent / 100 / layout.slots();
    for _ in 0..PACKETS {
        (0..flows).for_each(|flow| table.count(&tuple(tuples, flow)));
    }
    let share = |packets: u64| packets as f64 / (flows * PACKETS) as f64;
    let without = flows - table.flows();
    let Table { second, spill_packets, overflow, .. } = table;
    Row {
        layout,
        tuples,
        load_percent,
        second: share(second),
        spilled: share(spill_packets),
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
    /// Groups that were looked up for the packet: its own once or twice, then the second choice.
    groups_asked: u32,
    scratch: [Half; 2],
    spill_room: u32,
    spilled: u64,
    second: u64,
    spill_packets: u64,
    overflow: u64,
}

impl Table {
    fn new(shape: Shape, layout: Layout) -> Self {
        Self {
            groups: vec![Group([Half::default(); GROUP_HALVES]); shape.groups as usize],
            keys: std::array::from_fn(|index| mix(index as u64)),
            layout,
            groups_asked: 0,
            scratch: Default::default(),
            spill_room: shape.spill_halves,
            spilled: 0,
            second: 0,
            spill_packets: 0,
            overflow: 0,
        }
    }

    fn count(&mut self, tuple: &Tuple) {
        let count = Count { octets: 40, control_bits: 0, first: 0, last: 0 };
        let wide = Wide::of(tuple, &count);
        let [a, b, c, d] = Narrow::ipv4(tuple, &count);
        let narrow = [a, b, c, d, 0, 0, 0, 0];
        let keys = &self.keys;
        let (position, image) = match self.layout {
            Layout::Wide => (hash::wide(keys, &wide), wide),
            _ => (hash::narrow(keys, &[a, b, c, d]), narrow),
        };
        self.groups_asked = 0;
        match self.layout {
            Layout::Narrow | Layout::Wide => {
                let before = self.spill_packets + self.overflow;
                burst::account(self, Place::new(position, 0), &image, &mut 0)
                    .expect("the table has all its groups");
                let has_slot = before == self.spill_packets + self.overflow;
                self.second += u64::from(self.groups_asked > 2 && has_slot);
            }
            Layout::OneLine | Layout::TwoLines => {
                let second = hash::second(position);
                if self.in_line(position, &image) {
                } else if self.layout == Layout::TwoLines && self.in_line(second, &image) {
                    self.second += 1;
                } else if burst::Table::spill_half(self).is_none() {
                    self.overflow += 1;
                }
            }
        }
    }

    fn in_line(&mut self, position: u32, image: &Image) -> bool {
        let last = self.groups.len() - 1;
        let group = &mut self.groups[(position >> GROUP_SHIFT) as usize & last];
        let packets = group::narrow_words(image);
        (0..2).any(|step| {
            group::count_narrow(&mut group.0[group::narrow_half(position, step)], &packets, &mut 0)
        })
    }

    /// Flows that have a slot.
    fn flows(&self) -> u64 {
        let halves = self.groups.iter().flat_map(|group| &group.0).filter(|half| !half.is_free()).count();
        halves as u64 / self.layout.slots()
    }

    fn spill(&mut self, is_line: bool) -> Option<()> {
        let (_, spilled) = spill_place(self.spilled, is_line, self.spill_room)?;
        self.spilled = spilled;
        self.spill_packets += 1;
        Some(())
    }
}

impl burst::Table for Table {
    fn group(&mut self, position: u32) -> Option<&mut Group> {
        self.groups_asked += 1;
        let last = self.groups.len() - 1;
        self.groups.get_mut((position >> GROUP_SHIFT) as usize & last)
    }

    fn spill_half(&mut self) -> Option<&mut Half> {
        self.spill(false).map(|()| &mut self.scratch[0])
    }

    fn spill_line(&mut self) -> Option<&mut [Half; 2]> {
        self.spill(true).map(|()| &mut self.scratch)
    }

    fn overflow(&mut self, _: Place, _: &Image) -> Option<()> {
        self.overflow += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LAYOUTS, Layout, Tuples, fill};

    const FLOWS: u32 = 1 << 12;

    #[test]
    fn nothing_overflows_at_the_load_that_the_table_is_made_for() {
        for tuples in [Tuples::Random, Tuples::Sequential] {
            for layout in [Layout::Narrow, Layout::Wide] {
                let row = fill(FLOWS, layout, tuples, 50);
                assert!(row.overflow == 0.0 && row.spilled < 0.001, "{row:?}");
                assert!(row.second > 0.0001 && row.second < 0.05, "{row:?}");
            }
        }
    }

    #[test]
    fn fewer_lines_leave_more_flows_without_a_slot() {
        let without = |layout| fill(FLOWS, layout, Tuples::Random, 50).flows_without_slot;
        let [narrow, wide, two, one] = LAYOUTS.map(without);
        // Of the first two hardly any flow, so that which has more is chance.
        assert!(narrow.max(wide) < 0.002 && two > 0.01 && two < one, "{narrow} {wide} {two} {one}");
        // Two slots for a mean of one flow: e⁻¹/2 · Σ (k−2)/k! of them, a tenth, find none.
        assert!((one - 0.104).abs() < 0.01, "{one}");
    }

    #[test]
    fn a_flow_too_many_for_each_slot_has_none() {
        for layout in LAYOUTS {
            let row = fill(FLOWS, layout, Tuples::Random, 200);
            assert!(row.flows_without_slot >= 0.5 && row.overflow > 0.3, "{row:?}");
        }
    }
}
