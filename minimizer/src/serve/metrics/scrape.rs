//! What is known when a scrape comes: the latest snapshot, and what is asked for at that moment.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use procfs::WithCurrentSystemInfo as _;
use procfs::process::LimitValue;

use crate::serve::counts::{AccessCounts, Refusal};
use crate::serve::snapshot::Snapshot;
use crate::support::log;

/// Everything that a scrape sees.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The agent after its latest drain.
    pub snapshot: Arc<Snapshot>,
    /// The web server.
    pub web: WebTotals,
    /// The process; `None` when `/proc` does not tell.
    pub process: Option<Process>,
    /// Lines of the log that were lost.
    pub log_lines_lost: u64,
    /// When it comes.
    pub time: SystemTime,
}

/// What the web server did so far.
#[derive(Clone, Debug, Default)]
pub struct WebTotals {
    /// Connections that are open.
    pub open: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Refusals, in the order of [`Refusal::ALL`].
    pub refusals: Vec<u64>,
    /// Changed web configurations that were put in force.
    pub reloads: u64,
    /// Changed web configurations that could not be used.
    pub reload_failures: u64,
}

/// What the process uses.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// File descriptors that it may open.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Scrape {
    /// What is known now.
    #[must_use]
    pub fn now(snapshot: Arc<Snapshot>, counts: &AccessCounts) -> Self {
        let web = WebTotals {
            open: AccessCounts::get(&counts.open),
            accepted: AccessCounts::get(&counts.accepted),
            requests: AccessCounts::get(&counts.requests),
            refusals: Refusal::ALL.iter().map(|refusal| counts.refused(*refusal)).collect(),
            reloads: AccessCounts::get(&counts.reloads),
            reload_failures: AccessCounts::get(&counts.reload_failures),
        };
        let (process, log_lines_lost) = (Process::read(), log::lost());
        Self { snapshot, web, process, log_lines_lost, time: SystemTime::now() }
    }
}

impl Process {
    /// This process, as `/proc` shows it.
    fn read() -> Option<Self> {
        let process = procfs::process::Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Unlimited => u64::MAX,
            LimitValue::Value(value) => value,
        };
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            open_fds: u64::try_from(process.fd_count().ok()?).ok()?,
            max_fds,
            threads: u64::try_from(stat.num_threads).ok()?,
        })
    }
}

/// A time in seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
