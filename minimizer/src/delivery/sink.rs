//! Sinks: what takes the records of a recipient out of the agent.
//!
//! Each sink has a bounded queue and a sender, which is a thread. The drain waits for no sink, and no sink waits for another.

use std::time::Instant;

use minimizer_common::generation::Counts;
use thiserror::Error;

use crate::delivery::loss::Loss;
use crate::policy::field::{Field, Fields};
use crate::policy::model::{Policy, Recipient};
use crate::policy::transform::{Transform, log2};
use crate::records::record::Record;

/// Largest number of records that a sink is given at once.
pub const CHUNK_RECORDS_MAX: usize = 4096;

/// What a sink is told of a batch before its records.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'batch> {
    /// Number of the batch since the start of the agent, from 1 on.
    pub number: u64,
    /// When its interval began, in milliseconds since 1970.
    pub begin_ms: u64,
    /// When its interval ended, in milliseconds since 1970.
    pub end_ms: u64,
    /// The policy under which the records were collected.
    pub policy: &'batch Policy,
    /// Who gets the records.
    pub recipient: &'batch Recipient,
    /// Whether pseudonyms of domestic IPv4 addresses are a permutation of these.
    pub has_ranks: bool,
    /// The fields that the recipient gets.
    pub fields: Fields,
    /// The interfaces that are watched.
    pub interfaces: &'batch [Interface],
    /// What is in no record that was handed over, since the start, this batch included.
    pub losses: Losses,
    /// How many records follow, the one that stands for what was held back included; 0 where that is not known.
    pub records: u64,
    /// The kernel's tag of the program that collected them, in hexadecimal: a digest of its instructions, the same under every
    /// policy.
    pub program_tag: &'batch str,
}

impl Heading<'_> {
    /// A time as the recipient may know it: rounded down to the unit of its times. One that gets no times may know exact ones.
    #[must_use]
    pub fn rounded(&self, milliseconds: u64) -> u64 {
        let unit = self.recipient.time_unit().map_or(1, |unit| unit.as_millis());
        milliseconds - milliseconds % u64::try_from(unit).unwrap_or(u64::MAX).max(1)
    }

    /// Counts as the recipient may know them: exact if it gets exact ones, else rounded down to a power of two.
    #[must_use]
    pub fn told(&self, counts: Counts) -> Counts {
        let told = |field, count| {
            let is_exact = self.recipient.fields.get(&field) == Some(&Transform::Exact);
            if is_exact { count } else { log2(count) }
        };
        Counts {
            packets: told(Field::PacketDeltaCount, counts.packets),
            octets: told(Field::OctetDeltaCount, counts.octets),
        }
    }
}

/// Packets and octets that are in no record that was handed over, since the start of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Found no room in the tables of the kernel and are in residual counters.
    pub overflow: Counts,
    /// Were in records that no sink handed over.
    pub dropped: Counts,
}

/// An interface by its index and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// Whether what a sink has taken is out of the agent's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Everything that was taken so far is, and the other end has said so.
    Delivered,
    /// What was taken up to that moment is: it was sent, and nothing that the agent could hear refused it. Nobody confirms that
    /// it arrived. The sink may still hold what it took later.
    Sent {
        /// The moment.
        until: Instant,
    },
    /// The sink still holds something, and can lose it until a later call says otherwise.
    Held,
}

/// Why a sink did not take what it was given.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct SinkError {
    /// The reason under which records that are lost by it are counted.
    pub loss: Loss,
    /// What failed, on what, and the fix.
    pub message: String,
    /// Whether the sink has lost what it held.
    pub held_is_lost: bool,
}

impl SinkError {
    /// An error that costs nothing that was taken before.
    #[must_use]
    pub fn new(loss: Loss, message: impl Into<String>) -> Self {
        Self { loss, message: message.into(), held_is_lost: false }
    }
}

/// Takes the records of one recipient. After an error the sender waits, longer each time, and tries again.
///
/// A call may block for a few seconds at most: a collector that does not read is an error, [`Loss::Stalled`].
///
/// A sink does not see every batch: while it fails, batches that have no records give way to later ones.
pub trait Sink: Send {
    /// Begins a batch, or goes on with it after an error. Calls of [`Sink::take`] follow, then one of [`Sink::end`].
    ///
    /// # Errors
    /// When the batch cannot begin now.
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError>;

    /// Takes records of the batch, at most [`CHUNK_RECORDS_MAX`]. Their fields are those of the heading; the one record that
    /// stands for what was held back has counts and times only.
    ///
    /// # Errors
    /// When it took none of them.
    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError>;

    /// Ends the batch.
    ///
    /// # Errors
    /// When it cannot hand on now what it has taken.
    fn end(&mut self) -> Result<Taken, SinkError>;

    /// When to call [`Sink::tend`] although no batch comes; `None` when there is nothing to do.
    fn tend_at(&self) -> Option<Instant> {
        None
    }

    /// Does what is due, such as sending templates again or closing a file. It may be called early.
    ///
    /// # Errors
    /// When it cannot be done now.
    fn tend(&mut self) -> Result<Taken, SinkError> {
        Ok(Taken::Delivered)
    }

    /// Hands on everything that it holds: the agent ends.
    ///
    /// # Errors
    /// When it cannot be done now.
    fn close(&mut self) -> Result<Taken, SinkError>;

    /// Whether the other end confirms what it gets. Without that, nobody knows whether a sink that does not fail works.
    fn is_confirmed(&self) -> bool {
        true
    }

    /// Whether it holds nothing any more of all that it took: a call that returns no [`Taken`], or fails, may have delivered what
    /// earlier ones took. `false` where it cannot tell.
    fn holds_nothing(&self) -> bool {
        false
    }

    /// Octets that it has sent or written since the start.
    fn octets_written(&self) -> u64;

    /// How often it could not delete a file although the retention of the file was over.
    fn retention_failures(&self) -> u64 {
        0
    }
}
