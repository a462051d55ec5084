//! `policy keygen`, `sign` and `verify`: for those who sign off policies.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::info;

use crate::policy::builtin::PolicyError;
use crate::policy::model::Policy;
use crate::policy::pins::{self, PinError, Pinned};
use crate::policy::signature::required::{self, KeyTextError};
use crate::policy::signature::{self, NoteError, SignatureError};
use crate::policy::signed::{self, SignedPolicyError};
use crate::support::plain_file;

/// Why a policy is not signed, or not verified.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The key pair cannot be created.
    #[error(transparent)]
    Generate(#[from] NoteError),
    /// The private key cannot be written.
    #[error("cannot write the private key to {}: {source}; nothing was overwritten, name another file with '--out'", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// `--key` is not a verifier key.
    #[error("--key: {0}")]
    KeyText(#[from] KeyTextError),
    /// The policy cannot be signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The signature is missing or wrong.
    #[error(transparent)]
    Signed(#[from] SignedPolicyError),
    /// The policy's files cannot be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The output cannot be written.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
}

/// Creates a key pair: writes the private key to a new file that only its owner can read, and prints the
/// verifier key.
///
/// # Errors
/// When the name is not allowed for a key, or the file exists.
pub fn keygen(name: &str, file: Option<&Path>, out: &mut impl Write) -> Result<(), SigningError> {
    let (private, public) = signature::generate(name)?;
    // A name may contain slashes, like an address.
    let path = file.map_or_else(|| PathBuf::from(format!("{}.key", name.replace('/', "-"))), Path::to_owned);
    let keep = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(private.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    keep().map_err(|source| SigningError::Keep { path: path.clone(), source })?;
    info!("the private key is in {}; whoever reads it can sign as {name}", path.display());
    writeln!(out, "{public}")?;
    Ok(())
}

/// Checks and signs a policy, and prints where the note is.
///
/// # Errors
/// When the policy is refused or names a file without its digest, or the key cannot be read.
pub fn sign(path: &Path, key: &Path, out: &mut impl Write) -> Result<(), SigningError> {
    let policy = read(path)?;
    required::covers(&policy).map_err(SignedPolicyError::from)?;
    if policy.commitments.serial.is_none() {
        info!(
            "{} has no `serial`: an agent cannot tell it from an older version, which somebody may put back",
            policy.name
        );
    }
    let note = signature::sign(path, &policy.name, &policy.digest, key)?;
    writeln!(out, "signed: {}, SHA-256 {}, in {}", policy.name, policy.digest, note.display())?;
    Ok(())
}

/// Writes the digests of the files that a policy names into it, and prints them.
///
/// # Errors
/// When the policy or one of its files cannot be read, or the policy cannot be written.
pub fn pin(path: &Path, out: &mut impl Write) -> Result<(), SigningError> {
    for Pinned { name, digest, is_new } in pins::pin(path)? {
        let done = if is_new { "pinned" } else { "as it was" };
        writeln!(out, "{done}: {name}, SHA-256 {digest}")?;
    }
    Ok(())
}

/// Prints ok if the holder of the key signed exactly this policy.
///
/// # Errors
/// When there is no such signature.
pub fn verify(path: &Path, key: &str, out: &mut impl Write) -> Result<(), SigningError> {
    let key = required::key(key, Path::new(""))?;
    let source = path.display().to_string();
    let policy = signed::load(&source, &[], &key)?;
    writeln!(out, "ok: {}, SHA-256 {}, signed by {}", policy.name, policy.digest, key.name())?;
    Ok(())
}

/// Reads a policy from a file; a built-in policy is none.
fn read(path: &Path) -> Result<Policy, PolicyError> {
    let read = |source| PolicyError::Read { path: path.display().to_string(), source };
    let octets = plain_file::read(path).map_err(read)?;
    Policy::decode(octets, &path.display().to_string())
}
