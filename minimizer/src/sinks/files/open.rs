//! The file that is being written, as its format wants it.

use std::time::Instant;

use super::error::FileError;
use super::manifest::{Header, Manifest, Part};
use super::parquet::Parquet;
use super::unfinished::Unfinished;
use super::{FilesConfig, Format, name};
use crate::policy::field::Fields;
use crate::records::record::Record;
use crate::sinks::json_lines;

/// More than a manifest has beside its header, and for each batch.
const MANIFEST_OCTETS: u64 = 1024;
const PART_OCTETS: u64 = 512;

/// A file that takes records.
pub(super) struct Open {
    file: Unfinished,
    format: Format,
    encoder: Encoder,
    /// Encoded, and not yet in the file: the disk refused it.
    unwritten: Vec<u8>,
    is_finished: bool,
    header: Header,
    begin_ms: u64,
    parts: Vec<Part>,
    /// For how many parts the manifest has room on the disk.
    parts_reserved: u64,
    records: u64,
    close_at: Instant,
}

enum Encoder {
    JsonLines,
    /// It keeps rows until there are enough of them: what is encoded cannot be taken back.
    Parquet(Box<Parquet>),
}

impl Open {
    /// A new file for records with this header.
    pub(super) fn begin(
        config: &FilesConfig,
        header: &Header,
        fields: Fields,
        begin_ms: u64,
        sequence: &mut u64,
    ) -> Result<Self, FileError> {
        let text = header.text(begin_ms);
        let format = config.format;
        let file = Unfinished::create(&config.directory, &header.sink, begin_ms, sequence, format)?;
        let (encoder, unwritten) = match format {
            Format::JsonLines => (Encoder::JsonLines, format!("{{\"minimizer\":{text}}}\n").into_bytes()),
            Format::Parquet => match Parquet::new(text, fields, config.compression) {
                Ok(encoder) => (Encoder::Parquet(Box::new(encoder)), Vec::new()),
                Err(source) => {
                    let path = file.path().to_owned();
                    file.discard();
                    return Err(FileError::Parquet { path, source });
                }
            },
        };
        let close_at = Instant::now() + config.rotate_every;
        let mut open = Self {
            file,
            format,
            encoder,
            unwritten,
            is_finished: false,
            header: header.clone(),
            begin_ms,
            parts: Vec::new(),
            parts_reserved: 0,
            records: 0,
            close_at,
        };
        match open.write_out() {
            Ok(()) => Ok(open),
            Err(error) => {
                open.discard();
                Err(error)
            }
        }
    }

    /// What its records have in common.
    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it has records.
    pub(super) const fn has_records(&self) -> bool {
        self.records != 0
    }

    /// When it is to be closed.
    pub(super) const fn close_at(&self) -> Instant {
        self.close_at
    }

    /// Octets written so far.
    pub(super) const fn octets(&self) -> u64 {
        self.file.octets()
    }

    /// Takes records of a batch, all or none. Where it takes them it also has room on the disk to finish the file.
    pub(super) fn take(&mut self, part: &Part, records: &[Record], fields: Fields) -> Result<(), FileError> {
        self.write_out()?;
        self.reserve_part(part)?;
        match &mut self.encoder {
            Encoder::JsonLines => {
                json_lines::append(&mut self.unwritten, records, fields);
                let octets = u64::try_from(self.unwritten.len()).unwrap_or(u64::MAX);
                let written = self.file.reserve(octets).and_then(|()| self.file.append(&self.unwritten));
                self.unwritten.clear();
                written?;
            }
            Encoder::Parquet(parquet) => {
                self.file.reserve(parquet.octets_to_come(records.len()))?;
                parquet
                    .append(&mut self.unwritten, records, fields)
                    .map_err(|source| FileError::Parquet { path: self.file.path().to_owned(), source })?;
                // The records are taken, in memory. What the disk refuses now is tried again by the next call.
                if let Err(error) = self.write_out()
                    && error.is_loss()
                {
                    return Err(error);
                }
            }
        }
        self.records += u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.part(part).add(records, fields);
        Ok(())
    }

    /// Notes a batch that may have no records.
    pub(super) fn note(&mut self, part: &Part) -> Result<(), FileError> {
        self.reserve_part(part)?;
        self.part(part);
        Ok(())
    }

    fn part(&mut self, part: &Part) -> &mut Part {
        let position = match self.parts.last() {
            Some(last) if last.number == part.number => self.parts.len() - 1,
            _ => {
                self.parts.push(part.clone());
                self.parts.len() - 1
            }
        };
        &mut self.parts[position]
    }

    fn reserve_part(&mut self, part: &Part) -> Result<(), FileError> {
        let is_known = self.parts.last().is_some_and(|last| last.number == part.number);
        let parts = u64::try_from(self.parts.len()).unwrap_or(u64::MAX) + u64::from(!is_known);
        if parts > self.parts_reserved {
            let header = u64::try_from(self.header.text(self.begin_ms).len()).unwrap_or(u64::MAX);
            // Twice as many: the disk is not asked for each.
            self.file.reserve_manifest(MANIFEST_OCTETS + 2 * header + 2 * parts * PART_OCTETS)?;
            self.parts_reserved = 2 * parts;
        }
        Ok(())
    }

    /// Writes what the disk refused before.
    pub(super) fn write_out(&mut self) -> Result<(), FileError> {
        if !self.unwritten.is_empty() {
            self.file.append(&self.unwritten)?;
            self.unwritten.clear();
        }
        Ok(())
    }

    /// Finds out whether somebody has removed the file meanwhile.
    pub(super) fn look(&self) -> Result<(), FileError> {
        self.file.look()
    }

    /// Finishes the file and gives it its name. After an error that is no loss this can be called again.
    pub(super) fn publish(&mut self, sequence: &mut u64) -> Result<Manifest, FileError> {
        if !self.is_finished {
            if let Encoder::Parquet(parquet) = &mut self.encoder {
                parquet
                    .finish(&mut self.unwritten)
                    .map_err(|source| FileError::Parquet { path: self.file.path().to_owned(), source })?;
            }
            self.is_finished = true;
        }
        self.write_out()?;
        let begin = name::time(self.begin_ms);
        let mut manifest = Manifest {
            file: String::new(),
            format: self.format,
            octets: 0,
            sha256: String::new(),
            records: self.records,
            begin,
            end: self.parts.last().map_or(begin, |part| part.end),
            header: self.header.clone(),
            batches: self.parts.clone(),
        };
        self.file.publish(&mut manifest, sequence)?;
        Ok(manifest)
    }

    /// Removes the file, which has no name yet.
    pub(super) fn discard(self) {
        self.file.discard();
    }
}
