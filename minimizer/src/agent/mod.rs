//! The agent: how it is started, stopped and reloaded.

pub mod error;
mod events;
pub mod progress;
pub mod time_mark;
mod worker;

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::agent::error::AgentError;
use crate::agent::events::{Events, Waker};
use crate::agent::progress::Progress;
use crate::agent::time_mark::TimeMark;
use crate::agent::worker::{Reload, Worker};
use crate::delivery::accounting::Accounting;
use crate::interfaces::netlink::LinkNotifications;
use crate::interfaces::selection::Selection;
use crate::interfaces::slots::InterfaceSlots;
use crate::kernel::attach::Mode;
use crate::kernel::program::Program;
use crate::records::terms::Keyring;

/// What to attach to, and how.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The interfaces to watch, and what becomes of their frames.
    pub selection: Selection,
    /// Whether interfaces through which this host is reached may be taps.
    pub force_tap: bool,
    /// How the program is attached.
    pub mode: Mode,
    /// Time between drains.
    pub interval: Duration,
}

/// The running agent. It ends as [`Stopper::stop`] says, also when it is dropped.
pub struct Agent {
    bell: Arc<Waker>,
    reloads: mpsc::Sender<Reload>,
    drain: Option<JoinHandle<Result<(), AgentError>>>,
}

/// Asks the agent to stop, from anywhere.
#[derive(Clone)]
pub struct Stopper(Arc<Waker>);

/// Asks the agent to reload, from anywhere.
#[derive(Clone)]
pub struct Reloader {
    bell: Arc<Waker>,
    reloads: mpsc::Sender<Reload>,
}

impl Agent {
    /// Attaches the program to the interfaces and starts to drain, into the queues of the accounting. `observe` is called after
    /// every drain and whenever interfaces have changed, on the drain's thread: it must not wait for anything.
    ///
    /// # Errors
    /// See [`AgentError`]; then nothing is left attached.
    pub fn start(
        program: Program,
        keyring: Keyring,
        options: AgentOptions,
        accounting: Accounting,
        mark: TimeMark,
        observe: impl FnMut(&Progress<'_>) + Send + 'static,
    ) -> Result<Self, AgentError> {
        // Before the interfaces are listed: what changes meanwhile is notified.
        let notifications = LinkNotifications::subscribe()?;
        let (events, bell) = Events::new(notifications).map_err(AgentError::Wait)?;
        let bell = Arc::new(bell);
        let watch = InterfaceSlots::new(options.selection, options.mode, options.force_tap)?;
        // Gone with the worker, and with it whatever still waits there.
        let (reloads, waiting) = mpsc::channel();
        let worker = Worker::start(
            program,
            keyring,
            watch,
            options.interval,
            events,
            accounting,
            mark,
            waiting,
            observe,
        )?;
        let drain = thread::Builder::new()
            .name("drain".to_owned())
            .spawn(move || worker.work())
            .map_err(AgentError::Thread)?;
        Ok(Self { bell, reloads, drain: Some(drain) })
    }

    /// A handle that stops the agent.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.bell))
    }

    /// A handle that reloads the agent.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { bell: Arc::clone(&self.bell), reloads: self.reloads.clone() }
    }

    /// Waits for the drain to end: because it was stopped, or because of an error.
    ///
    /// # Errors
    /// What ended the drain before it was asked to.
    pub fn wait(mut self) -> Result<(), AgentError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), AgentError> {
        self.drain.take().map_or(Ok(()), |drain| drain.join().unwrap_or(Err(AgentError::Panicked)))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.bell.stop();
        // An error that nobody waited for has nobody to go to.
        let _unheard = self.join();
    }
}

impl Stopper {
    /// Asks the agent to detach, drain once more and end. Batches still wait in the queues.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Reloader {
    /// Puts `program` into force on every interface, and waits until that is done. What the previous program counted
    /// is drained under its own policy.
    ///
    /// # Errors
    /// Why the current program stays.
    pub fn reload(&self, program: Program) -> Result<(), AgentError> {
        let (asker, done) = mpsc::channel();
        let ending = |_| AgentError::Ending;
        self.reloads.send(Reload { program, asker }).map_err(ending)?;
        self.bell.reload().map_err(|_| AgentError::Ending)?;
        done.recv().unwrap_or(Err(AgentError::Ending))
    }
}
