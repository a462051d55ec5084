//! Makes the folder of a sink, and those above it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use super::error::FileError;
use crate::support::file_mode::FOLDER_MODE;

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
