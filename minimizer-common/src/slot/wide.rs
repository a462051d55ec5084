//! The fields of a wide slot.

use crate::slot::{Count, Counted, HALF_WORDS, Half, Line, Narrow, USED, WIDE};
use crate::tuple::{Tags, Tuple};

/// The fields of a wide slot.
pub struct Wide;

impl Wide {
    /// Where the octets begin in word 2.
    pub const OCTETS_SHIFT: u32 = 2;
    const SELECTOR_SHIFT: u32 = 44;
    /// Where protocol and traffic class begin in word 6.
    pub const KIND_SHIFT: u32 = 2;
    /// Where the control bits begin.
    pub const CONTROL_BITS_SHIFT: u32 = 18;
    /// In word 6: the slot lies in the second group of its flow.
    pub const DISPLACED: u64 = 1 << 30;
    /// Where the packets begin in word 6.
    pub const PACKETS_SHIFT: u32 = 32;
    const MARKS: u64 = USED | WIDE;

    /// The upper bit of the octets closes the slot.
    pub const OCTETS_CLOSED: u64 = 1 << (Self::SELECTOR_SHIFT - 1);
    /// The upper bit of the packets closes the slot.
    pub const PACKETS_CLOSED: u64 = 1 << 63;
    /// The bits of word 2 in which flows differ, without the selector.
    pub const KEY: u64 = Self::MARKS | Self::OCTETS_CLOSED;
    /// The selector in word 2.
    pub const SELECTOR: u64 = u64::MAX << Self::SELECTOR_SHIFT;
    /// The octets in word 2.
    pub const OCTETS: u64 = !(Self::SELECTOR | Self::MARKS);
    /// The bits of word 6 in which flows differ.
    pub const KIND: u64 = Self::MARKS | 0xffff << Self::KIND_SHIFT | Self::PACKETS_CLOSED;
    /// The control bits in word 6.
    pub const CONTROL_BITS: u64 = 0xfff << Self::CONTROL_BITS_SHIFT;
    /// The last time in word 3.
    pub const LAST: u64 = 0xffff_ffff << 32;
    /// The packets in word 6.
    pub const PACKETS: u64 = u64::MAX << Self::PACKETS_SHIFT;
    /// One packet in word 6.
    pub const ONE_PACKET: u64 = 1 << Self::PACKETS_SHIFT;

    /// The protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(slot: &[u64; 2 * HALF_WORDS]) -> u8 {
        (slot[6] >> Self::KIND_SHIFT) as u8
    }

    /// Whether the flow is stored as IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6(slot: &[u64; 2 * HALF_WORDS]) -> bool {
        Tags((slot[7] >> 32) as u32).is_ipv6()
    }

    /// A selector in its place in word 2.
    #[inline(always)]
    #[must_use]
    pub const fn selector(selector: u32) -> u64 {
        (selector as u64) << Self::SELECTOR_SHIFT
    }

    /// The slot of one packet.
    #[inline(always)]
    #[must_use]
    pub const fn of(tuple: &Tuple, count: &Count) -> [u64; 2 * HALF_WORDS] {
        let [source, source_end, destination, destination_end] = tuple.addresses;
        [
            source,
            source_end,
            Self::MARKS | count.octets << Self::OCTETS_SHIFT | Self::selector(tuple.selector),
            count.first as u64 | (count.last as u64) << 32,
            destination,
            destination_end,
            Self::MARKS
                | (tuple.kind as u64) << Self::KIND_SHIFT
                | (count.control_bits as u64) << Self::CONTROL_BITS_SHIFT
                | Self::ONE_PACKET,
            tuple.transport,
        ]
    }

    /// The slot of many packets. `None` if their counts do not fit.
    #[must_use]
    pub const fn of_many(counted: &Counted) -> Option<Line> {
        let Counted { tuple, control_bits, packets, octets, first, last } = *counted;
        if octets > Self::OCTETS >> Self::OCTETS_SHIFT || packets > u32::MAX as u64 {
            return None;
        }
        let count = Count { octets, control_bits, first, last };
        let [a, b, c, d, e, f, counters, transport] = Self::of(&tuple, &count);
        let counters = counters & !(u64::MAX << Self::PACKETS_SHIFT) | packets << Self::PACKETS_SHIFT;
        Some(Line([Half([a, b, c, d]), Half([e, f, counters, transport])]))
    }

    /// Whether the slot lies in the second group of its flow.
    #[must_use]
    pub const fn is_displaced(line: &Line) -> bool {
        line.0[1].0[2] & Self::DISPLACED != 0
    }

    /// Whether the flow may have a further slot, because this one's counts are near their end.
    #[must_use]
    pub const fn is_closed(line: &Line) -> bool {
        line.0[0].0[2] & Self::OCTETS_CLOSED | line.0[1].0[2] & Self::PACKETS_CLOSED != 0
    }

    /// Whether the flow may have a narrow slot, too: a narrow one would hold its key, and it is in a wide one because its
    /// times no longer fit.
    #[must_use]
    pub const fn may_be_narrow_too(line: &Line) -> bool {
        let [Half([source, source_end, volume, times]), Half([destination, destination_end, _, transport])] =
            line.0;
        let times_fit =
            (times | times >> 32) & u32::MAX as u64 >> Narrow::TIME_BITS << Narrow::TIME_BITS == 0;
        let beyond = u64::MAX << Narrow::IPV6_ADDRESS_BITS;
        let is_short = source_end | destination_end | (source | destination) & beyond == 0;
        let tags = (transport >> 32) as u32;
        !times_fit
            && tags & Tags::CUSTOMER_VLAN.0 == 0
            && volume >> Self::SELECTOR_SHIFT >> Narrow::SELECTOR_BITS == 0
            && (!Tags(tags).is_ipv6() || is_short)
    }

    /// What tells the flows of wide slots apart.
    #[must_use]
    pub const fn key(line: &Line) -> [u64; 7] {
        let [
            Half([source, source_end, volume, _]),
            Half([destination, destination_end, counters, transport]),
        ] = line.0;
        let kind = counters & 0xffff << Self::KIND_SHIFT;
        [source, source_end, volume & Self::SELECTOR, destination, destination_end, kind, transport]
    }

    /// Adds what another slot of the same flow counted. Returns `false`, and adds nothing, if the sum would not fit.
    #[must_use]
    pub const fn absorb(line: &mut Line, other: &Line) -> bool {
        let [Half([.., volume, times]), Half([_, _, counters, _])] = &mut line.0;
        let [Half([.., other_volume, other_times]), Half([_, _, other_counters, _])] = other.0;
        let octets = (*volume & Self::OCTETS) + (other_volume & Self::OCTETS);
        let (packets, is_too_many) = counters.overflowing_add(other_counters >> 32 << 32);
        if octets & !Self::OCTETS != 0 || is_too_many {
            return false;
        }
        *volume = *volume & !Self::OCTETS | octets;
        *counters = packets | other_counters & Self::CONTROL_BITS;
        let (first, other_first) = (*times & 0xffff_ffff, other_times & 0xffff_ffff);
        let (last, other_last) = (*times & Self::LAST, other_times & Self::LAST);
        *times = if first < other_first { first } else { other_first }
            | if last > other_last { last } else { other_last };
        true
    }

    /// What a wide slot says.
    #[inline(always)]
    #[must_use]
    pub const fn counted(line: &Line) -> Counted {
        let [
            Half([source, source_end, volume, times]),
            Half([destination, destination_end, counters, transport]),
        ] = line.0;
        Counted {
            tuple: Tuple {
                addresses: [source, source_end, destination, destination_end],
                transport,
                kind: (counters >> Self::KIND_SHIFT) as u16,
                selector: (volume >> Self::SELECTOR_SHIFT) as u32,
            },
            control_bits: (counters >> Self::CONTROL_BITS_SHIFT & 0xfff) as u16,
            packets: counters >> Self::PACKETS_SHIFT,
            octets: (volume & Self::OCTETS) >> Self::OCTETS_SHIFT,
            first: (times & 0xffff_ffff) as u32,
            last: (times >> 32) as u32,
        }
    }
}
