//! The per-CPU hash with burst accounting: packets are set aside, and at the last of a burst all of them are looked up,
//! then updated, so that the misses of one look-up overlap with those of the next as far as a helper call lets them.

use core::ptr;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_map_lookup_elem;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{BURST_PACKETS, Burst, Pending, PerCpuValue};
use minimizer_ebpf::parser::walk::Packet;

use crate::parsed::{each, key, missed, now_ns};
use crate::per_cpu_hash::PER_CPU_FLOWS;

/// What each CPU has set aside. The bench accounts for what is left in it.
#[btf_map]
static BURSTS: PerCpuArray<Burst, 1> = PerCpuArray::new();

#[xdp(frags)]
fn per_cpu_hash_burst(context: XdpContext) -> u32 {
    each(&context, set_aside)
}

#[inline(always)]
fn set_aside(packet: &Packet) -> Option<()> {
    let burst = BURSTS.get_ptr_mut(0)?;
    // SAFETY: only this CPU uses this entry.
    let burst = unsafe { &mut *burst };
    let count = burst.count;
    let pending = burst.packets.get_mut(count as usize)?;
    pending.key = key(packet);
    pending.now_ns = now_ns();
    pending.octets = packet.length_octets;
    pending.control_bits = u32::from(packet.control_bits);
    if count + 1 < BURST_PACKETS as u64 {
        burst.count = count + 1;
        return Some(());
    }
    burst.count = 0;
    account(burst);
    Some(())
}

/// Counts all packets of a burst.
#[inline(never)]
fn account(burst: &Burst) {
    let table = (&raw const PER_CPU_FLOWS).cast_mut().cast();
    let mut values = [ptr::null_mut::<PerCpuValue>(); BURST_PACKETS];
    for (value, pending) in values.iter_mut().zip(&burst.packets) {
        // Not compared with null yet: a branch here would double what the verifier walks, sixteen times.
        // SAFETY: map and key are of the type that the helper expects.
        *value = unsafe { bpf_map_lookup_elem(table, (&raw const pending.key).cast()) }.cast();
    }
    for (place, pending) in values.iter_mut().zip(&burst.packets) {
        let value = *place;
        // Forgotten, or else the verifier would walk the rest once more for the place that held null.
        // SAFETY: the place is this loop's; the write is volatile, so that it stays.
        unsafe { (&raw mut *place).write_volatile(ptr::null_mut()) };
        if value.is_null() {
            insert(pending);
        } else {
            // SAFETY: only this CPU uses its copy of the value.
            update(unsafe { &mut *value }, pending);
        }
    }
}

#[inline(always)]
fn update(value: &mut PerCpuValue, pending: &Pending) {
    value.packets += 1;
    value.octets += u64::from(pending.octets);
    value.control_bits |= u64::from(pending.control_bits);
    value.last_ns = pending.now_ns;
}

/// Counts a packet whose flow was not there before the burst. Another packet of the burst may have brought it.
#[inline(never)]
fn insert(pending: &Pending) {
    if let Some(value) = PER_CPU_FLOWS.get_ptr_mut(&pending.key) {
        // SAFETY: only this CPU uses its copy of the value.
        update(unsafe { &mut *value }, pending);
        return;
    }
    let value = PerCpuValue {
        packets: 1,
        octets: u64::from(pending.octets),
        first_ns: pending.now_ns,
        last_ns: pending.now_ns,
        control_bits: u64::from(pending.control_bits),
    };
    if PER_CPU_FLOWS.insert(&pending.key, &value, BPF_ANY.into()).is_err() {
        missed();
    }
}
