//! Live traffic on two interfaces while generations flip: nothing is lost, nothing is counted twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use minimizer::commands::demo::generator::Traffic;
use minimizer::commands::demo::network::Cable;
use minimizer::commands::demo::sender::Handed;
use minimizer::delivery::ledger::Ledger;
use minimizer::interfaces::netlink::Netlink;
use minimizer::kernel::attach::Mode;
use minimizer::kernel::prepared::Options;
use minimizer::kernel::program::Program;
use minimizer::records::drain::{Occupancy, Totals};
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tuple;
use tests::drained::drained;
use tests::expected::Expected;
use tests::live_frames::LiveFrames;
use tests::network::Network;

/// Frames to be seen at least.
const FRAMES_MIN: u64 = 2_000_000;
/// Flips under traffic at least.
const FLIPS_MIN: u32 = 200;
const INTERFACES: usize = 2;
/// Times that a live frame is sent in one system call.
const BURST_FRAMES: u32 = 20_000;

/// What the agent's side found over all drains.
struct Found {
    ledger: Ledger,
    flows: HashMap<Tuple, Counts>,
    /// By interface slot, IP version 6 and protocol.
    residuals: HashMap<(usize, bool, u8), Counts>,
    fullest: Occupancy,
}

impl Found {
    fn drain(&mut self, program: &mut Program, if_indices: &[u32]) {
        let (records, totals) = drained(program, if_indices).expect("the kernel flips");
        self.ledger.add(&totals);
        self.ledger.add_exported(totals.recorded, Counts::default());
        assert!(self.ledger.is_balanced(), "{}", serde_json::to_string(&self.ledger).expect("serializes"));
        for (slot, interface) in totals.interfaces.iter().enumerate() {
            assert_eq!(interface.seen_packets, interface.outcomes.iter().sum::<u64>());
            let recorded = sum(records
                .iter()
                .filter(|record| record.ingress_interface == if_indices[slot])
                .map(|record| Counts { packets: record.packets, octets: record.octets }));
            let overflow = overflow(&totals, slot);
            assert_eq!(interface.outcome(Outcome::Counted), recorded.packets);
            assert_eq!(interface.outcome(Outcome::Overflow), overflow.packets);
            assert_eq!(interface.octets_counted, recorded.octets + overflow.octets);
        }
        for record in records {
            add(self.flows.entry(record.tuple).or_default(), record.packets, record.octets);
        }
        for residual in &totals.residuals {
            let key = (residual.interface, residual.ipv6, residual.protocol);
            add(self.residuals.entry(key).or_default(), residual.packets, residual.octets);
        }
        if totals.occupancy.slots_used + totals.occupancy.spill_used
            > self.fullest.slots_used + self.fullest.spill_used
        {
            self.fullest = totals.occupancy;
        }
    }
}

fn add(total: &mut Counts, packets: u64, octets: u64) {
    total.packets += packets;
    total.octets += octets;
}

fn sum(counts: impl Iterator<Item = Counts>) -> Counts {
    let mut total = Counts::default();
    counts.for_each(|counts| add(&mut total, counts.packets, counts.octets));
    total
}

fn overflow(totals: &Totals, slot: usize) -> Counts {
    let residuals = totals.residuals.iter().filter(|residual| residual.interface == slot);
    sum(residuals.map(|residual| Counts { packets: residual.packets, octets: residual.octets }))
}

/// Two interfaces with the program attached.
struct Watched {
    network: Network,
    program: Program,
    if_indices: Vec<u32>,
    found: Found,
}

impl Watched {
    fn new(flows_per_cpu: u32) -> Self {
        let network = Network::new(INTERFACES, 1500).expect("a private network can be made");
        let if_indices: Vec<u32> = network.cables().iter().map(|cable| cable.receiver.index).collect();
        let options = Options { flows_per_cpu, ..Options::default() };
        let mut program = Program::load(&options).expect("the program loads");
        for (slot, &if_index) in (0..).zip(&if_indices) {
            program.watch(if_index, slot).expect("the slot exists");
            program.attach(if_index, Mode::Native).expect("veth takes the program");
        }
        let names = network.cables().iter().map(|cable| cable.receiver.name.clone()).collect();
        let found = Found {
            ledger: Ledger::new(names),
            flows: HashMap::new(),
            residuals: HashMap::new(),
            fullest: Occupancy::default(),
        };
        Self { network, program, if_indices, found }
    }

    /// Drains without pause until there were enough flips and frames.
    fn drain_under_traffic(&mut self, is_sending: impl Fn() -> bool) {
        let begin = Instant::now();
        let (mut flips, mut sent) = (0, 0);
        while flips < FLIPS_MIN || sent < FRAMES_MIN {
            self.found.drain(&mut self.program, &self.if_indices);
            flips += 1;
            let counters = (0..INTERFACES).map(|cable| self.network.counters(cable));
            sent = counters.map(|counters| counters.expect("the cable is there").transmitted_packets).sum();
            assert!(is_sending(), "a sender ended early");
        }
        eprintln!("{sent} frames, {flips} flips in {:.1} s", begin.elapsed().as_secs_f64());
    }

    /// Drains what is left, and compares every counter with what the frames must give.
    fn compare(mut self, expected: Vec<Expected>) -> Found {
        self.found.drain(&mut self.program, &self.if_indices);
        let found = self.found;
        let mut expected_flows = HashMap::new();
        for ((name, interface), expected) in found.ledger.interfaces().zip(expected) {
            assert_eq!(interface.seen_packets, expected.frames(), "{name}: seen is sent");
            for (outcome, expected) in Outcome::ALL.iter().zip(&expected.outcomes) {
                let counted = match outcome {
                    Outcome::Counted => interface.outcome(*outcome) + interface.outcome(Outcome::Overflow),
                    Outcome::Overflow => 0,
                    other => interface.outcome(*other),
                };
                assert_eq!(counted, *expected, "{name}: {outcome:?}");
            }
            assert_eq!(interface.octets_counted, expected.octets(), "{name}: octets");
            expected_flows.extend(expected.flows);
        }
        let mut kinds = by_kind(&found.flows);
        for (key, counts) in &found.residuals {
            add(kinds.entry(*key).or_default(), counts.packets, counts.octets);
        }
        assert_eq!(kinds, by_kind(&expected_flows));
        if found.residuals.is_empty() {
            assert!(found.flows == expected_flows, "a flow's packets or octets differ");
        }
        found
    }
}

/// Packets and octets by interface slot, IP version 6 and protocol.
fn by_kind(flows: &HashMap<Tuple, Counts>) -> HashMap<(usize, bool, u8), Counts> {
    let mut kinds: HashMap<_, Counts> = HashMap::new();
    for (tuple, counts) in flows {
        let tags = tuple.tags();
        let interface = usize::try_from(tags.interface()).expect("slots are small");
        add(
            kinds.entry((interface, tags.is_ipv6(), tuple.protocol())).or_default(),
            counts.packets,
            counts.octets,
        );
    }
    kinds
}

/// Sends the mix of the demo through a raw socket on each interface.
fn count_mix(flows_per_cpu: u32) -> Found {
    let mut watched = Watched::new(flows_per_cpu);
    let traffic: Vec<_> = (1..).take(INTERFACES).map(|seed| Arc::new(Traffic::mixed(seed))).collect();
    let network = &watched.network;
    let senders: Vec<_> = traffic
        .iter()
        .enumerate()
        .map(|(cable, traffic)| network.send(cable, traffic, None).expect("sending starts"))
        .collect();
    watched.drain_under_traffic(|| senders.iter().all(|sender| !sender.is_finished()));
    let mut expected = Vec::new();
    for ((cable, sender), slot) in senders.into_iter().enumerate().zip(0..) {
        let handed = sender.finish().expect("sending works");
        let sent = watched.network.settle(cable, handed).expect("the cable empties");
        assert_eq!(sent, handed.accepted, "the driver counts what the socket accepted");
        expected.push(Expected::of(traffic[cable].round(), sent, slot));
    }
    watched.compare(expected)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn mixed_traffic_is_counted_exactly() {
    let found = count_mix(65_536);
    assert_eq!(found.ledger.overflow(), Counts::default(), "the table was large enough");
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn mixed_traffic_is_counted_exactly_in_a_table_too_small() {
    let found = count_mix(256);
    assert!(found.ledger.overflow().packets > 0, "residual counters were used");
    assert!(found.fullest.spill_used > 0, "the spill log was used");
}

/// Sends bursts of one frame after the other from inside the kernel, until told to stop; returns
/// what the frames that the driver counts must give.
fn send_live(cable: Cable, slot: u32, stop: Arc<AtomicBool>) -> JoinHandle<Expected> {
    thread::spawn(move || {
        let traffic = Traffic::mixed(u64::from(slot));
        let is_tagged = |frame: &[u8]| matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
        let live = LiveFrames::to(cable.sender.index).expect("the kernel takes the program");
        let mut netlink = Netlink::open().expect("a netlink socket");
        let mut handed = Handed::default();
        let mut expected = Expected::default();
        for frame in traffic.round().filter(|frame| !is_tagged(frame)).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            live.send(frame, BURST_FRAMES).expect("the kernel sends it");
            handed.accepted += u64::from(BURST_FRAMES);
            let sent = cable.settle(&mut netlink, handed).expect("the cable empties");
            expected.add(frame, sent - expected.frames(), slot);
        }
        expected
    })
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn frames_at_the_highest_rate_are_counted_exactly() {
    let mut watched = Watched::new(65_536);
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..)
        .zip(watched.network.cables())
        .map(|(slot, cable)| send_live(cable.clone(), slot, Arc::clone(&stop)))
        .collect();
    watched.drain_under_traffic(|| senders.iter().all(|sender| !sender.is_finished()));
    stop.store(true, Ordering::Relaxed);
    let expected = senders.into_iter().map(|sender| sender.join().expect("sending works")).collect();
    watched.compare(expected);
}
