//! The file that a sink is writing, with the batches in it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Folder;
use super::error::FileError;
use super::journal::Journal;
use super::manifest::{BatchShare, Begun, Header, Manifest, Sums};
use super::name::{self, Encoding};
use super::unfinished::{Unfinished, sync_directory};

/// More than a manifest takes beside its header and its batches.
const MANIFEST_OCTETS: u64 = 1024;
/// More than a batch takes in a manifest.
const BATCH_OCTETS: u64 = 512;

/// A file that takes records.
pub(in crate::sinks) struct OpenFile {
    file: Unfinished,
    encoding: Encoding,
    journal: Option<Journal>,
    header: Header,
    begin_ms: u64,
    batches: Vec<BatchShare>,
    /// The disk has room for so many batches in the manifest.
    batches_reserved: u64,
    records: u64,
    close_at: Instant,
}

impl Folder {
    /// Begins a file for this batch and those that follow, to be closed after `rotate_every`.
    pub(in crate::sinks) fn begin(
        &mut self,
        batch: &Begun,
        encoding: Encoding,
        rotate_every: Duration,
    ) -> Result<OpenFile, FileError> {
        self.make()?;
        let Begun { header, begin_ms, .. } = batch;
        let file = Unfinished::create(&self.path, &self.sink, *begin_ms, &mut self.sequence, encoding)?;
        Ok(OpenFile {
            file,
            encoding,
            journal: None,
            header: header.clone(),
            begin_ms: *begin_ms,
            batches: Vec::new(),
            batches_reserved: 0,
            records: 0,
            close_at: Instant::now() + rotate_every,
        })
    }

    /// Begins a file that the next start can complete up to its last [`OpenFile::checkpoint`].
    pub(in crate::sinks) fn begin_journaled(
        &mut self,
        batch: &Begun,
        encoding: Encoding,
        rotate_every: Duration,
    ) -> Result<OpenFile, FileError> {
        let mut file = self.begin(batch, encoding, rotate_every)?;
        let journal = Journal::create(file.file.journal_path(), &batch.header, batch.begin_ms);
        match journal.and_then(|journal| sync_directory(&self.path).map(|()| journal)) {
            Ok(journal) => {
                file.journal = Some(journal);
                Ok(file)
            }
            Err(error) => {
                file.discard();
                Err(error)
            }
        }
    }

    /// Gives a file and its manifest their names. After an error that is no loss it can be called again.
    pub(in crate::sinks) fn publish(&mut self, open: &mut OpenFile) -> Result<Manifest, FileError> {
        let begin = name::time(open.begin_ms);
        let mut manifest = Manifest::new(open.encoding, open.header.clone(), begin, open.batches.clone());
        open.file.publish(&mut manifest, &mut self.sequence)?;
        if let Some(journal) = open.journal.take() {
            journal.discard();
        }
        self.retention.add(&manifest);
        Ok(manifest)
    }
}

impl OpenFile {
    /// What its records have in common.
    pub(in crate::sinks) const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it has records.
    pub(in crate::sinks) const fn has_records(&self) -> bool {
        self.records != 0
    }

    /// When it is to be closed.
    pub(in crate::sinks) const fn close_at(&self) -> Instant {
        self.close_at
    }

    /// Octets written so far.
    pub(in crate::sinks) const fn octets(&self) -> u64 {
        self.file.octets()
    }

    /// Its temporary name.
    pub(in crate::sinks) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Makes sure that the disk has room for so many octets more, where the file system can.
    pub(in crate::sinks) fn reserve(&mut self, octets: u64) -> Result<(), FileError> {
        self.file.reserve(octets)
    }

    /// Appends all of these octets, or nothing.
    pub(in crate::sinks) fn append(&mut self, octets: &[u8]) -> Result<(), FileError> {
        self.file.append(octets)
    }

    /// Lists a batch, which may have no records, when the disk has room for it in the manifest.
    pub(in crate::sinks) fn list(&mut self, batch: &BatchShare) -> Result<(), FileError> {
        self.reserve_batch(batch)?;
        self.share(batch);
        Ok(())
    }

    /// Counts records of a batch that are in the file.
    pub(in crate::sinks) fn count(&mut self, batch: &BatchShare, sums: Sums) {
        self.records = self.records.saturating_add(sums.records);
        self.share(batch).add(sums);
    }

    /// Makes sure that the disk has room for the batch in the manifest.
    pub(in crate::sinks) fn reserve_batch(&mut self, batch: &BatchShare) -> Result<(), FileError> {
        let is_listed = self.batches.last().is_some_and(|last| last.number == batch.number);
        let batches = u64::try_from(self.batches.len()).unwrap_or(u64::MAX) + u64::from(!is_listed);
        if batches > self.batches_reserved {
            let header = u64::try_from(self.header.text(self.begin_ms).len()).unwrap_or(u64::MAX);
            // Twice as many: one call to the disk serves several batches.
            self.file.reserve_manifest(MANIFEST_OCTETS + 2 * header + 2 * batches * BATCH_OCTETS)?;
            self.batches_reserved = 2 * batches;
        }
        Ok(())
    }

    fn share(&mut self, batch: &BatchShare) -> &mut BatchShare {
        let position = match self.batches.last() {
            Some(last) if last.number == batch.number => self.batches.len() - 1,
            _ => {
                self.batches.push(batch.clone());
                self.batches.len() - 1
            }
        };
        &mut self.batches[position]
    }

    /// Waits until the disk has everything that was written, and notes in the journal that it has: these records survive
    /// whatever happens to the agent.
    pub(in crate::sinks) fn checkpoint(&mut self) -> Result<(), FileError> {
        self.file.look()?;
        self.file.sync()?;
        if let Some(journal) = &mut self.journal {
            journal.note(self.file.octets(), self.file.sha256(), &self.batches)?;
        }
        Ok(())
    }

    /// Finds out whether somebody has removed the file meanwhile.
    pub(in crate::sinks) fn look(&self) -> Result<(), FileError> {
        self.file.look()
    }

    /// Removes the file, unless it has its name.
    pub(in crate::sinks) fn discard(self) {
        self.file.discard();
        if let Some(journal) = self.journal {
            journal.discard();
        }
    }
}
