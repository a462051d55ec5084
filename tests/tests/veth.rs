//! Live traffic on two interfaces while generations flip: nothing is lost, nothing is counted twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use minimizer::demo::generator::Traffic;
use minimizer::drain::{Occupancy, Records, Totals, drain};
use minimizer::ledger::Ledger;
use minimizer::program::{Clock, Mode, Options, Program};
use minimizer_common::generation::Residual;
use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tuple;
use tests::expected::Expected;
use tests::network::Network;
use tests::privilege::can_use_kernel;

/// Frames to be seen at least.
const FRAMES_MIN: u64 = 2_000_000;
/// Flips under traffic at least.
const FLIPS_MIN: u32 = 200;
const INTERFACES: usize = 2;

/// What the agent's side found over all drains.
struct Found {
    ledger: Ledger,
    flows: HashMap<Tuple, Residual>,
    /// By interface slot, IP version 6 and protocol.
    residuals: HashMap<(usize, bool, u8), Residual>,
    fullest: Occupancy,
}

impl Found {
    fn drain(&mut self, program: &mut Program, if_indices: &[u32]) {
        let mut records = Records::new(if_indices.to_vec());
        let mut quiet = program.generations().flip().expect("the kernel flips");
        let totals = drain(&mut quiet, &mut records, u64::from);
        let records = records.take();
        self.ledger.add(&totals);
        self.ledger.add_exported(totals.recorded);
        assert!(self.ledger.is_balanced(), "{}", serde_json::to_string(&self.ledger).unwrap());
        for (slot, interface) in totals.interfaces.iter().enumerate() {
            assert_eq!(interface.seen_packets, interface.outcomes.iter().sum::<u64>());
            let recorded = sum(records
                .iter()
                .filter(|record| record.ingress_interface == if_indices[slot])
                .map(|record| Residual { packets: record.packets, octets: record.octets }));
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

fn add(total: &mut Residual, packets: u64, octets: u64) {
    total.packets += packets;
    total.octets += octets;
}

fn sum(counts: impl Iterator<Item = Residual>) -> Residual {
    let mut total = Residual::default();
    counts.for_each(|counts| add(&mut total, counts.packets, counts.octets));
    total
}

fn overflow(totals: &Totals, slot: usize) -> Residual {
    let residuals = totals.residuals.iter().filter(|residual| residual.interface == slot);
    sum(residuals.map(|residual| Residual { packets: residual.packets, octets: residual.octets }))
}

/// Sends on both interfaces at full speed while draining without pause, and compares every counter
/// with what the frames must give. Returns what was found.
fn count_live_traffic(flows_per_cpu: u32) -> Found {
    let mut network = Network::new(INTERFACES, 1500).expect("a private network can be made");
    let if_indices: Vec<u32> = network.cables().iter().map(|cable| cable.receiver.index).collect();
    let options = Options { flows_per_cpu, clock: Clock::Tick, hash_keys: None };
    let mut program = Program::load(&options).expect("the program loads");
    for (slot, &if_index) in (0..).zip(&if_indices) {
        program.watch(if_index, slot).expect("the slot exists");
        program.attach(if_index, Mode::Native).expect("veth takes the program");
    }
    let names = network.cables().iter().map(|cable| cable.receiver.name.clone()).collect();
    let mut found = Found {
        ledger: Ledger::new(names),
        flows: HashMap::new(),
        residuals: HashMap::new(),
        fullest: Occupancy::default(),
    };

    let traffic: Vec<_> = (0..INTERFACES).map(|seed| Arc::new(Traffic::mixed(seed as u64))).collect();
    let begin = Instant::now();
    let senders: Vec<_> = traffic
        .iter()
        .enumerate()
        .map(|(cable, traffic)| network.send(cable, traffic, None).expect("sending starts"))
        .collect();
    let mut flips = 0;
    let mut sent = 0;
    while flips < FLIPS_MIN || sent < FRAMES_MIN {
        found.drain(&mut program, &if_indices);
        flips += 1;
        sent = (0..INTERFACES).map(|cable| network.counters(cable).unwrap().transmitted_packets).sum();
        assert!(senders.iter().all(|sender| !sender.is_finished()), "a sender ended early");
    }
    let handed: Vec<_> = senders.into_iter().map(|sender| sender.finish().expect("sending works")).collect();
    let sent: Vec<_> = (0..INTERFACES)
        .map(|cable| network.settle(cable, handed[cable]).expect("the cable empties"))
        .collect();
    let seconds = begin.elapsed().as_secs_f64();
    found.drain(&mut program, &if_indices);
    eprintln!("{sent:?} frames in {seconds:.1} s, {flips} flips, {handed:?}");

    let mut expected_flows = HashMap::new();
    for (slot, (name, interface)) in found.ledger.interfaces().enumerate() {
        assert_eq!(sent[slot], handed[slot].accepted, "{name}: the driver counts what the socket accepted");
        assert_eq!(interface.seen_packets, sent[slot], "{name}: seen is sent");
        let expected = Expected::of(traffic[slot].round(), sent[slot], slot as u32);
        for (outcome, expected) in Outcome::ALL.iter().zip(&expected.outcomes) {
            let counted = match outcome {
                Outcome::Counted => {
                    interface.outcome(Outcome::Counted) + interface.outcome(Outcome::Overflow)
                }
                Outcome::Overflow => 0,
                other => interface.outcome(*other),
            };
            assert_eq!(counted, *expected, "{name}: {outcome:?}");
        }
        assert_eq!(interface.octets_counted, expected.octets(), "{name}: octets");
        expected_flows.extend(expected.flows);
    }
    let by_kind = |flows: &HashMap<Tuple, Residual>| {
        let mut kinds: HashMap<_, Residual> = HashMap::new();
        for (tuple, counts) in flows {
            let tags = tuple.tags();
            let key = (tags.interface() as usize, tags.is_ipv6(), tuple.protocol());
            add(kinds.entry(key).or_default(), counts.packets, counts.octets);
        }
        kinds
    };
    let mut found_kinds = by_kind(&found.flows);
    for (key, counts) in &found.residuals {
        add(found_kinds.entry(*key).or_default(), counts.packets, counts.octets);
    }
    assert_eq!(found_kinds, by_kind(&expected_flows));
    if found.residuals.is_empty() {
        assert!(found.flows == expected_flows, "a flow's packets or octets differ");
    }
    found
}

#[test]
fn live_traffic_is_counted_exactly() {
    if !can_use_kernel() {
        return;
    }
    let found = count_live_traffic(65_536);
    assert_eq!(found.ledger.overflow(), Residual::default(), "the table was large enough");
}

#[test]
fn live_traffic_is_counted_exactly_in_a_table_too_small() {
    if !can_use_kernel() {
        return;
    }
    let found = count_live_traffic(256);
    assert!(found.ledger.overflow().packets > 0, "residual counters were used");
    assert!(found.fullest.spill_used > 0, "the spill log was used");
}
