//! Decides which records go into which file, and when a file is closed.

use std::time::Instant;

use super::FilesConfig;
use super::record_file::RecordFile;
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
    /// Whether files were named since the last call that could report it.
    is_untold: bool,
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
            is_untold: false,
            octets_written: 0,
        }
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
                self.is_untold = true;
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

    fn write(&mut self, records: &[Record], fields: Fields) -> Result<(), SinkError> {
        let Some(batch) = &self.batch else {
            return Err(SinkError::new(Loss::Unwritable, "records came without a batch"));
        };
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let begun = RecordFile::begin(&mut self.folder, &self.config, batch)?;
                self.open.insert(begun)
            }
        };
        let taken = open.take(&batch.share, records, fields);
        Ok(self.unless_lost(taken)?)
    }

    /// Whether records that were taken are still in a file without a name.
    fn taken(&mut self) -> Taken {
        if self.closed.is_some() || self.open.as_ref().is_some_and(|open| open.file().has_records()) {
            return Taken::Held;
        }
        self.is_untold = false;
        Taken::Delivered
    }
}

impl Sink for FilesSink {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        self.settle()?;
        self.folder.search()?;
        let batch = Begun::new(&self.name, heading);
        if self.open.as_ref().is_some_and(|open| *open.file().header() != batch.header) {
            self.close_file()?;
        }
        self.folder.promise(&batch.header);
        self.batch = Some(batch);
        Ok(())
    }

    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError> {
        self.settle()?;
        if let Err(error) = self.write(records, fields) {
            // The room to finish the file was reserved, so that its records can be delivered although the disk is full. When
            // that fails all the same, the next call tries again and says why.
            if error.loss == Loss::DiskFull
                && let Err(loss) = self.close_file()
                && loss.is_loss()
            {
                return Err(loss.into());
            }
            return Err(error);
        }
        if self.open.as_ref().is_some_and(|open| open.file().octets() >= self.config.rotate_octets) {
            // The records are taken, whether or not this works; the next call reports a failure.
            match self.close_file() {
                Err(error) if error.is_loss() => return Err(error.into()),
                _ => return Ok(self.taken()),
            }
        }
        Ok(Taken::Held)
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        self.settle()?;
        if let (Some(open), Some(batch)) = (&mut self.open, &self.batch) {
            // A file whose manifest has no room for another batch is closed early.
            let listed = open.list(&batch.share);
            let is_due = listed.is_err() || self.is_untold || Instant::now() >= open.file().close_at();
            let seen = open.file().look();
            self.unless_lost(seen)?;
            if is_due {
                self.close_file()?;
            }
        }
        // Under constant load no call of `tend` ever comes. A failure is reported by the next one that does.
        self.folder.work().ok();
        Ok(self.taken())
    }

    fn tend_at(&self) -> Option<Instant> {
        if self.folder.must_search() || self.closed.is_some() {
            return Some(Instant::now());
        }
        let close_at = self.open.as_ref().map(|open| open.file().close_at());
        close_at.into_iter().chain(self.folder.next()).min()
    }

    fn tend(&mut self) -> Result<Taken, SinkError> {
        self.settle()?;
        self.folder.search()?;
        if self.open.as_ref().is_some_and(|open| Instant::now() >= open.file().close_at()) {
            self.close_file()?;
        }
        self.folder.work()?;
        Ok(self.taken())
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        self.settle()?;
        self.close_file()?;
        Ok(self.taken())
    }

    fn octets_written(&self) -> u64 {
        let unnamed = self.open.iter().chain(&self.closed);
        self.octets_written + unnamed.map(|file| file.file().octets()).sum::<u64>()
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
