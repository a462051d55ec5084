//! Pins: the digests of the files that a policy names, written into its text. Everything else of the text stays as it is.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::builtin::PolicyError;
use super::file::{InputFile, PolicyFile};
use crate::policy::model::Policy;
use crate::support::digest::sha256;
use crate::support::plain_file;
use crate::support::text;
use crate::support::toml::{At, Document};

/// Why the files of a policy cannot be pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// The policy cannot be used, with or without the digests.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A file that it names cannot be read.
    #[error("cannot read {}: {source}; paths are relative to the policy's folder", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The policy cannot be written.
    #[error("cannot write {}: {source}; the policy is as it was", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A file whose digest is in the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Its name in the policy.
    pub name: String,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
    /// Whether the policy had another digest or none before.
    pub is_new: bool,
}

/// Writes the digests of all files that the policy names into it, and returns them in the order of the text.
///
/// # Errors
/// See [`PinError`]. The policy stays as it was.
pub fn pin(path: &Path) -> Result<Vec<Pinned>, PinError> {
    let source = path.display().to_string();
    let octets = plain_file::read(path)
        .map_err(|source| PolicyError::Read { path: path.display().to_string(), source })?;
    let text =
        text::decoded(octets).map_err(|error| PolicyError::Text { path: source.clone(), source: error })?;
    let (pinned, new) = with_pins(&text, &source, path.parent().unwrap_or(Path::new("")))?;
    // What is written is a policy that can be used.
    Policy::parse(&new, path)?;
    if new != text {
        write(path, &new).map_err(|source| PinError::Write { path: path.to_owned(), source })?;
    }
    Ok(pinned)
}

/// The text with the digests, and these.
fn with_pins(text: &str, source: &str, folder: &Path) -> Result<(Vec<Pinned>, String), PinError> {
    let file: PolicyFile = Document::new(source.to_owned(), text).read().map_err(PolicyError::Refused)?;
    let scope = file.scope.iter().flat_map(|scope| {
        let scope = scope.get();
        [&scope.domestic_files, &scope.foreign_files, &scope.never_files].into_iter().flatten()
    });
    let mut inputs: Vec<&At<InputFile>> =
        scope.chain(file.selectors.iter().flat_map(|selectors| &selectors.get().files)).collect();
    inputs.sort_by_key(|input| input.span().start);
    // Positions are those behind the byte order mark.
    let content = text::without_mark(text);
    let mut new = text[..text.len() - content.len()].to_owned();
    let mut copied = 0;
    let mut pinned = Vec::with_capacity(inputs.len());
    for input in inputs {
        let path = folder.join(input.get().path());
        let octets = plain_file::read(&path).map_err(|source| PinError::Input { path, source })?;
        let digest = sha256(&octets);
        let span = input.span();
        let written = &content[span.clone()];
        new += &content[copied..span.start];
        new += &match input.get().sha256() {
            None => format!("{{ path = {written}, sha256 = \"{digest}\" }}"),
            Some(old) => written.replacen(old, &digest, 1),
        };
        copied = span.end;
        let is_new = input.get().sha256() != Some(&*digest);
        pinned.push(Pinned { name: input.get().path().to_owned(), digest, is_new });
    }
    new += &content[copied..];
    Ok((pinned, new))
}

/// Replaces the file as a whole, with the permissions that it had.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = OsString::from(path);
    unfinished.push(".new");
    fs::write(&unfinished, text)?;
    fs::set_permissions(&unfinished, fs::metadata(path)?.permissions())?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::{PinError, pin};
    use crate::policy::model::Policy;
    use crate::support::digest::sha256;

    const POLICY: &str = "\u{feff}name = \"p\" # stays\n[scope]\ndomestic_files = [\"home\", { path = 'home2', sha256 = \"OLD\" }]\n\
                          directions = [\"foreign-domestic\"]\n[selectors]\nfiles = [\n  'look', # for these\n]\n[[recipients]]\n\
                          name = \"r\"\npurpose = \"x\"\nfields = { vlanId = \"exact\" }\n";

    #[test]
    fn every_file_has_its_digest_and_the_rest_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.toml");
        let old = "0".repeat(64);
        let text = POLICY.replace("OLD", &old);
        fs::write(&path, &text).expect("is written");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("is changed");
        let files =
            [("home", "192.0.2.0/24\n"), ("home2", "198.51.100.0/24\n"), ("look", "1 - 203.0.113.7\n")];
        for (name, content) in files {
            fs::write(folder.path().join(name), content).expect("is written");
        }
        let pinned = pin(&path).expect("is pinned");
        let names: Vec<_> =
            pinned.iter().map(|pinned| (&*pinned.name, &*pinned.digest, pinned.is_new)).collect();
        let [home, home2, look] = files.map(|(_, content)| sha256(content.as_bytes()));
        assert_eq!(names, [("home", &*home, true), ("home2", &*home2, true), ("look", &*look, true)]);
        let wanted = text
            .replace("\"home\"", &format!("{{ path = \"home\", sha256 = \"{home}\" }}"))
            .replace(&old, &home2)
            .replace("'look'", &format!("{{ path = 'look', sha256 = \"{look}\" }}"));
        assert_eq!(fs::read_to_string(&path).expect("is there"), wanted);
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o640);
        let policy = Policy::load(&path.display().to_string(), &[]).expect("can be used");
        assert!(policy.commitments.unpinned.is_empty());
        assert!(pin(&path).expect("is pinned").iter().all(|pinned| !pinned.is_new));
        assert_eq!(fs::read_to_string(&path).expect("is there"), wanted);
    }

    #[test]
    fn what_cannot_be_read_or_used_stays_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.toml");
        let text = POLICY.replace("OLD", &"0".repeat(64));
        fs::write(&path, &text).expect("is written");
        let error = pin(&path).expect_err("has no files");
        assert!(matches!(&error, PinError::Input { path, .. } if path.ends_with("home")), "{error}");
        for name in ["home", "home2", "look"] {
            fs::write(folder.path().join(name), "nonsense\n").expect("is written");
        }
        let error = pin(&path).expect_err("is no policy").to_string();
        assert!(error.contains("`nonsense` is no prefix"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("is there"), text);
    }
}
