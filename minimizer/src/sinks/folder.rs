//! A folder of files that a sink writes: how they are named, described, finished, recovered and deleted.
//!
//! Record files (JSON Lines, Parquet) and IPFIX files share all of it; docs/FILES.md says what a reader may rely on.

mod error;
mod journal;
mod leftovers;
mod manifest;
mod mode;
mod name;
mod open;
mod retention;
mod unfinished;

use std::path::{Path, PathBuf};
use std::time::Instant;

pub(super) use error::FileError;
pub(super) use manifest::{BatchShare, Begun, Header, Manifest, Sums};
pub(super) use name::Encoding;
pub(super) use open::OpenFile;
use retention::Retention;

/// The files of one sink in its folder.
pub(super) struct Folder {
    path: PathBuf,
    sink: String,
    retention: Retention,
    /// Whether the manifests of earlier runs were listed.
    is_searched: bool,
    /// Whether unfinished files of earlier runs were dealt with.
    is_cleared: bool,
    /// Number of the latest file.
    sequence: u64,
}

impl Folder {
    /// The folder at `path`, which is neither read nor made yet.
    pub(super) fn new(path: &Path, sink: &str) -> Self {
        Self {
            path: path.to_owned(),
            sink: sink.to_owned(),
            retention: Retention::new(path, sink),
            is_searched: false,
            is_cleared: false,
            sequence: 0,
        }
    }

    /// Makes the folder, and the folders above it, where they are missing.
    pub(super) fn make(&self) -> Result<(), FileError> {
        mode::make_folder(&self.path)
    }

    /// Deals, once, with what earlier runs left behind.
    pub(super) fn search(&mut self) -> Result<(), FileError> {
        if !self.is_cleared {
            self.make()?;
            let completed = leftovers::clear(&self.path, &self.sink)?;
            self.is_cleared = true;
            if self.is_searched {
                completed.iter().for_each(|manifest| self.retention.add(manifest));
            }
        }
        if !self.is_searched {
            self.retention.search()?;
            self.is_searched = true;
        }
        Ok(())
    }

    /// Whether [`Self::search`] has something to do.
    pub(super) const fn must_search(&self) -> bool {
        !self.is_searched || !self.is_cleared
    }

    /// A file was left unfinished during this run: the next search deals with it.
    pub(super) const fn leave_behind(&mut self) {
        self.is_cleared = false;
    }

    /// Tells the retention that the policy in force promises. Files written under an earlier policy that promised
    /// less time keep their own.
    pub(super) fn promise(&mut self, header: &Header) {
        self.retention.promise(header);
    }

    /// When a file's time is over, or has to be looked up.
    pub(super) fn next(&self) -> Option<Instant> {
        self.retention.next()
    }

    /// Deletes files whose time is over, for a bounded time.
    pub(super) fn work(&mut self) -> Result<(), FileError> {
        self.retention.work()
    }
}
