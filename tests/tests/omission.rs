//! What a policy leaves out is nowhere: not in any map, whatever the frames are, and not in the loaded program.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

use minimizer::kernel::features::Kernel;
use minimizer::kernel::program::Program;
use minimizer::policy::class::Class;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::field::Field;
use minimizer::policy::model::{Policy, Recipient, Scope};
use minimizer::policy::prefixes::Prefix;
use minimizer_common::generation::{Head, InterfaceCounters, Shape};
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::Control;
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tunnel::Tunnels;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use tests::bare::Bare;
use tests::minimum::{Frame, IF_INDEX, PSEUDONYM_KEY, START_MS, load, packets, start};
use tests::policies;
use tests::reference::{self, Arrived};

const POLICIES: u64 = 60;
const FRAMES: usize = 150;
/// First octets of addresses, so that prefixes and indicators of one frame have to do with others.
const NETWORKS: [&[[u8; 4]]; 2] =
    [&[[192, 0, 2, 0], [198, 51, 100, 0]], &[[0x20, 0x01, 0x0d, 0xb8], [0x20, 0x01, 0x0d, 0xb9]]];

fn stay_on_this_cpu() {
    let cpu = rustix::thread::sched_getcpu();
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    rustix::thread::sched_setaffinity(None, &one).expect("it is among the allowed ones");
}

fn keys() -> [u64; HASH_KEYS] {
    std::array::from_fn(|index| 0x9e37_79b9_7f4a_7c15_u64.rotate_left(5 * u32::try_from(index).expect("few")))
}

fn program(policy: Policy) -> (Program, Arc<CompiledPolicy>) {
    let compiled = Arc::new(CompiledPolicy::compile(policy).expect("the policy fits"));
    (load(Kernel::detect(), &compiled, Some(keys())).expect("the program loads"), compiled)
}

fn run(program: &mut Program, bare: &Bare, random: &mut ChaCha8Rng) {
    program.set_time(bare.time_ms);
    program.run(&bare.frame(random)).expect("the kernel runs it");
}

/// Two frames of which a policy leaves the same leave the same memory, bit for bit: whoever has all maps cannot
/// tell which it was, and so knows nothing of what was left out.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_is_left_out_changes_no_bit_of_any_map() {
    stay_on_this_cpu();
    let mut altered_fields = 0;
    let mut pairs = 0;
    for seed in 0..POLICIES {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let originals: Vec<_> = (0..FRAMES).map(|_| Bare::draw(&mut random, START_MS, NETWORKS)).collect();
        let frames: Vec<_> = originals.iter().map(|bare| Frame::new(bare.frame(&mut random))).collect();
        let policy =
            Policy { tunnels: Tunnels::NONE, ..policies::draw(&mut random, &packets(&frames), start()) };
        let (mut one, compiled) = program(policy.clone());
        let (mut other, _) = program(policy.clone());
        let stored = |bare: &Bare, random: &mut ChaCha8Rng| {
            let frame = Frame::new(bare.frame(random));
            let arrived = Arrived { outer: None, interface: IF_INDEX, time_ms: bare.time_ms };
            reference::stored(&policy, &compiled.collected, &frame.packet(&policy)?, &arrived, PSEUDONYM_KEY)
        };
        for original in &originals {
            let altered = original.altered(&mut random, &compiled.collected);
            // A bit may also decide a class or an indicator: then the policy does not leave the same.
            if stored(original, &mut random) != stored(&altered, &mut random) {
                continue;
            }
            pairs += 1;
            altered_fields += [
                original.addresses != altered.addresses,
                original.ports != altered.ports,
                original.control_bits != altered.control_bits,
                original.traffic_class != altered.traffic_class,
                original.vlan_ids != altered.vlan_ids,
                original.time_ms != altered.time_ms,
            ]
            .iter()
            .filter(|differs| **differs)
            .count();
            run(&mut one, original, &mut random);
            run(&mut other, &altered, &mut random);
        }
        let clock = clock(&mut one);
        let (one, other) = (one.generations().dump(), other.generations().dump());
        let words = one.iter().zip(&other).enumerate();
        let differing = words.filter(|(word, (one, other))| one != other && !clock.contains(word)).count();
        assert_eq!(differing, 0, "seed {seed}: words of the maps under {policy:#?}");
    }
    assert!(pairs > 5000 && altered_fields > pairs, "{pairs} pairs, {altered_fields} fields");
    println!(
        "{POLICIES} policies: {pairs} pairs of frames, {altered_fields} fields altered, no word of a map differs"
    );
}

/// Where the agent tells the program the time: words of a generation.
fn clock(program: &mut Program) -> BTreeSet<usize> {
    let Shape { cpus, .. } = program.generations().shape();
    let first = offset_of!(Head, control) + offset_of!(Control, clock);
    (0..cpus as usize).map(|cpu| first / size_of::<u64>() + cpu * run_words(program)).collect()
}

fn run_words(program: &mut Program) -> usize {
    usize::try_from(program.generations().shape().run_bytes()).expect("fits") / size_of::<u64>()
}

/// A packet within the country leaves its counters, and nothing else.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn domestic_packets_leave_no_trace_but_their_counter() {
    stay_on_this_cpu();
    let prefix = |octets: [u8; 4], ipv6, bits| {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&octets);
        (Prefix { ipv6, octets: address, bits }, Class::Domestic)
    };
    let mut policy = Policy::load("full-record", &[]).expect("is built in");
    let prefixes = vec![
        prefix([192, 0, 2, 0], false, 24),
        prefix([198, 51, 100, 0], false, 24),
        prefix([0x20, 0x01, 0x0d, 0xb8], true, 31),
    ];
    let directions = vec![
        (Class::Foreign, Class::Foreign),
        (Class::Foreign, Class::Domestic),
        (Class::Domestic, Class::Foreign),
    ];
    policy.scope = Some(Scope { prefixes, directions });
    let (mut program, _) = program(policy);
    let before = program.generations().dump();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut octets = 0;
    let packets = 2000;
    for _ in 0..packets {
        let bare = Bare::draw(&mut random, START_MS, NETWORKS);
        let frame = bare.frame(&mut random);
        octets += u64::try_from(frame.len()).expect("short");
        program.set_time(bare.time_ms);
        program.run(&frame).expect("the kernel runs it");
    }
    let after = program.generations().dump();
    let cpu = u32::try_from(rustix::thread::sched_getcpu()).expect("a number");
    let clock = clock(&mut program);
    let changed: BTreeMap<_, _> = before
        .iter()
        .zip(&after)
        .enumerate()
        .filter(|(word, (before, after))| before != after && !clock.contains(word))
        .map(|(word, (before, after))| (word, after - before))
        .collect();
    let first = run_words(&mut program) * usize::try_from(cpu).expect("fits");
    let outcome = offset_of!(InterfaceCounters, outcomes) / 8 + Outcome::OutOfScope as usize;
    let expected = BTreeMap::from([(first, packets), (first + 1, octets), (first + outcome, packets)]);
    assert_eq!(changed, expected, "seen, their octets on the link, and the outcome");
}

fn with_fields(name: &str, fields: impl IntoIterator<Item = Field>) -> Policy {
    let mut policy = Policy::load("full-record", &[]).expect("is built in");
    let all = policy.recipients[0].fields.clone();
    let kept: Vec<_> = fields.into_iter().collect();
    let fields = all.into_iter().filter(|(field, _)| kept.contains(field)).collect();
    policy.recipients = vec![Recipient { name: name.to_owned(), fields, ..policy.recipients[0].clone() }];
    policy.pseudonym_epoch = Duration::from_secs(3600);
    policy
}

/// Loads from memory among the instructions of a program.
fn loads(instructions: &[u8]) -> usize {
    let is_load = |instruction: &&[u8]| matches!(instruction[0], 0x61 | 0x69 | 0x71 | 0x79);
    instructions.chunks_exact(8).filter(is_load).count()
}

/// The loaded program is read back: without a field it has fewer loads, and the key fewer bits.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_nobody_receives_is_not_in_the_loaded_program() {
    use Field as F;
    let groups: [(&str, &[Field]); 6] = [
        ("IPv4 addresses", &[F::SourceIPv4Address, F::DestinationIPv4Address]),
        ("IPv6 addresses", &[F::SourceIPv6Address, F::DestinationIPv6Address]),
        (
            "ports, types and codes",
            &[
                F::SourceTransportPort,
                F::DestinationTransportPort,
                F::IcmpTypeIPv4,
                F::IcmpCodeIPv4,
                F::IcmpTypeIPv6,
                F::IcmpCodeIPv6,
            ],
        ),
        ("class of service", &[F::IpClassOfService]),
        ("control bits", &[F::TcpControlBits]),
        ("times", &[F::FlowStartMilliseconds, F::FlowEndMilliseconds]),
    ];
    let measure = |policy: Policy| {
        let (program, compiled) = program(policy);
        let instructions = program.instructions().expect("the kernel shows them");
        (instructions.len() / 8, loads(&instructions), [compiled.key_bits(false), compiled.key_bits(true)])
    };
    let all = measure(with_fields("all", Field::ALL.iter().copied()));
    println!("every field: {} instructions, {} loads, keys of {:?} bits", all.0, all.1, all.2);
    for (name, group) in groups {
        // A program that reads every field reads them in another order than one that leaves some out. Both of these leave one
        // out.
        let other = if name == "class of service" { F::TcpControlBits } else { F::IpClassOfService };
        let rest = || Field::ALL.iter().copied().filter(|field| *field != other);
        let with = measure(with_fields("with", rest()));
        let without = measure(with_fields("rest", rest().filter(|field| !group.contains(field))));
        println!(
            "without {name}: {} instructions, {} loads, keys of {:?} bits; with: {}, {}, {:?}",
            without.0, without.1, without.2, with.0, with.1, with.2
        );
        assert!(without.1 < with.1, "{name}: {} loads, with it {}", without.1, with.1);
        let is_key = !matches!(name, "control bits" | "times");
        let key_bits = |measured: (usize, usize, [u32; 2])| measured.2.iter().sum::<u32>();
        assert_eq!(key_bits(without) < key_bits(with), is_key, "{name}: {:?}", without.2);
    }
    let least = measure(with_fields("least", [Field::ProtocolIdentifier]));
    println!("protocol only: {} instructions, {} loads, keys of {:?} bits", least.0, least.1, least.2);
    assert!(least.0 < all.0 && least.2 == [8, 8], "{least:?}");
}
