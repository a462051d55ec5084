//! Lists of entries. Equal lists are stored once.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use minimizer_common::tables::{ENTRY_WORDS, Entry, LIST_ENTRIES_MAX, Leaf};

use super::TableError;

/// All lists, one behind the other. The number of a list is the position of its first entry.
pub struct Lists {
    entries: Vec<Entry>,
    known: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Default for Lists {
    /// List 0 has one entry, which matches nothing.
    fn default() -> Self {
        Self { entries: vec![Entry::NOTHING], known: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl Lists {
    /// Stores these entries, then those of the list `less_specific`, without duplicates, and returns the
    /// number of the new list. `place` names the list's owner for an error.
    pub fn join(
        &mut self,
        more_specific: impl IntoIterator<Item = Entry>,
        less_specific: u32,
        place: impl FnOnce() -> String,
    ) -> Result<u32, TableError> {
        let mut joined: Vec<Entry> = Vec::new();
        let mut add = |entry: Entry| {
            // If the list is already too long, entries are only counted.
            if joined.len() > LIST_ENTRIES_MAX || !joined.contains(&entry) {
                joined.push(entry);
            }
        };
        more_specific.into_iter().for_each(&mut add);
        for entry in self.list(less_specific) {
            add(Entry { selects: entry.selects & !Entry::LAST, ..*entry });
        }
        if joined.len() > LIST_ENTRIES_MAX {
            return Err(TableError::TooManyApply { place: place(), count: joined.len() });
        }
        let Some(last) = joined.last_mut() else { return Ok(0) };
        last.selects |= Entry::LAST;
        self.store(&joined)
    }

    fn store(&mut self, list: &[Entry]) -> Result<u32, TableError> {
        let Self { entries, known, hasher } = self;
        let hash = |list: &[Entry]| hasher.hash_one(list);
        let hashed = hash(list);
        if let Some(number) = known.find(hashed, |number| list_in(entries, *number) == list) {
            return Ok(*number);
        }
        let number = u32::try_from(entries.len()).ok().filter(|number| *number <= Leaf::LIST_MAX);
        let number = number.ok_or(TableError::TooLarge)?;
        entries.extend_from_slice(list);
        known.insert_unique(hashed, number, |number| hash(list_in(entries, *number)));
        Ok(number)
    }

    /// The entries of a list. List 0 has none.
    fn list(&self, number: u32) -> &[Entry] {
        if number == 0 { &[] } else { list_in(&self.entries, number) }
    }

    /// The lists as the kernel reads them.
    pub fn words(&self) -> Vec<[u32; ENTRY_WORDS]> {
        self.entries.iter().map(Entry::words).collect()
    }
}

fn list_in(entries: &[Entry], number: u32) -> &[Entry] {
    let from = entries.get(usize::try_from(number).unwrap_or(usize::MAX)..).unwrap_or_default();
    let entries = from.iter().position(Entry::is_last).map_or(from.len(), |last| last + 1);
    &from[..entries]
}
