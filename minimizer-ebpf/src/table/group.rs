//! One group of the flow table: it finds a tuple's slot, or a free one, and counts the packet there.

use minimizer_common::generation::{Group, WAYS};
use minimizer_common::tuple::{Slot, Tuple};

/// What a packet adds to its slot.
#[derive(Clone, Copy)]
pub struct Count {
    /// IP octets.
    pub octets: u64,
    /// TCP control bits.
    pub control_bits: u16,
    /// Time unit of the packet, as the flow's first; 0 if the policy keeps no first time.
    pub first: u32,
    /// Time unit of the packet, as the flow's last; 0 if the policy keeps no last time.
    pub last: u32,
}

/// The parts of a tuple in which flows can differ. Every other part is zero in every slot.
#[derive(Clone, Copy)]
pub struct Parts {
    /// [`Tuple::addresses`].
    pub addresses: bool,
    /// [`Tuple::transport`].
    pub transport: bool,
    /// [`Tuple::selector`].
    pub selector: bool,
}

impl Parts {
    /// Every part.
    pub const ALL: Self = Self { addresses: true, transport: true, selector: true };
}

/// The slot of the tuple, or a free slot for it; `None` when all ways hold other tuples. Probing starts at
/// way `position >> 29`, so that the flows of one group do not all walk the same slots. It stops at the first
/// match or free slot, because nobody frees a slot while the program writes the generation.
///
/// `IPV6` is the tuple's IP version, known at compile time. IPv4 tuples differ in one word of addresses only.
///
/// # Safety
/// `group` points to a group that nobody else reads or writes while the slot is used.
#[inline(always)]
pub unsafe fn find<'group, const IPV6: bool>(
    group: *mut Group,
    position: u32,
    tuple: &Tuple,
    parts: Parts,
) -> Option<&'group mut Slot> {
    let start = (position >> 29) as usize;
    for step in 0..WAYS {
        let way = (start + step) % WAYS;
        // SAFETY: `way` is below `WAYS` and the caller owns the group.
        let slot = unsafe { &mut (*group).0[way] };
        if slot.packets() == 0 || matches::<IPV6>(slot, tuple, parts) {
            return Some(slot);
        }
    }
    None
}

/// Counts the packet in a slot that [`find`] returned, or in one whose words are all zero.
///
/// For an IPv4 tuple it writes only the first word of addresses.
#[inline(always)]
pub fn count<const IPV6: bool>(slot: &mut Slot, tuple: &Tuple, count: Count) {
    if slot.packets() == 0 {
        if IPV6 {
            slot.addresses = tuple.addresses;
        } else {
            slot.addresses[0] = tuple.addresses[0];
        }
        slot.transport = tuple.transport;
        slot.times = u64::from(count.first);
        slot.volume = u64::from(tuple.selector) << Slot::SELECTOR_SHIFT;
    }
    // A slot in use already has the tuple's kind, so that the OR does not change it.
    let marks = u64::from(tuple.kind) | u64::from(count.control_bits) << Slot::CONTROL_BITS_SHIFT;
    slot.counters = (slot.counters | marks) + Slot::ONE_PACKET;
    slot.volume += count.octets;
    // Most packets fall into the same time unit as the one before, and need no store.
    if slot.times >> 32 != u64::from(count.last) {
        slot.times = slot.times & 0xffff_ffff | u64::from(count.last) << 32;
    }
}

/// Whether the slot is the tuple's. `transport` includes the IP version. The unused words of an IPv4 tuple
/// are zero in every slot and need no comparison.
#[inline(always)]
fn matches<const IPV6: bool>(slot: &Slot, tuple: &Tuple, parts: Parts) -> bool {
    let mut differs = (slot.counters ^ u64::from(tuple.kind)) & 0xffff;
    if parts.transport {
        differs |= slot.transport ^ tuple.transport;
    }
    if parts.addresses {
        differs |= slot.addresses[0] ^ tuple.addresses[0];
        if IPV6 {
            differs |= (slot.addresses[1] ^ tuple.addresses[1])
                | (slot.addresses[2] ^ tuple.addresses[2])
                | (slot.addresses[3] ^ tuple.addresses[3]);
        }
    }
    if parts.selector {
        differs |= u64::from(slot.selector() ^ tuple.selector);
    }
    differs == 0
}

#[cfg(test)]
mod tests {
    use minimizer_common::generation::{Group, WAYS};
    use minimizer_common::tuple::{Slot, Tags, Tuple};

    use super::{Count, Parts, count, find};

    const EMPTY: Group =
        Group([Slot { addresses: [0; 4], transport: 0, counters: 0, volume: 0, times: 0 }; WAYS]);

    fn add(group: &mut Group, position: u32, tuple: &Tuple, counted: Count) -> bool {
        if tuple.tags().is_ipv6() {
            // SAFETY: the group is borrowed exclusively.
            let slot = unsafe { find::<true>(group, position, tuple, Parts::ALL) };
            slot.map(|slot| count::<true>(slot, tuple, counted)).is_some()
        } else {
            // SAFETY: as above.
            let slot = unsafe { find::<false>(group, position, tuple, Parts::ALL) };
            slot.map(|slot| count::<false>(slot, tuple, counted)).is_some()
        }
    }

    fn ipv4(flow: u64) -> Tuple {
        Tuple::new([flow, 0, 0, 0], (1, 2), Tags::NONE, 6, 0x2e)
    }

    fn ipv6(addresses: [u64; 4]) -> Tuple {
        Tuple::new(addresses, (1, 2), Tags::NONE.with_ipv6(), 6, 0x2e)
    }

    const ONE: Count = Count { octets: 100, control_bits: 0x002, first: 7, last: 7 };

    fn used(group: &Group) -> usize {
        group.0.iter().filter(|slot| slot.packets() != 0).count()
    }

    #[test]
    fn the_first_packet_fills_the_slot_that_the_hash_names() {
        for way in 0..WAYS {
            let mut group = EMPTY;
            assert!(add(&mut group, (way as u32) << 29, &ipv4(5), ONE));
            assert_eq!(used(&group), 1);
            let slot = group.0[way];
            assert_eq!(slot.tuple(), ipv4(5));
            assert_eq!((slot.packets(), slot.octets(), slot.control_bits()), (1, 100, 0x002));
            assert_eq!((slot.first(), slot.last()), (7, 7));
        }
    }

    #[test]
    fn further_packets_add_up() {
        let mut group = EMPTY;
        add(&mut group, 0, &ipv4(5), ONE);
        add(&mut group, 0, &ipv4(5), Count { octets: 65_535, control_bits: 0xf10, first: 7, last: 7 });
        add(&mut group, 0, &ipv4(5), Count { octets: 20, control_bits: 0, first: 9, last: 9 });
        assert_eq!(used(&group), 1);
        let slot = group.0[0];
        assert_eq!(slot.tuple(), ipv4(5), "control bits and packets do not run into the key");
        assert_eq!((slot.packets(), slot.octets(), slot.control_bits()), (3, 65_655, 0xf12));
        assert_eq!((slot.first(), slot.last()), (7, 9));
    }

    #[test]
    fn times_at_their_ends() {
        let mut group = EMPTY;
        add(&mut group, 0, &ipv4(5), Count { first: 0, last: 0, ..ONE });
        add(&mut group, 0, &ipv4(5), Count { first: u32::MAX, last: u32::MAX, ..ONE });
        assert_eq!((group.0[0].first(), group.0[0].last()), (0, u32::MAX));
    }

    #[test]
    fn octets_beyond_32_bits() {
        let mut group = EMPTY;
        for _ in 0..3 {
            add(&mut group, 0, &ipv4(5), Count { octets: u64::from(u32::MAX), ..ONE });
        }
        assert_eq!(group.0[0].octets(), 3 * u64::from(u32::MAX));
    }

    #[test]
    fn probing_goes_round_to_a_free_slot_and_finds_the_flow_again() {
        for start in 0..WAYS {
            let mut group = EMPTY;
            let hash = (start as u32) << 29;
            for flow in 1..=WAYS as u64 {
                assert!(add(&mut group, hash, &ipv4(flow), ONE));
            }
            for flow in 1..=WAYS as u64 {
                assert!(add(&mut group, hash, &ipv4(flow), ONE));
            }
            for (way, slot) in group.0.iter().enumerate() {
                let step = (way + WAYS - start) % WAYS;
                assert_eq!(
                    (slot.tuple(), slot.packets()),
                    (ipv4(step as u64 + 1), 2),
                    "start {start}, way {way}"
                );
            }
        }
    }

    #[test]
    fn a_full_group_takes_no_other_flow_and_stays_as_it_is() {
        let mut group = EMPTY;
        for flow in 1..=WAYS as u64 {
            add(&mut group, (flow as u32) << 29, &ipv4(flow), ONE);
        }
        let before = group.0;
        for start in 0..WAYS as u64 {
            assert!(!add(&mut group, (start as u32) << 29, &ipv4(9), ONE));
            assert_eq!(group.0, before);
            assert!(
                add(&mut group, (start as u32) << 29, &ipv4(3), ONE),
                "a flow that is in it still counts"
            );
            group.0 = before;
        }
    }

    #[test]
    fn tuples_that_differ_anywhere_do_not_share_a_slot() {
        let base = ipv6([1, 2, 3, 4]);
        let others = [
            ipv6([0, 2, 3, 4]),
            ipv6([1, 0, 3, 4]),
            ipv6([1, 2, 0, 4]),
            ipv6([1, 2, 3, 0]),
            Tuple::new([1, 2, 3, 4], (9, 2), base.tags(), 6, 0x2e),
            Tuple::new([1, 2, 3, 4], (1, 9), base.tags(), 6, 0x2e),
            Tuple::new([1, 2, 3, 4], (1, 2), base.tags().with_vlan(0), 6, 0x2e),
            Tuple::new([1, 2, 3, 4], (1, 2), base.tags().with_interface(1), 6, 0x2e),
            Tuple::new([1, 2, 3, 4], (1, 2), base.tags(), 17, 0x2e),
            Tuple::new([1, 2, 3, 4], (1, 2), base.tags(), 6, 0),
            Tuple { selector: 1, ..base },
            Tuple { selector: 0xf_ffff, ..base },
        ];
        for other in others {
            let mut group = EMPTY;
            add(&mut group, 0, &base, ONE);
            add(&mut group, 0, &other, ONE);
            assert_eq!((group.0[0].tuple(), group.0[1].tuple()), (base, other));
        }
    }

    #[test]
    fn the_same_words_are_another_flow_in_the_other_version() {
        let four = ipv4(1);
        let six = ipv6([1, 0, 0, 0]);
        for (first, second) in [(four, six), (six, four)] {
            let mut group = EMPTY;
            add(&mut group, 0, &first, ONE);
            add(&mut group, 0, &second, ONE);
            assert_eq!((group.0[0].tuple(), group.0[0].packets()), (first, 1));
            assert_eq!((group.0[1].tuple(), group.0[1].packets()), (second, 1));
        }
    }
}
