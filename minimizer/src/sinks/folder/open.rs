//! The file that a sink is writing, with the batches in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Folder;
use super::error::FileError;
use super::journal::Journal;
use super::manifest::{BatchShare, Begun, Header, Manifest, Sums};
use super::name::{self, Encoding};
use super::retention::end_ms;
use super::unfinished::{Mark, Unfinished};
use crate::support::clock;

/// More than a manifest takes beside its header and its batches.
const MANIFEST_OCTETS: u64 = 1024;
/// More than a batch takes in a manifest.
const BATCH_OCTETS: u64 = 512;
/// A file with so many batches is closed, so that its manifest stays short enough to be read.
const BATCHES_MAX: usize = 100_000;

/// A file that takes records.
pub(in crate::sinks) struct OpenFile {
    file: Unfinished,
    encoding: Encoding,
    journal: Journal,
    header: Header,
    begin_ms: u64,
    batches: Vec<BatchShare>,
    /// The disk has room for so many batches in the manifest.
    batches_reserved: u64,
    records: u64,
    /// When `rotate_every` ends.
    rotate_at: Instant,
    checkpoint: Option<Checkpoint>,
}

/// The file as it was when the disk had all of it.
struct Checkpoint {
    mark: Mark,
    /// Number of batches in it, and the last one, which may have grown since.
    batches: usize,
    last: Option<BatchShare>,
    records: u64,
}

impl Folder {
    /// Begins a file for this batch and those that follow, to be closed after `rotate_every`. The next start can complete it
    /// up to its last [`OpenFile::checkpoint`] or [`OpenFile::note`].
    pub(in crate::sinks) fn begin(
        &mut self,
        batch: &Begun,
        encoding: Encoding,
        rotate_every: Duration,
    ) -> Result<OpenFile, FileError> {
        let places = self.places()?;
        let Begun { header, begin_ms, .. } = batch;
        let file = Unfinished::create(&places, &self.sink, *begin_ms, &mut self.sequence, encoding)?;
        let journal = Journal::create(&places, file.journal(), header, *begin_ms);
        let journal = match journal.and_then(|journal| places.sync().map(|()| journal)) {
            Ok(journal) => journal,
            Err(error) => {
                file.discard();
                return Err(error);
            }
        };
        self.begun = Some(file.temporary().to_owned());
        Ok(OpenFile {
            file,
            encoding,
            journal,
            header: header.clone(),
            begin_ms: *begin_ms,
            batches: Vec::new(),
            batches_reserved: 0,
            records: 0,
            rotate_at: Instant::now() + rotate_every,
            checkpoint: None,
        })
    }

    /// Gives a file its name, and then its manifest. After an error that is no loss it can be called again; [`Ok`] means that
    /// the file is whole and has its name, so that its records are delivered.
    pub(in crate::sinks) fn publish(&mut self, open: &mut OpenFile) -> Result<Manifest, FileError> {
        let begin = name::time(open.begin_ms);
        let mut manifest = Manifest::new(open.encoding, open.header.clone(), begin, open.batches.clone());
        open.file.publish(&mut manifest, &mut self.sequence, &self.ending)?;
        match open.file.name_manifest() {
            Ok(()) => {
                open.journal.discard();
                if self.is_in(open.file.places()) {
                    self.retention.add(&manifest);
                } else {
                    let path = open.file.places().records.path(&manifest.file);
                    warn!(
                        "sink {}: somebody moved its directory: {} was finished there",
                        self.sink,
                        path.display()
                    );
                }
            }
            Err(error) => {
                // The file is delivered all the same; the next search names the manifest, and says why it cannot.
                warn!("sink {}: {error}; {} has no manifest yet", self.sink, manifest.file);
                self.leave_behind();
            }
        }
        Ok(manifest)
    }

    fn is_in(&self, places: &Arc<super::places::Places>) -> bool {
        self.places.as_ref().is_some_and(|own| Arc::ptr_eq(own, places))
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

    /// When it is to be closed: when its time is over, at the latest when the retention of its first record is.
    pub(in crate::sinks) fn close_at(&self) -> Instant {
        Instant::now() + self.left()
    }

    fn left(&self) -> Duration {
        let rotate = self.rotate_at.saturating_duration_since(Instant::now());
        let end_ms = end_ms(self.begin_ms, self.header.retention_seconds);
        let kept = end_ms.map(|end| Duration::from_millis(end.saturating_sub(clock::realtime_ms())));
        kept.map_or(rotate, |kept| kept.min(rotate))
    }

    /// Whether it is to be closed: its time is over, its manifest is long, or somebody moved its directory.
    pub(in crate::sinks) fn is_due(&self) -> bool {
        self.left().is_zero() || self.batches.len() >= BATCHES_MAX || !self.file.places().are_in_place()
    }

    /// Octets written so far.
    pub(in crate::sinks) const fn octets(&self) -> u64 {
        self.file.octets()
    }

    /// Where it is until it has its name.
    pub(in crate::sinks) fn path(&self) -> PathBuf {
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
    /// whatever happens to the agent and to the machine.
    pub(in crate::sinks) fn checkpoint(&mut self) -> Result<(), FileError> {
        self.file.look()?;
        self.file.sync()?;
        self.journal.note(self.file.octets(), self.file.sha256(), &self.batches, &[], true)?;
        let (batches, last) = (self.batches.len(), self.batches.last().cloned());
        self.checkpoint = Some(Checkpoint { mark: self.file.mark(), batches, last, records: self.records });
        Ok(())
    }

    /// Notes in the journal, without waiting for the disk, that the file is good up to here: these records survive whatever
    /// happens to the agent. `footers` are those of row groups since the last note.
    pub(in crate::sinks) fn note(&mut self, footers: &[Vec<u8>]) -> Result<(), FileError> {
        self.journal.note(self.file.octets(), self.file.sha256(), &self.batches, footers, false)
    }

    /// Takes back everything since the last checkpoint. Returns whether there was one.
    pub(in crate::sinks) fn rewind(&mut self) -> bool {
        let Some(Checkpoint { mark, batches, last, records }) = &self.checkpoint else { return false };
        self.file.rewind(mark.clone());
        self.batches.truncate(batches.saturating_sub(1));
        self.batches.extend(last.clone());
        self.records = *records;
        true
    }

    /// Finds out whether somebody has removed or moved the file meanwhile.
    pub(in crate::sinks) fn look(&self) -> Result<(), FileError> {
        self.file.look()
    }

    /// Removes the file, which has no name.
    pub(in crate::sinks) fn discard(self) {
        self.journal.discard();
        self.file.discard();
    }
}
