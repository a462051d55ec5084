//! The signature of a policy: a signed note beside the policy's file. It names the policy and the digest of
//! its text.
//!
//! The note of `policy.toml` is `policy.toml.sig`. Its text has three lines: `minimizer policy v1`, the
//! policy's name, and `sha256` with the digest.

pub mod host;
pub mod note;
pub mod required;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::support::plain_file;
use crate::support::secret_file::{self, Placed, SecretFileError};
pub use note::{Note, NoteError, SigningKey, VerifierKey};

/// First line of the note's text.
const TITLE: &str = "minimizer policy v1";

/// Why a policy does not have the required signature, or cannot be signed.
#[derive(Debug, Error)]
pub enum SignatureError {
    /// The policy has no note.
    #[error(
        "{}: there is no signature of the policy {}; whoever holds a key makes one with `minimizer policy sign`",
        signature.display(), policy.display()
    )]
    Missing {
        /// The policy.
        policy: PathBuf,
        /// The path that its note would have.
        signature: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The note is malformed, the key did not sign it, or it was changed after the signature.
    #[error("{}: {source}", path.display())]
    Note {
        /// The note, or the key.
        path: PathBuf,
        /// The fault.
        source: NoteError,
    },
    /// The note is about something else.
    #[error("{}: signed, but its text is not that of a policy's signature: `{TITLE}`, a name, `sha256` and a digest", path.display())]
    NotOfAPolicy {
        /// The note.
        path: PathBuf,
    },
    /// The note is about another policy.
    #[error("{}: signs the policy {signed:?}, and this one is {actual:?}", path.display())]
    Name {
        /// The note.
        path: PathBuf,
        /// Name in the note.
        signed: String,
        /// Name in the policy.
        actual: String,
    },
    /// The note is about another text.
    #[error(
        "{}: signs the text with the SHA-256 {signed}, and that of the policy is {actual}: the policy was changed after \
         it was signed; sign it again if the change is meant",
        path.display()
    )]
    Digest {
        /// The note.
        path: PathBuf,
        /// Digest in the note.
        signed: String,
        /// Digest of the policy.
        actual: String,
    },
    /// The private key cannot be read.
    #[error(transparent)]
    Key(#[from] SecretFileError),
}

/// The path of a policy's note.
#[must_use]
pub fn path_of(policy: &Path) -> PathBuf {
    let mut path = OsString::from(policy);
    path.push(".sig");
    path.into()
}

/// Generates a pair of keys, in their text form.
///
/// # Errors
/// If a key cannot have this name, or the system gives no random numbers.
pub fn generate(name: &str) -> Result<(Zeroizing<String>, String), NoteError> {
    let key = SigningKey::generate(name)?;
    Ok((key.text(), key.verifier().to_string()))
}

/// Signs a policy with the key in a file and returns the path of the note. It adds a signature to the note
/// beside the policy. If that note does not exist or is about another text, it writes a new one.
///
/// # Errors
/// If the key cannot be read, if other users can read it, or if the note cannot be written.
pub fn sign(policy: &Path, name: &str, digest: &str, key_file: &Path) -> Result<PathBuf, SignatureError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SignatureError::Note { path, source }
    };
    let contents = secret_file::read(key_file, Placed::ByOperator)?;
    let key = SigningKey::parse(str::from_utf8(&contents).unwrap_or_default()).map_err(at(key_file))?;
    let path = path_of(policy);
    let mut note = Note::new(text(name, digest)).map_err(at(policy))?;
    // A malformed note, or one about another text, cannot take another signature.
    let known = plain_file::read(&path).ok().and_then(|contents| Note::parse(&contents).ok());
    if let Some(known) = known.filter(|known| known.text() == note.text()) {
        note = known;
    }
    note.sign(&key);
    // A reader sees the old note or the new one, never a part.
    let mut unfinished = OsString::from(&path);
    unfinished.push(".new");
    let io = |source| SignatureError::Io { path: path.clone(), source };
    fs::write(&unfinished, note.to_string()).map_err(io)?;
    fs::rename(&unfinished, &path).map_err(io)?;
    Ok(path)
}

/// What a key has signed: a text, which must be that of the policy with a name.
#[derive(Debug)]
#[must_use = "the name must be that of the policy"]
pub struct Signed {
    note: PathBuf,
    name: String,
}

impl Signed {
    /// Checks that this is the name of the policy in the text.
    ///
    /// # Errors
    /// If the note is about a policy of another name.
    pub fn is_of(self, name: &str) -> Result<(), SignatureError> {
        if self.name == name {
            return Ok(());
        }
        Err(SignatureError::Name { path: self.note, signed: self.name, actual: name.to_owned() })
    }
}

/// Checks that the key signed the text with this digest in the policy's file. Nobody has to read the text for that, which
/// is anybody's before it is known to be signed.
///
/// # Errors
/// If the policy has no note, if the key did not sign the note, or if the note is about another text.
pub fn verify(policy: &Path, digest: &str, key: &VerifierKey) -> Result<Signed, SignatureError> {
    let path = path_of(policy);
    let contents = match plain_file::read(&path) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SignatureError::Missing { policy: policy.to_owned(), signature: path });
        }
        Err(source) => return Err(SignatureError::Io { path, source }),
    };
    let checked = Note::parse(&contents).and_then(|note| note.verify(key).map(|()| note));
    let note = match checked {
        Ok(note) => note,
        Err(source) => return Err(SignatureError::Note { path, source }),
    };
    let Some((signed_name, signed_digest)) = parse(note.text()) else {
        return Err(SignatureError::NotOfAPolicy { path });
    };
    if signed_digest != digest {
        return Err(SignatureError::Digest {
            path,
            signed: signed_digest.to_owned(),
            actual: digest.to_owned(),
        });
    }
    let name = signed_name.to_owned();
    Ok(Signed { note: path, name })
}

fn text(name: &str, digest: &str) -> String {
    format!("{TITLE}\n{name}\nsha256 {digest}\n")
}

/// Name and digest in the text of a note.
fn parse(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix(TITLE)?.strip_prefix('\n')?;
    let (name, rest) = rest.split_once('\n')?;
    let digest = rest.strip_prefix("sha256 ")?.strip_suffix('\n')?;
    (!digest.contains('\n')).then_some((name, digest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use super::{NoteError, SignatureError, VerifierKey, generate, path_of, sign};

    fn verify(policy: &Path, name: &str, digest: &str, key: &VerifierKey) -> Result<(), SignatureError> {
        super::verify(policy, digest, key)?.is_of(name)
    }

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn key(directory: &Path, name: &str) -> (PathBuf, VerifierKey) {
        let (private, public) = generate(name).unwrap();
        let path = directory.join(name);
        fs::write(&path, format!("{}\n", *private)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (path, VerifierKey::parse(&public).unwrap())
    }

    #[test]
    fn what_is_signed_is_verified_by_each_who_signed() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.toml");
        let [(one, one_public), (other, other_public)] =
            ["one", "other"].map(|name| key(directory.path(), name));
        assert_eq!(sign(&policy, "p", DIGEST, &one).unwrap(), path_of(&policy));
        verify(&policy, "p", DIGEST, &one_public).unwrap();
        let error = verify(&policy, "p", DIGEST, &other_public).unwrap_err();
        assert!(matches!(error, SignatureError::Note { source: NoteError::NotSigned { .. }, .. }), "{error}");
        sign(&policy, "p", DIGEST, &other).unwrap();
        verify(&policy, "p", DIGEST, &one_public).unwrap();
        verify(&policy, "p", DIGEST, &other_public).unwrap();
        let changed = DIGEST.replace('9', "8");
        sign(&policy, "p", &changed, &other).unwrap();
        verify(&policy, "p", &changed, &other_public).unwrap();
        assert!(verify(&policy, "p", &changed, &one_public).is_err(), "signed the earlier text");
        let note = fs::read_to_string(directory.path().join("policy.toml.sig")).unwrap();
        assert!(note.starts_with(&format!("minimizer policy v1\np\nsha256 {changed}\n\n— other ")), "{note}");
    }

    #[test]
    fn what_was_changed_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.toml");
        let (private, public) = key(directory.path(), "one");
        let error = |name: &str, digest: &str| verify(&policy, name, digest, &public).unwrap_err();
        assert!(matches!(error("p", DIGEST), SignatureError::Missing { .. }));
        sign(&policy, "p", DIGEST, &private).unwrap();
        let changed = DIGEST.replace('9', "8");
        let text = error("p", &changed).to_string();
        assert!(text.contains(DIGEST) && text.contains(&changed), "{text}");
        assert!(matches!(error("q", DIGEST), SignatureError::Name { .. }));
        let note = fs::read_to_string(path_of(&policy)).unwrap();
        fs::write(path_of(&policy), note.replace(DIGEST, &changed)).unwrap();
        for digest in [DIGEST, &changed] {
            let error = error("p", digest);
            assert!(
                matches!(error, SignatureError::Note { source: NoteError::DoesNotMatch { .. }, .. }),
                "{error}"
            );
        }
        fs::write(path_of(&policy), "nothing\n").unwrap();
        let error = error("p", DIGEST);
        assert!(matches!(error, SignatureError::Note { source: NoteError::Malformed { .. }, .. }), "{error}");
    }

    #[test]
    fn a_private_key_that_others_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (private, _) = key(directory.path(), "one");
        fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).unwrap();
        let policy = directory.path().join("policy.toml");
        assert!(matches!(sign(&policy, "p", DIGEST, &private), Err(SignatureError::Key(_))));
        assert!(!path_of(&policy).exists());
    }

    #[test]
    fn a_name_of_two_lines_is_not_signed_as_two() {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("policy.toml");
        let (private, public) = key(directory.path(), "one");
        let name = format!("p\nsha256 {DIGEST}");
        sign(&policy, &name, DIGEST, &private).unwrap();
        assert!(matches!(verify(&policy, "p", DIGEST, &public), Err(SignatureError::NotOfAPolicy { .. })));
    }
}
