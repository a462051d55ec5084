//! The addresses of the outer packet of a tunnel, read again: nothing of them is kept while its headers are walked.

use aya_ebpf::bindings::xdp_md;
use minimizer_ebpf::parser::cursor::Cursor;
use minimizer_ebpf::parser::walk::{Version, addresses, walk_link};
use minimizer_ebpf::policy::outer::Outer;

use crate::program::constants::SETTINGS;
use crate::program::frame::XdpFrame;
use crate::program::memory::PolicyTables;

/// What the outer addresses of a frame say about the packet inside: an [`Outer`]. A function of its own, for its stack.
#[inline(never)]
pub fn judge(context: *mut xdp_md) -> u64 {
    let mut cursor = Cursor::over(XdpFrame::of(context));
    let plan = &SETTINGS.plan;
    // They were read before: neither can fail.
    let Ok((_, version)) = walk_link(&mut cursor) else { return Outer::REFUSED.0.into() };
    let Some(addresses) = addresses(&mut cursor, version) else { return Outer::REFUSED.0.into() };
    let outer = match version {
        Version::V4 => Outer::of::<false>(&PolicyTables, plan, &addresses),
        Version::V6 => Outer::of::<true>(&PolicyTables, plan, &addresses),
    };
    outer.0.into()
}
