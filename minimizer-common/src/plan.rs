//! The policy in force, as constants of the program: what the program keeps of a packet.
//!
//! Arrays are indexed by side (0 source, 1 destination) and by class of the address
//! ([`crate::tables::CLASS_FOREIGN`], [`crate::tables::CLASS_DOMESTIC`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tables::Tables;

/// The steps that the program takes. The verifier removes the instructions of every other step from the
/// loaded program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps(pub u32);

macro_rules! steps {
    ($($name:ident = $bit:literal: $doc:literal;)+) => {
        impl Steps {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)+
        }
    };
}

steps! {
    SCOPE = 0: "Compare the packet's direction with the directions that the policy collects.";
    SELECT = 1: "Count the packet only if an indicator matches.";
    TRIE = 2: "Look up classes or indicators by prefix.";
    HOSTS_IPV4 = 3: "Look up indicators by single IPv4 address.";
    ANY = 4: "Look up indicators by port and protocol.";
    SELECTOR = 5: "Store the number of the indicator.";
    IPV4 = 6: "Store a part of IPv4 addresses, or a pseudonym.";
    IPV6 = 7: "Store a part of IPv6 addresses, or a pseudonym.";
    PSEUDONYMS = 8: "Replace some addresses by pseudonyms.";
    PORTS = 9: "Store a part of ports, types and codes.";
    TAGS = 10: "Store a part of VLAN identifiers, interface and IP version.";
    KIND = 11: "Store a part of protocol, traffic class and control bits.";
    NO_TIME = 12: "Store no time.";
    NO_START = 13: "Do not store the time of the first packet.";
    NO_END = 14: "Do not store the time of the last packet.";
    NO_IPV4 = 15: "Read no address of an IPv4 packet.";
    NO_IPV6 = 16: "Read no address of an IPv6 packet.";
    NO_PORTS = 17: "Read no port.";
    NO_TRAFFIC_CLASS = 18: "Read no traffic class.";
    NO_CONTROL_BITS = 19: "Read no TCP control bits.";
    HOSTS_IPV6 = 23: "Look up indicators by single IPv6 address.";
    NO_TAGS = 22: "Store no VLAN identifier, no interface and no IP version.";
    CLASSES = 21: "Store more of the addresses of one class than of those of the other.";
    NO_ICMP = 24: "Read no ICMP type or code.";
    RANKS = 25: "Make pseudonyms of the ranks that IPv4 addresses have among the domestic ones.";
    RESERVED_IPV4 = 26: "Collect no packet with an IPv4 address that looks like a pseudonym.";
    ENDPOINTS = 28: "Tell the endpoints of the network's own tunnels from the parties of a communication.";
    RESERVED_IPV6 = 27: "Collect no packet with an IPv6 address that looks like a pseudonym.";
    NO_TRANSPORT = 20: "Leave the word of ports and tags zero.";
}

impl Steps {
    /// No step: the program stores everything as it is.
    pub const NONE: Self = Self(0);

    /// Steps for which more than the packet itself must be known.
    pub const JUDGING: Self = Self::SCOPE
        .union(Self::SELECT)
        .union(Self::PSEUDONYMS)
        .union(Self::CLASSES)
        .union(Self::RESERVED_IPV4)
        .union(Self::RESERVED_IPV6);
    /// Steps that leave fields of a packet with ports unread.
    pub const UNREAD: Self = Self::NO_IPV4
        .union(Self::NO_IPV6)
        .union(Self::NO_PORTS)
        .union(Self::NO_TRAFFIC_CLASS)
        .union(Self::NO_CONTROL_BITS);
    /// Steps that store less of a packet with ports than the program reads.
    pub const MASKING: Self = Self::IPV4
        .union(Self::IPV6)
        .union(Self::PORTS)
        .union(Self::TAGS)
        .union(Self::NO_TAGS)
        .union(Self::KIND)
        .union(Self::NO_TIME)
        .union(Self::NO_START)
        .union(Self::NO_END);

    /// The steps of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two sets have a step in common.
    #[inline(always)]
    #[must_use]
    pub const fn intersects(self, steps: Self) -> bool {
        self.0 & steps.0 != 0
    }
}

/// The most prefixes of tunnel endpoints, of each IP version.
pub const ENDPOINTS_MAX: usize = 16;
/// In [`Plan::ipv4_endpoints`]: no prefix. No masked address is that.
pub const NO_IPV4_ENDPOINT: [u32; 2] = [0, 1];
/// In [`Plan::ipv6_endpoints`]: no prefix.
pub const NO_IPV6_ENDPOINT: [u64; 4] = [0, 0, 1, 0];

/// Places of listed ports of each side: so many more than ports that a multiplier is found under which no two have one place.
pub const LISTED_PLACES: usize = 128;

/// The place of a port among those that are listed.
#[inline(always)]
#[must_use]
pub const fn listed_place(multiplier: u32, port: u32) -> usize {
    (port.wrapping_mul(multiplier) >> (u32::BITS - LISTED_PLACES.ilog2())) as usize
}

/// What the program keeps of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// Bits kept of an IPv6 address, in memory order, by side and class.
    pub ipv6_masks: [[[u64; 2]; 2]; 2],
    /// Bits kept of the IPv4 addresses of a packet, in memory order, by class. The lower half masks the
    /// source, the upper half the destination.
    pub ipv4_masks: [u64; 2],
    /// [`Steps`].
    pub steps: u32,
    /// Sides and classes whose IPv4 addresses become pseudonyms: bit `2 * side + class`.
    pub ipv4_pseudonyms: u32,
    /// Sides and classes whose IPv6 addresses become pseudonyms: bit `2 * side + class`.
    pub ipv6_pseudonyms: u32,
    /// By side: the first port that is not kept, unless it is listed. 65,536 keeps every port, 0 keeps none.
    pub ports_below: [u32; 2],
    /// By side: what is stored in place of a registered port that is not kept, and of a dynamic one.
    pub port_classes: [[u32; 2]; 2],
    /// By side: what finds a port in [`Self::listed_ports`] by [`listed_place`]; 0 if none is listed.
    pub listed_multipliers: [u32; 2],
    /// By side: ports that are kept, each in its place, and zeroes.
    pub listed_ports: [[u16; LISTED_PLACES]; 2],
    /// Bits kept of the type (bits 0..8) and the code (bits 16..24), of ICMP and of ICMPv6.
    pub icmp_masks: [u32; 2],
    /// Bits kept of [`crate::tuple::Tags`].
    pub tags_mask: u32,
    /// Bits kept of [`crate::tuple::Tuple::kind`] (in bits 0..16) and of the control bits (in bits 16..28).
    pub kind_mask: u32,
    /// A [`crate::slot::Ipv6Form`].
    pub ipv6_form: u32,
    /// Prefixes of IPv4 addresses at which the network's own tunnels end, in memory order: the mask, then the masked address.
    pub ipv4_endpoints: [[u32; 2]; ENDPOINTS_MAX],
    /// The same of IPv6: two words of mask, then two of the address.
    pub ipv6_endpoints: [[u64; 4]; ENDPOINTS_MAX],
    /// Bits kept of a packet with ports in the words of its slot.
    pub slot_masks: crate::slot::Masks,
    /// The tables of the policy.
    pub tables: Tables,
}

impl Plan {
    /// The program stores everything as it is.
    pub const EXACT: Self = Self {
        ipv6_masks: [[[u64::MAX; 2]; 2]; 2],
        ipv4_masks: [u64::MAX; 2],
        steps: 0,
        ipv4_pseudonyms: 0,
        ipv6_pseudonyms: 0,
        ports_below: [65_536; 2],
        port_classes: [[0; 2]; 2],
        listed_multipliers: [0; 2],
        listed_ports: [[0; LISTED_PLACES]; 2],
        icmp_masks: [u32::MAX; 2],
        tags_mask: u32::MAX,
        kind_mask: u32::MAX,
        ipv6_form: 0,
        ipv4_endpoints: [NO_IPV4_ENDPOINT; ENDPOINTS_MAX],
        ipv6_endpoints: [NO_IPV6_ENDPOINT; ENDPOINTS_MAX],
        slot_masks: crate::slot::Masks::of(u32::MAX, u32::MAX, true, true),
        tables: Tables {
            multiplier: 0,
            filter: 0,
            filter_mask: 0,
            ipv4_hosts: 0,
            ipv4_hosts_mask: 0,
            ipv6_hosts: 0,
            ipv6_hosts_mask: 0,
            any: 0,
            directions: 0,
            ranks: 0,
            reserved: 0,
        },
    };
}

/// The first four bits of an IPv4 pseudonym. It lies in 240.0.0.0/4, which is reserved (RFC 1112): no host
/// has such an address.
pub const IPV4_PSEUDONYM: [u8; 4] = [0xf0, 0, 0, 0];
/// Bits of the number in an IPv4 pseudonym.
pub const IPV4_PSEUDONYM_BITS: u32 = 2 * crate::permutation::HALF_BITS;
/// The first eight octets of an IPv6 pseudonym: a unique local prefix (RFC 4193), 0xfd and the letters
/// "minimiz".
pub const IPV6_PSEUDONYM: [u8; 8] = *b"\xfdminimiz";

const _: () = assert!(size_of::<Plan>().is_multiple_of(8));
