//! The wrappers: they write the next flow of the schedule into the packet and tail-call the program under test.

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{IPV4, IPV6, Layout, SCHEDULE_ENTRIES};

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

#[xdp(frags)]
fn vary_ipv4(context: XdpContext) -> u32 {
    vary(&context, IPV4);
    XDP_ABORTED
}

#[xdp(frags)]
fn vary_ipv6(context: XdpContext) -> u32 {
    vary(&context, IPV6);
    XDP_ABORTED
}

/// Returns only when something is missing.
#[inline(always)]
fn vary(context: &XdpContext, layout: Layout) -> Option<()> {
    let position = POSITION.get_ptr_mut(0)?;
    // SAFETY: only this CPU uses this entry.
    let index = unsafe { *position };
    // SAFETY: as above.
    unsafe { *position = index + 1 };
    let entry = *SCHEDULE.get(index as u32 & (SCHEDULE_ENTRIES - 1))?;
    let (start, end) = (context.data(), context.data_end());
    if start + layout.ports + 4 > end {
        return None;
    }
    let address = layout.rest | (entry & 0xffff_ffff) << layout.shift;
    // SAFETY: eight octets at `address` lie before the ports, which were found within the frame.
    unsafe { ((start + layout.address) as *mut u64).write_unaligned(address) };
    // SAFETY: the ports were found within the frame.
    unsafe { ((start + layout.ports) as *mut u32).write_unaligned((entry >> 32) as u32) };
    // SAFETY: context and map are the kernel's.
    unsafe { PROGRAM.tail_call(context, 0) };
    None
}
