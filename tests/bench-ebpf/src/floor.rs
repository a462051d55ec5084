//! The floor: what any table costs that lies in memory, the parser and one cache line read, changed and written.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::Line;
use minimizer_ebpf::parser::walk::Packet;

use crate::parsed::{each, fold};

const MMAPABLE: usize = 1 << 10;
/// An odd constant that spreads the folded fields over the upper bits: the cheapest of hashes.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The bench sets the number of entries.
#[btf_map]
static LINES: Array<Line, 1, MMAPABLE> = Array::new();

/// Number of lines minus one, set by the bench.
#[unsafe(no_mangle)]
static LINE_MASK: u32 = 0;

#[xdp(frags)]
fn floor(context: XdpContext) -> u32 {
    each(&context, count)
}

#[inline(always)]
fn count(packet: &Packet) -> Option<()> {
    // SAFETY: reads a constant of this program, volatile so that its value here is not assumed.
    let mask = unsafe { core::ptr::read_volatile(&raw const LINE_MASK) };
    let index = (fold(packet).wrapping_mul(SPREAD) >> 32) as u32 & mask;
    let line = LINES.get_ptr_mut(index)?;
    // SAFETY: the bench runs the program on one CPU.
    let line = unsafe { &mut *line };
    line.packets += 1;
    line.octets += u64::from(packet.length_octets);
    Some(())
}
