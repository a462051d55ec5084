//! Checks in the kernel that no byte behind a packet's headers changes what the program stores.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::thread;

use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::Cursor;
use minimizer_ebpf::parser::walk::walk;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use thiserror::Error;

use crate::kernel::error::ProgramError;
use crate::kernel::prepared::{Clock, Options};
use crate::kernel::program::Program;
use crate::policy::compile::CompiledPolicy;

/// Flows for which the tables are sized: enough for every frame of the check.
const FLOWS_PER_CPU: u32 = 16_384;
/// Most frames that are checked.
pub const FRAMES_MAX: usize = 8192;
/// Lengths of frames that the kernel runs a program on.
const KERNEL_OCTETS: RangeInclusive<usize> = 14..=65_549;
/// The index of the loopback interface, from which the kernel pretends that a test frame comes.
const IF_INDEX: u32 = 1;

/// Why the check did not run.
#[derive(Debug, Error)]
pub enum PayloadCheckError {
    /// The program could not be loaded or run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The thread cannot be pinned to one CPU: each CPU has a table of its own.
    #[error("the check cannot stay on one CPU: {0}")]
    Affinity(#[from] rustix::io::Errno),
    /// The thread of the check did not start or ended early.
    #[error("the check did not run to its end")]
    Thread,
}

/// What the check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadCheck {
    /// Frames that the program was run on, twice each.
    pub frames: u64,
    /// Bytes of those frames that were inverted for the second run.
    pub inverted_octets: u64,
    /// Bytes of map memory that were compared.
    pub map_octets: u64,
    /// Whether both runs left the same map memory, bit for bit, and gave the same verdicts.
    pub passed: bool,
}

/// Runs the program in the kernel on every frame, and a second program with the same keys on the
/// frames with every byte behind the headers inverted; then compares everything that they stored.
///
/// # Errors
/// See [`PayloadCheckError`].
pub fn check(frames: &[Vec<u8>], compiled: &Arc<CompiledPolicy>) -> Result<PayloadCheck, PayloadCheckError> {
    compare(frames, compiled, |frame| headers_octets(frame, compiled.policy.tunnels)..frame.len())
}

/// As [`check`], with the part of each frame inverted that `part` selects.
///
/// # Errors
/// See [`PayloadCheckError`].
pub fn compare(
    frames: &[Vec<u8>],
    compiled: &Arc<CompiledPolicy>,
    part: impl Fn(&[u8]) -> Range<usize> + Sync,
) -> Result<PayloadCheck, PayloadCheckError> {
    // A thread of its own, because it is pinned: every CPU has its own table.
    thread::scope(|scope| {
        let check = thread::Builder::new().name("payload-check".to_owned()).spawn_scoped(scope, || {
            let mut cpu = CpuSet::new();
            cpu.set(sched_getcpu());
            sched_setaffinity(None, &cpu)?;
            compare_here(frames, compiled, &part)
        });
        check.map_err(|_| PayloadCheckError::Thread)?.join().unwrap_or(Err(PayloadCheckError::Thread))
    })
}

fn compare_here(
    frames: &[Vec<u8>],
    compiled: &Arc<CompiledPolicy>,
    part: impl Fn(&[u8]) -> Range<usize>,
) -> Result<PayloadCheck, PayloadCheckError> {
    let mut plain = load(compiled)?;
    let mut inverted = load(compiled)?;
    let mut check = PayloadCheck { frames: 0, inverted_octets: 0, map_octets: 0, passed: true };
    for frame in frames.iter().filter(|frame| KERNEL_OCTETS.contains(&frame.len())).take(FRAMES_MAX) {
        let mut altered = frame.clone();
        // A truncated header ends behind the frame: nothing is left to invert.
        let inverted_part = altered.get_mut(part(frame)).unwrap_or(&mut []);
        inverted_part.iter_mut().for_each(|byte| *byte = !*byte);
        check.frames += 1;
        check.inverted_octets += u64::try_from(inverted_part.len()).unwrap_or(u64::MAX);
        check.passed &= plain.run(frame)? == inverted.run(&altered)?;
    }
    let (stored, stored_inverted) = (plain.generations().dump(), inverted.generations().dump());
    check.map_octets = u64::try_from(stored.len() * size_of::<u64>()).unwrap_or(u64::MAX);
    check.passed &= stored == stored_inverted;
    Ok(check)
}

/// A key that is no secret.
struct KnownKey;

impl AsRef<[u64; 2]> for KnownKey {
    fn as_ref(&self) -> &[u64; 2] {
        &[1, 2]
    }
}

fn load(compiled: &Arc<CompiledPolicy>) -> Result<Program, ProgramError> {
    // Equal keys put equal tuples into equal slots. Fixed keys are safe: no foreign traffic reaches these tables.
    let mut key = 0x9e37_79b9_7f4a_7c15_u64;
    let hash_keys = std::array::from_fn(|_| {
        key = key.rotate_left(5);
        key | 1
    });
    let options = Options {
        flows_per_cpu: FLOWS_PER_CPU,
        clock: Clock::Control,
        hash_keys: Some(hash_keys),
        compiled: Arc::clone(compiled),
        ..Options::default()
    };
    let mut program = Program::load(&options)?;
    program.watch(IF_INDEX, 0)?;
    // Both programs must make the same pseudonyms.
    program.generations().set_first_pseudonym_key(Arc::new(KnownKey));
    program.set_time(1000);
    Ok(program)
}

/// Octets of the headers that the parser reads.
fn headers_octets(frame: &[u8], tunnels: Tunnels) -> usize {
    let mut cursor = Cursor::over(frame);
    // However the walk ends, what it has read is header.
    let _ = walk(&mut cursor, tunnels);
    usize::try_from(cursor.headers_octets()).unwrap_or(usize::MAX)
}
