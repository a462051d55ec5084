//! Records as Parquet: a typed column for each field, named as the field.

use std::sync::Arc;

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
use crate::records::record::{Record, Transport};

/// Rows of a row group, which are kept in memory until they are encoded.
pub(super) const ROW_GROUP_ROWS: usize = 1 << 16;
/// More than a column takes beside its values: the header of a page, its description in the footer, its entry in a row group.
const COLUMN_OCTETS: u64 = 1024;
/// The fastest of Zstandard's usual levels.
const ZSTD_LEVEL: i32 = 1;

/// Encodes a Parquet file, in pieces to be written one after the other.
pub(super) struct Parquet {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Column>,
    /// Rows in the columns, not encoded yet.
    rows: usize,
    /// Encoded row groups.
    groups: u64,
    header_octets: u64,
}

struct Column {
    field: Field,
    values: Values,
    /// For each row, 1 if it has a value and 0 otherwise.
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
        let schema = fields.iter().map(|field| format!("optional {};", definition(*field)));
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
        Ok(Self { writer, columns, rows: 0, groups: 0, header_octets })
    }

    /// The most octets that adding so many records and finishing the file can still produce.
    pub(super) fn octets_to_come(&self, records: usize) -> u64 {
        let columns = length(self.columns.len());
        let values: u64 = self.columns.iter().map(|column| column.octets(records)).sum();
        // A dictionary and the indices into it can take more than the values themselves, but not twice as much.
        2 * values + COLUMN_OCTETS * columns * (self.groups + 2) + 2 * self.header_octets
    }

    /// Adds a row for each record, with these fields, and appends to `octets` what is to be written to the file.
    pub(super) fn append(
        &mut self,
        octets: &mut Vec<u8>,
        records: &[Record],
        fields: Fields,
    ) -> Result<(), ParquetError> {
        for column in &mut self.columns {
            column.append(records, fields);
        }
        self.rows += records.len();
        if self.rows >= ROW_GROUP_ROWS {
            self.end_row_group()?;
        }
        octets.append(self.writer.inner_mut());
        Ok(())
    }

    /// Finishes the file: no row can be added any more.
    pub(super) fn finish(&mut self, octets: &mut Vec<u8>) -> Result<(), ParquetError> {
        if self.rows != 0 {
            self.end_row_group()?;
        }
        self.writer.finish()?;
        octets.append(self.writer.inner_mut());
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.ok_or_else(|| {
                ParquetError::General(format!("the schema has no column for {}", column.field))
            })?;
            let levels = Some(&*column.levels);
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
        group.close()?;
        self.rows = 0;
        self.groups += 1;
        Ok(())
    }
}

impl Column {
    const fn new(field: Field) -> Self {
        let values = match field.kind() {
            Kind::Ipv6Address => Values::Address(Vec::new()),
            Kind::Count | Kind::Time => Values::Int64(Vec::new()),
            Kind::Number if matches!(field, Field::SelectorId) => Values::Int64(Vec::new()),
            Kind::Ipv4Address | Kind::Port | Kind::ControlBits | Kind::Number => Values::Int32(Vec::new()),
        };
        Self { field, values, levels: Vec::new() }
    }

    /// Octets of the values when so many are added.
    fn octets(&self, more: usize) -> u64 {
        let (octets, each) = match &self.values {
            Values::Int32(values) => (size_of_val(&**values), 4),
            Values::Int64(values) => (size_of_val(&**values), 8),
            Values::Address(values) => (values.len(), 16),
        };
        // Each row has a level of one bit.
        length(octets + more * each + (self.levels.len() + more) / 8)
    }

    fn append(&mut self, records: &[Record], fields: Fields) {
        use Field as F;
        if !fields.has(self.field) {
            return self.levels.resize(self.levels.len() + records.len(), 0);
        }
        macro_rules! is {
            ($record:ident, $($transport:ident)|+) => {
                matches!(Transport::of($record.tuple.protocol()), $(Transport::$transport)|+)
            };
        }
        match self.field {
            F::SourceIPv4Address => {
                self.numbers(records, |it| is_ipv4(it).then(|| u32::from_be_bytes(it.tuple.ipv4().0)));
            }
            F::DestinationIPv4Address => {
                self.numbers(records, |it| is_ipv4(it).then(|| u32::from_be_bytes(it.tuple.ipv4().1)));
            }
            F::SourceIPv6Address => self.addresses(records, |it| it.tuple.ipv6().0),
            F::DestinationIPv6Address => self.addresses(records, |it| it.tuple.ipv6().1),
            F::SourceTransportPort => {
                self.numbers(records, |it| is!(it, Tcp | Ports).then(|| it.tuple.source_port()));
            }
            F::DestinationTransportPort => {
                self.numbers(records, |it| is!(it, Tcp | Ports).then(|| it.tuple.destination_port()));
            }
            F::ProtocolIdentifier => self.numbers(records, |it| Some(it.tuple.protocol())),
            F::IpClassOfService => self.numbers(records, |it| Some(it.tuple.traffic_class())),
            F::TcpControlBits => self.numbers(records, |it| is!(it, Tcp).then_some(it.control_bits)),
            F::IcmpTypeIPv4 => self.numbers(records, |it| is!(it, Icmp).then(|| it.tuple.source_port())),
            F::IcmpCodeIPv4 => self.numbers(records, |it| is!(it, Icmp).then(|| it.tuple.destination_port())),
            F::IcmpTypeIPv6 => self.numbers(records, |it| is!(it, IcmpV6).then(|| it.tuple.source_port())),
            F::IcmpCodeIPv6 => {
                self.numbers(records, |it| is!(it, IcmpV6).then(|| it.tuple.destination_port()))
            }
            F::VlanId => self.numbers(records, |it| it.tuple.tags().vlan_id()),
            F::Dot1qCustomerVlanId => self.numbers(records, |it| it.tuple.tags().customer_vlan_id()),
            F::IngressInterface => self.numbers(records, |it| Some(it.ingress_interface)),
            F::SelectorId => self.counts(records, |it| (it.selector_id != 0).then_some(it.selector_id)),
            F::PacketDeltaCount => self.counts(records, |it| Some(it.packets)),
            F::OctetDeltaCount => self.counts(records, |it| Some(it.octets)),
            F::FlowStartMilliseconds => self.counts(records, |it| Some(it.start_ms)),
            F::FlowEndMilliseconds => self.counts(records, |it| Some(it.end_ms)),
        }
    }

    fn numbers<N: Into<u32>>(&mut self, records: &[Record], of: impl Fn(&Record) -> Option<N>) {
        let Values::Int32(values) = &mut self.values else { unreachable!("of the kind of the field") };
        for record in records {
            let value = of(record).map(|value| value.into().cast_signed());
            self.levels.push(i16::from(value.is_some()));
            values.extend(value);
        }
    }

    fn counts(&mut self, records: &[Record], of: impl Fn(&Record) -> Option<u64>) {
        let Values::Int64(values) = &mut self.values else { unreachable!("of the kind of the field") };
        for record in records {
            let value = of(record).map(u64::cast_signed);
            self.levels.push(i16::from(value.is_some()));
            values.extend(value);
        }
    }

    fn addresses(&mut self, records: &[Record], of: impl Fn(&Record) -> [u8; 16]) {
        let Values::Address(values) = &mut self.values else { unreachable!("of the kind of the field") };
        for record in records {
            self.levels.push(i16::from(!is_ipv4(record)));
            if !is_ipv4(record) {
                values.extend_from_slice(&of(record));
            }
        }
    }
}

const fn is_ipv4(record: &Record) -> bool {
    !record.tuple.tags().is_ipv6()
}

/// A column in Parquet's schema language.
fn definition(field: Field) -> String {
    let (of, is) = match (field.kind(), field) {
        // ClickHouse reads these types as IPv4 and IPv6 without a conversion.
        (Kind::Ipv4Address, _) => ("int32", "(INTEGER(32,false))"),
        (Kind::Ipv6Address, _) => ("fixed_len_byte_array(16)", ""),
        (Kind::Count, _) | (_, Field::SelectorId) => ("int64", "(INTEGER(64,false))"),
        (Kind::Time, _) => ("int64", "(TIMESTAMP(MILLIS,true))"),
        (_, Field::IngressInterface) => ("int32", "(INTEGER(32,false))"),
        (Kind::Port | Kind::ControlBits, _) | (_, Field::VlanId | Field::Dot1qCustomerVlanId) => {
            ("int32", "(INTEGER(16,false))")
        }
        (Kind::Number, _) => ("int32", "(INTEGER(8,false))"),
    };
    format!("{of} {field} {is}")
}

/// Whether values of the field repeat so often that a dictionary pays.
const fn repeats(field: Field) -> bool {
    !matches!(field.kind(), Kind::Ipv4Address | Kind::Ipv6Address)
}

fn length(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}
