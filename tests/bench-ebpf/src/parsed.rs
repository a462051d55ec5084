//! The parser alone: walks the headers with the rooms of the real program, and folds what they found into one counter.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{Key, Line};
use minimizer_ebpf::cursor::Cursor;
use minimizer_ebpf::walk::{Packet, walk};

#[btf_map]
static PARSED: PerCpuArray<Line, 1> = PerCpuArray::new();

#[xdp(frags)]
fn parse_only(context: XdpContext) -> u32 {
    match count(&context) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}

#[inline(always)]
fn count(context: &XdpContext) -> Option<()> {
    let packet = parse(context)?;
    let line = PARSED.get_ptr_mut(0)?;
    // SAFETY: only this CPU uses this entry.
    let line = unsafe { &mut *line };
    line.packets += 1;
    line.octets += u64::from(packet.length_octets);
    line.fold = line.fold.wrapping_add(fold(&packet));
    Some(())
}

/// The walk of the real program.
#[inline(always)]
pub(crate) fn parse(context: &XdpContext) -> Option<Packet> {
    let (start, end) = (context.data(), context.data_end());
    // SAFETY: the kernel keeps `data..data_end` readable while the program runs.
    let mut cursor = unsafe { Cursor::between(start as *const u8, end as *const u8, (end - start) as u32) };
    walk(&mut cursor).ok()
}

/// The parsed fields in one word, each of which changes it.
#[inline(always)]
pub(crate) fn fold(packet: &Packet) -> u64 {
    let [a, b, c, d] = packet.addresses;
    let ports = u64::from(packet.ports.0) | u64::from(packet.ports.1) << 16;
    let rest = u64::from(packet.protocol)
        | u64::from(packet.traffic_class) << 8
        | u64::from(packet.control_bits) << 16
        | u64::from(packet.tags.0) << 32;
    a ^ b ^ c ^ d ^ ports << 8 ^ rest
}

/// The key under which both hash tables count the packet.
#[inline(always)]
pub(crate) fn key(packet: &Packet) -> Key {
    Key {
        addresses: packet.addresses,
        ports: u32::from(packet.ports.0) | u32::from(packet.ports.1) << 16,
        vlan_id: (packet.tags.0 & 0xfff) as u16,
        protocol: packet.protocol,
        traffic_class: packet.traffic_class,
    }
}

/// The precise clock.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments.
    unsafe { bpf_ktime_get_ns() }
}
