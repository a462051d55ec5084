//! Empties a quiet generation: copies what was counted, zeroes it, merges the CPUs.

mod groups;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use minimizer_common::generation::{Counts, INTERFACES_MAX, InterfaceCounters, Shape, UNKNOWN_INTERFACE};
use minimizer_common::outcome::Outcome;
use minimizer_common::protocol::ProtocolClass;
use minimizer_common::slot::{Counted, Half, Narrow};

use crate::kernel::generations::{Quiet, Run};
use crate::records::drain::groups::{take_spilled, take_tables};
use crate::records::packed::{Packed, Packing, SlotDecoder};

/// Packets of IPv4 and of IPv6, in the order of [`ProtocolClass::ALL`].
pub type ProtocolPackets = [[u64; ProtocolClass::ALL.len()]; 2];

/// What one interface saw in one generation, over all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceTotals {
    /// Frames that entered the program.
    pub seen_packets: u64,
    /// Their octets, link header included.
    pub seen_octets: u64,
    /// IP octets of the packets in records and residual counters.
    pub octets_counted: u64,
    /// Packets by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Packets in records by IP version and protocol. All zero unless the policy collects both protocol and interface.
    pub protocols: ProtocolPackets,
}

impl Default for InterfaceTotals {
    fn default() -> Self {
        Self::ZERO
    }
}

impl InterfaceTotals {
    /// Totals of an interface that saw nothing.
    pub const ZERO: Self = Self {
        seen_packets: 0,
        seen_octets: 0,
        octets_counted: 0,
        outcomes: [0; Outcome::COUNT],
        protocols: [[0; ProtocolClass::ALL.len()]; 2],
    };

    /// Packets that ended with `outcome`.
    #[must_use]
    pub const fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Adds the totals of another batch.
    pub fn add_all(&mut self, other: &Self) {
        self.seen_packets += other.seen_packets;
        self.seen_octets += other.seen_octets;
        self.octets_counted += other.octets_counted;
        let outcomes = self.outcomes.iter_mut().zip(&other.outcomes);
        let protocols = self.protocols.as_flattened_mut().iter_mut().zip(other.protocols.as_flattened());
        for (total, packets) in outcomes.chain(protocols) {
            *total += packets;
        }
    }

    fn add(&mut self, counters: &InterfaceCounters) {
        self.seen_packets += counters.seen_packets;
        self.seen_octets += counters.seen_octets;
        self.octets_counted += counters.octets_counted;
        for (total, counter) in self.outcomes.iter_mut().zip(counters.outcomes) {
            *total += counter;
        }
    }
}

/// Packets of one interface, IP version and protocol for which the table had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidualTotals {
    /// Slot number of the interface.
    pub interface: usize,
    /// Whether they were IPv6.
    pub ipv6: bool,
    /// Their protocol number.
    pub protocol: u8,
    /// Packets.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
}

/// How full a generation was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Slots in use, over all CPUs.
    pub slots_used: u64,
    /// Slots in the tables of all CPUs.
    pub slots: u64,
    /// Spill log entries in use, over all CPUs.
    pub spill_used: u64,
    /// Entries in the spill logs of all CPUs.
    pub spill: u64,
    /// Slots of one CPU.
    pub slots_per_cpu: u64,
    /// Slots in use on the CPU that used most.
    pub slots_used_max: u64,
    /// The number of that CPU.
    pub fullest_cpu: u32,
    /// Spill log entries of one CPU.
    pub spill_per_cpu: u64,
    /// Spill log entries in use on the CPU that used most.
    pub spill_used_max: u64,
}

impl Occupancy {
    /// An empty generation of this shape.
    #[must_use]
    pub fn empty(shape: Shape) -> Self {
        let cpus = u64::from(shape.cpus);
        let slots_per_cpu = shape.slots_per_cpu();
        let spill_per_cpu = u64::from(shape.spill_halves);
        Self {
            slots: cpus * slots_per_cpu,
            spill: cpus * spill_per_cpu,
            slots_per_cpu,
            spill_per_cpu,
            ..Self::default()
        }
    }

    /// Whether a CPU's table is so full that more flows would find no room.
    #[must_use]
    pub const fn is_tight(&self) -> bool {
        self.slots_used_max > self.slots_per_cpu / 4 * 3 || self.is_full()
    }

    /// Whether flows may have found no room.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        // A wide slot begins at an even half: one half may be left.
        self.spill_used_max > 0 && self.spill_used_max + 1 >= self.spill_per_cpu
    }

    fn add_cpu(&mut self, cpu: u32, slots_used: u64, spill_used: u64) {
        if slots_used > self.slots_used_max {
            self.fullest_cpu = cpu;
        }
        self.slots_used += slots_used;
        self.spill_used += spill_used;
        self.slots_used_max = self.slots_used_max.max(slots_used);
        self.spill_used_max = self.spill_used_max.max(spill_used);
    }
}

/// What one drain found besides the records.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Totals by interface slot.
    pub interfaces: Vec<InterfaceTotals>,
    /// Totals of every interface that nobody watches.
    pub unknown: InterfaceTotals,
    /// Packets and octets in records.
    pub recorded: Counts,
    /// Residual counters that are not zero.
    pub residuals: Vec<ResidualTotals>,
    /// Packets in records by the id of the indicator that selected them. Empty unless the policy collects the id.
    pub selected: BTreeMap<u64, u64>,
    /// How full the generation was.
    pub occupancy: Occupancy,
}

impl Totals {
    /// Packets and octets in the residual counters.
    #[must_use]
    pub fn overflow(&self) -> Counts {
        self.residuals.iter().fold(Counts::default(), |sum, residual| Counts {
            packets: sum.packets + residual.packets,
            octets: sum.octets + residual.octets,
        })
    }
}

/// Drains a quiet generation and leaves it all zero. `packing` is empty before and after: it lends the tables in which flows
/// are merged. `decoder` must be the one for the policy and time under which the generation counted.
pub fn drain(quiet: &mut Quiet<'_>, packing: &mut Packing, decoder: SlotDecoder) -> (Packed, Totals) {
    let shape = quiet.shape();
    let mut interfaces = vec![InterfaceTotals::ZERO; decoder.interfaces()];
    let mut unknown = InterfaceTotals::ZERO;
    let mut residuals = Vec::new();
    let mut occupancy = Occupancy::empty(shape);
    let mut sums = Sums::new(&decoder);
    quiet.destroy_pseudonym_key();
    // Runs that have something, with how many halves of their spill logs are in use.
    let mut spilled = vec![None; shape.cpus as usize];
    for (cpu, spilled) in (0..).zip(&mut spilled) {
        quiet.settle(cpu);
        take_counters(quiet.counters(cpu, UNKNOWN_INTERFACE), &mut unknown);
        let mut seen = 0;
        let mut overflowed = 0;
        for (slot, totals) in (0..).zip(&mut interfaces) {
            let counters = quiet.counters(cpu, slot);
            seen += counters.seen_packets;
            overflowed += counters.outcomes[Outcome::Overflow as usize];
            take_counters(counters, totals);
        }
        if overflowed != 0 {
            take_residuals(quiet.residuals(cpu), &mut residuals);
        }
        if seen != 0 {
            *spilled = Some(std::mem::take(&mut quiet.state(cpu).spilled));
        }
    }
    let used = spilled.iter().zip(0..).filter_map(|(spilled, cpu)| Some((cpu, (*spilled)?)));
    let runs = quiet.runs().zip(&spilled).filter_map(|(run, spilled)| Some((run, (*spilled)?)));
    let slots_used = take_runs(runs, &mut sums, packing);
    for ((cpu, spilled), slots_used) in used.zip(slots_used) {
        occupancy.add_cpu(cpu, slots_used, spilled);
    }
    let Sums { recorded, protocols, selected, .. } = sums.end();
    for (totals, protocols) in interfaces.iter_mut().zip(protocols) {
        totals.protocols = protocols;
    }
    let selected = decoder.by_selector_id(&selected);
    (packing.take(decoder), Totals { interfaces, unknown, recorded, residuals, selected, occupancy })
}

/// Takes the slots of these runs, each with how many halves of its spill log are in use, and leaves zeroes. Returns the
/// halves that were in use in each table.
fn take_runs<'quiet>(
    runs: impl Iterator<Item = (Run<'quiet>, u64)>,
    sums: &mut Sums,
    packing: &mut Packing,
) -> Vec<u64> {
    let (mut runs, spilled): (Vec<_>, Vec<_>) = runs.unzip();
    let used = take_tables(&mut runs, sums, packing);
    for (run, spilled) in runs.into_iter().zip(spilled) {
        let lines = usize::try_from(spilled.div_ceil(2)).unwrap_or(usize::MAX).min(run.spill.len());
        take_spilled(&mut run.spill[..lines], sums, packing);
    }
    used
}

/// Sums over slots, made while they are scanned.
struct Sums {
    recorded: Counts,
    /// Whether slots tell both the interface and the protocol.
    has_protocols: bool,
    /// By interface slot.
    protocols: [ProtocolPackets; INTERFACES_MAX],
    /// Packets in narrow slots by [`Narrow::kind`].
    kinds: Vec<u64>,
    /// Packets by the number that the kernel stores for an indicator, less one.
    selected: Vec<u64>,
}

impl Sums {
    fn new(decoder: &SlotDecoder) -> Self {
        let has_protocols = decoder.has_protocols();
        Self {
            recorded: Counts::default(),
            has_protocols,
            protocols: Default::default(),
            kinds: vec![0; if has_protocols { Narrow::KINDS } else { 0 }],
            selected: vec![0; decoder.selectors()],
        }
    }

    /// Adds a slot of any width.
    #[inline(always)]
    fn add(&mut self, counted: Counted) {
        let Counted { tuple, packets, octets, .. } = counted;
        self.recorded.packets += packets;
        self.recorded.octets += octets;
        if self.has_protocols {
            let is_ipv6 = tuple.tags().is_ipv6();
            self.add_protocol(tuple.tags().interface(), is_ipv6, tuple.protocol(), packets);
        }
        self.add_selected(tuple.selector, packets);
    }

    /// Like [`Self::add`], and faster.
    #[inline(always)]
    fn add_narrow(&mut self, half: &Half) {
        let Counted { tuple, packets, octets, .. } = Narrow::counted(half);
        self.recorded.packets += packets;
        self.recorded.octets += octets;
        if let Some(kind) = self.kinds.get_mut(Narrow::kind(half)) {
            *kind += packets;
        }
        self.add_selected(tuple.selector, packets);
    }

    #[inline(always)]
    fn add_selected(&mut self, selector: u32, packets: u64) {
        if !self.selected.is_empty() {
            let position = usize::try_from(selector).unwrap_or(usize::MAX).wrapping_sub(1);
            if let Some(selected) = self.selected.get_mut(position) {
                *selected += packets;
            }
        }
    }

    fn add_protocol(&mut self, interface: u32, is_ipv6: bool, protocol: u8, packets: u64) {
        let interface = usize::try_from(interface).unwrap_or(usize::MAX);
        if let Some(versions) = self.protocols.get_mut(interface) {
            versions[usize::from(is_ipv6)][ProtocolClass::of(protocol) as usize] += packets;
        }
    }

    /// Ends the scan.
    fn end(mut self) -> Self {
        for (kind, packets) in std::mem::take(&mut self.kinds).into_iter().enumerate() {
            if packets != 0 {
                let (interface, is_ipv6, protocol) = Narrow::parts_of(kind);
                self.add_protocol(interface, is_ipv6, protocol, packets);
            }
        }
        self
    }
}

fn take_counters(counters: &mut InterfaceCounters, totals: &mut InterfaceTotals) {
    if counters.seen_packets != 0 {
        totals.add(counters);
        *counters = zerocopy::FromZeros::new_zeroed();
    }
}

fn take_residuals(counters: &mut [Counts], totals: &mut Vec<ResidualTotals>) {
    for (index, counter) in counters.iter_mut().enumerate().filter(|(_, counter)| counter.packets != 0) {
        let Counts { packets, octets } = std::mem::take(counter);
        let (interface, ipv6) = (index / 512 % INTERFACES_MAX, index / 256 % 2 == 1);
        let protocol = u8::try_from(index % 256).unwrap_or(u8::MAX);
        let same = |total: &&mut ResidualTotals| {
            (total.interface, total.ipv6, total.protocol) == (interface, ipv6, protocol)
        };
        if let Some(total) = totals.iter_mut().find(same) {
            total.packets += packets;
            total.octets += octets;
        } else {
            totals.push(ResidualTotals { interface, ipv6, protocol, packets, octets });
        }
    }
}
