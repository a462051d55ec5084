//! Puts the policy in force as its file says now, at every SIGHUP; when that fails the one before stays.

use std::sync::Arc;

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::sinks::{self, UnknownRecipient};
use super::{RunError, load, permit};
use crate::agent::Replacer;
use crate::agent::error::AgentError;
use crate::commands::policy_choice::{Chosen, ChosenError};
use crate::delivery::books::Books;
use crate::kernel::error::ProgramError;
use crate::policy::compile::Enforced;
use crate::policy::mandate::MandateError;
use crate::serve::snapshot::Published;

/// Why the policy before stays in force.
#[derive(Debug, Error)]
enum ReloadError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] ChosenError),
    /// A sink is for somebody whom it does not know.
    #[error(transparent)]
    Sink(#[from] UnknownRecipient),
    /// Its mandate does not permit collection now.
    #[error(transparent)]
    Mandate(#[from] MandateError),
    /// Its program does not load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel does not put its program in the place of the other.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// SIGHUP, from now on caught and remembered.
pub struct Hangups(Signal);

impl Hangups {
    /// Catches the signal, which ends a process that does not.
    ///
    /// # Errors
    /// When the kernel or the runtime refuses.
    pub fn catch(runtime: &Runtime) -> Result<Self, RunError> {
        let _context = runtime.enter();
        signal(SignalKind::hangup()).map(Self).map_err(RunError::Signals)
    }

    /// Reloads at every signal. One that comes meanwhile waits: reloads come one after the other.
    pub fn follow(mut self, runtime: &Runtime, reload: Reload) {
        let reload = Arc::new(reload);
        runtime.spawn(async move {
            while self.0.recv().await.is_some() {
                let reload = Arc::clone(&reload);
                let _panicked = tokio::task::spawn_blocking(move || reload.reload()).await;
            }
        });
    }
}

/// What a reload takes.
pub struct Reload {
    /// The policy that was chosen at the start.
    pub chosen: Chosen,
    /// Size of the tables.
    pub flows_per_cpu: u32,
    /// The agent's side.
    pub replacer: Replacer,
    /// Where it is seen what came of it.
    pub published: Published,
    /// The sinks, whose recipients the policy must have.
    pub books: Books,
}

impl Reload {
    fn reload(&self) {
        match self.replace() {
            Ok((enforced, program_tag)) => {
                let policy = &enforced.policy;
                self.published.reloaded(policy, &program_tag);
                eprintln!("minimizer: policy {} (sha256 {}) is in force", policy.name, policy.digest);
            }
            Err(error) => {
                let error = error.to_string();
                self.published.reload_failed(&error);
                eprintln!("minimizer: the policy in force stays: {error}");
            }
        }
    }

    fn replace(&self) -> Result<(Arc<Enforced>, String), ReloadError> {
        let enforced = self.chosen.enforce_again()?;
        permit(&enforced)?;
        sinks::check(&self.books, &enforced.policy)?;
        let program = load(self.flows_per_cpu, &enforced)?;
        let program_tag = program.tag()?;
        self.replacer.replace(program)?;
        Ok((enforced, program_tag))
    }
}
