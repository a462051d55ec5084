//! The slot in which the kernel counts a flow: half a cache line, or a whole one.
//!
//! ```text
//! word   narrow                                     wide
//! 0      addresses                                  source, or both IPv4 addresses
//! 1      ports, traffic class, VLAN, selector       source, second half
//! 2      marks, protocol, interface, bits, octets   marks, octets, selector
//! 3      first time, last time, packets             first time, last time
//! 4                                                 destination
//! 5                                                 destination, second half
//! 6                                                 marks, protocol, traffic class, bits, packets
//! 7                                                 ports, tags
//! ```
//! A *narrow* slot holds an IPv4 flow with at most one VLAN tag. It also holds an IPv6 flow if the policy keeps no more
//! than 48 bits of each address, and neither traffic class nor VLAN nor selector. A *wide* slot holds every flow. It takes
//! both halves of a line, and word 2 of either half has the marks, so that nobody takes a half of it for a narrow slot.
//!
//! A slot whose counts near their end is closed: its tuple takes another slot, and the drain adds them up. So a slot needs
//! only the bits that flows use.
//!
//! A look-up compares and updates whole words. A packet is set aside in the same form: the slot that it would fill alone.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tuple::{Tags, Tuple};

mod wide;

pub use wide::Wide;

/// Words of half a cache line.
pub const HALF_WORDS: usize = 4;

/// The unit of the table: a narrow slot, or half of a wide one. A free half is all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Half(pub [u64; HALF_WORDS]);

/// A cache line: two narrow slots, or a wide one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Line(pub [Half; 2]);

const _: () = assert!(size_of::<Half>() == 32 && size_of::<Line>() == 64);

/// In word 2: the half is in use.
pub const USED: u64 = 1;
/// In word 2 of both halves: the line is one wide slot.
pub const WIDE: u64 = 1 << 1;

/// What a packet adds to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// IP octets; fewer than 2^18.
    pub octets: u64,
    /// TCP control bits; 12 bits.
    pub control_bits: u16,
    /// Time unit of the packet, as the flow's first; 0 if the policy keeps no first time.
    pub first: u32,
    /// Time unit of the packet, as the flow's last; 0 if the policy keeps no last time.
    pub last: u32,
}

/// What a slot says of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The key.
    pub tuple: Tuple,
    /// OR of the TCP control bits (IE 6, 12 bits).
    pub control_bits: u16,
    /// Number of packets.
    pub packets: u64,
    /// Sum of the declared IP lengths.
    pub octets: u64,
    /// First time unit with a packet of the flow.
    pub first: u32,
    /// Last time unit with a packet of the flow.
    pub last: u32,
}

/// How the packets of IPv6 lie in the table; a policy decides it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Form(pub u32);

impl Ipv6Form {
    /// Each flow in a wide slot.
    pub const WIDE: Self = Self(0);
    /// In narrow slots: of each address at most [`Narrow::IPV6_ADDRESS_BITS`] are kept, and no traffic class, VLAN or
    /// selector.
    pub const NARROW: Self = Self(1);
    /// Like IPv4: neither addresses nor the IP version are kept.
    pub const LIKE_IPV4: Self = Self(2);
}

/// Bits that a policy keeps in the words of the slots of packets with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Masks {
    /// Word 1 of a narrow slot: all ports, and traffic class and VLAN where they are kept.
    pub narrow_transport: u64,
    /// Word 2 of a narrow slot.
    pub narrow_marks: u64,
    /// Word 3 of a narrow slot.
    pub narrow_times: u64,
    /// Word 3 of a wide slot.
    pub wide_times: u64,
    /// Word 6 of a wide slot.
    pub wide_counters: u64,
    /// Word 7 of a wide slot: all ports, and tags where they are kept.
    pub wide_transport: u64,
}

impl Masks {
    /// The masks for `tags_mask` and `kind_mask` of a [`crate::plan::Plan`] and for the times that it keeps.
    #[must_use]
    pub const fn of(tags_mask: u32, kind_mask: u32, keeps_first: bool, keeps_last: bool) -> Self {
        let all = Tuple { addresses: [0; 4], transport: 0xffff_ffff, kind: kind_mask as u16, selector: 0 };
        let tuple = Tuple { transport: all.transport | (tags_mask as u64) << 32, ..all };
        let first = if keeps_first { u32::MAX } else { 0 };
        let last = if keeps_last { u32::MAX } else { 0 };
        let control_bits = (kind_mask >> 16 & 0xfff) as u16;
        let narrow = Count { octets: 0, control_bits, first: first & 0xffff, last: last & 0xffff };
        let wide = Count { octets: 0, control_bits, first, last };
        let [_, narrow_transport, narrow_marks, narrow_times] = Narrow::ipv4(&tuple, &narrow);
        let [.., wide_times, _, _, wide_counters, wide_transport] = Wide::of(&tuple, &wide);
        let version = if tags_mask & Tags::VERSION.0 == 0 { 0 } else { Narrow::IPV6 };
        Self {
            narrow_transport,
            narrow_marks: narrow_marks | version | Narrow::OCTETS,
            narrow_times: narrow_times | Narrow::PACKETS,
            wide_times,
            wide_counters: wide_counters | u64::MAX << Wide::PACKETS_SHIFT,
            wide_transport,
        }
    }
}

/// The fields of a narrow slot.
pub struct Narrow;

impl Narrow {
    /// Bits of an IPv6 address, from its first on.
    pub const IPV6_ADDRESS_BITS: u32 = 48;

    /// Where the traffic class begins in word 1.
    pub const TRAFFIC_CLASS_SHIFT: u32 = 32;
    const VLAN_SHIFT: u32 = 40;
    const SELECTOR_SHIFT: u32 = 53;
    /// Bits of the selector in word 1.
    pub const SELECTOR_BITS: u32 = 11;

    /// Where the protocol begins in word 2.
    pub const PROTOCOL_SHIFT: u32 = 2;
    /// Where the interface begins in word 2.
    pub const INTERFACE_SHIFT: u32 = 10;
    /// Where the control bits begin.
    pub const CONTROL_BITS_SHIFT: u32 = 15;
    /// In word 2: the flow is IPv6.
    pub const IPV6: u64 = 1 << 27;
    /// Where the octets begin in word 2.
    pub const OCTETS_SHIFT: u32 = 28;
    /// The upper bit of the octets closes the slot.
    pub const CLOSED: u64 = 1 << 63;

    /// Bits of each time in word 3.
    pub const TIME_BITS: u32 = 16;
    /// Where the packets begin in word 3.
    pub const PACKETS_SHIFT: u32 = 32;

    /// The bits of word 2 in which flows differ.
    pub const KEY: u64 = Self::MARKS_AND_KEY | Self::CLOSED;
    const MARKS_AND_KEY: u64 = USED | WIDE | 0x1fff << Self::PROTOCOL_SHIFT | Self::IPV6;
    /// The control bits in word 2.
    pub const CONTROL_BITS: u64 = 0xfff << Self::CONTROL_BITS_SHIFT;
    /// The octets in word 2.
    pub const OCTETS: u64 = u64::MAX << Self::OCTETS_SHIFT;
    /// The last time in word 3.
    pub const LAST: u64 = 0xffff << Self::TIME_BITS;
    /// The packets in word 3. A packet has 20 octets or more: the octets close the slot before these bits end.
    pub const PACKETS: u64 = 0x7fff_ffff << Self::PACKETS_SHIFT;
    /// One packet in word 3.
    pub const ONE_PACKET: u64 = 1 << Self::PACKETS_SHIFT;
    /// In word 3: the slot lies in the second group of its flow.
    pub const DISPLACED: u64 = 1 << 63;

    /// The protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(slot: &[u64; 2 * HALF_WORDS]) -> u8 {
        (slot[2] >> Self::PROTOCOL_SHIFT) as u8
    }

    /// A selector in its place in word 1.
    #[inline(always)]
    #[must_use]
    pub const fn selector(selector: u32) -> u64 {
        (selector as u64) << Self::SELECTOR_SHIFT
    }

    /// Octets in their place in word 2.
    #[inline(always)]
    #[must_use]
    pub const fn octets(octets: u32) -> u64 {
        (octets as u64) << Self::OCTETS_SHIFT
    }

    /// Whether the flow is stored as IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6(slot: &[u64; 2 * HALF_WORDS]) -> bool {
        slot[2] & Self::IPV6 != 0
    }

    /// Whether a packet that is stored as IPv4 fits in a narrow slot.
    #[inline(always)]
    #[must_use]
    pub const fn holds_ipv4(tuple: &Tuple, count: &Count) -> bool {
        tuple.tags().0 & Tags::CUSTOMER_VLAN.0
            | tuple.selector >> Self::SELECTOR_BITS
            | (count.first | count.last) >> Self::TIME_BITS
            == 0
    }

    /// Whether a packet under [`Ipv6Form::NARROW`] fits in a narrow slot.
    #[inline(always)]
    #[must_use]
    pub const fn holds_ipv6(count: &Count) -> bool {
        (count.first | count.last) >> Self::TIME_BITS == 0
    }

    /// The first VLAN tag in its place in word 1.
    #[inline(always)]
    #[must_use]
    pub const fn vlan(tags: Tags) -> u64 {
        let tags = tags.0 as u64;
        (tags & 0xfff | tags >> 24 << 12 & 1 << 12) << Self::VLAN_SHIFT
    }

    /// The slot of one packet that is stored as IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(tuple: &Tuple, count: &Count) -> [u64; HALF_WORDS] {
        let transport = tuple.transport & 0xffff_ffff
            | (tuple.kind as u64 >> 8) << Self::TRAFFIC_CLASS_SHIFT
            | Self::vlan(tuple.tags())
            | Self::selector(tuple.selector);
        [tuple.addresses[0], transport, Self::marks(tuple, count), Self::times(count)]
    }

    /// The slot of one packet under [`Ipv6Form::NARROW`].
    #[inline(always)]
    #[must_use]
    pub const fn ipv6(tuple: &Tuple, count: &Count) -> [u64; HALF_WORDS] {
        let [source, _, destination, _] = tuple.addresses;
        let version = if tuple.tags().is_ipv6() { Self::IPV6 } else { 0 };
        [
            source | destination << Self::IPV6_ADDRESS_BITS,
            tuple.transport & 0xffff_ffff | destination >> 16 << 32,
            Self::marks(tuple, count) | version,
            Self::times(count),
        ]
    }

    #[inline(always)]
    const fn marks(tuple: &Tuple, count: &Count) -> u64 {
        USED | ((tuple.kind & 0xff) as u64) << Self::PROTOCOL_SHIFT
            | (tuple.tags().interface() as u64) << Self::INTERFACE_SHIFT
            | (count.control_bits as u64) << Self::CONTROL_BITS_SHIFT
            | count.octets << Self::OCTETS_SHIFT
    }

    #[inline(always)]
    const fn times(count: &Count) -> u64 {
        count.first as u64 | (count.last as u64) << Self::TIME_BITS | Self::ONE_PACKET
    }

    /// Number of different [`Self::kind`]s.
    pub const KINDS: usize = 1 << 14;

    /// The protocol, the interface and the IP version of a slot in one number.
    #[inline(always)]
    #[must_use]
    pub const fn kind(half: &Half) -> usize {
        let marks = half.0[2];
        (marks >> Self::PROTOCOL_SHIFT & 0x1fff | (marks & Self::IPV6) >> 14) as usize
    }

    /// Interface, IPv6 or not, and protocol of a [`Self::kind`].
    #[must_use]
    pub const fn parts_of(kind: usize) -> (u32, bool, u8) {
        (kind as u32 >> 8 & 0x1f, kind >> 13 != 0, kind as u8)
    }

    /// Whether the slot lies in the second group of its flow.
    #[must_use]
    pub const fn is_displaced(half: &Half) -> bool {
        half.0[3] & Self::DISPLACED != 0
    }

    /// Whether the flow may have a further slot, because this one's counts are near their end.
    #[must_use]
    pub const fn is_closed(half: &Half) -> bool {
        half.0[2] & Self::CLOSED != 0
    }

    /// What tells the flows of narrow slots apart.
    #[must_use]
    pub const fn key(half: &Half) -> [u64; 3] {
        let [addresses, transport, marks, _] = half.0;
        [addresses, transport, marks & Self::MARKS_AND_KEY]
    }

    /// Adds what another slot of the same flow counted. Returns `false`, and adds nothing, if the sum would not fit.
    #[must_use]
    pub const fn absorb(half: &mut Half, other: &Half) -> bool {
        let [.., marks, times] = &mut half.0;
        let [.., other_marks, other_times] = other.0;
        let (sum, is_too_large) = marks.overflowing_add(other_marks & Self::OCTETS);
        let packets = (*times & Self::PACKETS) + (other_times & Self::PACKETS);
        if is_too_large || packets & !Self::PACKETS != 0 {
            return false;
        }
        *marks = sum | other_marks & Self::CONTROL_BITS;
        let (first, other_first) = (*times & 0xffff, other_times & 0xffff);
        let (last, other_last) = (*times & Self::LAST, other_times & Self::LAST);
        *times = packets
            | *times & Self::DISPLACED
            | if first < other_first { first } else { other_first }
            | if last > other_last { last } else { other_last };
        true
    }

    /// What a narrow slot says.
    #[inline(always)]
    #[must_use]
    pub const fn counted(half: &Half) -> Counted {
        let [addresses, transport, marks, times] = half.0;
        let ports = transport & 0xffff_ffff;
        let protocol = (marks >> Self::PROTOCOL_SHIFT & 0xff) as u16;
        let tags = Tags::NONE.with_interface((marks >> Self::INTERFACE_SHIFT & 0x1f) as u32);
        let tuple = if marks & Self::IPV6 != 0 {
            let destination = addresses >> Self::IPV6_ADDRESS_BITS | transport >> 32 << 16;
            Tuple {
                addresses: [addresses & ((1 << Self::IPV6_ADDRESS_BITS) - 1), 0, destination, 0],
                transport: ports | (tags.with_ipv6().0 as u64) << 32,
                kind: protocol,
                selector: 0,
            }
        } else {
            let vlan = transport >> Self::VLAN_SHIFT;
            let vlan = vlan & 0xfff | (vlan >> 12 & 1) << 24;
            Tuple {
                addresses: [addresses, 0, 0, 0],
                transport: ports | (tags.0 as u64 | vlan) << 32,
                kind: protocol | (transport >> Self::TRAFFIC_CLASS_SHIFT << 8) as u16,
                selector: (transport >> Self::SELECTOR_SHIFT) as u32,
            }
        };
        Counted {
            tuple,
            control_bits: (marks >> Self::CONTROL_BITS_SHIFT & 0xfff) as u16,
            packets: (times & Self::PACKETS) >> Self::PACKETS_SHIFT,
            octets: marks >> Self::OCTETS_SHIFT,
            first: (times & 0xffff) as u32,
            last: (times >> Self::TIME_BITS & 0xffff) as u32,
        }
    }
}

impl Half {
    /// Whether nothing is in the half.
    #[inline(always)]
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.0[2] & USED == 0
    }

    /// Whether the half is part of a wide slot.
    #[inline(always)]
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        self.0[2] & WIDE != 0
    }
}

impl Counted {
    /// One packet of a flow.
    #[must_use]
    pub const fn one(tuple: Tuple, count: Count) -> Self {
        let Count { octets, control_bits, first, last } = count;
        Self { tuple, control_bits, packets: 1, octets, first, last }
    }
}

#[cfg(test)]
mod tests;
