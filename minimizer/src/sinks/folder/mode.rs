//! The modes that docs/FILES.md promises for folders and files, whatever the umask of the agent is.
//!
//! The umask only takes bits away, so that nothing is open to more users than promised between making and `chmod`.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::error::FileError;

/// Owner: all; group: list and enter.
pub(super) const FOLDER_MODE: u32 = 0o750;
/// Owner: read and write; group: read.
pub(super) const FILE_MODE: u32 = 0o640;

/// Makes a folder and the missing ones above it. Folders that exist keep their modes: they belong to the operator.
pub(super) fn make_folder(path: &Path) -> Result<(), FileError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    let make = || match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)),
        // Another sink was faster, or a file has the name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    make().map_err(FileError::io("make the directory", path))
}
