//! The journal of a file whose records count as delivered before it has its name: what of it is safe on the disk.
//!
//! A file in the making is one `write` after the other, and a crash may cut it anywhere. A line of the journal is written
//! when the disk has the file up to a checkpoint, so that the next start can cut the file there and write its manifest.
//! Lines are only appended: a torn last line costs nothing that was confirmed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::FileError;
use super::manifest::{BatchShare, DatedHeader, Header, Manifest};
use super::mode::create_file;
use super::name::Encoding;

/// The journal of a file that is being written.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    octets: u64,
    /// Batches in it that cannot grow any more.
    batches: usize,
}

/// A line: the file up to here is on the disk.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    octets: u64,
    sha256: String,
    /// The last batch of the line before, which may have grown, and those that followed.
    batches: Vec<BatchShare>,
}

impl Journal {
    /// A journal with the header of its file.
    pub(super) fn create(path: PathBuf, header: &Header, begin_ms: u64) -> Result<Self, FileError> {
        let file = create_file(&path).map_err(FileError::io("create", &path))?;
        let mut journal = Self { file, path, octets: 0, batches: 0 };
        match journal.append(header.text(begin_ms).into_bytes()) {
            Ok(()) => Ok(journal),
            Err(error) => {
                journal.discard();
                Err(error)
            }
        }
    }

    /// Notes that the disk has so many octets, with these batches.
    pub(super) fn note(
        &mut self,
        octets: u64,
        sha256: String,
        batches: &[BatchShare],
    ) -> Result<(), FileError> {
        let new = batches.get(self.batches..).unwrap_or_default().to_vec();
        let line = serde_json::to_vec(&Checkpoint { octets, sha256, batches: new });
        self.append(line.expect("strings and numbers can be written as JSON"))?;
        self.batches = batches.len().saturating_sub(1);
        Ok(())
    }

    /// Appends a line. After an error the next call overwrites what was written of it.
    fn append(&mut self, mut line: Vec<u8>) -> Result<(), FileError> {
        line.push(b'\n');
        let write = || {
            self.file.write_all_at(&line, self.octets)?;
            self.file.sync_data()
        };
        write().map_err(FileError::io("write to", &self.path))?;
        self.octets += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Removes the journal: the file has its name, or is removed too.
    pub(super) fn discard(self) {
        fs::remove_file(&self.path).ok();
    }
}

/// The manifest of the file up to its last checkpoint; `None` when there was no checkpoint.
pub(super) fn read(path: &Path, file: &str, format: Encoding) -> Option<Manifest> {
    let text = fs::read(path).ok()?;
    let mut lines = text.split_inclusive(|octet| *octet == b'\n').filter(|line| line.ends_with(b"\n"));
    let DatedHeader::<Header> { begin, header } = serde_json::from_slice(lines.next()?).ok()?;
    let mut batches: Vec<BatchShare> = Vec::new();
    let mut safe = None;
    for line in lines {
        let Ok(checkpoint) = serde_json::from_slice::<Checkpoint>(line) else { break };
        for batch in checkpoint.batches {
            match batches.last_mut().filter(|last| last.number == batch.number) {
                Some(last) => *last = batch,
                None => batches.push(batch),
            }
        }
        safe = Some((checkpoint.octets, checkpoint.sha256));
    }
    let (octets, sha256) = safe?;
    let manifest = Manifest::new(format, header, begin, batches);
    Some(Manifest { file: file.to_owned(), octets, sha256, ..manifest })
}
