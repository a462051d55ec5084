//! From a frame to its one outcome: counters, flow table, spill log, residual.

use core::hint::black_box;

use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns, bpf_xdp_get_buff_len,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use minimizer_common::generation::{
    Block, CPU_STATE_BLOCK, CpuState, Group, InterfaceCounters, RESIDUAL_BLOCK, RESIDUALS_PER_BLOCK,
    Residual, SPILL_BLOCK, WAYS, residual_index,
};
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::{
    BLOCKS_PLACEHOLDER, CLOCK_CONTROL, Control, LENGTH_BUFFER, Settings, interface_position,
};
use minimizer_common::tuple::Tuple;
use minimizer_ebpf::cursor::Cursor;
use minimizer_ebpf::table::{self, Count};
use minimizer_ebpf::walk::{Packet, Version, walk_ipv4, walk_ipv6, walk_link};
use minimizer_ebpf::{hash, untraced};

const MMAPABLE: usize = 1 << 10;

type Generation = Array<Block, BLOCKS_PLACEHOLDER, MMAPABLE>;

/// The generation that is written. Replacing the slot waits until no program uses the old one.
#[btf_map]
static GENERATION: ArrayOfMaps<Generation, 1> = ArrayOfMaps::new();

/// What the agent may change while the program runs.
#[btf_map]
static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// Constants that the agent sets before the program is loaded.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings {
    hash_keys: [0; _],
    time_unit_ns: 1,
    time_base_units: 0,
    tick_ns: 1,
    run_blocks: 0,
    spill_blocks: 0,
    group_mask: 0,
    reserved: 0,
    clock: 0,
    frame_length: 0,
};

/// Reads one constant, volatile so that the compiler does not assume the value in this file.
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: reads a constant of this program.
        unsafe { ::core::ptr::read_volatile(&raw const SETTINGS.$($field)+) }
    };
}

/// Counts a frame and returns how it ended. Does nothing only if the agent left a map empty, which it
/// never does.
#[inline(always)]
pub fn account(context: &XdpContext) -> Option<Outcome> {
    let run = Run::of_this_cpu()?;
    let control = CONTROL.get(0)?;
    // SAFETY: reads a field of the context.
    let if_index = unsafe { (*context.ctx).ingress_ifindex };
    let position = interface_position(if_index, control.interface_multiplier);
    let interface = u32::from(control.interface_slots[position]) & 31;
    let counters = run.interface(interface)?;

    // Whatever asks the kernel comes before the walk, while there is little to keep in registers.
    let time = time(counters, control);
    let start = context.data();
    let end = context.data_end();
    let frame_octets = frame_octets(context, start, end);
    counters.seen_packets += 1;
    counters.seen_octets += u64::from(frame_octets);

    // SAFETY: the kernel keeps `data..data_end` readable while the program runs.
    let mut cursor = unsafe { Cursor::between(start as *const u8, end as *const u8, frame_octets) };
    // The two IP versions stay apart to the end: what they have in common is less than what either
    // would carry along for the other.
    let outcome = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => match walk_ipv4(&mut cursor, tags) {
            Ok(packet) => run.count::<false>(counters, interface, &packet, time)?,
            Err(outcome) => outcome,
        },
        Ok((tags, Version::V6)) => match walk_ipv6(&mut cursor, tags) {
            Ok(packet) => run.count::<true>(counters, interface, &packet, time)?,
            Err(outcome) => outcome,
        },
        Err(outcome) => outcome,
    };
    // An index would be checked with a panic behind it, which is no BPF.
    *counters.outcomes.get_mut(outcome as usize)? += 1;
    Some(outcome)
}

#[inline(always)]
fn frame_octets(context: &XdpContext, start: usize, end: usize) -> u32 {
    if setting!(frame_length) == LENGTH_BUFFER {
        // SAFETY: the helper reads the context of this program.
        let octets = unsafe { bpf_xdp_get_buff_len(context.ctx) };
        octets as u32
    } else {
        (end - start) as u32
    }
}

/// The time unit of a packet, relative to the base. It is computed from the precise clock once per
/// tick at a unit's end and remembered until the tick that ends the unit, since reading that clock
/// stops the processor from overlapping cache misses.
#[inline(always)]
fn time(counters: &mut InterfaceCounters, control: &Control) -> u32 {
    if setting!(clock) == CLOCK_CONTROL {
        return control.clock_units as u32;
    }
    // SAFETY: the helper has no arguments.
    let tick = unsafe { bpf_jiffies64() };
    if tick >= counters.clock_until_tick {
        // SAFETY: the helper has no arguments.
        let now_ns = unsafe { bpf_ktime_get_ns() } + control.realtime_offset_ns;
        let unit_ns = setting!(time_unit_ns);
        let units = now_ns.checked_div(unit_ns).unwrap_or(0);
        let left_ns = (units + 1) * unit_ns - now_ns;
        counters.clock_units = units - setting!(time_base_units);
        counters.clock_until_tick = tick + 1 + left_ns.checked_div(setting!(tick_ns)).unwrap_or(0);
    }
    counters.clock_units as u32
}

/// The blocks of this CPU in the generation that is written.
struct Run {
    generation: &'static Generation,
    first_block: u32,
}

impl Run {
    #[inline(always)]
    fn of_this_cpu() -> Option<Self> {
        let generation = GENERATION.get(0)?;
        // SAFETY: the helper has no arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        Some(Self { generation, first_block: cpu * setting!(run_blocks) })
    }

    #[inline(always)]
    fn block(&self, index: u32) -> Option<*mut Block> {
        self.generation.get_ptr_mut(self.first_block + index)
    }

    #[inline(always)]
    fn interface(&self, slot: u32) -> Option<&'static mut InterfaceCounters> {
        let block = self.block(slot)?.cast::<InterfaceCounters>();
        // SAFETY: a block at this index holds interface counters, and only this CPU writes it.
        Some(unsafe { &mut *block })
    }

    /// Puts the packet into a record, or into a residual counter when there is no room.
    #[inline(always)]
    fn count<const IPV6: bool>(
        &self,
        counters: &mut InterfaceCounters,
        interface: u32,
        packet: &Packet,
        time: u32,
    ) -> Option<Outcome> {
        let octets = u64::from(packet.length_octets);
        counters.octets_counted += octets;
        let tuple = Tuple::new(
            packet.addresses,
            packet.ports,
            packet.tags.with_interface(interface),
            packet.protocol,
            packet.traffic_class,
        );
        let count = Count { octets, control_bits: packet.control_bits, time };
        let keys = &SETTINGS.hash_keys;
        let position = if IPV6 { hash::ipv6(keys, &tuple) } else { hash::ipv4(keys, &tuple) };
        // SAFETY: the block is a group, and only this CPU writes it.
        if let Some(slot) = unsafe { table::find::<IPV6>(self.group(position)?, position, &tuple) } {
            table::count::<IPV6>(slot, &tuple, count);
            return Some(Outcome::Counted);
        }
        // Stores of several known zeroes would become a call of memset, which the verifier refuses.
        let zero = black_box(0);
        let [first, second, third, fourth] = tuple.addresses;
        let addresses = if IPV6 { [first, second, third, fourth] } else { [first, zero, zero, zero] };
        let packet = Displaced { tuple: Tuple { addresses, ..tuple }, count, position, interface };
        let recorded = displaced(self.generation, self.first_block, &packet)?;
        Some(if recorded { Outcome::Counted } else { Outcome::Overflow })
    }

    #[inline(always)]
    fn group(&self, position: u32) -> Option<*mut Group> {
        let group = position & setting!(group_mask);
        Some(self.block(SPILL_BLOCK + setting!(spill_blocks) + group)?.cast())
    }

    /// Appends a packet to the spill log and returns `true`, or adds it to a residual counter.
    #[inline(always)]
    fn spill(&self, packet: &Displaced) -> Option<bool> {
        let state = self.block(CPU_STATE_BLOCK)?.cast::<CpuState>();
        // SAFETY: the block holds the CPU's state, and only this CPU writes it.
        let state = unsafe { &mut *state };
        let spilled = state.spilled as u32;
        let block = spilled / WAYS as u32;
        if block < setting!(spill_blocks) {
            let group = self.block(SPILL_BLOCK + block)?.cast::<Group>();
            // SAFETY: the block is a piece of spill log, and only this CPU writes it.
            let group = unsafe { &mut *group };
            table::count::<true>(&mut group.0[spilled as usize % WAYS], &packet.tuple, packet.count);
            state.spilled += 1;
            return Some(true);
        }
        let tuple = &packet.tuple;
        let index = untraced(residual_index(packet.interface, tuple.tags().is_ipv6(), tuple.protocol()));
        let per_block = RESIDUALS_PER_BLOCK as u32;
        let residuals =
            self.block(RESIDUAL_BLOCK + index / per_block)?.cast::<[Residual; RESIDUALS_PER_BLOCK]>();
        // SAFETY: the block holds residual counters, and only this CPU writes it.
        let residual = unsafe { &mut (*residuals)[(index % per_block) as usize] };
        residual.packets += 1;
        residual.octets += packet.count.octets;
        Some(false)
    }
}

/// A packet whose first group is full.
struct Displaced {
    tuple: Tuple,
    count: Count,
    position: u32,
    interface: u32,
}

/// Counts a packet in its second group or the spill log and returns `true`, or in a residual counter.
/// A function of its own: few packets come here, and it would cost the others their registers.
#[inline(never)]
fn displaced(generation: &'static Generation, first_block: u32, packet: &Displaced) -> Option<bool> {
    let run = Run { generation, first_block };
    let position = hash::second(packet.position);
    // An IPv4 tuple has zeroes where an IPv6 tuple has its other addresses, in the table too.
    // SAFETY: the block is a group, and only this CPU writes it.
    if let Some(slot) = unsafe { table::find::<true>(run.group(position)?, position, &packet.tuple) } {
        table::count::<true>(slot, &packet.tuple, packet.count);
        return Some(true);
    }
    run.spill(packet)
}
