//! The record file that is being written, encoded as its format wants it.

use super::parquet::Parquet;
use super::{FilesConfig, Format};
use crate::policy::field::Fields;
use crate::records::record::Record;
use crate::sinks::folder::{BatchShare, Begun, FileError, Folder, Manifest, OpenFile, Sums};
use crate::sinks::json_lines;

/// A file that takes records.
pub(super) struct RecordFile {
    file: OpenFile,
    encoder: RecordEncoder,
    /// Encoded, and not yet in the file: the disk refused it.
    unwritten: Vec<u8>,
    /// Footers of row groups of which the journal does not know yet.
    footers: Vec<Vec<u8>>,
    is_finished: bool,
}

enum RecordEncoder {
    JsonLines,
    /// Keeps rows until there are enough of them: what is encoded cannot be taken back.
    Parquet(Box<Parquet>),
}

impl RecordFile {
    /// A new file for this batch and those that follow.
    pub(super) fn begin(folder: &mut Folder, config: &FilesConfig, batch: &Begun) -> Result<Self, FileError> {
        let text = batch.header.text(batch.begin_ms);
        let file = folder.begin(batch, config.format.encoding(), config.rotate_every)?;
        let (encoder, unwritten) = match config.format {
            Format::JsonLines => {
                (RecordEncoder::JsonLines, format!("{{\"minimizer\":{text}}}\n").into_bytes())
            }
            Format::Parquet => match Parquet::new(text, batch.fields, config.compression) {
                Ok(encoder) => (RecordEncoder::Parquet(Box::new(encoder)), Vec::new()),
                Err(source) => {
                    let error = unencodable(&file, source);
                    file.discard();
                    return Err(error);
                }
            },
        };
        let mut begun = Self { file, encoder, unwritten, footers: Vec::new(), is_finished: false };
        match begun.write_out() {
            Ok(()) => Ok(begun),
            Err(error) => {
                begun.discard();
                Err(error)
            }
        }
    }

    /// The file, without what is still to be written to it.
    pub(super) const fn file(&self) -> &OpenFile {
        &self.file
    }

    /// Takes records of a batch, all or none. When it takes them, the disk also has room to finish the file.
    pub(super) fn take(
        &mut self,
        batch: &BatchShare,
        records: &[Record],
        fields: Fields,
    ) -> Result<(), FileError> {
        self.write_out()?;
        self.file.reserve_batch(batch)?;
        match &mut self.encoder {
            RecordEncoder::JsonLines => {
                json_lines::append(&mut self.unwritten, records, fields);
                let octets = u64::try_from(self.unwritten.len()).unwrap_or(u64::MAX);
                let written = self.file.reserve(octets).and_then(|()| self.file.append(&self.unwritten));
                self.unwritten.clear();
                written?;
            }
            RecordEncoder::Parquet(parquet) => {
                self.file.reserve(parquet.octets_to_come(records.len()))?;
                parquet
                    .append(&mut self.unwritten, records, fields)
                    .map_err(|source| unencodable(&self.file, source))?;
                // The records are taken, in memory. The next call writes what the disk refuses now.
                if let Err(error) = self.write_out()
                    && error.is_loss()
                {
                    return Err(error);
                }
            }
        }
        self.file.count(batch, Sums::of(records, fields));
        if matches!(self.encoder, RecordEncoder::Parquet(_)) {
            self.note();
        }
        Ok(())
    }

    /// Ends a batch: what is whole of the file can be recovered from now on, whatever happens to the agent.
    pub(super) fn end_batch(&mut self) -> Result<(), FileError> {
        if let RecordEncoder::Parquet(parquet) = &mut self.encoder
            && parquet.is_group_due()
        {
            // The room was reserved when the rows were taken.
            parquet.end_group(&mut self.unwritten).map_err(|source| unencodable(&self.file, source))?;
            // The next call writes what the disk refuses now.
            if let Err(error) = self.write_out()
                && error.is_loss()
            {
                return Err(error);
            }
        }
        self.note();
        Ok(())
    }

    /// Notes in the journal that the file is good up to here, if all records that were taken are in it.
    fn note(&mut self) {
        if let RecordEncoder::Parquet(parquet) = &mut self.encoder {
            self.footers.append(&mut parquet.take_footers());
            if parquet.has_rows() {
                return;
            }
        }
        // What the disk refuses now is noted with the next batch: it would cost something only if the agent were killed.
        if self.unwritten.is_empty() && self.file.note(&self.footers).is_ok() {
            self.footers.clear();
        }
    }

    /// Lists a batch that may have no records.
    pub(super) fn list(&mut self, batch: &BatchShare) -> Result<(), FileError> {
        self.file.list(batch)
    }

    /// Writes what the disk refused before.
    pub(super) fn write_out(&mut self) -> Result<(), FileError> {
        if !self.unwritten.is_empty() {
            self.file.append(&self.unwritten)?;
            self.unwritten.clear();
        }
        Ok(())
    }

    /// Finishes the file and gives it its name. After an error that is no loss it can be called again.
    pub(super) fn publish(&mut self, folder: &mut Folder) -> Result<Manifest, FileError> {
        if !self.is_finished {
            if let RecordEncoder::Parquet(parquet) = &mut self.encoder {
                parquet.end_group(&mut self.unwritten).map_err(|source| unencodable(&self.file, source))?;
            }
            self.write_out()?;
            self.note();
            if let RecordEncoder::Parquet(parquet) = &mut self.encoder {
                parquet.finish(&mut self.unwritten).map_err(|source| unencodable(&self.file, source))?;
            }
            self.is_finished = true;
        }
        self.write_out()?;
        folder.publish(&mut self.file)
    }

    /// Removes the file, unless it has its name.
    pub(super) fn discard(self) {
        self.file.discard();
    }
}

fn unencodable(file: &OpenFile, source: parquet::errors::ParquetError) -> FileError {
    FileError::Unencodable { path: file.path(), format: "Parquet", source: Box::new(source) }
}
