//! Reads a file with a secret, and refuses it when others could have read or written it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// More than any secret of Minimizer takes.
const OCTETS_MAX: u64 = 4096;
/// Permission bits that a secret must not have: reading and writing by the group and by others.
const GROUP_OR_OTHERS: u32 = 0o066;
/// The same for a systemd credential, whose access list shows as reading by the group.
const GROUP_WRITES_OR_OTHERS: u32 = 0o026;

/// Why a secret was not read.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// The system refuses.
    #[error("{}: cannot read the secret: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{}: not a regular file, so that nothing is known about who else reads it; copy the secret to a file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Other users may read or write it.
    #[error(
        "{path}: mode {mode:04o} lets users other than its owner read or write the secret; run `chmod 600 {path}`, \
         and make a new secret if one of them is not trusted",
        path = path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error(
        "{path}: belongs to user {owner}, who could read and replace the secret; it must belong to root or to user \
         {user}, who runs this: run `chown {user} {path}`",
        path = path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// It is too long for a secret.
    #[error("{}: longer than {OCTETS_MAX} octets: this is no secret of Minimizer", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// Who placed the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The operator.
    ByOperator,
    /// systemd, as a credential of a service, in a directory that only the service can enter.
    BySystemd,
}

/// Reads the file. The check looks at the opened file, so that nobody can replace it between check and reading; links are
/// followed.
///
/// # Errors
/// When it cannot be read, is no regular file, is too long, or when others may read or write it.
pub fn read(path: &Path, placed: Placed) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let io = |source| SecretFileError::Io { path: path.to_owned(), source };
    // Without this flag opening a pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io)?;
    check(path, &file, placed)?;
    // All room from the start: a vector that grows leaves copies of the secret in freed memory.
    let room = usize::try_from(OCTETS_MAX + 1).unwrap_or(usize::MAX);
    let mut contents = Zeroizing::new(Vec::with_capacity(room));
    let octets = file.take(OCTETS_MAX + 1).read_to_end(&mut contents).map_err(io)?;
    if octets == room {
        return Err(SecretFileError::TooLong { path: path.to_owned() });
    }
    Ok(contents)
}

fn check(path: &Path, file: &File, placed: Placed) -> Result<(), SecretFileError> {
    let path = path.to_owned();
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(SecretFileError::Io { path, source }),
    };
    if !metadata.is_file() {
        return Err(SecretFileError::NotRegular { path });
    }
    let mode = metadata.mode() & 0o7777;
    let refused = match placed {
        Placed::ByOperator => GROUP_OR_OTHERS,
        Placed::BySystemd => GROUP_WRITES_OR_OTHERS,
    };
    if mode & refused != 0 {
        return Err(SecretFileError::Permissions { path, mode });
    }
    let user = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    if owner != 0 && owner != user {
        return Err(SecretFileError::Owner { path, owner, user });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::{Placed, SecretFileError, read};

    fn refused(error: &SecretFileError, cause: &str, fix: &str) {
        let text = error.to_string();
        assert!(text.contains(cause) && text.contains(fix), "{text}");
    }

    #[test]
    fn a_file_of_the_owner_alone_is_read_also_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("key"), directory.path().join("link"));
        fs::write(&path, "secret").unwrap();
        symlink(&path, &link).unwrap();
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, Placed::ByOperator).unwrap().as_slice(), b"secret");
            assert_eq!(read(&link, Placed::ByOperator).unwrap().as_slice(), b"secret");
        }
    }

    #[test]
    fn a_file_that_others_read_or_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "secret").unwrap();
        for mode in [0o640, 0o620, 0o604, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, Placed::ByOperator).unwrap_err();
            refused(&error, &format!("{mode:04o}"), "chmod 600");
            assert_eq!(read(&path, Placed::BySystemd).is_ok(), mode == 0o640, "{mode:04o}");
        }
    }

    #[test]
    fn what_is_no_file_or_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = read(directory.path(), Placed::ByOperator).unwrap_err();
        refused(&error, "not a regular file", "copy");
        let path = directory.path().join("key");
        assert!(matches!(read(&path, Placed::ByOperator), Err(SecretFileError::Io { .. })));
        fs::write(&path, [7; 4097]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        refused(&read(&path, Placed::ByOperator).unwrap_err(), "longer than 4096", "no secret");
    }
}
