//! What all records of a file have in common, and what the manifest beside the file says of it.

use std::fs::{File, FileTimes};
use std::io;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::directory;
use super::name::{self, Encoding};
use crate::delivery::sink::Heading;
use crate::policy::field::{Field, Fields};
use crate::records::record::Record;

/// Policy, recipient and program: what all records of a file have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sinks) struct Header {
    pub(super) sink: String,
    pub(super) policy: PolicyOrigin,
    pub(super) recipient: String,
    pub(super) purpose: String,
    /// How long the recipient may keep the records; `None` where the policy does not say.
    pub(super) retention_seconds: Option<u64>,
    /// The kernel's tag of the program: a digest of its instructions, the same under every policy.
    pub(super) program_tag: String,
    pub(super) agent_version: String,
    /// The unit to which the recipient's times are rounded down, and so are all times that are said of its files; `None` where it gets
    /// no times, and these are exact.
    #[serde(default)]
    pub(super) time_unit_milliseconds: Option<u64>,
    /// The fields that a record of the file can have.
    pub(super) fields: Vec<Field>,
}

/// Name and SHA-256 of a policy, as in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PolicyOrigin {
    pub(super) name: String,
    pub(super) sha256: String,
}

/// A header with the begin of the first interval: the first line or the metadata of a data file, and the first line of a
/// journal.
#[derive(Serialize, Deserialize)]
pub(super) struct DatedHeader<H> {
    pub(super) begin: Timestamp,
    #[serde(flatten)]
    pub(super) header: H,
}

impl Header {
    /// The header for the records of a batch that go to this sink.
    fn of(sink: &str, heading: &Heading<'_>) -> Self {
        let Heading { policy, recipient, .. } = heading;
        Self {
            sink: sink.to_owned(),
            policy: PolicyOrigin { name: policy.name.clone(), sha256: policy.digest.clone() },
            recipient: recipient.name.clone(),
            purpose: recipient.purpose.clone(),
            retention_seconds: recipient.retention.as_ref().map(Duration::as_secs),
            program_tag: heading.program_tag.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            time_unit_milliseconds: recipient
                .time_unit()
                .map(|unit| u64::try_from(unit.as_millis()).unwrap_or(u64::MAX).max(1)),
            fields: Field::ALL.iter().copied().filter(|field| heading.fields.has(*field)).collect(),
        }
    }

    /// A time as it may be said of the recipient's files.
    fn rounded(&self, milliseconds: u64) -> u64 {
        milliseconds - milliseconds % self.time_unit_milliseconds.unwrap_or(1).max(1)
    }

    /// The header as JSON, with the begin of the first interval.
    pub(in crate::sinks) fn text(&self, begin_ms: u64) -> String {
        serde_json::to_string(&DatedHeader { begin: name::time(begin_ms), header: self })
            .expect("strings and numbers can be written as JSON")
    }
}

/// Records, and what they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sinks) struct Sums {
    pub(in crate::sinks) records: u64,
    pub(in crate::sinks) packets: u64,
    pub(in crate::sinks) octets: u64,
}

impl Sums {
    /// The sums of records with these fields; a count that is not among the fields is 0.
    pub(in crate::sinks) fn of(records: &[Record], fields: Fields) -> Self {
        let sum = |field, of: fn(&Record) -> u64| {
            if fields.has(field) { records.iter().map(of).fold(0, u64::saturating_add) } else { 0 }
        };
        Self {
            records: u64::try_from(records.len()).unwrap_or(u64::MAX),
            packets: sum(Field::PacketDeltaCount, |record| record.packets),
            octets: sum(Field::OctetDeltaCount, |record| record.octets),
        }
    }

    /// Adds other sums. Counts that a recipient gets may be of any size.
    pub(in crate::sinks) const fn add(&mut self, other: Self) {
        self.records = self.records.saturating_add(other.records);
        self.packets = self.packets.saturating_add(other.packets);
        self.octets = self.octets.saturating_add(other.octets);
    }
}

/// A batch, or the share of it that is in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sinks) struct BatchShare {
    /// Number of the batch since the start of the agent.
    pub(super) number: u64,
    /// Begin and end of its interval.
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
    /// Records in the file, and the sums of their counts; `None` where the recipient does not get the count.
    pub(super) records: u64,
    pub(super) packets: Option<u64>,
    pub(super) octets: Option<u64>,
}

impl BatchShare {
    /// An empty share of the batch.
    fn of(header: &Header, heading: &Heading<'_>) -> Self {
        let zero = |field| heading.fields.has(field).then_some(0);
        Self {
            number: heading.number,
            begin: name::time(header.rounded(heading.begin_ms)),
            end: name::time(header.rounded(heading.end_ms)),
            records: 0,
            packets: zero(Field::PacketDeltaCount),
            octets: zero(Field::OctetDeltaCount),
        }
    }

    /// Counts records that came into the file.
    pub(super) fn add(&mut self, sums: Sums) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.records, sums.records);
        self.packets.iter_mut().for_each(|packets| add(packets, sums.packets));
        self.octets.iter_mut().for_each(|octets| add(octets, sums.octets));
    }
}

/// A batch that goes to a sink: what its files need to know of it.
pub(in crate::sinks) struct Begun {
    pub(in crate::sinks) header: Header,
    pub(in crate::sinks) fields: Fields,
    pub(in crate::sinks) begin_ms: u64,
    /// An empty share.
    pub(in crate::sinks) share: BatchShare,
}

impl Begun {
    /// The batch under this heading.
    pub(in crate::sinks) fn new(sink: &str, heading: &Heading<'_>) -> Self {
        let header = Header::of(sink, heading);
        Self {
            fields: heading.fields,
            begin_ms: header.rounded(heading.begin_ms),
            share: BatchShare::of(&header, heading),
            header,
        }
    }
}

/// What is said of a file that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sinks) struct Manifest {
    /// Name of the file, in the same directory.
    pub(super) file: String,
    pub(super) format: Encoding,
    /// Length of the file.
    pub(in crate::sinks) octets: u64,
    /// Digest of the whole file.
    pub(super) sha256: String,
    /// Records in the file.
    pub(super) records: u64,
    /// Begin of the first interval, end of the last one.
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
    /// Whether the agent that wrote the file ended before it gave the file its name, so that a later start did.
    #[serde(default, rename = "recovered")]
    pub(super) is_recovered: bool,
    #[serde(flatten)]
    pub(super) header: Header,
    /// In the order of the file.
    pub(super) batches: Vec<BatchShare>,
}

impl Manifest {
    /// No manifest is longer.
    const OCTETS_MAX: u64 = 64 << 20;

    /// Reads a manifest from its file; `None` where the file has something else.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let text = directory::read(file, Self::OCTETS_MAX)?;
        let manifest: Option<Self> = serde_json::from_slice(&text).ok();
        // A name with a slash would lead elsewhere.
        Ok(manifest.filter(|manifest| {
            name::parse(&manifest.file).is_some_and(|(sink, _)| sink == manifest.header.sink)
        }))
    }

    /// A manifest of these batches, without what depends on the finished file: name, length and digest.
    pub(super) fn new(format: Encoding, header: Header, begin: Timestamp, batches: Vec<BatchShare>) -> Self {
        Self {
            file: String::new(),
            format,
            octets: 0,
            sha256: String::new(),
            records: batches.iter().map(|batch| batch.records).fold(0, u64::saturating_add),
            begin,
            end: batches.last().map_or(begin, |batch| batch.end),
            is_recovered: false,
            header,
            batches,
        }
    }

    /// Gives a file the time of its last change that its recipient may know: that of its last interval, rounded. Files of a recipient
    /// that gets no times keep their own.
    pub(super) fn date(&self, file: &File) -> io::Result<()> {
        if self.header.time_unit_milliseconds.is_none() {
            return Ok(());
        }
        let time = SystemTime::from(self.end);
        file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
    }

    /// The manifest as JSON that people can read.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers can be written as JSON");
        text.push(b'\n');
        text
    }
}
