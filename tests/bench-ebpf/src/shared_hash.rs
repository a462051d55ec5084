//! The other usual flow table: one hash for all CPUs, a spin lock in each value, the precise clock.

use aya_ebpf::bindings::{BPF_NOEXIST, bpf_spin_lock};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use bench_ebpf::{Key, SharedValue};
use minimizer_ebpf::parser::walk::Packet;

use crate::parsed::{each, key, missed, now_ns};

/// [`SharedValue`] with the lock as the kernel's type, which it finds by name.
#[repr(C)]
struct Locked {
    lock: bpf_spin_lock,
    control_bits: u32,
    packets: u64,
    octets: u64,
    first_ns: u64,
    last_ns: u64,
}

const _: () = assert!(size_of::<Locked>() == size_of::<SharedValue>());

/// The bench sets the number of entries.
#[btf_map]
static SHARED_FLOWS: HashMap<Key, Locked, 1> = HashMap::new();

#[xdp(frags)]
fn shared_hash(context: XdpContext) -> u32 {
    each(&context, count)
}

#[inline(always)]
fn count(packet: &Packet) -> Option<()> {
    let key = key(packet);
    let now_ns = now_ns();
    let octets = u64::from(packet.length_octets);
    let control_bits = u32::from(packet.control_bits);
    if let Some(value) = SHARED_FLOWS.get_ptr_mut(&key) {
        // SAFETY: the pointer is that of an element, which outlives the program's run.
        unsafe { lock(&raw mut (*value).lock) };
        // SAFETY: the lock is held.
        let value = unsafe { &mut *value };
        value.packets += 1;
        value.octets += octets;
        value.control_bits |= control_bits;
        value.last_ns = now_ns;
        // SAFETY: the lock is held.
        unsafe { unlock(&raw mut value.lock) };
        return Some(());
    }
    let value = Locked {
        lock: bpf_spin_lock { val: 0 },
        control_bits,
        packets: 1,
        octets,
        first_ns: now_ns,
        last_ns: now_ns,
    };
    match SHARED_FLOWS.insert(&key, &value, BPF_NOEXIST.into()) {
        Ok(()) => Some(()),
        Err(_) => missed(),
    }
}
