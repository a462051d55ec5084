//! Memory of the tables for the same number of flows: the maps that an agent holds while it runs, as the kernel accounts
//! for them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tests::command::{Agent, minimizer};
use tests::network::Network;

use super::on_any_cpu;

/// What an agent's maps take.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `minimizer` or `beside`.
    pub name: &'static str,
    /// IPv4 flows that it was started for, over all CPUs.
    pub flows: u32,
    /// Its maps.
    pub maps: usize,
    /// Their memory, MiB.
    pub mib: f64,
    /// What the agent itself calls the memory of its table, MiB.
    pub told_mib: f64,
}

/// Starts this build's agent and then the other one with `--flows` and the policy `full-record`, and adds up the maps of each.
///
/// # Errors
/// When an agent does not run, or holds less than it says.
pub fn measure(flows: u32, beside: Option<&Path>) -> Result<Vec<Row>> {
    let builds = [("minimizer", Some(minimizer())), ("beside", beside)];
    let builds = builds.into_iter().filter_map(|(name, executable)| Some((name, executable?)));
    builds.map(|(name, executable)| of(name, executable, flows)).collect()
}

fn of(name: &'static str, executable: &Path, flows: u32) -> Result<Row> {
    // The namespace ends with its thread.
    thread::scope(|scope| scope.spawn(|| run(name, executable, flows)).join())
        .map_err(|_| anyhow::anyhow!("the run panicked"))?
}

fn run(name: &'static str, executable: &Path, flows: u32) -> Result<Row> {
    let network = Network::new(1, 1500)?;
    let mut command = Command::new(executable);
    command.args(["run", "--listen", "127.0.0.1:0", "--policy", "full-record", "--output", "json"]);
    command.args(["--interface", &network.cables()[0].receiver.name, "--flows", &flows.to_string()]);
    let agent =
        on_any_cpu(|| Agent::start(&mut command)).with_context(|| executable.display().to_string())?;
    let status = agent.wait_for(|status| status["table"]["memory_bytes"].is_u64())?;
    let told = status["table"]["memory_bytes"].as_u64().context("a number")?;
    let maps = maps(agent.process())?;
    let octets: u64 = maps.iter().sum();
    ensure!(octets >= told, "{name} says that its table takes {told} octets; its maps take {octets}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "the agent ended with {ended}: {said}");
    let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
    Ok(Row { name, flows, maps: maps.len(), mib: mib(octets), told_mib: mib(told) })
}

/// Octets of each map that a process holds, inner maps among them.
fn maps(process: u32) -> Result<Vec<u64>> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        // A descriptor may have been closed since.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(octets)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, octets);
        }
    }
    Ok(maps.into_values().collect())
}
