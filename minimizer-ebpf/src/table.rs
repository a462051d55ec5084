//! One group of the flow table: find a tuple's slot or a free one, and count the packet in it.

use minimizer_common::generation::{Group, WAYS};
use minimizer_common::tuple::{Slot, Tuple};

/// What a packet adds to its slot.
#[derive(Clone, Copy)]
pub struct Count {
    /// IP octets.
    pub octets: u64,
    /// TCP control bits.
    pub control_bits: u16,
    /// Time unit of the packet.
    pub time: u32,
}

/// Counts the packet in the slot of its tuple, or in a free slot of the group. Probing starts at
/// way `position >> 29`, so that flows of one group do not all walk the same slots, and stops at the
/// first match or free slot: slots are never freed while a generation is written.
///
/// Returns `false`, with nothing changed, when all ways hold other tuples.
///
/// # Safety
/// `group` points to a group that nobody else reads or writes meanwhile.
#[inline(always)]
pub unsafe fn count(group: *mut Group, position: u32, tuple: &Tuple, is_ipv6: bool, count: Count) -> bool {
    let start = (position >> 29) as usize;
    for step in 0..WAYS {
        let way = (start + step) % WAYS;
        // SAFETY: `way` is below `WAYS` and the caller owns the group.
        let slot = unsafe { &mut (*group).0[way] };
        if slot.counters >> 32 == 0 {
            fill(slot, tuple, count);
            return true;
        }
        if matches(slot, tuple, is_ipv6) {
            add(slot, count);
            return true;
        }
    }
    false
}

#[inline(always)]
fn add(slot: &mut Slot, count: Count) {
    let control_bits = u64::from(count.control_bits) << Slot::CONTROL_BITS_SHIFT;
    slot.counters = (slot.counters | control_bits) + Slot::ONE_PACKET;
    slot.octets += count.octets;
    if slot.times >> 32 != u64::from(count.time) {
        slot.times = slot.times & 0xffff_ffff | u64::from(count.time) << 32;
    }
}

/// Writes a new flow of one packet into a free slot, whose words are all zero.
#[inline(always)]
pub fn fill(slot: &mut Slot, tuple: &Tuple, count: Count) {
    slot.addresses = tuple.addresses;
    slot.transport = tuple.transport;
    slot.counters =
        u64::from(tuple.kind) | u64::from(count.control_bits) << Slot::CONTROL_BITS_SHIFT | Slot::ONE_PACKET;
    slot.octets = count.octets;
    slot.times = u64::from(count.time) | u64::from(count.time) << 32;
}

/// Whether the slot is that of the tuple. The IP version is part of `transport`, and the unused
/// words of an IPv4 tuple are zero in every slot, so that they need no comparison.
#[inline(always)]
fn matches(slot: &Slot, tuple: &Tuple, is_ipv6: bool) -> bool {
    let differs = (slot.addresses[0] ^ tuple.addresses[0])
        | (slot.transport ^ tuple.transport)
        | (slot.counters ^ u64::from(tuple.kind)) & 0xffff;
    if differs != 0 {
        return false;
    }
    if !is_ipv6 {
        return true;
    }
    let differs = (slot.addresses[1] ^ tuple.addresses[1])
        | (slot.addresses[2] ^ tuple.addresses[2])
        | (slot.addresses[3] ^ tuple.addresses[3]);
    differs == 0
}
