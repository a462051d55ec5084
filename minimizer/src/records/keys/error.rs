//! Why there are no keys.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::support::secret_file::SecretFileError;

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Neither 32 octets nor 64 hexadecimal digits.
    #[error(
        "{path}: {octets} octets that are neither a secret of 32 octets nor 64 hexadecimal digits; make one with \
         `head -c 32 /dev/urandom > {path}`",
        path = path.display()
    )]
    NoSecret {
        /// The file.
        path: PathBuf,
        /// How long it is.
        octets: usize,
    },
    /// The secret is one that anybody can guess.
    #[error(
        "{path}: all octets of the secret are the same, anybody can guess it; make one with \
         `head -c 32 /dev/urandom > {path}`",
        path = path.display()
    )]
    Guessable {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no memory for a key.
    #[error("the system gives no memory for a key: {0}")]
    Memory(#[source] io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key: {0}")]
    Random(getrandom::Error),
}
