//! The parser alone: walks the headers with the rooms of the real program, and folds what they found into one counter.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT, xdp_md};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use bench_ebpf::{Key, Line};
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::{Cursor, Frame};
use minimizer_ebpf::parser::walk::{Packet, Version, walk_ipv4, walk_ipv6, walk_link};

#[btf_map]
static PARSED: PerCpuArray<Line, 1> = PerCpuArray::new();

/// Packets that found no room in a table.
#[btf_map]
static MISSED: PerCpuArray<u64, 1> = PerCpuArray::new();

#[xdp(frags)]
fn parse_only(context: XdpContext) -> u32 {
    each(&context, count)
}

#[inline(always)]
fn count(packet: &Packet) -> Option<()> {
    let line = PARSED.get_ptr_mut(0)?;
    // SAFETY: only this CPU uses this entry.
    let line = unsafe { &mut *line };
    line.packets += 1;
    line.octets += u64::from(packet.length_octets);
    line.fold = line.fold.wrapping_add(fold(packet));
    Some(())
}

/// What the programs have in common: each parses the packet, counts it in its own way and lets it pass.
#[inline(always)]
pub(crate) fn each(context: &XdpContext, count: impl FnOnce(&Packet) -> Option<()>) -> u32 {
    let Some(packet) = parse(context.ctx) else { return XDP_ABORTED };
    match count(&packet) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}

/// The same on the TC hook.
#[inline(always)]
pub(crate) fn each_on_tc(context: &TcContext, count: impl FnOnce(&Packet) -> Option<()>) -> i32 {
    let Some(packet) = parse(context.skb.skb) else { return TC_ACT_SHOT };
    match count(&packet) {
        Some(()) => TC_ACT_OK,
        None => TC_ACT_SHOT,
    }
}

/// Counts a packet for which there is no room, so that the account of a full table is exact too.
#[inline(always)]
pub(crate) fn missed() -> Option<()> {
    let missed = MISSED.get_ptr_mut(0)?;
    // SAFETY: only this CPU uses this entry.
    unsafe { *missed += 1 };
    Some(())
}

/// The walk of the real program.
#[inline(always)]
fn parse<C: Context>(context: *mut C) -> Option<Packet> {
    let mut cursor = Cursor::over(FirstBuffer(context));
    let (tags, version) = walk_link(&mut cursor).ok()?;
    let walked = match version {
        Version::V4 => walk_ipv4(&mut cursor, tags, Tunnels::NONE),
        Version::V6 => walk_ipv6(&mut cursor, tags, Tunnels::NONE),
    };
    let (packet, _) = walked.ok()?;
    Some(packet)
}

/// What the kernel tells a program of a hook about the frame.
trait Context: Copy {
    /// Where the frame's first buffer begins.
    ///
    /// # Safety
    /// The pointer is the kernel's, of this program's run.
    unsafe fn start(this: *const Self) -> u32;
    /// Where it ends.
    ///
    /// # Safety
    /// As for [`Self::start`].
    unsafe fn end(this: *const Self) -> u32;
}

macro_rules! context {
    ($($kind:ty),+) => {
        $(impl Context for $kind {
            #[inline(always)]
            unsafe fn start(this: *const Self) -> u32 {
                // SAFETY: reads a field of the context.
                unsafe { (*this).data }
            }

            #[inline(always)]
            unsafe fn end(this: *const Self) -> u32 {
                // SAFETY: reads a field of the context.
                unsafe { (*this).data_end }
            }
        })+
    };
}

context!(xdp_md, __sk_buff);

/// The frame, which is never longer than its first buffer here.
#[derive(Clone, Copy)]
struct FirstBuffer<C>(*mut C);

// SAFETY: the kernel keeps `data..data_end` readable while the program runs.
unsafe impl<C: Context> Frame for FirstBuffer<C> {
    #[inline(always)]
    fn start(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { C::start(self.0) as usize as *const u8 }
    }

    #[inline(always)]
    fn end(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { C::end(self.0) as usize as *const u8 }
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        (self.end() as usize - self.start() as usize) as u32
    }
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

/// The key under which every hash table counts the packet.
#[inline(always)]
pub(crate) fn key(packet: &Packet) -> Key {
    // Whole words, from here on: a part of one that is stored alone may be misaligned on the stack.
    let addresses = packet.addresses.map(black_box);
    Key {
        addresses,
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
