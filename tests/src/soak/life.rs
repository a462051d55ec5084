//! The life of one agent: its sinks, what happens to it, and what its ledger must say at its end.

use std::fs;
use std::io::{PipeReader, Read as _, pipe};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::World;
use super::collector::{Collector, PORT};
use crate::command::{Agent, minimizer};
use crate::frozen::{Frozen, Full};
use crate::json_lines::packets_in_files;

/// The collector's name, and where it may be.
const NAME: &str = "collector.example";
const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))];
/// Most frames that are sent at once.
const FRAMES_MAX: u64 = 20_000;
/// Sockets that somebody opens and does nothing with.
const IDLE_SOCKETS: usize = 640;
/// Longest wait for what must come.
const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// What happens to an agent.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Send,
    HangUp,
    FillLog,
    CloseLog,
    ReadOutput,
    FreezeDisk,
    ThawDisk,
    FillDisk,
    FreeDisk,
    SetClock,
    MoveCollector,
    StopCollector,
    StallCollector,
    IdleSockets,
    Scrape,
    Pause,
}

impl Action {
    /// All of them, with names. What is there twice is done twice as often.
    pub const ALL: [(&'static str, Self); 18] = [
        ("send", Self::Send),
        ("send", Self::Send),
        ("reload", Self::HangUp),
        ("block the log", Self::FillLog),
        ("close the log", Self::CloseLog),
        ("read the output", Self::ReadOutput),
        ("freeze the disk", Self::FreezeDisk),
        ("thaw the disk", Self::ThawDisk),
        ("fill the disk", Self::FillDisk),
        ("free the disk", Self::FreeDisk),
        ("set the clock", Self::SetClock),
        ("move the collector", Self::MoveCollector),
        ("stop the collector", Self::StopCollector),
        ("stall the collector", Self::StallCollector),
        ("640 idle sockets", Self::IdleSockets),
        ("scrape", Self::Scrape),
        ("scrape", Self::Scrape),
        ("pause", Self::Pause),
    ];
}

/// How an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Term,
    TermTwice,
    IntAndTerm,
    CloseOutput,
    Kill,
}

impl End {
    /// All of them, with names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("TERM", Self::Term),
        ("TERM twice", Self::TermTwice),
        ("INT and TERM", Self::IntAndTerm),
        ("nobody reads the output", Self::CloseOutput),
        ("KILL", Self::Kill),
    ];
}

/// A running agent and what is around it.
pub struct Life {
    agent: Agent,
    folder: TempDir,
    output: Option<PipeReader>,
    sent: u64,
    log_is_open: bool,
    idle: Vec<TcpStream>,
    frozen: Option<Frozen>,
    full: Option<Full>,
}

impl Life {
    /// Starts an agent with sinks of every kind that can fail.
    pub fn begin(world: &mut World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(world.clock(), "0")?;
        world.hosts.set(NAME, &ADDRESSES[..1])?;
        world.collector = None;
        world.collector = Some(Collector::listen(ADDRESSES[0], true)?);
        let (good, bad) = (folder.path().join("good"), world.disk.path().join("out"));
        // What earlier agents left would fill the disk.
        fs::remove_dir_all(&bad).ok();
        let files = |name: &str, directory: &PathBuf| {
            format!(
                "[[sinks]]\nname = \"{name}\"\nrecipient = \"laboratory\"\n\
                 files = {{ directory = {directory:?}, format = \"json-lines\", rotate_every = \"1s\" }}\n"
            )
        };
        let ipfix = |transport: &str| {
            format!(
                "[[sinks]]\nname = \"{transport}\"\nrecipient = \"laboratory\"\nqueue_records = 50000\n\
                 ipfix = {{ collector = \"{NAME}:{PORT}\", transport = \"{transport}\" }}\n"
            )
        };
        let interval = world.random.random_range(100..=500);
        let text = format!(
            "interfaces = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\ninterval = \"{interval}ms\"\n\
             ledger = \"ledger.json\"\nshutdown_timeout = \"2s\"\nstate_directory = {:?}\n{}{}{}{}",
            folder.path(),
            files("good", &good),
            files("bad", &bad),
            ipfix("tcp"),
            ipfix("udp")
        );
        let config = folder.path().join("agent.toml");
        fs::write(&config, text)?;
        let (output, writer) = pipe()?;
        let mut command = Command::new(minimizer());
        command.args(["run", "--output", "json", "--config"]).arg(&config);
        command.env("MINIMIZER_PLANTED_CLOCK", world.clock());
        let agent = Agent::start_into(&mut command, writer)?;
        let (frozen, full) = (None, None);
        Ok(Self {
            agent,
            folder,
            output: Some(output),
            sent: 0,
            log_is_open: true,
            idle: Vec::new(),
            frozen,
            full,
        })
    }

    /// Does something to it.
    pub fn act(&mut self, world: &mut World, action: Action) -> Result<()> {
        match action {
            Action::Send => {
                let frames = world.random.random_range(1..=FRAMES_MAX);
                self.sent += world.send(frames)?;
            }
            Action::HangUp => self.agent.hang_up()?,
            Action::FillLog if self.log_is_open => self.agent.fill_log()?,
            Action::CloseLog => {
                self.log_is_open = false;
                self.agent.close_log();
            }
            Action::ReadOutput => {
                if let Some(mut output) = self.output.take() {
                    // To its end, which comes with the agent's.
                    thread::spawn(move || {
                        let mut octets = [0; 1 << 16];
                        while output.read(&mut octets).is_ok_and(|read| read > 0) {}
                    });
                }
            }
            Action::FreezeDisk if self.frozen.is_none() => self.frozen = Some(world.disk.freeze()?),
            Action::ThawDisk => self.frozen = None,
            Action::FillDisk if self.frozen.is_none() && self.full.is_none() => {
                self.full = Some(world.disk.fill()?)
            }
            Action::FreeDisk if self.frozen.is_none() => self.full = None,
            Action::SetClock => {
                let seconds = *[-1, 1, -3600, 3600, -315_360_000, 315_360_000, 0]
                    .get(world.random.random_range(0..7))
                    .context("one of them")?;
                let nanoseconds: i64 = seconds * 1_000_000_000;
                fs::write(world.clock(), nanoseconds.to_string())?;
            }
            Action::MoveCollector => {
                let address = ADDRESSES[world.random.random_range(0..ADDRESSES.len())];
                world.collector = None;
                world.hosts.set(NAME, &[address])?;
                world.collector = Some(Collector::listen(address, true)?);
            }
            Action::StopCollector => world.collector = None,
            Action::StallCollector => {
                world.collector = None;
                world.hosts.set(NAME, &ADDRESSES[..1])?;
                world.collector = Some(Collector::listen(ADDRESSES[0], false)?);
            }
            Action::IdleSockets => {
                self.idle.clear();
                for _ in 0..IDLE_SOCKETS {
                    self.idle.push(TcpStream::connect(self.agent.address())?);
                }
            }
            Action::Scrape => self.scrape()?,
            // Faults meet drains.
            Action::Pause => thread::park_timeout(Duration::from_millis(world.random.random_range(1..1500))),
            Action::FillLog | Action::FreezeDisk | Action::FillDisk | Action::FreeDisk => {}
        }
        Ok(())
    }

    /// It answers, is healthy, and its ledger balances so far.
    fn scrape(&self) -> Result<()> {
        let (status, _, said) = self.agent.get("/-/healthy", "")?;
        ensure!(status == 200, "{said}");
        let metrics = self.agent.get("/metrics", "")?.2;
        ensure!(metrics.contains("minimizer_ledger_balanced 1\n"), "{metrics}");
        let status: Value = serde_json::from_str(&self.agent.get("/status", "")?.2)?;
        let ledger = &status["ledger"];
        ensure!(ledger["balanced"] == true && ledger["complete"] == false, "{ledger:#}");
        ensure!(seen(ledger)? <= self.sent, "{} were sent: {ledger:#}", self.sent);
        Ok(())
    }

    /// Ends it, and checks its ledger.
    pub fn end(mut self, world: &mut World, end: End) -> Result<()> {
        let is_read = self.output.is_none();
        match end {
            End::Term => self.agent.terminate()?,
            End::TermTwice => {
                self.agent.terminate()?;
                self.agent.terminate()?;
            }
            End::IntAndTerm => {
                self.agent.signal(Signal::INT)?;
                self.agent.terminate()?;
            }
            End::CloseOutput if !is_read => self.output = None,
            End::CloseOutput => self.agent.terminate()?,
            End::Kill => self.agent.signal(Signal::KILL)?,
        }
        if end == End::CloseOutput && !is_read {
            // It notices when it has something to print.
            self.sent += world.send(1)?;
        }
        let path = self.folder.path().join("ledger.json");
        let read = || -> Result<Value> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        if self.frozen.is_some() && end != End::Kill {
            // The kernel does not let it go before its disk answers, but the ledger is there before.
            let begin = Instant::now();
            while read()?["complete"] == false {
                ensure!(begin.elapsed() < WAIT_LIMIT, "no ledger: {:#}", read()?);
                thread::park_timeout(Duration::from_millis(10));
            }
        }
        (self.frozen, self.full) = (None, None);
        let ended = self.agent.wait_unread()?;
        let ledger = read()?;
        let seen = seen(&ledger)?;
        ensure!(ledger["balanced"] == true, "{ended}: {ledger:#}");
        world.report.sent += self.sent;
        if end == End::Kill {
            ensure!(ledger["complete"] == false && seen <= self.sent, "{} were sent: {ledger:#}", self.sent);
            world.report.killed.0 += seen;
            world.report.killed.1 += self.sent;
            return Ok(());
        }
        ensure!(matches!(ended.code(), Some(0 | 1)), "{ended}");
        ensure!(ledger["complete"] == true, "{ended}: {ledger:#}");
        // Whoever ends when nobody reads the output ends by itself, maybe before the last frames.
        let is_exact = if end == End::CloseOutput { seen <= self.sent } else { seen == self.sent };
        ensure!(is_exact, "{} were sent: {ledger:#}", self.sent);
        ensure!(outcomes(&ledger)? == seen, "{ledger:#}");
        let sinks = ledger["sinks"].as_object().context("there are sinks")?;
        ensure!(sinks.values().all(|sink| sink["queued"]["packets"] == 0), "{ledger:#}");
        let good = sinks["good"]["exported"]["packets"].as_u64().context("a number")?;
        let in_files = packets_in_files(&self.folder.path().join("good"))?;
        ensure!(in_files == good, "{in_files} packets are in files: {ledger:#}");
        world.report.seen += seen;
        Ok(())
    }
}

fn seen(ledger: &Value) -> Result<u64> {
    let interfaces = ledger["interfaces"].as_object().context("there are interfaces")?;
    Ok(interfaces.values().filter_map(|interface| interface["seen"].as_u64()).sum())
}

fn outcomes(ledger: &Value) -> Result<u64> {
    let interfaces = ledger["interfaces"].as_object().context("there are interfaces")?;
    let outcomes = interfaces.values().filter_map(|interface| interface["outcomes"].as_object());
    let packets = |outcome: &Value| match outcome {
        Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
        packets => packets.as_u64().unwrap_or(0),
    };
    Ok(outcomes.flat_map(|outcomes| outcomes.values().map(packets)).sum())
}
