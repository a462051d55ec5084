//! Files of a running agent: what a kill leaves behind, what nobody could read in time, and what cannot be deleted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use minimizer::commands::demo::generator::Traffic;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::files::{NOTES, manifests, names};
use tests::network::Network;
use tests::tools;

fn configuration(folder: &Path, policy: &str, sinks: &str) -> Result<PathBuf> {
    let path = folder.join("agent.toml");
    let text = format!(
        "interfaces = [\"receive0\"]\npolicy = {policy:?}\nlisten = \"127.0.0.1:0\"\ninterval = \"1s\"\n\
         ledger = \"ledger.json\"\n{sinks}"
    );
    fs::write(&path, text)?;
    Ok(path)
}

fn policy(folder: &Path, retention: &str) -> Result<()> {
    let text = format!(
        "name = \"test\"\n[[recipients]]\nname = \"soc\"\npurpose = \"to test\"\n{retention}\n[recipients.fields]\n\
         sourceIPv4Address = \"exact\"\npacketDeltaCount = \"exact\"\noctetDeltaCount = \"exact\"\n"
    );
    Ok(fs::write(folder.join("policy.toml"), text)?)
}

/// Something mounted there, gone when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

/// The accounts of the sinks.
fn accounts(status: &Value) -> Vec<Value> {
    let sinks = status["ledger"]["sinks"].as_object().or_else(|| status["sinks"].as_object());
    sinks.map(|sinks| sinks.values().cloned().collect()).unwrap_or_default()
}

/// Counts of a file of records, read by DuckDB.
fn duckdb(pattern: &str) -> Result<(u64, u64)> {
    const RUN: &str = "
import duckdb, json, sys
rows = duckdb.sql(sys.argv[1]).fetchall()
print(json.dumps([int(rows[0][0]), int(rows[0][1])]))
";
    let sql = if pattern.ends_with("parquet") {
        format!("SELECT count(*), coalesce(sum(packetDeltaCount), 0) FROM '{pattern}'")
    } else {
        format!(
            "SELECT count(*), coalesce(sum(packetDeltaCount), 0) FROM read_json('{pattern}', \
             format = 'newline_delimited', columns = {{packetDeltaCount: 'UBIGINT'}}) \
             WHERE packetDeltaCount IS NOT NULL"
        )
    };
    let mut command = tools::python();
    let output = command.args(["-c", RUN, &sql]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "DuckDB refused {sql}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
#[cfg_attr(
    any(without_kernel, without_python),
    ignore = "needs root, the kernel program and the Python packages: cargo xtask test"
)]
fn what_a_killed_agent_had_written_is_there_after_the_next_start() -> Result<()> {
    let network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let sinks = "[[sinks]]\nname = \"lines\"\nrecipient = \"laboratory\"\n\
                 files = { directory = \"jsonl\", rotate_every = \"24h\" }\n\
                 [[sinks]]\nname = \"columns\"\nrecipient = \"laboratory\"\n\
                 files = { directory = \"parquet\", format = \"parquet\", rotate_every = \"24h\" }\n\
                 [[sinks]]\nname = \"messages\"\nrecipient = \"laboratory\"\n\
                 ipfix = { directory = \"ipfix\", rotate_every = \"24h\" }\n";
    let path = configuration(folder.path(), "full-record", sinks)?;
    let mut command = Command::new(minimizer());
    command.args(["run", "--config"]).arg(&path);
    let agent = Agent::start(&mut command)?;
    let sender = network.send(0, &Arc::new(Traffic::mixed(1)), None)?;
    // The files are never closed; Parquet ends a row group after 65,536 rows or a minute.
    let is_on_disk = |sink: &Value| sink["octets_written"].as_u64() > Some(20_000);
    agent.wait_for(|status| {
        let sinks = accounts(status);
        sinks.len() == 3 && sinks.iter().all(is_on_disk)
    })?;
    // With SIGKILL.
    drop(agent);
    sender.finish()?;
    for format in ["jsonl", "parquet", "ipfix"] {
        ensure!(manifests(&folder.path().join(format))?.is_empty(), "nothing is whole");
    }
    let mut command = Command::new(minimizer());
    command.args(["run", "--config"]).arg(&path);
    let agent = Agent::start(&mut command)?;
    agent.wait_for(|_| {
        let is_whole =
            |format: &str| manifests(&folder.path().join(format)).is_ok_and(|found| !found.is_empty());
        ["jsonl", "parquet", "ipfix"].iter().all(|format| is_whole(format))
    })?;
    for format in ["jsonl", "parquet"] {
        let (name, manifest) = manifests(&folder.path().join(format))?.pop_first().context("a file")?;
        ensure!(manifest["recovered"] == true, "{manifest:#}");
        let file = folder.path().join(format).join(&name);
        let (records, packets) = duckdb(file.to_str().context("text")?)?;
        let batches = manifest["batches"].as_array().context("batches")?;
        let counted: u64 = batches.iter().filter_map(|batch| batch["packets"].as_u64()).sum();
        ensure!(
            manifest["records"] == records && counted == packets && records > 0,
            "{records} {manifest:#}"
        );
        println!("{name}: {records} records, {packets} packets");
    }
    agent.stop()?;
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_file_that_nobody_could_read_in_time_is_refused_at_the_start() -> Result<()> {
    let _network = Network::new(1, 1500)?;
    for (sink, retention, is_refused) in [
        ("files = { directory = \"out\", rotate_every = \"60s\" }", "10 s", true),
        ("files = { directory = \"out\", rotate_every = \"10s\" }", "10 s", true),
        // The first record is one interval old when it comes.
        ("files = { directory = \"out\", rotate_every = \"9s\" }", "10 s", true),
        ("ipfix = { directory = \"out\" }", "5 min", true),
        ("ipfix = { directory = \"out\", rotate_every = \"8s\" }", "10 s", false),
    ] {
        let folder = tempfile::tempdir()?;
        policy(folder.path(), &format!("retention = \"{retention}\""))?;
        let sinks = format!("[[sinks]]\nname = \"late\"\nrecipient = \"soc\"\n{sink}\n");
        let mut command = Command::new(minimizer());
        command.args(["run", "--config"]).arg(configuration(folder.path(), "policy.toml", &sinks)?);
        if !is_refused {
            Agent::start(&mut command)?.stop()?;
            continue;
        }
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(78), "{}: {said}", output.status);
        ensure!(
            said.contains("sink late: the retention of soc") && said.contains("`rotate_every`"),
            "{said}"
        );
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_file_that_cannot_be_deleted_is_told_and_stops_nothing_behind_it() -> Result<()> {
    let network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    policy(folder.path(), "retention = \"4 s\"")?;
    let sinks = [
        "files = { directory = \"jsonl\", rotate_every = \"1s\" }",
        "ipfix = { directory = \"ipfix\", rotate_every = \"1s\" }",
    ];
    let sinks: String = (0..)
        .zip(sinks)
        .map(|(number, sink)| format!("[[sinks]]\nname = \"sink{number}\"\nrecipient = \"soc\"\n{sink}\n"))
        .collect();
    let mut command = Command::new(minimizer());
    command.args(["run", "--config"]).arg(configuration(folder.path(), "policy.toml", &sinks)?);
    let agent = Agent::start(&mut command)?;
    let traffic = network.send(0, &Arc::new(Traffic::mixed(1)), None)?;
    // Each can be read for a while. Then something is mounted over it, so that nobody can remove it.
    let mut stuck = Vec::new();
    for directory in ["jsonl", "ipfix"].map(|name| folder.path().join(name)) {
        let first = || names(&directory).ok().and_then(|names| names.into_iter().find(|name| name != NOTES));
        agent.wait_for(|_| first().is_some())?;
        let path = directory.join(first().context("a file")?);
        mount_bind(&path, &path)?;
        stuck.push(Mounted(path));
    }
    let deletions = |folder: &Path| -> usize {
        let text = fs::read_to_string(folder.join(NOTES).join("deletions.jsonl"));
        text.map_or(0, |text| text.lines().count())
    };
    agent.wait_for(|status| {
        let sinks = accounts(status);
        let is_told =
            |sink: &Value| sink["retention_failures"].as_u64() > Some(0) && sink["failing"].is_null();
        let goes_on = ["jsonl", "ipfix"].iter().all(|name| deletions(&folder.path().join(name)) > 2);
        sinks.len() == 2 && sinks.iter().all(is_told) && goes_on
    })?;
    let (_, _, metrics) = agent.get("/metrics", "")?;
    for sink in ["sink0", "sink1"] {
        let line = format!("minimizer_sink_retention_failures_total{{sink=\"{sink}\"}} ");
        let value = metrics.lines().find_map(|text| text.strip_prefix(&line)).context(line.clone())?;
        ensure!(value != "0", "{line}{value}");
    }
    ensure!(stuck.iter().all(|stuck| stuck.0.exists()));
    traffic.finish()?;
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "{exit}: {said}");
    let told = said.matches("as its retention is over").count();
    ensure!(told == 2, "each is told once: {said}");
    let ledger: Value = serde_json::from_slice(&fs::read(folder.path().join("ledger.json"))?)?;
    ensure!(ledger["sinks"]["sink1"]["retention_failures"].as_u64() > Some(0), "{ledger:#}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn files_of_a_sink_that_was_removed_are_deleted_when_their_time_is_over() -> Result<()> {
    let network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("state"))?;
    policy(folder.path(), "retention = \"4 s\"")?;
    let run = |directory: &str| -> Result<Agent> {
        let sinks = format!(
            "state_directory = \"state\"\n[[sinks]]\nname = \"{directory}\"\nrecipient = \"soc\"\n\
             files = {{ directory = \"{directory}\", rotate_every = \"1s\" }}\n"
        );
        let mut command = Command::new(minimizer());
        command.args(["run", "--config"]).arg(configuration(folder.path(), "policy.toml", &sinks)?);
        Agent::start(&mut command)
    };
    let former = folder.path().join("former");
    let agent = run("former")?;
    let traffic = network.send(0, &Arc::new(Traffic::mixed(1)), None)?;
    agent.wait_for(|_| manifests(&former).is_ok_and(|manifests| !manifests.is_empty()))?;
    traffic.finish()?;
    // Its last files are named when it ends, and nobody is there when their time is over.
    agent.stop()?;
    ensure!(!manifests(&former)?.is_empty());
    let agent = run("present")?;
    agent.wait_for(|_| names(&former).is_ok_and(|names| names == [NOTES]))?;
    agent.stop()?;
    ensure!(names(&former.join(NOTES))? == ["deletions.jsonl"], "{:?}", names(&former.join(NOTES))?);
    let listed = fs::read_to_string(folder.path().join("state/sink-directories.json"))?;
    ensure!(listed.contains("former") && listed.contains("present"), "{listed}");
    Ok(())
}
