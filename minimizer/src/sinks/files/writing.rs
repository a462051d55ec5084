//! Decides which records go into which file, and when a file is closed.

use std::path::PathBuf;
use std::time::Instant;

use super::FilesConfig;
use super::record_file::RecordFile;
use crate::delivery::ending::Ending;
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, Sink, SinkError, Taken};
use crate::policy::field::Fields;
use crate::records::record::Record;
use crate::sinks::folder::{Begun, FileError, Folder};

/// Writes files.
pub(super) struct FilesSink {
    name: String,
    config: FilesConfig,
    folder: Folder,
    /// The batch that has begun.
    batch: Option<Begun>,
    open: Option<RecordFile>,
    /// Closed, but not yet named: the disk refused something.
    closed: Option<RecordFile>,
    /// Whether a file with records got its name during this call.
    has_delivered: bool,
    octets_written: u64,
}

impl FilesSink {
    pub(super) fn new(name: &str, config: &FilesConfig) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
            folder: Folder::new(&config.directory, name),
            batch: None,
            open: None,
            closed: None,
            has_delivered: false,
            octets_written: 0,
        }
    }

    /// The same, which also deletes the files of these directories, and names no file once it is abandoned.
    pub(super) fn adopting(mut self, former: Vec<PathBuf>, ending: &Ending) -> Self {
        self.folder.adopt(former);
        self.folder.heed(ending);
        self
    }

    /// Does what could not be done before.
    fn settle(&mut self) -> Result<(), FileError> {
        if self.closed.is_some() {
            self.publish()?;
        }
        if let Some(open) = &mut self.open {
            let written = open.write_out();
            self.unless_lost(written)?;
        }
        Ok(())
    }

    /// Closes the open file, if there is one, and gives it its name.
    fn close_file(&mut self) -> Result<(), FileError> {
        match self.open.take() {
            Some(open) if open.file().has_records() => {
                self.closed = Some(open);
                self.publish()
            }
            Some(open) => {
                open.discard();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn publish(&mut self) -> Result<(), FileError> {
        let Some(closed) = &mut self.closed else { return Ok(()) };
        match closed.publish(&mut self.folder) {
            Ok(manifest) => {
                self.octets_written += manifest.octets;
                self.closed = None;
                self.has_delivered = true;
                Ok(())
            }
            Err(error) => {
                if error.is_loss()
                    && let Some(closed) = self.closed.take()
                {
                    closed.discard();
                }
                Err(error)
            }
        }
    }

    /// Gives up the open file when it is lost.
    fn unless_lost(&mut self, result: Result<(), FileError>) -> Result<(), FileError> {
        if let Err(error) = &result
            && error.is_loss()
            && let Some(open) = self.open.take()
        {
            open.discard();
        }
        result
    }

    fn try_to_begin(&mut self, batch: Begun) -> Result<(), FileError> {
        self.settle()?;
        self.folder.search()?;
        if self.open.as_ref().is_some_and(|open| *open.file().header() != batch.header) {
            self.close_file()?;
        }
        self.folder.promise(&batch.header);
        self.batch = Some(batch);
        Ok(())
    }

    fn try_to_take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, FileError> {
        if let Err(error) = self.write(records, fields) {
            // The room to finish the file was reserved, so that its records can be delivered although the disk is full. When
            // that fails all the same, the next call tries again and says why.
            if error.is_full()
                && let Err(loss) = self.close_file()
                && loss.is_loss()
            {
                return Err(loss);
            }
            return Err(error);
        }
        if self.open.as_ref().is_some_and(|open| open.file().octets() >= self.config.rotate_octets) {
            // The records are taken, whether or not this works; the next call reports a failure.
            match self.close_file() {
                Err(error) if error.is_loss() => return Err(error),
                _ => return Ok(self.taken()),
            }
        }
        Ok(Taken::Held)
    }

    fn try_to_end(&mut self) -> Result<Taken, FileError> {
        self.settle()?;
        if let (Some(open), Some(batch)) = (&mut self.open, &self.batch) {
            // A file whose manifest has no room for another batch is closed early.
            let listed = open.list(&batch.share);
            let is_due = listed.is_err() || open.file().is_due();
            let seen = open.file().look();
            self.unless_lost(seen)?;
            if is_due {
                self.close_file()?;
            } else if let Some(open) = &mut self.open {
                let ended = open.end_batch();
                self.unless_lost(ended)?;
            }
        }
        // Under constant load no call of `tend` ever comes.
        self.folder.work();
        Ok(self.taken())
    }

    fn try_to_tend(&mut self) -> Result<Taken, FileError> {
        self.settle()?;
        self.folder.search()?;
        if self.open.as_ref().is_some_and(|open| open.file().is_due()) {
            self.close_file()?;
        }
        self.folder.work();
        Ok(self.taken())
    }

    fn write(&mut self, records: &[Record], fields: Fields) -> Result<(), FileError> {
        let batch = self.batch.as_ref().expect("a batch begins before its records come");
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let begun = RecordFile::begin(&mut self.folder, &self.config, batch)?;
                self.open.insert(begun)
            }
        };
        let taken = open.take(&batch.share, records, fields);
        self.unless_lost(taken)
    }

    /// Whether records that were taken are still in a file without a name.
    fn taken(&self) -> Taken {
        if self.holds_nothing() { Taken::Delivered } else { Taken::Held }
    }

    /// What an error of a call costs. A file that got its name during the call was the one that had everything the sink held:
    /// what is lost then are only records of the same call, which it did not take.
    fn told(&mut self, error: FileError) -> SinkError {
        let mut error = SinkError::from(error);
        error.held_is_lost &= !self.has_delivered;
        error
    }
}

impl Sink for FilesSink {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        self.has_delivered = false;
        let batch = Begun::new(&self.name, heading);
        self.try_to_begin(batch).map_err(|error| self.told(error))
    }

    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError> {
        self.has_delivered = false;
        self.settle().map_err(|error| self.told(error))?;
        if self.has_delivered {
            // To be told before anything else is held: the sink holds everything that it has taken, or nothing.
            let message = "the file before could be finished only now; the records go into the next one";
            return Err(SinkError::new(Loss::Unwritable, message));
        }
        self.try_to_take(records, fields).map_err(|error| self.told(error))
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        self.has_delivered = false;
        self.try_to_end().map_err(|error| self.told(error))
    }

    fn holds_nothing(&self) -> bool {
        self.closed.is_none() && self.open.as_ref().is_none_or(|open| !open.file().has_records())
    }

    fn tend_at(&self) -> Option<Instant> {
        if self.folder.must_search() || self.closed.is_some() {
            return Some(Instant::now());
        }
        let close_at = self.open.as_ref().map(|open| open.file().close_at());
        close_at.into_iter().chain(self.folder.next()).min()
    }

    fn tend(&mut self) -> Result<Taken, SinkError> {
        self.has_delivered = false;
        self.try_to_tend().map_err(|error| self.told(error))
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        self.has_delivered = false;
        let closed = self.settle().and_then(|()| self.close_file());
        closed.map_err(|error| self.told(error))?;
        Ok(self.taken())
    }

    fn octets_written(&self) -> u64 {
        let unnamed = self.open.iter().chain(&self.closed);
        self.octets_written + unnamed.map(|file| file.file().octets()).sum::<u64>()
    }

    fn retention_failures(&self) -> u64 {
        self.folder.retention_failures()
    }
}

/// None of the records in a file without a name count as delivered, and nobody would finish it.
impl Drop for FilesSink {
    fn drop(&mut self) {
        for open in self.open.take().into_iter().chain(self.closed.take()) {
            open.discard();
        }
    }
}

#[cfg(test)]
mod tests;
