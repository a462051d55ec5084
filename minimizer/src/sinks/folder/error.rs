//! What can go wrong with a file, and which records that costs.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::delivery::loss::Loss;
use crate::delivery::sink::SinkError;

/// Why something was not written.
#[derive(Debug, Error)]
pub(in crate::sinks) enum FileError {
    /// The system refuses; what was written before is still there.
    #[error("cannot {doing} {}: {source}; {}", path.display(), fix(source))]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
    },
    /// The file is gone, or does not hold what was written to it.
    #[error("cannot {doing} {}: {source}; {}", path.display(), fix(source))]
    Lost {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
    },
    /// The records cannot be put into the format.
    #[error("cannot write {} as {format}: {source}", path.display())]
    Unencodable {
        /// The file.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// What the encoder says.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl FileError {
    /// For `map_err`: what was attempted, on which file.
    pub(in crate::sinks) fn io<E: Into<io::Error>>(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source: source.into() }
    }

    /// The same, where the file cannot be trusted any more.
    pub(in crate::sinks) fn lost<E: Into<io::Error>>(
        doing: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Lost { doing, path, source: source.into() }
    }

    /// Whether the content of the file is lost.
    pub(in crate::sinks) const fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Unencodable { .. })
    }

    /// Whether the disk is full.
    pub(in crate::sinks) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } | Self::Lost { source, .. } if is_full(source))
    }

    /// The reason under which lost records are counted.
    fn loss(&self) -> Loss {
        if self.is_full() { Loss::DiskFull } else { Loss::Unwritable }
    }

    /// The error of a sink that can write again what the file did not keep.
    pub(in crate::sinks) fn without_loss(self) -> SinkError {
        SinkError::new(self.loss(), self.to_string())
    }
}

/// The error of a sink that keeps nothing but the file.
impl From<FileError> for SinkError {
    fn from(error: FileError) -> Self {
        let mut message = error.to_string();
        if error.is_loss() {
            message += "; what was written to it since it was begun is lost";
        }
        Self { loss: error.loss(), message, held_is_lost: error.is_loss() }
    }
}

/// Whether the disk, or a quota, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
}

fn fix(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            "free space there, or name a `directory` on a larger disk; the sink then goes on by itself"
        }
        Some(Errno::FBIG) => {
            "let files be smaller with `rotate_octets`; the file system or `ulimit -f` allows no larger one"
        }
        Some(Errno::LOOP) => "a link has that name, and the agent follows none; remove it",
        Some(Errno::BUSY) => "something is mounted over it; unmount that",
        Some(Errno::ISDIR) => "a directory has the name of a file; remove it",
        Some(Errno::NOTDIR | Errno::EXIST) => "something else has that name; name another `directory`",
        Some(Errno::ROFS) => {
            "mount it writable, or name another `directory`; the sink then goes on by itself"
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            "let the user of the agent write there (`chown`; `chattr -i` where it is immutable), or name another `directory`"
        }
        Some(Errno::NOENT) => {
            "somebody removed or moved it: leave the files to the agent until they have their names"
        }
        // An error of the agent's own checks.
        None => {
            "only the agent's own regular files belong there, and only it locks them: remove what does not"
        }
        _ => "look for the device's errors in `dmesg`",
    }
}
