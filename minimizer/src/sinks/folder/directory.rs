//! A directory that is opened once and used by its descriptor, so that no link and no renamed folder leads the agent elsewhere.
//!
//! Only regular files are opened: a link is not followed, and opening never waits for the other end of a FIFO.

use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, flock, fstat, linkat,
    mkdirat, openat, renameat_with, stat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::support::file_mode::{FILE_MODE, FOLDER_MODE};

/// Flags with which every file is opened.
const CAREFUL: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Opens a directory that somebody named, through links.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let descriptor = openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    /// Opens a directory in this one, and makes it when it is missing.
    pub(super) fn make(&self, name: &str) -> io::Result<Self> {
        let is_new = match mkdirat(&self.descriptor, name, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let descriptor = openat(&self.descriptor, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        if is_new {
            // The umask may have taken bits away.
            rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(FOLDER_MODE))?;
        }
        Ok(Self { descriptor, path: self.path.join(name) })
    }

    /// A path for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path under which it was opened.
    pub(super) fn own_path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to it.
    pub(super) fn is_at_its_path(&self) -> bool {
        let (Ok(there), Ok(here)) = (stat(&self.path), fstat(&self.descriptor)) else { return false };
        is_same(&there, &here)
    }

    /// Makes a new file for reading and writing; fails when the name is taken.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CAREFUL;
        let file = File::from(openat(&self.descriptor, name, flags, Mode::from_raw_mode(FILE_MODE))?);
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        Ok(file)
    }

    /// Opens a regular file for reading and writing.
    pub(super) fn edit(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR)
    }

    /// Opens a regular file for reading.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// Opens a regular file for reading and appending, and makes it when it is missing.
    pub(super) fn append(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND;
        let new = flags | OFlags::CREATE | OFlags::EXCL | CAREFUL;
        match openat(&self.descriptor, name, new, Mode::from_raw_mode(FILE_MODE)) {
            Ok(descriptor) => {
                let file = File::from(descriptor);
                file.set_permissions(Permissions::from_mode(FILE_MODE))?;
                Ok(file)
            }
            Err(Errno::EXIST) => self.open_regular(name, flags),
            Err(error) => Err(error.into()),
        }
    }

    fn open_regular(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let descriptor = openat(&self.descriptor, name, flags | CAREFUL, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&descriptor)?.st_mode) != FileType::RegularFile {
            return Err(irregular());
        }
        Ok(File::from(descriptor))
    }

    /// What has that name, without following a link; `None` when nothing has it.
    pub(super) fn look(&self, name: &str) -> io::Result<Option<Stat>> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether that name leads to this open file.
    pub(super) fn leads_to(&self, name: &str, file: &File) -> io::Result<bool> {
        let here = fstat(file)?;
        Ok(self.look(name)?.is_some_and(|there| is_same(&there, &here)))
    }

    /// Names of everything in it. A name that is not UTF-8 is none of the agent's.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    /// Removes a file or a link.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Gives a file a name in that directory, unless the name is taken.
    pub(super) fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        match renameat_with(&self.descriptor, name, &to.descriptor, new, RenameFlags::NOREPLACE) {
            // Some network file systems cannot rename without replacing, but a hard link never replaces anything either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(&self.descriptor, name, &to.descriptor, new, AtFlags::empty())?;
                self.remove(name)
            }
            result => Ok(result?),
        }
    }

    /// Waits until the disk has the names in it.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }
}

/// Whether a file could be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// It is locked until it is closed.
    Taken,
    /// Somebody else has locked it.
    Used,
    /// The file system cannot lock.
    Unknown,
}

/// Tries to lock an open file. A file in the making is locked by the agent that writes it.
pub(super) fn lock(file: &File) -> Lock {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Taken,
        Err(Errno::WOULDBLOCK) => Lock::Used,
        Err(_) => Lock::Unknown,
    }
}

/// The content of a file of at most so many octets.
pub(super) fn read(file: &File, octets_max: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > octets_max {
        let message = format!("it has {length} octets, and at most {octets_max} are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut text = Vec::new();
    file.take(octets_max).read_to_end(&mut text)?;
    Ok(text)
}

/// Something that is not a file has the name of one.
pub(super) fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::unix::fs::symlink;

    use super::{Directory, read};

    #[test]
    fn nothing_but_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        fs::write(outside.path().join("file"), "outside").unwrap();
        symlink(outside.path().join("file"), folder.path().join("link")).unwrap();
        symlink("nothing", folder.path().join("dangling")).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        symlink(outside.path(), folder.path().join("elsewhere")).unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        for name in ["link", "dangling", "folder", "fifo"] {
            assert!(directory.append(name).is_err(), "{name}");
            assert!(directory.open_file(name).is_err(), "{name}");
            assert!(directory.edit(name).is_err(), "{name}");
            assert!(directory.create(name).is_err(), "{name}");
        }
        assert!(directory.make("elsewhere").is_err());
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
        assert!(!folder.path().join("nothing").exists());
        fs::write(folder.path().join("long"), [0; 101]).unwrap();
        let long = directory.open_file("long").unwrap();
        assert_eq!(read(&long, 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&long, 101).unwrap().len(), 101);
    }

    #[test]
    fn a_directory_that_was_moved_is_not_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("here");
        fs::create_dir(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        assert!(directory.is_at_its_path());
        fs::rename(&path, folder.path().join("there")).unwrap();
        assert!(!directory.is_at_its_path());
        fs::create_dir(&path).unwrap();
        assert!(!directory.is_at_its_path());
        // It goes on leading to where it was moved.
        directory.create("file").unwrap();
        assert!(folder.path().join("there/file").exists());
    }
}
