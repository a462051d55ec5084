//! Indicators of single addresses: the filter, and the two tables of buckets.

use minimizer_common::tables::{
    IPV4_BUCKET_HOSTS, IPV4_HOST_WORDS, IPV4_NODE_BUCKETS, IPV6_BUCKET_HOSTS, IPV6_HOST_WORDS,
    IPV6_NODE_BUCKETS, NODE_WORDS, Node, Tables,
};
use minimizer_ebpf::policy::hosts::{position, second};

use super::lists::Lists;
use super::selectors::Selectors;
use super::trie::{Trie, address};
use super::{TableError, append_words, number, written};
use crate::policy::prefixes::Prefix;

/// The least number of filter bits for each host. Rounding up to a power of two can double it.
const FILTER_BITS_PER_HOST: usize = 16;
const FILTER_BITS_MIN: usize = NODE_WORDS * 32;
/// How many multipliers to try before doubling the buckets. If a table is half full, about every multiplier
/// works.
const ATTEMPTS: usize = 4;

/// A single address and its list of indicators.
pub struct Host {
    prefix: Prefix,
    list: u32,
}

impl Host {
    /// Whether it is an IPv6 address.
    pub const fn is_ipv6(&self) -> bool {
        self.prefix.ipv6
    }
}

/// Builds the list of each address: the indicators that name it, then those of the prefixes that cover it.
pub fn with_lists(
    mut indicators: Vec<(Prefix, usize)>,
    selectors: &Selectors<'_>,
    trie: &Trie,
    lists: &mut Lists,
) -> Result<Vec<Host>, TableError> {
    // Indicators of one address stay in the order of the policy, those that name this very address first.
    indicators.sort_unstable_by_key(|(prefix, position)| {
        let is_carried =
            u32::try_from(*position).is_ok_and(|position| selectors.is_carried(prefix, position));
        (*prefix, is_carried, *position)
    });
    let of_one_address = indicators.chunk_by(|(one, _), (next, _)| one == next);
    let hosts = of_one_address.filter_map(|same| Some((same.first()?.0, same)));
    hosts
        .map(|(prefix, same)| {
            let entries = same.iter().flat_map(|(_, position)| selectors.entries(*position));
            let list = lists.join(entries, trie.list(&prefix), || written(&prefix))?;
            Ok(Host { prefix, list })
        })
        .collect()
}

/// Appends the filter and the buckets, and notes their places.
pub fn append(nodes: &mut Vec<Node>, tables: &mut Tables, hosts: &[Host]) -> Result<(), TableError> {
    let (ipv4, ipv6) = hosts.split_at(hosts.partition_point(|host| !host.prefix.ipv6));
    let mut ipv4_buckets = Shape::IPV4.buckets(ipv4.len());
    let mut ipv6_buckets = Shape::IPV6.buckets(ipv6.len());
    let (multiplier, ipv4_words, ipv6_words) = 'drawn: loop {
        for _ in 0..ATTEMPTS {
            let multiplier = getrandom::u64().map_err(TableError::Random)? | 1;
            let ipv4_words = Shape::IPV4.fill(ipv4, ipv4_buckets, multiplier);
            let ipv6_words = Shape::IPV6.fill(ipv6, ipv6_buckets, multiplier);
            if let (Some(ipv4_words), Some(ipv6_words)) = (ipv4_words, ipv6_words) {
                break 'drawn (multiplier, ipv4_words, ipv6_words);
            }
        }
        // Even a table with more buckets than hosts was too small.
        if ipv4_buckets > 4 * Shape::IPV4.buckets(2 * hosts.len()) {
            return Err(TableError::TooLarge);
        }
        ipv4_buckets *= 2;
        ipv6_buckets *= 2;
    };
    let bits = (hosts.len() * FILTER_BITS_PER_HOST).next_power_of_two().max(FILTER_BITS_MIN);
    tables.filter = number(nodes.len())?;
    tables.filter_mask = mask(bits)?;
    append_words(nodes, filter(hosts, bits, multiplier));
    tables.ipv4_hosts = number(nodes.len())?;
    tables.ipv4_hosts_mask = mask(ipv4_buckets)?;
    append_words(nodes, ipv4_words);
    tables.ipv6_hosts = number(nodes.len())?;
    tables.ipv6_hosts_mask = mask(ipv6_buckets)?;
    append_words(nodes, ipv6_words);
    tables.multiplier = multiplier;
    Ok(())
}

fn mask(of: usize) -> Result<u32, TableError> {
    u32::try_from(of - 1).map_err(|_| TableError::TooLarge)
}

fn position_of(host: &Host, multiplier: u64) -> u32 {
    let address = address(&host.prefix);
    if host.prefix.ipv6 {
        position::<true>(multiplier, address)
    } else {
        position::<false>(multiplier, address)
    }
}

/// The remainder modulo a power of two.
fn remainder(position: u32, of: usize) -> usize {
    usize::try_from(position).unwrap_or(0) & (of - 1)
}

fn filter(hosts: &[Host], bits: usize, multiplier: u64) -> Vec<u32> {
    let mut words = vec![0; bits / 32];
    for host in hosts {
        let bit = remainder(position_of(host, multiplier), bits);
        words[bit / 32] |= 1 << (bit % 32);
    }
    words
}

/// The differences between the tables of the two IP versions.
struct Shape {
    host_words: usize,
    bucket_hosts: usize,
    node_buckets: u32,
    /// Words of an address.
    key_words: usize,
}

impl Shape {
    const IPV4: Self = Self {
        host_words: IPV4_HOST_WORDS,
        bucket_hosts: IPV4_BUCKET_HOSTS,
        node_buckets: IPV4_NODE_BUCKETS,
        key_words: 1,
    };
    const IPV6: Self = Self {
        host_words: IPV6_HOST_WORDS,
        bucket_hosts: IPV6_BUCKET_HOSTS,
        node_buckets: IPV6_NODE_BUCKETS,
        key_words: 4,
    };

    /// The buckets of a table that is at most half full and fills at least one node.
    fn buckets(&self, hosts: usize) -> usize {
        let node_buckets = usize::try_from(self.node_buckets).unwrap_or(1);
        (hosts * 2).div_ceil(self.bucket_hosts).next_power_of_two().max(node_buckets)
    }

    /// The words of the table; `None` if both buckets of a host are full.
    fn fill(&self, hosts: &[Host], buckets: usize, multiplier: u64) -> Option<Vec<u32>> {
        let bucket_words = self.host_words * self.bucket_hosts;
        let mut words = vec![0; buckets * bucket_words];
        let mut filled = vec![0; buckets];
        for host in hosts {
            let position = position_of(host, multiplier);
            let first = remainder(position, buckets);
            let other = remainder(second(position), buckets);
            let bucket = if filled[other] < filled[first] { other } else { first };
            if filled[bucket] == self.bucket_hosts {
                return None;
            }
            let at = bucket * bucket_words + filled[bucket] * self.host_words;
            let (octets, _) = host.prefix.octets.as_chunks::<4>();
            for (word, octets) in words[at..at + self.key_words].iter_mut().zip(octets) {
                *word = u32::from_le_bytes(*octets);
            }
            words[at + self.key_words] = host.list;
            filled[bucket] += 1;
        }
        Some(words)
    }
}
