//! A file on its way: written under a temporary name, and given its own name when it is whole.
//!
//! Room for what is yet to be written can be reserved on the disk, so that a full disk stops the file at a point where it
//! can still be finished.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, renameat_with};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::manifest::Manifest;
use super::mode::create_file;
use super::name::{self, Encoding};

/// The file is synced each time so many octets were written: to sync a large file at its end would take long.
const SYNC_OCTETS: u64 = 16 << 20;

/// A data file, and its manifest, before they have their names.
pub(super) struct Unfinished {
    directory: PathBuf,
    /// The name that it is to get.
    name: String,
    /// Its temporary name.
    path: PathBuf,
    manifest_path: PathBuf,
    file: File,
    manifest: File,
    octets: u64,
    digest: Sha256,
    /// The disk has room for the file up to here.
    reserved: u64,
    unsynced: u64,
    stage: Stage,
}

/// How far publishing has come. Each step may have to be tried again.
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
        encoding: Encoding,
    ) -> Result<Self, FileError> {
        loop {
            *sequence += 1;
            let name = name::data(sink, begin_ms, *sequence, encoding);
            let path = directory.join(name::unfinished(&name));
            let manifest_path = directory.join(name::unfinished(&name::manifest(&name)));
            if is_taken(directory, &name)? {
                continue;
            }
            let file = match create_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(FileError::io("create", &path))?,
            };
            // The lock tells a later start that this file is no leftover. Some file systems cannot lock: no error.
            flock(&file, FlockOperation::NonBlockingLockExclusive).ok();
            let manifest = create_file(&manifest_path).map_err(|error| {
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

    /// Its temporary name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its journal is, if it has one.
    pub(super) fn journal_path(&self) -> PathBuf {
        let temporary = self.path.file_name().and_then(|name| name.to_str()).and_then(name::finished);
        self.directory.join(name::unfinished(&name::journal(temporary.unwrap_or(&self.name))))
    }

    /// Octets written so far.
    pub(super) const fn octets(&self) -> u64 {
        self.octets
    }

    /// Digest of what was written so far.
    pub(super) fn sha256(&self) -> String {
        let digest = self.digest.clone().finalize();
        digest.iter().map(|octet| format!("{octet:02x}")).collect()
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

    /// Makes sure that the disk has room for so many octets of the manifest.
    pub(super) fn reserve_manifest(&self, octets: u64) -> Result<(), FileError> {
        reserve(&self.manifest, 0, octets).map_err(FileError::io("reserve room for", &self.manifest_path))
    }

    /// Appends all of these octets, or nothing: what a failed call wrote is overwritten or cut off before the file gets
    /// its name.
    pub(super) fn append(&mut self, octets: &[u8]) -> Result<(), FileError> {
        self.file.write_all_at(octets, self.octets).map_err(FileError::io("write to", &self.path))?;
        self.digest.update(octets);
        let written = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        self.octets += written;
        self.unsynced += written;
        if self.unsynced >= SYNC_OCTETS { self.sync() } else { Ok(()) }
    }

    /// Waits until the disk has everything that was written.
    pub(super) fn sync(&mut self) -> Result<(), FileError> {
        if self.unsynced != 0 {
            // What the system could not write it may have forgotten: a second try would only seem to succeed.
            self.file.sync_data().map_err(FileError::lost("write to the disk", &self.path))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Finds out whether somebody has removed the file meanwhile.
    pub(super) fn look(&self) -> Result<(), FileError> {
        let metadata = self.file.metadata().map_err(FileError::io("look at", &self.path))?;
        if metadata.nlink() == 0 {
            return Err(FileError::lost("find", &self.path)(Errno::NOENT));
        }
        Ok(())
    }

    /// Gives file and manifest their names, in this order, once the disk has both. After an error that is no loss it can
    /// be called again.
    pub(super) fn publish(&mut self, manifest: &mut Manifest, sequence: &mut u64) -> Result<(), FileError> {
        if self.stage == Stage::Written {
            self.file.set_len(self.octets).map_err(FileError::io("cut", &self.path))?;
            // Here, too, a second try would only seem to succeed.
            self.file.sync_all().map_err(FileError::lost("write to the disk", &self.path))?;
            self.stage = Stage::Synced;
        }
        self.fill(manifest);
        while self.stage == Stage::Synced {
            write_manifest(&self.manifest, manifest).map_err(FileError::io("write", &self.manifest_path))?;
            match rename(&self.path, &self.directory.join(&self.name)) {
                Ok(()) => self.stage = Stage::DataNamed,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    *sequence += 1;
                    let begin_ms = u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0);
                    self.name = name::data(&manifest.header.sink, begin_ms, *sequence, manifest.format);
                    self.fill(manifest);
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

    fn fill(&self, manifest: &mut Manifest) {
        manifest.file.clone_from(&self.name);
        manifest.octets = self.octets;
        manifest.sha256 = self.sha256();
    }

    /// Removes the file, unless it has its name. What cannot be removed is found at the next start.
    pub(super) fn discard(self) {
        if self.stage < Stage::DataNamed {
            fs::remove_file(&self.path).ok();
            fs::remove_file(&self.manifest_path).ok();
        }
    }
}

/// Writes a manifest to its file, and to the disk.
pub(super) fn write_manifest(file: &File, manifest: &Manifest) -> io::Result<()> {
    let text = manifest.text();
    file.write_all_at(&text, 0)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    file.sync_all()
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

fn reserve(file: &File, from: u64, octets: u64) -> Result<(), Errno> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, octets) {
        // Some file systems cannot reserve; there a full disk is noticed when it is written to.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// Renames a file unless the name is taken.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot rename without replacing, but a hard link never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        result => Ok(result?),
    }
}
