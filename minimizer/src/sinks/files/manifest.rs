//! What stands over the records in a file, and what is said of the file beside it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Format, name};
use crate::delivery::sink::Heading;
use crate::policy::field::{Field, Fields};
use crate::records::record::Record;

/// Policy, recipient and program: what all records of a file have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) sink: String,
    pub(super) policy: PolicyOrigin,
    pub(super) recipient: String,
    pub(super) purpose: String,
    /// How long the recipient may keep the records; `None` where the policy does not say.
    pub(super) retention_seconds: Option<u64>,
    pub(super) program_tag: String,
    pub(super) agent_version: String,
    /// What a record of the file can have.
    pub(super) fields: Vec<Field>,
}

/// Name and SHA-256 of a policy, as in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PolicyOrigin {
    pub(super) name: String,
    pub(super) sha256: String,
}

/// The first line of a file, or what is in its metadata.
#[derive(Serialize)]
struct First<'header> {
    /// Begin of the first interval.
    begin: Timestamp,
    #[serde(flatten)]
    header: &'header Header,
}

impl Header {
    /// Of the records of a batch that go to a sink.
    pub(super) fn of(sink: &str, heading: &Heading<'_>) -> Self {
        let Heading { policy, recipient, .. } = heading;
        Self {
            sink: sink.to_owned(),
            policy: PolicyOrigin { name: policy.name.clone(), sha256: policy.digest.clone() },
            recipient: recipient.name.clone(),
            purpose: recipient.purpose.clone(),
            retention_seconds: recipient.retention.as_ref().map(Duration::as_secs),
            program_tag: heading.program_tag.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            fields: Field::ALL.iter().copied().filter(|field| heading.fields.has(*field)).collect(),
        }
    }

    /// As JSON, with the begin of the first interval.
    pub(super) fn text(&self, begin_ms: u64) -> String {
        serde_json::to_string(&First { begin: name::time(begin_ms), header: self })
            .expect("strings and numbers can be written as JSON")
    }
}

/// A batch, or the part of it that is in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Number of the batch since the start of the agent.
    pub(super) number: u64,
    /// When its interval began and ended.
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
    /// Records in the file, and the sums of what they say; `None` where they do not say it.
    pub(super) records: u64,
    pub(super) packets: Option<u64>,
    pub(super) octets: Option<u64>,
}

impl Part {
    /// Nothing yet of a batch.
    pub(super) fn of(heading: &Heading<'_>) -> Self {
        let zero = |field| heading.fields.has(field).then_some(0);
        Self {
            number: heading.number,
            begin: name::time(heading.begin_ms),
            end: name::time(heading.end_ms),
            records: 0,
            packets: zero(Field::PacketDeltaCount),
            octets: zero(Field::OctetDeltaCount),
        }
    }

    /// Records with these fields come into the file.
    pub(super) fn add(&mut self, records: &[Record], fields: Fields) {
        self.records += u64::try_from(records.len()).unwrap_or(u64::MAX);
        let add = |sum: &mut Option<u64>, field, of: fn(&Record) -> u64| {
            if let Some(sum) = sum.as_mut().filter(|_| fields.has(field)) {
                *sum = records.iter().map(of).fold(*sum, u64::saturating_add);
            }
        };
        add(&mut self.packets, Field::PacketDeltaCount, |record| record.packets);
        add(&mut self.octets, Field::OctetDeltaCount, |record| record.octets);
    }
}

/// What is said of a file that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Its name, in the same directory.
    pub(super) file: String,
    pub(super) format: Format,
    /// Its length.
    pub(super) octets: u64,
    /// Of the whole file.
    pub(super) sha256: String,
    /// All of them.
    pub(super) records: u64,
    /// Begin of the first interval, end of the last one.
    pub(super) begin: Timestamp,
    pub(super) end: Timestamp,
    #[serde(flatten)]
    pub(super) header: Header,
    /// In the order of the file.
    pub(super) batches: Vec<Part>,
}

impl Manifest {
    /// As JSON that people can read.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers can be written as JSON");
        text.push(b'\n');
        text
    }
}
