//! The modes of files and folders that the agent makes, whatever its umask is: nobody but its user and its group reads them.
//!
//! The umask only takes bits away, so that nothing is open to more users than promised between making and `chmod`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Owner: all; group: list and enter.
pub const FOLDER_MODE: u32 = 0o750;
/// Owner: read and write; group: read.
pub const FILE_MODE: u32 = 0o640;

/// Makes a file, or empties the one that is there, and gives it [`FILE_MODE`]. A device or a FIFO keeps its mode. A symbolic
/// link is not followed, and nobody waits for who reads a FIFO.
///
/// # Errors
/// When the file cannot be made or opened.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    let file = options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Replaces a file as a whole by one with these octets, written under another name in the same folder first. After a power
/// cut there is the old file or the new one.
///
/// # Errors
/// When it cannot be written or named.
pub fn replace(path: &Path, temporary: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = create(temporary)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    use super::create;

    #[test]
    fn others_read_neither_a_new_file_nor_one_that_they_could_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for before in [None, Some(0o666)] {
            if let Some(mode) = before {
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            drop(create(&path).unwrap());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        }
        let null = Path::new("/dev/null");
        let before = fs::metadata(null).unwrap().mode();
        drop(create(null).unwrap());
        assert_eq!(fs::metadata(null).unwrap().mode(), before);
    }
}
