//! The bench's programs on the XDP and TC hooks: wrappers that vary the flow, and what the real program is compared with.
#![no_std]
#![no_main]
// For additions that no other CPU can come between.
#![feature(asm_experimental_arch)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "kernel programs have no fallible conversions; every narrowing is masked or of a small constant"
)]

mod empty;
mod floor;
mod half_line;
mod parsed;
mod per_cpu_hash;
mod per_cpu_hash_burst;
mod shared_hash;
mod shared_map;
mod tc_hash;
mod vary;

#[panic_handler]
fn unreachable_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No reachable code panics; the verifier would refuse this loop.
    loop {}
}

/// The kernel offers GPL-only helpers to programs that say so; licence text as the kernel knows it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
