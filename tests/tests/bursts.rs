//! Packets that a CPU has set aside: whatever it has not put into slots when the generations flip, the agent does, and no
//! packet is lost or counted twice.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::sync::Arc;

use minimizer::kernel::prepared::{Clock, Options};
use minimizer::kernel::program::Program;
use minimizer::policy::compile::CompiledPolicy;
use minimizer::policy::field::Field;
use minimizer::policy::model::Policy;
use minimizer::records::drain::Totals;
use minimizer::records::record::Record;
use minimizer_common::generation::{BURST, CpuState, FEW_SLOTS, Head};
use minimizer_common::outcome::Outcome;
use minimizer_common::settings::Control;
use minimizer_common::settings::HASH_KEYS;
use minimizer_common::tunnel::Tunnels;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tests::drained::drained;

const PASS: u32 = 2;
const IF_INDEX: u32 = 1;
const START_MS: u64 = 1_700_000_000_000;
/// IP octets of each packet, by whether it is IPv6.
const OCTETS: [u64; 2] = [46, 66];

/// Numbers of flows that only fill the table.
const FILLING: std::ops::Range<u16> = 10_000..20_000;

/// One flow: its number, and whether it is IPv6.
type Flow = (u16, bool);

/// A UDP packet of a flow in an Ethernet frame.
fn frame((number, is_ipv6): Flow) -> Vec<u8> {
    let udp = [&[0x13, 0x88][..], &number.to_be_bytes(), &[0, 26, 0, 0], &[0; 18]].concat();
    let ethernet =
        |ether_type: u16| [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &ether_type.to_be_bytes()[..]].concat();
    if is_ipv6 {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        [&ethernet(0x86dd)[..], &[0x60, 0, 0, 0, 0, 26, 17, 64], &address, &address, &udp].concat()
    } else {
        let ip = [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
        [&ethernet(0x0800)[..], &ip, &udp].concat()
    }
}

/// Runs the thread, and so the program, on one CPU.
fn stay_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).expect("the CPU is online");
}

fn keys() -> [u64; HASH_KEYS] {
    std::array::from_fn(|index| 0x9e37_79b9_7f4a_7c15_u64.rotate_left(5 * u32::try_from(index).expect("few")))
}

/// The program, and what it was given since the last drain.
struct Kernel {
    program: Program,
    sent: BTreeMap<Flow, u64>,
}

impl Kernel {
    fn new(flows_per_cpu: u32, compiled: Arc<CompiledPolicy>) -> Self {
        let hash_keys = Some(keys());
        let options =
            Options { flows_per_cpu, clock: Clock::Control, hash_keys, compiled, ..Options::default() };
        let mut program = Program::load(&options).expect("the program loads");
        program.watch(IF_INDEX, 0).expect("slot 0 exists");
        program.set_time_base(START_MS);
        program.set_time(START_MS);
        Self { program, sent: BTreeMap::new() }
    }

    fn full_record(flows_per_cpu: u32) -> Self {
        Self::new(flows_per_cpu, CompiledPolicy::full_record(Tunnels::NONE))
    }

    fn send(&mut self, flow: Flow) {
        assert_eq!(self.program.run(&frame(flow)).expect("the kernel runs it"), PASS);
        *self.sent.entry(flow).or_default() += 1;
    }

    /// Sends so many flows that the CPU sets every further packet aside.
    fn fill(&mut self) {
        let first = FILLING.start;
        let flows = u16::try_from(FEW_SLOTS).expect("few") + 2 * u16::try_from(BURST).expect("few");
        assert!(first + flows < FILLING.end);
        (first..first + flows).for_each(|flow| self.send((flow, false)));
    }

    /// Sends flow after flow, from this number on, until the program has just put packets into slots of a full table, and
    /// only [`Self::LEFT`] waits. Returns how many packets overflowed.
    fn overflow(&mut self, first: u16, is_ipv6: bool) -> u64 {
        (first..first + 150).for_each(|flow| self.send((flow, is_ipv6)));
        self.let_displaced_go();
        let before = self.outcome(Outcome::Overflow);
        assert!(before > 80, "{before}");
        for flow in first + 150.. {
            self.send((flow, is_ipv6));
            if self.outcome(Outcome::Overflow) != before {
                self.let_displaced_go();
                return self.outcome(Outcome::Overflow);
            }
        }
        before
    }

    /// The packet in the ring that made the program account for those before it.
    const LEFT: u64 = 1;

    /// Runs the program for frames of an interface that nobody watches: each puts a packet whose first line was full into its
    /// place, and none comes into the ring.
    fn let_displaced_go(&mut self) {
        self.program.watch(IF_INDEX + 1, 0).expect("slot 0 exists");
        for _ in 0..=BURST {
            assert_eq!(self.program.run(&frame((9, false))).expect("the kernel runs it"), PASS);
        }
        self.program.watch(IF_INDEX, 0).expect("slot 0 exists");
    }

    fn outcome(&mut self, outcome: Outcome) -> u64 {
        let generations = self.program.generations();
        let cpus = 0..generations.shape().cpus;
        cpus.map(|cpu| generations.counters(cpu, 0).outcomes[outcome as usize]).sum()
    }

    /// Drains, and compares the counters with each other and with what was sent.
    fn drain(&mut self) -> (Vec<Record>, Totals) {
        let (records, totals) = drained(&mut self.program, &[IF_INDEX]).expect("the kernel flips");
        let interface = &totals.interfaces[0];
        let sent = std::mem::take(&mut self.sent);
        let packets: u64 = sent.values().sum();
        let octets: u64 =
            sent.iter().map(|((_, is_ipv6), packets)| packets * OCTETS[usize::from(*is_ipv6)]).sum();
        let (counted, overflow) = (interface.outcome(Outcome::Counted), interface.outcome(Outcome::Overflow));
        assert_eq!((interface.seen_packets, counted + overflow), (packets, packets));
        assert_eq!(interface.octets_counted, octets);
        assert_eq!((totals.recorded.packets, totals.overflow().packets), (counted, overflow));
        assert_eq!(totals.recorded.octets + totals.overflow().octets, octets);
        for record in &records {
            let flow = (record.tuple.destination_port(), record.tuple.tags().is_ipv6());
            assert!(sent.get(&flow).is_some_and(|sent| record.packets <= *sent), "{record:?}");
            assert_eq!(record.octets, record.packets * OCTETS[usize::from(flow.1)]);
        }
        if overflow == 0 {
            let found = records.iter().map(|record| {
                ((record.tuple.destination_port(), record.tuple.tags().is_ipv6()), record.packets)
            });
            assert_eq!((found.collect::<BTreeMap<_, _>>(), records.len()), (sent.clone(), sent.len()));
        }
        (records, totals)
    }

    /// Asserts that the generation that was drained last has nothing but its clock and what the agent tells the program.
    fn check_zero(&mut self) {
        // It is the next one that the kernel writes.
        self.drain();
        let run_bytes = usize::try_from(self.program.generations().shape().run_bytes()).expect("fits");
        let state = offset_of!(Head, state);
        let clock = [offset_of!(CpuState, realtime_offset_ns), offset_of!(CpuState, time_base_units)];
        let is_clock = |byte: &usize| clock.iter().any(|clock| byte % run_bytes == state + clock);
        let control = offset_of!(Head, control)..offset_of!(Head, control) + size_of::<Control>();
        let words = self.program.generations().dump();
        let bytes = (0..).step_by(size_of::<u64>());
        let left: Vec<_> = bytes
            .zip(words)
            .filter(|(byte, word)| *word != 0 && !is_clock(byte) && !control.contains(&(byte % run_bytes)))
            .collect();
        assert!(left.is_empty(), "byte and word: {left:?}");
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_flip_at_every_fill_of_the_ring_loses_nothing() {
    stay_on(0);
    let kinds: [fn(u16) -> Flow; 7] = [
        |packet| (packet, false),
        |packet| (packet, true),
        |packet| (packet, packet.is_multiple_of(2)),
        // The same flow in a row, now and then, and always.
        |packet| (packet / 3, false),
        |packet| (packet / 3, packet / 3 % 2 == 0),
        |packet| (packet % 2, true),
        |_| (7, false),
    ];
    let burst = u16::try_from(BURST).expect("few");
    // Few slots: most packets are counted at once. Many: all are set aside.
    for is_full in [false, true] {
        let mut kernel = Kernel::full_record(if is_full { 8192 } else { 64 });
        for (number, flow) in kinds.iter().enumerate() {
            for packets in 0..=2 * burst + 1 {
                if is_full {
                    kernel.fill();
                }
                (0..packets).for_each(|packet| kernel.send(flow(packet)));
                let (_, totals) = kernel.drain();
                assert!(totals.residuals.is_empty(), "kind {number}, {packets}: {:?}", totals.residuals);
                kernel.check_zero();
            }
        }
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_packet_that_was_set_aside_has_the_time_of_its_arrival() {
    stay_on(0);
    let mut kernel = Kernel::full_record(8192);
    let seconds = |seconds: u64| START_MS + seconds * 1000;
    for (is_ipv6, is_full) in [(false, false), (true, false), (false, true), (true, true)] {
        kernel.program.set_time(seconds(0));
        if is_full {
            kernel.fill();
        }
        // One packet, two in a row, and two with another between them. Two in a row, and more later, of which the last comes
        // after others. The last time is beyond a narrow slot's.
        for (at, flow) in [
            (0, 1),
            (1, 2),
            (2, 2),
            (3, 3),
            (4, 4),
            (5, 3),
            (6, 6),
            (7, 6),
            (8, 6),
            (9, 7),
            (10, 6),
            (11, 7),
            (12, 6),
            (13, 8),
            (14, 5),
            (100_000, 5),
        ] {
            kernel.program.set_time(seconds(at));
            kernel.send((flow, is_ipv6));
        }
        kernel.program.set_time(seconds(200_000));
        let (records, totals) = drained(&mut kernel.program, &[IF_INDEX]).expect("the kernel flips");
        assert_eq!(totals.recorded.packets, kernel.sent.values().sum::<u64>());
        kernel.sent.clear();
        let mut times: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let is_filling = |record: &&Record| FILLING.contains(&record.tuple.destination_port());
        for record in records.iter().filter(|record| !is_filling(record)) {
            times.entry(record.tuple.destination_port()).or_default().push((record.start_ms, record.end_ms));
        }
        times.values_mut().for_each(|times| times.sort());
        // It has a narrow and a wide slot, and one record.
        let flow_5 = vec![(seconds(14), seconds(100_000))];
        let expected = BTreeMap::from([
            (1, vec![(seconds(0), seconds(0))]),
            (2, vec![(seconds(1), seconds(2))]),
            (3, vec![(seconds(3), seconds(5))]),
            (4, vec![(seconds(4), seconds(4))]),
            (5, flow_5),
            (6, vec![(seconds(6), seconds(12))]),
            (7, vec![(seconds(9), seconds(11))]),
            (8, vec![(seconds(13), seconds(13))]),
        ]);
        assert_eq!(times, expected, "IPv6: {is_ipv6}, many slots: {is_full}");
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_flow_that_moves_to_another_cpu_is_in_both_rings_and_in_one_record() {
    let allowed = sched_getaffinity(None).expect("this thread has CPUs");
    let mut kernel = Kernel::full_record(64);
    let cpus: Vec<_> = (0..usize::try_from(kernel.program.generations().shape().cpus).expect("few"))
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    for packets in [1, 5, u16::try_from(BURST).expect("few"), 23] {
        for cpu in &cpus {
            stay_on(*cpu);
            for packet in 0..packets {
                kernel.send((packet % 3, false));
                kernel.send((packet % 2, true));
            }
        }
        let (records, totals) = kernel.drain();
        assert_eq!(records.len(), usize::from(packets.min(3) + packets.min(2)));
        let used = u64::try_from(cpus.len()).expect("few") * u64::from(packets.min(3) + 2 * packets.min(2));
        assert_eq!(totals.occupancy.slots_used, used, "halves of both tables");
        kernel.check_zero();
    }
    sched_setaffinity(None, &allowed).expect("as it was");
}

/// The smallest table: what finds no room overflows, whether the program or the agent puts it into slots.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn what_overflows_from_the_ring_is_in_residual_counters() {
    stay_on(0);
    let mut kernel = Kernel::full_record(1);
    let mut flow = 0;
    let mut next = |is_ipv6| {
        flow += 1;
        (flow, is_ipv6)
    };
    for is_ipv6 in [false, true] {
        for count in [1, 8, 15, 16, 17, 30, 40, 64, 170] {
            (0..count).for_each(|_| kernel.send(next(is_ipv6)));
            let (_, totals) = kernel.drain();
            for residual in &totals.residuals {
                assert_eq!((residual.interface, residual.ipv6, residual.protocol), (0, is_ipv6, 17));
            }
            kernel.check_zero();
        }
        // By the program, and then by the agent: single packets, and many of one flow in a row.
        let by_program = kernel.overflow(FILLING.start, is_ipv6);
        let sent: u64 = kernel.sent.values().sum();
        assert_eq!(kernel.outcome(Outcome::Counted) + by_program, sent);
        (0..5).for_each(|_| kernel.send(next(is_ipv6)));
        let row = next(is_ipv6);
        (0..50).for_each(|_| kernel.send(row));
        assert_eq!(kernel.outcome(Outcome::Overflow), by_program, "they wait");
        let (_, totals) = kernel.drain();
        assert_eq!(totals.overflow().packets, by_program + Kernel::LEFT + 55);
        assert!(totals.occupancy.is_full(), "{:?}", totals.occupancy);
        kernel.check_zero();
    }
}

/// An interface may go, or come back in another slot, while packets of it wait.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn packets_of_an_interface_that_goes_are_still_its_own() {
    stay_on(0);
    let mut kernel = Kernel::full_record(64);
    (0..5).for_each(|flow| kernel.send((flow, flow == 3)));
    // The slot is another interface's from here on: nobody watches this one.
    kernel.program.watch(IF_INDEX + 1, 0).expect("slot 0 exists");
    (0..3).for_each(|_| assert_eq!(kernel.program.run(&frame((9, false))).expect("runs"), PASS));
    let (records, totals) = kernel.drain();
    assert_eq!((records.len(), totals.recorded.packets), (5, 5));
    assert_eq!((totals.unknown.seen_packets, totals.unknown.outcome(Outcome::UnknownInterface)), (3, 3));
    assert!(records.iter().all(|record| record.ingress_interface == IF_INDEX));
    kernel.check_zero();
}

/// Under a policy without the interface, a slot does not tell where its packets came from. Residual counters do.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn packets_of_two_interfaces_overflow_each_to_its_own() {
    stay_on(0);
    let mut policy = Policy::load("full-record", &[]).expect("is built in");
    policy.recipients[0].fields.remove(&Field::IngressInterface);
    let compiled = Arc::new(CompiledPolicy::compile(policy).expect("the policy fits"));
    for is_ipv6 in [false, true] {
        let mut kernel = Kernel::new(1, Arc::clone(&compiled));
        let before = kernel.overflow(FILLING.start, is_ipv6);
        (0..3).for_each(|_| kernel.send((999, is_ipv6)));
        kernel.program.watch_all(&[(IF_INDEX, 1)]).expect("slot 1 exists");
        (0..2).for_each(|_| kernel.send((999, is_ipv6)));
        kernel.program.watch_all(&[(IF_INDEX, 0)]).expect("slot 0 exists");
        kernel.send((999, is_ipv6));
        let (_, totals) = drained(&mut kernel.program, &[IF_INDEX, IF_INDEX]).expect("the kernel flips");
        let overflow = |interface: usize| totals.interfaces[interface].outcome(Outcome::Overflow);
        let before = before + Kernel::LEFT;
        assert_eq!((overflow(0), overflow(1)), (before + 4, 2), "IPv6: {is_ipv6}");
        let residual = |interface: usize| {
            let own = totals.residuals.iter().filter(|residual| residual.interface == interface);
            own.map(|residual| (residual.packets, residual.octets)).collect::<Vec<_>>()
        };
        let octets = OCTETS[usize::from(is_ipv6)];
        assert_eq!(residual(0), [(before + 4, (before + 4) * octets)]);
        assert_eq!(residual(1), [(2, 2 * octets)]);
        assert_eq!(totals.interfaces[1].outcome(Outcome::Counted), 0);
    }
}
