//! The sink: which records go into which file, and when a file is closed.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::time::Instant;

use super::FilesConfig;
use super::error::FileError;
use super::leftovers;
use super::manifest::{Header, Part};
use super::open::Open;
use super::retention::Retention;
use crate::delivery::loss::Loss;
use crate::delivery::sink::{Heading, Sink, SinkError, Taken};
use crate::policy::field::Fields;
use crate::records::record::Record;

/// Owner: all; group: read and enter.
const DIRECTORY_MODE: u32 = 0o750;

/// Writes files.
pub(super) struct FilesSink {
    name: String,
    config: FilesConfig,
    /// The batch that has begun.
    batch: Option<Begun>,
    open: Option<Open>,
    /// Closed, and not yet named: the disk refused something.
    closed: Option<Open>,
    /// Whether files were closed since the last call that could say so.
    is_untold: bool,
    /// Whether what earlier runs left was looked for.
    is_searched: bool,
    retention: Retention,
    /// Number of the latest file.
    sequence: u64,
    octets_written: u64,
}

struct Begun {
    header: Header,
    fields: Fields,
    begin_ms: u64,
    part: Part,
}

impl FilesSink {
    pub(super) fn new(name: &str, config: &FilesConfig) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
            batch: None,
            open: None,
            closed: None,
            is_untold: false,
            is_searched: false,
            retention: Retention::new(&config.directory, name),
            sequence: 0,
            octets_written: 0,
        }
    }

    fn make_directory(&self) -> Result<(), FileError> {
        let directory = &self.config.directory;
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
        made.map_err(FileError::io("make the directory", directory))
    }

    /// Looks, once, for what earlier runs left.
    fn search(&mut self) -> Result<(), FileError> {
        if !self.is_searched {
            self.make_directory()?;
            leftovers::clear(&self.config.directory, &self.name)?;
            self.retention.search()?;
            self.is_searched = true;
        }
        Ok(())
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
            Some(open) if open.has_records() => {
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
        let Some(open) = &mut self.closed else { return Ok(()) };
        match open.publish(&mut self.sequence) {
            Ok(manifest) => {
                self.octets_written += manifest.octets;
                self.retention.add(&manifest);
                self.closed = None;
                self.is_untold = true;
                Ok(())
            }
            Err(error) => {
                if error.is_loss()
                    && let Some(open) = self.closed.take()
                {
                    open.discard();
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
                self.make_directory()?;
                let open = Open::begin(
                    &self.config,
                    &batch.header,
                    batch.fields,
                    batch.begin_ms,
                    &mut self.sequence,
                )?;
                self.open.insert(open)
            }
        };
        let taken = open.take(&batch.part, records, fields);
        Ok(self.unless_lost(taken)?)
    }

    /// Whether something of what was taken has no name yet.
    fn taken(&mut self) -> Taken {
        if self.closed.is_some() || self.open.as_ref().is_some_and(Open::has_records) {
            return Taken::Held;
        }
        self.is_untold = false;
        Taken::Delivered
    }
}

impl Sink for FilesSink {
    fn begin(&mut self, heading: &Heading<'_>) -> Result<(), SinkError> {
        self.settle()?;
        self.search()?;
        let header = Header::of(&self.name, heading);
        if self.open.as_ref().is_some_and(|open| *open.header() != header) {
            self.close_file()?;
        }
        self.retention.promise(&header);
        self.batch = Some(Begun {
            header,
            fields: heading.fields,
            begin_ms: heading.begin_ms,
            part: Part::of(heading),
        });
        Ok(())
    }

    fn take(&mut self, records: &[Record], fields: Fields) -> Result<Taken, SinkError> {
        self.settle()?;
        if let Err(error) = self.write(records, fields) {
            // The disk has room to finish what is whole, which was reserved: nobody need wait for it until there is more. When
            // that fails all the same the next call tries again and says why.
            if error.loss == Loss::DiskFull
                && let Err(loss) = self.close_file()
                && loss.is_loss()
            {
                return Err(loss.into());
            }
            return Err(error);
        }
        if self.open.as_ref().is_some_and(|open| open.octets() >= self.config.rotate_octets) {
            // The records are taken, whatever becomes of this; the next call says so when it failed.
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
            // Where there is no room for the note a file is closed earlier.
            let noted = open.note(&batch.part);
            let is_due = noted.is_err() || self.is_untold || Instant::now() >= open.close_at();
            let seen = open.look();
            self.unless_lost(seen)?;
            if is_due {
                self.close_file()?;
            }
        }
        // There may be no pause in which it would be done otherwise. What fails is tried again, and told, in the next one.
        self.retention.work().ok();
        Ok(self.taken())
    }

    fn tend_at(&self) -> Option<Instant> {
        if !self.is_searched || self.closed.is_some() {
            return Some(Instant::now());
        }
        let close_at = self.open.as_ref().map(Open::close_at);
        close_at.into_iter().chain(self.retention.next()).min()
    }

    fn tend(&mut self) -> Result<Taken, SinkError> {
        self.settle()?;
        self.search()?;
        if self.open.as_ref().is_some_and(|open| Instant::now() >= open.close_at()) {
            self.close_file()?;
        }
        self.retention.work()?;
        Ok(self.taken())
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        self.settle()?;
        self.close_file()?;
        Ok(self.taken())
    }

    fn octets_written(&self) -> u64 {
        self.octets_written + self.open.iter().chain(&self.closed).map(Open::octets).sum::<u64>()
    }
}

/// An agent that is stopped hard leaves a file that nobody would finish.
impl Drop for FilesSink {
    fn drop(&mut self) {
        for open in self.open.take().into_iter().chain(self.closed.take()) {
            open.discard();
        }
    }
}

#[cfg(test)]
mod tests;
