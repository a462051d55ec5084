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
pub(crate) struct Locked {
    lock: bpf_spin_lock,
    control_bits: u32,
    packets: u64,
    octets: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Locked {
    /// The value of a flow's first packet.
    #[inline(always)]
    pub(crate) const fn first(packet: &Packet, now_ns: u64) -> Self {
        Self {
            lock: bpf_spin_lock { val: 0 },
            control_bits: packet.control_bits as u32,
            packets: 1,
            octets: packet.length_octets as u64,
            first_ns: now_ns,
            last_ns: now_ns,
        }
    }

    /// Counts one more packet.
    ///
    /// # Safety
    /// The value is an element of a map, which outlives the program's run.
    #[inline(always)]
    pub(crate) unsafe fn count(value: *mut Self, packet: &Packet, now_ns: u64) {
        // Read before the lock is taken: as little as can be happens while it is held.
        let (octets, control_bits) = (u64::from(packet.length_octets), u32::from(packet.control_bits));
        // SAFETY: the caller's.
        unsafe { lock(&raw mut (*value).lock) };
        // SAFETY: the lock is held.
        let value = unsafe { &mut *value };
        value.packets += 1;
        value.octets += octets;
        value.control_bits |= control_bits;
        value.last_ns = now_ns;
        // SAFETY: the lock is held.
        unsafe { unlock(&raw mut value.lock) };
    }
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
    if let Some(value) = SHARED_FLOWS.get_ptr_mut(&key) {
        // SAFETY: the pointer is that of an element.
        unsafe { Locked::count(value, packet, now_ns) };
        return Some(());
    }
    match SHARED_FLOWS.insert(&key, &Locked::first(packet, now_ns), BPF_NOEXIST.into()) {
        Ok(()) => Some(()),
        Err(_) => missed(),
    }
}
