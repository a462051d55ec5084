//! Deals with files without names, which a run left behind that ended hard.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use jiff::Timestamp;
use sha2::Digest as _;
use tracing::{info, warn};

use super::directory::{Lock, lock};
use super::error::FileError;
use super::footer;
use super::journal::{self, Recovered};
use super::manifest::Manifest;
use super::name::{self, Encoding};
use super::places::Places;
use super::retention::{Deletion, Why, note};
use super::unfinished::write_manifest;
use crate::support::digest::hexadecimal;

/// What became of the files.
#[derive(Default)]
pub(super) struct Cleared {
    /// The manifests that got their names.
    pub(super) completed: Vec<Manifest>,
    /// Why others could not be dealt with.
    pub(super) failures: Vec<FileError>,
}

/// Completes unfinished files up to the last checkpoint of their journals, removes those without a checkpoint, and gives
/// manifests of whole files their names. `begun` is the one that the sink writes now.
///
/// Files of other sinks are dealt with too, unless somebody has them open: a sink that was renamed or removed does not come
/// back for them.
pub(super) fn clear(places: &Places, sink: &str, begun: Option<&str>) -> Result<Cleared, FileError> {
    let mut cleared = Cleared::default();
    let notes = &places.notes;
    let list = || notes.names().map_err(FileError::io("list", notes.own_path()));
    // Data files first: a manifest or journal whose file is still unfinished after that belongs to an agent that runs.
    for name in list()? {
        let data = name::finished(&name).filter(|data| name::is_data(data) && begun != Some(&name));
        cleared.failures.extend(data.and_then(|data| complete_or_remove(places, sink, data).err()));
    }
    for name in list()? {
        let Some(finished) = name::finished(&name) else { continue };
        let is_left =
            |data: &str| name::is_data(data) && matches!(notes.look(&name::unfinished(data)), Ok(None));
        if finished.strip_suffix(name::MANIFEST).is_some_and(is_left) {
            match name_manifest(places, &name) {
                Ok(manifest) => cleared.completed.extend(manifest),
                Err(error) => cleared.failures.push(error),
            }
        } else if finished.strip_suffix(name::JOURNAL).is_some_and(is_left) {
            cleared.failures.extend(remove(places, &name).err());
        }
    }
    Ok(cleared)
}

/// Deals with an unfinished data file that was to get this name.
fn complete_or_remove(places: &Places, sink: &str, name: &str) -> Result<(), FileError> {
    let Some((owner, format)) = name::parse(name) else { return Ok(()) };
    let temporary = name::unfinished(name);
    let path = places.notes.path(&temporary);
    let Some(file) = unused(places, &temporary, owner == sink)? else { return Ok(()) };
    let octets = file.metadata().map_err(FileError::io("look at", &path))?.len();
    let journal = places.notes.open_file(&name::unfinished(&name::journal(name))).ok();
    if let Some(recovered) = journal.and_then(|journal| journal::read(journal, &file, format))
        // The records of an IPFIX file were delivered with each batch; it also has what options say of batches without any.
        && (recovered.manifest.records != 0 || format == Encoding::Ipfix)
    {
        return complete(places, name, &file, recovered);
    }
    warn!(
        "sink {owner}: {} was not finished by the agent that wrote it and is removed ({octets} octets): it has no whole records",
        path.display()
    );
    // None of its records was accounted as delivered, and no manifest says how long it may be kept.
    remove(places, &temporary)?;
    let (time, why) = (Timestamp::now(), Why::Unfinished);
    note(places, &Deletion { time, sink: owner, file: name, octets, sha256: None, records: None, why })
}

/// Ends a file behind its last checkpoint, writes its manifest, and gives it its name. Manifest and journal are dealt with
/// afterwards, as if a run had ended at this point.
fn complete(places: &Places, name: &str, file: &File, recovered: Recovered) -> Result<(), FileError> {
    let (notes, temporary) = (&places.notes, name::unfinished(name));
    let path = notes.path(&temporary);
    let Recovered { mut manifest, octets, mut digest, footers } = recovered;
    let end = match manifest.format {
        Encoding::Parquet => footer::join(&footers).map_err(|source| FileError::Unencodable {
            path: path.clone(),
            format: "Parquet",
            source: Box::new(source),
        })?,
        Encoding::JsonLines | Encoding::Ipfix => None,
    };
    let end = end.unwrap_or_default();
    let cut = || {
        file.set_len(octets)?;
        file.write_all_at(&end, octets)?;
        manifest.date(file)?;
        file.sync_all()
    };
    cut().map_err(FileError::io("complete", &path))?;
    digest.update(&end);
    manifest.octets = octets.saturating_add(u64::try_from(end.len()).unwrap_or(u64::MAX));
    manifest.sha256 = hexadecimal(&digest.finalize());
    name.clone_into(&mut manifest.file);
    let manifest_name = name::unfinished(&name::manifest(name));
    let manifest_path = notes.path(&manifest_name);
    let write = |manifest: &Manifest| {
        let file = match notes.create(&manifest_name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => notes.edit(&manifest_name)?,
            file => file?,
        };
        write_manifest(&file, manifest)
    };
    let mut sequence = 0;
    loop {
        write(&manifest).map_err(FileError::io("write", &manifest_path))?;
        match notes.rename(&temporary, &places.records, &manifest.file) {
            Ok(()) => break,
            // Somebody took the name meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sequence += 1;
                let begin_ms = u64::try_from(manifest.begin.as_millisecond()).unwrap_or(0);
                manifest.file = name::data(&manifest.header.sink, begin_ms, sequence, manifest.format);
            }
            Err(error) => return Err(FileError::io("rename", &path)(error)),
        }
    }
    warn!(
        "sink {}: {} was not finished by the agent that wrote it; it has the {} records that are whole",
        manifest.header.sink, manifest.file, manifest.records
    );
    places.sync()
}

/// Names a manifest whose file has its name, and removes one whose file is gone.
fn name_manifest(places: &Places, name: &str) -> Result<Option<Manifest>, FileError> {
    let read = places.notes.open_file(name).and_then(|file| Manifest::read(&file));
    let whole = read.ok().flatten().filter(|manifest| {
        let data = places.records.look(&manifest.file).ok().flatten();
        data.is_some_and(|data| u64::try_from(data.st_size) == Ok(manifest.octets))
    });
    let Some(manifest) = whole else {
        remove(places, name)?;
        return Ok(None);
    };
    let file = places.records.open_file(&manifest.file);
    let path = places.records.path(&manifest.file);
    if lock(&file.map_err(FileError::io("open", &path))?) == Lock::Used {
        return Ok(None);
    }
    info!("sink {}: {} gets its manifest, which was written before", manifest.header.sink, manifest.file);
    let named = places.notes.rename(name, &places.notes, &name::manifest(&manifest.file));
    named.map_err(FileError::io("rename", &places.notes.path(name)))?;
    places.sync()?;
    Ok(Some(manifest))
}

fn remove(places: &Places, name: &str) -> Result<(), FileError> {
    places.notes.remove(name).map_err(FileError::io("remove", &places.notes.path(name)))
}

/// The file, locked, unless a running agent has it open.
fn unused(places: &Places, name: &str, is_own: bool) -> Result<Option<File>, FileError> {
    let file = match places.notes.edit(name) {
        // Its agent has finished it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(FileError::io("open", &places.notes.path(name)))?,
    };
    Ok(match lock(&file) {
        Lock::Taken => Some(file),
        Lock::Used => None,
        // Where files cannot be locked nobody can tell; two agents must not share the name of a sink anyway.
        Lock::Unknown => is_own.then_some(file),
    })
}
