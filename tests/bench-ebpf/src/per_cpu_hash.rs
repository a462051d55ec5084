//! The usual flow table: a per-CPU hash, looked up, updated or inserted, with the precise clock.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::PerCpuHashMap;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{Key, PerCpuValue};
use minimizer_ebpf::parser::walk::Packet;

use crate::parsed::{each, key, missed, now_ns};

/// The bench sets the number of entries.
#[btf_map]
pub(crate) static PER_CPU_FLOWS: PerCpuHashMap<Key, PerCpuValue, 1> = PerCpuHashMap::new();

#[xdp(frags)]
fn per_cpu_hash(context: XdpContext) -> u32 {
    each(&context, count)
}

#[inline(always)]
fn count(packet: &Packet) -> Option<()> {
    let key = key(packet);
    let now_ns = now_ns();
    if let Some(value) = PER_CPU_FLOWS.get_ptr_mut(&key) {
        // SAFETY: only this CPU uses its copy of the value.
        let value = unsafe { &mut *value };
        value.packets += 1;
        value.octets += u64::from(packet.length_octets);
        value.control_bits |= u64::from(packet.control_bits);
        value.last_ns = now_ns;
        return Some(());
    }
    let value = PerCpuValue {
        packets: 1,
        octets: u64::from(packet.length_octets),
        first_ns: now_ns,
        last_ns: now_ns,
        control_bits: u64::from(packet.control_bits),
    };
    match PER_CPU_FLOWS.insert(&key, &value, BPF_ANY.into()) {
        Ok(()) => Some(()),
        Err(_) => missed(),
    }
}
