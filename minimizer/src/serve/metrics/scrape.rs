//! What a scrape sees: the latest snapshot, and what is read at that moment.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use procfs::WithCurrentSystemInfo as _;
use procfs::process::LimitValue;

use crate::serve::access::AccessCounts;
use crate::serve::snapshot::Snapshot;
use crate::support::log;

/// Everything that a scrape sees.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The agent after its latest drain.
    pub snapshot: Arc<Snapshot>,
    /// What the web server did.
    pub access: Arc<AccessCounts>,
    /// What the process uses; `None` when `/proc` cannot be read.
    pub process: Option<ProcessUsage>,
    /// Lines of the log that were lost.
    pub log_lines_lost: u64,
    /// When the scrape arrived.
    pub time: SystemTime,
}

/// What the process uses.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUsage {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// File descriptors that the process may open.
    pub max_fds: u64,
    /// Number of threads.
    pub threads: u64,
}

impl Scrape {
    /// Everything that is known now.
    #[must_use]
    pub fn now(snapshot: Arc<Snapshot>, access: Arc<AccessCounts>) -> Self {
        let (process, log_lines_lost) = (ProcessUsage::read(), log::lost());
        Self { snapshot, access, process, log_lines_lost, time: SystemTime::now() }
    }
}

impl ProcessUsage {
    /// What this process uses, as `/proc` shows it.
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
