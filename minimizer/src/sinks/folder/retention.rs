//! Deletes files when their recipient's time is over, and records each deletion.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tracing::warn;

use super::error::FileError;
use super::manifest::{Header, Manifest};
use super::mode::append_to_file;
use super::name;
use crate::support::clock;

/// The list of what was deleted.
const DELETIONS: &str = "deletions.jsonl";
/// Longest time that one call spends on files: records wait meanwhile.
const WORK_MAX: Duration = Duration::from_millis(300);
/// Longest time until the clock is looked at again: somebody may set it.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);
/// Time until it is tried again after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(60);
const MS_PER_SECOND: u64 = 1000;

/// The whole files of a sink, and how long each is kept.
pub(super) struct Retention {
    directory: PathBuf,
    sink: String,
    /// Names of manifests that are not read yet.
    unread: Vec<String>,
    kept: Vec<Kept>,
    /// Recipient and retention as the policy in force has them.
    promise: Option<Header>,
    /// Nothing is tried before this moment.
    rest_until: Option<Instant>,
}

struct Kept {
    file: String,
    begin_ms: u64,
    recipient: String,
    retention_seconds: Option<u64>,
}

/// Why a file was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Why {
    /// The recipient may not keep it any longer.
    Retention,
    /// The same, but somebody else had deleted it before.
    RetentionOfAbsent,
    /// The agent that wrote it ended before any of it was delivered.
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

impl Retention {
    pub(super) fn new(directory: &Path, sink: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            sink: sink.to_owned(),
            unread: Vec::new(),
            kept: Vec::new(),
            promise: None,
            rest_until: None,
        }
    }

    /// Finds the files of earlier runs.
    pub(super) fn search(&mut self) -> Result<(), FileError> {
        let listed = FileError::io("list", &self.directory);
        let names = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(&self.directory)?;
            let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
            names.collect()
        };
        let is_manifest = |name: &String| {
            name.strip_suffix(name::MANIFEST).is_some_and(|data| name::is_data_of(&self.sink, data))
        };
        self.unread = names().map_err(listed)?.into_iter().filter(is_manifest).collect();
        Ok(())
    }

    /// A file was written.
    pub(super) fn add(&mut self, manifest: &Manifest) {
        self.kept.push(Kept {
            file: manifest.file.clone(),
            begin_ms: u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0),
            recipient: manifest.header.recipient.clone(),
            retention_seconds: manifest.header.retention_seconds,
        });
    }

    /// The retention that the policy in force promises. It counts for older files too where it is shorter than theirs.
    pub(super) fn promise(&mut self, header: &Header) {
        if self.promise.as_ref() != Some(header) {
            self.promise = Some(header.clone());
        }
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let next = if self.unread.is_empty() {
            let end_ms = self.kept.iter().filter_map(|kept| self.end_ms(kept)).min()?;
            let left = Duration::from_millis(end_ms.saturating_sub(clock::realtime_ms()));
            now + left.min(LOOK_AGAIN)
        } else {
            now
        };
        Some(self.rest_until.map_or(next, |until| next.max(until)))
    }

    /// Reads manifests and deletes files whose time is over, for at most [`WORK_MAX`].
    pub(super) fn work(&mut self) -> Result<(), FileError> {
        if self.rest_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let worked = self.try_to_work();
        self.rest_until = worked.is_err().then(|| Instant::now() + TRY_AGAIN);
        worked
    }

    fn try_to_work(&mut self) -> Result<(), FileError> {
        let begin = Instant::now();
        while let Some(manifest) = self.unread.pop() {
            let path = self.directory.join(&manifest);
            match read(&path) {
                // Another's manifest may have been put there.
                Some(read) if read.header.sink == self.sink && name::manifest(&read.file) == manifest => {
                    self.add(&read);
                }
                _ => warn!(
                    "sink {}: {} is no manifest that it wrote; its file is left alone",
                    self.sink,
                    path.display()
                ),
            }
            if begin.elapsed() > WORK_MAX {
                return Ok(());
            }
        }
        let now_ms = clock::realtime_ms();
        let is_over = |kept: &Kept| self.end_ms(kept).is_some_and(|end| end <= now_ms);
        let over: Vec<usize> = (0..self.kept.len()).rev().filter(|at| is_over(&self.kept[*at])).collect();
        for position in over {
            self.delete(&self.kept[position].file)?;
            // Positions are visited from the last one on, so that this moves none that is still to come.
            self.kept.swap_remove(position);
            if begin.elapsed() > WORK_MAX {
                break;
            }
        }
        Ok(())
    }

    /// When a file is to be deleted, in milliseconds since 1970.
    fn end_ms(&self, kept: &Kept) -> Option<u64> {
        let promise = self.promise.as_ref().filter(|promise| promise.recipient == kept.recipient);
        let now = promise.and_then(|promise| promise.retention_seconds);
        let seconds = kept.retention_seconds.into_iter().chain(now).min()?;
        Some(kept.begin_ms.saturating_add(seconds.saturating_mul(MS_PER_SECOND)))
    }

    fn delete(&self, file: &str) -> Result<(), FileError> {
        let path = self.directory.join(file);
        let manifest_path = self.directory.join(name::manifest(file));
        // Whoever takes the manifest away takes the file over.
        let Some(manifest) = read(&manifest_path) else { return Ok(()) };
        let why = match fs::remove_file(&path) {
            Ok(()) => Why::Retention,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Why::RetentionOfAbsent,
            Err(error) => return Err(FileError::io("delete, as its retention is over,", &path)(error)),
        };
        note(
            &self.directory,
            &Deletion {
                time: Timestamp::now(),
                sink: &self.sink,
                file,
                octets: manifest.octets,
                sha256: Some(&manifest.sha256),
                records: Some(manifest.records),
                why,
            },
        )?;
        // The manifest goes last: as long as it is there, the next start finishes the deletion.
        fs::remove_file(&manifest_path).map_err(FileError::io("delete", &manifest_path))
    }
}

fn read(manifest: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(manifest).ok()?).ok()
}

/// Appends a line to the list of deletions.
pub(super) fn note(directory: &Path, deletion: &Deletion<'_>) -> Result<(), FileError> {
    let path = directory.join(DELETIONS);
    let write = || -> io::Result<()> {
        let mut file = append_to_file(&path)?;
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
    write().map_err(FileError::io("write to", &path))
}
