//! The XDP program: maps, accounting, entry.
#![no_std]
#![no_main]
#![allow(
    clippy::cast_possible_truncation,
    reason = "kernel programs have no fallible conversions; every narrowing is masked or bounded"
)]

mod accounting;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use minimizer_common::settings::{ACTION_DROP, ACTION_PASS};

/// Counts the packet and lets it pass. Never alters it.
#[xdp(frags)]
fn minimizer(context: XdpContext) -> u32 {
    count(&context);
    ACTION_PASS
}

/// Counts the packet and drops it, on an interface that the operator declared a tap. A program of its own:
/// what is attached to any other interface has no instruction that drops.
#[xdp(frags)]
fn minimizer_tap(context: XdpContext) -> u32 {
    count(&context);
    ACTION_DROP
}

#[inline(always)]
fn count(context: &XdpContext) {
    let _outcome = accounting::account(context);
    // For development only: a shipped object has no buffer to write this to.
    #[cfg(feature = "log")]
    if let Some(outcome) = _outcome {
        aya_log_ebpf::debug!(context, "outcome {}", outcome as u8);
    }
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
