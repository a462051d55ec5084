//! The key that this build or this host requires: whoever edits agent.toml or the command line cannot take it away.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{NoteError, VerifierKey};
use crate::support::plain_file;

/// The file with the verifier key that every policy on this host must have the signature of.
pub const FILE: &str = "/etc/minimizer/require-signature";
/// The verifier key that was compiled in, if any.
const COMPILED_IN: Option<&str> = option_env!("MINIMIZER_REQUIRE_SIGNATURE");
/// Whose the file must be.
const ROOT: u32 = 0;
/// Bits of a mode with which group or others write.
const OTHERS_WRITE: u32 = 0o022;

/// Why nobody knows which key the host requires.
#[derive(Debug, Error)]
pub enum HostKeyError {
    /// The file cannot be read.
    #[error("cannot read {}, which says whose signature this host requires: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Others than root could change it.
    #[error(
        "{}: says whose signature this host requires, and others than root can change it: make it and its folder root's, and \
         writable by root alone (chown root, chmod go-w)", path.display()
    )]
    Writable {
        /// The file, or its folder.
        path: PathBuf,
    },
    /// It has no key.
    #[error("{place}: says whose signature is required: {source}")]
    NoKey {
        /// Where it should be.
        place: String,
        /// What is wrong with it.
        source: NoteError,
    },
    /// Somebody asks for another key.
    #[error("{place} requires the signature of {host}, and here that of {asked} is required: remove that")]
    Another {
        /// Where the host's key is from.
        place: String,
        /// Name of the host's key.
        host: String,
        /// Name of the key that is asked for.
        asked: String,
    },
}

/// The key whose signature is required: that of the build, else that of the host, else the one that is asked for.
///
/// # Errors
/// If the key of the build or of the host cannot be used, or another one is asked for.
pub fn required(asked: Option<VerifierKey>) -> Result<Option<VerifierKey>, HostKeyError> {
    decide(COMPILED_IN, Path::new(FILE), ROOT, asked)
}

fn decide(
    compiled_in: Option<&str>,
    file: &Path,
    owner: u32,
    asked: Option<VerifierKey>,
) -> Result<Option<VerifierKey>, HostKeyError> {
    let host = match compiled_in {
        Some(text) => Some((text.to_owned(), "this build".to_owned())),
        None => read(file, owner)?.map(|text| (text, file.display().to_string())),
    };
    let Some((text, place)) = host else { return Ok(asked) };
    let key = VerifierKey::parse(text.trim())
        .map_err(|source| HostKeyError::NoKey { place: place.clone(), source })?;
    match asked {
        Some(asked) if asked != key => {
            Err(HostKeyError::Another { place, host: key.name().to_owned(), asked: asked.name().to_owned() })
        }
        _ => Ok(Some(key)),
    }
}

/// The text of the file, if it is there. Only its owner may be able to change it or to put another in its place.
fn read(path: &Path, owner: u32) -> Result<Option<String>, HostKeyError> {
    let failed = |source| HostKeyError::Read { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(failed(source)),
        Ok(_) => {}
    }
    for place in [path, path.parent().unwrap_or(Path::new("/"))] {
        let found = fs::symlink_metadata(place).map_err(failed)?;
        if found.is_symlink() || found.uid() != owner || found.mode() & OTHERS_WRITE != 0 {
            return Err(HostKeyError::Writable { path: place.to_owned() });
        }
    }
    plain_file::read_text(path).map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::{HostKeyError, decide};
    use crate::policy::signature::{VerifierKey, generate};

    fn keys() -> [(String, VerifierKey); 2] {
        ["officer", "other"].map(|name| {
            let (_, public) = generate(name).expect("a key");
            let key = VerifierKey::parse(&public).expect("a key");
            (public, key)
        })
    }

    #[test]
    fn the_key_of_the_build_or_host_is_required_whatever_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("require-signature");
        let owner = fs::metadata(folder.path()).expect("is there").uid();
        let [(text, key), (other_text, other)] = keys();
        let asked = Some(other.clone());
        assert_eq!(decide(None, &file, owner, None).expect("nothing"), None);
        assert_eq!(decide(None, &file, owner, asked.clone()).expect("is asked for"), asked);
        fs::write(&file, format!("{text}\n")).expect("is written");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("is changed");
        for compiled_in in [None, Some(&*text)] {
            for same in [None, Some(key.clone())] {
                assert_eq!(decide(compiled_in, &file, owner, same).expect("is required"), Some(key.clone()));
            }
            let said = decide(compiled_in, &file, owner, asked.clone()).expect_err("another").to_string();
            assert!(said.contains("requires the signature of officer, and here that of other"), "{said}");
        }
        // The build wins: a file of root's is not needed for it.
        assert_eq!(decide(Some(&other_text), &file, owner, None).expect("is required"), asked);
        fs::write(&file, "nothing\n").expect("is written");
        assert!(matches!(decide(None, &file, owner, None), Err(HostKeyError::NoKey { .. })));
    }

    #[test]
    fn a_file_that_others_change_is_refused_rather_than_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("require-signature");
        let owner = fs::metadata(folder.path()).expect("is there").uid();
        let [(text, _), _] = keys();
        fs::write(&file, &text).expect("is written");
        let refused = |file: &Path, owner: u32| {
            let error = decide(None, file, owner, None).expect_err("is refused");
            assert!(matches!(error, HostKeyError::Writable { .. }), "{error}");
        };
        let mode = |path: &Path, mode: u32| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("is changed");
        };
        for writable in [0o664, 0o646] {
            mode(&file, writable);
            refused(&file, owner);
        }
        mode(&file, 0o644);
        refused(&file, owner + 1);
        for writable in [0o775, 0o777] {
            mode(folder.path(), writable);
            refused(&file, owner);
        }
        mode(folder.path(), 0o755);
        decide(None, &file, owner, None).expect("is right");
        let link = folder.path().join("link");
        symlink(&file, &link).expect("is made");
        refused(&link, owner);
    }
}
