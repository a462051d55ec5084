//! Tables of several CPUs, filled with the kernel's own code, against a plain map of flows.

use std::collections::HashMap;

use minimizer_common::generation::{GROUP_SHIFT, Group, Place};
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::slot::{Count, Counted, Half, Line, Narrow, Wide};
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::{Tags, Tuple};
use minimizer_ebpf::table::burst::{self, Table, spill_place};
use minimizer_ebpf::table::group::Image;
use minimizer_ebpf::table::hash;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Sums, take_runs};
use crate::kernel::generations::{GROUP_LINES, Run};
use crate::kernel::wall_clock::TimeUnits;
use crate::policy::compile::CompiledPolicy;
use crate::records::packed::{Packing, SlotDecoder};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

struct Cpu {
    groups: Vec<[Line; GROUP_LINES]>,
    spill: Vec<Line>,
    spilled: u64,
    overflows: u64,
}

impl Cpu {
    fn spill(&mut self, is_line: bool) -> Option<usize> {
        let room = u32::try_from(self.spill.len() * 2).expect("small");
        let (start, spilled) = spill_place(self.spilled, is_line, room)?;
        self.spilled = spilled;
        Some(start as usize)
    }
}

impl Table for Cpu {
    fn group(&mut self, position: u32) -> Option<&mut Group> {
        let last = self.groups.len() - 1;
        Group::mut_from_bytes(self.groups[(position >> GROUP_SHIFT) as usize & last].as_mut_bytes()).ok()
    }

    fn spill_half(&mut self) -> Option<&mut Half> {
        let half = self.spill(false)?;
        Some(&mut self.spill[half / 2].0[half % 2])
    }

    fn spill_line(&mut self) -> Option<&mut [Half; 2]> {
        let half = self.spill(true)?;
        Some(&mut self.spill[half / 2].0)
    }

    fn overflow(&mut self, _: Place, _: &Image) -> Option<()> {
        self.overflows += 1;
        Some(())
    }
}

/// What a test fills the tables with.
#[derive(Clone, Copy, Debug)]
struct Mix {
    cpus: usize,
    groups: usize,
    spill_lines: usize,
    flows: u64,
    packets: u64,
    /// The last time unit: beyond 16 bits, flows move to wide slots.
    units: u64,
    /// One packet in so many fills its flow's slot, so that the next one closes it.
    closes: Option<u64>,
    /// Of so many flows one is IPv6, and one has two VLAN tags.
    wide: u64,
    /// Each flow keeps to one CPU.
    keeps_to_cpu: bool,
}

fn tuple(flow: u64, mix: &Mix) -> Tuple {
    let tags = Tags::NONE.with_interface(u32::try_from(flow % 3).expect("small"));
    let ports = (u16::try_from(flow % 50_000).expect("small"), 443);
    match flow % mix.wide {
        1 => Tuple::new([flow, 1, 2, 3], ports, tags.with_ipv6(), 17, 0),
        2 => Tuple::new([flow, 0, 0, 0], ports, tags.with_vlan(1).with_vlan(2), 6, 0),
        3 => Tuple { selector: 3000, ..Tuple::new([flow, 0, 0, 0], ports, tags, 6, 0) },
        _ => Tuple::new([flow, 0, 0, 0], ports, tags.with_vlan(5), 6, 0x2e),
    }
}

/// As the kernel program chooses.
fn set_aside(keys: &[u64; HASH_KEYS], tuple: &Tuple, count: &Count) -> (Place, Image) {
    let place = |position| Place::new(position, 0);
    if !tuple.tags().is_ipv6() && Narrow::holds_ipv4(tuple, count) {
        let slot = Narrow::ipv4(tuple, count);
        let [a, b, c, d] = slot;
        (place(hash::narrow(keys, &slot)), [a, b, c, d, 0, 0, 0, 0])
    } else {
        let slot = Wide::of(tuple, count);
        (place(hash::wide(keys, &slot)), slot)
    }
}

/// Raises the counts of some slot on the CPU to just below those that close it, and says whose and by how much.
fn nearly_close(cpu: &mut Cpu, random: &mut Random) -> Option<Counted> {
    let group = usize::try_from(random.below(cpu.groups.len() as u64)).expect("small");
    let line = &mut cpu.groups[group][usize::try_from(random.below(GROUP_LINES as u64)).expect("small")];
    let added = |counted: Counted, packets: u64, octets: u64| Counted { packets, octets, ..counted };
    if line.0[0].is_wide() {
        let counted = Wide::counted(line);
        let by_packets = random.once_in(2);
        let packets = (1 << 31) - 1;
        let octets = (1 << 41) - 1;
        if counted.packets >= packets || counted.octets >= octets {
            return None;
        }
        let added = if by_packets {
            added(counted, packets - counted.packets, 0)
        } else {
            added(counted, 0, octets - counted.octets)
        };
        line.0[0].0[2] += added.octets << Wide::OCTETS_SHIFT;
        line.0[1].0[2] += added.packets << Wide::PACKETS_SHIFT;
        return Some(added);
    }
    let half = line.0.iter_mut().find(|half| !half.is_free())?;
    let counted = Narrow::counted(half);
    let octets = (1 << 35) - 1;
    let added = added(counted, 0, octets - counted.octets.min(octets));
    half.0[2] += added.octets << Narrow::OCTETS_SHIFT;
    Some(added)
}

fn add(model: &mut HashMap<Tuple, Counted>, counted: Counted) {
    model
        .entry(counted.tuple)
        .and_modify(|sum| {
            sum.control_bits |= counted.control_bits;
            sum.packets += counted.packets;
            sum.octets += counted.octets;
            sum.first = sum.first.min(counted.first);
            sum.last = sum.last.max(counted.last);
        })
        .or_insert(counted);
}

struct Seen {
    records: usize,
    flows: usize,
    spilled: u64,
    overflows: u64,
    displaced: usize,
    closed: usize,
}

/// Fills tables, takes them out, and compares with the model.
fn check(mix: Mix, seed: u64) -> Seen {
    let mut random = Random(seed);
    let keys: [u64; HASH_KEYS] = std::array::from_fn(|_| random.next());
    let empty = || Cpu {
        groups: vec![[Line::default(); GROUP_LINES]; mix.groups],
        spill: vec![Line::default(); mix.spill_lines],
        spilled: 0,
        overflows: 0,
    };
    let mut cpus: Vec<_> = (0..mix.cpus).map(|_| empty()).collect();
    let mut model = HashMap::new();
    for packet in 0..mix.packets {
        let flow = random.below(mix.flows);
        let index = if mix.keeps_to_cpu { flow * 7 } else { random.next() } % mix.cpus as u64;
        let cpu = &mut cpus[usize::try_from(index).expect("small")];
        let units = u32::try_from(packet * mix.units / mix.packets).expect("small");
        let count = Count {
            octets: 20 + random.below(1480),
            control_bits: 1 << random.below(12),
            first: units,
            last: units,
        };
        let tuple = tuple(flow, &mix);
        let (place, image) = set_aside(&keys, &tuple, &count);
        let overflows = cpu.overflows;
        burst::account(cpu, place, &image, &mut 0).expect("there is a group for every position");
        if cpu.overflows == overflows {
            add(&mut model, Counted::one(tuple, count));
        }
        if mix.closes.is_some_and(|times| random.once_in(times))
            && let Some(counted) = nearly_close(cpu, &mut random)
        {
            add(&mut model, counted);
        }
    }
    let lines = || cpus.iter().flat_map(|cpu| cpu.groups.as_flattened());
    let halves = || lines().flat_map(|line| line.0).filter(|half| !half.is_free() && !half.is_wide());
    let wides = || lines().filter(|line| line.0[0].is_wide());
    let mut seen = Seen {
        records: 0,
        flows: model.len(),
        spilled: cpus.iter().map(|cpu| cpu.spilled).sum(),
        overflows: cpus.iter().map(|cpu| cpu.overflows).sum(),
        displaced: halves().filter(Narrow::is_displaced).count()
            + wides().filter(|line| Wide::is_displaced(line)).count(),
        closed: halves().filter(Narrow::is_closed).count()
            + wides().filter(|line| Wide::is_closed(line)).count(),
    };
    let in_use: Vec<u64> = cpus
        .iter()
        .map(|cpu| {
            cpu.groups.as_flattened().iter().flat_map(|line| line.0).filter(|half| !half.is_free()).count()
                as u64
        })
        .collect();

    let compiled = CompiledPolicy::full_record(Tunnels::NONE);
    let decoder = || SlotDecoder::new(&compiled, TimeUnits { base: 0, unit_ms: 1 }, &[1, 2, 3]);
    let mut sums = Sums::new(&decoder());
    let mut packing = Packing::default();
    let runs =
        cpus.iter_mut().map(|cpu| (Run { groups: &mut cpu.groups, spill: &mut cpu.spill }, cpu.spilled));
    assert_eq!(take_runs(runs, &mut sums, &mut packing), in_use, "{mix:?}");
    let packed = packing.take(decoder());
    seen.records = packed.len();
    assert!(packing.take(decoder()).is_empty());
    for cpu in &cpus {
        let lines = cpu.groups.as_flattened().iter().chain(&cpu.spill);
        assert!(lines.into_iter().all(|line| *line == Line::default()), "{mix:?}: something is left");
    }

    let mut sum = HashMap::new();
    let mut records = HashMap::<_, u64>::new();
    for record in packed.iter() {
        let unit = |milliseconds: u64| u32::try_from(milliseconds).expect("small");
        *records.entry(record.tuple).or_default() += 1;
        add(
            &mut sum,
            Counted {
                tuple: record.tuple,
                control_bits: record.control_bits,
                packets: record.packets,
                octets: record.octets,
                first: unit(record.start_ms),
                last: unit(record.end_ms),
            },
        );
    }
    assert_eq!(sum.len(), model.len(), "{mix:?}, seed {seed}");
    let (mut packets, mut octets) = (0, 0);
    for (tuple, counted) in &model {
        assert_eq!(sum.get(tuple), Some(counted), "{mix:?}, seed {seed}");
        let fits = counted.packets <= u64::from(u32::MAX) && counted.octets < 1 << 42;
        assert!(
            records[tuple] == 1 || !fits,
            "{} records of {counted:?}: {mix:?}, seed {seed}",
            records[tuple]
        );
        packets += counted.packets;
        octets += counted.octets;
    }
    let sums = sums.end();
    assert_eq!((sums.recorded.packets, sums.recorded.octets), (packets, octets));
    let by_protocol: u64 = sums.protocols.as_flattened().as_flattened().iter().sum();
    assert_eq!(by_protocol, packets);
    seen
}

const ROOMY: Mix = Mix {
    cpus: 2,
    groups: 64,
    spill_lines: 64,
    flows: 300,
    packets: 2000,
    units: 60_000,
    closes: None,
    wide: 1 << 40,
    keeps_to_cpu: false,
};

/// Checks with many seeds, and returns the sums of what was seen.
fn check_many(mix: Mix) -> Seen {
    let mut all = Seen { records: 0, flows: 0, spilled: 0, overflows: 0, displaced: 0, closed: 0 };
    for seed in 0..200 {
        let seen = check(mix, seed);
        all.records += seen.records;
        all.flows += seen.flows;
        all.spilled += seen.spilled;
        all.overflows += seen.overflows;
        all.displaced += seen.displaced;
        all.closed += seen.closed;
    }
    all
}

#[test]
fn flows_of_several_cpus_become_one_record_each() {
    for cpus in [1, 2, 3, 9] {
        for keeps_to_cpu in [false, true] {
            let seen = check_many(Mix { cpus, keeps_to_cpu, ..ROOMY });
            assert_eq!((seen.records, seen.overflows), (seen.flows, 0));
        }
    }
}

#[test]
fn displaced_flows_become_one_record_each() {
    for (groups, spill_lines) in [(32, 8), (16, 64), (16, 8), (8, 500), (4, 8), (1, 2000), (1, 4)] {
        let seen = check_many(Mix { groups, spill_lines, cpus: 3, ..ROOMY });
        assert_eq!(seen.records, seen.flows);
        assert!(seen.displaced > 0, "{groups} groups");
        assert!(groups > 16 || seen.spilled > 0);
        assert!(groups > 4 || spill_lines > 8 || seen.overflows > 0);
    }
}

#[test]
fn wide_and_narrow_flows_share_the_lines() {
    for wide in [4, 5, 20] {
        for groups in [64, 32, 16, 8, 2] {
            let seen = check_many(Mix { groups, wide, ..ROOMY });
            assert_eq!(seen.records, seen.flows);
            assert!(groups > 32 || seen.displaced > 0, "{groups} groups");
        }
    }
}

#[test]
fn a_flow_with_slots_of_both_widths_becomes_one_record() {
    for groups in [64, 32, 16, 8, 2] {
        let seen = check_many(Mix { groups, units: 100_000, wide: 9, ..ROOMY });
        assert_eq!(seen.records, seen.flows);
    }
}

#[test]
fn closed_slots_become_one_record_if_their_sum_fits() {
    for (groups, units) in [(64, 100), (64, 100_000), (16, 100), (8, 100_000), (2, 100)] {
        for closes in [2, 10, 100] {
            let mix = Mix { groups, units, closes: Some(closes), wide: 9, cpus: 3, ..ROOMY };
            let seen = check_many(mix);
            assert!(seen.closed > 0 && seen.records >= seen.flows);
        }
    }
}
