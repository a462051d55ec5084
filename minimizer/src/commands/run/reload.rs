//! A reload in the running agent: SIGHUP has it read its policy again; if that fails, the current policy stays.

use thiserror::Error;
use tracing::{error, info};

use super::fit::{Agreed, UnfitPolicy};
use super::load;
use super::rollback::{Rollback, RollbackError};
use crate::agent::Reloader;
use crate::agent::error::AgentError;
use crate::commands::policy_choice::{PolicyChoice, PolicyChoiceError};
use crate::kernel::error::ProgramError;
use crate::kernel::table_size::{self, Room};
use crate::serve::snapshot::{PolicyInForce, Published};
use crate::support::panics;
use crate::support::sys::LargeBlocksApart;

/// Why a reload failed; the policy in force stays.
#[derive(Debug, Error)]
enum ReloadError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyChoiceError),
    /// The policy does not fit the agent.
    #[error(transparent)]
    Unfit(#[from] UnfitPolicy),
    /// The policy is older than the one in force.
    #[error(transparent)]
    Rollback(#[from] RollbackError),
    /// The policy's program does not load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel does not exchange the programs.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// What a reload needs.
pub struct Reload {
    /// Which policy was chosen at the start.
    pub choice: PolicyChoice,
    /// Size of the tables.
    pub room: Room,
    /// Hands the new program to the drain thread.
    pub reloader: Reloader,
    /// Where the result is published.
    pub published: Published,
    /// What the policy must fit.
    pub agreed: Agreed,
    /// Which policy was in force last.
    pub rollback: Rollback,
}

impl Reload {
    /// Reads the policy again and puts it into force, or says why the current one stays.
    pub fn reload(&self) {
        // A defect in one policy's compilation must not cost the reloads after it; the panic is in the log.
        let answer = panics::answered(|| match self.try_to_reload() {
            Ok((policy, program_tag)) => {
                self.published.reloaded(&policy, &program_tag);
                info!("policy {} (sha256 {}) is in force", policy.name, policy.digest);
            }
            Err(error) => {
                let error = error.to_string();
                self.published.reload_failed(&error);
                error!("the policy in force stays: {error}");
            }
        });
        if answer.is_none() {
            self.published.reload_failed("a defect: see the log, and please report it");
        }
    }

    fn try_to_reload(&self) -> Result<(PolicyInForce, String), ReloadError> {
        panics::planted("reload");
        let _apart = LargeBlocksApart::begin();
        let compiled = self.choice.reload()?;
        self.agreed.check(&compiled.policy)?;
        self.rollback.permit(&compiled.policy)?;
        table_size::check_reload(self.room.per_cpu(), compiled.memory).map_err(ProgramError::from)?;
        let mut program = load(&self.room, &compiled)?;
        let program_tag = program.tag()?;
        let policy = PolicyInForce::of(&compiled.policy);
        // Before the exchange: a number that cannot be kept would let an older policy back in after a restart.
        self.rollback.keep(&compiled.policy)?;
        program.drop_tables();
        drop(compiled);
        self.reloader.reload(program)?;
        Ok((policy, program_tag))
    }
}
