//! The capabilities that a task needs, and those of them that this process lacks.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use caps::{CapSet, Capability};
use thiserror::Error;

use crate::support::printable;

/// What the agent is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Load the program and run it on frames from a file. The kernel wants CAP_NET_ADMIN for loading any XDP program,
    /// attached or not, and nothing more for running it.
    Replay,
    /// Load the program and attach it to interfaces.
    Run,
    /// Load and attach the program in a new network namespace, with generated traffic.
    Demo,
}

impl Task {
    /// The capabilities that the kernel wants for the task, the most telling first.
    #[must_use]
    pub const fn needs(self) -> &'static [Capability] {
        match self {
            // Without CAP_PERFMON the verifier refuses arithmetic on packet pointers.
            Self::Replay | Self::Run => {
                &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON]
            }
            // CAP_SYS_ADMIN makes a network namespace, CAP_NET_RAW sends raw frames.
            Self::Demo => &[
                Capability::CAP_BPF,
                Capability::CAP_NET_ADMIN,
                Capability::CAP_PERFMON,
                Capability::CAP_SYS_ADMIN,
                Capability::CAP_NET_RAW,
            ],
        }
    }
}

/// Why a task cannot begin. The process ends with [`PrivilegeError::EXIT_CODE`].
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// Capabilities are missing.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The capabilities of this process are unknown.
    #[error("cannot read the capabilities of this process: {0}")]
    Unknown(String),
}

impl PrivilegeError {
    /// `EX_NOPERM` of sysexits.h.
    pub const EXIT_CODE: u8 = 77;
}

/// The capabilities that a task needs and this process lacks.
#[derive(Debug, Error)]
pub struct Missing {
    /// The missing ones.
    pub capabilities: Vec<Capability>,
    /// All that the task needs.
    needs: &'static [Capability],
    /// Whether the process is in a user namespace, whose capabilities the host's kernel does not accept here.
    user_namespace: bool,
    program: PathBuf,
}

impl Missing {
    /// The capabilities that are missing.
    #[must_use]
    pub fn evidence(&self) -> String {
        format!("missing capability {}", names(&self.capabilities))
    }

    /// How to get them.
    #[must_use]
    pub fn fix(&self) -> String {
        if self.user_namespace {
            let reason = "capabilities of a user namespace do not reach the host's kernel";
            return format!("leave the user namespace that this process is in: {reason}");
        }
        let grant = names(self.needs).to_lowercase().replace(", ", ",");
        let program = printable::shell_word(&self.program.display().to_string());
        // The kernel takes capabilities from a file whose owner changes: setcap comes last.
        format!(
            "run as root, or grant them to the group minimizer and to nobody else with 'chown root:minimizer {program} && \
             chmod 0750 {program} && setcap {grant}+ep {program}'"
        )
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.evidence(), self.fix())
    }
}

fn names(capabilities: &[Capability]) -> String {
    let names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Checks that this process may do `task`.
///
/// # Errors
/// [`PrivilegeError::Missing`] names the missing capabilities and how to grant them.
pub fn check(task: Task) -> Result<(), PrivilegeError> {
    let unknown = |error: &dyn fmt::Display| PrivilegeError::Unknown(error.to_string());
    let held = caps::read(None, CapSet::Effective).map_err(|error| unknown(&error))?;
    let user_namespace = in_user_namespace().map_err(|error| unknown(&error))?;
    let is_held = |capability: &Capability| {
        // Linux 5.8 split these two off CAP_SYS_ADMIN, which still implies them.
        let split = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON);
        let implied = split && held.contains(&Capability::CAP_SYS_ADMIN);
        !user_namespace && (held.contains(capability) || implied)
    };
    let needs = task.needs();
    let capabilities: Vec<_> = needs.iter().copied().filter(|capability| !is_held(capability)).collect();
    if capabilities.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/path/to/minimizer"));
    Err(Missing { capabilities, needs, user_namespace, program }.into())
}

/// Whether this process is in a user namespace other than the host's. The host's maps every user to itself.
pub(crate) fn in_user_namespace() -> io::Result<bool> {
    let map = match fs::read_to_string("/proc/self/uid_map") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        map => map?,
    };
    let numbers: Vec<&str> = map.split_whitespace().collect();
    Ok(numbers != ["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::{Missing, Task};
    use caps::Capability;

    #[test]
    fn one_line_names_what_is_missing_and_grants_what_is_needed() {
        let missing = Missing {
            capabilities: vec![Capability::CAP_BPF, Capability::CAP_PERFMON],
            needs: Task::Run.needs(),
            user_namespace: false,
            program: "/usr/bin/minimizer".into(),
        };
        assert_eq!(
            missing.to_string(),
            "missing capability CAP_BPF, CAP_PERFMON: run as root, or grant them to the group minimizer and to nobody else \
             with 'chown root:minimizer /usr/bin/minimizer && chmod 0750 /usr/bin/minimizer && setcap \
             cap_bpf,cap_net_admin,cap_perfmon+ep /usr/bin/minimizer'"
        );
    }

    #[test]
    fn granting_does_not_help_in_a_user_namespace() {
        let missing = Missing {
            capabilities: Task::Run.needs().to_vec(),
            needs: Task::Run.needs(),
            user_namespace: true,
            program: "/usr/bin/minimizer".into(),
        };
        let line = missing.to_string();
        assert!(line.contains("user namespace"), "{line}");
        assert!(!line.contains("setcap"), "{line}");
    }
}
