//! What the policy in force leaves of a packet, as constants of the program.
//!
//! Arrays are by side (0 source, 1 destination) and class of the address
//! ([`crate::tables::CLASS_FOREIGN`], [`crate::tables::CLASS_DOMESTIC`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::tables::Tables;

/// What is done with a packet: without a step no instruction of it is in the loaded program.
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
    SCOPE = 0: "Directions are compared with those that may be collected.";
    SELECT = 1: "One indicator must match.";
    TRIE = 2: "Classes or indicators are looked up by prefix.";
    HOSTS_IPV4 = 3: "Indicators are looked up by single IPv4 address.";
    ANY = 4: "Indicators are looked up by port and protocol.";
    SELECTOR = 5: "The number of the indicator is stored.";
    IPV4 = 6: "Of IPv4 addresses less than all is stored.";
    IPV6 = 7: "Of IPv6 addresses less than all is stored.";
    PSEUDONYMS = 8: "Some addresses become pseudonyms.";
    PORTS = 9: "Of ports, types and codes less than all is stored.";
    TAGS = 10: "Of VLAN identifiers, interface and IP version less than all is stored.";
    KIND = 11: "Of protocol, traffic class and control bits less than all is stored.";
    NO_TIME = 12: "No time is stored.";
    NO_START = 13: "The time of the first packet is not stored.";
    NO_END = 14: "The time of the last packet is not stored.";
    NO_IPV4 = 15: "No address of an IPv4 packet is read.";
    NO_IPV6 = 16: "No address of an IPv6 packet is read.";
    NO_PORTS = 17: "No port is read.";
    NO_TRAFFIC_CLASS = 18: "No traffic class is read.";
    NO_CONTROL_BITS = 19: "No TCP control bits are read.";
    HOSTS_IPV6 = 23: "Indicators are looked up by single IPv6 address.";
    NO_TAGS = 22: "No VLAN identifier, interface and IP version is stored.";
    CLASSES = 21: "More is stored of addresses of one class than of those of another.";
    NO_ICMP = 24: "No type or code is read.";
    NO_TRANSPORT = 20: "The word of ports and tags is zero.";
}

impl Steps {
    /// No step: everything is stored as it is.
    pub const NONE: Self = Self(0);

    /// The steps of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of the steps is among these.
    #[inline(always)]
    #[must_use]
    pub const fn intersects(self, steps: Self) -> bool {
        self.0 & steps.0 != 0
    }
}

/// What the program keeps of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// Bits kept of an IPv6 address, in memory order, by side and class.
    pub ipv6_masks: [[[u64; 2]; 2]; 2],
    /// Bits kept of the IPv4 addresses of a packet, in memory order, by class: of the source in the lower half, of the
    /// destination in the upper half.
    pub ipv4_masks: [u64; 2],
    /// [`Steps`].
    pub steps: u32,
    /// Sides and classes whose IPv4 addresses become pseudonyms: bit `2 * side + class`.
    pub ipv4_pseudonyms: u32,
    /// The same for IPv6 addresses.
    pub ipv6_pseudonyms: u32,
    /// By side: ports from this one on are stored as 0; 65,536 keeps all, 0 none.
    pub ports_below: [u32; 2],
    /// By side: whether (1) or not (0) a port becomes the first of its class.
    pub port_classes: [u32; 2],
    /// Bits kept of type (0..8) and code (16..24) of ICMP, and of ICMPv6.
    pub icmp_masks: [u32; 2],
    /// Bits kept of [`crate::tuple::Tags`].
    pub tags_mask: u32,
    /// Bits kept of [`crate::tuple::Tuple::kind`], in bits 0..16, and of the control bits, in bits 16..28.
    pub kind_mask: u32,
    /// Unused, zero.
    pub reserved: u32,
    /// The tables of the policy.
    pub tables: Tables,
}

impl Plan {
    /// Everything is stored as it is.
    pub const EXACT: Self = Self {
        ipv6_masks: [[[u64::MAX; 2]; 2]; 2],
        ipv4_masks: [u64::MAX; 2],
        steps: 0,
        ipv4_pseudonyms: 0,
        ipv6_pseudonyms: 0,
        ports_below: [65_536; 2],
        port_classes: [0; 2],
        icmp_masks: [u32::MAX; 2],
        tags_mask: u32::MAX,
        kind_mask: u32::MAX,
        reserved: 0,
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
        },
    };
}

/// First four bits of the IPv4 addresses that pseudonyms look like: 240.0.0.0/4, which nobody has (RFC 1112).
pub const IPV4_PSEUDONYM: [u8; 4] = [0xf0, 0, 0, 0];
/// Bits of a pseudonym in such an address.
pub const IPV4_PSEUDONYM_BITS: u32 = 28;
/// First eight octets of the IPv6 addresses that pseudonyms look like: a unique local prefix (RFC 4193), with "minimiz"
/// behind its first octet.
pub const IPV6_PSEUDONYM: [u8; 8] = *b"\xfdminimiz";

const _: () = assert!(size_of::<Plan>().is_multiple_of(8));
