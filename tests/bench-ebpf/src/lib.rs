//! What the bench and its kernel programs both know: names, layouts, where the headers lie.
#![no_std]

/// Entries in the schedule: a power of two.
pub const SCHEDULE_ENTRIES: u32 = 1 << 22;

/// Where a wrapper writes the next flow's source address and ports, and the word around the address.
///
/// It stores eight octets at `address`, of which the source address is the part at `source`, since
/// the parsers load eight: a load from a narrower store would wait for the store to leave the core.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Offset of the eight octets in the frame.
    pub address: usize,
    /// The other four octets of the eight, as a native word with zeroes for the source address.
    pub rest: u64,
    /// Shift of the source address in that word.
    pub shift: u32,
    /// Offset of the ports in the frame.
    pub ports: usize,
}

/// Destination address of the bench's IPv4 packets.
pub const IPV4_DESTINATION: [u8; 4] = [198, 51, 100, 7];
/// Octets 8 to 12 of the source address of the bench's IPv6 packets.
pub const IPV6_SOURCE_MIDDLE: [u8; 4] = [0x02, 0x00, 0x5e, 0x10];

/// Ethernet, IPv4 without options, TCP or UDP: source and destination lie together.
pub const IPV4: Layout = Layout {
    address: 14 + 12,
    rest: (u32::from_ne_bytes(IPV4_DESTINATION) as u64) << 32,
    shift: 0,
    ports: 14 + 20,
};

/// Ethernet, IPv6 without extension headers, TCP or UDP: the lower half of the source address.
pub const IPV6: Layout = Layout {
    address: 14 + 16,
    rest: u32::from_ne_bytes(IPV6_SOURCE_MIDDLE) as u64,
    shift: 32,
    ports: 14 + 40,
};

/// The key of both hash tables.
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

/// What the per-CPU hash counts for a flow.
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

/// What the shared hash counts for a flow, behind its lock of four octets.
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

const _: () = {
    assert!(size_of::<Key>() == 40);
    assert!(size_of::<PerCpuValue>() == 40);
    assert!(size_of::<SharedValue>() == 40);
    assert!(size_of::<Line>() == 64);
};
