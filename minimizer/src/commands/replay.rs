//! `replay`: runs every frame of a capture through the program in the kernel and yields the records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::Cursor;
use minimizer_ebpf::parser::walk::walk;
use thiserror::Error;

use crate::commands::pcap::{Capture, CaptureError, Frame};
use crate::delivery::ledger::Ledger;
use crate::kernel::error::ProgramError;
use crate::kernel::prepared::{Clock, Options};
use crate::kernel::program::Program;
use crate::policy::compile::CompiledPolicy;
use crate::policy::field::Fields;
use crate::records::drain::drain;
use crate::records::keys::KeyError;
use crate::records::merge::Merge;
use crate::records::packed::{Packing, SlotDecoder};
use crate::records::record::Record;
use crate::records::terms::{Keyring, NoRecipient, Terms};

/// Name of the only interface in the ledger of a replay.
pub const INTERFACE: &str = "replay";
/// Index of the interface that the kernel names for test frames: loopback.
pub const IF_INDEX: u32 = 1;
/// Octets of the shortest frame that the kernel runs a program on.
const KERNEL_OCTETS_MIN: usize = 14;
/// Longer frames are cut to so many octets. The kernel refuses much longer ones, and an IP packet has at most 65,535: what
/// lies behind it is neither read nor counted.
const KERNEL_OCTETS_MAX: usize = 70_000;
/// Frames between drains. Even if each is a flow of its own, they fit into the table.
const FRAMES_PER_DRAIN: u32 = 65_536;

/// Why a replay ended early. What was replayed before is complete and correct.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The capture cannot be read to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The program cannot be loaded or run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// No key for pseudonyms.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The policy has no such recipient.
    #[error(transparent)]
    Recipient(#[from] NoRecipient),
}

/// What a replay yields.
#[derive(Debug)]
pub struct Replayed {
    /// One record for each distinct tuple that the recipient sees, by time and tuple.
    pub records: Vec<Record>,
    /// Their fields.
    pub fields: Fields,
    /// The sum of what was held back, and its fields.
    pub residual: Option<(Record, Fields)>,
    /// What became of every frame.
    pub ledger: Ledger,
    /// The kernel's tag of the program, in hexadecimal: a digest of its instructions, the same under every policy.
    pub program_tag: String,
    /// What ended the replay before the end of the capture.
    pub error: Option<ReplayError>,
}

/// Replays a capture and shows what `recipient` would see of it; the first recipient when none is named.
///
/// # Errors
/// If it cannot begin: the capture does not open or the program does not load. Later errors are in [`Replayed::error`].
pub fn replay(
    path: &Path,
    compiled: &Arc<CompiledPolicy>,
    mut keyring: Keyring,
    recipient: Option<&str>,
) -> Result<Replayed, ReplayError> {
    let capture = Capture::open(path)?;
    let terms = keyring.terms(compiled, Timestamp::now())?;
    let view = terms.view(recipient)?;
    let mut replay = Replay::new(&terms)?;
    let error = replay.frames(capture).err();
    replay.drain()?;
    let records = replay.records.take();
    let viewed = view.of(&records);
    let mut shown = viewed.records.into_owned();
    // No two records have the same tuple and indicator, so that nothing of the kernel's order is left.
    shown.sort_unstable_by_key(|record| (record.start_ms, record.tuple, record.selector_id));
    replay.ledger.add_exported(replay.recorded, viewed.suppressed);
    if error.is_none() {
        replay.ledger.complete();
    }
    let residual = viewed.residual.map(|record| (record, view.residual_fields()));
    let program_tag = replay.program.tag()?;
    Ok(Replayed {
        records: shown,
        fields: view.fields(),
        residual,
        ledger: replay.ledger,
        program_tag,
        error,
    })
}

/// Replays a capture and yields what the kernel stored of each interval of so many milliseconds, from the first on. Intervals are
/// by the times of the frames, and those without records are left out.
///
/// # Errors
/// See [`ReplayError`].
pub fn intervals(path: &Path, terms: &Terms, interval_ms: u64) -> Result<Vec<Vec<Record>>, ReplayError> {
    let capture = Capture::open(path)?;
    let mut replay = Replay::new(terms)?;
    let mut intervals: BTreeMap<u64, Merge<Record>> = BTreeMap::new();
    let mut current = 0;
    for frame in capture {
        let frame = frame?;
        let number = frame.time_ns / 1_000_000 / interval_ms.max(1);
        if number != current || replay.since_drain == FRAMES_PER_DRAIN {
            replay.drain()?;
            replay.move_records(intervals.entry(current).or_default());
            current = number;
        }
        replay.frame(&frame)?;
        replay.since_drain += 1;
    }
    replay.drain()?;
    replay.move_records(intervals.entry(current).or_default());
    let records = intervals.into_values().map(|mut merge| merge.take());
    Ok(records.filter(|records| !records.is_empty()).collect())
}

struct Replay {
    program: Program,
    packing: Packing,
    /// Merged over all drains. A long capture has several, and each may have a time base of its own.
    records: Merge<Record>,
    ledger: Ledger,
    /// Packets and octets in the records.
    recorded: Counts,
    since_drain: u32,
    /// Time of the latest frame, in milliseconds since 1970; `None` before the first.
    latest_ms: Option<u64>,
}

impl Replay {
    fn new(terms: &Terms) -> Result<Self, ReplayError> {
        let options = Options {
            flows_per_cpu: FRAMES_PER_DRAIN,
            clock: Clock::Control,
            compiled: Arc::clone(&terms.compiled),
            ..Options::default()
        };
        let mut program = Program::load(&options)?;
        program.watch(IF_INDEX, 0)?;
        if let Some(key) = terms.pseudonym_key() {
            program.generations().set_first_pseudonym_key(key);
        }
        let ledger = Ledger::new(vec![INTERFACE.to_owned()]);
        let recorded = Counts::default();
        let (packing, records) = Default::default();
        Ok(Self { program, packing, records, ledger, recorded, since_drain: 0, latest_ms: None })
    }

    fn frames(&mut self, capture: Capture) -> Result<(), ReplayError> {
        for frame in capture {
            self.frame(&frame?)?;
            self.since_drain += 1;
            if self.since_drain == FRAMES_PER_DRAIN {
                self.drain()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), ReplayError> {
        let octets = &frame.data[..frame.data.len().min(KERNEL_OCTETS_MAX)];
        if octets.len() < KERNEL_OCTETS_MIN {
            // The kernel refuses frames that are shorter than an Ethernet header. The same walk, on the host, gives their
            // outcome.
            let outcome =
                walk(&mut Cursor::over(octets), Tunnels::NONE).err().unwrap_or(Outcome::EthernetTruncated);
            self.ledger.add_outcome(0, outcome, u64::from(frame.original_octets));
            return Ok(());
        }
        self.set_time(frame.time_ns / 1_000_000)?;
        self.program.run(octets)?;
        Ok(())
    }

    /// Sets the program's time. A slot assumes that time does not go back and stores 32 bits of it, but a merged capture goes
    /// back and a capture may claim any time: then the table is drained and gets another time base.
    fn set_time(&mut self, time_ms: u64) -> Result<(), ReplayError> {
        let time = self.program.time();
        let is_storable = time_ms / time.unit_ms <= time.base + u64::from(u32::MAX);
        if self.latest_ms.is_none_or(|latest_ms| time_ms < latest_ms || !is_storable) {
            self.drain()?;
            self.program.set_time_base(time_ms);
        }
        self.latest_ms = Some(time_ms);
        self.program.set_time(time_ms);
        Ok(())
    }

    /// Adds the records to others.
    fn move_records(&mut self, others: &mut Merge<Record>) {
        for record in self.records.take() {
            others.add(record);
        }
    }

    /// Drains the table into the records.
    fn drain(&mut self) -> Result<(), ReplayError> {
        let decoder = SlotDecoder::new(self.program.compiled(), self.program.time(), &[IF_INDEX]);
        let mut quiet = self.program.generations().flip().map_err(ProgramError::from)?;
        let (packed, totals) = drain(&mut quiet, &mut self.packing, decoder);
        for record in packed.iter() {
            self.records.add(record);
        }
        self.ledger.add(&totals);
        self.recorded.packets += totals.recorded.packets;
        self.recorded.octets += totals.recorded.octets;
        self.since_drain = 0;
        Ok(())
    }
}
