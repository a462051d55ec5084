//! What lies behind the headers has no influence: frames that differ only there leave every map of
//! the program in the same state, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use aya::maps::{Array, Map, MapData};
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer_common::outcome::Outcome;
use minimizer_common::permutation::{PERMUTATIONS_MAP, Permutation};
use minimizer_common::protocol::{Protocol, Transport};
use minimizer_common::settings::{CURRENT_MAP, GENERATIONS_MAP, HASH_KEYS, LISTS_MAP, Settings, TABLES_MAP};
use minimizer_common::tables::{Entry, Node, Roots};
use minimizer_common::tunnel::Tunnels;
use minimizer_ebpf::parser::cursor::Cursor;
use minimizer_ebpf::parser::walk::walk;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tests::drained::drained;
use tests::packets::{Generator, Packet};

const PASS: u32 = 2;
const PACKETS: usize = 1500;
/// Packets between drains: more flows than slots, so that the spill log and residuals are used too.
const DRAIN_EVERY: usize = 500;
/// Packets of which one is made malformed.
const SPOIL_EVERY: usize = 5;
const RODATA_MAP: &str = ".rodata";

/// How each octet behind the headers is replaced by another one.
#[derive(Clone, Copy, Debug)]
enum Alteration {
    Inverted,
    Random,
}

impl Alteration {
    fn apply(self, packet: &Packet, random: &mut ChaCha8Rng) -> Vec<u8> {
        let mut octets = packet.octets.clone();
        for octet in &mut octets[packet.headers_octets..] {
            *octet ^= match self {
                Self::Inverted => 0xff,
                Self::Random => random.random_range(1..=0xff),
            };
        }
        octets
    }
}

/// A program with the same secret, clock and sizes as all others.
fn program(tunnels: Tunnels) -> Program {
    let keys = std::array::from_fn::<u64, HASH_KEYS, _>(|index| 0x9e37_79b9_7f4a_7c15 ^ (index as u64) << 7);
    let compiled = CompiledPolicy::full_record(tunnels);
    let options = Options {
        flows_per_cpu: 64,
        clock: Clock::Control,
        hash_keys: Some(keys),
        compiled,
        ..Options::default()
    };
    let mut program = Program::load(&options).expect("the program loads");
    program.watch(1, 0).expect("slot 0 exists");
    program.set_time(1_700_000_000_000);
    program
}

/// Runs on one CPU, since each has its own tables.
fn stay_on_this_cpu() {
    let allowed = rustix::thread::sched_getaffinity(None).expect("the kernel tells");
    let cpu =
        (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("some CPU runs this");
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpu);
    rustix::thread::sched_setaffinity(None, &one).expect("it is among the allowed ones");
}

/// The settings, the roots, and the tables of extension headers and endpoints by protocol number.
const CONSTANTS_OCTETS: usize = size_of::<Settings>() + size_of::<Roots>() + 2 * 256 * 4;

/// The content of every map that the program can reach, but for the generations, by name.
fn other_maps(program: &Program) -> BTreeMap<String, Vec<u8>> {
    let ids = program.info().expect("the kernel tells").map_ids().expect("the kernel tells");
    let maps = ids.expect("the kernel knows the program's maps").into_iter().map(|id| {
        let data = MapData::from_id(id).expect("the map exists");
        let name = data.info().expect("the kernel tells").name_as_str().expect("is ASCII").to_owned();
        let content = match name.as_str() {
            GENERATIONS_MAP => Vec::new(),
            TABLES_MAP => content::<{ size_of::<Node>() }>(data),
            LISTS_MAP => content::<{ size_of::<Entry>() }>(data),
            PERMUTATIONS_MAP => content::<{ size_of::<Permutation>() }>(data),
            name if name.ends_with(CURRENT_MAP) => content::<{ size_of::<u32>() }>(data),
            name if name.ends_with(RODATA_MAP) => content::<CONSTANTS_OCTETS>(data),
            other => panic!("what is map {other}?"),
        };
        (name, content)
    });
    maps.collect()
}

/// Values are arrays on the stack, and the constants are half a megabyte.
fn content<const OCTETS: usize>(data: MapData) -> Vec<u8> {
    let read = move || -> Vec<u8> {
        let array = Array::<_, [u8; OCTETS]>::try_from(Map::Array(data)).expect("is an array of this size");
        array.iter().flat_map(|value| value.expect("the kernel tells")).collect()
    };
    let reader = thread::Builder::new().stack_size(64 << 20).spawn(read).expect("there is a thread");
    reader.join().expect("the map is read")
}

fn empty(program: &mut Program) -> u64 {
    let (_, totals) = drained(program, &[1]).expect("the kernel flips");
    totals.interfaces[0].seen_packets
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn octets_behind_the_headers_change_nothing_in_any_map() {
    stay_on_this_cpu();
    check(Tunnels::NONE);
    check(Tunnels::ALL);
}

fn check(tunnels: Tunnels) {
    let alterations = [Alteration::Inverted, Alteration::Random];
    let mut original = program(tunnels);
    let mut altered = alterations.map(|_| program(tunnels));
    let maps = other_maps(&original);
    assert!(maps.contains_key(GENERATIONS_MAP), "{:?}", maps.keys());
    // What the agent tells the program: the slot number of the interface, on each CPU.
    let untouched = original.generations().dump();
    assert!(untouched.iter().any(|word| *word != 0), "the slot number is in it");

    let mut generator = Generator::new(21);
    let mut random = ChaCha8Rng::seed_from_u64(22);
    let mut distinct = BTreeSet::new();
    let mut kinds = BTreeMap::<&str, usize>::new();
    let mut altered_octets = 0;
    while distinct.len() < PACKETS {
        let mut packet = generator.packet();
        if !tunnels.is_empty() {
            (packet.headers_octets, packet.expected) = (packet.listed.headers_octets, packet.listed.expected);
        }
        if distinct.len().is_multiple_of(SPOIL_EVERY) {
            spoil(&mut packet);
        }
        // Without an octet behind the headers there is nothing to alter.
        if packet.octets.len() == packet.headers_octets || !distinct.insert(packet.octets.clone()) {
            continue;
        }
        altered_octets += packet.octets.len() - packet.headers_octets;
        *kinds.entry(kind(&packet)).or_default() += 1;
        assert_eq!(original.run(&packet.octets).expect("the kernel runs it"), PASS);
        let expected = original.generations().dump();
        for (program, alteration) in altered.iter_mut().zip(alterations) {
            let frame = alteration.apply(&packet, &mut random);
            assert_eq!(program.run(&frame).expect("the kernel runs it"), PASS);
            let found = program.generations().dump();
            assert!(
                found == expected,
                "{alteration:?}: {} words differ, {packet:02x?}",
                differing(&found, &expected)
            );
        }
        if distinct.len() % DRAIN_EVERY == 0 {
            for program in std::iter::once(&mut original).chain(&mut altered) {
                assert_eq!(empty(program), DRAIN_EVERY as u64);
                // What the drain read is what there was: nothing else is left.
                assert_eq!(empty(program), 0);
                assert!(program.generations().dump() == untouched, "the drain leaves zeroes");
            }
        }
    }
    for program in &altered {
        assert_eq!(other_maps(program).keys().collect::<Vec<_>>(), maps.keys().collect::<Vec<_>>());
    }
    for kind in
        ["non_ip", "unsupported", "malformed", "TCP", "UDP", "SCTP", "DCCP", "ICMP", "ICMPv6", "UDP-Lite"]
    {
        assert!(kinds.get(kind).is_some_and(|count| *count > 10), "{kind}: {kinds:?}");
    }
    println!("{} packets, {altered_octets} octets altered twice: {kinds:?}", distinct.len());
}

/// Makes an untagged IP packet malformed, by a length beyond the frame or a wrong version. Its headers
/// end where they did.
fn spoil(packet: &mut Packet) {
    let outcome = match packet.octets[12..] {
        [0x08, 0x00, ..] if packet.octets.len().is_multiple_of(2) => {
            packet.octets[16..18].fill(0xff);
            Outcome::Ipv4TotalLength
        }
        [0x08, 0x00, ..] => Outcome::Ipv4Version,
        [0x86, 0xdd, ..] if packet.octets.len().is_multiple_of(2) => {
            packet.octets[18..20].fill(0xff);
            Outcome::Ipv6PayloadLength
        }
        [0x86, 0xdd, ..] => Outcome::Ipv6Version,
        _ => return,
    };
    if matches!(outcome, Outcome::Ipv4Version | Outcome::Ipv6Version) {
        packet.octets[14] |= 0xf0;
    }
    packet.expected = Err(outcome);
}

/// The comparison above can fail: other headers do leave other maps.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn octets_of_the_headers_change_the_maps() {
    stay_on_this_cpu();
    let mut programs = [program(Tunnels::NONE), program(Tunnels::NONE)];
    let mut generator = Generator::new(23);
    let mut compared = 0;
    while compared < 20 {
        let packet = generator.packet();
        let Ok(expected) = packet.expected else { continue };
        let mut frame = packet.octets.clone();
        frame[packet.headers_octets - 1] ^= 1;
        let walked = walk(&mut Cursor::over(frame.as_slice()), Tunnels::NONE);
        if walked == Ok(expected) {
            continue;
        }
        compared += 1;
        programs[0].run(&packet.octets).expect("the kernel runs it");
        programs[1].run(&frame).expect("the kernel runs it");
        let [first, second] = &mut programs;
        assert!(first.generations().dump() != second.generations().dump(), "{walked:?} for {expected:?}");
        first.run(&frame).expect("the kernel runs it");
        second.run(&packet.octets).expect("the kernel runs it");
        empty(first);
        empty(second);
    }
}

fn differing(found: &[u64], expected: &[u64]) -> usize {
    found.iter().zip(expected).filter(|(found, expected)| found != expected).count()
}

fn kind(packet: &Packet) -> &'static str {
    match packet.expected {
        Err(Outcome::NonIp) => "non_ip",
        Err(outcome) => outcome.name(),
        Ok(counted) => match (Transport::of(counted.protocol), Protocol::numbered(counted.protocol)) {
            (Transport::Other, _) | (_, None) => "other",
            (_, Some(protocol)) => protocol.title,
        },
    }
}
