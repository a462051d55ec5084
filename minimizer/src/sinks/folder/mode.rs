//! Makes folders and files with the modes that docs/FILES.md promises, whatever the umask of the agent is.
//!
//! The umask only takes bits away, so that nothing is open to more users than promised between making and `chmod`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::error::FileError;

/// Owner: all; group: list and enter.
const FOLDER_MODE: u32 = 0o750;
/// Owner: read and write; group: read.
const FILE_MODE: u32 = 0o640;

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

/// Makes a new file for reading and writing; fails when the name is taken.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

/// Opens a file for reading and appending, and makes it when it is missing.
pub(super) fn append_to_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    match options.clone().create_new(true).mode(FILE_MODE).open(path) {
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}
