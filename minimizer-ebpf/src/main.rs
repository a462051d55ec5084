//! The XDP program: maps, accounting, entry.
#![no_std]
#![no_main]
#![allow(
    clippy::cast_possible_truncation,
    reason = "kernel programs have no fallible conversions; every narrowing is masked or bounded"
)]

mod program;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use minimizer_common::settings::{ACTION_DROP, ACTION_PASS};

/// Counts the packet and lets it pass. It never alters a packet.
#[xdp(frags)]
#[inline(always)]
fn minimizer(context: XdpContext) -> u32 {
    count::<false>(&context);
    ACTION_PASS
}

/// Counts the packet and drops it, on an interface that the operator has declared a tap. It is a program of
/// its own, so that the program on every other interface has no instruction that drops.
#[xdp(frags)]
#[inline(always)]
fn minimizer_tap(context: XdpContext) -> u32 {
    count::<false>(&context);
    ACTION_DROP
}

/// Like [`minimizer`], for a policy that lists tunnels: counts the packet inside a tunnel.
#[xdp(frags)]
#[inline(always)]
fn minimizer_inner(context: XdpContext) -> u32 {
    count::<true>(&context);
    ACTION_PASS
}

/// Like [`minimizer_tap`], for a policy that lists tunnels.
#[xdp(frags)]
#[inline(always)]
fn minimizer_intap(context: XdpContext) -> u32 {
    count::<true>(&context);
    ACTION_DROP
}

#[inline(always)]
fn count<const TUNNELS: bool>(context: &XdpContext) {
    let _outcome = program::accounting::account::<TUNNELS>(context);
    // For development only: a shipped object has no ring buffer for the log.
    #[cfg(feature = "log")]
    if let Some(outcome) = _outcome {
        aya_log_ebpf::debug!(context, "outcome {}", outcome);
    }
}

#[panic_handler]
fn unreachable_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No reachable code panics; the verifier would refuse this loop.
    loop {}
}

/// The kernel offers GPL-only helpers to programs with such a licence. The text is one that the kernel knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
