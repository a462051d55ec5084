//! The tables of a policy, as the kernel program reads them: `minimizer_common::tables` is their layout.

mod any;
mod hosts;
mod lists;
mod selectors;
#[cfg(test)]
mod tests;
mod trie;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use minimizer_common::plan::Steps;
use minimizer_common::tables::{
    CLASS_DOMESTIC, CLASS_FOREIGN, CLASS_NEVER, CLASS_SPECIAL, ENTRY_WORDS, Entry, LIST_ENTRIES_MAX,
    NODE_WORDS, Node, POINTER, Roots, Tables, direction_bit,
};
use minimizer_ebpf::policy::nodes::Nodes;
use thiserror::Error;

use crate::policy::class::Class;
use crate::policy::embedded;
use crate::policy::indicators::Indicator;
use crate::policy::model::Scope;
use crate::policy::prefixes::Prefix;
use crate::policy::ranks::Ranks;
use crate::policy::translation::Translation;
use lists::Lists;
use selectors::{Selectors, Target};
use trie::{Item, Meaning, Trie};

/// The most indicators with different numbers: as many as a slot can store.
pub const SELECTORS_MAX: u32 = (1 << 20) - 1;

/// The most indicators of single IPv4 addresses in the trie, where each takes up to two nodes, and some more for its forms inside
/// of IPv6 addresses.
pub const TRIE_HOSTS_MAX: usize = 1024;

/// Why the agent cannot build a policy's tables.
#[derive(Debug, Error)]
pub enum TableError {
    /// More indicators apply to one endpoint than the kernel program compares.
    #[error(
        "{count} indicators apply to {place}, and at most {LIST_ENTRIES_MAX} can (each range of ports is one): \
         remove those that others include"
    )]
    TooManyApply {
        /// The endpoint: a prefix, a port or a protocol.
        place: String,
        /// How many indicators apply.
        count: usize,
    },
    /// A slot has no room for the number of an indicator.
    #[error("the selectors have more than {SELECTORS_MAX} different ids")]
    TooManySelectors,
    /// An indicator would select every packet.
    #[error("selector {id} has neither address nor port nor protocol: it would select every packet")]
    SelectsAll {
        /// Its number.
        id: u64,
    },
    /// A prefix is listed as both domestic and foreign.
    #[error("the scope lists {prefix} as both domestic and foreign")]
    TwoClasses {
        /// The prefix.
        prefix: String,
    },
    /// The tables have more nodes than a word can number.
    #[error("the policy's prefixes and indicators take more memory than the kernel's tables can have")]
    TooLarge,
    /// The system gives no random number for the hash.
    #[error("the kernel gives no random numbers for the hash of the selectors: {0}")]
    Random(getrandom::Error),
}

/// The tables of a policy, ready for the kernel.
#[derive(Debug)]
pub struct Content {
    /// Constants of the program.
    pub roots: Arc<Roots>,
    /// The array of nodes. It has at least one, until the kernel has it: then it is empty.
    pub nodes: Vec<Node>,
    /// The array of entries. It has at least one, until the kernel has it.
    pub lists: Vec<[u32; ENTRY_WORDS]>,
}

impl Content {
    /// The memory of the tables in the kernel, in octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        size_of_val(&*self.roots) + size_of_val(self.nodes.as_slice()) + size_of_val(self.lists.as_slice())
    }

    /// The tables as the kernel sees them.
    #[must_use]
    pub fn seen(&self) -> TablesView<'_> {
        TablesView { roots: &self.roots, nodes: &self.nodes, lists: &self.lists }
    }
}

/// Tables as the kernel sees them.
#[derive(Clone, Copy)]
pub struct TablesView<'tables> {
    roots: &'tables Roots,
    nodes: &'tables [Node],
    lists: &'tables [[u32; ENTRY_WORDS]],
}

impl Nodes for TablesView<'_> {
    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(index).ok()?)
    }

    fn entry(&self, index: u32) -> Option<Entry> {
        self.lists.get(usize::try_from(index).ok()?).map(|words| Entry::of(*words))
    }

    fn roots(&self) -> &Roots {
        self.roots
    }
}

/// The tables, and what the program has to know about them.
#[derive(Debug)]
pub struct Built {
    /// The tables.
    pub content: Content,
    /// Where each table lies in the array of nodes.
    pub tables: Tables,
    /// The steps that use the tables, among [`Steps::SCOPE`], [`Steps::SELECT`], [`Steps::TRIE`],
    /// [`Steps::HOSTS_IPV4`], [`Steps::HOSTS_IPV6`] and [`Steps::ANY`].
    pub steps: Steps,
    /// The id of each indicator, by its number in the kernel minus one.
    pub selector_ids: Vec<u64>,
}

/// Octets of prefixes, and of what they become before they are nodes.
pub fn building_octets(prefixes: &[(Prefix, Class)], translations: &[Translation]) -> usize {
    size_of_val(prefixes) + embedded::count(prefixes, translations) * size_of::<Item>()
}

/// Builds the tables of a policy's scope, with the network's own translations, and of its selectors, and of the ranks for its
/// pseudonyms.
///
/// # Errors
/// See [`TableError`].
pub fn build(
    scope: Option<&Scope>,
    translations: &[Translation],
    selectors: Option<&[Indicator]>,
    ranks: Option<&Ranks>,
) -> Result<Built, TableError> {
    let mut steps = Steps::NONE;
    let mut tables = Tables::default();
    let mut items = Vec::new();
    if let Some(scope) = scope {
        steps = steps.union(Steps::SCOPE);
        tables.directions = directions(scope);
        items.reserve(embedded::count(&scope.prefixes, translations));
        embedded::each(&scope.prefixes, translations, |prefix, class| {
            items.push(Item { prefix, meaning: Meaning::Class(class) });
        });
    }
    let selectors = match selectors {
        Some(indicators) => {
            steps = steps.union(Steps::SELECT);
            Selectors::new(indicators)?
        }
        None => Selectors::default(),
    };
    let mut hosts = Vec::new();
    let mut any = Vec::new();
    let translations = embedded::all(translations);
    for (position, target) in selectors.targets() {
        match target {
            Target::Host(address) => hosts.push((address, position)),
            Target::Prefix(prefix) => items.extend(forms(prefix, &translations, indicator(position)?)),
            Target::Any => any.push(position),
        }
    }

    // If the program looks every address up in the trie anyway, a few hosts cost least there.
    let (ipv6_hosts, ipv4_hosts): (Vec<_>, Vec<_>) =
        hosts.into_iter().partition(|(prefix, _): &(Prefix, usize)| prefix.ipv6);
    let mut hosts = ipv6_hosts;
    if !items.is_empty() && ipv4_hosts.len() <= TRIE_HOSTS_MAX {
        for (prefix, position) in ipv4_hosts {
            items.extend(forms(prefix, &translations, indicator(position)?));
        }
    } else {
        // Other forms are rare. In 6to4 the form of a host is a prefix, which would take nodes of its own in the trie.
        for (prefix, position) in &ipv4_hosts {
            let carried = translations.iter().filter_map(|translation| translation.host(prefix));
            hosts.extend(carried.map(|host| (host, *position)));
        }
        hosts.extend(ipv4_hosts);
    }

    let mut lists = Lists::default();
    let mut trie = Trie::empty()?;
    if !items.is_empty() {
        steps = steps.union(Steps::TRIE);
        trie.build(items, &selectors, &mut lists)?;
    }
    let hosts = hosts::with_lists(hosts, &selectors, &trie, &mut lists)?;
    let (roots, mut nodes) = trie.into_parts();
    if !hosts.is_empty() {
        let has = |ipv6| hosts.iter().any(|host| host.is_ipv6() == ipv6);
        steps = if has(false) { steps.union(Steps::HOSTS_IPV4) } else { steps };
        steps = if has(true) { steps.union(Steps::HOSTS_IPV6) } else { steps };
        hosts::append(&mut nodes, &mut tables, &hosts)?;
    }
    if !any.is_empty() {
        steps = steps.union(Steps::ANY);
        tables.any = number(nodes.len())?;
        any::append(&mut nodes, &any, &selectors, &mut lists)?;
    }
    if let Some(ranks) = ranks {
        tables.ranks = ranks.append(&mut nodes).ok_or(TableError::TooLarge)?;
    }
    if nodes.is_empty() {
        nodes.push([0; NODE_WORDS]);
    }
    number(nodes.len())?;
    let content = Content { roots: roots.into(), nodes, lists: lists.words() };
    Ok(Built { content, tables, steps, selector_ids: selectors.into_ids() })
}

/// A prefix with its meaning, and an IPv4 prefix also inside of IPv6 addresses.
fn forms(prefix: Prefix, translations: &[Translation], meaning: Meaning) -> impl Iterator<Item = Item> {
    let translations = if prefix.ipv6 { &translations[..0] } else { translations };
    let carried = translations.iter().filter_map(move |translation| translation.form(&prefix));
    [prefix].into_iter().chain(carried).map(move |prefix| Item { prefix, meaning })
}

fn indicator(position: usize) -> Result<Meaning, TableError> {
    u32::try_from(position).map(Meaning::Indicator).map_err(|_| TableError::TooLarge)
}

/// The directions to collect. They exclude every direction with a class that is never collected.
fn directions(scope: &Scope) -> u32 {
    let is_collected = |class: &Class| matches!(class, Class::Foreign | Class::Domestic);
    let allowed = scope.directions.iter().filter(|(from, to)| is_collected(from) && is_collected(to));
    allowed.fold(0, |bits, (from, to)| bits | direction_bit(class_number(*from), class_number(*to)))
}

const fn class_number(class: Class) -> u32 {
    match class {
        Class::Foreign => CLASS_FOREIGN,
        Class::Domestic => CLASS_DOMESTIC,
        Class::Never => CLASS_NEVER,
        Class::Special | Class::Embedded => CLASS_SPECIAL,
    }
}

/// The number of a node. It must leave the bit of [`POINTER`] free.
fn number(index: usize) -> Result<u32, TableError> {
    u32::try_from(index).ok().filter(|number| *number < POINTER).ok_or(TableError::TooLarge)
}

/// Appends a table, padded with zeroes to whole nodes.
fn append_words(nodes: &mut Vec<Node>, words: impl IntoIterator<Item = u32>) {
    for (position, word) in words.into_iter().enumerate() {
        if position % NODE_WORDS == 0 {
            nodes.push([0; NODE_WORDS]);
        }
        if let Some(node) = nodes.last_mut() {
            node[position % NODE_WORDS] = word;
        }
    }
}

/// A prefix as a person writes it.
fn written(prefix: &Prefix) -> String {
    let [a, b, c, d, ..] = prefix.octets;
    let address = if prefix.ipv6 {
        IpAddr::V6(Ipv6Addr::from(prefix.octets))
    } else {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    format!("{address}/{}", prefix.bits)
}
