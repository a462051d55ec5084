//! From a frame to its one outcome: counters, flow table, spill log, residual.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns, bpf_xdp_get_buff_len,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use minimizer_common::generation::{
    BLOCK_BYTES, Block, CPU_STATE_BLOCK, CpuState, Group, InterfaceCounters, RESIDUAL_BLOCK,
    RESIDUALS_PER_BLOCK, Residual, SPILL_BLOCK, WAYS, residual_index,
};
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::{
    BLOCKS_PLACEHOLDER, CLOCK_CONTROL, Control, LENGTH_BUFFER, Settings, interface_position,
};
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::{Tags, Tuple};
use minimizer_ebpf::cursor::{Cursor, Frame, Stop};
use minimizer_ebpf::table::{self, Count};
use minimizer_ebpf::walk::{Inner, Packet, Version, enter, walk_ipv4, walk_ipv6, walk_link};
use minimizer_ebpf::{hash, untraced};

const MMAPABLE: usize = 1 << 10;

/// Words, and not [`Block`]: kernels from 5.15 to 6.1 take no other map for one whose values are structs
/// by its type information, unless that has type information too.
type Generation = Array<[u64; BLOCK_BYTES / size_of::<u64>()], BLOCKS_PLACEHOLDER, MMAPABLE>;

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
    clock: 0,
    frame_length: 0,
    tunnels: 0,
};

/// Reads one constant, volatile so that the compiler does not assume the value in this file.
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: reads a constant of this program.
        unsafe { ::core::ptr::read_volatile(&raw const SETTINGS.$($field)+) }
    };
}

/// The frame that the program runs on.
#[derive(Clone, Copy)]
struct XdpFrame(*mut xdp_md);

// SAFETY: the kernel keeps `data..data_end` readable while the program runs.
unsafe impl Frame for XdpFrame {
    #[inline(always)]
    fn start(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { (*self.0).data as usize as *const u8 }
    }

    #[inline(always)]
    fn end(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { (*self.0).data_end as usize as *const u8 }
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        if setting!(frame_length) == LENGTH_BUFFER {
            // SAFETY: the helper reads the context of this program.
            let octets = unsafe { bpf_xdp_get_buff_len(self.0) };
            octets as u32
        } else {
            (self.end() as usize - self.start() as usize) as u32
        }
    }
}

/// Counts a frame, or the packet inside of it where a listed tunnel carries one, and returns the number of
/// its outcome. Does nothing only if the agent left a map empty, which it never does.
///
/// `TUNNELS` makes two programs: the one without has everything in line.
#[inline(always)]
pub fn account<const TUNNELS: bool>(context: &XdpContext) -> Option<u8> {
    let run = Run::of_this_cpu()?;
    let control = CONTROL.get(0)?;
    // SAFETY: reads a field of the context.
    let if_index = unsafe { (*context.ctx).ingress_ifindex };
    let position = interface_position(if_index, control.interface_multiplier);
    let interface = u32::from(control.interface_slots[position]) & 31;
    let counters = run.interface(interface)?;

    // The clock comes before the walk, while there is little to keep in registers.
    let time = time(counters, control);
    counters.seen_packets += 1;

    let frame = XdpFrame(context.ctx);
    let place = Place { run, interface, time };
    let ended = if TUNNELS { count_inner_or_outer(frame, &place) } else { count(frame, counters, &place) };
    // An index would be checked with a panic behind it, which is no BPF.
    *counters.outcomes.get_mut(ended.0 as usize)? += 1;
    Some(ended.0 as u8)
}

/// How the walk of a frame ended, in one word, since a function of the kernel returns no more: the
/// number of an outcome, or a packet inside of a tunnel.
#[derive(Clone, Copy)]
struct Ended(u64);

impl Ended {
    const INNER: u64 = 1 << 63;
    const IPV6: u64 = 1 << 62;
    const OCTETS_SHIFT: u32 = 41;
    const OCTETS_MASK: u64 = (1 << 18) - 1;
    const OFFSET_SHIFT: u32 = 26;
    const OFFSET_MASK: u64 = (1 << 15) - 1;
    const TAGS_MASK: u64 = (1 << 26) - 1;

    /// With an outcome; without, which never happens, when a map is empty.
    #[inline(always)]
    fn with(outcome: Option<Outcome>) -> Self {
        Self(outcome.map_or(!Self::INNER, |outcome| outcome as u64))
    }

    /// At a packet inside, with nothing counted yet. An offset has 15 bits, no frame is as long as 2^18
    /// octets, and the link leaves IP version and interface out of the tags.
    #[inline(always)]
    fn at(inner: &Inner, tags: Tags) -> Self {
        let version = if inner.version == Version::V6 { Self::IPV6 } else { 0 };
        Self(
            Self::INNER
                | version
                | (u64::from(inner.octets) & Self::OCTETS_MASK) << Self::OCTETS_SHIFT
                | (u64::from(inner.offset) & Self::OFFSET_MASK) << Self::OFFSET_SHIFT
                | u64::from(tags.0) & Self::TAGS_MASK,
        )
    }

    #[inline(always)]
    const fn is_inner(self) -> bool {
        self.0 & Self::INNER != 0
    }

    #[inline(always)]
    const fn inner(self) -> (Inner, Tags) {
        let inner = Inner {
            version: if self.0 & Self::IPV6 == 0 { Version::V4 } else { Version::V6 },
            offset: (self.0 >> Self::OFFSET_SHIFT & Self::OFFSET_MASK) as u32,
            octets: (self.0 >> Self::OCTETS_SHIFT & Self::OCTETS_MASK) as u32,
        };
        (inner, Tags((self.0 & Self::TAGS_MASK) as u32))
    }
}

/// Walks a frame and counts its packet. The two IP versions stay apart to the end: what they have in
/// common is less than what either would carry along for the other.
#[inline(always)]
fn count(frame: XdpFrame, counters: &mut InterfaceCounters, place: &Place) -> Ended {
    let mut cursor = Cursor::over(frame);
    let stop = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => match walk_ipv4(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => {
                counters.seen_octets += u64::from(cursor.known_octets());
                return Ended::with(place.count::<false>(counters, &packet));
            }
            Err(stop) => stop,
        },
        Ok((tags, Version::V6)) => match walk_ipv6(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => {
                counters.seen_octets += u64::from(cursor.known_octets());
                return Ended::with(place.count::<true>(counters, &packet));
            }
            Err(stop) => stop,
        },
        Err(stop) => stop,
    };
    count_stop(&mut cursor, counters, stop)
}

/// The headers of a frame at which the walk stopped do not tell where it ends: only the kernel knows.
#[inline(always)]
fn count_stop(cursor: &mut Cursor<XdpFrame>, counters: &mut InterfaceCounters, stop: Stop) -> Ended {
    let outcome = cursor.outcome(stop);
    counters.seen_octets += u64::from(cursor.known_octets());
    Ended::with(Some(outcome))
}

/// Counts the packet that a tunnel carries, or the outer one where none carries any. Two calls one after
/// the other and not within each other, so that their stacks do not add up.
#[inline(always)]
fn count_inner_or_outer(frame: XdpFrame, place: &Place) -> Ended {
    let outer = count_outer(frame, place);
    if outer.is_inner() { count_inner(frame, place, outer) } else { outer }
}

/// Counts a packet unless a listed tunnel carries one inside of it. Here the IP versions meet where a
/// tunnel may begin: tunnels are the same in both.
#[inline(never)]
fn count_outer(frame: XdpFrame, place: &Place) -> Ended {
    let Some(counters) = place.run.interface(place.interface) else { return Ended::with(None) };
    let listed = Tunnels(setting!(tunnels));
    let mut cursor = Cursor::over(frame);
    let walked = match walk_link(&mut cursor) {
        Ok((tags, Version::V4)) => walk_ipv4(&mut cursor, tags, listed).map(|walked| (tags, walked)),
        Ok((tags, Version::V6)) => walk_ipv6(&mut cursor, tags, listed).map(|walked| (tags, walked)),
        Err(stop) => Err(stop),
    };
    let (tags, (packet, inside)) = match walked {
        Ok(walked) => walked,
        Err(stop) => return count_stop(&mut cursor, counters, stop),
    };
    counters.seen_octets += u64::from(cursor.known_octets());
    let packet = packet.settled();
    match enter(&mut cursor, inside) {
        Ok(None) if packet.tags.is_ipv6() => Ended::with(place.count::<true>(counters, &packet)),
        Ok(None) => Ended::with(place.count::<false>(counters, &packet)),
        Ok(Some(inner)) => Ended::at(&inner, tags),
        Err(outcome) => Ended::with(Some(outcome)),
    }
}

#[inline(never)]
fn count_inner(frame: XdpFrame, place: &Place, outer: Ended) -> Ended {
    let Some(counters) = place.run.interface(place.interface) else { return Ended::with(None) };
    let (Inner { version, offset, octets }, tags) = outer.inner();
    let mut cursor = Cursor::within(frame, offset, octets);
    let stop = match version {
        Version::V4 => match walk_ipv4(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => return Ended::with(place.count::<false>(counters, &packet.settled())),
            Err(stop) => stop,
        },
        Version::V6 => match walk_ipv6(&mut cursor, tags, Tunnels::NONE) {
            Ok((packet, _)) => return Ended::with(place.count::<true>(counters, &packet.settled())),
            Err(stop) => stop,
        },
    };
    Ended::with(Some(cursor.outcome(stop)))
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
#[derive(Clone, Copy)]
struct Run {
    generation: &'static Generation,
    first_block: u32,
}

/// Where and when a packet came in.
#[derive(Clone, Copy)]
struct Place {
    run: Run,
    interface: u32,
    time: u32,
}

impl Place {
    /// Puts the packet into a record, or into a residual counter when there is no room.
    #[inline(always)]
    fn count<const IPV6: bool>(&self, counters: &mut InterfaceCounters, packet: &Packet) -> Option<Outcome> {
        let Self { run, interface, time } = *self;
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
        if let Some(slot) = unsafe { table::find::<IPV6>(run.group(position)?, position, &tuple) } {
            table::count::<IPV6>(slot, &tuple, count);
            return Some(Outcome::Counted);
        }
        // Stores of several known zeroes would become a call of memset, which the verifier refuses.
        let zero = black_box(0);
        let [first, second, third, fourth] = tuple.addresses;
        let addresses = if IPV6 { [first, second, third, fourth] } else { [first, zero, zero, zero] };
        let packet = Displaced { tuple: Tuple { addresses, ..tuple }, count, position, interface };
        let recorded = displaced(run.generation, run.first_block, &packet)?;
        Some(if recorded { Outcome::Counted } else { Outcome::Overflow })
    }
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
        Some(self.generation.get_ptr_mut(self.first_block + index)?.cast())
    }

    #[inline(always)]
    fn interface(&self, slot: u32) -> Option<&'static mut InterfaceCounters> {
        let block = self.block(slot)?.cast::<InterfaceCounters>();
        // SAFETY: a block at this index holds interface counters, and only this CPU writes it.
        Some(unsafe { &mut *block })
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
