//! Some fields of a record, as any format that serde knows.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::policy::field::{Field, Fields};
use crate::records::fields::{Number, Reader, Variant, read_all};
use crate::records::record::Record;

impl Record {
    /// The record with these fields and no others. It serializes with the names of the IANA IPFIX registry as keys (see
    /// docs/RECORD.md) and leaves out fields that its packets do not have.
    #[must_use]
    pub const fn with(&self, fields: Fields) -> Shown<'_> {
        Shown { record: self, fields }
    }
}

/// The fields of a record that may be shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'record> {
    record: &'record Record,
    fields: Fields,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, fields } = *self;
        let mut entries = Entries { record, map: serializer.serialize_map(None)? };
        read_all(fields, Variant::of(record), &mut entries)?;
        entries.map.end()
    }
}

/// Fields as the entries of a map.
struct Entries<'record, M> {
    record: &'record Record,
    map: M,
}

impl<M: SerializeMap> Reader for Entries<'_, M> {
    type Error = M::Error;

    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), M::Error> {
        self.map.serialize_entry(field.name(), &of(self.record))
    }

    fn ipv4(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), M::Error> {
        self.map.serialize_entry(field.name(), &Ipv4Addr::from(of(self.record)))
    }

    fn ipv6(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), M::Error> {
        self.map.serialize_entry(field.name(), &Ipv6Addr::from(of(self.record)))
    }
}
