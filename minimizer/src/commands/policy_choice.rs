//! The choice of a policy: where it is read from, who must have signed it, and whose view is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use minimizer_common::tunnel::Tunnel;
use thiserror::Error;

use crate::commands::cli::{DEFAULT_POLICY, PolicyOption};
use crate::commands::config::{Config, ConfigError};
use crate::policy::compile::{CompiledPolicy, PlanError};
use crate::policy::model::Policy;
use crate::policy::signature::VerifierKey;
use crate::policy::signature::host::{self, HostKeyError};
use crate::policy::signature::required::{self, KeyTextError};
use crate::policy::signed::{self, SignedPolicyError};
use crate::records::keys::{KeyError, Keys};
use crate::records::terms::{Keyring, NoRecipient};

/// Why the chosen policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyChoiceError {
    /// The policy is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// agent.toml, which names it, cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy has no such recipient.
    #[error(transparent)]
    Recipient(#[from] NoRecipient),
    /// `--require-signature` is not a key.
    #[error("--require-signature: {0}")]
    KeyText(#[from] KeyTextError),
    /// Nobody knows which key this host requires, or another one is asked for.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The required signature is missing, or what is signed cannot be loaded.
    #[error(transparent)]
    Signed(#[from] SignedPolicyError),
}

/// The choice. The files that it names are read at the start and again at every reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChoice {
    source: String,
    /// agent.toml, unless the command line names the policy: a reload asks it for the policy's name.
    config: Option<PathBuf>,
    tunnels: Vec<Tunnel>,
    recipient: Option<String>,
    keys: Option<PathBuf>,
    signed_by: Option<VerifierKey>,
}

impl PolicyChoice {
    /// Takes the command line, then agent.toml, then the defaults.
    ///
    /// # Errors
    /// When the key of the required signature cannot be read, or the host requires another one.
    pub fn new(option: &PolicyOption, config: Option<(&Path, &Config)>) -> Result<Self, PolicyChoiceError> {
        let file = config.map(|(_, config)| config);
        let signed_by = match &option.require_signature {
            Some(text) => Some(required::key(text, Path::new(""))?),
            None => file.and_then(|file| file.require_signature.clone()),
        };
        let signed_by = host::required(signed_by)?;
        let named = option.policy.clone().or_else(|| file.and_then(|file| file.policy.clone()));
        Ok(Self {
            source: named.unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
            config: config.filter(|_| option.policy.is_none()).map(|(path, _)| path.to_owned()),
            tunnels: option.tunnels.clone(),
            recipient: option.recipient.clone(),
            keys: option.keys.clone().or_else(|| file.and_then(|file| file.keys.clone())),
            signed_by,
        })
    }

    /// The recipient whose view is shown; `None` means the policy's first.
    #[must_use]
    pub fn recipient(&self) -> Option<&str> {
        self.recipient.as_deref()
    }

    /// Whether the policy must be signed.
    #[must_use]
    pub const fn must_be_signed(&self) -> bool {
        self.signed_by.is_some()
    }

    /// The master secret.
    ///
    /// # Errors
    /// When the file of the keys cannot be used.
    pub fn keyring(&self) -> Result<Keyring, KeyError> {
        Ok(Keyring::new(Keys::load(self.keys.as_deref())?))
    }

    /// Reads the policy, checks its signature if one is required, and compiles it.
    ///
    /// # Errors
    /// See [`PolicyChoiceError`].
    pub fn compile(&self) -> Result<Arc<CompiledPolicy>, PolicyChoiceError> {
        let policy = match &self.signed_by {
            Some(key) => signed::load(&self.source, &self.tunnels, key)?,
            None => Policy::load(&self.source, &self.tunnels).map_err(PlanError::from)?,
        };
        let compiled = Arc::new(CompiledPolicy::compile(policy).map_err(PlanError::from)?);
        if let Some(recipient) = &self.recipient {
            compiled.policy.recipient(recipient)?;
        }
        Ok(compiled)
    }

    /// Compiles the policy again for a reload. agent.toml may name another policy by now; its other settings
    /// need a restart.
    ///
    /// # Errors
    /// See [`PolicyChoiceError`].
    pub fn reload(&self) -> Result<Arc<CompiledPolicy>, PolicyChoiceError> {
        let Some(path) = &self.config else { return self.compile() };
        let named = Config::load(path)?.policy;
        let source = named.unwrap_or_else(|| DEFAULT_POLICY.to_owned());
        Self { source, ..self.clone() }.compile()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{PolicyChoice, PolicyChoiceError};
    use crate::commands::cli::PolicyOption;
    use crate::commands::config::Config;
    use crate::policy::signature::generate;
    use crate::policy::signed::SignedPolicyError;

    fn config(folder: &Path, text: &str) -> (PathBuf, Config) {
        let path = folder.join("agent.toml");
        fs::write(&path, text).expect("is written");
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        (path, config)
    }

    #[test]
    fn the_command_line_wins_then_agent_toml_then_the_default() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, file) = config(folder.path(), "policy = \"full-record\"\nkeys = \"secret\"\n");
        let said = PolicyOption { policy: Some("carrier-default".to_owned()), ..PolicyOption::default() };
        let name = |option: &PolicyOption, config| {
            let choice = PolicyChoice::new(option, config).expect("can be chosen");
            choice.compile().expect("is built in").policy.name.clone()
        };
        assert_eq!(name(&said, Some((&path, &file))), "carrier-default");
        assert_eq!(name(&PolicyOption::default(), Some((&path, &file))), "full-record");
        assert_eq!(name(&PolicyOption::default(), None), "carrier-default");
        let choice = PolicyChoice::new(&said, Some((&path, &file))).expect("can be chosen");
        assert_eq!(choice.keys, Some(folder.path().join("secret")));
    }

    #[test]
    fn what_agent_toml_names_is_asked_again_unless_the_command_line_named_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, file) = config(folder.path(), "policy = \"full-record\"\n");
        let said = PolicyOption { policy: Some("full-record".to_owned()), ..PolicyOption::default() };
        let [fixed, asked] = [said, PolicyOption::default()]
            .map(|option| PolicyChoice::new(&option, Some((&path, &file))).expect("can be chosen"));
        config(folder.path(), "policy = \"carrier-default\"\ninterval = \"1s\"\n");
        let name = |choice: &PolicyChoice| choice.reload().expect("is built in").policy.name.clone();
        assert_eq!([name(&fixed), name(&asked)], ["full-record", "carrier-default"]);
        fs::write(&path, "policy = 1").expect("is written");
        assert!(matches!(asked.reload(), Err(PolicyChoiceError::Config(_))));
    }

    #[test]
    fn a_signature_that_agent_toml_requires_is_required() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, public) = generate("officer").expect("a key");
        fs::write(folder.path().join("officer.pub"), public).expect("is written");
        let (path, file) = config(folder.path(), "require_signature = \"officer.pub\"\n");
        let choice =
            PolicyChoice::new(&PolicyOption::default(), Some((&path, &file))).expect("can be chosen");
        assert!(matches!(choice.compile(), Err(PolicyChoiceError::Signed(SignedPolicyError::NotSigned(_)))));
    }

    #[test]
    fn a_recipient_that_the_policy_lacks_is_refused() {
        let option = PolicyOption { recipient: Some("nobody".to_owned()), ..PolicyOption::default() };
        let said =
            PolicyChoice::new(&option, None).expect("can be chosen").compile().expect_err("has no such");
        assert!(said.to_string().contains("has no recipient nobody; it has: operations"), "{said}");
    }
}
