//! Batches for sinks, and how they are brought to one.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use minimizer::delivery::loss::Loss;
use minimizer::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Losses, Sink, SinkError, Taken};
use minimizer::policy::field::Fields;
use minimizer::policy::model::Policy;
use minimizer::records::record::Record;
use minimizer_common::tuple::{Tags, Tuple};

/// Longest wait for what must come.
pub const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// The begin of the interval that would have the number 0.
pub const BEGIN_MS: u64 = 1_795_000_000_000;

/// Distinct records of all transports and both IP versions.
#[must_use]
pub fn records(count: u32) -> Vec<Record> {
    let record = |number: u32| {
        let spread = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let protocol = [6, 17, 1, 58, 47][number as usize % 5];
        let octets = spread.to_be_bytes();
        let ports = (u16::from(octets[1]), u16::from(octets[3] & 0x3f));
        let interface = Tags::NONE.with_interface(1);
        let (addresses, tags) = if protocol == 58 || number.is_multiple_of(2) {
            ([spread, u64::from(number), !spread, 7], interface.with_ipv6())
        } else {
            ([u64::from(number) << 32 | spread >> 32, 0, 0, 0], interface)
        };
        Record {
            tuple: Tuple::new(addresses, ports, tags, protocol, 0),
            ingress_interface: 2,
            control_bits: if protocol == 6 { 0x1b } else { 0 },
            packets: u64::from(number % 97) + 1,
            octets: u64::from(number) + 40,
            start_ms: BEGIN_MS + u64::from(number % 10) * 1000,
            end_ms: BEGIN_MS + u64::from(number % 10 + 1) * 1000,
            selector_id: 0,
        }
    };
    (0..count).map(record).collect()
}

/// Batches of the built-in policy of laboratories.
pub struct Batches {
    /// The policy.
    pub policy: Policy,
}

impl Batches {
    /// None yet.
    ///
    /// # Errors
    /// When there is no such policy.
    pub fn new() -> Result<Self> {
        Ok(Self { policy: Policy::load("full-record", &[])? })
    }

    /// The fields of their records.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.policy.recipients[0].fields.keys().copied().collect()
    }

    /// What stands over the batch of that number.
    #[must_use]
    pub fn heading(&self, number: u64) -> Heading<'_> {
        Heading {
            number,
            begin_ms: BEGIN_MS + number * 10_000,
            end_ms: BEGIN_MS + (number + 1) * 10_000,
            policy: &self.policy,
            recipient: &self.policy.recipients[0],
            has_ranks: false,
            fields: self.fields(),
            interfaces: &[],
            losses: Losses::default(),
            records: 0,
            program_tag: "0123456789abcdef",
        }
    }
}

/// Brings a batch to the sink as a sender does; returns why it had to try again.
///
/// # Errors
/// When it does not succeed in a minute, or something held is lost.
pub fn bring(sink: &mut dyn Sink, heading: &Heading<'_>, records: &[Record]) -> Result<Vec<Loss>> {
    let (begin, mut losses, mut next) = (Instant::now(), Vec::new(), 0);
    while let Err(error) = attempt(sink, heading, records, &mut next) {
        ensure!(!error.held_is_lost && begin.elapsed() < WAIT_LIMIT, "{error}");
        losses.push(error.loss);
        // Paces attempts; nothing depends on it.
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(losses)
}

/// Brings what comes from `next` on, once.
///
/// # Errors
/// Those of the sink.
pub fn attempt(
    sink: &mut dyn Sink,
    heading: &Heading<'_>,
    records: &[Record],
    next: &mut usize,
) -> Result<(), SinkError> {
    sink.begin(heading)?;
    while *next < records.len() {
        let chunk = &records[*next..records.len().min(*next + CHUNK_RECORDS_MAX)];
        sink.take(chunk, heading.fields)?;
        *next += chunk.len();
    }
    sink.end()?;
    Ok(())
}

/// Waits until everything that the sink holds is delivered.
///
/// # Errors
/// When it is not in a minute.
pub fn settle(sink: &mut dyn Sink) -> Result<()> {
    let begin = Instant::now();
    loop {
        match sink.tend() {
            Ok(Taken::Delivered) => return Ok(()),
            result => ensure!(begin.elapsed() < WAIT_LIMIT, "{result:?}"),
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}
