//! The web configuration, in the format that Prometheus exporters share: certificate, clients, passwords, headers.
//!
//! The agent follows its files: a change applies from the next handshake and the next request on.

mod client;
mod file;
mod password;
mod queue;
mod tls;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use thiserror::Error;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::places::Peer;
use crate::serve::access::AccessCounts;
use crate::support::plain_file;
use crate::support::refusal::{Asked, told};
use crate::support::secret_file::{self, Placed};
use crate::support::text::{self, TextError};
use crate::support::toml::Findings;
use file::Content;
pub use password::Admission;
use password::Checker;

/// Where systemd puts the credentials of a service.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
/// More than a key takes with all certificates beside it.
const SECRET_OCTETS_MAX: u64 = 1 << 20;

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
    /// The file is no text.
    #[error("cannot read the web configuration {}: {source}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TextError,
    },
    /// It does not fit its model, or asks for something impossible.
    #[error("the web configuration is refused: {0}")]
    Refused(Findings),
    /// The thread that checks passwords cannot be started.
    #[error("cannot start the thread that checks passwords: {}", told(Asked::Thread, .0))]
    Thread(#[source] io::Error),
    /// The kernel gives no random numbers.
    #[error("the kernel gives no random numbers to remember passwords by: {0}")]
    Random(getrandom::Error),
}

/// A web configuration, checked and ready for use.
#[derive(Debug, Default)]
pub struct WebConfig {
    /// How connections are encrypted; `None` for plain text.
    pub tls: Option<Arc<ServerConfig>>,
    /// The bcrypt hashes of passwords, by user. Without any, everybody is answered.
    pub users: BTreeMap<String, String>,
    /// Headers that are added to every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The web configuration in force. It follows the changes of its files.
#[derive(Debug)]
pub struct Web {
    path: PathBuf,
    loaded: Mutex<Loaded>,
    checker: Checker,
}

/// The configuration in force and the files behind it.
#[derive(Debug)]
struct Loaded {
    in_force: Arc<WebConfig>,
    /// The files that were read last, each with its stamp from before it was read.
    read: Vec<(PathBuf, Option<Stamp>)>,
}

/// Numbers of which at least one changes when a file is written or replaced by another.
type Stamp = (u64, u64, u64, i64, i64, i64);

impl Web {
    /// Reads the file and the files that it names.
    ///
    /// # Errors
    /// See [`WebConfigError`].
    pub fn open(path: &Path) -> Result<Self, WebConfigError> {
        let mut read = Vec::new();
        let config = load(path, &mut read)?;
        let checker = Checker::start()?;
        let loaded = Loaded { in_force: Arc::new(config), read };
        Ok(Self { path: path.to_owned(), loaded: Mutex::new(loaded), checker })
    }

    /// The configuration that applies now. Reads the files again when one of them has changed. A configuration that cannot
    /// be used is reported once, and the one in force stays.
    pub fn current(&self, access: &AccessCounts) -> Arc<WebConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.read.iter().all(|(path, stamp)| stamp_of(path) == *stamp) {
            return Arc::clone(&loaded.in_force);
        }
        let mut read = Vec::new();
        match load(&self.path, &mut read) {
            Ok(config) => {
                let path = self.path.display();
                info!("the web configuration {path} has changed and holds now");
                if loaded.in_force.tls.is_some() && config.tls.is_none() {
                    warn!(
                        "the web configuration {path} has no `tls_server_config` any more: whoever is on the way reads \
                         metrics, status and passwords"
                    );
                }
                loaded.in_force = Arc::new(config);
                AccessCounts::add(&access.reloads);
            }
            Err(error) => {
                AccessCounts::add(&access.reload_failures);
                error!("the web configuration before stays in force: {error}");
                // The mistake may be in the main file, which then names fewer files than before: follow those of before
                // too, because the fix may be in one of them.
                for (path, _) in std::mem::take(&mut loaded.read) {
                    if read.iter().all(|(other, _)| *other != path) {
                        let stamp = stamp_of(&path);
                        read.push((path, stamp));
                    }
                }
            }
        }
        loaded.read = read;
        Arc::clone(&loaded.in_force)
    }

    /// Whether new connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).in_force.tls.is_some()
    }

    /// Whether an `Authorization` header of this value, sent by `peer`, has a user of `config` and that user's password.
    pub async fn admits(&self, config: &WebConfig, peer: Peer, authorization: Option<&[u8]>) -> Admission {
        if config.users.is_empty() {
            return Admission::Admitted;
        }
        self.checker.check(&config.users, peer, authorization).await
    }
}

/// Reads the file and the files that it names, and adds all of them to `read`.
fn load(path: &Path, read: &mut Vec<(PathBuf, Option<Stamp>)>) -> Result<WebConfig, WebConfigError> {
    // The stamp is taken before the file is read, so that a change in between is noticed afterwards.
    read.push((path.to_owned(), stamp_of(path)));
    let octets =
        plain_file::read(path).map_err(|source| WebConfigError::Read { path: path.to_owned(), source })?;
    let text =
        text::decoded(octets).map_err(|source| WebConfigError::Text { path: path.to_owned(), source })?;
    file::parse(text::without_mark(&text), path, |file, content| {
        if file != path {
            read.push((file.to_owned(), stamp_of(file)));
        }
        match content {
            Content::Public => plain_file::read(file)
                .map(Zeroizing::new)
                .map_err(|error| format!("cannot read {}: {error}", file.display())),
            Content::Secret => secret_file::read_up_to(file, placed(file), SECRET_OCTETS_MAX)
                .map_err(|error| error.to_string()),
        }
    })
    .map_err(WebConfigError::Refused)
}

fn placed(file: &Path) -> Placed {
    match env::var_os(CREDENTIALS_DIRECTORY) {
        Some(directory) if file.starts_with(&directory) => Placed::BySystemd,
        _ => Placed::ByOperator,
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    let changed = data.ctime_nsec();
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec(), data.ctime() ^ changed << 32))
}
