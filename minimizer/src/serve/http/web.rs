//! The web configuration, in the format that Prometheus' exporters share: certificate, clients, passwords, headers.
//!
//! It is followed: what the file, or a file that it names, says now holds from the next handshake and request on.

mod client;
mod file;
mod password;
mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use thiserror::Error;

use crate::serve::counts::AccessCounts;
use crate::support::toml::Findings;
use password::Checker;
pub use password::Verdict;
use tracing::{error, info};

/// Why the web configuration cannot be used.
#[derive(Debug, Error)]
pub enum WebConfigError {
    /// The file cannot be read.
    #[error("cannot read the web configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not fit its model, or says what cannot be.
    #[error("the web configuration is refused: {0}")]
    Refused(Findings),
    /// Passwords cannot be checked.
    #[error("cannot start the thread that checks passwords: {0}")]
    Thread(#[source] io::Error),
    /// No random numbers.
    #[error("the kernel gives no random numbers to remember passwords by: {0}")]
    Random(getrandom::Error),
}

/// What a web configuration says.
#[derive(Debug, Default)]
pub struct WebConfig {
    /// How connections are encrypted; `None` when they are not.
    pub tls: Option<Arc<ServerConfig>>,
    /// The bcrypt hashes of passwords, by user; everybody is answered when there are none.
    pub users: BTreeMap<String, String>,
    /// Headers that every answer has.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A web configuration that is followed through the changes of its files.
#[derive(Debug)]
pub struct Web {
    path: PathBuf,
    state: Mutex<State>,
    checker: Checker,
}

#[derive(Debug)]
struct State {
    in_force: Arc<WebConfig>,
    /// The files as they were before they were read.
    read: Vec<(PathBuf, Option<Stamp>)>,
}

/// What changes when a file is written or another takes its name.
type Stamp = (u64, u64, u64, i64, i64, i64);

impl Web {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// See [`WebConfigError`].
    pub fn open(path: &Path) -> Result<Self, WebConfigError> {
        let mut read = Vec::new();
        let config = load(path, &mut read)?;
        let checker = Checker::start()?;
        let state = State { in_force: Arc::new(config), read };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state), checker })
    }

    /// What holds now: the files are read again when one of them has changed. What cannot be used is said once, and
    /// what was in force before stays.
    pub fn current(&self, counts: &AccessCounts) -> Arc<WebConfig> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.read.iter().all(|(path, stamp)| stamp_of(path) == *stamp) {
            return Arc::clone(&state.in_force);
        }
        let mut read = Vec::new();
        match load(&self.path, &mut read) {
            Ok(config) => {
                state.in_force = Arc::new(config);
                AccessCounts::add(&counts.reloads);
                info!("the web configuration {} has changed and holds now", self.path.display());
            }
            Err(error) => {
                AccessCounts::add(&counts.reload_failures);
                error!("the web configuration before stays in force: {error}");
                // Files that it no longer names, or cannot name yet, may be what is mended.
                for (path, _) in std::mem::take(&mut state.read) {
                    if read.iter().all(|(other, _)| *other != path) {
                        let stamp = stamp_of(&path);
                        read.push((path, stamp));
                    }
                }
            }
        }
        state.read = read;
        Arc::clone(&state.in_force)
    }

    /// Whether connections are encrypted now.
    pub fn is_encrypted(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).in_force.tls.is_some()
    }

    /// Whether the value of an `Authorization` header names a user of `config` with the right password.
    pub async fn admits(&self, config: &WebConfig, authorization: Option<&[u8]>) -> Verdict {
        if config.users.is_empty() {
            return Verdict::Admitted;
        }
        self.checker.check(&config.users, authorization).await
    }
}

/// Reads the file and those that it names, and notes which these are.
fn load(path: &Path, read: &mut Vec<(PathBuf, Option<Stamp>)>) -> Result<WebConfig, WebConfigError> {
    // Noted before they are read: what changes meanwhile is read again.
    read.push((path.to_owned(), stamp_of(path)));
    let text =
        fs::read_to_string(path).map_err(|source| WebConfigError::Read { path: path.to_owned(), source })?;
    file::parse(&text, path, |file| {
        read.push((file.to_owned(), stamp_of(file)));
        fs::read(file)
    })
    .map_err(WebConfigError::Refused)
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    let changed = data.ctime_nsec();
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec(), data.ctime() ^ changed << 32))
}
