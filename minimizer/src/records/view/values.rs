//! Counts, times and control bits as a recipient gets them: the part of a view that needs no key.

use std::collections::BTreeMap;

use crate::policy::field::{Field, Fields, Kind};
use crate::policy::transform::{Transform, log2};
use crate::records::record::Record;
use crate::records::view::noise::Noise;

/// What becomes of counts, times and control bits for one recipient, and which fields it gets.
#[derive(Debug)]
pub struct Values {
    fields: Fields,
    transforms: BTreeMap<Field, Transform>,
    /// Whether powers of two are drawn by chance.
    has_noise: bool,
}

impl Values {
    /// Those of a recipient that gets fields with these transforms, and powers of two by chance or not.
    #[must_use]
    pub fn new(transforms: BTreeMap<Field, Transform>, has_noise: bool) -> Self {
        Self { fields: transforms.keys().copied().collect(), transforms, has_noise }
    }

    /// The fields of the recipient's records.
    #[must_use]
    pub const fn fields(&self) -> Fields {
        self.fields
    }

    /// The fields of the record made of what was held back: counts and times.
    #[must_use]
    pub fn residual_fields(&self) -> Fields {
        let is_value = |field: &Field| matches!(field.kind(), Kind::Count | Kind::Time);
        self.transforms.keys().copied().filter(is_value).collect()
    }

    pub(super) fn transform(&self, field: Field) -> Option<&Transform> {
        self.transforms.get(&field)
    }

    /// The latest of the times that the recipient gets of a record, not yet rounded, in milliseconds since 1970; 0 if it gets none.
    #[must_use]
    pub fn latest_ms(&self, record: &Record) -> u64 {
        let time = |field, milliseconds| if self.fields.has(field) { milliseconds } else { 0 };
        time(Field::FlowStartMilliseconds, record.start_ms)
            .max(time(Field::FlowEndMilliseconds, record.end_ms))
    }

    /// These records with their counts, times and control bits as the recipient gets them, in `buffer`.
    pub fn of_all<'chunk>(
        &self,
        records: &[Record],
        noise: &Noise,
        buffer: &'chunk mut Vec<Record>,
    ) -> &'chunk [Record] {
        buffer.clear();
        buffer.extend(records.iter().map(|record| self.of(*record, noise)));
        buffer
    }

    /// The record with its counts, times and control bits as the recipient gets them.
    #[must_use]
    pub fn of(&self, record: Record, noise: &Noise) -> Record {
        let has = |field| self.fields.has(field);
        let value = |field, value: u64| match self.transforms.get(&field) {
            None => 0,
            Some(Transform::Log2) if self.has_noise => noise.power_of_two(&record, field, value),
            Some(Transform::Log2) => log2(value),
            Some(Transform::Coarsened { unit }) => {
                let unit = u64::try_from(unit.as_millis()).unwrap_or(u64::MAX).max(1);
                value - value % unit
            }
            Some(_) => value,
        };
        let control_bits = match self.transforms.get(&Field::TcpControlBits) {
            Some(_) if !has(Field::ProtocolIdentifier) => 0,
            Some(Transform::ControlBits { mask }) => *mask,
            Some(_) => u16::MAX,
            None => 0,
        };
        Record {
            ingress_interface: if has(Field::IngressInterface) { record.ingress_interface } else { 0 },
            control_bits: record.control_bits & control_bits,
            packets: value(Field::PacketDeltaCount, record.packets),
            octets: value(Field::OctetDeltaCount, record.octets),
            start_ms: value(Field::FlowStartMilliseconds, record.start_ms),
            end_ms: value(Field::FlowEndMilliseconds, record.end_ms),
            ..record
        }
    }
}
