//! Tables of a policy: which class an address has, and which indicators an endpoint matches.
//!
//! All of them lie in one read-only array of [`Node`]s, each of 256 words:
//!
//! ```text
//! | 256 nodes: IPv4 root | 256 nodes: IPv6 root | trie nodes | filter | IPv4 hosts | IPv6 hosts | any address | lists |
//! ```
//! A *trie* of strides of 8 bits gives every address a [`Leaf`]: the root's node is chosen by the address's
//! first octet, the word in it by the second; a word with [`POINTER`] names the node in which the next octet
//! chooses. Equal nodes of a trie are one. Indicators of single hosts are in hash tables, since each would take nodes of its own; a *filter*
//! of bits says of most addresses that they are in neither. An indicator that names no address is found by
//! port or protocol. All of these lead to *lists* of [`Entry`]s, of which the first that matches selects.

/// Words in a node.
pub const NODE_WORDS: usize = 256;
/// The unit of the array.
pub type Node = [u32; NODE_WORDS];

/// In a word of the trie: the rest is the number of a node, in which the next octet chooses a word. Without it
/// the word is a leaf.
pub const POINTER: u32 = 1 << 31;

/// What the trie says of an address: its class in the two lowest bits, the number of a list above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf(pub u32);

impl Leaf {
    const CLASS_MASK: u32 = 3;
    const LIST_SHIFT: u32 = 2;
    /// Largest number of a list.
    pub const LIST_MAX: u32 = (1 << 29) - 1;

    /// A leaf of its parts; list 0 has no entry.
    #[inline(always)]
    #[must_use]
    pub const fn new(class: u32, list: u32) -> Self {
        Self(class & Self::CLASS_MASK | list << Self::LIST_SHIFT)
    }

    /// Class: 0 foreign, 1 domestic, 2 never.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> u32 {
        self.0 & Self::CLASS_MASK
    }

    /// Number of a list.
    #[inline(always)]
    #[must_use]
    pub const fn list(self) -> u32 {
        self.0 >> Self::LIST_SHIFT
    }
}

/// Class of addresses that no prefix covers.
pub const CLASS_FOREIGN: u32 = 0;
/// Class of addresses at home.
pub const CLASS_DOMESTIC: u32 = 1;
/// Class of addresses that are never collected.
pub const CLASS_NEVER: u32 = 2;

/// Bit of a direction in [`Tables::directions`].
#[inline(always)]
#[must_use]
pub const fn direction_bit(source_class: u32, destination_class: u32) -> u32 {
    1 << (source_class & 3 | (destination_class & 3) << 2)
}

/// Words of a host in the IPv4 table, which lies in one of two buckets: address (its octets in memory order), list. An address without a list is free.
pub const IPV4_HOST_WORDS: usize = 2;
/// Hosts in a bucket of the IPv4 table: one cache line.
pub const IPV4_BUCKET_HOSTS: usize = 8;
/// Words of a host in the IPv6 table: four of address (in memory order), list, three unused.
pub const IPV6_HOST_WORDS: usize = 8;
/// Hosts in a bucket of the IPv6 table: two cache lines.
pub const IPV6_BUCKET_HOSTS: usize = 4;
/// Buckets in a node: 16 of the IPv4 table, 8 of the IPv6 table.
pub const IPV4_NODE_BUCKETS: u32 = (NODE_WORDS / (IPV4_HOST_WORDS * IPV4_BUCKET_HOSTS)) as u32;
/// See [`IPV4_NODE_BUCKETS`].
pub const IPV6_NODE_BUCKETS: u32 = (NODE_WORDS / (IPV6_HOST_WORDS * IPV6_BUCKET_HOSTS)) as u32;

/// Words of the table for indicators without an address: the number of a list by port, then by protocol.
pub const ANY_PROTOCOL: u32 = 65_536;

/// Words of an [`Entry`]. A node holds 64 entries; a list is a run of them, which may go on in the next node.
pub const ENTRY_WORDS: usize = 4;
/// Entries in a list at most: a bound for whoever walks it.
pub const LIST_ENTRIES_MAX: usize = 32;
/// In [`Entry::protocol`]: the packet's protocol does not matter.
pub const PROTOCOL_ANY: u32 = 1 << 8;
/// In [`Entry::protocol`]: the list ends with this entry.
pub const LAST: u32 = 1 << 9;
/// In [`Entry::protocol`]: the endpoint must have a port, and one in [`Entry::ports`].
pub const PORTS: u32 = 1 << 10;

/// Whether a protocol has ports: TCP, UDP, DCCP, SCTP and UDP-Lite. What a packet of another one has in their place
/// are type and code, or zeroes.
#[inline(always)]
#[must_use]
pub const fn has_ports(protocol: u32) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// One indicator, or one range of its ports, in a list. The number of a list is that of its first entry; list 0 is
/// one entry that nothing matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Seconds since 1970 from which on it matches nothing; 0 when it never ends.
    pub expires: u32,
    /// Protocol number, or [`PROTOCOL_ANY`]; [`LAST`] and [`PORTS`] beside it.
    pub protocol: u32,
    /// First port in bits 0..16, last port in bits 16..32; zero without [`PORTS`].
    pub ports: u32,
    /// Number of the indicator, from 1 on: what a slot stores.
    pub selector: u32,
}

/// Where the tables lie in the array, and how large they are: constants of the program.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Tables {
    /// Odd: spreads addresses over filter and hosts; chosen so that no bucket overflows.
    pub multiplier: u64,
    /// First of the 256 nodes of the IPv4 root.
    pub ipv4_root: u32,
    /// First of the 256 nodes of the IPv6 root.
    pub ipv6_root: u32,
    /// First node of the filter.
    pub filter: u32,
    /// Bits of the filter, minus one: a power of two of at least 8,192 (one node).
    pub filter_mask: u32,
    /// First node of the IPv4 hosts.
    pub ipv4_hosts: u32,
    /// Their buckets, minus one: a power of two of at least one node.
    pub ipv4_hosts_mask: u32,
    /// First node of the IPv6 hosts.
    pub ipv6_hosts: u32,
    /// Their buckets, minus one.
    pub ipv6_hosts_mask: u32,
    /// First node of the table for indicators without an address.
    pub any: u32,
    /// First node of the lists.
    pub lists: u32,
    /// Directions that may be collected: [`direction_bit`]s.
    pub directions: u32,
    /// Unused, zero.
    pub reserved: u32,
}
