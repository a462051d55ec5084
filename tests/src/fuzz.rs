//! What must hold for any octets at all, as the fuzzers and the tests of their findings check it.

use std::sync::{LazyLock, Mutex};

use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer_common::generation::InterfaceCounters;
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::{Cursor, Split};
use minimizer_ebpf::parser::walk::{Packet, walk};

use crate::drained::drained;

/// Octets of a frame that `BPF_PROG_TEST_RUN` puts in its first buffer.
const LINEAR_OCTETS: usize = 3500;
/// Shorter frames are not run by the kernel.
const KERNEL_OCTETS_MIN: usize = 14;
const IF_INDEX: u32 = 1;
/// Frames between drains.
const DRAIN_EVERY: u64 = 4096;

/// A fuzzer's input: one octet of listed tunnels, two of the first buffer's length, the frame.
struct Input<'input> {
    tunnels: Tunnels,
    first_octets: usize,
    frame: &'input [u8],
}

impl<'input> Input<'input> {
    fn of(octets: &'input [u8]) -> Option<Self> {
        let [tunnels, high, low, frame @ ..] = octets else { return None };
        let tunnels = Tunnels(u32::from(*tunnels) & Tunnels::ALL.0);
        let first_octets = usize::from(u16::from_be_bytes([*high, *low])).min(frame.len());
        Some(Self { tunnels, first_octets, frame })
    }
}

/// An input for the fuzzers: a frame that lies in one buffer whole.
#[must_use]
pub fn input(tunnels: Tunnels, frame: &[u8]) -> Vec<u8> {
    let tunnels = u8::try_from(tunnels.0).expect("few tunnels");
    [&[tunnels, 0xff, 0xff], frame].concat()
}

/// Walks octets that lie in memory of their own, which a sanitizer guards; the outcome, and the octets
/// up to the last one that was read.
fn walked(first: &[u8], octets: usize, tunnels: Tunnels) -> (Result<Packet, Outcome>, usize) {
    let first = first.to_vec().into_boxed_slice();
    let octets = u32::try_from(octets).expect("short");
    let mut cursor = Cursor::over(Split { first: &first, octets });
    let outcome = walk(&mut cursor, tunnels);
    (outcome, usize::try_from(cursor.headers_octets()).expect("short"))
}

/// The walk ends for any octets, reads nothing beyond the first buffer nor behind the headers, and
/// what it says of a frame's length lies within the frame.
///
/// # Panics
/// When it does not hold.
pub fn check_walk(octets: &[u8]) {
    let Some(Input { tunnels, first_octets, frame }) = Input::of(octets) else { return };
    let (outcome, headers_octets) = walked(&frame[..first_octets], frame.len(), tunnels);
    assert!(headers_octets <= first_octets, "read beyond the first buffer");
    if let Ok(packet) = outcome {
        let length = usize::try_from(packet.length_octets).expect("short");
        assert!(length <= frame.len(), "an IP packet longer than its frame");
    }
    // Everything behind the last octet that was read is payload: other octets change nothing, and
    // without them a longer frame says that they are in a further buffer.
    let mut other = frame[..first_octets].to_vec();
    other[headers_octets..].iter_mut().for_each(|octet| *octet = !*octet);
    assert_eq!(walked(&other, frame.len(), tunnels), (outcome, headers_octets), "payload matters");
    // Not even whether they are in this buffer.
    if outcome.is_ok() {
        let (cut, _) = walked(&frame[..headers_octets], frame.len(), tunnels);
        assert_eq!(cut, outcome, "payload was needed");
    }
}

/// The program in the kernel that looks into every tunnel, and the one that looks into none.
static KERNEL: LazyLock<Mutex<[Kernel; 2]>> =
    LazyLock::new(|| Mutex::new([Kernel::new(Tunnels::NONE), Kernel::new(Tunnels::ALL)]));

struct Kernel {
    program: Program,
    tunnels: Tunnels,
    counters: Vec<u64>,
    frames: u64,
}

impl Kernel {
    fn new(tunnels: Tunnels) -> Self {
        let hash_keys = Some(std::array::from_fn::<u64, HASH_KEYS, _>(|index| {
            0x9e37_79b9_7f4a_7c15_u64.rotate_left(u32::try_from(index).expect("few") * 5)
        }));
        let compiled = CompiledPolicy::full_record(tunnels);
        let options =
            Options { flows_per_cpu: 4096, clock: Clock::Control, hash_keys, compiled, ..Options::default() };
        let mut program = Program::load(&options).expect("the program loads");
        program.watch(IF_INDEX, 0).expect("slot 0 exists");
        program.set_time(1000);
        Self { program, tunnels, counters: Self::ZERO.to_vec(), frames: 0 }
    }

    const ZERO: [u64; Outcome::COUNT + 1] = [0; Outcome::COUNT + 1];

    /// Outcomes, and octets that were counted.
    fn counters(&mut self) -> Vec<u64> {
        let generations = self.program.generations();
        let mut sum = Self::ZERO.to_vec();
        for cpu in 0..generations.shape().cpus {
            let InterfaceCounters { outcomes, octets_counted, .. } = generations.counters(cpu, 0);
            for (sum, count) in
                sum.iter_mut().zip(outcomes.iter().take(Outcome::COUNT).chain([&octets_counted]))
            {
                *sum += *count;
            }
        }
        sum
    }

    fn check(&mut self, frame: &[u8]) {
        let first = &frame[..frame.len().min(LINEAR_OCTETS)];
        let (walked, _) = walked(first, frame.len(), self.tunnels);
        self.program.run(frame).expect("the kernel runs it");
        self.counters[walked.err().unwrap_or(Outcome::Counted) as usize] += 1;
        self.counters[Outcome::COUNT] += walked.map_or(0, |packet| u64::from(packet.length_octets));
        assert_eq!(self.counters(), self.counters, "the kernel counts otherwise than {walked:?}");
        self.frames += 1;
        if self.frames.is_multiple_of(DRAIN_EVERY) {
            drained(&mut self.program, &[IF_INDEX]).expect("the kernel flips");
            self.counters = Self::ZERO.to_vec();
        }
    }
}

/// Any frame ends in the kernel as it does on the host, and counts the same octets.
///
/// # Panics
/// When it does not.
pub fn check_kernel(octets: &[u8]) {
    let Some(Input { tunnels, frame, .. }) = Input::of(octets) else { return };
    if !(KERNEL_OCTETS_MIN..=LINEAR_OCTETS).contains(&frame.len()) {
        return;
    }
    let mut kernels = KERNEL.lock().expect("no check failed before");
    kernels[usize::from(!tunnels.is_empty())].check(frame);
}
