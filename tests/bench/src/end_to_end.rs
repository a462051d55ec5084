//! The whole agent: what one interval of records costs from the kernel's tables to a sink, and what memory it takes.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use tests::command::{Agent, minimizer};
use tests::network::Network;

use super::live::cable::Redirect;
use super::on_any_cpu;
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

/// What is measured.
#[derive(Clone, Debug)]
pub struct Case {
    /// Where the records go.
    pub kind: Kind,
    /// What they are of.
    pub traffic: Traffic,
    /// Records in an interval.
    pub records: u32,
    /// The agent of another build; without it, this build's.
    pub beside: Option<PathBuf>,
}

/// Result for one case.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `minimizer` or `beside`.
    pub name: &'static str,
    /// Where the records went.
    pub kind: Kind,
    /// What they were of.
    pub traffic: Traffic,
    /// Records in an interval.
    pub records: u32,
    /// Time between drains, seconds.
    pub interval_seconds: f64,
    /// Time from drain to drain as it was, seconds.
    pub measured_interval_seconds: f64,
    /// CPU time of the agent's process, as a share of one CPU.
    pub cpu_share: f64,
    /// CPU time of the agent's process, all its threads, for a record drained and sent, µs.
    pub cpu_us_per_record: f64,
    /// Octets that the sink wrote for a record.
    pub octets_per_record: f64,
    /// Largest resident memory beside the tables, MiB.
    pub memory_mib: f64,
    /// Memory of the tables, MiB.
    pub tables_mib: f64,
    /// Records that did not reach the sink.
    pub dropped: u64,
}

/// Runs an agent as the tap of a cable of its own with one sink and gives it as many flows in each interval, as live frames.
/// Frames that a tap drops take less of an interval than those that the network stack drops.
///
/// # Errors
/// When it does not run, or does not count what it was given.
pub fn measure(case: &Case, interval: Duration) -> Result<Row> {
    // The namespace ends with its thread.
    thread::scope(|scope| {
        let run = scope.spawn(|| run(case, interval));
        run.join().map_err(|_| anyhow::anyhow!("the run panicked"))?
    })
}

fn run(case: &Case, interval: Duration) -> Result<Row> {
    let Case { kind, traffic, records, ref beside } = *case;
    let network = Network::new(1, 1500)?;
    let folder = tempfile::tempdir()?;
    let end = Arc::new(AtomicBool::new(false));
    let sink = sink(kind, folder.path(), &end)?;
    let config = folder.path().join("agent.toml");
    fs::write(
        &config,
        format!(
            "taps = [\"receive0\"]\npolicy = \"full-record\"\nlisten = \"127.0.0.1:0\"\nflows_per_cpu = {}\n\
             interval = \"{}ms\"\n[[sinks]]\nname = \"bench\"\nrecipient = \"laboratory\"\n{sink}\n",
            if beside.is_some() { records } else { traffic.room(records) },
            interval.as_millis()
        ),
    )?;
    let mut command = Command::new(beside.as_deref().unwrap_or_else(|| minimizer()));
    let agent = on_any_cpu(|| Agent::start(command.args(["run", "--config"]).arg(&config)))?;
    let status = agent.wait_for(|status| drains(status) >= 1)?;
    let (process, table_bytes) = (number(&status["process"])?, number(&status["table"]["memory_bytes"])?);
    let redirect = Redirect::into(network.cables()[0].sender.index)?;
    let mut wrapper = Wrapper::load(traffic, &Schedule::each_once(0, u64::from(records)))?;
    let watching = Arc::new(AtomicBool::new(true));
    let watcher = thread::spawn({
        let watching = Arc::clone(&watching);
        move || peak_memory(process, &watching)
    });
    let first = drains(&agent.wait_for(|status| drains(status) >= 2)?);
    let (begin, cpu_before) = (Instant::now(), cpu_seconds(process)?);
    for number in 1..=INTERVALS {
        wrapper.seek(0)?;
        wrapper.send_live(redirect.id, &redirect.program, records)?;
        let status = agent.wait_for(|status| drains(status) >= first + number)?;
        ensure!(
            drains(&status) == first + number,
            "sending {records} frames took longer than an interval, or a drain did"
        );
    }
    let elapsed = begin.elapsed();
    // Usually within another interval.
    let sent = u64::from(records) * INTERVALS;
    let status =
        agent.wait_for(|status| drains(status) > first + INTERVALS && is_delivered(kind, status, sent))?;
    let cpu = cpu_seconds(process)? - cpu_before;
    watching.store(false, Ordering::Relaxed);
    let peak = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
    let (exit, said) = agent.stop()?;
    ensure!(exit.success(), "the agent ended with {exit}: {said}");
    end.store(true, Ordering::Relaxed);
    let sink = &status["sinks"][0];
    let seen = number(&status["ledger"]["interfaces"]["receive0"]["outcomes"]["counted"])?;
    ensure!(seen == sent, "{sent} frames were sent, {seen} were counted");
    let exported = number(&sink["exported"]["records"])? + number(&sink["queued"]["records"])?;
    Ok(Row {
        name: if beside.is_some() { "beside" } else { "minimizer" },
        kind,
        traffic,
        records,
        interval_seconds: interval.as_secs_f64(),
        measured_interval_seconds: elapsed.as_secs_f64() / INTERVALS as f64,
        cpu_share: cpu / (interval.as_secs_f64() * INTERVALS as f64),
        cpu_us_per_record: cpu / sent as f64 * 1e6,
        octets_per_record: number(&sink["octets_written"])? as f64 / sent as f64,
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

/// Whether the sink has had so many records, and has none of them left if it is not one of files. Those are in its queue until
/// their file is closed.
fn is_delivered(kind: Kind, status: &Value, records: u64) -> bool {
    let sink = &status["sinks"][0];
    let records_of = |what: &Value| what["records"].as_u64().unwrap_or(0);
    let dropped: u64 =
        sink["dropped"].as_object().into_iter().flatten().map(|(_, lost)| records_of(lost)).sum();
    let ended = dropped + records_of(&sink["exported"]) + records_of(&sink["sent_unconfirmed"]);
    let queued = records_of(&sink["queued"]);
    let is_of_files = matches!(kind, Kind::JsonLines | Kind::Parquet);
    (is_of_files || queued == 0) && ended + queued >= records
}

fn drains(status: &Value) -> u64 {
    status["drains"]["succeeded"].as_u64().unwrap_or(0)
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
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
