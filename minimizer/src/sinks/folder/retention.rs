//! Deletes files when their recipient's time is over, and records each deletion.

use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::FileType;
use serde::Serialize;
use tracing::warn;

use super::TRY_AGAIN;
use super::directory::{Lock, irregular, lock};
use super::error::FileError;
use super::manifest::{Header, Manifest};
use super::name;
use super::places::Places;
use crate::support::clock;

/// Longest time that one call spends on files: records wait meanwhile.
const WORK_MAX: Duration = Duration::from_millis(300);
/// Longest time until the clock is looked at again: somebody may set it.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);
const MS_PER_SECOND: u64 = 1000;

/// The whole files of a directory, and how long each is kept.
pub(super) struct Retention {
    sink: String,
    /// Names of manifests that are not read yet.
    unread: Vec<Unread>,
    kept: Vec<Kept>,
    /// Recipient and retention as the policy in force has them.
    promise: Option<Header>,
    /// How often a file could not be deleted, or its manifest not be read.
    failures: u64,
}

struct Unread {
    manifest: String,
    failure: Failure,
}

struct Kept {
    file: String,
    sink: String,
    begin_ms: u64,
    recipient: String,
    retention_seconds: Option<u64>,
    failure: Failure,
}

/// That something failed before.
#[derive(Default)]
struct Failure {
    /// It is not tried before this moment.
    rest_until: Option<Instant>,
    /// Whether somebody had the manifest locked: another sink of the directory that deletes the file, or anybody.
    is_busy: bool,
    is_told: bool,
}

/// Why a file was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Why {
    /// The recipient may not keep it any longer.
    Retention,
    /// The same, but somebody else had deleted it before.
    RetentionOfAbsent,
    /// The agent that wrote it ended before any of it was whole.
    Unfinished,
}

/// A line of the list of deletions.
#[derive(Serialize)]
pub(super) struct Deletion<'file> {
    pub(super) time: Timestamp,
    pub(super) sink: &'file str,
    pub(super) file: &'file str,
    pub(super) octets: u64,
    /// `None` for a file that was never whole.
    pub(super) sha256: Option<&'file str>,
    pub(super) records: Option<u64>,
    pub(super) why: Why,
}

/// When the retention of records ends whose first interval begins at `begin_ms`, in milliseconds since 1970.
pub(super) fn end_ms(begin_ms: u64, retention_seconds: Option<u64>) -> Option<u64> {
    Some(begin_ms.saturating_add(retention_seconds?.saturating_mul(MS_PER_SECOND)))
}

impl Failure {
    fn rests(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// Waits for another sink, which is at it.
    fn wait(&mut self) {
        self.is_busy = true;
        self.rest_until = Some(Instant::now() + TRY_AGAIN);
    }

    /// Notes a failure, and tells the first one.
    fn tell(&mut self, sink: &str, error: &FileError) {
        if !std::mem::replace(&mut self.is_told, true) {
            warn!(
                "sink {sink}: {error}; other files are not affected, and this one is tried again each minute"
            );
        }
        self.rest_until = Some(Instant::now() + TRY_AGAIN);
    }
}

impl Retention {
    pub(super) const fn new(sink: String) -> Self {
        Self { sink, unread: Vec::new(), kept: Vec::new(), promise: None, failures: 0 }
    }

    /// Finds the files of earlier runs, and those of sinks that do not run any more. What was known of another directory is
    /// forgotten.
    pub(super) fn search(&mut self, places: &Places) -> Result<(), FileError> {
        let names = places.notes.names().map_err(FileError::io("list", places.notes.own_path()))?;
        let is_manifest = |name: &String| name.strip_suffix(name::MANIFEST).is_some_and(name::is_data);
        let unread = |manifest| Unread { manifest, failure: Failure::default() };
        self.unread = names.into_iter().filter(is_manifest).map(unread).collect();
        self.kept.clear();
        Ok(())
    }

    /// A file was written.
    pub(super) fn add(&mut self, manifest: &Manifest) {
        self.kept.push(Kept {
            file: manifest.file.clone(),
            sink: manifest.header.sink.clone(),
            begin_ms: u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0),
            recipient: manifest.header.recipient.clone(),
            retention_seconds: manifest.header.retention_seconds,
            failure: Failure::default(),
        });
    }

    /// The retention that the policy in force promises. It counts for older files too where it is shorter than theirs.
    pub(super) fn promise(&mut self, header: &Header) {
        if self.promise.as_ref() != Some(header) {
            self.promise = Some(header.clone());
        }
    }

    /// How often a file could not be deleted, or its manifest not be read.
    pub(super) const fn failures(&self) -> u64 {
        self.failures
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let unread =
            self.unread.iter().map(|unread| unread.failure.rest_until.map_or(now, |until| until.max(now)));
        let now_ms = clock::realtime_ms();
        let kept = self.kept.iter().filter_map(|kept| {
            let left = Duration::from_millis(self.end_ms(kept)?.saturating_sub(now_ms));
            let end = now + left.min(LOOK_AGAIN);
            Some(kept.failure.rest_until.map_or(end, |until| end.max(until)))
        });
        unread.chain(kept).min()
    }

    /// Reads manifests and deletes files whose time is over, for at most [`WORK_MAX`]. Failures are counted and told; they stop
    /// nothing.
    pub(super) fn work(&mut self, places: &Places) {
        let begin = Instant::now();
        for position in (0..self.unread.len()).rev() {
            self.read(places, position);
            if begin.elapsed() > WORK_MAX {
                return;
            }
        }
        let now_ms = clock::realtime_ms();
        let is_over =
            |kept: &Kept| !kept.failure.rests() && self.end_ms(kept).is_some_and(|end| end <= now_ms);
        let over: Vec<usize> = (0..self.kept.len()).rev().filter(|at| is_over(&self.kept[*at])).collect();
        for position in over {
            match delete(places, &self.kept[position].file) {
                // Positions are visited from the last one on, so that this moves none that is still to come.
                Ok(true) => drop(self.kept.swap_remove(position)),
                Ok(false) if !self.kept[position].failure.is_busy => self.kept[position].failure.wait(),
                Ok(false) => {
                    self.failures += 1;
                    let path = places.notes.path(&name::manifest(&self.kept[position].file));
                    let busy = io::Error::other("somebody has locked it");
                    self.kept[position].failure.tell(&self.sink, &FileError::io("take over", &path)(busy));
                }
                Err(error) => {
                    self.failures += 1;
                    self.kept[position].failure.tell(&self.sink, &error);
                }
            }
            if begin.elapsed() > WORK_MAX {
                break;
            }
        }
    }

    /// Reads a manifest that an earlier run wrote.
    fn read(&mut self, places: &Places, position: usize) {
        let unread = &mut self.unread[position];
        if unread.failure.rests() {
            return;
        }
        let path = places.notes.path(&unread.manifest);
        let read = places.notes.open_file(&unread.manifest).and_then(|file| Manifest::read(&file));
        match read {
            // Another's manifest may have been put there.
            Ok(Some(manifest)) if name::manifest(&manifest.file) == unread.manifest => self.add(&manifest),
            // Another sink of the directory has deleted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => warn!(
                "sink {}: {} is no manifest of the file that it is named after; that file is left alone",
                self.sink,
                path.display()
            ),
            Err(error) => {
                self.failures += 1;
                unread.failure.tell(&self.sink, &FileError::io("read", &path)(error));
                return;
            }
        }
        self.unread.swap_remove(position);
    }

    /// When a file is to be deleted, in milliseconds since 1970.
    fn end_ms(&self, kept: &Kept) -> Option<u64> {
        // The policy of this agent says nothing of files that other sinks wrote: those of another agent may be among them.
        let is_own = |promise: &&Header| promise.recipient == kept.recipient && kept.sink == self.sink;
        let now = self.promise.as_ref().filter(is_own).and_then(|promise| promise.retention_seconds);
        end_ms(kept.begin_ms, kept.retention_seconds.into_iter().chain(now).min())
    }
}

/// Deletes a file whose time is over, notes it, and deletes its manifest. Returns whether nothing is left to do: somebody else may
/// have the manifest locked.
fn delete(places: &Places, file: &str) -> Result<bool, FileError> {
    let manifest_name = name::manifest(file);
    let (path, manifest_path) = (places.records.path(file), places.notes.path(&manifest_name));
    let read = FileError::io("read", &manifest_path);
    let open = match places.notes.open_file(&manifest_name) {
        // Whoever takes the manifest away takes the file over.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        open => open.map_err(FileError::io("open", &manifest_path))?,
    };
    if lock(&open) == Lock::Used {
        return Ok(false);
    }
    let Some(manifest) = Manifest::read(&open).map_err(read)? else { return Ok(true) };
    if !places.notes.leads_to(&manifest_name, &open).map_err(FileError::io("look at", &manifest_path))? {
        return Ok(true);
    }
    let failed = || FileError::io("delete, as its retention is over,", &path);
    let why = match places.records.look(file).map_err(failed())? {
        None => Why::RetentionOfAbsent,
        Some(data) if FileType::from_raw_mode(data.st_mode) == FileType::RegularFile => {
            places.records.remove(file).map_err(failed())?;
            Why::Retention
        }
        Some(_) => return Err(failed()(irregular())),
    };
    let deletion = Deletion {
        time: Timestamp::now(),
        sink: &manifest.header.sink,
        file,
        octets: manifest.octets,
        sha256: Some(&manifest.sha256),
        records: Some(manifest.records),
        why,
    };
    note(places, &deletion)?;
    // The manifest goes last: as long as it is there, the next start finishes the deletion.
    places.notes.remove(&manifest_name).map_err(FileError::io("delete", &manifest_path))?;
    Ok(true)
}

/// Appends a line to the list of deletions.
pub(super) fn note(places: &Places, deletion: &Deletion<'_>) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let mut file = places.notes.append(name::DELETIONS)?;
        let mut line = serde_json::to_vec(deletion)?;
        line.push(b'\n');
        // An earlier line that was cut off must not spoil this one.
        let mut last = [b'\n'];
        if let Some(end) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut last, end)?;
        }
        if last != [b'\n'] {
            line.insert(0, b'\n');
        }
        file.write_all(&line)?;
        file.sync_data()
    };
    write().map_err(FileError::io("write to", &places.notes.path(name::DELETIONS)))
}
