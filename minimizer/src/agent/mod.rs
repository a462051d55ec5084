//! The agent: what starts, stops and reloads it.

pub mod error;
mod events;
pub mod progress;
mod table_growth;
pub mod time_mark;
mod worker;

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::agent::error::AgentError;
use crate::agent::events::{Events, Waker};
use crate::agent::progress::Progress;
use crate::agent::time_mark::TimeMark;
use crate::agent::worker::{Reload, Requests, Worker};
use crate::delivery::accounting::Accounting;
use crate::interfaces::netlink::LinkNotifications;
use crate::interfaces::selection::Selection;
use crate::interfaces::slots::InterfaceSlots;
use crate::kernel::attach::Mode;
use crate::kernel::program::Program;
use crate::records::terms::Keyring;

/// What the program is attached to, and how.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The interfaces to slots, and what becomes of their frames.
    pub selection: Selection,
    /// Whether interfaces through which this host is reached may be taps.
    pub force_tap: bool,
    /// How the program is attached.
    pub mode: Mode,
    /// Time between drains.
    pub interval: Duration,
}

/// The running agent. Dropping it stops it as [`Stopper::stop`] does.
pub struct Agent {
    waker: Arc<Waker>,
    reloads: mpsc::Sender<Reload>,
    drain: Option<JoinHandle<Result<(), AgentError>>>,
}

/// Stops the agent, from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<Waker>);

/// Reloads the agent, from any thread.
#[derive(Clone)]
pub struct Reloader {
    waker: Arc<Waker>,
    reloads: mpsc::Sender<Reload>,
}

impl Agent {
    /// Attaches the program to the interfaces and starts to drain it into the queues of the accounting. The drain thread calls
    /// `observe` after every drain and whenever interfaces have changed; it must not block.
    ///
    /// # Errors
    /// See [`AgentError`]. Nothing is left attached then.
    pub fn start(
        program: Program,
        keyring: Keyring,
        options: AgentOptions,
        accounting: Accounting,
        mark: TimeMark,
        observe: impl FnMut(&Progress<'_>) + Send + 'static,
    ) -> Result<Self, AgentError> {
        // Subscribe before the interfaces are listed, so that no change is missed.
        let notifications = LinkNotifications::subscribe()?;
        let (events, waker) = Events::new(notifications).map_err(AgentError::Wait)?;
        let waker = Arc::new(waker);
        let slots = InterfaceSlots::new(options.selection, options.mode, options.force_tap)?;
        // The receiver ends with the worker. Reloads that still wait are dropped with it, and who asked is told.
        let (reloads, asked) = mpsc::channel();
        let requests = Requests { events, reloads: asked };
        let worker = Worker::start(program, keyring, slots, requests, accounting.clone(), mark, observe)?;
        let drain = thread::Builder::new()
            .name("drain".to_owned())
            .spawn(move || {
                let worked = panic::catch_unwind(AssertUnwindSafe(|| worker.work(options.interval)));
                let result = worked.unwrap_or(Err(AgentError::Panicked));
                end(&accounting, &result);
                result
            })
            .map_err(AgentError::Thread)?;
        Ok(Self { waker, reloads, drain: Some(drain) })
    }

    /// A handle that stops the agent.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.waker))
    }

    /// A handle that reloads the agent.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader { waker: Arc::clone(&self.waker), reloads: self.reloads.clone() }
    }

    /// Waits until the drain has ended, because it was stopped or because of an error.
    ///
    /// # Errors
    /// The error that ended it.
    pub fn wait(mut self) -> Result<(), AgentError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), AgentError> {
        self.drain.take().map_or(Ok(()), |drain| drain.join().unwrap_or(Err(AgentError::Panicked)))
    }
}

/// The drain has ended: says in the ledger if something is missing, and closes the queues.
fn end(accounting: &Accounting, result: &Result<(), AgentError>) {
    match result {
        // The last drain comes after the end of a mandate, as after a stop.
        Ok(()) | Err(AgentError::Mandate(_)) => {}
        Err(error) => accounting.lock().lacks(&error.to_string()),
    }
    accounting.queues().iter().for_each(|queue| queue.close());
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.waker.stop();
        // Nobody called `wait`, so nobody wants the error.
        let _unheard = self.join();
    }
}

impl Stopper {
    /// Asks the agent to detach, drain once more and end. It does not wait until queues are empty.
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
        self.waker.reload().map_err(|_| AgentError::Ending)?;
        done.recv().unwrap_or(Err(AgentError::Ending))
    }
}
