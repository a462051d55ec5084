//! Files of messages (RFC 5655): each is a session of its own, and records count as delivered when the disk has them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::carrier::{Carrier, Retirement};
use super::outbox::Outbox;
use crate::delivery::ending::Ending;
use crate::delivery::sink::{Heading, SinkError, Taken};
use crate::sinks::folder::{Begun, Encoding, FileError, Folder, OpenFile};

/// Writes files.
pub(super) struct Files {
    folder: Folder,
    /// Name of the sink.
    name: String,
    rotate_every: Duration,
    rotate_octets: u64,
    /// The batch that has begun.
    batch: Option<Begun>,
    open: Option<OpenFile>,
    /// Whether the open file was taken back to its last checkpoint: nothing more may come into it.
    is_closing: bool,
    /// Whether a batch begins: what the open file has then was told, so that another may follow it.
    may_rotate: bool,
    /// Whether the disk and the journal have all that was written.
    is_safe: bool,
    octets_written: u64,
}

impl Files {
    pub(super) fn new(directory: &Path, name: String, rotate_every: Duration, rotate_octets: u64) -> Self {
        Self {
            folder: Folder::new(directory, &name),
            name,
            rotate_every,
            rotate_octets,
            batch: None,
            open: None,
            is_closing: false,
            may_rotate: false,
            is_safe: true,
            octets_written: 0,
        }
    }

    /// The same, which also deletes the files of these directories, and names no file once it is abandoned.
    pub(super) fn adopting(mut self, former: Vec<PathBuf>, ending: &Ending) -> Self {
        self.folder.adopt(former);
        self.folder.heed(ending);
        self
    }

    fn is_due(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let is_another = self.batch.as_ref().is_some_and(|batch| batch.header != *open.header());
            self.is_closing || is_another || open.is_due() || open.octets() >= self.rotate_octets
        })
    }

    /// Gives the open file its name. Records are delivered with it, so it has either everything that the sink holds, or
    /// nothing but what it was told at the last checkpoint: the rest of the file is then written again, to the next one.
    fn publish(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if self.is_closing || !outbox.is_sent() {
            self.is_closing = true;
            let is_any = open.rewind();
            outbox.restart(0);
            if !is_any {
                if let Some(open) = self.open.take() {
                    open.discard();
                }
                self.forget();
                return Ok(());
            }
        }
        match self.folder.publish(open) {
            Ok(_) => {
                if !self.is_closing {
                    outbox.arrived(usize::MAX);
                }
                self.forget();
                Ok(())
            }
            Err(error) => Err(self.failed(outbox, error)),
        }
    }

    /// What an error means. A file that cannot be trusted any more is completed up to its last checkpoint, as after a
    /// crash; what came after the checkpoint is still in the outbox, and goes into the next file.
    fn failed(&mut self, outbox: &mut Outbox, error: FileError) -> SinkError {
        if error.is_loss() && self.open.is_some() {
            self.forget();
            outbox.restart(0);
            self.folder.leave_behind();
        }
        error.without_loss()
    }

    fn forget(&mut self) {
        (self.open, self.is_closing, self.is_safe) = (None, false, true);
    }

    /// Begins a file, if none is open; `true` when it did.
    fn begin(&mut self) -> Result<bool, FileError> {
        self.folder.search()?;
        let Some(batch) = &self.batch else { return Ok(false) };
        if let Some(open) = &mut self.open {
            open.list(&batch.share)?;
            return Ok(false);
        }
        let mut open = self.folder.begin(batch, Encoding::Ipfix, self.rotate_every)?;
        if let Err(error) = open.list(&batch.share) {
            open.discard();
            return Err(error);
        }
        self.open = Some(open);
        Ok(true)
    }
}

impl Carrier for Files {
    fn heed(&mut self, heading: &Heading<'_>) -> bool {
        let batch = Begun::new(&self.name, heading);
        self.folder.promise(&batch.header);
        let is_another = self.open.as_ref().is_none_or(|open| *open.header() != batch.header);
        self.batch = Some(batch);
        self.may_rotate = true;
        is_another
    }

    fn open(&mut self, outbox: &mut Outbox) -> Result<bool, SinkError> {
        if self.is_closing || std::mem::take(&mut self.may_rotate) && self.is_due() {
            self.publish(outbox)?;
        }
        self.begin().map_err(|error| self.failed(outbox, error))
    }

    fn send(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        while let Some(message) = outbox.next()? {
            let (Some(open), Some(batch)) = (&mut self.open, &self.batch) else { return Ok(()) };
            if let Err(error) = open.append(&message.octets) {
                return Err(self.failed(outbox, error));
            }
            // A batch ends when all its messages are sent: these are of the one that has begun.
            open.count(&batch.share, message.sums);
            self.is_safe = false;
            self.octets_written += u64::try_from(message.octets.len()).unwrap_or(0);
            outbox.sent();
        }
        Ok(())
    }

    fn confirm(&mut self, outbox: &mut Outbox, patience: Duration) -> Result<Taken, SinkError> {
        if outbox.is_sent() && self.is_due() {
            self.publish(outbox)?;
            self.folder.work();
            return Ok(Taken::Delivered);
        }
        if !self.is_safe && patience.is_zero() {
            return Ok(Taken::Held);
        }
        if let Some(open) = &mut self.open
            && !self.is_safe
        {
            open.checkpoint().map_err(|error| self.failed(outbox, error))?;
            self.is_safe = true;
            // Under constant load no call of `tend` ever comes.
            self.folder.work();
        }
        outbox.arrived(usize::MAX);
        Ok(if outbox.is_sent() { Taken::Delivered } else { Taken::Held })
    }

    fn retirement(&self) -> Retirement {
        // Other fields are another header, and so another file, which does not have the former templates.
        Retirement::Forgotten
    }

    fn tend_at(&self) -> Option<Instant> {
        if self.folder.must_search() {
            return Some(Instant::now());
        }
        let close_at = self.open.as_ref().map(OpenFile::close_at);
        close_at.into_iter().chain(self.folder.next()).min()
    }

    fn tend(&mut self, outbox: &mut Outbox) -> Result<(), SinkError> {
        self.folder.search().map_err(FileError::without_loss)?;
        if self.is_due() {
            self.publish(outbox)?;
        }
        self.folder.work();
        Ok(())
    }

    fn close(&mut self, outbox: &mut Outbox) -> Result<Taken, SinkError> {
        self.publish(outbox)?;
        Ok(if outbox.is_sent() { Taken::Delivered } else { Taken::Held })
    }

    fn holds_nothing(&self, outbox: &Outbox) -> bool {
        !outbox.has_flows()
    }

    fn octets_written(&self) -> u64 {
        self.octets_written
    }

    fn retention_failures(&self) -> u64 {
        self.folder.retention_failures()
    }
}
