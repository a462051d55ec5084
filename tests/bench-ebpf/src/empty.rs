//! Programs that look at nothing: pass, drop, send.

use aya_ebpf::bindings::TC_ACT_OK;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// Interface on which `redirect` sends, set by the bench.
#[unsafe(no_mangle)]
static IF_INDEX: u32 = 0;

/// What the wrapper and the test run themselves cost.
#[xdp(frags)]
fn empty(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// The same on the TC hook.
#[classifier]
fn empty_tc(_context: TcContext) -> i32 {
    TC_ACT_OK
}

/// What a tap costs that counts nothing.
#[xdp(frags)]
fn discard(_context: XdpContext) -> u32 {
    XDP_DROP
}

/// Sends the frame: behind a wrapper, the fastest sender that varies flows.
#[xdp(frags)]
fn redirect(_context: XdpContext) -> u32 {
    // SAFETY: reads a constant of this program, volatile so that its value here is not assumed.
    let if_index = unsafe { core::ptr::read_volatile(&raw const IF_INDEX) };
    // SAFETY: the helper takes two numbers.
    let action = unsafe { bpf_redirect(if_index, 0) };
    action as u32
}
