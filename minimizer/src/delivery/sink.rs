//! Sinks: where the records of a recipient go, and what becomes of each of them.
//!
//! Each sink has a queue of its own, with a bounded queue, and a sender, which is a thread: the drain waits for none of
//! them, and none of them for another.

use std::time::Instant;

use thiserror::Error;

use crate::delivery::ledger::Ledger;
use crate::delivery::loss::Loss;
use crate::policy::field::Fields;
use crate::policy::model::{Policy, Recipient};
use crate::records::record::Record;

/// Records that a sink is given at once, at most.
pub const CHUNK_RECORDS_MAX: usize = 4096;

/// What stands over the records of a batch.
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
    /// Who gets them.
    pub recipient: &'batch Recipient,
    /// The fields of its records.
    pub fields: Fields,
    /// The interfaces that are watched.
    pub interfaces: &'batch [Interface],
    /// Totals since the start, this batch included.
    pub ledger: &'batch Ledger,
    /// The kernel's digest of the program that collected them, in hexadecimal.
    pub program_tag: &'batch str,
}

/// An interface by its index and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// Whether what a sink took is out of the agent's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Everything taken so far is.
    Delivered,
    /// Something is still held, and can be lost until a later call says [`Taken::Delivered`].
    Held,
}

/// Why a sink did not take what it was given.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct SinkError {
    /// Under which reason records are counted that are lost by it.
    pub loss: Loss,
    /// What failed, on what, and the fix.
    pub message: String,
    /// Whether what the sink held is lost.
    pub held_is_lost: bool,
}

impl SinkError {
    /// An error that costs nothing that was taken before.
    #[must_use]
    pub fn new(loss: Loss, message: impl Into<String>) -> Self {
        Self { loss, message: message.into(), held_is_lost: false }
    }
}

/// Takes the records of one recipient. After an error a sender waits, longer each time, and tries again.
///
/// A call may block, but no longer than a few seconds: a collector that does not read is an error, [`Loss::Stalled`].
pub trait Sink: Send {
    /// Begins a batch, or goes on with one after an error. Calls of [`Sink::take`] follow, then [`Sink::end`].
    ///
    /// # Errors
    /// When the batch cannot begin now.
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError>;

    /// Takes records of the batch, at most [`CHUNK_RECORDS_MAX`], with these fields: those of the heading, or, for the
    /// one record that is made of what too few sources made, counts and times only.
    ///
    /// # Errors
    /// When none of them were taken.
    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError>;

    /// Ends the batch.
    ///
    /// # Errors
    /// When what was taken cannot be handed on now.
    fn end(&mut self) -> Result<Taken, SinkError>;

    /// When [`Sink::tend`] is to be called although no batch comes; `None` when there is nothing to do.
    fn tend_at(&self) -> Option<Instant> {
        None
    }

    /// Does what time asks for: templates sent again, a file closed. May be called early.
    ///
    /// # Errors
    /// When it cannot be done now.
    fn tend(&mut self) -> Result<Taken, SinkError> {
        Ok(Taken::Delivered)
    }

    /// Hands on everything that is held: the agent ends.
    ///
    /// # Errors
    /// When it cannot be done now.
    fn close(&mut self) -> Result<Taken, SinkError>;

    /// Octets that left the agent, or were written, since the start.
    fn octets_written(&self) -> u64;
}
