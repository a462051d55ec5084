//! The journal of a file that has no name yet: what a later start can make a whole file of.
//!
//! A file in the making is one `write` after the other, and a crash may cut it anywhere. A line of the journal says how far the
//! file was good, so that the next start can cut it there, end it, and write its manifest. Lines are only appended: a torn last
//! line costs nothing that was confirmed. Each has the digest of the file up to that point, so that a line which came to the
//! disk before its file is not believed.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::manifest::{BatchShare, DatedHeader, Header, Manifest};
use super::name::Encoding;
use super::places::Places;
use crate::support::digest::hexadecimal;

/// A line is never longer: it has one batch, or the row groups of a few.
const LINE_OCTETS_MAX: u64 = 16 << 20;
/// Octets of a file that are read at once.
const PIECE_OCTETS: usize = 1 << 16;

/// The journal of a file that is being written.
pub(super) struct Journal {
    file: File,
    places: Arc<Places>,
    name: String,
    octets: u64,
    /// Batches in it that cannot grow any more.
    batches: usize,
}

/// A line: the file is good up to here.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    octets: u64,
    sha256: String,
    /// The last batch of the line before, which may have grown, and those that followed.
    batches: Vec<BatchShare>,
    /// For Parquet, a footer for each row group since the line before, in base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    footers: Vec<String>,
}

/// What a journal has of a file: enough to make it whole.
pub(super) struct Recovered {
    /// Of the file up to its last checkpoint, without name, length and digest.
    pub(super) manifest: Manifest,
    /// Octets up to the checkpoint, and their digest.
    pub(super) octets: u64,
    pub(super) digest: Sha256,
    /// Footers of its row groups.
    pub(super) footers: Vec<Vec<u8>>,
}

impl Journal {
    /// A journal with the header of its file.
    pub(super) fn create(
        places: &Arc<Places>,
        name: String,
        header: &Header,
        begin_ms: u64,
    ) -> Result<Self, FileError> {
        let created = places.notes.create(&name);
        let file = created.map_err(FileError::io("create", &places.notes.path(&name)))?;
        let mut journal = Self { file, places: Arc::clone(places), name, octets: 0, batches: 0 };
        match journal.append(header.text(begin_ms).into_bytes(), true) {
            Ok(()) => Ok(journal),
            Err(error) => {
                journal.discard();
                Err(error)
            }
        }
    }

    /// Notes that the file has so many octets, with these batches, and footers for its new row groups. `is_safe`: the disk has
    /// the file, and this waits until it has the line too.
    pub(super) fn note(
        &mut self,
        octets: u64,
        sha256: String,
        batches: &[BatchShare],
        footers: &[Vec<u8>],
        is_safe: bool,
    ) -> Result<(), FileError> {
        let new = batches.get(self.batches..).unwrap_or_default().to_vec();
        let footers = footers.iter().map(|footer| BASE64.encode(footer)).collect();
        let line = serde_json::to_vec(&Checkpoint { octets, sha256, batches: new, footers });
        self.append(line.expect("strings and numbers can be written as JSON"), is_safe)?;
        self.batches = batches.len().saturating_sub(1);
        Ok(())
    }

    /// Appends a line. After an error the next call overwrites what was written of it.
    fn append(&mut self, mut line: Vec<u8>, is_safe: bool) -> Result<(), FileError> {
        line.push(b'\n');
        let write = || {
            self.file.write_all_at(&line, self.octets)?;
            if is_safe { self.file.sync_data() } else { Ok(()) }
        };
        if let Err(error) = write() {
            // Nobody was told of this line: the next start must not believe it.
            self.file.set_len(self.octets).ok();
            return Err(FileError::io("write to", &self.places.notes.path(&self.name))(error));
        }
        self.octets += u64::try_from(line.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Removes the journal: the file has its name, or is removed too.
    pub(super) fn discard(&self) {
        // Where a name cannot be removed, nothing may be made of an empty journal.
        self.file.set_len(0).ok();
        self.places.notes.remove(&self.name).ok();
    }
}

/// What the journal has of the file; `None` when there was no checkpoint that the file confirms.
pub(super) fn read(journal: File, file: &File, format: Encoding) -> Option<Recovered> {
    let mut lines = BufReader::new(journal);
    let DatedHeader::<Header> { begin, header } = serde_json::from_slice(&line(&mut lines)?).ok()?;
    let mut prefix = Prefix { file, octets: 0, digest: Sha256::new() };
    let mut batches: Vec<BatchShare> = Vec::new();
    let mut footers = Vec::new();
    let mut good = None;
    while let Some(line) = line(&mut lines) {
        let Ok(checkpoint) = serde_json::from_slice::<Checkpoint>(&line) else { break };
        if !prefix.is(checkpoint.octets, &checkpoint.sha256).unwrap_or(false) {
            break;
        }
        for batch in checkpoint.batches {
            match batches.last_mut().filter(|last| last.number == batch.number) {
                Some(last) => *last = batch,
                None => batches.push(batch),
            }
        }
        let decoded = checkpoint.footers.iter().map(|footer| BASE64.decode(footer));
        let Ok(decoded) = decoded.collect::<Result<Vec<_>, _>>() else { break };
        footers.extend(decoded);
        good = Some((prefix.octets, prefix.digest.clone()));
    }
    let (octets, digest) = good?;
    let manifest = Manifest { is_recovered: true, ..Manifest::new(format, header, begin, batches) };
    Some(Recovered { manifest, octets, digest, footers })
}

/// The next whole line.
fn line(lines: &mut BufReader<File>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    lines.by_ref().take(LINE_OCTETS_MAX).read_until(b'\n', &mut line).ok()?;
    line.ends_with(b"\n").then_some(line)
}

/// The part of a file that was read.
struct Prefix<'file> {
    file: &'file File,
    octets: u64,
    digest: Sha256,
}

impl Prefix<'_> {
    /// Whether the file has so many octets, and they have this digest.
    fn is(&mut self, octets: u64, sha256: &str) -> io::Result<bool> {
        let mut piece = vec![0; PIECE_OCTETS];
        while self.octets < octets {
            let wanted = usize::try_from(octets - self.octets).unwrap_or(usize::MAX).min(piece.len());
            let read = self.file.read_at(&mut piece[..wanted], self.octets)?;
            if read == 0 {
                return Ok(false);
            }
            self.digest.update(&piece[..read]);
            self.octets += u64::try_from(read).unwrap_or(0);
        }
        Ok(self.octets == octets && hexadecimal(&self.digest.clone().finalize()) == sha256)
    }
}
