//! `reload`: makes a running agent reload its policy, and prints the result.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use crate::serve::status::{self, PolicyReport, StatusError};

/// Longest wait for the result: a policy with a hundred thousand prefixes takes some seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two looks at the agent's status.
const PACE_NS: i64 = 50_000_000;

/// Why the reload failed, or why its result is unknown.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// No agent answers.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The agent runs on another host, or in another PID namespace.
    #[error(
        "the agent at {address} says that it is process {process}, which is no minimizer here: it runs on another host \
         or in a container; run this there, or send SIGHUP to it"
    )]
    Elsewhere {
        /// Where it serves.
        address: SocketAddr,
        /// The process number that it reports.
        process: u32,
    },
    /// The agent belongs to another user.
    #[error(
        "process {process}, the agent, does not take a signal from this user: {source}; run this as root or as the user of \
         the agent"
    )]
    NotPermitted {
        /// The agent's number.
        process: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The signal cannot be sent.
    #[error("cannot send SIGHUP to process {process}, the agent: {source}")]
    Signal {
        /// The agent's number.
        process: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The agent ended.
    #[error(
        "process {process}, the agent, ended, or another took its place, before it said what came of the reload"
    )]
    Ended {
        /// The agent's number.
        process: u32,
    },
    /// The agent does not report a result.
    #[error(
        "process {process}, the agent, has not said for {} s what came of the reload; 'minimizer status' shows it when it is done",
        LIMIT.as_secs()
    )]
    TimedOut {
        /// The agent's number.
        process: u32,
    },
    /// The agent refused to reload.
    #[error("the policy in force stays: {in_force}; the reload failed: {reason}")]
    Refused {
        /// The policy that stays, as a text.
        in_force: String,
        /// Why.
        reason: String,
    },
}

/// Makes the agent that serves on `address` reload its policy; returns the policy that is in force then.
///
/// # Errors
/// See [`ReloadError`].
pub fn reload(address: SocketAddr) -> Result<PolicyReport, ReloadError> {
    let before = status::ask(address)?;
    let process = before.process;
    let agent = signal_reload(address, process)?;
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        if has_ended(&agent) {
            return Err(ReloadError::Ended { process });
        }
        // It still runs, but may be too busy to answer.
        let Ok(now) = status::ask(address) else { continue };
        if (now.process, now.started_milliseconds) != (process, before.started_milliseconds) {
            return Err(ReloadError::Ended { process });
        }
        let policy = now.policy;
        if policy.reload_failures != before.policy.reload_failures {
            let reason = policy.reload_error.clone().unwrap_or_default();
            return Err(ReloadError::Refused { in_force: policy.line(), reason });
        }
        if policy.reloads != before.policy.reloads {
            return Ok(policy);
        }
    }
    Err(ReloadError::TimedOut { process })
}

/// Sends SIGHUP to the agent, after a check that the process is a minimizer: most others would end.
fn signal_reload(address: SocketAddr, process: u32) -> Result<OwnedFd, ReloadError> {
    let elsewhere = ReloadError::Elsewhere { address, process };
    let Some(number) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return Err(elsewhere) };
    // A pidfd, because the number may be reused between check and signal.
    let sent = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(agent) if name(&process.to_string()) == name("self") => {
            pidfd_send_signal(&agent, Signal::HUP).map(|()| agent)
        }
        Ok(_) | Err(Errno::SRCH) => return Err(elsewhere),
        Err(error) => Err(error),
    };
    sent.map_err(|error| match error {
        Errno::PERM => ReloadError::NotPermitted { process, source: error.into() },
        error => ReloadError::Signal { process, source: error.into() },
    })
}

/// Waits until the next look is due; returns whether the process has ended.
fn has_ended(agent: &OwnedFd) -> bool {
    let pace = Timespec { tv_sec: 0, tv_nsec: PACE_NS };
    // An interrupted wait only comes early.
    poll(&mut [PollFd::new(agent, PollFlags::IN)], Some(&pace)).is_ok_and(|ended| ended > 0)
}

/// The name of a process's program; `None` if there is no such process, or it is hidden.
fn name(process: &str) -> Option<String> {
    fs::read_to_string(PathBuf::from("/proc").join(process).join("comm")).ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::process::{Command, Stdio};

    use super::{ReloadError, signal_reload};

    #[test]
    fn a_process_that_is_no_minimizer_gets_no_signal() {
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, 1).into();
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat is there");
        for process in [other.id(), 0, u32::MAX] {
            let refused = signal_reload(address, process);
            assert!(matches!(refused, Err(ReloadError::Elsewhere { .. })), "{refused:?}");
        }
        drop(other.stdin.take());
        assert!(other.wait().expect("it ends").success(), "it was ended by a signal");
    }
}
