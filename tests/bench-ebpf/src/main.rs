//! The bench's XDP programs: wrappers that vary the flow, and what the real program is compared with.
#![no_std]
#![no_main]

mod floor;
mod parsed;
mod per_cpu_hash;
mod shared_hash;
mod vary;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Nothing: what the wrapper and the test run themselves cost.
#[xdp(frags)]
fn empty(_context: XdpContext) -> u32 {
    XDP_PASS
}

#[panic_handler]
fn unreachable_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No reachable code panics; the verifier would refuse this loop.
    loop {}
}

/// The kernel offers GPL-only helpers to programs that say so; licence text as the kernel knows it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
