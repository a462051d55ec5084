//! Whatever becomes of the reader of a log or of an output, the agent goes on: a log costs no packet.

use std::fs::{self, File};
use std::io::{Read as _, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Agent, minimizer};
use tests::veth::{RECEIVER, Veth, ip};

/// Drains to wait for after each log line: enough to see that they go on.
const DRAINS: u64 = 5;
const PACKETS: u64 = 100;

fn drains(status: &Value) -> u64 {
    status["drains"]["succeeded"].as_u64().unwrap_or(0)
}

/// An agent on one cable, which writes its ledger to a file.
struct Run {
    veth: Veth,
    folder: TempDir,
    agent: Agent,
}

impl Run {
    fn start() -> Result<Self> {
        let (veth, folder) = (Veth::new()?, tempfile::tempdir()?);
        let mut command = Command::new(minimizer());
        command.args(["run", "-i", RECEIVER, "--interval", "100ms", "--listen", "127.0.0.1:0"]);
        command.args(["--flows-per-cpu", "1024", "--output", "json"]);
        command.arg("--ledger").arg(folder.path().join("ledger"));
        Ok(Self { agent: Agent::start(&mut command)?, veth, folder })
    }

    /// Has the drain thread log, then the one of reloads, and checks that the agent still drains what it sees.
    fn goes_on(&self) -> Result<()> {
        let before = drains(&self.agent.wait_for(|status| drains(status) > 0)?);
        ip(&format!("link set dev {RECEIVER} name renamed0"))?;
        self.agent.wait_for(|status| {
            drains(status) >= before + DRAINS && status["interfaces"][0]["name"] == "renamed0"
        })?;
        self.agent.hang_up()?;
        let before = drains(&self.agent.wait_for(|status| status["policy"]["reloads"] == 1)?);
        self.agent.hang_up()?;
        self.agent
            .wait_for(|status| status["policy"]["reloads"] == 2 && drains(status) >= before + DRAINS)?;
        self.veth.send(PACKETS, 10)
    }

    /// Stops the agent and checks its ledger.
    fn end(self) -> Result<()> {
        let ended = self.agent.stop_unread()?;
        ensure!(ended.success(), "the agent ended with {ended}");
        let ledger: Value = serde_json::from_slice(&fs::read(self.folder.path().join("ledger"))?)?;
        ensure!(ledger["balanced"] == true, "{ledger:#}");
        ensure!(ledger["interfaces"]["renamed0"]["seen"] == PACKETS, "{ledger:#}");
        Ok(())
    }
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_log_reader_that_is_gone_ends_nothing() -> Result<()> {
    let mut run = Run::start()?;
    run.agent.close_log();
    run.goes_on()?;
    let metrics = run.agent.get("/metrics", "")?.2;
    let lost = metrics.lines().find_map(|line| line.strip_prefix("minimizer_log_lines_dropped_total "));
    // The new name and two reloads, at least.
    ensure!(
        lost.is_some_and(|lost| lost.parse().is_ok_and(|lost: u64| lost >= 3)),
        "{lost:?} lines are lost"
    );
    run.end()
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_log_reader_that_does_not_read_holds_nothing_up() -> Result<()> {
    let run = Run::start()?;
    run.agent.fill_log()?;
    run.goes_on()?;
    run.end()
}

#[test]
fn verbs_whose_output_nobody_reads_end_quietly() -> Result<()> {
    for verb in [
        &["man"][..],
        &["completions", "bash"],
        &["policy", "explain", "full-record"],
        &["policy", "schema"],
        &["doctor"],
        &["--help"],
    ] {
        let mut command = Command::new(minimizer());
        command.args(verb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{verb:?}: {} {said}", output.status);
        ensure!(said.is_empty(), "{verb:?}: {said}");
    }
    Ok(())
}

/// What a command that fails says, with these variables in its environment.
fn said(environment: impl Fn(u64, u64) -> Vec<(&'static str, String)>) -> Result<String> {
    let (mut reader, writer) = pipe()?;
    let writer = File::from(OwnedFd::from(writer));
    let (device, inode) = (writer.metadata()?.dev(), writer.metadata()?.ino());
    let mut command = Command::new(minimizer());
    command.args(["policy", "check", "/nowhere"]).stdin(Stdio::null()).stderr(writer);
    assert_eq!(command.envs(environment(device, inode)).status()?.code(), Some(78));
    // It holds the writing end.
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn journald_gets_priorities_and_others_do_not() -> Result<()> {
    let stream = |device, inode| vec![("JOURNAL_STREAM", format!("{device}:{inode}"))];
    let lines = said(stream)?;
    ensure!(lines.starts_with("<3>") && !lines.contains("minimizer: "), "{lines}");
    // The variable is inherited by whose standard error is another file.
    let lines = said(|device, inode| stream(device, inode + 1))?;
    ensure!(lines.starts_with("minimizer: "), "{lines}");
    Ok(())
}

#[test]
fn no_level_hides_why_a_command_failed() -> Result<()> {
    let whole = said(|_, _| Vec::new())?;
    assert_eq!(said(|_, _| vec![("MINIMIZER_LOG", "off".to_owned())])?, whole);
    let warned = said(|_, _| vec![("MINIMIZER_LOG", "loud".to_owned())])?;
    ensure!(warned.starts_with("minimizer: warning: MINIMIZER_LOG ") && warned.ends_with(&whole), "{warned}");
    Ok(())
}

#[test]
fn an_error_that_nobody_reads_keeps_its_exit_code() -> Result<()> {
    for (verb, code) in [(&["policy", "check", "/nowhere"][..], 78), (&["policy", "nothing"], 2)] {
        let mut command = Command::new(minimizer());
        command.args(verb).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        drop(child.stderr.take());
        assert_eq!(child.wait()?.code(), Some(code), "{verb:?}");
    }
    Ok(())
}
