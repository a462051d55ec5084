//! `minimizer run` interrupted: the ledger it prints balances, and holds all that it printed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use minimizer::commands::demo::generator::Traffic;
use minimizer::commands::demo::sender::FrameSender;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::command::{self, minimizer};
use tests::expected::Expected;
use tests::network::Network;

const INTERFACES: usize = 2;

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
fn send_until(network: &mut Network, traffic: &Arc<Traffic>, frames: u64) -> Vec<FrameSender> {
    let senders: Vec<_> =
        (0..INTERFACES).map(|cable| network.send(cable, traffic, None).expect("sending starts")).collect();
    while (0..INTERFACES)
        .map(|cable| network.counters(cable).expect("the cable is there").transmitted_packets)
        .sum::<u64>()
        < frames
    {
        assert!(senders.iter().all(|sender| !sender.is_finished()), "a sender ended early");
    }
    senders
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interrupt_under_traffic_leaves_a_balanced_ledger() {
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
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interrupt_after_traffic_leaves_a_ledger_of_all_that_was_sent() {
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

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_closed_standard_output_does_not_cost_the_ledger_file() {
    let network = Network::new(1, 1500).expect("a private network can be made");
    let name = &network.cables()[0].receiver.name;
    let folder = tempfile::tempdir().expect("a folder");
    for output in ["table", "json"] {
        let file = folder.path().join(output);
        let mut command = Command::new(minimizer());
        command.args(["run", "-i", name, "--interval", "100ms", "--listen", "127.0.0.1:0"]);
        command.args(["--flows-per-cpu", "1024", "--output", output, "--ledger"]).arg(&file);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        // A table has a header; in JSON nothing is written before there is a record.
        let sender = network.send(0, &Arc::new(Traffic::mixed(1)), None).expect("sending starts");
        let mut said = String::new();
        child.stderr.take().expect("stderr is piped").read_to_string(&mut said).expect("it is UTF-8");
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{said}");
        sender.finish().expect("sending works");
        assert!(said.contains("cannot write to the standard output"), "{said}");
        let ledger = fs::read(&file).expect("the ledger is written");
        let ledger: Value = serde_json::from_slice(&ledger).expect("the ledger is JSON");
        assert_eq!(ledger["balanced"], true, "{ledger}");
        assert!(output == "table" || ledger["dropped"]["packets"].as_u64() > Some(0), "{ledger}");
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_second_signal_ends_an_agent_that_waits_for_its_sinks() {
    let mut network = Network::new(1, 1500).expect("a private network can be made");
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("agent.toml");
    let collector = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a free port");
    let text = format!(
        "interfaces = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\nflows_per_cpu = 1024\n\
         shutdown_timeout = \"10m\"\n[[sinks]]\nname = \"dead\"\nrecipient = \"laboratory\"\n\
         ipfix = {{ collector = \"{collector}\", transport = \"tcp\" }}\n"
    );
    fs::write(&config, text).expect("it is written");
    let mut command = Command::new(minimizer());
    let agent = command::Agent::start(command.args(["run", "--config"]).arg(&config)).expect("it starts");
    network.send_all(0, &Arc::new(Traffic::mixed(1)), 100).expect("sending works");
    agent.terminate().expect("it runs");
    while network.is_attached(0).expect("the cable is there") {
        thread::yield_now();
    }
    let (ended, said) = agent.stop().expect("it ends");
    assert!(ended.success(), "{ended}: {said}");
    assert!(said.contains("\"complete\":true"), "{said}");
}
