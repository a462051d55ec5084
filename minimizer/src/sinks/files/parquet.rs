//! Records as Parquet: a typed column for each field, named as the field.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::data_type::{ByteArray, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::ColumnCompression;
use crate::policy::field::{Field, Fields, Kind};
use crate::records::fields::{Number, Reader, Variant, done, octets, read_one};
use crate::records::record::Record;
use crate::sinks::folder::{FooterOrigin, of_group};

/// Rows of a row group. So many are held in memory until they are encoded.
pub(super) const ROW_GROUP_ROWS: usize = 1 << 16;
/// A row group with fewer rows is ended after this time: until then its rows are in memory only.
const ROW_GROUP_TIME: Duration = Duration::from_secs(60);
/// More octets than a page header, a column's description in the footer and its entry in a row group take together.
const COLUMN_OCTETS: u64 = 1024;
/// The fastest of zstd's usual levels.
const ZSTD_LEVEL: i32 = 1;

/// Makes a Parquet file, in pieces to be written one after the other.
pub(super) struct Parquet {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Column>,
    /// Rows in the columns.
    rows: usize,
    /// The fields of each record that is being added.
    present: Vec<Fields>,
    /// When the first row came into the columns.
    begun_at: Option<Instant>,
    /// Row groups encoded so far.
    groups: u64,
    /// A footer for each row group that nobody has fetched.
    footers: Vec<Vec<u8>>,
    header_octets: u64,
}

struct Column {
    field: Field,
    values: Values,
    /// 1 for each row with a value, 0 for each without.
    levels: Vec<i16>,
}

enum Values {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Address(Vec<u8>),
}

impl Parquet {
    /// A file with a column for each of these fields, and `header` in its metadata.
    pub(super) fn new(
        header: String,
        fields: Fields,
        compression: ColumnCompression,
    ) -> Result<Self, ParquetError> {
        let fields: Vec<Field> = Field::ALL.iter().copied().filter(|field| fields.has(*field)).collect();
        let schema = fields.iter().map(|field| format!("{};", definition(*field)));
        let schema = parse_message_type(&format!("message record {{ {} }}", schema.collect::<String>()))?;
        let codec = match compression {
            ColumnCompression::None => Codec::UNCOMPRESSED,
            ColumnCompression::Zstd => Codec::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?),
        };
        let header_octets = length(header.len());
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("minimizer version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(codec)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_key_value_metadata(Some(vec![KeyValue::new("minimizer".to_owned(), header)]));
        for field in &fields {
            let path = ColumnPath::from(field.name());
            properties = properties.set_column_dictionary_enabled(path, repeats(*field));
        }
        let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties.build()))?;
        let columns = fields.into_iter().map(Column::new).collect();
        Ok(Self {
            writer,
            columns,
            rows: 0,
            present: Vec::new(),
            begun_at: None,
            groups: 0,
            footers: Vec::new(),
            header_octets,
        })
    }

    /// At most so many octets are still to come if so many records are added and the file is then finished.
    pub(super) fn octets_to_come(&self, records: usize) -> u64 {
        let columns = length(self.columns.len());
        let values: u64 = self.columns.iter().map(|column| column.octets(records)).sum();
        // A dictionary and the indices into it can take more octets than the values, but less than twice as many.
        2 * values + COLUMN_OCTETS * columns * (self.groups + 2) + 2 * self.header_octets
    }

    /// Adds a row with these fields for each record, and appends to `file` what can be written by now.
    pub(super) fn append(
        &mut self,
        file: &mut Vec<u8>,
        records: &[Record],
        fields: Fields,
    ) -> Result<(), ParquetError> {
        self.present.clear();
        self.present.extend(records.iter().map(|record| fields.and(Variant::of(record).fields())));
        for column in &mut self.columns {
            column.append(records, &self.present);
        }
        self.rows += records.len();
        self.begun_at.get_or_insert_with(Instant::now);
        if self.rows >= ROW_GROUP_ROWS {
            self.end_row_group()?;
        }
        file.append(self.writer.inner_mut());
        Ok(())
    }

    /// Whether it has rows that are in no row group yet.
    pub(super) const fn has_rows(&self) -> bool {
        self.rows != 0
    }

    /// Whether its rows have been in memory for so long that their row group should end.
    pub(super) fn is_group_due(&self) -> bool {
        self.rows != 0 && self.begun_at.is_some_and(|begun| begun.elapsed() >= ROW_GROUP_TIME)
    }

    /// Ends the row group, if there are rows for one, and appends it to `file`.
    pub(super) fn end_group(&mut self, file: &mut Vec<u8>) -> Result<(), ParquetError> {
        if self.rows != 0 {
            self.end_row_group()?;
        }
        file.append(self.writer.inner_mut());
        Ok(())
    }

    /// The footers of row groups that ended since the last call: each for one of them alone.
    pub(super) fn take_footers(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.footers)
    }

    /// Ends the file. Nothing can be added after that.
    pub(super) fn finish(&mut self, file: &mut Vec<u8>) -> Result<(), ParquetError> {
        if self.rows != 0 {
            self.end_row_group()?;
        }
        self.writer.finish()?;
        file.append(self.writer.inner_mut());
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.ok_or_else(|| {
                ParquetError::General(format!("the schema has no column for {}", column.field))
            })?;
            // A column that is never empty has no levels.
            let levels = (!is_always_present(column.field)).then_some(&*column.levels);
            match &mut column.values {
                Values::Int32(values) => {
                    writer.typed::<Int32Type>().write_batch(values, levels, None)?;
                    values.clear();
                }
                Values::Int64(values) => {
                    writer.typed::<Int64Type>().write_batch(values, levels, None)?;
                    values.clear();
                }
                Values::Address(values) => {
                    let octets = Bytes::from(std::mem::take(values));
                    let addresses = (0..octets.len() / 16).map(|at| octets.slice(at * 16..at * 16 + 16));
                    let addresses: Vec<FixedLenByteArray> =
                        addresses.map(|octets| ByteArray::from(octets).into()).collect();
                    writer.typed::<FixedLenByteArrayType>().write_batch(&addresses, levels, None)?;
                }
            }
            writer.close()?;
            column.levels.clear();
        }
        let group = group.close()?;
        let properties = self.writer.properties();
        let origin = FooterOrigin {
            schema: self.writer.schema_descr(),
            created_by: properties.created_by(),
            metadata: properties.key_value_metadata().cloned().unwrap_or_default(),
        };
        self.footers.push(of_group(origin, &group)?);
        (self.rows, self.begun_at) = (0, None);
        self.groups += 1;
        Ok(())
    }
}

impl Column {
    const fn new(field: Field) -> Self {
        let values = match octets(field) {
            16 => Values::Address(Vec::new()),
            8 => Values::Int64(Vec::new()),
            _ => Values::Int32(Vec::new()),
        };
        Self { field, values, levels: Vec::new() }
    }

    /// Octets of the values, if so many are added.
    fn octets(&self, more: usize) -> u64 {
        let (octets, each) = match &self.values {
            Values::Int32(values) => (size_of_val(&**values), 4),
            Values::Int64(values) => (size_of_val(&**values), 8),
            Values::Address(values) => (values.len(), 16),
        };
        // Each row has a level of one bit.
        length(octets + more * each + (self.levels.len() + more) / 8)
    }

    /// Adds the value of each record, if `present` says that it has one.
    fn append(&mut self, records: &[Record], present: &[Fields]) {
        let field = self.field;
        self.levels.extend(present.iter().map(|present| i16::from(present.has(field))));
        done(read_one(field, &mut Cells { values: &mut self.values, records, present }));
    }
}

/// The cells of a column that are being added.
struct Cells<'records> {
    values: &'records mut Values,
    records: &'records [Record],
    present: &'records [Fields],
}

impl<'records> Cells<'records> {
    #[inline(always)]
    fn having(&self, field: Field) -> impl Iterator<Item = &'records Record> + use<'records> {
        let rows = self.records.iter().zip(self.present);
        rows.filter(move |(_, present)| present.has(field)).map(|(record, _)| record)
    }
}

impl Reader for Cells<'_> {
    type Error = Infallible;

    #[inline(always)]
    fn number<N: Number>(&mut self, field: Field, of: impl Fn(&Record) -> N) -> Result<(), Infallible> {
        let values = self.having(field).map(|record| -> u64 { of(record).into() });
        match self.values {
            // A column has 32 bits only if its field's type has no more, so no value is lost.
            Values::Int32(column) => {
                column.extend(values.filter_map(|value| u32::try_from(value).ok()).map(u32::cast_signed));
            }
            Values::Int64(column) => column.extend(values.map(u64::cast_signed)),
            Values::Address(_) => unreachable!("a column of numbers"),
        }
        Ok(())
    }

    #[inline(always)]
    fn ipv4(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 4]) -> Result<(), Infallible> {
        self.number(field, |record| u32::from_be_bytes(of(record)))
    }

    #[inline(always)]
    fn ipv6(&mut self, field: Field, of: impl Fn(&Record) -> [u8; 16]) -> Result<(), Infallible> {
        let having = self.having(field);
        let Values::Address(values) = self.values else { unreachable!("a column of IPv6 addresses") };
        having.for_each(|record| values.extend_from_slice(&of(record)));
        Ok(())
    }
}

/// A column in Parquet's schema language.
fn definition(field: Field) -> String {
    let (of, is) = match (field.kind(), octets(field)) {
        (Kind::Time, _) => ("int64", "(TIMESTAMP(MILLIS,true))"),
        (_, 1) => ("int32", "(INTEGER(8,false))"),
        (_, 2) => ("int32", "(INTEGER(16,false))"),
        // ClickHouse takes this for IPv4 and 16 octets for IPv6 without a conversion.
        (_, 4) => ("int32", "(INTEGER(32,false))"),
        (_, 8) => ("int64", "(INTEGER(64,false))"),
        _ => ("fixed_len_byte_array(16)", ""),
    };
    let presence = if is_always_present(field) { "required" } else { "optional" };
    format!("{presence} {of} {field} {is}")
}

/// Whether every record has the field: it is in the record of what was held back too. Readers that have no empty integers
/// then keep such a column as one of integers.
const fn is_always_present(field: Field) -> bool {
    matches!(field.kind(), Kind::Count | Kind::Time)
}

/// Whether values of the field repeat so often that a dictionary pays off.
const fn repeats(field: Field) -> bool {
    !matches!(field.kind(), Kind::Ipv4Address | Kind::Ipv6Address)
}

fn length(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}
