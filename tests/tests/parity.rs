//! The same frames through the parser on the host and through the program in the kernel give the same
//! outcome frame by frame, and the same records, counts, flags and times drain by drain.

use std::collections::HashMap;

use aya::programs::{TestRun as _, TestRunOptions};
use aya::util::KernelVersion;
use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::records::drain::InterfaceTotals;
use minimizer_common::generation::InterfaceCounters;
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tunnel::Tunnels;
use minimizer_common::tuple::Tuple;
use minimizer_ebpf::parser::cursor::{Cursor, Split};
use minimizer_ebpf::parser::walk::{Packet, walk};
use rand::RngExt;
use tests::drained::drained;
use tests::packets::{Generator, mutations};
use tests::records::FlowCounts;

const PASS: u32 = 2;
/// Shorter frames are not run by the kernel.
const KERNEL_OCTETS_MIN: usize = 14;
/// Octets of a frame that `BPF_PROG_TEST_RUN` puts in its first buffer: a page without the headroom
/// of XDP and the tailroom of a socket buffer.
const LINEAR_OCTETS: usize = 4096 - 256 - 320;
/// First kernel that takes the length of the first buffer from the caller of `BPF_PROG_TEST_RUN`.
const SPLIT_VERSION: KernelVersion = KernelVersion::new(6, 18, 0);
const INTERFACE_INDEX: u32 = 1;
const START_UNITS: u64 = 1_700_000_000;

/// What the program in the kernel must have counted by now.
#[derive(Default)]
struct Model {
    records: HashMap<Tuple, FlowCounts>,
    outcomes: [u64; Outcome::COUNT],
    seen_octets: u64,
}

impl Model {
    fn add(&mut self, seen_octets: u64, walked: Result<Packet, Outcome>, units: u64) {
        self.seen_octets += seen_octets;
        self.outcomes[walked.err().unwrap_or(Outcome::Counted) as usize] += 1;
        let Ok(packet) = walked else { return };
        let Packet { addresses, ports, tags, protocol, traffic_class, .. } = packet;
        let tuple = Tuple::new(addresses, ports, tags.with_interface(0), protocol, traffic_class);
        let time_ms = units * 1000;
        let counts = self.records.entry(tuple).or_insert_with(|| FlowCounts::from_start(time_ms));
        counts.add(u64::from(packet.length_octets), packet.control_bits, time_ms);
    }
}

/// The program in the kernel beside the model.
struct Bench {
    program: Program,
    tunnels: Tunnels,
    model: Model,
    counters: InterfaceTotals,
    units: u64,
    frames: u64,
    drains: u64,
    records: u64,
    spilled: u64,
}

impl Bench {
    fn new(flows_per_cpu: u32, tunnels: Tunnels, hash_keys: Option<[u64; HASH_KEYS]>) -> Self {
        let compiled = CompiledPolicy::full_record(tunnels);
        let options =
            Options { flows_per_cpu, clock: Clock::Control, hash_keys, compiled, ..Options::default() };
        let mut program = Program::load(&options).expect("the program loads");
        program.watch(INTERFACE_INDEX, 0).expect("slot 0 exists");
        program.set_time(START_UNITS * 1000);
        let (model, counters) = (Model::default(), InterfaceTotals::ZERO);
        Self {
            program,
            tunnels,
            model,
            counters,
            units: START_UNITS,
            frames: 0,
            drains: 0,
            records: 0,
            spilled: 0,
        }
    }

    /// Counters of the interface, over all CPUs.
    fn counters(&mut self) -> InterfaceTotals {
        let cpus = self.program.generations().shape().cpus;
        let mut totals = InterfaceTotals::ZERO;
        for cpu in 0..cpus {
            let InterfaceCounters { seen_packets, seen_octets, octets_counted, outcomes, .. } =
                self.program.generations().counters(cpu, 0);
            totals.seen_packets += seen_packets;
            totals.seen_octets += seen_octets;
            totals.octets_counted += octets_counted;
            for (total, counter) in totals.outcomes.iter_mut().zip(outcomes) {
                *total += counter;
            }
        }
        totals
    }

    /// Runs a frame on both sides and compares how it ends.
    fn check(&mut self, frame: &[u8]) {
        self.check_split(frame, LINEAR_OCTETS);
    }

    /// The same, with the frame's first `linear_octets` in the first buffer.
    fn check_split(&mut self, frame: &[u8], linear_octets: usize) {
        let (walked, seen_octets) = walk_first_buffer(frame, linear_octets, self.tunnels);
        if frame.len() < KERNEL_OCTETS_MIN {
            assert_eq!(walked, Err(Outcome::EthernetTruncated));
            return;
        }
        let verdict = if linear_octets < LINEAR_OCTETS {
            run_split(&self.program, frame, linear_octets)
        } else {
            self.program.run(frame).expect("the kernel runs it")
        };
        assert_eq!(verdict, PASS);
        self.frames += 1;
        let mut expected = self.counters.clone();
        expected.seen_packets += 1;
        expected.seen_octets += seen_octets;
        expected.octets_counted += walked.map_or(0, |packet| u64::from(packet.length_octets));
        expected.outcomes[walked.err().unwrap_or(Outcome::Counted) as usize] += 1;
        self.counters = self.counters();
        assert_eq!(self.counters, expected, "{walked:?}, {} octets: {frame:02x?}", frame.len());
        self.model.add(seen_octets, walked, self.units);
    }

    fn advance_time(&mut self) {
        self.units += 1;
        self.program.set_time(self.units * 1000);
    }

    /// Drains the kernel and compares all records.
    fn drain(&mut self) {
        let (records, totals) = drained(&mut self.program, &[INTERFACE_INDEX]).expect("the kernel flips");
        let mut model = std::mem::take(&mut self.model);
        assert!(totals.residuals.is_empty(), "the table was large enough: {:?}", totals.residuals);
        assert_eq!(totals.interfaces[0].outcomes, model.outcomes);
        assert_eq!(totals.interfaces[0].seen_octets, model.seen_octets);
        for record in records {
            let expected = model.records.remove(&record.tuple);
            assert_eq!(Some(FlowCounts::from(&record)), expected, "{:?}", record.tuple);
            self.records += 1;
        }
        assert!(model.records.is_empty(), "not in the kernel: {:?}", model.records);
        self.counters = InterfaceTotals::ZERO;
        self.drains += 1;
        self.spilled += totals.occupancy.spill_used;
    }

    fn report(&self) {
        let Self { frames, drains, records, spilled, .. } = self;
        println!(
            "{frames} frames in the kernel, {records} records in {drains} drains ({spilled} log entries)"
        );
    }
}

/// The host's view of a frame of which the kernel's program sees the first buffer, and how long it
/// takes the frame to be: what lies behind a packet that ends in the first buffer is not asked for.
fn walk_first_buffer(frame: &[u8], linear_octets: usize, tunnels: Tunnels) -> (Result<Packet, Outcome>, u64) {
    // A copy, so that tools that watch memory see a read beyond the buffer.
    let linear = frame[..frame.len().min(linear_octets)].to_vec().into_boxed_slice();
    let octets = u32::try_from(frame.len()).expect("shorter than 4 GiB");
    let mut cursor = Cursor::over(Split { first: &linear, octets });
    let walked = walk(&mut cursor, tunnels);
    (walked, cursor.known_octets().into())
}

/// Runs a frame of which the first `linear_octets` are in the first buffer.
fn run_split(program: &Program, frame: &[u8], linear_octets: usize) -> u32 {
    // `struct xdp_md`: data, data_end and four more fields, of which none matters here.
    let mut context = [0; 24];
    let data_end = u32::try_from(linear_octets).expect("less than a page");
    context[4..8].copy_from_slice(&data_end.to_ne_bytes());
    let options =
        TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() };
    program.xdp().expect("is loaded").test_run(options).expect("the kernel runs it").return_value
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn mutated_frames_are_the_same_in_the_kernel() {
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let mut bench = Bench::new(65_536, tunnels, None);
        let mut generator = Generator::new(11);
        let mut last_drain = 0;
        while bench.frames < 150_000 {
            let packet = generator.packet();
            bench.check(&packet.octets);
            for frame in mutations(&packet, generator.random()) {
                bench.check(&frame);
            }
            bench.advance_time();
            if bench.frames - last_drain > generator.random().random_range(1000..20_000) {
                last_drain = bench.frames;
                bench.drain();
            }
        }
        bench.drain();
        bench.report();
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn frames_beyond_a_page_are_the_same_in_the_kernel() {
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let mut bench = Bench::new(65_536, tunnels, None);
        let mut generator = Generator::new(12);
        let mut not_linear = 0;
        let mut jumbograms = 0;
        while bench.frames < 20_000 {
            let packet = generator.large_recipe().build();
            let (walked, _) = walk_first_buffer(&packet.octets, LINEAR_OCTETS, bench.tunnels);
            not_linear += u32::from(walked == Err(Outcome::HeaderNotLinear));
            jumbograms += u32::from(walked.is_ok_and(|packet| packet.length_octets > 65_575));
            bench.check(&packet.octets);
            // Ends of the first buffer and of the frame at every distance from each other.
            let length = generator.random().random_range(KERNEL_OCTETS_MIN..=packet.octets.len());
            bench.check(&packet.octets[..length]);
            if bench.frames.is_multiple_of(2000) {
                bench.advance_time();
                bench.drain();
            }
        }
        bench.drain();
        assert!(not_linear > 1000 && jumbograms > 100, "{not_linear} {jumbograms}");
        println!("{not_linear} frames with a header in a further buffer, {jumbograms} jumbograms");
        bench.report();
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn frames_split_at_every_octet_are_the_same_in_the_kernel() {
    let version = KernelVersion::current().expect("the kernel has a version");
    if version < SPLIT_VERSION {
        eprintln!("not run: {version:?} cannot be told where to split a frame, 6.18 and later can");
        return;
    }
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let mut bench = Bench::new(65_536, tunnels, None);
        let mut generator = Generator::new(14);
        while bench.frames < 30_000 {
            let packet = generator.packet();
            for linear_octets in KERNEL_OCTETS_MIN..packet.octets.len() {
                bench.check_split(&packet.octets, linear_octets);
            }
            if generator.random().random_range(0..20) == 0 {
                bench.drain();
            }
        }
        bench.drain();
        bench.report();
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_table_too_small_changes_no_record() {
    // 128 lines for about 80 flows, most of them wide, under keys that do not change: some go to the spill log.
    let keys = std::array::from_fn(|index| {
        0x9e37_79b9_7f4a_7c15_u64.rotate_left(5 * u32::try_from(index).expect("small"))
    });
    for tunnels in [Tunnels::NONE, Tunnels::ALL] {
        let mut bench = Bench::new(128, tunnels, Some(keys));
        let mut generator = Generator::new(13);
        for _ in 0..20 {
            for _ in 0..100 {
                let frame = generator.packet().octets;
                bench.check(&frame);
                bench.check(&frame);
            }
            bench.advance_time();
            bench.drain();
        }
        assert!(bench.spilled > 0, "the log was used");
        bench.report();
    }
}
