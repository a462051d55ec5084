//! Mandates: nothing is attached outside of their period, and at its end the agent accounts for all and goes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use minimizer::commands::demo::generator::Traffic;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Agent, minimizer};
use tests::network::Network;

/// Longer than an agent takes to start.
const AHEAD: Duration = Duration::from_secs(6);
const DAY: Duration = Duration::from_secs(86_400);

/// A policy whose mandate has this period.
fn policy(folder: &TempDir, valid_from: Timestamp, valid_until: Timestamp) -> Result<PathBuf> {
    let path = folder.path().join("policy.toml");
    let fields = "protocolIdentifier = \"exact\"\npacketDeltaCount = \"exact\"\n";
    let text = format!(
        "name = \"test\"\nacknowledged = [\"every communication is collected, between domestic parties too\"]\n\
         [mandate]\nid = \"NCO-7\"\npurpose = \"to test\"\nlegal_basis = \"none\"\n\
         valid_from = {valid_from}\nvalid_until = {valid_until}\nmax_period = \"3660 days\"\n[[recipients]]\nname = \"r\"\npurpose = \"to test\"\n\
         [recipients.fields]\n{fields}"
    );
    fs::write(&path, text)?;
    Ok(path)
}

fn run(policy: &PathBuf) -> Command {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", "receive0", "--interval", "100ms", "--listen", "127.0.0.1:0"]);
    command.args(["--output", "json", "--flows-per-cpu", "1024", "--policy"]).arg(policy);
    command
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn nothing_is_attached_outside_of_the_period() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let now = Timestamp::now();
    for (valid_from, valid_until, reason) in [
        (now + DAY, now + 2 * DAY, "the mandate NCO-7 begins at "),
        (now - 2 * DAY, now - DAY, "the mandate NCO-7 ended at "),
    ] {
        let output = run(&policy(&folder, valid_from, valid_until)?).output()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(78), "{said}");
        ensure!(said.contains(reason) && said.lines().count() == 1, "{said}");
        ensure!(!network.is_attached(0)?, "the program is attached");
        let path = folder.path().join("policy.toml");
        let output = Command::new(minimizer()).args(["demo", "--policy"]).arg(path).output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(78) && said.contains(reason), "{said}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_end_of_the_mandate_ends_the_agent_under_traffic() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ledger");
    // Built before the time runs.
    minimizer();
    let valid_until = Timestamp::from_second(Timestamp::now().as_second())? + AHEAD;
    let path = policy(&folder, valid_until - DAY, valid_until)?;
    let agent = Agent::start(run(&path).arg("--ledger").arg(&file))?;
    let (_, _, metrics) = agent.get("/metrics", "")?;
    let end = metrics
        .lines()
        .find_map(|line| line.strip_prefix("minimizer_mandate_valid_until_timestamp_seconds "))
        .context("the end is served")?;
    assert_eq!(end.parse::<f64>()?, valid_until.as_second() as f64);
    let status: Value = serde_json::from_str(&agent.get("/status", "")?.2)?;
    assert_eq!(status["policy"]["mandate"], "NCO-7", "{status:#}");
    let sender = network.send(0, &Arc::new(Traffic::mixed(1)), None)?;

    let (ended, said) = agent.wait()?;
    assert_eq!(ended.code(), Some(78), "{said}");
    ensure!(Timestamp::now() >= valid_until, "it ended before its mandate");
    ensure!(!network.is_attached(0)?, "the program is attached");
    ensure!(!sender.is_finished(), "the sender ended early");
    let sent = sender.finish()?.accepted;
    let reason = format!("minimizer: the mandate NCO-7 ended at {valid_until}");
    ensure!(said.lines().last().is_some_and(|line| line.starts_with(&reason)), "{said}");
    let printed: Value =
        serde_json::from_str(said.lines().find(|line| line.starts_with('{')).context("a ledger")?)?;
    let mut ledger: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    assert_eq!(ledger["policy"]["name"], "test", "{ledger:#}");
    let origin = ledger.as_object_mut().context("an object")?;
    for key in ["policy", "program_tag", "object_sha256"] {
        ensure!(origin.remove(key).is_some(), "{key} is missing");
    }
    assert_eq!(ledger, printed);
    assert_eq!(ledger["balanced"], true, "{ledger:#}");
    assert_eq!(ledger["queued"]["packets"], 0, "{ledger:#}");
    let seen = ledger["interfaces"]["receive0"]["seen"].as_u64();
    ensure!(seen > Some(0) && seen <= Some(sent), "{seen:?} of {sent}");
    Ok(())
}

/// A file of the mark as it was at this moment, in another boot.
fn write_mark(state: &TempDir, time: Timestamp) -> Result<()> {
    let text = format!(r#"{{"mark":"{time}","limit":"{time}","boottime_ns":1,"boot_id":"another"}}"#);
    Ok(fs::write(state.path().join("time-mark.json"), text)?)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_ended_mandate_stays_ended_and_a_damaged_mark_is_refused() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let (folder, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let now = Timestamp::now();
    let path = policy(&folder, now - DAY, now + DAY)?;
    let mut refused = |reason: &str| -> Result<()> {
        let output = run(&path).arg("--state").arg(state.path()).output()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(78), "{said}");
        ensure!(said.contains(reason) && said.lines().count() == 1, "{said}");
        ensure!(!network.is_attached(0)?, "the program is attached");
        Ok(())
    };
    // The clock was set back by a week when the mandate had ended.
    write_mark(&state, now + 8 * DAY)?;
    refused("the mandate NCO-7 ended at ")?;
    fs::write(state.path().join("time-mark.json"), "{}")?;
    refused("remove the file if the clock of this host is right")
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_clock_that_is_wrong_at_the_start_attaches_nothing_and_is_waited_for() -> Result<()> {
    let mut network = Network::new(1, 1500)?;
    let (folder, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let now = Timestamp::now();
    // By the mark, it is ten years earlier than by the clock.
    write_mark(&state, now - 3650 * DAY)?;
    let path = policy(&folder, now - 3660 * DAY, now - DAY)?;
    let agent = Agent::start(run(&path).arg("--state").arg(state.path()))?;
    let status: Value = serde_json::from_str(&agent.get("/status", "")?.2)?;
    let reason = "the clock of this host is past the end of the mandate NCO-7";
    for paused in [&status["policy"]["paused"], &status["interfaces"][0]["reason"]] {
        ensure!(paused.as_str().is_some_and(|paused| paused.starts_with(reason)), "{status:#}");
    }
    let (_, _, metrics) = agent.get("/metrics", "")?;
    ensure!(metrics.contains("\nminimizer_mandate_paused 1\n"), "{metrics}");
    ensure!(!network.is_attached(0)?, "the program is attached");
    Ok(())
}
