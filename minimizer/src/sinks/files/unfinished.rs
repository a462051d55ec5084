//! A file on its way: written under a temporary name, and given its name when it is whole.
//!
//! What is yet to be written can be reserved on the disk, so that a full one stops the file at a place where it can still be
//! finished.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, renameat_with};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::manifest::Manifest;
use super::{Format, name};

/// Owner: read and write; group: read.
const MODE: u32 = 0o640;
/// After so many octets the disk is waited for: at the end of a large file it would take long.
const SYNC_OCTETS: u64 = 16 << 20;

/// A data file, and its manifest, that have no names yet.
pub(super) struct Unfinished {
    directory: PathBuf,
    /// The name that it is to get.
    name: String,
    /// What it is called now.
    path: PathBuf,
    manifest_path: PathBuf,
    file: File,
    manifest: File,
    octets: u64,
    digest: Sha256,
    /// Up to where the disk has room for it.
    reserved: u64,
    unsynced: u64,
    stage: Stage,
}

/// How far publishing has come; each step may have to be tried again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Written,
    Synced,
    DataNamed,
    ManifestNamed,
}

impl Unfinished {
    /// An empty file with the next free name. `sequence` is the number that the last file got.
    pub(super) fn create(
        directory: &Path,
        sink: &str,
        begin_ms: u64,
        sequence: &mut u64,
        format: Format,
    ) -> Result<Self, FileError> {
        loop {
            *sequence += 1;
            let name = name::data(sink, begin_ms, *sequence, format);
            let path = directory.join(name::unfinished(&name));
            let manifest_path = directory.join(name::unfinished(&name::manifest(&name)));
            if is_taken(directory, &name)? {
                continue;
            }
            let file = match create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(FileError::io("create", &path))?,
            };
            // Whoever starts later can tell that this file is no leftover. Where files cannot be locked it cannot.
            flock(&file, FlockOperation::NonBlockingLockExclusive).ok();
            let manifest = create(&manifest_path).map_err(|error| {
                fs::remove_file(&path).ok();
                FileError::io("create", &manifest_path)(error)
            })?;
            return Ok(Self {
                directory: directory.to_owned(),
                name,
                path,
                manifest_path,
                file,
                manifest,
                octets: 0,
                digest: Sha256::new(),
                reserved: 0,
                unsynced: 0,
                stage: Stage::Written,
            });
        }
    }

    /// Where it is now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Octets written so far.
    pub(super) const fn octets(&self) -> u64 {
        self.octets
    }

    /// Makes sure that the disk has room for so many octets more, where the file system can.
    pub(super) fn reserve(&mut self, octets: u64) -> Result<(), FileError> {
        let end = self.octets.saturating_add(octets);
        if end > self.reserved {
            reserve(&self.file, self.octets, octets)
                .map_err(FileError::io("reserve room for", &self.path))?;
            self.reserved = end;
        }
        Ok(())
    }

    /// The same for the manifest, from its begin on.
    pub(super) fn reserve_manifest(&self, octets: u64) -> Result<(), FileError> {
        reserve(&self.manifest, 0, octets).map_err(FileError::io("reserve room for", &self.manifest_path))
    }

    /// Appends all of these octets, or nothing: what was written of them in vain is cut off before the file gets its name.
    pub(super) fn append(&mut self, octets: &[u8]) -> Result<(), FileError> {
        self.file.write_all_at(octets, self.octets).map_err(FileError::io("write to", &self.path))?;
        self.digest.update(octets);
        let written = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        self.octets += written;
        self.unsynced += written;
        if self.unsynced >= SYNC_OCTETS {
            self.file.sync_data().map_err(FileError::lost("write to the disk", &self.path))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Finds out whether somebody has removed it meanwhile.
    pub(super) fn look(&self) -> Result<(), FileError> {
        let metadata = self.file.metadata().map_err(FileError::io("look at", &self.path))?;
        if metadata.nlink() == 0 {
            return Err(FileError::lost("find", &self.path)(Errno::NOENT));
        }
        Ok(())
    }

    /// Gives file and manifest their names, in this order, once the disk has both. After an error this can be called again.
    pub(super) fn publish(&mut self, manifest: &mut Manifest, sequence: &mut u64) -> Result<(), FileError> {
        if self.stage == Stage::Written {
            let lost = |doing| FileError::lost(doing, &self.path);
            self.file.set_len(self.octets).map_err(FileError::io("cut", &self.path))?;
            // What the system could not write it may have forgotten: a second try would only seem to succeed.
            self.file.sync_all().map_err(lost("write to the disk"))?;
            self.stage = Stage::Synced;
        }
        while self.stage == Stage::Synced {
            self.write_manifest(manifest)?;
            match rename(&self.path, &self.directory.join(&self.name)) {
                Ok(()) => self.stage = Stage::DataNamed,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    *sequence += 1;
                    let begin_ms = u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0);
                    self.name = name::data(&manifest.header.sink, begin_ms, *sequence, manifest.format);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(FileError::lost("find", &self.path)(error));
                }
                Err(error) => return Err(FileError::io("rename", &self.path)(error)),
            }
        }
        if self.stage == Stage::DataNamed {
            let named = self.directory.join(name::manifest(&self.name));
            rename(&self.manifest_path, &named).map_err(FileError::io("rename", &self.manifest_path))?;
            self.stage = Stage::ManifestNamed;
        }
        sync_directory(&self.directory)
    }

    fn write_manifest(&self, manifest: &mut Manifest) -> Result<(), FileError> {
        manifest.file.clone_from(&self.name);
        manifest.octets = self.octets;
        manifest.sha256 = hexadecimal(&self.digest.clone().finalize());
        let text = manifest.text();
        let write = || {
            self.manifest.write_all_at(&text, 0)?;
            self.manifest.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
            self.manifest.sync_all()
        };
        write().map_err(FileError::io("write", &self.manifest_path))
    }

    /// Removes what has no name yet. What cannot be removed is found at the next start.
    pub(super) fn discard(self) {
        if self.stage < Stage::DataNamed {
            fs::remove_file(&self.path).ok();
            fs::remove_file(&self.manifest_path).ok();
        }
    }
}

/// Waits until the disk has the names in the directory.
pub(super) fn sync_directory(directory: &Path) -> Result<(), FileError> {
    let sync = || File::open(directory)?.sync_all();
    sync().map_err(FileError::io("write to the disk", directory))
}

fn is_taken(directory: &Path, name: &str) -> Result<bool, FileError> {
    for path in [directory.join(name), directory.join(name::manifest(name))] {
        if path.try_exists().map_err(FileError::io("look for", &path))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path)
}

fn reserve(file: &File, from: u64, octets: u64) -> Result<(), Errno> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, octets) {
        // Not every file system can; then a full disk is noticed when it is written to.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// Renames a file unless the name is taken.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems know no such renaming, but links, which never replace anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
