//! The key that must have signed a policy before the agent applies it.

use std::io;
use std::path::{Path, PathBuf};

use minimizer_common::tunnel::Tunnel;
use thiserror::Error;

use super::{NoteError, SignatureError, VerifierKey};
use crate::policy::builtin::BUILT_IN;
use crate::policy::model::Policy;
use crate::support::plain_file;

/// Why a text does not give a key.
#[derive(Debug, Error)]
pub enum KeyTextError {
    /// It is neither a key nor the path of a file.
    #[error(
        "`{text}` is neither a verifier key, which is written NAME+HASH+BASE64, nor a file with one: {source}"
    )]
    Neither {
        /// The text.
        text: String,
        /// Why it cannot be read as a file.
        source: io::Error,
    },
    /// The file has no key.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: NoteError,
    },
}

/// Why the agent does not apply a policy when it requires a signature.
#[derive(Debug, Error)]
pub enum NotSigned {
    /// A built-in policy has no file that a note could be beside.
    #[error(
        "the policy {0} is built in and nobody signed it, but a signature is required; write it to a file, sign that \
         with `minimizer policy sign`, and name the file"
    )]
    BuiltIn(String),
    /// The agent would collect more than the signed policy says.
    #[error(
        "--tunnel {0} would widen a policy that must be signed; list it in the policy's `tunnels`, and sign that"
    )]
    Tunnel(&'static str),
    /// The signature does not cover what a file says.
    #[error(
        "the policy {policy} names {name} without its `sha256`, so that the signature does not cover what is in it; \
         `minimizer policy pin` writes the digests, then sign the policy again"
    )]
    Unpinned {
        /// Name of the policy.
        policy: String,
        /// The file.
        name: String,
    },
    /// The policy's note is absent or does not match.
    #[error("a signature is required: {0}")]
    Signature(#[from] SignatureError),
}

/// The verifier key in this text, or in the file of this name relative to `folder`.
///
/// # Errors
/// If the text is neither.
pub fn key(text: &str, folder: &Path) -> Result<VerifierKey, KeyTextError> {
    if let Ok(key) = VerifierKey::parse(text) {
        return Ok(key);
    }
    let path = folder.join(text);
    let contents = plain_file::read_text(&path)
        .map_err(|source| KeyTextError::Neither { text: text.to_owned(), source })?;
    VerifierKey::parse(&contents).map_err(|source| KeyTextError::File { path, source })
}

/// Checks that a note can cover the policy from `source`, to which the command line adds these tunnels.
///
/// # Errors
/// See [`NotSigned`].
pub fn permit(source: &str, tunnels: &[Tunnel]) -> Result<(), NotSigned> {
    if BUILT_IN.iter().any(|built_in| built_in.name == source) {
        return Err(NotSigned::BuiltIn(source.to_owned()));
    }
    if let Some(tunnel) = tunnels.first() {
        return Err(NotSigned::Tunnel(tunnel.name()));
    }
    Ok(())
}

/// Checks that the signature of the policy covers everything that it says.
///
/// # Errors
/// [`NotSigned::Unpinned`] if the policy names a file without its digest.
pub fn covers(policy: &Policy) -> Result<(), NotSigned> {
    match policy.commitments.unpinned.first() {
        None => Ok(()),
        Some(name) => Err(NotSigned::Unpinned { policy: policy.name.clone(), name: name.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use minimizer_common::tunnel::Tunnel;

    use super::{key, permit};
    use crate::policy::signature::generate;

    #[test]
    fn a_key_is_given_as_it_is_or_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, public) = generate("officer").expect("a key");
        fs::write(folder.path().join("officer.pub"), format!("{public}\n")).expect("is written");
        let given = key(&public, Path::new("")).expect("a key");
        assert_eq!(key("officer.pub", folder.path()).expect("a file"), given);
        fs::write(folder.path().join("other"), "nothing").expect("is written");
        let said = key("other", folder.path()).expect_err("no key").to_string();
        assert!(said.contains("other: not a verifier key"), "{said}");
        let said = key("absent", folder.path()).expect_err("no file").to_string();
        assert!(
            said.starts_with("`absent` is neither a verifier key") && said.contains("No such file"),
            "{said}"
        );
    }

    #[test]
    fn what_no_note_can_cover_is_refused() {
        let said = permit("carrier-default", &[]).expect_err("not signed").to_string();
        assert!(said.contains("carrier-default is built in"), "{said}");
        let said = permit("p.toml", &[Tunnel::Vxlan]).expect_err("is wider").to_string();
        assert!(said.contains("--tunnel vxlan would widen"), "{said}");
    }
}
