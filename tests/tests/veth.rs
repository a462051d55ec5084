//! Live traffic on two interfaces while generations flip: nothing is lost, nothing is counted twice.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use minimizer::demo::generator::Traffic;
use minimizer::demo::sender::Sender;
use minimizer::drain::{Occupancy, Records, Totals, drain};
use minimizer::ledger::Ledger;
use minimizer::program::{Clock, Mode, Options, Program};
use minimizer_common::generation::Residual;
use minimizer_common::outcome::Outcome;
use minimizer_common::tuple::Tuple;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::command::minimizer;
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

/// A `minimizer run` on both interfaces, and what it prints.
struct Agent {
    child: Child,
    /// Records, packets and IP octets of the JSON Lines on its standard output.
    printed: JoinHandle<[u64; 3]>,
}

impl Agent {
    /// Starts it and waits until it is attached everywhere.
    fn start(network: &mut Network, flows_per_cpu: &str) -> Self {
        let mut command = Command::new(minimizer());
        command.args(["run", "--interval", "200ms", "--output", "json", "--listen", "127.0.0.1:0"]);
        command.args(["--flows-per-cpu", flows_per_cpu]);
        for cable in network.cables() {
            command.args(["-i", &cable.receiver.name]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let printed = thread::spawn(move || {
            let mut sums = [0; 3];
            for line in stdout.lines() {
                let record: Value =
                    serde_json::from_str(&line.expect("a line")).expect("one JSON object a line");
                let number = |key: &str| record[key].as_u64().expect("a number");
                let adds = [1, number("packetDeltaCount"), number("octetDeltaCount")];
                sums.iter_mut().zip(adds).for_each(|(sum, add)| *sum += add);
            }
            sums
        });
        while !(0..INTERFACES).all(|cable| network.is_attached(cable).expect("the cable is there")) {
            assert!(child.try_wait().expect("it can be waited for").is_none(), "the agent ended");
            thread::yield_now();
        }
        Self { child, printed }
    }

    /// Interrupts it as Ctrl-C does; returns the ledger it prints, and the sums of the records it printed.
    fn interrupt(mut self) -> (Value, [u64; 3]) {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let mut stderr = String::new();
        self.child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr).expect("it is UTF-8");
        assert!(self.child.wait().expect("it ends").success(), "{stderr}");
        let ledger = stderr.lines().find(|line| line.starts_with('{')).expect("the ledger is printed");
        (serde_json::from_str(ledger).expect("the ledger is JSON"), self.printed.join().expect("it was read"))
    }
}

fn sum_of(outcomes: &Value) -> u64 {
    let outcomes = outcomes.as_object().expect("outcomes are an object");
    outcomes.values().map(|value| value.as_u64().unwrap_or_else(|| sum_of(value))).sum()
}

/// Checks the ledger of a stopped agent against itself and the records it printed.
fn check_printed_ledger(ledger: &Value, [records, packets, octets]: [u64; 3]) {
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let interfaces = ledger["interfaces"].as_object().expect("an object");
    assert_eq!(interfaces.len(), INTERFACES);
    let mut counted_octets = 0;
    for (name, interface) in interfaces {
        assert_eq!(interface["seen"].as_u64(), Some(sum_of(&interface["outcomes"])), "{name}");
        counted_octets += interface["octets_counted"].as_u64().expect("a number");
    }
    assert!(records > 0);
    assert_eq!(ledger["exported"]["packets"].as_u64(), Some(packets), "printed records are exported records");
    assert_eq!(ledger["exported"]["octets"].as_u64(), Some(octets));
    let lost = |key: &str| ledger[key]["octets"].as_u64().expect("a number");
    assert_eq!(counted_octets, octets + lost("overflow") + lost("dropped") + lost("queued"));
}

/// Sends until both cables have carried `frames` together, without ending the senders.
fn send_until(network: &mut Network, traffic: &Arc<Traffic>, frames: u64) -> Vec<Sender> {
    let senders: Vec<_> =
        (0..INTERFACES).map(|cable| network.send(cable, traffic, None).expect("sending starts")).collect();
    while (0..INTERFACES).map(|cable| network.counters(cable).unwrap().transmitted_packets).sum::<u64>()
        < frames
    {
        assert!(senders.iter().all(|sender| !sender.is_finished()), "a sender ended early");
    }
    senders
}

#[test]
fn an_interrupt_under_traffic_leaves_a_balanced_ledger() {
    if !can_use_kernel() {
        return;
    }
    let traffic = Arc::new(Traffic::mixed(1));
    for flows_per_cpu in ["65536", "64"] {
        let mut network = Network::new(INTERFACES, 1500).expect("a private network can be made");
        let agent = Agent::start(&mut network, flows_per_cpu);
        let senders = send_until(&mut network, &traffic, 300_000);
        let (ledger, printed) = agent.interrupt();
        // Sending goes on while the agent detaches, so only the ledger itself can be compared.
        for (cable, sender) in senders.into_iter().enumerate() {
            let handed = sender.finish().expect("sending works");
            let seen = ledger["interfaces"][&network.cables()[cable].receiver.name]["seen"].as_u64();
            assert!(seen > Some(0) && seen <= Some(handed.accepted), "{seen:?} of {handed:?}");
        }
        check_printed_ledger(&ledger, printed);
        assert_eq!(ledger["overflow"]["packets"].as_u64() > Some(0), flows_per_cpu == "64");
    }
}

#[test]
fn an_interrupt_after_traffic_leaves_a_ledger_of_all_that_was_sent() {
    if !can_use_kernel() {
        return;
    }
    let traffic = Arc::new(Traffic::mixed(1));
    let mut network = Network::new(INTERFACES, 1500).expect("a private network can be made");
    let agent = Agent::start(&mut network, "65536");
    let senders = send_until(&mut network, &traffic, 300_000);
    let sent: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(cable, sender)| network.settle(cable, sender.finish().expect("sending works")).unwrap())
        .collect();
    let (ledger, printed) = agent.interrupt();
    check_printed_ledger(&ledger, printed);
    for (cable, sent) in sent.into_iter().enumerate() {
        let interface = &ledger["interfaces"][&network.cables()[cable].receiver.name];
        assert_eq!(interface["seen"].as_u64(), Some(sent));
        let expected = Expected::of(traffic.round(), sent, 0);
        assert_eq!(interface["octets_counted"].as_u64(), Some(expected.octets()));
    }
}
