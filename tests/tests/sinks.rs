//! Sinks that do not work: they cost their own records, each under its reason, and nobody else's.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::json_lines::packets_in_files;
use tests::network::Network;
use tests::tmpfs::Tmpfs;

/// Frames of the generated traffic are drawn from this.
const SEED: u64 = 0x51;
/// How long traffic flows while sinks do not work: longer than a collector takes to start again.
const OUTAGE: Duration = Duration::from_secs(120);
/// Time between drains.
const INTERVAL: Duration = Duration::from_millis(200);

/// An agent.toml with these sinks.
fn config(folder: &Path, sinks: &[(&str, String)]) -> Result<std::path::PathBuf> {
    let mut text = format!(
        "interfaces = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\ninterval = \"{}ms\"\n\
         ledger = \"ledger.json\"\nshutdown_timeout = \"2s\"\n",
        INTERVAL.as_millis()
    );
    for (name, kind) in sinks {
        text += &format!(
            "[[sinks]]\nname = \"{name}\"\nrecipient = \"laboratory\"\nqueue_records = 20000\n{kind}\n"
        );
    }
    let path = folder.join("agent.toml");
    fs::write(&path, text)?;
    Ok(path)
}

fn ipfix(collector: SocketAddr) -> String {
    format!("ipfix = {{ collector = \"{collector}\", transport = \"tcp\" }}")
}

fn files(directory: &Path) -> String {
    format!(
        "files = {{ directory = \"{}\", format = \"json-lines\", rotate_every = \"1s\" }}",
        directory.display()
    )
}

/// Sends for so long and returns how many frames arrived.
fn send_for(network: &mut Network, duration: Duration) -> Result<u64> {
    let sender = network.send(0, &Arc::new(Traffic::mixed(SEED)), None)?;
    let begin = Instant::now();
    while begin.elapsed() < duration {
        thread::park_timeout(duration.saturating_sub(begin.elapsed()));
    }
    let handed = sender.finish()?;
    network.settle(0, handed)
}

/// Packets that were lost, by reason.
fn lost(sink: &Value) -> Vec<(&str, u64)> {
    let dropped = sink["dropped"].as_object().into_iter().flatten();
    dropped.map(|(reason, tally)| (&**reason, tally["packets"].as_u64().unwrap_or(0))).collect()
}

fn packets(tally: &Value) -> u64 {
    tally["packets"].as_u64().unwrap_or(0)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn sinks_that_do_not_work_cost_their_own_records_under_their_reasons() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let tiny = folder.path().join("tiny");
    let _tiny = Tmpfs::mount(tiny.clone(), 1 << 20)?;
    // Nobody listens on a port that was free a moment ago.
    let dead = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    // It accepts as listeners do, and nobody reads.
    let stalled = TcpListener::bind("127.0.0.1:0")?;
    let good = folder.path().join("good");
    let config = config(
        folder.path(),
        &[
            ("dead", ipfix(dead)),
            ("stalled", ipfix(stalled.local_addr()?)),
            ("full", files(&tiny)),
            ("unwritable", files(Path::new("/proc/nothing"))),
            ("good", files(&good)),
        ],
    )?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&config))?;
    let begin = Instant::now();
    let arrived = send_for(&mut network, OUTAGE)?;
    let status = agent.wait_for(|status| {
        let sink = |name: &str| status["ledger"]["sinks"][name].clone();
        ["dead", "stalled", "full", "unwritable"].iter().all(|name| sink(name)["failing"].is_object())
    })?;
    let drains = status["drains"]["succeeded"].as_u64().context("drains are counted")?;
    let expected = u64::try_from(begin.elapsed().as_millis() / INTERVAL.as_millis())?;
    ensure!(drains * 2 > expected, "{drains} drains in the time of {expected}");
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "{exit}: {said}");
    let ledger: Value = serde_json::from_slice(&fs::read(folder.path().join("ledger.json"))?)?;
    ensure!(ledger["balanced"] == true, "{ledger:#}");
    ensure!(ledger["interfaces"]["receive0"]["seen"] == arrived, "{arrived} frames arrived: {ledger:#}");
    let counted = packets(&ledger["exported"]);
    ensure!(packets(&ledger["dropped"]) == 0 && counted > 0, "one sink took everything: {ledger:#}");
    for (name, reason, other, is_all_lost) in [
        ("dead", "unreachable", "", true),
        // Who has taken nothing for less than two seconds is slow.
        ("stalled", "stalled", "queue_full", false),
        ("full", "disk_full", "", false),
        ("unwritable", "unwritable", "", true),
    ] {
        let sink = &ledger["sinks"][name];
        let lost = lost(sink);
        let sum: u64 = lost.iter().map(|(_, packets)| packets).sum();
        ensure!(packets(&sink["offered"]) == counted, "{name} was offered everything: {sink:#}");
        ensure!(packets(&sink["exported"]) + sum == counted, "{name}: {sink:#}");
        ensure!(lost.iter().all(|(name, _)| [reason, other, "shutdown"].contains(name)), "{name}: {lost:?}");
        ensure!(lost.iter().any(|(name, packets)| *name == reason && *packets > 0), "{name}: {lost:?}");
        ensure!(!is_all_lost || sum == counted, "{name}: {sink:#}");
    }
    let sink = &ledger["sinks"]["good"];
    ensure!(packets(&sink["exported"]) == counted && lost(sink).is_empty(), "{sink:#}");
    ensure!(packets_in_files(&good)? == counted, "the files hold what was exported");
    ensure!(
        packets_in_files(&tiny)? == packets(&ledger["sinks"]["full"]["exported"]),
        "what is on the full disk is what was exported to it"
    );
    println!("{arrived} frames, {drains} drains; dead, stalled, full, unwritable: {:?}", {
        ["dead", "stalled", "full", "unwritable"].map(|name| lost(&ledger["sinks"][name]))
    });
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_collector_that_comes_back_is_sent_what_waited() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = config(folder.path(), &[("collector", ipfix(address))])?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&config))?;
    let mut arrived = network.send_all(0, &Arc::new(Traffic::mixed(SEED)), 2000)?;
    agent.wait_for(|status| status["ledger"]["sinks"]["collector"]["failing"]["reason"] == "unreachable")?;
    let listener = TcpListener::bind(address)?;
    let reader = thread::spawn(move || -> Result<u64> {
        let (mut stream, _) = listener.accept()?;
        read_to_end(&mut stream)
    });
    agent.wait_for(|status| {
        let sink = &status["ledger"]["sinks"]["collector"];
        sink["failing"].is_null() && packets(&sink["exported"]) > 0
    })?;
    let sender = network.send(0, &Arc::new(Traffic::mixed(SEED)), Some(2000))?;
    while !sender.is_finished() {
        thread::yield_now();
    }
    arrived += sender.finish()?.accepted;
    agent.wait_for(|status| status["ledger"]["interfaces"]["receive0"]["seen"] == arrived)?;
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "{exit}: {said}");
    ensure!(said.contains("sink collector: ") && said.contains("sink collector works again"), "{said}");
    let ledger: Value = serde_json::from_slice(&fs::read(folder.path().join("ledger.json"))?)?;
    ensure!(ledger["balanced"] == true, "{ledger:#}");
    ensure!(ledger["interfaces"]["receive0"]["seen"] == arrived, "{ledger:#}");
    let sink = &ledger["sinks"]["collector"];
    ensure!(lost(sink).is_empty() && packets(&sink["exported"]) == packets(&ledger["exported"]), "{sink:#}");
    let octets = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    ensure!(sink["octets_written"] == octets, "{octets} octets were read: {sink:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_sink_for_nobody_is_refused_and_a_policy_without_its_recipient_too() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let policy = folder.path().join("policy.toml");
    let of = |recipient: &str| {
        format!(
            "name = \"test\"\n[[recipients]]\nname = \"{recipient}\"\npurpose = \"to test\"\n[recipients.fields]\n\
             protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n"
        )
    };
    fs::write(&policy, of("laboratory"))?;
    let path = config(folder.path(), &[("good", files(&folder.path().join("good")))])?;
    let text = fs::read_to_string(&path)?.replace("full-record", "policy.toml");
    fs::write(&path, text.replace("\"laboratory\"", "\"nobody\""))?;
    let output = Command::new(minimizer()).args(["run", "--config"]).arg(&path).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(78), "{:?}: {said}", output.status);
    ensure!(
        said.contains("sink good: the policy test has no recipient nobody; it has: laboratory"),
        "{said}"
    );
    fs::write(&path, text)?;
    let agent = Agent::start(Command::new(minimizer()).args(["run", "--config"]).arg(&path))?;
    fs::write(&policy, of("somebody"))?;
    agent.hang_up()?;
    let status = agent.wait_for(|status| status["policy"]["reload_failures"] == 1)?;
    let error = status["policy"]["reload_error"].as_str().unwrap_or_default();
    ensure!(error.contains("sink good: the policy test has no recipient laboratory"), "{error}");
    Ok(())
}

fn read_to_end(stream: &mut TcpStream) -> Result<u64> {
    let (mut sum, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(sum),
            octets => sum += u64::try_from(octets)?,
        }
    }
}
