//! Puts the policy in force as its file says now, at every SIGHUP; when that fails the one before stays.

use std::sync::Arc;

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::sinks::{self, UnknownRecipient};
use super::{RunError, load, permit};
use crate::agent::Replacer;
use crate::agent::error::AgentError;
use crate::commands::policy_choice::{PolicyChoice, PolicyChoiceError};
use crate::delivery::accounting::Accounting;
use crate::kernel::error::ProgramError;
use crate::policy::compile::CompiledPolicy;
use crate::policy::mandate::MandateError;
use crate::serve::snapshot::Published;

/// Why the policy before stays in force.
#[derive(Debug, Error)]
enum ReloadError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyChoiceError),
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
pub struct ReloadSignal(Signal);

impl ReloadSignal {
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
    /// The policy that was choice at the start.
    pub choice: PolicyChoice,
    /// Size of the tables.
    pub flows_per_cpu: u32,
    /// The agent's side.
    pub replacer: Replacer,
    /// Where it is seen what came of it.
    pub published: Published,
    /// The sinks, whose recipients the policy must have.
    pub accounting: Accounting,
}

impl Reload {
    fn reload(&self) {
        match self.replace() {
            Ok((compiled, program_tag)) => {
                let policy = &compiled.policy;
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

    fn replace(&self) -> Result<(Arc<CompiledPolicy>, String), ReloadError> {
        let compiled = self.choice.enforce_again()?;
        permit(&compiled)?;
        sinks::check(&self.accounting, &compiled.policy)?;
        let program = load(self.flows_per_cpu, &compiled)?;
        let program_tag = program.tag()?;
        self.replacer.replace(program)?;
        Ok((compiled, program_tag))
    }
}
