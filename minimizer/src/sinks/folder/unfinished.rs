//! A file on its way: written under a temporary name, and given its own name when it is whole.
//!
//! Room for what is yet to be written can be reserved on the disk, so that a full disk stops the file at a point where it
//! can still be finished.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::directory::{Lock, lock};
use super::error::FileError;
use super::manifest::Manifest;
use super::name::{self, Encoding};
use super::places::Places;
use crate::delivery::ending::Ending;
use crate::support::digest::hexadecimal;

/// The file is synced each time so many octets were written: to sync a large file at its end would take long.
const SYNC_OCTETS: u64 = 16 << 20;

/// A data file, and its manifest, before they have their names.
pub(super) struct Unfinished {
    places: Arc<Places>,
    /// The name that it is to get.
    name: String,
    /// Its temporary name, and that of its manifest, both among the notes.
    temporary: String,
    manifest_temporary: String,
    file: File,
    manifest: File,
    octets: u64,
    digest: Sha256,
    /// The disk has room for the file up to here.
    reserved: u64,
    unsynced: u64,
    /// Whether the disk has all of it, cut to its length.
    is_synced: bool,
}

/// A point of a file up to which it can be taken back.
#[derive(Clone)]
pub(super) struct Mark {
    octets: u64,
    digest: Sha256,
}

impl Unfinished {
    /// An empty file with the next free name. `sequence` is the number that the last file got.
    pub(super) fn create(
        places: &Arc<Places>,
        sink: &str,
        begin_ms: u64,
        sequence: &mut u64,
        encoding: Encoding,
    ) -> Result<Self, FileError> {
        loop {
            *sequence += 1;
            let name = name::data(sink, begin_ms, *sequence, encoding);
            let temporary = name::unfinished(&name);
            let manifest_temporary = name::unfinished(&name::manifest(&name));
            if is_taken(places, &name)? {
                continue;
            }
            let file = match places.notes.create(&temporary) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file.map_err(FileError::io("create", &places.notes.path(&temporary)))?,
            };
            // The lock tells others that this file is no leftover. One that another sink took for a leftover before is left to
            // it. Some file systems cannot lock: no error.
            let is_used = lock(&file) == Lock::Used;
            let leads = places.notes.leads_to(&temporary, &file);
            if is_used || !leads.map_err(FileError::io("look at", &places.notes.path(&temporary)))? {
                continue;
            }
            let manifest = places.notes.create(&manifest_temporary).map_err(|error| {
                places.notes.remove(&temporary).ok();
                FileError::io("create", &places.notes.path(&manifest_temporary))(error)
            })?;
            return Ok(Self {
                places: Arc::clone(places),
                name,
                temporary,
                manifest_temporary,
                file,
                manifest,
                octets: 0,
                digest: Sha256::new(),
                reserved: 0,
                unsynced: 0,
                is_synced: false,
            });
        }
    }

    /// Where it is until it has its name.
    pub(super) fn path(&self) -> PathBuf {
        self.places.notes.path(&self.temporary)
    }

    /// The name that it has until then.
    pub(super) fn temporary(&self) -> &str {
        &self.temporary
    }

    /// The directories in which it was begun.
    pub(super) const fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// The name of its journal, if it has one.
    pub(super) fn journal(&self) -> String {
        name::unfinished(&name::journal(name::finished(&self.temporary).unwrap_or(&self.name)))
    }

    /// Octets written so far.
    pub(super) const fn octets(&self) -> u64 {
        self.octets
    }

    /// Digest of what was written so far.
    pub(super) fn sha256(&self) -> String {
        hexadecimal(&self.digest.clone().finalize())
    }

    /// Makes sure that the disk has room for so many octets more, where the file system can.
    pub(super) fn reserve(&mut self, octets: u64) -> Result<(), FileError> {
        let end = self.octets.saturating_add(octets);
        if end > self.reserved {
            reserve(&self.file, self.octets, octets)
                .map_err(FileError::io("reserve room for", &self.path()))?;
            self.reserved = end;
        }
        Ok(())
    }

    /// Makes sure that the disk has room for so many octets of the manifest.
    pub(super) fn reserve_manifest(&self, octets: u64) -> Result<(), FileError> {
        let path = self.places.notes.path(&self.manifest_temporary);
        reserve(&self.manifest, 0, octets).map_err(FileError::io("reserve room for", &path))
    }

    /// Appends all of these octets, or nothing: what a failed call wrote is overwritten or cut off before the file gets
    /// its name.
    pub(super) fn append(&mut self, octets: &[u8]) -> Result<(), FileError> {
        self.is_synced = false;
        self.file.write_all_at(octets, self.octets).map_err(FileError::io("write to", &self.path()))?;
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
            self.file.sync_data().map_err(FileError::lost("write to the disk", &self.path()))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// The point that it has reached.
    pub(super) fn mark(&self) -> Mark {
        Mark { octets: self.octets, digest: self.digest.clone() }
    }

    /// Takes back what was written after that point.
    pub(super) fn rewind(&mut self, mark: Mark) {
        self.is_synced = false;
        self.reserved = self.reserved.min(mark.octets);
        Mark { octets: self.octets, digest: self.digest } = mark;
    }

    /// Finds out whether somebody has removed or moved the file meanwhile.
    pub(super) fn look(&self) -> Result<(), FileError> {
        let leads = self.places.notes.leads_to(&self.temporary, &self.file);
        if leads.map_err(FileError::io("look at", &self.path()))? {
            return Ok(());
        }
        Err(FileError::lost("find", &self.path())(Errno::NOENT))
    }

    /// Gives the file its name, once the disk has it and its manifest. After an error that is no loss it can be called again.
    ///
    /// Then the file is whole, and what is in it is delivered. What is left to do is [`Self::name_manifest`].
    pub(super) fn publish(
        &mut self,
        manifest: &mut Manifest,
        sequence: &mut u64,
        ending: &Ending,
    ) -> Result<(), FileError> {
        self.look()?;
        if !self.is_synced {
            let path = self.path();
            self.file.set_len(self.octets).map_err(FileError::io("cut", &path))?;
            manifest.date(&self.file).map_err(FileError::io("date", &path))?;
            // Here, too, a second try would only seem to succeed.
            self.file.sync_all().map_err(FileError::lost("write to the disk", &path))?;
            self.is_synced = true;
        }
        loop {
            manifest.file.clone_from(&self.name);
            manifest.octets = self.octets;
            manifest.sha256 = self.sha256();
            let path = self.places.notes.path(&self.manifest_temporary);
            write_manifest(&self.manifest, manifest).map_err(FileError::io("write", &path))?;
            if ending.is_abandoned() {
                return Err(FileError::io("name", &self.path())(Errno::CANCELED));
            }
            match self.places.notes.rename(&self.temporary, &self.places.records, &self.name) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    *sequence += 1;
                    let begin_ms = u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0);
                    self.name = name::data(&manifest.header.sink, begin_ms, *sequence, manifest.format);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(FileError::lost("find", &self.path())(error));
                }
                Err(error) => return Err(FileError::io("rename", &self.path())(error)),
            }
        }
    }

    /// Gives the manifest its name, after the file has its own.
    pub(super) fn name_manifest(&self) -> Result<(), FileError> {
        let notes = &self.places.notes;
        let path = notes.path(&self.manifest_temporary);
        if !notes
            .leads_to(&self.manifest_temporary, &self.manifest)
            .map_err(FileError::io("look at", &path))?
        {
            return Err(FileError::io("find", &path)(Errno::NOENT));
        }
        let named = notes.rename(&self.manifest_temporary, notes, &name::manifest(&self.name));
        named.map_err(FileError::io("rename", &path))?;
        self.places.sync()
    }

    /// Removes the file, which has no name. What cannot be removed is found at the next start.
    pub(super) fn discard(self) {
        self.places.notes.remove(&self.temporary).ok();
        self.places.notes.remove(&self.manifest_temporary).ok();
    }
}

/// Writes a manifest to its file, and to the disk.
pub(super) fn write_manifest(file: &File, manifest: &Manifest) -> io::Result<()> {
    let text = manifest.text();
    file.write_all_at(&text, 0)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    manifest.date(file)?;
    file.sync_all()
}

fn is_taken(places: &Places, name: &str) -> Result<bool, FileError> {
    let manifest = name::manifest(name);
    for (directory, name) in [(&places.records, name), (&places.notes, &*manifest)] {
        let look = directory.look(name).map_err(FileError::io("look for", &directory.path(name)))?;
        if look.is_some() {
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
