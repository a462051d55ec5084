//! The two directories of a sink: the one that it is given, where readers find whole files and nothing else, and one in it
//! whose name begins with a dot, where everything else is.

use std::path::Path;

use tracing::info;

use super::directory::{Directory, Lock, lock};
use super::error::FileError;
use super::mode::make_folder;
use super::name;

/// The directories of a sink, open.
#[derive(Debug)]
pub(super) struct Places {
    /// Whole files of records.
    pub(super) records: Directory,
    /// Manifests, unfinished files, their journals, and the list of what was deleted.
    pub(super) notes: Directory,
}

impl Places {
    /// Opens both, and makes what is missing.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        make_folder(path)?;
        Self::open_existing(path)
    }

    /// Opens both, where they are.
    pub(super) fn open_existing(path: &Path) -> Result<Self, FileError> {
        let records = Directory::open(path).map_err(FileError::io("open", path))?;
        let notes = records.make(name::NOTES).map_err(FileError::io("open", &records.path(name::NOTES)))?;
        Ok(Self { records, notes })
    }

    /// Whether both are where they were opened.
    pub(super) fn are_in_place(&self) -> bool {
        self.records.is_at_its_path() && self.notes.is_at_its_path()
    }

    /// Waits until the disk has the names in both.
    pub(super) fn sync(&self) -> Result<(), FileError> {
        for directory in [&self.notes, &self.records] {
            directory.sync().map_err(FileError::io("write to the disk", directory.own_path()))?;
        }
        Ok(())
    }

    /// Moves what earlier versions put beside the files of records: manifests, what was unfinished, and the list of deletions.
    pub(super) fn adopt(&self) -> Result<(), FileError> {
        let names = self.records.names().map_err(FileError::io("list", self.records.own_path()))?;
        let mut moved = 0_u64;
        let mut adopt = |name: &str, new: &str| match self.records.rename(name, &self.notes, new) {
            Ok(()) => moved += 1,
            // A name that is taken keeps its file; what is gone was adopted by another sink of the directory.
            Err(error) => tracing::debug!("{} stays: {error}", self.records.path(name).display()),
        };
        for name in &names {
            if name == name::DELETIONS || name.strip_suffix(name::MANIFEST).is_some_and(name::is_data) {
                adopt(name, name);
            }
        }
        // Data before what belongs to it: an agent that runs has its data file locked.
        for suffix in ["", name::MANIFEST, name::JOURNAL] {
            for old in &names {
                let Some(finished) = old.strip_prefix('.').and_then(name::finished) else { continue };
                let Some(data) = finished.strip_suffix(suffix).filter(|data| name::is_data(data)) else {
                    continue;
                };
                let is_used = || match suffix {
                    "" => self.records.open_file(old).map_or(true, |file| lock(&file) == Lock::Used),
                    _ => !matches!(self.records.look(&format!(".{}", name::unfinished(data))), Ok(None)),
                };
                if !is_used() {
                    adopt(old, &name::unfinished(finished));
                }
            }
        }
        if moved != 0 {
            let (from, to) = (self.records.own_path().display(), self.notes.own_path().display());
            info!("{moved} manifests and notes of an earlier version were moved from {from} to {to}");
        }
        Ok(())
    }
}
