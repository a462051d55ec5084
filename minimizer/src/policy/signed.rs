//! A policy that must be signed: its signature is checked before anything reads it as a policy.

use std::path::Path;

use minimizer_common::tunnel::Tunnel;
use thiserror::Error;

use super::builtin::{self, PolicyError};
use crate::policy::model::Policy;
use crate::policy::signature::required::{self, NotSigned};
use crate::policy::signature::{self, VerifierKey};
use crate::support::digest::sha256;

/// Why a policy that must be signed cannot be loaded.
#[derive(Debug, Error)]
pub enum SignedPolicyError {
    /// The signature is missing or is that of another policy.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
    /// The policy cannot be loaded.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Loads the policy in that file, to which the command line adds these tunnels. The key must have signed its octets.
///
/// # Errors
/// [`SignedPolicyError::NotSigned`] if the key did not sign the file, or if the policy names a file without its digest, and
/// the errors of [`Policy::load`].
pub fn load(source: &str, tunnels: &[Tunnel], key: &VerifierKey) -> Result<Policy, SignedPolicyError> {
    required::permit(source, tunnels)?;
    // The octets that are checked are those that are read.
    let octets = builtin::read(source)?;
    let signed = signature::verify(Path::new(source), &sha256(&octets), key).map_err(NotSigned::from)?;
    let policy = Policy::decode(octets, source)?;
    signed.is_of(&policy.name).map_err(NotSigned::from)?;
    required::covers(&policy)?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::{SignedPolicyError, load, sha256};
    use crate::policy::signature::required::{NotSigned, key};
    use crate::policy::signature::{generate, sign};

    /// A note that somebody made with other tools covers no more than one that `sign` makes.
    #[test]
    fn a_signed_policy_whose_files_have_no_digest_is_refused() {
        let (private, public) = generate("officer").expect("a key");
        let key = key(&public, Path::new("")).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        let [path, secret, list] = ["p.toml", "officer.key", "list"].map(|name| folder.path().join(name));
        fs::write(&secret, &*private).expect("is written");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("is changed");
        fs::write(list, "203.0.113.0/24\n").expect("is written");
        let text = "name = \"p\"\n[scope]\ndomestic_files = [\"list\"]\ndirections = [\"foreign-domestic\"]\n[[recipients]]\n\
                    name = \"r\"\npurpose = \"x\"\nfields = { vlanId = \"exact\" }\n";
        fs::write(&path, text).expect("is written");
        sign(&path, "p", &sha256(text.as_bytes()), &secret).expect("is signed");
        let error = load(&path.display().to_string(), &[], &key).expect_err("has no digest");
        assert!(matches!(error, SignedPolicyError::NotSigned(NotSigned::Unpinned { .. })), "{error}");
    }

    #[test]
    fn what_is_not_signed_is_not_read_as_a_policy() {
        let (_, public) = generate("officer").expect("a key");
        let key = key(&public, Path::new("")).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.toml");
        for octets in [&b"name = "[..], b"\xff\xfe", &[b'['; 100_000], b"name = \"p\"\n"] {
            fs::write(&path, octets).expect("is written");
            let error = load(&path.display().to_string(), &[], &key).expect_err("no note");
            assert!(matches!(error, SignedPolicyError::NotSigned(_)), "{error}");
            assert!(error.to_string().contains("p.toml.sig: there is no signature"), "{error}");
        }
    }
}
