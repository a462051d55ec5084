//! Tables of a policy: which class an address has, and which indicators an endpoint matches.
//!
//! What nearly every packet asks is among the constants of the program, one load away: the [`Roots`]. The rest lies in one
//! read-only array of [`Node`]s, each of 256 words, but for the lists, which are a read-only array of [`Entry`]s:
//!
//! ```text
//! | trie nodes | filter | IPv4 hosts | IPv6 hosts | any address |
//! ```
//! A *trie* of strides of 8 bits gives every address a [`Leaf`]: its first two octets choose a word of the root; a word with
//! [`POINTER`] names the node in which the next octet chooses. Equal nodes are one. Of IPv4, the *classes* come first: two
//! bits for each value of an address's first two octets, which are all that there is to know of most of them. Indicators
//! of single hosts are in hash tables, since each would take nodes of its own; a *filter* of bits says of most addresses
//! that they are in neither. An indicator that names no address is found by port or protocol. All of these lead to
//! *lists* of [`Entry`]s, of which the first that matches selects.

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

/// In the classes of IPv4: what the other two octets are decides, or an indicator may match; the trie knows.
pub const CLASS_MIXED: u32 = 3;

/// Values of an address's first two octets: words of a root.
pub const ROOT_WORDS: usize = 1 << 16;
/// Classes in a word.
const WORD_CLASSES: usize = 16;

/// Where every address is looked up first. Indices are an address's first two octets, the first in the lower half.
#[derive(Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
#[repr(C)]
pub struct Roots {
    /// Two bits each, from the lowest on: a class of IPv4 addresses, or [`CLASS_MIXED`].
    pub ipv4_classes: [u32; ROOT_WORDS / WORD_CLASSES],
    /// The root of IPv4.
    pub ipv4: [u32; ROOT_WORDS],
    /// The root of IPv6.
    pub ipv6: [u32; ROOT_WORDS],
}

impl Roots {
    /// Where a class lies: the word in [`Self::ipv4_classes`], and the first of two bits in it.
    #[inline(always)]
    #[must_use]
    pub const fn class_place(octets: u16) -> (usize, u32) {
        (octets as usize / WORD_CLASSES, octets as u32 % WORD_CLASSES as u32 * 2)
    }
}

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

/// What an indicator asks for beside an address, in one number: protocol, whether the packet has no ports, port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub u32);

impl Endpoint {
    const PORT_BITS: u32 = 16;
    const PORT_MASK: u32 = 0xffff;
    const PROTOCOL_SHIFT: u32 = Self::PORT_BITS + 1;
    const BITS: u32 = Self::PROTOCOL_SHIFT + 8;
    /// Beside a port: it is none, and in no range. Type and code, or zeroes, stand in its place.
    const NO_PORT: u32 = 1 << Self::PORT_BITS;

    /// Without a port yet, by protocol number. Ports have TCP, UDP, DCCP, SCTP and UDP-Lite.
    pub const OF_PROTOCOL: [Self; 256] = {
        let mut all = [Self(0); 256];
        let mut protocol = 0;
        while protocol < all.len() {
            let no_port = if matches!(protocol, 6 | 17 | 33 | 132 | 136) { 0 } else { Self::NO_PORT };
            all[protocol] = Self((protocol as u32) << Self::PROTOCOL_SHIFT | no_port);
            protocol += 1;
        }
        all
    };

    /// With a port.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(self, port: u16) -> Self {
        Self(self.0 | port as u32)
    }
}

/// Entries in a list at most: a bound for whoever walks it.
pub const LIST_ENTRIES_MAX: usize = 32;

/// Words of an [`Entry`].
pub const ENTRY_WORDS: usize = 4;

/// One indicator, or one range of its ports, in a list. A list is a run of entries, and its number that of the first;
/// list 0 is one entry that nothing matches.
///
/// Of an [`Endpoint`], the bits that matter are shifted to the upper end of 32, the others out of them. What is left
/// must be in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Seconds since 1970 from which on it matches nothing; [`Self::NEVER`] if there are none.
    pub expires: u32,
    /// The least that matches.
    pub first: u32,
    /// The most that matches, less the least.
    pub span: u32,
    /// Number of the indicator in bits 0..20, from 1 on: what a slot stores. [`Self::LAST`]. How far to shift in bits 26..32.
    pub selects: u32,
}

impl Entry {
    /// As it lies in the array.
    #[inline(always)]
    #[must_use]
    pub const fn of([expires, first, span, selects]: [u32; ENTRY_WORDS]) -> Self {
        Self { expires, first, span, selects }
    }

    /// What [`Self::of`] takes.
    #[must_use]
    pub const fn words(&self) -> [u32; ENTRY_WORDS] {
        [self.expires, self.first, self.span, self.selects]
    }

    /// It does not expire.
    pub const NEVER: u32 = u32::MAX;
    /// In [`Self::selects`]: the list ends with this entry.
    pub const LAST: u32 = 1 << 20;
    const SELECTOR_MASK: u32 = (1 << 20) - 1;
    const SHIFT_SHIFT: u32 = 26;

    /// An entry that nothing matches, the last of its list.
    pub const NOTHING: Self = Self { expires: 0, first: 0, span: 0, selects: Self::LAST };

    /// An entry for one protocol or any, for a range of ports (if that is not empty) or whatever stands in their place.
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

    /// Number of the indicator if that matches, or 0.
    #[inline(always)]
    #[must_use]
    pub const fn selector(&self, endpoint: Endpoint, now_seconds: u32) -> u32 {
        let compared = ((endpoint.0 as u64) << (self.selects >> Self::SHIFT_SHIFT)) as u32;
        if compared.wrapping_sub(self.first) > self.span || now_seconds >= self.expires {
            return 0;
        }
        self.selects & Self::SELECTOR_MASK
    }

    /// Whether the list ends with it.
    #[inline(always)]
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.selects & Self::LAST != 0
    }
}

/// All bits where a number is below another, or else none. The upper half of a difference, and not its sign: that the
/// compiler would take for a comparison and make a branch of.
#[inline(always)]
#[must_use]
pub const fn is_below(number: u32, other: u32) -> u32 {
    ((number as u64).wrapping_sub(other as u64) >> 32) as u32
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
    /// Odd: spreads addresses over filter and hosts; choice so that no bucket overflows.
    pub multiplier: u64,
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
    /// Directions that may be collected: [`direction_bit`]s.
    pub directions: u32,
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
