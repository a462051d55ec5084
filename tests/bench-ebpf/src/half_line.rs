//! The slots that were not choice: half a cache line for IPv4 alone, two to a line, in lines of each CPU's own.
//!
//! Data path only: a flow that finds both slots of its line taken is merely counted as missed.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_jiffies64};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{HALF_WAYS, HalfLine};
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::slot::{Count, Narrow};
use minimizer_common::tuple::Tuple;
use minimizer_ebpf::parser::walk::Packet;
use minimizer_ebpf::table::hash;

use crate::parsed::{each, missed};

const MMAPABLE: usize = 1 << 10;
const FIRST_SHIFT: u32 = 32;
const LAST_SHIFT: u32 = 48;
const CONTROL_BITS_SHIFT: u32 = 16;
const ONE_PACKET: u64 = 1 << 32;

/// The bench sets the number of entries.
#[btf_map]
static HALF_LINES: Array<HalfLine, 1, MMAPABLE> = Array::new();

/// Lines of one CPU minus one, set by the bench.
#[unsafe(no_mangle)]
static HALF_LINE_MASK: u32 = 0;

/// Keys of the real program's hash, set by the bench.
#[unsafe(no_mangle)]
static KEYS: [u64; HASH_KEYS] = [0; HASH_KEYS];

#[xdp(frags)]
fn half_line(context: XdpContext) -> u32 {
    each(&context, count)
}

#[inline(always)]
fn count(packet: &Packet) -> Option<()> {
    let Packet { addresses, ports, tags, protocol, traffic_class, .. } = *packet;
    let tuple = Tuple::new(addresses, ports, tags, protocol, traffic_class);
    let count = Count { octets: 0, control_bits: 0, first: 0, last: 0 };
    let position = hash::narrow(&KEYS, &Narrow::ipv4(&tuple, &count));
    // SAFETY: reads a constant of this program, volatile so that its value here is not assumed.
    let mask = unsafe { core::ptr::read_volatile(&raw const HALF_LINE_MASK) };
    // SAFETY: the helper has no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: the helper has no arguments. Some two hundred ticks, about a second, are one unit.
    let time = unsafe { bpf_jiffies64() } >> 8 & 0xffff;
    let line = HALF_LINES.get_ptr_mut(cpu * (mask + 1) + (position & mask))?;
    let start = (position >> 31) as usize;
    for step in 0..HALF_WAYS {
        // SAFETY: the way is below `HALF_WAYS`, and only this CPU uses its lines.
        let slot = unsafe { &mut (*line).0[(start + step) % HALF_WAYS] };
        let is_free = slot.counters >> 32 == 0;
        let differs = (slot.addresses ^ addresses[0])
            | (slot.transport ^ tuple.transport)
            | (slot.counters ^ u64::from(tuple.kind)) & 0xffff;
        if !is_free && differs != 0 {
            continue;
        }
        if is_free {
            slot.addresses = addresses[0];
            slot.transport = tuple.transport;
            slot.octets_and_times = time << FIRST_SHIFT;
        }
        let marks = u64::from(tuple.kind) | u64::from(packet.control_bits) << CONTROL_BITS_SHIFT;
        slot.counters = (slot.counters | marks) + ONE_PACKET;
        slot.octets_and_times += u64::from(packet.length_octets);
        if slot.octets_and_times >> LAST_SHIFT != time {
            slot.octets_and_times = slot.octets_and_times & ((1 << LAST_SHIFT) - 1) | time << LAST_SHIFT;
        }
        return Some(());
    }
    missed()
}
