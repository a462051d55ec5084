//! One hash for all CPUs again, updated in place by atomic additions, without a lock.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{Key, PerCpuValue};
use minimizer_ebpf::parser::walk::Packet;

use crate::parsed::{each, key, missed, now_ns};

/// The bench sets the number of entries.
#[btf_map]
static ATOMIC_FLOWS: HashMap<Key, PerCpuValue, 1> = HashMap::new();

#[xdp(frags)]
fn shared_map(context: XdpContext) -> u32 {
    each(&context, account)
}

#[inline(always)]
fn account(packet: &Packet) -> Option<()> {
    let key = key(packet);
    let now_ns = now_ns();
    if let Some(value) = ATOMIC_FLOWS.get_ptr_mut(&key) {
        // SAFETY: the pointer is that of an element.
        unsafe { count(value, packet, now_ns) };
        return Some(());
    }
    if ATOMIC_FLOWS.insert(&key, &first(packet, now_ns), BPF_NOEXIST.into()).is_ok() {
        return Some(());
    }
    // Another CPU may have been faster.
    let Some(value) = ATOMIC_FLOWS.get_ptr_mut(&key) else { return missed() };
    // SAFETY: as above.
    unsafe { count(value, packet, now_ns) };
    Some(())
}

/// The value of a flow's first packet.
#[inline(always)]
pub(crate) const fn first(packet: &Packet, now_ns: u64) -> PerCpuValue {
    PerCpuValue {
        packets: 1,
        octets: packet.length_octets as u64,
        first_ns: now_ns,
        last_ns: now_ns,
        control_bits: packet.control_bits as u64,
    }
}

/// Counts one more packet, while other CPUs may do the same.
///
/// # Safety
/// The value is an element of a map, which outlives the program's run.
#[inline(always)]
pub(crate) unsafe fn count(value: *mut PerCpuValue, packet: &Packet, now_ns: u64) {
    let (octets, control_bits) = (u64::from(packet.length_octets), u64::from(packet.control_bits));
    // SAFETY: the caller's. The language's own atomics do not add on this target.
    unsafe {
        asm!(
            "lock *(u64 *)({value} + 0) += {one}",
            "lock *(u64 *)({value} + 8) += {octets}",
            value = in(reg) value,
            one = in(reg) 1_u64,
            octets = in(reg) octets,
        );
    }
    // SAFETY: the caller's. Stores of a word are not torn.
    unsafe { (&raw mut (*value).last_ns).write_volatile(now_ns) };
    // SAFETY: as above.
    let known = unsafe { (&raw const (*value).control_bits).read_volatile() };
    // Most packets bring no bit that is not there yet.
    if known | control_bits != known {
        // SAFETY: as above.
        unsafe {
            asm!(
                "lock *(u64 *)({value} + 32) |= {bits}",
                value = in(reg) value,
                bits = in(reg) control_bits,
            );
        }
    }
}
