//! The wrappers, one for each hook: they write the next flow of the schedule into the packet and tail-call the program
//! under test.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use bench_ebpf::{Layout, SCHEDULE_ENTRIES};

const MMAPABLE: usize = 1 << 10;

/// Source address in the lower, both ports in the upper half of each entry, in network byte order.
#[btf_map]
static SCHEDULE: Array<u64, { SCHEDULE_ENTRIES as usize }, MMAPABLE> = Array::new();

/// The number of packets sent so far.
#[btf_map]
static POSITION: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The program under test.
#[btf_map]
static PROGRAM: ProgramArray<1> = ProgramArray::new();

/// Words of the [`Layout`], set by the bench.
#[unsafe(no_mangle)]
static LAYOUT: [u64; 4] = [0; 4];

#[xdp(frags)]
fn vary(context: XdpContext) -> u32 {
    send_next(&context, context.data(), context.data_end());
    XDP_ABORTED
}

#[classifier]
fn vary_tc(context: TcContext) -> i32 {
    send_next(&context, context.data(), context.data_end());
    TC_ACT_SHOT
}

/// Returns only when something is missing.
#[inline(always)]
fn send_next<C: EbpfContext>(context: &C, start: usize, end: usize) -> Option<()> {
    // SAFETY: reads a constant of this program, volatile so that its value here is not assumed.
    let layout = Layout::of(unsafe { core::ptr::read_volatile(&raw const LAYOUT) });
    let position = POSITION.get_ptr_mut(0)?;
    // SAFETY: only this CPU uses this entry.
    let index = unsafe { *position };
    // SAFETY: as above.
    unsafe { *position = index + 1 };
    let entry = *SCHEDULE.get(index as u32 & (SCHEDULE_ENTRIES - 1))?;
    let ports = start + layout.ports as usize;
    if ports + 4 > end {
        return None;
    }
    let address = start + layout.address as usize;
    // SAFETY: eight octets at `address` lie before the ports, which were found within the frame.
    unsafe { (address as *mut u64).write_unaligned(layout.address_word(entry)) };
    // SAFETY: the ports were found within the frame.
    unsafe { (ports as *mut u32).write_unaligned((entry >> 32) as u32) };
    // SAFETY: context and map are the kernel's.
    unsafe { PROGRAM.tail_call(context, 0) };
    None
}
