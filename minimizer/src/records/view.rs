//! A recipient's view of a batch: what the policy lets it have of the records, and nothing else.
//!
//! The kernel stores what all recipients together need. A view removes what this recipient does not receive, replaces addresses
//! by the recipient's own pseudonyms and preserved prefixes, merges the records that have become equal, and folds those from
//! too few sources, and what mitigations hold back, into one record without a key.
//!
//! A pseudonym is always made in two steps: under the key of the epoch, then under the recipient's. It therefore does not
//! depend on what other recipients get, and nobody can make it again once the key of the epoch is gone. All records of a
//! batch belong to one epoch.

mod address;
mod answered;
mod noise;
mod threshold;
mod values;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use minimizer_common::generation::Counts;
use minimizer_common::protocol::Transport;
use minimizer_common::tuple::{Tags, Tuple};

use crate::policy::classes::Classes;
use crate::policy::field::{Field, Fields, Kind};
use crate::policy::model::{Mitigations, Recipient, Sources};
use crate::policy::ranks::Ranks;
use crate::policy::transform::{AddressTransform, Transform};
use crate::records::keys::{KeyError, RecipientKeys};
use crate::records::merge::{Flow as _, Merge};
use crate::records::record::Record;
use crate::support::sys::secret::SharedKey;
use crate::support::traces::without_traces;
use address::{Addresses, Permuted};
use answered::Answered;
pub use noise::Noise;
use threshold::{NO_FLOW, Threshold};
pub use values::Values;

/// Turns records into those of one recipient in one epoch.
pub struct View {
    /// What becomes of counts, times and control bits.
    values: Arc<Values>,
    addresses: Addresses,
    keeps_version: bool,
    k: Option<u32>,
    counted: Sources,
    mitigations: Mitigations,
    work: Work,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// The records are what the recipient gets.
    Nothing,
    /// Only counts, times and control bits change, so no records merge.
    Values,
    /// Keys change, so records may become equal and merge.
    Keys,
}

/// What a recipient gets of a batch. After [`View::of`] everything is as the recipient gets it; after [`View::merged`] alone,
/// counts and times are still exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewed<'records> {
    /// Records, to be shown with [`View::fields`].
    pub records: Cow<'records, [Record]>,
    /// Exact counts of what was held back.
    pub suppressed: Counts,
    /// The one record made of it, to be shown with [`View::residual_fields`].
    pub residual: Option<Record>,
}

/// The records of a recipient, with their keys as it gets them, and which of them are held back. Counts and times are exact.
pub struct Decided {
    /// All of them, without flows that nobody answered.
    pub records: Vec<Record>,
    /// For each of them whether it is held back.
    pub is_withheld: Vec<bool>,
    /// The sum of all flows that nobody answered, if these are held back.
    unanswered: Record,
}

impl View {
    /// The view of a recipient.
    ///
    /// `collected` is what the kernel stores, `epoch_key` the key of its pseudonyms, `recipient_keys` are the recipient's in
    /// the same epoch, and `classes` those of the policy's scope.
    pub fn new(
        recipient: &Recipient,
        collected: &BTreeMap<Field, Transform>,
        epoch_key: SharedKey,
        recipient_keys: RecipientKeys,
        (classes, ranks): (Arc<Classes>, Option<Arc<Ranks>>),
    ) -> Result<Self, KeyError> {
        let transforms = recipient.fields.clone();
        let k = recipient.k_threshold.filter(|k| *k > 1);
        let mitigations = recipient.mitigations;
        let withholds = k.is_some() || mitigations.min_packets > 1 || mitigations.established_only;
        Ok(Self {
            addresses: Addresses::new(&transforms, collected, epoch_key, recipient_keys, classes, ranks)?,
            keeps_version: transforms.keys().any(|field| is_address(*field)),
            k,
            counted: recipient.counted,
            mitigations,
            work: if withholds { Work::Keys } else { work(&transforms, collected) },
            values: Arc::new(Values::new(transforms, mitigations.k_noise > 0)),
        })
    }

    /// What becomes of counts, times and control bits. No key is in it.
    #[must_use]
    pub const fn values(&self) -> &Arc<Values> {
        &self.values
    }

    /// The fields of the recipient's records.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.values.fields()
    }

    /// The fields of the record made of what was held back: counts and times.
    #[must_use]
    pub fn residual_fields(&self) -> Fields {
        self.values.residual_fields()
    }

    /// What the recipient gets of these records.
    #[must_use]
    pub fn of<'records>(&self, records: &'records [Record]) -> Viewed<'records> {
        let noise = Noise::fresh();
        let mut viewed = if self.merges() {
            self.merged(records.iter().copied(), records.len(), &noise)
        } else {
            Viewed { records: Cow::Borrowed(records), suppressed: Counts::default(), residual: None }
        };
        if self.work != Work::Nothing {
            let records = viewed.records.to_mut().iter_mut();
            records.for_each(|record| *record = self.values.of(*record, &noise));
            viewed.residual = viewed.residual.map(|record| self.values.of(record, &noise));
        }
        viewed
    }

    /// Whether counts, times and control bits are what the recipient gets already.
    #[must_use]
    pub fn keeps_values(&self) -> bool {
        self.work == Work::Nothing
    }

    /// Whether records may become equal and have to be merged, or some may be held back.
    #[must_use]
    pub fn merges(&self) -> bool {
        self.work == Work::Keys
    }

    /// These records with their counts, times and control bits as the recipient gets them. Changed records are put into
    /// `buffer`.
    pub fn valued<'chunk>(
        &self,
        records: &'chunk [Record],
        noise: &Noise,
        buffer: &'chunk mut Vec<Record>,
    ) -> &'chunk [Record] {
        if self.work == Work::Nothing { records } else { self.values.of_all(records, noise, buffer) }
    }

    /// These `count` records with their keys as the recipient gets them, equal ones merged, and what is held back folded. Counts
    /// and times are still exact.
    #[must_use]
    pub fn merged(
        &self,
        records: impl Iterator<Item = Record> + Clone,
        count: usize,
        noise: &Noise,
    ) -> Viewed<'static> {
        let Decided { mut records, is_withheld, unanswered: mut folded } =
            self.decided(records, count, noise, |_| {});
        let mut withheld = is_withheld.into_iter();
        records.retain(|record| {
            let is_withheld = withheld.next().unwrap_or(true);
            if is_withheld {
                let _always = folded.absorb(record);
            }
            !is_withheld
        });
        folded.control_bits = 0;
        let suppressed = Counts { packets: folded.packets, octets: folded.octets };
        let residual = (folded.packets != 0).then_some(folded);
        Viewed { records: Cow::Owned(records), suppressed, residual }
    }

    /// Decides of these `count` records what the recipient gets. `note` is told for each of them, one after the other, at which
    /// position of the result it is; `None` if it is of a flow that nobody answered.
    pub fn decided(
        &self,
        records: impl Iterator<Item = Record> + Clone,
        count: usize,
        noise: &Noise,
        mut note: impl FnMut(Option<usize>),
    ) -> Decided {
        let mut merge = Merge::with_capacity(count);
        let mut threshold = self.k.map(|k| Threshold::new(k.saturating_add(self.mitigations.k_noise), count));
        let answered = self.mitigations.established_only.then(|| Answered::of(records.clone()));
        let mut unanswered = NO_FLOW;
        without_traces(|| {
            let mut permuted = self.addresses.permuting();
            for record in records {
                if answered.as_ref().is_some_and(|answered| !answered.has(&record.tuple)) {
                    let _always = unanswered.absorb(&record);
                    note(None);
                    continue;
                }
                let position = merge.add(self.keyed(&record, &mut permuted));
                note(Some(position));
                if let Some(threshold) = &mut threshold
                    && (self.counted == Sources::All || self.addresses.has_domestic_source(&record.tuple))
                {
                    threshold.add(position, &record.tuple);
                }
            }
        });
        let records = merge.take();
        let is_withheld = records.iter().enumerate().map(|(position, record)| {
            let k = self.k.map_or(0, |k| k.saturating_add(noise.above(record, self.mitigations.k_noise)));
            record.packets < u64::from(self.mitigations.min_packets)
                || threshold.as_ref().is_some_and(|threshold| threshold.sources(position) < k)
        });
        let is_withheld = is_withheld.collect();
        Decided { records, is_withheld, unanswered }
    }

    /// Each of these records with its key as the recipient gets it. Nothing is merged, and nothing folded; counts and times are
    /// still exact.
    #[must_use]
    pub fn keys_of<'records>(&self, records: impl Iterator<Item = &'records Record>) -> Vec<Record> {
        without_traces(|| {
            let mut permuted = self.addresses.permuting();
            records.map(|record| self.keyed(record, &mut permuted)).collect()
        })
    }

    fn has(&self, field: Field) -> bool {
        self.values.fields().has(field)
    }

    /// The record with its key as the recipient gets it.
    fn keyed(&self, record: &Record, permuted: &mut Permuted) -> Record {
        let tuple = &record.tuple;
        // Without the protocol, ports cannot be told from types and codes.
        let protocol = if self.has(Field::ProtocolIdentifier) { tuple.protocol() } else { 0 };
        let traffic_class = if self.has(Field::IpClassOfService) { tuple.traffic_class() } else { 0 };
        let ports = self.ports(Transport::of(protocol), tuple);
        let addresses = if self.keeps_version { self.addresses.of(tuple, permuted) } else { [0; 4] };
        Record {
            tuple: Tuple::new(addresses, ports, self.tags(tuple.tags()), protocol, traffic_class),
            selector_id: if self.has(Field::SelectorId) { record.selector_id } else { 0 },
            ..*record
        }
    }

    fn ports(&self, transport: Transport, tuple: &Tuple) -> (u16, u16) {
        let [first, second] = match transport {
            Transport::Tcp | Transport::Ports => {
                [Field::SourceTransportPort, Field::DestinationTransportPort]
            }
            Transport::Icmp => [Field::IcmpTypeIPv4, Field::IcmpCodeIPv4],
            Transport::IcmpV6 => [Field::IcmpTypeIPv6, Field::IcmpCodeIPv6],
            Transport::Other => return (0, 0),
        };
        let value = |field, value: u16| match self.values.transform(field) {
            None => 0,
            Some(Transform::PortClasses) => match value {
                0..1024 => 0,
                1024..49_152 => 1024,
                49_152.. => 49_152,
            },
            Some(Transform::ServicePorts { below }) if value >= *below => 0,
            Some(Transform::ListedPorts { below, listed }) if value >= *below && !listed.has(value) => 0,
            Some(_) => value,
        };
        (value(first, tuple.source_port()), value(second, tuple.destination_port()))
    }

    fn tags(&self, tags: Tags) -> Tags {
        let mut kept = Tags::NONE;
        match (self.has(Field::VlanId), self.has(Field::Dot1qCustomerVlanId), tags.vlan_id()) {
            (false, false, _) | (_, _, None) => {}
            (true, false, Some(vlan_id)) => kept = kept.with_vlan(vlan_id),
            (outer, true, Some(vlan_id)) => {
                // A recipient of the second tag alone must not learn that there was only one.
                if outer || tags.customer_vlan_id().is_some() {
                    kept = kept.with_vlan(if outer { vlan_id } else { 0 });
                }
                if let Some(vlan_id) = tags.customer_vlan_id() {
                    kept = kept.with_vlan(vlan_id);
                }
            }
        }
        if self.keeps_version && tags.is_ipv6() {
            kept = kept.with_ipv6();
        }
        if self.has(Field::IngressInterface) { kept.with_interface(tags.interface()) } else { kept }
    }
}

const fn is_address(field: Field) -> bool {
    matches!(field.kind(), Kind::Ipv4Address | Kind::Ipv6Address)
}

/// What has to be done to make the wanted fields from the collected ones.
fn work(wanted: &BTreeMap<Field, Transform>, collected: &BTreeMap<Field, Transform>) -> Work {
    let has = |field: Field| wanted.contains_key(&field);
    let both = |field: &&Field| {
        wanted.get(field) == collected.get(field) && !wanted.get(field).is_some_and(at_drain)
    };
    let is_value = |field: &Field| matches!(field.kind(), Kind::Count | Kind::Time | Kind::ControlBits);
    // Some parts of a key depend on several fields: the number of tags on both identifiers, the IP version on the addresses,
    // the meaning of ports, types, codes and control bits on the protocol.
    let depends_on_others = has(Field::VlanId) != has(Field::Dot1qCustomerVlanId)
        || !wanted.keys().any(|field| is_address(*field))
        || !has(Field::ProtocolIdentifier);
    if depends_on_others || !Field::ALL.iter().filter(|field| !is_value(field)).all(|field| both(&field)) {
        Work::Keys
    } else if Field::ALL.iter().all(|field| both(&field)) {
        Work::Nothing
    } else {
        Work::Values
    }
}

/// Whether the kernel leaves at least a part of the transform to the drain.
fn at_drain(transform: &Transform) -> bool {
    let address = |transform: &AddressTransform| {
        matches!(transform, AddressTransform::Pseudonym | AddressTransform::PrefixPreserving(_))
    };
    match transform {
        Transform::Address { foreign, domestic } => address(foreign) || address(domestic),
        Transform::Log2 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
