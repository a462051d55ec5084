//! The whole agent: what one interval of records costs from the kernel's tables to a sink, and what memory it takes.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramFd, loaded_programs};
use serde::Serialize;
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::network::Network;

use super::schedule::Schedule;
use super::traffic::Traffic;
use super::wrapper::Wrapper;

/// Intervals that are measured.
const INTERVALS: u64 = 3;
/// Time between looks at the agent's memory.
const LOOK: Duration = Duration::from_millis(20);

/// Where the records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// IPFIX over UDP.
    IpfixUdp,
    /// IPFIX over TCP.
    IpfixTcp,
    /// Files of JSON Lines.
    JsonLines,
    /// Parquet files.
    Parquet,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::IpfixUdp, Self::IpfixTcp, Self::JsonLines, Self::Parquet];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IpfixUdp => "IPFIX, UDP",
            Self::IpfixTcp => "IPFIX, TCP",
            Self::JsonLines => "JSON Lines",
            Self::Parquet => "Parquet",
        }
    }
}

/// Result for one sink and number of records.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where the records went.
    pub kind: Kind,
    /// Records in an interval.
    pub records: u32,
    /// Time between drains, seconds.
    pub interval_seconds: f64,
    /// Time from drain to drain as it was, seconds.
    pub measured_interval_seconds: f64,
    /// CPU time of the agent's process, as a share of one CPU.
    pub cpu_share: f64,
    /// CPU seconds for a million records.
    pub cpu_seconds_per_million: f64,
    /// Octets that the sink wrote for a record.
    pub octets_per_record: f64,
    /// Largest resident memory beside the tables, MiB.
    pub memory_mib: f64,
    /// Memory of the tables, MiB.
    pub tables_mib: f64,
    /// Records that did not reach the sink.
    pub dropped: u64,
}

/// Runs an agent on a cable of its own with one sink and gives it `records` flows in each interval.
///
/// # Errors
/// When it does not run, or does not count what it was given.
pub fn measure(kind: Kind, records: u32, interval: Duration) -> Result<Row> {
    // The namespace ends with its thread.
    thread::scope(|scope| {
        let run = scope.spawn(|| run(kind, records, interval));
        run.join().map_err(|_| anyhow::anyhow!("the run panicked"))?
    })
}

fn run(kind: Kind, records: u32, interval: Duration) -> Result<Row> {
    let _network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let end = Arc::new(AtomicBool::new(false));
    let sink = sink(kind, folder.path(), &end)?;
    let config = folder.path().join("agent.toml");
    fs::write(
        &config,
        format!(
            "interfaces = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\nflows_per_cpu = {records}\n\
             interval = \"{}ms\"\n[[sinks]]\nname = \"bench\"\nrecipient = \"laboratory\"\n{sink}\n",
            interval.as_millis()
        ),
    )?;
    let mut command = Command::new(minimizer());
    let agent = Agent::start(command.args(["run", "--config"]).arg(&config))?;
    let status = agent.wait_for(|status| drains(status) >= 1)?;
    let (process, table_bytes) = (number(&status["process"])?, number(&status["table"]["memory_bytes"])?);
    let (id, program) = program(number(&status["interfaces"][0]["program_id"])?)?;
    let mut wrapper = Wrapper::load(Traffic::Ipv4Tcp, &Schedule::each_once(0, u64::from(records)))?;
    let watching = Arc::new(AtomicBool::new(true));
    let watcher = thread::spawn({
        let watching = Arc::clone(&watching);
        move || peak_memory(process, &watching)
    });
    let first = drains(&agent.wait_for(|status| drains(status) >= 2)?);
    let (begin, cpu_before) = (Instant::now(), cpu_seconds(process)?);
    for number in 1..=INTERVALS {
        wrapper.seek(0)?;
        wrapper.aim(id, &program)?.send(records)?;
        let status = agent.wait_for(|status| drains(status) >= first + number)?;
        ensure!(drains(&status) == first + number, "a drain came before its records");
    }
    let elapsed = begin.elapsed();
    // What was drained last is delivered within another interval.
    let status = agent.wait_for(|status| drains(status) > first + INTERVALS)?;
    let cpu = cpu_seconds(process)? - cpu_before;
    watching.store(false, Ordering::Relaxed);
    let peak = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "the agent ended with {exit}: {said}");
    end.store(true, Ordering::Relaxed);
    let sink = &status["sinks"][0];
    let sent = u64::from(records) * INTERVALS;
    let exported = number(&sink["exported"]["records"])? + number(&sink["queued"]["records"])?;
    let (sent_float, million) = (sent as f64, 1e6);
    Ok(Row {
        kind,
        records,
        interval_seconds: interval.as_secs_f64(),
        measured_interval_seconds: elapsed.as_secs_f64() / INTERVALS as f64,
        cpu_share: cpu / (interval.as_secs_f64() * INTERVALS as f64),
        cpu_seconds_per_million: cpu / sent_float * million,
        octets_per_record: number(&sink["octets_written"])? as f64 / sent_float,
        memory_mib: peak.saturating_sub(table_bytes) as f64 / f64::from(1 << 20),
        tables_mib: table_bytes as f64 / f64::from(1 << 20),
        dropped: sent.saturating_sub(exported),
    })
}

/// The lines of agent.toml for a sink, with a collector that reads everything where one is needed.
fn sink(kind: Kind, folder: &Path, end: &Arc<AtomicBool>) -> Result<String> {
    let end = Arc::clone(end);
    Ok(match kind {
        Kind::IpfixUdp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(LOOK))?;
            let address = socket.local_addr()?;
            thread::spawn(move || {
                let mut message = [0; 65_536];
                while !end.load(Ordering::Relaxed) {
                    socket.recv(&mut message).ok();
                }
            });
            format!("ipfix = {{ collector = \"{address}\", transport = \"udp\" }}")
        }
        Kind::IpfixTcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            thread::spawn(move || {
                if let Ok((mut stream, _)) = listener.accept() {
                    std::io::copy(&mut stream, &mut std::io::sink()).ok();
                }
            });
            format!("ipfix = {{ collector = \"{address}\", transport = \"tcp\" }}")
        }
        Kind::JsonLines | Kind::Parquet => {
            let format = if kind == Kind::Parquet { "parquet" } else { "json-lines" };
            let directory = folder.join("records");
            format!("files = {{ directory = \"{}\", format = \"{format}\" }}", directory.display())
        }
    })
}

fn drains(status: &Value) -> u64 {
    status["drains"]["succeeded"].as_u64().unwrap_or(0)
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

fn program(id: u64) -> Result<(u32, ProgramFd)> {
    let mut programs = loaded_programs().filter_map(std::result::Result::ok);
    let info = programs.find(|program| u64::from(program.id()) == id).context("the program is not loaded")?;
    Ok((info.id(), info.fd()?))
}

/// CPU time of a process so far.
fn cpu_seconds(process: u64) -> Result<f64> {
    let stat = procfs::process::Process::new(i32::try_from(process)?)?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// The most memory, in octets, that a process has resident while it is watched.
fn peak_memory(process: u64, watching: &AtomicBool) -> u64 {
    let mut peak = 0;
    while watching.load(Ordering::Relaxed) {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        let kib: u64 = resident.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0);
        peak = peak.max(kib << 10);
        thread::park_timeout(LOOK);
    }
    peak
}
