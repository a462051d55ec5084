//! Indicators with the numbers and entries that the kernel compares.

use hashbrown::HashMap;
use jiff::Timestamp;
use minimizer_common::tables::Entry;

use super::{SELECTORS_MAX, TableError};
use crate::policy::indicators::Indicator;
use crate::policy::prefixes::Prefix;

/// The key by which the program finds an indicator.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A single address.
    Host(Prefix),
    /// A prefix.
    Prefix(Prefix),
    /// Its ports or protocol; it names no address.
    Any,
}

/// The indicators of a policy in their order, with their numbers.
#[derive(Default)]
pub struct Selectors<'policy> {
    indicators: &'policy [Indicator],
    /// The kernel's number, by position of the indicator.
    numbers: Vec<u32>,
    /// The id, by the kernel's number minus one.
    ids: Vec<u64>,
}

impl<'policy> Selectors<'policy> {
    pub fn new(indicators: &'policy [Indicator]) -> Result<Self, TableError> {
        let mut known = HashMap::new();
        let mut ids = Vec::new();
        let mut numbers = Vec::with_capacity(indicators.len());
        for Indicator { id, prefix, protocol, ports, .. } in indicators {
            if prefix.is_none() && protocol.is_none() && ports.is_empty() {
                return Err(TableError::SelectsAll { id: *id });
            }
            let number = *known.entry(*id).or_insert_with(|| {
                ids.push(*id);
                ids.len()
            });
            let number = u32::try_from(number).ok().filter(|number| *number <= SELECTORS_MAX);
            numbers.push(number.ok_or(TableError::TooManySelectors)?);
        }
        Ok(Self { indicators, numbers, ids })
    }

    /// The position and the key of each indicator.
    pub fn targets(&self) -> impl Iterator<Item = (usize, Target)> {
        self.indicators.iter().enumerate().map(|(position, indicator)| {
            let target = match indicator.prefix {
                Some(prefix) if prefix.bits == if prefix.ipv6 { 128 } else { 32 } => Target::Host(prefix),
                Some(prefix) => Target::Prefix(prefix),
                None => Target::Any,
            };
            (position, target)
        })
    }

    /// Whether the indicator at a position names an IPv4 prefix that addresses of this prefix carry.
    pub fn is_carried(&self, prefix: &Prefix, position: u32) -> bool {
        let indicator = usize::try_from(position).ok().and_then(|position| self.indicators.get(position));
        prefix.ipv6 && indicator.and_then(|indicator| indicator.prefix).is_some_and(|named| !named.ipv6)
    }

    /// The ranges of ports of the indicator at a position. An empty slice means any port.
    pub fn ports(&self, position: usize) -> &'policy [(u16, u16)] {
        &self.indicators[position].ports
    }

    /// The protocol of the indicator at a position.
    pub fn protocol(&self, position: usize) -> Option<u8> {
        self.indicators[position].protocol
    }

    /// What the kernel compares for the indicator: one entry for each range of ports.
    pub fn entries(&self, position: usize) -> impl Iterator<Item = Entry> {
        let ranges = self.ports(position).iter().map(|range| Some(*range));
        let any_port = ranges.len() == 0;
        any_port.then_some(None).into_iter().chain(ranges).map(move |range| self.entry(position, range))
    }

    /// The entry for one range of ports, or for any port.
    pub fn entry(&self, position: usize, range: Option<(u16, u16)>) -> Entry {
        let Indicator { expires, protocol, .. } = &self.indicators[position];
        let expires = expires.map_or(Entry::NEVER, seconds);
        Entry::new(self.numbers[position], expires, *protocol, range)
    }

    /// The ids, by the kernel's number minus one.
    pub fn into_ids(self) -> Vec<u64> {
        self.ids
    }
}

/// Whole seconds since 1970, rounded down: an indicator may end a part of a second early, but not late.
fn seconds(expires: Timestamp) -> u32 {
    u32::try_from(expires.as_second().max(0)).unwrap_or(Entry::NEVER)
}
