//! What goes wrong with files, and what it costs.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::delivery::loss::Loss;
use crate::delivery::sink::SinkError;

/// Why something was not written.
#[derive(Debug, Error)]
pub(super) enum FileError {
    /// The system refuses.
    #[error("cannot {doing} {}: {source}; {}", path.display(), fix(source))]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no longer what was written.
    #[error("cannot {doing} {}: {source}; what was written to it since it was begun is lost: {}", path.display(), fix(source))]
    Lost {
        /// What was to be done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The records cannot be put into the format.
    #[error("cannot write {} as Parquet: {source}; what was written to it since it was begun is lost", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
}

impl FileError {
    /// For `map_err`: what was to be done with what.
    pub(super) fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source: source.into() }
    }

    /// The same where the file cannot be trusted any more.
    pub(super) fn lost<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Lost { doing, path, source: source.into() }
    }

    /// Whether what was written to the file is lost.
    pub(super) const fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Parquet { .. })
    }

    /// Under which reason records are lost by it.
    pub(super) fn loss(&self) -> Loss {
        match self {
            Self::Io { source, .. } | Self::Lost { source, .. } if is_full(source) => Loss::DiskFull,
            _ => Loss::Unwritable,
        }
    }
}

impl From<FileError> for SinkError {
    fn from(error: FileError) -> Self {
        Self { loss: error.loss(), message: error.to_string(), held_is_lost: error.is_loss() }
    }
}

/// Whether the disk, or a quota, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

fn fix(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            "free space there, or name a `directory` on a larger disk; it goes on by itself then"
        }
        Some(Errno::NOTDIR | Errno::EXIST) => "name a `directory` of the sink that is one",
        Some(Errno::ROFS) => "mount it writable, or name another `directory`; it goes on by itself then",
        Some(Errno::ACCESS | Errno::PERM) => {
            "let the user of the agent write there (`chown`), or name another `directory`"
        }
        Some(Errno::NOENT) => "somebody removed it: leave the files to the agent until they have their names",
        _ => "look for the device's errors in `dmesg`",
    }
}
