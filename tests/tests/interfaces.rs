//! Interfaces that go down, change their names, vanish and return while the agent watches them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::programs::{Xdp, XdpMode};
use minimizer::commands::demo::generator::Traffic;
use minimizer_common::outcome::Outcome;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Agent, minimizer};
use tests::expected::Expected;
use tests::foreign;
use tests::network::Network;
use tests::veth::ip;

const FRAMES: u64 = 5000;

/// An agent, the records it prints, and its ledger.
struct Run {
    folder: TempDir,
    agent: Agent,
}

impl Run {
    fn start(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(minimizer());
        command.args(["run", "--interval", "100ms", "--listen", "127.0.0.1:0", "--output", "json"]);
        command.args(["--flows-per-cpu", "16384", "--ledger"]).arg(folder.path().join("ledger"));
        let records = File::create(folder.path().join("records"))?;
        let agent = Agent::start_into(command.args(arguments), records)?;
        Ok(Self { folder, agent })
    }

    /// Stops the agent; returns its ledger, the packets in its records by interface index, and what it said.
    fn stop(self) -> Result<(Value, HashMap<u64, u64>, String)> {
        let (ended, said): (ExitStatus, String) = self.agent.stop()?;
        ensure!(ended.success(), "{said}");
        let read = |name: &str| fs::read_to_string(Path::join(self.folder.path(), name));
        let ledger: Value = serde_json::from_str(&read("ledger")?)?;
        ensure!(ledger["balanced"] == true, "{ledger:#}");
        let mut packets = HashMap::new();
        for line in read("records")?.lines() {
            let record: Value = serde_json::from_str(line)?;
            let number = |key: &str| record[key].as_u64().context("a number");
            *packets.entry(number("ingressInterface")?).or_default() += number("packetDeltaCount")?;
        }
        eprintln!("{said}");
        Ok((ledger, packets, said))
    }
}

/// The mix of the demo in a few flows, so that no batch of records has to give way to the next.
fn traffic() -> Arc<Traffic> {
    let frames: Vec<_> = Traffic::mixed(1).round().take(64).map(<[u8]>::to_vec).collect();
    Arc::new(Traffic::of_frames(frames))
}

/// Packets that are in records when so many frames were seen.
fn counted(seen: u64) -> u64 {
    Expected::of(traffic().round(), seen, 0).outcomes[Outcome::Counted as usize]
}

/// The status of the interface of this name.
fn interface<'status>(status: &'status Value, name: &str) -> &'status Value {
    let interfaces = status["interfaces"].as_array().into_iter().flatten();
    interfaces.into_iter().find(|interface| interface["name"] == name).unwrap_or(&Value::Null)
}

fn is_attached(status: &Value, name: &str) -> bool {
    interface(status, name)["mode"] == "native"
}

fn seen(status: &Value, name: &str) -> u64 {
    status["ledger"]["interfaces"][name]["seen"].as_u64().unwrap_or(0)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interface_that_goes_down_and_up_stays_watched() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let run = Run::start(&["-i", "receive0"])?;
    let sender = network.send(0, &traffic(), None)?;
    run.agent.wait_for(|status| seen(status, "receive0") > FRAMES)?;
    let mut before = 0;
    for _ in 0..3 {
        ip("link set dev receive0 down")?;
        let status = run.agent.wait_for(|status| interface(status, "receive0")["up"] == false)?;
        assert!(is_attached(&status, "receive0"), "{status}");
        ip("link set dev receive0 up")?;
        let status = run.agent.wait_for(|status| {
            interface(status, "receive0")["up"] == true && seen(status, "receive0") > before + FRAMES
        })?;
        before = seen(&status, "receive0");
    }
    // What was sent while it was down is refused or lost, and sending may have failed over it.
    drop(sender.finish());
    let taken = network.counters(0)?.transmitted_packets;
    let (ledger, ..) = run.stop()?;
    let receiver = &ledger["interfaces"]["receive0"];
    assert_eq!(receiver["seen"].as_u64(), Some(taken), "{ledger:#}");
    assert_eq!(receiver.get("unwatched_times"), None, "{ledger:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn names_follow_an_interface_that_is_renamed() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let index = network.cables()[0].receiver.index;
    let run = Run::start(&["-i", "receive0"])?;
    let sender = network.send(0, &traffic(), None)?;
    let first = seen(&run.agent.wait_for(|status| seen(status, "receive0") > FRAMES)?, "receive0");
    ip("link set dev receive0 name renamed0")?;
    run.agent.wait_for(|status| seen(status, "renamed0") > first + FRAMES)?;
    let metrics = run.agent.get("/metrics", "")?.2;
    assert!(metrics.contains("minimizer_seen_packets_total{interface=\"renamed0\"}"), "{metrics}");
    assert!(!metrics.contains("receive0"), "{metrics}");
    let handed = sender.finish()?;
    let sent = network.settle(0, handed)?;

    // Its old name is another interface's now, which is selected by it.
    let other = network.lay("receive0")?;
    run.agent.wait_for(|status| is_attached(status, "receive0"))?;
    let other_sent = network.send_all(other, &traffic(), FRAMES)?;
    let (ledger, packets, said) = run.stop()?;
    let interfaces = ledger["interfaces"].as_object().context("an object")?;
    assert_eq!(interfaces.len(), 2, "{ledger:#}");
    assert_eq!(interfaces["renamed0"]["seen"].as_u64(), Some(sent), "{ledger:#}");
    assert_eq!(interfaces["receive0"]["seen"].as_u64(), Some(other_sent), "{ledger:#}");
    assert_eq!(packets.get(&index.into()).copied(), interfaces["renamed0"]["outcomes"]["counted"].as_u64());
    assert!(said.contains("receive0 is now called renamed0"), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_interface_that_vanishes_is_watched_again_when_it_is_back() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let run = Run::start(&["-i", "gone0", "-i", "receive0"]);
    assert!(run.is_err(), "an interface that is named must be there at the start");
    let mut cable = network.lay("gone0")?;
    let run = Run::start(&["-i", "gone0", "-i", "receive0"])?;
    let traffic = traffic();
    // One interface carries traffic all the time: its counts must not suffer from what happens to the other.
    let steady = network.send(0, &traffic, None)?;
    let mut sent_by_index = HashMap::new();
    let mut sent = 0;
    for times in 1..=5 {
        let taken = network.send_all(cable, &traffic, FRAMES)?;
        sent += taken;
        sent_by_index.insert(u64::from(network.cables()[cable].receiver.index), taken);
        run.agent.wait_for(|status| seen(status, "gone0") == sent)?;
        ip("link del s-gone0")?;
        run.agent.wait_for(|status| interface(status, "gone0")["reason"] == "there is no such interface")?;
        cable = network.lay("gone0")?;
        let status = run.agent.wait_for(|status| is_attached(status, "gone0"))?;
        let entry = &status["ledger"]["interfaces"]["gone0"];
        assert_eq!(entry["unwatched_times"], times, "{status:#}");
        assert!(entry["unwatched_seconds"].as_f64() > Some(0.0), "{status:#}");
    }
    // Now in the midst of its traffic.
    let sender = network.send(cable, &traffic, None)?;
    run.agent.wait_for(|status| seen(status, "gone0") > sent + FRAMES)?;
    ip("link del s-gone0")?;
    network.lay("gone0")?;
    run.agent.wait_for(|status| {
        status["ledger"]["interfaces"]["gone0"]["unwatched_times"] == 6 && is_attached(status, "gone0")
    })?;
    drop(sender.finish());
    let handed = steady.finish()?;
    let steady = network.settle(0, handed)?;
    let (ledger, packets, said) = run.stop()?;
    assert_eq!(ledger["interfaces"]["receive0"]["seen"].as_u64(), Some(steady), "{ledger:#}");
    assert_eq!(ledger["interfaces"].as_object().map(serde_json::Map::len), Some(2), "{ledger:#}");
    // Every incarnation's records bear its own index.
    assert_eq!(ledger["dropped"]["packets"], 0, "{ledger:#}");
    for (index, sent) in sent_by_index {
        assert_eq!(packets.get(&index).copied(), Some(counted(sent)), "index {index} in {packets:?}");
    }
    assert!(said.contains("gone0 is gone") && said.contains("gone0 is watched again"), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_pattern_takes_what_appears_as_far_as_there_are_slots() -> Result<()> {
    const SLOTS: usize = 32;
    let mut network = Network::new(0, 1500)?;
    let run = Run::start(&["-i", "port*"])?;
    let traffic = traffic();
    let mut sent = 0;
    for number in 0..SLOTS {
        let name = format!("port{number}");
        let cable = network.lay(&name)?;
        run.agent.wait_for(|status| is_attached(status, &name))?;
        sent += network.send_all(cable, &traffic, 100)?;
    }
    let one_more = network.lay("port32")?;
    let refused = "minimizer_interfaces_refused 1\n";
    run.agent.wait_for(|_| run.agent.get("/metrics", "").is_ok_and(|(_, _, text)| text.contains(refused)))?;
    let status = run.agent.wait_for(|_| true)?;
    assert_eq!(interface(&status, "port32"), &Value::Null, "{status:#}");
    // Its place becomes free, and what was counted in it stays in the ledger.
    ip("link del s-port7")?;
    run.agent.wait_for(|status| is_attached(status, "port32"))?;
    sent += network.send_all(one_more, &traffic, 100)?;
    let (ledger, _, said) = run.stop()?;
    assert_eq!(ledger["interfaces"]["former interfaces"]["seen"], 100, "{ledger:#}");
    assert_eq!(ledger["interfaces"].get("port7"), None, "{ledger:#}");
    let seen =
        ledger["interfaces"].as_object().context("an object")?.values().map(|entry| entry["seen"].as_u64());
    assert_eq!(seen.flatten().sum::<u64>(), sent, "{ledger:#}");
    assert!(said.contains("port32 is selected and not watched: all 32 slots are taken"), "{said}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_foreign_program_on_an_interface_that_returns_is_left_alone() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let run = Run::start(&["-i", "receive0"])?;
    ip("link del send0")?;
    run.agent.wait_for(|status| !is_attached(status, "receive0"))?;
    let cable = network.lay("other0")?;
    let mut foreign = EbpfLoader::new().load(&foreign::object()?)?;
    let program: &mut Xdp = foreign.program_mut(foreign::NAME).context("the object has it")?.try_into()?;
    program.load()?;
    let id = program.info()?.id();
    let link = program.attach("other0", XdpMode::Driver)?;
    ip("link set dev other0 name receive0")?;
    let reason = format!("already has an XDP program (id {id}, native), which is left alone");
    let is_reported = |status: &Value| {
        interface(status, "receive0")["reason"].as_str().is_some_and(|text| text.contains(&reason))
    };
    run.agent.wait_for(is_reported)?;
    program.detach(link)?;
    run.agent.wait_for(|status| is_attached(status, "receive0"))?;
    let sent = network.send_all(cable, &traffic(), FRAMES)?;
    let (ledger, ..) = run.stop()?;
    assert_eq!(ledger["interfaces"]["receive0"]["seen"].as_u64(), Some(sent), "{ledger:#}");
    Ok(())
}
