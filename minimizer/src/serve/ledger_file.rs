//! The ledger as a file: first what identifies policy and program, then the counts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use crate::delivery::ledger::Ledger;
use crate::kernel::program::object_digest;
use crate::policy::model::Policy;
use crate::serve::snapshot::{Published, Snapshot};
use crate::support::{file_mode, limited, panics};

/// Shortest time between two ledgers.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for the first and for the last ledger.
const LIMIT: Duration = Duration::from_secs(5);

/// The file cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the ledger to {}: {source}", path.display())]
pub struct LedgerFileError {
    path: PathBuf,
    source: io::Error,
}

impl LedgerFileError {
    fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// The policy and the program that were in force last: they made the counts.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerOrigin {
    policy: LedgerPolicy,
    program_tag: String,
    object_sha256: String,
}

#[derive(Clone, Debug, Serialize)]
struct LedgerPolicy {
    name: String,
    sha256: String,
}

impl LedgerOrigin {
    /// Names a policy and the program that enforces it, by the program's tag. The tag is the same under every policy.
    #[must_use]
    pub fn new(policy: &Policy, program_tag: String) -> Self {
        let policy = LedgerPolicy { name: policy.name.clone(), sha256: policy.digest.clone() };
        Self { policy, program_tag, object_sha256: object_digest() }
    }

    /// Names what a running agent has in force.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let policy =
            LedgerPolicy { name: snapshot.policy.name.clone(), sha256: snapshot.policy.digest.clone() };
        Self {
            policy,
            program_tag: snapshot.build.program_tag.clone(),
            object_sha256: snapshot.build.object_digest.clone(),
        }
    }
}

#[derive(Serialize)]
struct Contents<'ledger> {
    #[serde(flatten)]
    origin: &'ledger LedgerOrigin,
    #[serde(flatten)]
    ledger: &'ledger Ledger,
}

/// Where a ledger is written. A file is replaced as a whole, so that whoever reads it finds one ledger or another.
#[derive(Clone, Debug)]
pub struct LedgerFile {
    path: PathBuf,
    /// The name under which a file is written before it gets its own; `None` for what is no file, such as a FIFO.
    new: Option<PathBuf>,
}

impl LedgerFile {
    /// The place of that name. What is behind a symbolic link is replaced, and the link stays; one that leads nowhere is
    /// replaced itself.
    ///
    /// # Errors
    /// When the place cannot hold a ledger.
    pub fn new(path: &Path) -> Result<Self, LedgerFileError> {
        let failed = |source| LedgerFileError { path: path.to_owned(), source };
        // Behind `/dev/stdout` there may be a file, of which somebody else holds the descriptor.
        if ["/dev", "/proc"].iter().any(|folder| path.starts_with(folder)) {
            return Ok(Self { path: path.to_owned(), new: None });
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(metadata) if !metadata.is_file() => Ok(Self { path: path.to_owned(), new: None }),
            Ok(_) => fs::canonicalize(path).map_err(failed).map(Self::file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::file(path.to_owned())),
            Err(error) => Err(failed(error)),
        }
    }

    fn file(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self { new: Some(path.with_file_name(format!(".{name}.new"))), path }
    }

    /// Writes a ledger.
    ///
    /// # Errors
    /// When it cannot be written. The file then has the ledger that it had, if there was room for both.
    pub fn write(&self, origin: &LedgerOrigin, ledger: &Ledger) -> Result<(), LedgerFileError> {
        let written = match &self.new {
            None => fill(OpenOptions::new().append(true).open(&self.path), origin, ledger),
            Some(new) => self.replace(new, origin, ledger),
        };
        written.map_err(|source| LedgerFileError { path: self.path.clone(), source })
    }

    fn replace(&self, new: &Path, origin: &LedgerOrigin, ledger: &Ledger) -> io::Result<()> {
        let replaced =
            fill(file_mode::create(new), origin, ledger).and_then(|()| fs::rename(new, &self.path));
        let Err(error) = replaced else { return Ok(()) };
        // It is missing if it could not be made.
        let _missing = fs::remove_file(new);
        match error.kind() {
            // A file that is mounted by itself, or lies in a folder of others, cannot be replaced, only overwritten.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
                if self.path.is_file() =>
            {
                fill(file_mode::create(&self.path), origin, ledger)
            }
            _ => Err(error),
        }
    }
}

/// Writes a ledger as JSON, and waits until the disk has it if it goes to a disk.
fn fill(file: io::Result<File>, origin: &LedgerOrigin, ledger: &Ledger) -> io::Result<()> {
    let file = file?;
    let mut out = BufWriter::new(&file);
    serde_json::to_writer_pretty(&mut out, &Contents { origin, ledger })?;
    out.write_all(b"\n")?;
    out.flush()?;
    drop(out);
    match file.sync_data() {
        // A FIFO or a terminal.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Writes the ledger after drains, at most once a second, on a thread of its own: nobody waits for a disk.
pub struct LedgerWriter(Arc<Shared>);

struct Shared {
    path: PathBuf,
    /// Held by whoever writes.
    file: Mutex<LedgerFile>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_due: bool,
    is_ended: bool,
    /// Since when a ledger has been written, and whether it was told that this takes too long.
    busy: Option<(Instant, bool)>,
}

/// Tells a [`LedgerWriter`] that there is a later ledger. It waits for nobody.
#[derive(Clone)]
pub struct LedgerDue(Arc<Shared>);

impl LedgerDue {
    /// There is a later ledger.
    pub fn tell(&self) {
        self.0.lock().is_due = true;
        self.0.changed.notify_all();
    }

    /// What to say if the ledger has been written for too long: once.
    #[must_use]
    pub fn look_for_hang(&self) -> Option<String> {
        let mut state = self.0.lock();
        let (since, is_told) = state.busy.as_mut()?;
        if *is_told || since.elapsed() < LIMIT {
            return None;
        }
        *is_told = true;
        let path = self.0.path.display();
        Some(format!(
            "the ledger has been on its way to {path} for more than {} s; look whether the file system hangs",
            LIMIT.as_secs()
        ))
    }
}

impl LedgerWriter {
    /// Writes the ledger as it is published now, and then whenever a later one is due. What is no file gets the last ledger
    /// only.
    ///
    /// # Errors
    /// When the first one cannot be written for another reason than a full disk, or when there is no thread.
    pub fn start(path: &Path, published: Published) -> Result<Self, LedgerFileError> {
        let file = LedgerFile::new(path)?;
        let is_file = file.new.is_some();
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            file: Mutex::new(file),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        if !is_file {
            return Ok(Self(shared));
        }
        let first = published.latest();
        match shared.write_in_time(LedgerOrigin::of(&first), first.ledger.clone()) {
            Err(error) if error.is_full() => warn!("{error}; tried again after each drain"),
            first => first?,
        }
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.work(&published))
            .map_err(|source| shared.failed(source))?;
        Ok(Self(shared))
    }

    /// A handle that tells of later ledgers.
    #[must_use]
    pub fn due(&self) -> LedgerDue {
        LedgerDue(Arc::clone(&self.0))
    }

    /// Writes the last ledger. It waits for a few seconds at most.
    ///
    /// # Errors
    /// When it cannot be written, or not in this time.
    pub fn finish(self, origin: LedgerOrigin, ledger: Ledger) -> Result<(), LedgerFileError> {
        self.0.lock().is_ended = true;
        self.0.changed.notify_all();
        self.0.write_in_time(origin, ledger)
    }
}

impl Shared {
    fn work(&self, published: &Published) {
        let mut failure = None;
        loop {
            let is_idle = |state: &mut State| !state.is_due && !state.is_ended;
            let waited = self.changed.wait_while(self.lock(), is_idle);
            waited.unwrap_or_else(PoisonError::into_inner).is_due = false;
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            // Nothing comes after the last one.
            if self.lock().is_ended {
                return;
            }
            panics::planted("ledger");
            let snapshot = published.latest();
            self.lock().busy = Some((Instant::now(), false));
            let written = file.write(&LedgerOrigin::of(&snapshot), &snapshot.ledger);
            self.lock().busy = None;
            drop(file);
            self.log(&mut failure, written.err().map(|error| error.to_string()));
            let waited = self.changed.wait_timeout_while(self.lock(), PAUSE, |state| !state.is_ended);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Logs when writing begins to fail and when it works again.
    fn log(&self, before: &mut Option<String>, failure: Option<String>) {
        match &failure {
            Some(failure) if before.as_ref() != Some(failure) => {
                warn!("{failure}; tried again after each drain");
            }
            None if before.is_some() => info!("the ledger is in {} again", self.path.display()),
            _ => {}
        }
        *before = failure;
    }

    /// Writes a ledger, and leaves the writing to itself when it takes too long.
    fn write_in_time(self: &Arc<Self>, origin: LedgerOrigin, ledger: Ledger) -> Result<(), LedgerFileError> {
        let shared = Arc::clone(self);
        let write = move || {
            let file = shared.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write(&origin, &ledger)
        };
        let written = limited::within(LIMIT, "last ledger", write).map_err(|source| self.failed(source))?;
        written.unwrap_or_else(|| Err(self.failed(io::ErrorKind::TimedOut.into())))
    }

    fn failed(&self, source: io::Error) -> LedgerFileError {
        LedgerFileError { path: self.path.clone(), source }
    }

    /// Every change is complete when the lock is released.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{LedgerFile, LedgerOrigin};
    use crate::serve::snapshot::example::example;
    use crate::serve::status::LedgerReport;

    #[test]
    fn policy_and_program_come_before_the_counts() {
        let snapshot = example();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        let file = LedgerFile::new(&path).expect("a place");
        file.write(&LedgerOrigin::of(&snapshot), &snapshot.ledger).expect("is written");
        let text = std::fs::read_to_string(&path).expect("can be read");
        assert!(
            text.starts_with("{\n  \"policy\": {\n    \"name\": \"example\",\n    \"sha256\": \"efef"),
            "{text}"
        );
        let mut file: Value = serde_json::from_str(&text).expect("is JSON");
        let file = file.as_object_mut().expect("is an object");
        let origin =
            ["policy", "program_tag", "object_sha256"].map(|key| file.remove(key).expect("is there"));
        assert_eq!(origin[1..], [Value::from("cd".repeat(8)), Value::from("ab".repeat(32))]);
        let ledger = serde_json::to_value(LedgerReport::from(&snapshot.ledger)).expect("is JSON");
        assert_eq!(Value::Object(file.clone()), ledger);
    }
}
