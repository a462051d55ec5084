//! What flow agents do on the TC hook: one hash for all CPUs, updated in place, the precise clock, and a ring buffer for
//! the packets of flows that find the hash full. Once with a plain hash and a spin lock in each value, once with a hash
//! that evicts and atomic additions.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::{HashMap, LruHashMap, RingBuf};
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use bench_ebpf::{Key, Pending, PerCpuValue};
use minimizer_ebpf::parser::walk::Packet;

use crate::parsed::{each_on_tc, key, missed, now_ns};
use crate::shared_hash::Locked;
use crate::shared_map as atomic;

/// The least that a ring may have: a page.
const RING_OCTETS: usize = 4096;

/// The bench sets the number of entries.
#[btf_map]
static TC_FLOWS: HashMap<Key, Locked, 1> = HashMap::new();

/// The bench sets the number of entries.
#[btf_map]
static TC_LRU_FLOWS: LruHashMap<Key, PerCpuValue, 1> = LruHashMap::new();

/// Packets that go to user space one by one. The bench sets the size.
#[btf_map]
static DIRECT: RingBuf<Pending, RING_OCTETS> = RingBuf::new();

#[classifier]
fn tc_hash(context: TcContext) -> i32 {
    each_on_tc(&context, |packet| count(packet, &TC_FLOWS))
}

#[classifier]
fn tc_lru(context: TcContext) -> i32 {
    each_on_tc(&context, |packet| count(packet, &TC_LRU_FLOWS))
}

/// A table of either kind.
trait Table {
    /// Counts a packet of a known flow; `false` when the flow is not known.
    fn update(&self, key: &Key, packet: &Packet, now_ns: u64) -> bool;
    /// Counts the first packet of a flow; `false` when there is no room, or when the flow is known.
    fn insert(&self, key: &Key, packet: &Packet, now_ns: u64) -> bool;
}

impl Table for HashMap<Key, Locked, 1> {
    #[inline(always)]
    fn update(&self, key: &Key, packet: &Packet, now_ns: u64) -> bool {
        let Some(value) = self.get_ptr_mut(key) else { return false };
        // SAFETY: the pointer is that of an element.
        unsafe { Locked::count(value, packet, now_ns) };
        true
    }

    #[inline(always)]
    fn insert(&self, key: &Key, packet: &Packet, now_ns: u64) -> bool {
        self.insert(key, &Locked::first(packet, now_ns), BPF_NOEXIST.into()).is_ok()
    }
}

/// The kernel allows no lock in this kind of hash.
impl Table for LruHashMap<Key, PerCpuValue, 1> {
    #[inline(always)]
    fn update(&self, key: &Key, packet: &Packet, now_ns: u64) -> bool {
        let Some(value) = self.get_ptr_mut(key) else { return false };
        // SAFETY: the pointer is that of an element.
        unsafe { atomic::count(value, packet, now_ns) };
        true
    }

    #[inline(always)]
    fn insert(&self, key: &Key, packet: &Packet, now_ns: u64) -> bool {
        self.insert(key, &atomic::first(packet, now_ns), BPF_NOEXIST.into()).is_ok()
    }
}

#[inline(always)]
fn count(packet: &Packet, table: &impl Table) -> Option<()> {
    let key = key(packet);
    let now_ns = now_ns();
    // Twice, because another CPU may be faster than the insertion.
    if table.update(&key, packet, now_ns)
        || table.insert(&key, packet, now_ns)
        || table.update(&key, packet, now_ns)
    {
        return Some(());
    }
    let Some(mut direct) = DIRECT.reserve(0) else { return missed() };
    let (octets, control_bits) = (packet.length_octets, u32::from(packet.control_bits));
    direct.write(Pending { key, now_ns, octets, control_bits, reserved: 0 });
    direct.submit(0);
    Some(())
}
