//! A small file of the state directory: JSON that an agent wrote, and that only an agent replaces.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::support::{file_mode, plain_file};

/// A file of the state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}; the state directory must be one that the agent may read and write", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what an agent wrote.
    #[error("{}: not {what}: {source}; {consequence}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
        /// What follows from it, and the fix.
        consequence: &'static str,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}; the state directory must exist and be writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A kind of such files.
#[derive(Clone, Copy, Debug)]
pub struct StateFile {
    /// The name in the state directory.
    pub name: &'static str,
    /// What it is, with an article.
    pub what: &'static str,
    /// What follows if it is damaged, and the fix.
    pub consequence: &'static str,
}

impl StateFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self, directory: &Path) -> PathBuf {
        directory.join(self.name)
    }

    /// What the file says; `None` if it is not there.
    ///
    /// # Errors
    /// If it cannot be read, or no agent wrote it.
    pub fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StateFileError> {
        let octets = match plain_file::read(path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateFileError::Read { path: path.to_owned(), source }),
        };
        serde_json::from_slice(&octets).map(Some).map_err(|source| {
            let Self { what, consequence, .. } = *self;
            StateFileError::Damaged { path: path.to_owned(), what, source, consequence }
        })
    }
}

/// Replaces the file as a whole.
///
/// # Errors
/// If it cannot be written; what was there before is still there.
pub fn write(path: &Path, content: &impl Serialize) -> Result<(), StateFileError> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        let mut octets = serde_json::to_vec(content)?;
        octets.push(b'\n');
        file_mode::replace(path, &temporary, &octets)
    };
    write().map_err(|source| StateFileError::Write { path: path.to_owned(), source })
}
