//! The ledger as a file: first what identifies policy and program, then the counts.

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::delivery::ledger::Ledger;
use crate::kernel::program::object_digest;
use crate::policy::model::Policy;
use crate::serve::snapshot::Snapshot;
use crate::support::file_mode;

/// The file cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the ledger to {}: {source}", path.display())]
pub struct LedgerFileError {
    path: PathBuf,
    source: io::Error,
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
    /// Names a policy and the program that enforces it, by the program's tag.
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

/// Writes the ledger as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, origin: &LedgerOrigin, ledger: &Ledger) -> Result<(), LedgerFileError> {
    let write = || -> io::Result<()> {
        let mut file = BufWriter::new(file_mode::create(path)?);
        serde_json::to_writer_pretty(&mut file, &Contents { origin, ledger })?;
        file.write_all(b"\n")?;
        file.flush()
    };
    write().map_err(|source| LedgerFileError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{LedgerOrigin, write};
    use crate::serve::snapshot::example::example;
    use crate::serve::status::LedgerReport;

    #[test]
    fn policy_and_program_come_before_the_counts() {
        let snapshot = example();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger");
        write(&path, &LedgerOrigin::of(&snapshot), &snapshot.ledger).expect("is written");
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
