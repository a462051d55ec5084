//! The footer of a Parquet file whose agent did not finish it, made of what the journal has of its row groups.

use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::SchemaDescriptor;

/// The version of the format that `created_by` writes.
const VERSION: i32 = 1;
/// Length of the footer's length, and the magic number behind it.
const TAIL_OCTETS: usize = 8;

/// What a footer says beside row groups.
pub(in crate::sinks) struct FooterOrigin<'file> {
    pub(in crate::sinks) schema: &'file SchemaDescriptor,
    pub(in crate::sinks) created_by: &'file str,
    pub(in crate::sinks) metadata: Vec<KeyValue>,
}

/// A footer for one row group alone.
pub(in crate::sinks) fn of_group(
    origin: FooterOrigin<'_>,
    group: &RowGroupMetaData,
) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(origin.schema.clone());
    let (by, metadata) = (Some(origin.created_by.to_owned()), Some(origin.metadata));
    let file = FileMetaData::new(VERSION, group.num_rows(), by, metadata, schema, None);
    write(&ParquetMetaData::new(file, vec![group.clone()]))
}

/// The footer for all row groups of these footers, in their order; `None` where there is none.
pub(super) fn join(footers: &[Vec<u8>]) -> Result<Option<Vec<u8>>, ParquetError> {
    let mut groups = Vec::new();
    let mut first = None;
    for footer in footers {
        let metadata = footer.get(..footer.len().saturating_sub(TAIL_OCTETS)).unwrap_or_default();
        let metadata = ParquetMetaDataReader::decode_metadata(metadata)?;
        groups.extend_from_slice(metadata.row_groups());
        first.get_or_insert(metadata);
    }
    let Some(first) = first else { return Ok(None) };
    let first = first.file_metadata();
    let file = FileMetaData::new(
        first.version(),
        groups.iter().map(RowGroupMetaData::num_rows).sum(),
        first.created_by().map(str::to_owned),
        first.key_value_metadata().cloned(),
        first.schema_descr_ptr(),
        None,
    );
    write(&ParquetMetaData::new(file, groups)).map(Some)
}

fn write(metadata: &ParquetMetaData) -> Result<Vec<u8>, ParquetError> {
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, metadata).finish()?;
    Ok(footer)
}
