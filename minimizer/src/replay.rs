//! `replay`: every frame of a capture through the program in the kernel, and its records.

use std::path::Path;

use minimizer_common::outcome::Outcome;
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::cursor::Cursor;
use minimizer_ebpf::walk::walk;
use thiserror::Error;

use crate::drain::{Records, drain};
use crate::ledger::Ledger;
use crate::pcap::{Capture, CaptureError, Frame};
use crate::policy::Policy;
use crate::program::{Clock, FULL_RECORD_UNIT_NS, Options, Program, ProgramError};
use crate::record::Record;

/// Name of the only interface in the ledger of a replay.
pub const INTERFACE: &str = "replay";
/// The interface index from which the kernel pretends that a test frame comes: loopback.
pub const IF_INDEX: u32 = 1;
/// Octets of the shortest frame that the kernel runs a program on.
const KERNEL_OCTETS_MIN: usize = 14;
/// Octets of the longest frame that the kernel runs a program on, with some to spare: an IP packet
/// is at most 65,535 octets, and what lies behind it is neither read nor counted.
const KERNEL_OCTETS_MAX: usize = 70_000;
/// Frames between drains: as many flows as they can be never fill the table.
const FRAMES_PER_DRAIN: u32 = 65_536;

/// Why a replay ended early. What was replayed before is complete and correct.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The capture cannot be read, or not to its end.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The program cannot be loaded or run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// What a replay yields.
#[derive(Debug)]
pub struct Replayed {
    /// One record for each distinct tuple, by time and tuple.
    pub records: Vec<Record>,
    /// Where every frame went.
    pub ledger: Ledger,
    /// What ended the replay before the end of the capture.
    pub error: Option<ReplayError>,
}

/// Replays a capture.
///
/// # Errors
/// When it does not begin: the capture does not open or the program does not load. What happens
/// later is in [`Replayed::error`].
pub fn replay(path: &Path, policy: Policy) -> Result<Replayed, ReplayError> {
    let capture = Capture::open(path)?;
    let mut replay = Replay::new(policy)?;
    let error = replay.frames(capture).err();
    replay.drain()?;
    let mut records = replay.records.take();
    records.sort_unstable_by_key(|record| (record.start_ms, record.tuple));
    Ok(Replayed { records, ledger: replay.ledger, error })
}

struct Replay {
    program: Program,
    records: Records,
    ledger: Ledger,
    since_drain: u32,
    /// Time unit of the latest frame.
    units: u64,
}

impl Replay {
    fn new(policy: Policy) -> Result<Self, ReplayError> {
        let options = Options {
            flows_per_cpu: FRAMES_PER_DRAIN,
            clock: Clock::Control,
            tunnels: policy.tunnels,
            ..Options::default()
        };
        let mut program = Program::load(&options)?;
        program.watch(IF_INDEX, 0)?;
        let ledger = Ledger::new(vec![INTERFACE.to_owned()]);
        Ok(Self { program, records: Records::new(vec![IF_INDEX]), ledger, since_drain: 0, units: 0 })
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
            // The kernel refuses to run on less than an Ethernet header; the same walk says what
            // such a frame is.
            let outcome =
                walk(&mut Cursor::over(octets), Tunnels::NONE).err().unwrap_or(Outcome::EthernetTruncated);
            self.ledger.add_outcome(0, outcome, u64::from(frame.original_octets));
            return Ok(());
        }
        // A slot stores 32 bits; a capture may claim any time, and one that wrapped would seem early.
        let units = (frame.time_ns / FULL_RECORD_UNIT_NS).min(u64::from(u32::MAX));
        if units < self.units {
            // A slot takes its latest packet for its last: merged captures go back in time.
            self.drain()?;
        }
        self.units = units;
        self.program.set_time(units);
        self.program.run(octets)?;
        Ok(())
    }

    /// Empties the table into the records, which are all handed over in the end.
    fn drain(&mut self) -> Result<(), ReplayError> {
        let time = self.program.time();
        let mut quiet = self.program.generations().flip().map_err(ProgramError::from)?;
        let totals = drain(&mut quiet, &mut self.records, |units| time.milliseconds(units));
        self.ledger.add(&totals);
        self.ledger.add_exported(totals.recorded);
        self.since_drain = 0;
        Ok(())
    }
}
