//! Tables of a policy: the class of an address, and the indicators that match an endpoint.
//!
//! Constants of the program, the [`Roots`], answer for nearly every packet with one load. Two read-only
//! arrays hold the rest. One has the [`Entry`]s of all lists. The other has [`Node`]s of 256 words each:
//!
//! ```text
//! | trie nodes | filter | IPv4 hosts | IPv6 hosts | any address | ranks |
//! ```
//! A *trie* with a stride of 8 bits gives every address a [`Leaf`]. The first two octets of the address
//! choose a word of the root. If the word has [`POINTER`], it names a node, and the next octet chooses a word
//! of that node. Equal nodes are stored once.
//!
//! An IPv4 address is looked up among the *classes* first: two bits for each value of its first two octets.
//! They decide for most addresses.
//!
//! Indicators of single hosts are in hash tables, because in the trie each host would need nodes of its own.
//! A bit *filter* tells that an address is in neither table; most addresses need no more than that. An
//! indicator that names no address is found by port or protocol.
//!
//! The *ranks* number the domestic IPv4 addresses, in blocks of 256, for their pseudonyms. The first two octets of an address
//! choose a word of 256 nodes. If it has [`POINTER`], it names a node, and the third octet chooses a word of that. A word is the
//! rank of a block plus one, or 0: no domestic address is there. A word of the first 256 nodes without [`POINTER`] is that of the
//! first of 256 blocks, which are all domestic.
//!
//! A leaf, a host, a port and a protocol each lead to a *list* of [`Entry`]s. The first entry that matches
//! selects the packet.

use crate::protocol::Transport;

/// Words in a node.
pub const NODE_WORDS: usize = 256;
/// The unit of the array.
pub type Node = [u32; NODE_WORDS];

/// Marks a word of the trie as a pointer: its other bits are the number of the node in which the next octet
/// chooses. A word without the mark is a leaf.
pub const POINTER: u32 = 1 << 31;

/// What the trie says about an address: its class in the two lowest bits, the number of a list above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf(pub u32);

impl Leaf {
    const CLASS_MASK: u32 = 3;
    const LIST_SHIFT: u32 = 2;
    /// Largest number of a list.
    pub const LIST_MAX: u32 = (1 << 29) - 1;

    /// Builds a leaf from its parts. List 0 has no indicator.
    #[inline(always)]
    #[must_use]
    pub const fn new(class: u32, list: u32) -> Self {
        Self(class & Self::CLASS_MASK | list << Self::LIST_SHIFT)
    }

    /// Class: 0 foreign, 1 domestic, 2 never, 3 special.
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
/// Class of domestic addresses.
pub const CLASS_DOMESTIC: u32 = 1;
/// Class of addresses that the program never collects.
pub const CLASS_NEVER: u32 = 2;

/// Class of addresses for a special purpose, which the program does not collect either. It is a class of its own, because prefixes inside of
/// them can be collected, and tunnels of the network can end there, other than inside of what is never collected.
pub const CLASS_SPECIAL: u32 = 3;

/// In the classes of IPv4: the first two octets do not decide, or an indicator may match. The trie decides.
pub const CLASS_MIXED: u32 = 3;

/// Words of a root: one for each value of an address's first two octets.
pub const ROOT_WORDS: usize = 1 << 16;
/// Classes of IPv4 in a word.
const WORD_CLASSES: usize = 16;

/// The first look-up of every address. An index is the address's first two octets, the first octet in the
/// lower half.
#[derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
#[repr(C)]
pub struct Roots {
    /// Two bits for each index, from the lowest bits on: a class of IPv4 addresses, or [`CLASS_MIXED`].
    pub ipv4_classes: [u32; ROOT_WORDS / WORD_CLASSES],
    /// The root of the IPv4 trie.
    pub ipv4: [u32; ROOT_WORDS],
    /// The root of the IPv6 trie.
    pub ipv6: [u32; ROOT_WORDS],
}

impl Roots {
    /// The place of a class: the word in [`Self::ipv4_classes`], and the lower of its two bits.
    #[inline(always)]
    #[must_use]
    pub const fn class_place(octets: u16) -> (usize, u32) {
        (octets as usize / WORD_CLASSES, octets as u32 % WORD_CLASSES as u32 * 2)
    }
}

/// The bit of a direction in [`Tables::directions`].
#[inline(always)]
#[must_use]
pub const fn direction_bit(source_class: u32, destination_class: u32) -> u32 {
    1 << (source_class & 3 | (destination_class & 3) << 2)
}

/// Words of a host in the IPv4 table: the address (octets in memory order) and its list. A place whose list
/// is 0 is free. A host lies in one of two buckets.
pub const IPV4_HOST_WORDS: usize = 2;
/// Hosts in a bucket of the IPv4 table: one cache line.
pub const IPV4_BUCKET_HOSTS: usize = 8;
/// Words of a host in the IPv6 table: four of address (octets in memory order), one of list, three unused.
pub const IPV6_HOST_WORDS: usize = 8;
/// Hosts in a bucket of the IPv6 table: two cache lines.
pub const IPV6_BUCKET_HOSTS: usize = 4;
/// Buckets in a node of the IPv4 table: 16.
pub const IPV4_NODE_BUCKETS: u32 = (NODE_WORDS / (IPV4_HOST_WORDS * IPV4_BUCKET_HOSTS)) as u32;
/// Buckets in a node of the IPv6 table: 8.
pub const IPV6_NODE_BUCKETS: u32 = (NODE_WORDS / (IPV6_HOST_WORDS * IPV6_BUCKET_HOSTS)) as u32;

/// First protocol in the table for indicators without an address. The table gives a list to each port, then
/// to each protocol.
pub const ANY_PROTOCOL: u32 = 65_536;

/// What an indicator can ask for beside an address, in one number: the protocol, whether the packet has
/// ports, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub u32);

impl Endpoint {
    const PORT_BITS: u32 = 16;
    const PORT_MASK: u32 = 0xffff;
    const PROTOCOL_SHIFT: u32 = Self::PORT_BITS + 1;
    const BITS: u32 = Self::PROTOCOL_SHIFT + 8;
    /// Set when the packet has no ports. The type and code, or zeroes, then stand in place of a port, and no
    /// range of ports contains them.
    const NO_PORT: u32 = 1 << Self::PORT_BITS;

    /// The endpoint of each protocol number, still without a port.
    pub const OF_PROTOCOL: [Self; 256] = {
        let mut all = [Self(0); 256];
        let mut protocol = 0;
        while protocol < all.len() {
            let has_ports = Transport::of(protocol as u8).has_ports();
            let no_port = if has_ports { 0 } else { Self::NO_PORT };
            all[protocol] = Self((protocol as u32) << Self::PROTOCOL_SHIFT | no_port);
            protocol += 1;
        }
        all
    };

    /// The endpoint with a port.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(self, port: u16) -> Self {
        Self(self.0 | port as u32)
    }
}

/// The most entries in a list. It bounds every walk of a list.
pub const LIST_ENTRIES_MAX: usize = 32;

/// Words of an [`Entry`].
pub const ENTRY_WORDS: usize = 4;

/// One indicator of a list, or one range of its ports. A list is a run of entries; its number is that of the
/// first entry. List 0 is one entry that matches nothing.
///
/// A comparison shifts the bits of an [`Endpoint`] that matter to the upper end of 32 bits, and the others
/// out. The result must be in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The second, counted from 1970, from which the entry matches nothing; [`Self::NEVER`] if it does not
    /// expire.
    pub expires: u32,
    /// The least number that matches.
    pub first: u32,
    /// The largest number that matches, less the least.
    pub span: u32,
    /// Bits 0..20: the number of the indicator, from 1 on, which a slot stores. Bit 20: [`Self::LAST`]. Bits
    /// 26..32: how far a comparison shifts.
    pub selects: u32,
}

impl Entry {
    /// Builds an entry from its words in the array.
    #[inline(always)]
    #[must_use]
    pub const fn of([expires, first, span, selects]: [u32; ENTRY_WORDS]) -> Self {
        Self { expires, first, span, selects }
    }

    /// The words that [`Self::of`] takes.
    #[must_use]
    pub const fn words(&self) -> [u32; ENTRY_WORDS] {
        [self.expires, self.first, self.span, self.selects]
    }

    /// In [`Self::expires`]: the entry does not expire.
    pub const NEVER: u32 = u32::MAX;
    /// In [`Self::selects`]: the list ends with this entry.
    pub const LAST: u32 = 1 << 20;
    const SELECTOR_MASK: u32 = (1 << 20) - 1;
    const SHIFT_SHIFT: u32 = 26;

    /// The entry that matches nothing and ends its list.
    pub const NOTHING: Self = Self { expires: 0, first: 0, span: 0, selects: Self::LAST };

    /// An entry for one protocol or for every protocol, and for a range of ports or for packets with and
    /// without ports. An entry for an empty range matches nothing.
    #[must_use]
    pub fn new(selector: u32, expires: u32, protocol: Option<u8>, ports: Option<(u16, u16)>) -> Self {
        let (first, last, bits) = match (protocol, ports) {
            (None, None) => (0, 0, 0),
            (None, Some((first, last))) => (first as u32, last as u32, Endpoint::PROTOCOL_SHIFT),
            (Some(protocol), ports) => {
                let base = (protocol as u32) << Endpoint::PROTOCOL_SHIFT;
                match ports {
                    Some((first, last)) => (base | first as u32, base | last as u32, Endpoint::BITS),
                    None => (base, base | Endpoint::NO_PORT | Endpoint::PORT_MASK, Endpoint::BITS),
                }
            }
        };
        if first > last {
            return Self { selects: selector & Self::SELECTOR_MASK, ..Self::NOTHING };
        }
        let shift = u32::BITS - bits;
        let aligned = |number: u32| ((number as u64) << shift) as u32;
        Self {
            expires,
            first: aligned(first),
            span: aligned(last - first),
            selects: selector & Self::SELECTOR_MASK | shift << Self::SHIFT_SHIFT,
        }
    }

    /// The number of the indicator if the entry matches, else 0.
    #[inline(always)]
    #[must_use]
    pub const fn selector(&self, endpoint: Endpoint, now_seconds: u32) -> u32 {
        let compared = ((endpoint.0 as u64) << (self.selects >> Self::SHIFT_SHIFT)) as u32;
        if compared.wrapping_sub(self.first) > self.span || now_seconds >= self.expires {
            return 0;
        }
        self.selects & Self::SELECTOR_MASK
    }

    /// Whether the list ends with this entry.
    #[inline(always)]
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.selects & Self::LAST != 0
    }
}

/// All 32 bits set if a number is below another, else none. It takes the upper half of a difference: the
/// compiler would turn the sign of the difference into a comparison and a branch.
#[inline(always)]
#[must_use]
pub const fn is_below(number: u32, other: u32) -> u32 {
    ((number as u64).wrapping_sub(other as u64) >> 32) as u32
}

/// The places and sizes of the tables in the array: constants of the program.
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
    /// An odd factor that spreads addresses over the filter and the hosts. The agent chooses it so that no
    /// bucket overflows.
    pub multiplier: u64,
    /// First node of the filter.
    pub filter: u32,
    /// Bits of the filter, minus one. Their number is a power of two and at least 8,192, which is one node.
    pub filter_mask: u32,
    /// First node of the IPv4 hosts.
    pub ipv4_hosts: u32,
    /// Buckets of the IPv4 hosts, minus one. Their number is a power of two and fills at least one node.
    pub ipv4_hosts_mask: u32,
    /// First node of the IPv6 hosts.
    pub ipv6_hosts: u32,
    /// Buckets of the IPv6 hosts, minus one.
    pub ipv6_hosts_mask: u32,
    /// First node of the table for indicators without an address.
    pub any: u32,
    /// The directions that the program may collect: [`direction_bit`]s.
    pub directions: u32,
    /// First node of the ranks.
    pub ranks: u32,
    /// Unused, zero.
    pub reserved: u32,
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Entry};

    #[test]
    fn an_entry_matches_what_it_was_made_of() {
        let ranges =
            [None, Some((0, 0)), Some((0, 65_535)), Some((80, 443)), Some((65_535, 65_535)), Some((9, 8))];
        let ports = [0, 1, 8, 9, 79, 80, 443, 444, 65_534, 65_535];
        for wanted in [None, Some(0), Some(1), Some(6), Some(132), Some(255)] {
            for range in ranges {
                let entry = Entry::new(7, Entry::NEVER, wanted, range);
                for protocol in 0..=255_u8 {
                    let has_ports = [6, 17, 33, 132, 136].contains(&protocol);
                    let is_wanted = wanted.is_none_or(|wanted| wanted == protocol);
                    for port in ports {
                        let in_range = |(first, last)| has_ports && (first..=last).contains(&port);
                        let expected = if is_wanted && range.is_none_or(in_range) { 7 } else { 0 };
                        let endpoint = Endpoint::OF_PROTOCOL[usize::from(protocol)].with_port(port);
                        assert_eq!(
                            entry.selector(endpoint, 5),
                            expected,
                            "{wanted:?} {range:?} {protocol} {port}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_entry_ends_in_its_second() {
        let endpoint = Endpoint::OF_PROTOCOL[6];
        let entry = Entry::new(0xf_ffff, 100, None, None);
        assert_eq!((entry.selector(endpoint, 99), entry.selector(endpoint, 100)), (0xf_ffff, 0));
        assert_eq!(Entry::NOTHING.selector(endpoint, 0), 0);
    }
}
