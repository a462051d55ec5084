//! Rollback: an agent that requires a signature takes no policy that is older than the last one in force.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{info, warn};

use crate::policy::model::Policy;
use crate::support::state_file::{self, StateFile, StateFileError};

const FILE: StateFile = StateFile {
    name: "policy-serial.json",
    what: "the serial number of a policy",
    consequence: "without it an older policy could be put back, so that the agent takes none: remove the file if the policy is the \
                  right one",
};

/// The policy is older than the last one in force, or nobody knows.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// It is older.
    #[error(
        "the policy {name} has the serial number {serial}, and {last}, which was in force last, has {last_serial}: an older signed \
         policy is not put back, unless the one in force names its number in `allow_serial`"
    )]
    Older {
        /// Name of the policy.
        name: String,
        /// Its number; 0 if it has none.
        serial: u64,
        /// Name of the policy that was in force last.
        last: String,
        /// Its number.
        last_serial: u64,
    },
    /// It is another text of the same number.
    #[error(
        "the policy {name} has the serial number {serial} like {last}, which was in force last with another text: nobody knows \
         which of them is older; raise its `serial` and sign it again"
    )]
    Same {
        /// Name of the policy.
        name: String,
        /// Its number.
        serial: u64,
        /// Name of the policy that was in force last.
        last: String,
    },
    /// The file that says it cannot be used.
    #[error(transparent)]
    File(#[from] StateFileError),
}

/// The policy that was in force last.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Last {
    name: String,
    sha256: String,
    /// 0 if it has none.
    serial: u64,
    allow_serial: Option<u64>,
}

impl Last {
    fn of(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            sha256: policy.digest.clone(),
            serial: policy.commitments.serial.unwrap_or(0),
            allow_serial: policy.commitments.allow_serial,
        }
    }
}

/// What is known about the policy that was in force last.
#[derive(Debug)]
pub struct Rollback {
    is_required: bool,
    path: Option<PathBuf>,
    last: Mutex<Option<Last>>,
}

impl Rollback {
    /// Knows what the state directory says. Nothing is refused unless a signature is required.
    #[must_use]
    pub fn new(state: Option<&Path>, is_required: bool) -> Self {
        if is_required && state.is_none() {
            info!(
                "the serial number of the policy is kept in memory only: after a restart an older signed policy is not noticed; \
                 '--state DIRECTORY' keeps it"
            );
        }
        Self { is_required, path: state.map(|state| FILE.path(state)), last: Mutex::new(None) }
    }

    /// Checks that the policy is not older than the last one in force. Going back where that one allows it is told.
    ///
    /// # Errors
    /// If it is older, or nobody knows.
    pub fn permit(&self, policy: &Policy) -> Result<(), RollbackError> {
        let Some(last) = self.last()? else { return Ok(()) };
        let new = Last::of(policy);
        let (name, serial) = (new.name, new.serial);
        if serial == last.serial && serial > 0 && new.sha256 != last.sha256 {
            return Err(RollbackError::Same { name, serial, last: last.name });
        }
        if serial >= last.serial {
            return Ok(());
        }
        if last.allow_serial.is_some_and(|allowed| serial >= allowed) {
            warn!(
                "the policy {name} with the serial number {serial} comes back after {} with {}, which allowed it",
                last.name, last.serial
            );
            return Ok(());
        }
        Err(RollbackError::Older { name, serial, last: last.name, last_serial: last.serial })
    }

    /// Notes that the policy is in force.
    ///
    /// # Errors
    /// If the file cannot be written; the number is then known as long as the process runs.
    pub fn keep(&self, policy: &Policy) -> Result<(), RollbackError> {
        if !self.is_required {
            return Ok(());
        }
        let new = Last::of(policy);
        if let Some(path) = &self.path {
            state_file::write(path, &new)?;
        }
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(new);
        Ok(())
    }

    /// The policy that was in force last: on this host, or in this process if nothing is kept.
    fn last(&self) -> Result<Option<Last>, RollbackError> {
        if !self.is_required {
            return Ok(None);
        }
        let known = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some(path) = &self.path else { return Ok(known) };
        Ok(FILE.read(path)?.or(known))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{FILE, Rollback, RollbackError, StateFileError};
    use crate::policy::model::Policy;

    fn policy(top: &str) -> Policy {
        let text = format!(
            "name = \"p\"\n{top}\n[[recipients]]\nname = \"r\"\npurpose = \"x\"\nfields = {{ vlanId = \"exact\" }}\n"
        );
        Policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn older(rollback: &Rollback, policy: &Policy) {
        let error = rollback.permit(policy).expect_err("is older");
        assert!(matches!(error, RollbackError::Older { .. }), "{error}");
    }

    #[test]
    fn an_older_policy_is_refused_also_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = || Rollback::new(Some(folder.path()), true);
        let [none, six, seven] = ["", "serial = 6", "serial = 7"].map(policy);
        let first = start();
        for policy in [&none, &six, &seven] {
            first.permit(policy).expect("is newer");
            first.keep(policy).expect("is kept");
        }
        for rollback in [&first, &start()] {
            for policy in [&none, &six] {
                older(rollback, policy);
            }
            rollback.permit(&seven).expect("is the same");
            let said = rollback.permit(&policy("serial = 7 # more")).expect_err("another text").to_string();
            assert!(said.contains("raise its `serial`"), "{said}");
        }
        // Nobody has to sign: nothing is refused, and nothing is kept.
        let free = Rollback::new(Some(folder.path()), false);
        free.permit(&six).expect("is not compared");
        free.keep(&six).expect("nothing to keep");
        older(&start(), &six);
    }

    #[test]
    fn the_policy_in_force_may_allow_it() {
        let rollback = Rollback::new(None, true);
        rollback.keep(&policy("serial = 8\nallow_serial = 6")).expect("in memory");
        older(&rollback, &policy("serial = 5"));
        let six = policy("serial = 6");
        rollback.permit(&six).expect("is allowed");
        rollback.keep(&six).expect("in memory");
        rollback.permit(&policy("serial = 7")).expect("is newer than six");
        older(&rollback, &policy("serial = 5"));
        // A policy does not allow itself.
        let own = policy("serial = 3\nallow_serial = 2");
        older(&rollback, &own);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(FILE.path(folder.path()), "{").expect("is written");
        let rollback = Rollback::new(Some(folder.path()), true);
        assert!(matches!(
            rollback.permit(&policy("")),
            Err(RollbackError::File(StateFileError::Damaged { .. }))
        ));
    }
}
