//! Why the agent does not start, or why it stopped.

use std::time::Duration;

use thiserror::Error;

use crate::interfaces::netlink::NetlinkError;
use crate::interfaces::slots::AttachError;
use crate::kernel::error::ProgramError;
use crate::policy::mandate::{ClockError, MandateError};
use crate::records::keys::KeyError;
use crate::support::refusal::{Asked, told};

/// Why the agent does not start, or why it stopped.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The program cannot be loaded, attached or drained.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel does not list the interfaces.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The program cannot be attached to an interface that was named.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The drain thread cannot be started.
    #[error("cannot start the drain thread: {}", told(Asked::Thread, .0))]
    Thread(std::io::Error),
    /// The drain thread cannot wait.
    #[error("cannot wait for stop, interfaces and time: {}", told(Asked::Thread, .0))]
    Wait(std::io::Error),
    /// The mandate has ended.
    #[error(transparent)]
    Mandate(#[from] MandateError),
    /// Nobody knows whether the mandate of a new policy permits collection now.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// There is no key for pseudonyms.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The agent is ending and does not reload.
    #[error("the agent is ending")]
    Ending,
    /// The drain thread panicked.
    #[error("the drain thread panicked: this is a defect, please report it with the log")]
    Panicked,
    /// The last drain does not end.
    #[error("the last drain did not end within {} s; what is in the tables of the kernel is in no record", .0.as_secs())]
    Hangs(Duration),
}
