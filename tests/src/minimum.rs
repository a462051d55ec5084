//! Runs frames through the program under a policy and compares all that it stores with the reference.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use minimizer::kernel::features::Kernel;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::field::Field;
use minimizer::policy::model::Policy;
use minimizer::records::drain::ProtocolPackets;
use minimizer::records::record::Record;
use minimizer::support::sys::secret::Secret;
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::{Cursor, Scoped};
use minimizer_ebpf::parser::walk::{Packet, walk};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use crate::drained::drained;
use crate::packets::Generator;
use crate::policies;
use crate::records::FlowCounts;
use crate::reference::{self, Arrived, Key};

/// The index of the interface that the kernel pretends a test frame comes from.
pub const IF_INDEX: u32 = 1;
/// Key of the pseudonyms.
pub const PSEUDONYM_KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
/// When the first frame comes.
pub const START_MS: u64 = 1_700_000_000_000;
/// Longest pause between frames.
const PAUSE_MS_MAX: u64 = 400;
/// Frames that the kernel runs.
const OCTETS_MIN: usize = 14;

/// A frame, and what the parser makes of it with no tunnel and with every tunnel listed.
pub struct Frame {
    /// Its octets.
    pub octets: Vec<u8>,
    walked: [Result<Packet, Outcome>; 2],
    /// The same under a policy with a scope.
    walked_with_scope: [Result<Packet, Outcome>; 2],
}

impl Frame {
    /// Parses a frame.
    #[must_use]
    pub fn new(octets: Vec<u8>) -> Self {
        let both = [Tunnels::NONE, Tunnels::ALL];
        let walked = both.map(|tunnels| walk(&mut Cursor::over(&*octets), tunnels));
        let walked_with_scope = both.map(|tunnels| walk(&mut Cursor::over(Scoped(&octets)), tunnels));
        Self { octets, walked, walked_with_scope }
    }

    /// What it is under a policy that lists no tunnel or all of them.
    ///
    /// # Errors
    /// How it ends.
    pub fn packet(&self, policy: &Policy) -> Result<Packet, Outcome> {
        let walked = if policy.scope.is_some() { self.walked_with_scope } else { self.walked };
        walked[usize::from(!policy.tunnels.is_empty())]
    }

    /// The outer packet, if the packet is in a tunnel under the policy.
    #[must_use]
    pub fn outer(&self, policy: &Policy) -> Option<Packet> {
        let [outer, inner] = self.walked;
        (!policy.tunnels.is_empty() && outer != inner).then_some(outer).and_then(Result::ok)
    }

    /// Frames drawn at random.
    #[must_use]
    pub fn draw(seed: u64, count: usize) -> Vec<Self> {
        let mut generator = Generator::new(seed);
        let frames = std::iter::repeat_with(|| generator.packet().octets);
        frames.filter(|frame| frame.len() >= OCTETS_MIN).take(count).map(Self::new).collect()
    }
}

/// Packets in frames, inside of tunnels and outside.
#[must_use]
pub fn packets(frames: &[Frame]) -> Vec<Packet> {
    frames.iter().flat_map(|frame| frame.walked.iter().flatten().copied()).collect()
}

/// The moment at which the first frame comes.
#[must_use]
pub fn start() -> Timestamp {
    let milliseconds = i64::try_from(START_MS).expect("fits");
    Timestamp::from_millisecond(milliseconds).expect("a time")
}

/// The program under a policy, for frames that are given to it.
///
/// # Errors
/// When the kernel refuses it.
pub fn load(
    kernel: Kernel,
    compiled: &Arc<CompiledPolicy>,
    hash_keys: Option<[u64; HASH_KEYS]>,
) -> Result<Program> {
    let compiled = Arc::clone(compiled);
    let options =
        Options { flows_per_cpu: 512, clock: Clock::Control, hash_keys, compiled, ..Options::default() };
    let mut program = Program::load_for(kernel, &options)?;
    program.watch(IF_INDEX, 0)?;
    program.generations().set_first_pseudonym_key(Arc::new(Secret::copy_of(&PSEUDONYM_KEY)?));
    program.set_time_base(START_MS);
    Ok(program)
}

/// What was compared.
#[derive(Debug)]
pub struct Compared {
    /// Packets by outcome.
    pub outcomes: [u64; Outcome::COUNT],
    /// The records.
    pub records: Vec<Record>,
}

/// Runs frames, with pauses of `seed`, under a policy, and compares outcomes and records with the reference.
///
/// # Errors
/// What differs.
pub fn compare(kernel: Kernel, policy: Policy, frames: &[Frame], seed: u64) -> Result<Compared> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let compiled = Arc::new(CompiledPolicy::compile(policy)?);
    let (policy, collected) = (&compiled.policy, &compiled.collected);
    let mut program = load(kernel, &compiled, None)?;
    let mut expected: HashMap<Key, FlowCounts> = HashMap::new();
    let mut expected_outcomes = [0; Outcome::COUNT];
    let mut time_ms = START_MS;
    for frame in frames {
        time_ms += random.random_range(0..PAUSE_MS_MAX);
        program.set_time(time_ms);
        program.run(&frame.octets)?;
        let packet = frame.packet(policy);
        let stored = packet.and_then(|packet| {
            let arrived = Arrived { outer: frame.outer(policy), interface: IF_INDEX, time_ms };
            reference::stored(policy, collected, &packet, &arrived, PSEUDONYM_KEY)
        });
        expected_outcomes[stored.as_ref().err().copied().unwrap_or(Outcome::Counted) as usize] += 1;
        let (Ok(packet), Ok(stored)) = (packet, stored) else { continue };
        let first = || FlowCounts::from_start(stored.start_ms);
        let counts = expected.entry(stored.key.clone()).or_insert_with(first);
        counts.add(u64::from(packet.length_octets), stored.control_bits, stored.end_ms);
    }

    let (records, totals) = drained(&mut program, &[IF_INDEX])?;
    let outcomes = totals.interfaces[0].outcomes;
    ensure!(outcomes == expected_outcomes, "{outcomes:?}, not {expected_outcomes:?} under {policy:#?}");
    let (mut selected, mut protocols) = (BTreeMap::new(), ProtocolPackets::default());
    for record in &records {
        if record.selector_id != 0 {
            *selected.entry(record.selector_id).or_default() += record.packets;
        }
        if collected.has_protocols() {
            let class = match record.tuple.protocol() {
                6 => 0,
                17 => 1,
                1 | 58 => 2,
                _ => 3,
            };
            protocols[usize::from(record.tuple.tags().is_ipv6())][class] += record.packets;
        }
    }
    ensure!(totals.selected == selected, "{:?}, not {selected:?} under {policy:#?}", totals.selected);
    let counted = totals.interfaces[0].protocols;
    ensure!(counted == protocols, "{counted:?}, not {protocols:?} under {policy:#?}");
    let time_of = |field, time_ms| if collected.fields.contains_key(&field) { time_ms } else { 0 };
    for record in &records {
        let key = Key::of(record);
        let counts = FlowCounts {
            start_ms: time_of(Field::FlowStartMilliseconds, record.start_ms),
            end_ms: time_of(Field::FlowEndMilliseconds, record.end_ms),
            ..FlowCounts::from(record)
        };
        let found = expected.remove(&key);
        ensure!(found.as_ref() == Some(&counts), "{key:?}: {counts:?}, not {found:?} under {policy:#?}");
    }
    ensure!(expected.is_empty(), "not in the kernel: {expected:#?} under {policy:#?}");
    Ok(Compared { outcomes, records })
}

/// Draws frames and a policy that has to do with them, and compares.
///
/// # Errors
/// What differs.
pub fn compare_drawn(kernel: Kernel, seed: u64, frames: usize) -> Result<Compared> {
    let frames = Frame::draw(1000 + seed, frames);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let policy = policies::draw(&mut random, &packets(&frames), start());
    compare(kernel, policy, &frames, seed)
}
