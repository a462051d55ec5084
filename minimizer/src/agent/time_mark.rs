//! The latest time that is known to have come, which no step of the wall clock moves, kept over restarts in a file.
//!
//! The mark follows the wall clock, but never beyond a limit that advances with the time since boot, and never back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::support::clock::Clocks;
use crate::support::state_file::{self, StateFile, StateFileError};

const FILE: StateFile = StateFile {
    name: "time-mark.json",
    what: "a time mark",
    consequence: "without it an ended mandate could come back to life, so that the agent does not start: remove the file if the clock of \
                  this host is right",
};
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Time between two writes of the file.
const SAVE_EVERY_NS: u64 = 60 * 1_000_000_000;

/// What the file says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// The mark.
    mark: Timestamp,
    /// The latest that the mark could have been.
    limit: Timestamp,
    /// Time since boot when it was so.
    boottime_ns: u64,
    /// Which boot.
    boot_id: String,
}

/// The mark.
#[derive(Debug)]
pub struct TimeMark {
    clocks: Arc<dyn Clocks>,
    /// In nanoseconds since 1970.
    mark_ns: u64,
    /// The limit minus the time since boot; the sum wraps.
    limit_offset_ns: u64,
    path: Option<PathBuf>,
    boot_id: String,
    /// Time since boot at the latest attempt to write the file.
    saved_ns: u64,
    is_failing: bool,
}

impl TimeMark {
    /// A mark that begins with the wall clock as it is now, and ends with the process.
    #[must_use]
    pub fn in_memory(clocks: Arc<dyn Clocks>) -> Self {
        // The wall clock is read last here and first later: the limit is never behind a clock that nobody has set.
        let boottime_ns = clocks.boottime_ns();
        let mark_ns = clocks.realtime_ns();
        Self {
            clocks,
            mark_ns,
            limit_offset_ns: mark_ns.wrapping_sub(boottime_ns),
            path: None,
            boot_id: String::new(),
            saved_ns: boottime_ns,
            is_failing: false,
        }
    }

    /// The mark that the directory has, or a new one. It writes nothing yet.
    ///
    /// # Errors
    /// If the file is there and cannot be used.
    pub fn load(directory: &Path, clocks: Arc<dyn Clocks>) -> Result<Self, StateFileError> {
        let path = FILE.path(directory);
        let mut mark = Self::in_memory(clocks);
        // Without an identity every boot counts as another one.
        mark.boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        if let Some(saved) = FILE.read(&path)? {
            mark.go_on(&saved);
        }
        mark.path = Some(path);
        Ok(mark)
    }

    /// Goes on from what was saved. Of the time since then only what this boot has measured is known to have passed.
    fn go_on(&mut self, saved: &Saved) {
        let boottime_ns = self.clocks.boottime_ns();
        let is_same_boot = !self.boot_id.is_empty() && saved.boot_id == self.boot_id;
        let passed_ns =
            if is_same_boot { boottime_ns.saturating_sub(saved.boottime_ns) } else { boottime_ns };
        let limit_ns = nanoseconds(saved.limit).saturating_add(passed_ns);
        self.limit_offset_ns = limit_ns.wrapping_sub(boottime_ns);
        self.mark_ns = nanoseconds(saved.mark);
        self.now();
    }

    /// The wall clock, and the mark.
    pub fn now(&mut self) -> (Timestamp, Timestamp) {
        let wall_ns = self.clocks.realtime_ns();
        let limit_ns = self.clocks.boottime_ns().wrapping_add(self.limit_offset_ns);
        self.mark_ns = self.mark_ns.max(wall_ns.min(limit_ns));
        (timestamp(wall_ns), timestamp(self.mark_ns))
    }

    /// Goes on in memory only.
    pub fn forget_file(&mut self) {
        self.path = None;
    }

    /// Writes the file once a minute. A failure is said once: the mark goes on in memory.
    pub fn keep(&mut self) {
        if self.clocks.boottime_ns().saturating_sub(self.saved_ns) >= SAVE_EVERY_NS {
            self.keep_now();
        }
    }

    /// Writes the file, as [`Self::keep`] does, whenever it was written last.
    pub fn keep_now(&mut self) {
        let saved = self.save();
        if let Err(error) = &saved
            && !self.is_failing
        {
            warn!("{error}; until then the time of the mandate is kept in memory only");
        }
        self.is_failing = saved.is_err();
    }

    /// Writes the file, if there is one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<(), StateFileError> {
        let boottime_ns = self.clocks.boottime_ns();
        self.saved_ns = boottime_ns;
        let Some(path) = &self.path else { return Ok(()) };
        // Another agent may have written a later one. One that is damaged is replaced.
        let other = FILE.read(path).ok().flatten().map_or(0, |saved: Saved| nanoseconds(saved.mark));
        let saved = Saved {
            mark: timestamp(self.mark_ns.max(other)),
            limit: timestamp(boottime_ns.wrapping_add(self.limit_offset_ns).max(other)),
            boottime_ns,
            boot_id: self.boot_id.clone(),
        };
        state_file::write(path, &saved)
    }
}

fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

fn timestamp(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{FILE, StateFileError, TimeMark};
    use crate::support::clock::Clocks;

    const SECOND: u64 = 1_000_000_000;

    #[derive(Debug, Default)]
    struct Set {
        wall: AtomicU64,
        boottime: AtomicU64,
    }

    impl Set {
        fn at(wall: u64, boottime: u64) -> Arc<Self> {
            let set = Arc::new(Self::default());
            set.set(wall, boottime);
            set
        }

        fn set(&self, wall: u64, boottime: u64) {
            self.wall.store(wall * SECOND, Ordering::Relaxed);
            self.boottime.store(boottime * SECOND, Ordering::Relaxed);
        }
    }

    impl Clocks for Set {
        fn realtime_ns(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }

        fn monotonic_ns(&self) -> u64 {
            self.boottime_ns()
        }

        fn boottime_ns(&self) -> u64 {
            self.boottime.load(Ordering::Relaxed)
        }
    }

    fn now(mark: &mut TimeMark) -> (i64, i64) {
        let (wall, mark) = mark.now();
        (wall.as_second(), mark.as_second())
    }

    #[test]
    fn steps_do_not_move_it_and_time_does() {
        let clocks = Set::at(1000, 50);
        let mut mark = TimeMark::in_memory(clocks.clone());
        assert_eq!(now(&mut mark), (1000, 1000));
        for (wall, boottime, expected) in [
            (1010, 60, 1010),
            (9000, 61, 1011),
            (9999, 62, 1012),
            // Right again.
            (1013, 63, 1013),
            // Set back; the mark waits for the clock, and catches up with it.
            (5, 64, 1013),
            (6, 70, 1013),
            (1021, 71, 1021),
        ] {
            clocks.set(wall, boottime);
            assert_eq!(now(&mut mark).1, expected, "{wall} {boottime}");
        }
    }

    #[test]
    fn the_file_outlives_the_process_and_the_boot() {
        let folder = tempfile::tempdir().expect("a folder");
        let load = |clocks: &Arc<Set>| TimeMark::load(folder.path(), clocks.clone()).expect("a mark");
        let clocks = Set::at(1000, 50);
        let mut mark = load(&clocks);
        assert!(!FILE.path(folder.path()).exists(), "nothing is written before it is asked for");
        mark.save().expect("is written");
        // The same boot: time runs on while no agent runs.
        clocks.set(2000, 80);
        assert_eq!(now(&mut load(&clocks)), (2000, 1030));
        clocks.set(10, 80);
        assert_eq!(now(&mut load(&clocks)), (10, 1000));
        // Another boot: only the time since it is known to have passed.
        let path = FILE.path(folder.path());
        let text = fs::read_to_string(&path).expect("the file");
        let mut saved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        saved["boot_id"] = "another".into();
        fs::write(&path, saved.to_string()).expect("is written");
        clocks.set(90_000, 20);
        let mut mark = load(&clocks);
        assert_eq!(now(&mut mark), (90_000, 1020));
        mark.save().expect("is written");
        // A second agent whose mark is behind leaves the later one in the file.
        let mut behind = TimeMark::in_memory(Set::at(7, 20));
        behind.path = Some(path.clone());
        behind.save().expect("is written");
        clocks.set(0, 20);
        assert_eq!(now(&mut load(&clocks)), (0, 1020));
    }

    #[test]
    fn a_damaged_file_is_refused_and_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(FILE.path(folder.path()), "{").expect("is written");
        let error = TimeMark::load(folder.path(), Set::at(1, 1)).expect_err("damaged");
        assert!(matches!(error, StateFileError::Damaged { .. }));
        assert!(error.to_string().contains("remove the file if the clock of this host is right"), "{error}");
        let mut nowhere = TimeMark::load(&folder.path().join("none"), Set::at(1, 1)).expect("a new one");
        assert!(nowhere.save().expect_err("no folder").to_string().contains("must exist and be writable"));
    }
}
