//! However a run ends, it ends, and its ledger says what is known: panics, signals, readers and disks that hang.

use std::fs;
use std::io::{Read as _, pipe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::{Agent, minimizer};
use tests::frozen::Disk;
use tests::veth::{RECEIVER, Veth};

const PACKETS: u64 = 100;

/// A cable and a folder for the ledger.
struct Place {
    veth: Veth,
    folder: TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        Ok(Self { veth: Veth::new()?, folder: tempfile::tempdir()? })
    }

    fn ledger_path(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn command(&self, interval: &str) -> Command {
        command(interval, &self.ledger_path())
    }

    /// With a configuration that has this text.
    fn configured(&self, interval: &str, text: &str) -> Result<Command> {
        let path = self.folder.path().join("agent.toml");
        fs::write(&path, text)?;
        let mut command = self.command(interval);
        command.arg("--config").arg(path);
        Ok(command)
    }

    fn ledger(&self) -> Result<Value> {
        read(&self.ledger_path())
    }
}

fn command(interval: &str, ledger: &Path) -> Command {
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", interval, "--listen", "127.0.0.1:0"]);
    command.args(["--flows-per-cpu", "1024", "--policy", "full-record"]).arg("--ledger").arg(ledger);
    command
}

fn read(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn seen(ledger: &Value) -> &Value {
    &ledger["interfaces"][RECEIVER]["seen"]
}

fn standing(ledger: &Value) -> [Option<bool>; 2] {
    ["balanced", "complete"].map(|key| ledger[key].as_bool())
}

fn sink(folder: &Path) -> String {
    format!("[[sinks]]\nname = \"files\"\nrecipient = \"laboratory\"\nfiles = {{ directory = {folder:?} }}\n")
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_panic_in_any_thread_ends_the_agent_after_the_ledger_said_so() -> Result<()> {
    for place in ["drain", "sender", "ledger", "watchdog", "http"] {
        let run = Place::new()?;
        let mut command = run.configured("200ms", &sink(&run.folder.path().join("out")))?;
        let agent = Agent::start(command.env("MINIMIZER_PLANTED_PANIC", place))?;
        run.veth.send(PACKETS, 10)?;
        match place {
            // The drain thread has what the others wait for.
            "drain" => agent.hang_up()?,
            // The question is not answered.
            "http" => drop(agent.get("/metrics", "")),
            _ => {}
        }
        let (ended, said) = agent.wait()?;
        assert_eq!(ended.code(), Some(70), "{place}: {said}");
        let ledger = run.ledger()?;
        assert_eq!(standing(&ledger), [Some(false), Some(false)], "{place}: {ledger:#}");
        let reason = ledger["incomplete"].as_str().unwrap_or_default();
        ensure!(reason.contains("panicked"), "{place}: {ledger:#}");
        ensure!(said.contains(&format!("planted in {place}")), "{place}: {said}");
        let seen = seen(&ledger).as_u64().context("it is there")?;
        // All threads but the drain's leave it the last drain.
        ensure!(if place == "drain" { seen <= PACKETS } else { seen == PACKETS }, "{place}: {seen}");
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_panic_in_a_reload_costs_the_reload() -> Result<()> {
    let run = Place::new()?;
    let agent = Agent::start(run.command("200ms").env("MINIMIZER_PLANTED_PANIC", "reload"))?;
    agent.hang_up()?;
    agent.wait_for(|status| status["policy"]["reload_error"].is_string())?;
    run.veth.send(PACKETS, 10)?;
    let (ended, said) = agent.stop()?;
    ensure!(ended.success() && said.contains("planted in reload"), "{ended}: {said}");
    let ledger = run.ledger()?;
    assert_eq!((standing(&ledger), seen(&ledger).as_u64()), ([Some(true), Some(true)], Some(PACKETS)));
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_fifo_in_place_of_a_file_holds_nobody_up() -> Result<()> {
    let run = Place::new()?;
    let (policy, web) = (run.folder.path().join("policy.toml"), run.folder.path().join("web.yml"));
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/recipient-abroad.toml"))?;
    fs::write(&policy, text.replace("interval = \"10s\"", "interval = \"200ms\""))?;
    fs::write(&web, "{}")?;
    let mut command = Command::new(minimizer());
    command.args(["run", "-i", RECEIVER, "--interval", "200ms", "--listen", "127.0.0.1:0"]);
    command.args(["--flows-per-cpu", "1024", "--web.config.file"]).arg(&web).arg("--policy").arg(&policy);
    let agent = Agent::start(command.arg("--ledger").arg(run.ledger_path()))?;
    for path in [&policy, &web] {
        fs::remove_file(path)?;
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    }
    agent.hang_up()?;
    let status = agent.wait_for(|status| status["policy"]["reload_error"].is_string())?;
    let error = status["policy"]["reload_error"].as_str().unwrap_or_default();
    ensure!(error.contains("no regular file"), "{error}");
    let mut check = Command::new(minimizer());
    let checked = check.args(["policy", "check"]).arg(&policy).output()?;
    assert_eq!(checked.status.code(), Some(78), "{checked:?}");
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{ended}: {said}");
    assert_eq!(standing(&run.ledger()?), [Some(true), Some(true)]);
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn the_ledger_is_a_file_while_the_agent_runs_and_after_it_was_killed() -> Result<()> {
    let run = Place::new()?;
    let agent = Agent::start(&mut run.command("100ms"))?;
    run.veth.send(PACKETS, 10)?;
    let begin = Instant::now();
    let ledger = loop {
        // It is whole whenever it is read.
        let ledger = run.ledger()?;
        if seen(&ledger) == PACKETS {
            break ledger;
        }
        ensure!(begin.elapsed() < Duration::from_secs(60), "{ledger:#}");
        thread::park_timeout(Duration::from_millis(10));
    };
    assert_eq!(standing(&ledger), [Some(true), Some(false)], "{ledger:#}");
    agent.signal(Signal::KILL)?;
    let (ended, _) = agent.wait()?;
    ensure!(!ended.success(), "it was killed");
    let ledger = run.ledger()?;
    assert_eq!((standing(&ledger), seen(&ledger).as_u64()), ([Some(true), Some(false)], Some(PACKETS)));
    let names: Vec<_> =
        fs::read_dir(run.folder.path())?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    ensure!(names.len() <= 2, "the ledger, and at most the one that was being written: {names:?}");
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_second_signal_costs_no_ledger() -> Result<()> {
    let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    // At once, as `timeout` sends them, and again and again, as somebody does who wants the end now.
    for (times, pause, timeout) in [(2, Duration::ZERO, "1s"), (6000, Duration::from_millis(10), "10m")] {
        for _ in 0..5 {
            let run = Place::new()?;
            // Nobody takes its records: the agent waits for that as long as it may.
            let config = format!(
                "shutdown_timeout = \"{timeout}\"\n[[sinks]]\nname = \"dead\"\nrecipient = \"laboratory\"\n\
                 ipfix = {{ collector = \"{dead}\", transport = \"tcp\" }}\n"
            );
            let agent = Agent::start(&mut run.configured("60s", &config)?)?;
            run.veth.send(PACKETS, 10)?;
            // It fails when the agent has ended.
            for _ in (0..times).take_while(|_| agent.terminate().is_ok() && !agent.has_ended()) {
                thread::park_timeout(pause);
            }
            let (ended, said) = agent.wait()?;
            ensure!(ended.success(), "{ended}: {said}");
            let ledger = run.ledger()?;
            assert_eq!(
                (standing(&ledger), seen(&ledger).as_u64()),
                ([Some(true), Some(true)], Some(PACKETS))
            );
            ensure!(
                ledger["dropped"]["packets"] == PACKETS && ledger["queued"]["packets"] == 0,
                "{ledger:#}"
            );
        }
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn an_output_that_nobody_reads_holds_up_neither_the_end_nor_the_ledger() -> Result<()> {
    for output in ["json", "table"] {
        let run = Place::new()?;
        let (reader, writer) = pipe()?;
        let mut command = run.configured("100ms", "shutdown_timeout = \"0s\"\n")?;
        let agent = Agent::start_into(command.args(["--output", output]), writer)?;
        drop(command);
        // Each packet a flow: more lines than a pipe takes.
        for payload in 0..if output == "json" { 300 } else { 3000 } {
            run.veth.send(1, payload % 100)?;
            if output == "table" && payload % 10 == 9 {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
        agent.wait_for(|status| status["drains"]["succeeded"].as_u64() > Some(20))?;
        let (ended, said) = agent.stop()?;
        let ledger = run.ledger()?;
        assert_eq!(standing(&ledger), [Some(true), Some(true)], "{output}: {ledger:#}");
        ensure!(ledger["queued"]["packets"] == 0, "{output}: {ledger:#}");
        if output == "json" {
            ensure!(ended.success(), "{ended}: {said}");
            let lost = &ledger["sinks"]["stdout"]["dropped"]["shutdown"]["packets"];
            ensure!(lost.as_u64() > Some(0), "the pipe took everything: {ledger:#}");
        }
        drop(reader);
    }
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_file_system_that_hangs_turns_its_sink_down_and_holds_up_no_ledger() -> Result<()> {
    let run = Place::new()?;
    let disk = Disk::new()?;
    let good = run.folder.path().join("good");
    let config = format!(
        "shutdown_timeout = \"1s\"\n{}{}",
        sink(&disk.path().join("out")),
        sink(&good).replace("\"files\"", "\"good\"")
    );
    let agent = Agent::start(&mut run.configured("100ms", &config)?)?;
    run.veth.send(PACKETS, 10)?;
    agent.wait_for(|status| status["ledger"]["sinks"]["files"]["offered"]["packets"] == PACKETS)?;
    let frozen = disk.freeze()?;
    run.veth.send(PACKETS, 10)?;
    let status = agent.wait_for(|status| status["ledger"]["sinks"]["files"]["failing"].is_object())?;
    let failing = &status["ledger"]["sinks"]["files"]["failing"];
    ensure!(failing["reason"] == "stalled", "{failing:#}");
    let metrics = agent.get("/metrics", "")?.2;
    let up: Vec<_> = metrics.lines().filter(|line| line.starts_with("minimizer_sink_up{")).collect();
    let is_down = |line: &str| line.ends_with(" 0");
    ensure!(up.iter().all(|line| is_down(line) == line.contains("{sink=\"files\"")), "{up:?}");
    assert_eq!(agent.get("/-/healthy", "")?.0, 200, "the agent works on");
    agent.terminate()?;
    // The process cannot go before the kernel lets its thread go.
    let begin = Instant::now();
    let ledger = loop {
        let ledger = run.ledger()?;
        if ledger["complete"] == true {
            break ledger;
        }
        ensure!(begin.elapsed() < Duration::from_secs(60), "{ledger:#}");
        thread::park_timeout(Duration::from_millis(10));
    };
    drop(frozen);
    let (ended, said) = agent.wait()?;
    ensure!(ended.success(), "{ended}: {said}");
    ensure!(ledger["balanced"] == true && seen(&ledger) == 2 * PACKETS, "{ledger:#}");
    let sinks = &ledger["sinks"];
    ensure!(sinks["good"]["exported"]["packets"] == 2 * PACKETS, "{ledger:#}");
    let (exported, lost) =
        (&sinks["files"]["exported"]["packets"], &sinks["files"]["dropped"]["shutdown"]["packets"]);
    ensure!(
        exported.as_u64().zip(lost.as_u64()).is_some_and(|(out, lost)| out + lost == 2 * PACKETS),
        "{ledger:#}"
    );
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_full_or_hanging_disk_of_the_ledger_stops_nothing() -> Result<()> {
    let run = Place::new()?;
    let disk = Disk::new()?;
    let path = disk.path().join("ledger");
    let agent = Agent::start(&mut command("100ms", &path))?;
    let full = disk.fill()?;
    run.veth.send(PACKETS, 10)?;
    agent.wait_for(|status| seen(&status["ledger"]) == PACKETS)?;
    let before = agent.wait_for(|_| true)?["drains"]["succeeded"].as_u64();
    agent.wait_for(|status| status["drains"]["succeeded"].as_u64() > before.map(|drains| drains + 20))?;
    drop(full);
    let begin = Instant::now();
    while seen(&read(&path)?) != PACKETS {
        ensure!(begin.elapsed() < Duration::from_secs(60), "it is not written again");
        thread::park_timeout(Duration::from_millis(10));
    }
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{ended}: {said}");
    ensure!(said.contains("No space left on device") && said.contains("the ledger is in"), "{said}");
    assert_eq!(standing(&read(&path)?), [Some(true), Some(true)]);

    let mut child = command("100ms", &path)
        .args(["--output", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let mut stderr = child.stderr.take().context("stderr is piped")?;
    let mut octet = [0];
    while !said.contains("serving http") && stderr.read(&mut octet)? == 1 {
        said.push(char::from(octet[0]));
    }
    let frozen = disk.freeze()?;
    // While it runs, too.
    while !said.contains("on its way to") && stderr.read(&mut octet)? == 1 {
        said.push(char::from(octet[0]));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)?;
    // It says what it has to say, and only then is the disk let go.
    while !said.contains("timed out") && stderr.read(&mut octet)? == 1 {
        said.push(char::from(octet[0]));
    }
    drop(frozen);
    stderr.read_to_string(&mut said)?;
    assert_eq!(child.wait()?.code(), Some(1), "{said}");
    ensure!(said.contains("\"balanced\":true"), "{said}");
    Ok(())
}
