//! What the bench and its kernel programs both know: names, layouts, where the headers lie.
#![no_std]

/// Entries in the schedule: a power of two.
pub const SCHEDULE_ENTRIES: u32 = 1 << 22;

/// Where a wrapper writes the next flow's source address and ports, and the word around the address.
///
/// It stores eight octets at `address`, of which the source address is the part at `shift`, since
/// the parsers load eight: a load from a narrower store would wait for the store to leave the core.
/// Four whole words, because it is a constant of the wrapper that the bench sets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Layout {
    /// Offset of the eight octets in the frame.
    pub address: u64,
    /// The other four octets of the eight, as a native word with zeroes for the source address.
    pub rest: u64,
    /// Shift of the source address in that word.
    pub shift: u64,
    /// Offset of the ports in the frame.
    pub ports: u64,
}

impl Layout {
    /// The words, in the order of the fields.
    #[must_use]
    pub const fn words(self) -> [u64; 4] {
        [self.address, self.rest, self.shift, self.ports]
    }

    /// The layout of which [`Self::words`] are the words.
    #[inline(always)]
    #[must_use]
    pub const fn of(words: [u64; 4]) -> Self {
        let [address, rest, shift, ports] = words;
        Self { address, rest, shift, ports }
    }

    /// The eight octets at `address` for an entry of the schedule.
    #[inline(always)]
    #[must_use]
    pub const fn address_word(&self, entry: u64) -> u64 {
        self.rest | (entry & 0xffff_ffff) << (self.shift & 63)
    }
}

/// The key of every hash table.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Key {
    /// As in `minimizer_common::tuple::Tuple`.
    pub addresses: [u64; 4],
    /// Source and destination port.
    pub ports: u32,
    /// Outermost VLAN identifier.
    pub vlan_id: u16,
    /// Protocol number.
    pub protocol: u8,
    /// Type of service or traffic class.
    pub traffic_class: u8,
}

/// What the per-CPU hash and the hash that is updated in place count for a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PerCpuValue {
    /// Packets.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
    /// Monotonic clock at the first packet.
    pub first_ns: u64,
    /// Monotonic clock at the latest packet.
    pub last_ns: u64,
    /// OR of the TCP control bits.
    pub control_bits: u64,
}

/// What the shared hash and those on the TC hook count for a flow, behind its lock of four octets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SharedValue {
    /// The lock, which reads as zero from user space.
    pub lock: u32,
    /// OR of the TCP control bits.
    pub control_bits: u32,
    /// Packets.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
    /// Monotonic clock at the first packet.
    pub first_ns: u64,
    /// Monotonic clock at the latest packet.
    pub last_ns: u64,
}

/// Packets of a burst.
pub const BURST_PACKETS: usize = 16;

/// A packet that is not yet accounted for, in a cache line.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pending {
    /// Its flow.
    pub key: Key,
    /// Monotonic clock when it arrived.
    pub now_ns: u64,
    /// Its IP octets.
    pub octets: u32,
    /// Its TCP control bits.
    pub control_bits: u32,
    /// Unused.
    pub reserved: u64,
}

/// The packets of a CPU that are not yet accounted for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Burst {
    /// How many, from the first place on: less than [`BURST_PACKETS`].
    pub count: u64,
    /// Unused, so that each packet has a line.
    pub reserved: [u64; 7],
    /// The packets.
    pub packets: [Pending; BURST_PACKETS],
}

/// One cache line of the floor's array, which the kernel aligns to a page, or the counter of the parser alone.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Line {
    /// Packets.
    pub packets: u64,
    /// Their IP octets.
    pub octets: u64,
    /// Every parsed field is folded in here, so that none of the parser is optimized away.
    pub fold: u64,
    /// Unused.
    pub reserved: [u64; 5],
}

/// An IPv4 flow in half a cache line; all zero when free.
///
/// What it cannot hold: IPv6; more than 4 GiB in an interval; times of more than 16 bits, which are 18
/// hours of seconds. A sum of octets beyond its bits would run into the times unnoticed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct HalfSlot {
    /// Both addresses.
    pub addresses: u64,
    /// As in `minimizer_common::tuple::Tuple`.
    pub transport: u64,
    /// As in `minimizer_common::tuple::Slot`.
    pub counters: u64,
    /// IP octets in bits 0..32, first and last time in bits 32..48 and 48..64.
    pub octets_and_times: u64,
}

/// Slots in a line.
pub const HALF_WAYS: usize = 2;

/// One cache line of [`HalfSlot`]s.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct HalfLine(pub [HalfSlot; HALF_WAYS]);

const _: () = {
    assert!(size_of::<Key>() == 40);
    assert!(size_of::<PerCpuValue>() == 40);
    assert!(size_of::<SharedValue>() == 40);
    assert!(size_of::<Pending>() == 64);
    assert!(size_of::<Burst>() == 64 * (1 + BURST_PACKETS));
    assert!(size_of::<Line>() == 64);
    assert!(size_of::<HalfLine>() == 64);
};
