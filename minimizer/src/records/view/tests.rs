//! Random recipients and records: the view of what the kernel stores is what the policy says of the packets.

mod definition;
mod drawing;
mod mitigations;
mod sources;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use minimizer_common::tuple::{Tags, Tuple};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::{View, Viewed};
use crate::policy::class::Class;
use crate::policy::classes::Classes;
use crate::policy::field::Field;
use crate::policy::model::{Mitigations, Recipient, Scope, Sources};
use crate::policy::prefixes::Prefix;
use crate::policy::transform::{AddressTransform, Transform};
use crate::records::keys::{PseudonymKey, RecipientKeys};
use crate::records::record::Record;
use crate::support::sys::secret::{Secret, SharedKey};
use definition::{expected, join, minimized};
use drawing::{random_recipient, random_record, random_records};

type Transforms = BTreeMap<Field, Transform>;

fn epoch() -> SharedKey {
    Arc::new(PseudonymKey::copy_of(&[11, 12]).expect("memory"))
}

fn keys(number: u8) -> RecipientKeys {
    let key = std::array::from_fn(|index| number.wrapping_add(u8::try_from(index).unwrap()));
    RecipientKeys {
        pseudonym: PseudonymKey::copy_of(&[u64::from(number), 2]).expect("memory"),
        ipcrypt: Secret::copy_of(&key).expect("memory"),
        crypto_pan: Secret::copy_of(&key).expect("memory"),
    }
}

/// Domestic: 10.0.0.0/8 without 10.9.0.0/16, 192.168.0.0/16, 2001:db8::/32.
fn classes() -> Arc<Classes> {
    let prefix = |ipv6, start: &[u8], bits| {
        let mut octets = [0; 16];
        octets[..start.len()].copy_from_slice(start);
        Prefix { ipv6, octets, bits }
    };
    Arc::new(Classes::new(
        &Scope {
            prefixes: vec![
                (prefix(false, &[10], 8), Class::Domestic),
                (prefix(false, &[10, 9], 16), Class::Foreign),
                (prefix(false, &[192, 168], 16), Class::Domestic),
                (prefix(true, &[0x20, 0x01, 0x0d, 0xb8], 32), Class::Domestic),
            ],
            directions: Vec::new(),
        },
        &[],
    ))
}

fn recipient(fields: Transforms, k_threshold: Option<u32>) -> Recipient {
    let (name, purpose) = ("r".to_owned(), "p".to_owned());
    Recipient {
        name,
        purpose,
        retention: None,
        k_threshold,
        counted: Sources::All,
        mitigations: Mitigations::NONE,
        destinations: None,
        fields,
    }
}

fn view(recipient: &Recipient, collected: &Transforms, number: u8) -> View {
    View::new(recipient, collected, epoch(), keys(number), (classes(), None)).expect("memory")
}

type Key = ([u64; 4], u64, u16, u64);
type Values = (u32, u16, u64, u64, u64, u64);

fn set(records: &[Record]) -> BTreeMap<Key, Values> {
    let entry = |record: &Record| {
        let Record { tuple, ingress_interface, control_bits, packets, octets, start_ms, end_ms, selector_id } =
            *record;
        let values = (ingress_interface, control_bits, packets, octets, start_ms, end_ms);
        ((tuple.addresses, tuple.transport, tuple.kind, selector_id), values)
    };
    let set = records.iter().map(entry).collect::<BTreeMap<_, _>>();
    assert_eq!(set.len(), records.len(), "two records have the same key");
    set
}

#[test]
fn the_view_of_what_is_stored_is_what_the_policy_says_of_the_packets() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let [mut folded, mut merged] = [0; 2];
    for round in 0..200 {
        let recipients =
            (0..random.random_range(1..4)).map(|_| random_recipient(&mut random)).collect::<Vec<_>>();
        let collected = join(&recipients);
        let packets = random_records(&mut random);
        let stored = packets.iter().map(|packet| minimized(&collected, packet, None)).collect::<Vec<_>>();
        for (number, recipient) in (1..).zip(&recipients) {
            let view = view(recipient, &collected, number);
            let Viewed { records, suppressed, residual } = view.of(&stored);
            let (expected, expected_residual) = expected(recipient, &packets, &stored, &keys(number));
            if matches!(records, Cow::Borrowed(_)) {
                assert!(*records == *stored);
                continue;
            }
            if view.work == super::Work::Values {
                assert_eq!(records.len(), stored.len());
                continue;
            }
            assert_eq!(set(&records), set(&expected), "round {round}: {recipient:#?} of {collected:#?}");
            assert_eq!(residual, expected_residual, "round {round}: {recipient:#?}");
            folded += u32::from(residual.is_some());
            merged += u32::from(records.len() < stored.len());

            let all = |count: fn(&Record) -> u64| stored.iter().map(count).sum::<u64>();
            let exported = |count: fn(&Record) -> u64| records.iter().map(count).sum::<u64>();
            if recipient.fields.get(&Field::PacketDeltaCount) == Some(&Transform::Exact) {
                assert_eq!(
                    exported(|record| record.packets) + suppressed.packets,
                    all(|record| record.packets)
                );
            }
            if recipient.fields.get(&Field::OctetDeltaCount) == Some(&Transform::Exact) {
                assert_eq!(exported(|record| record.octets) + suppressed.octets, all(|record| record.octets));
            }

            let mut permuted = stored.clone();
            permuted.shuffle(&mut random);
            let again = view.of(&permuted);
            assert_eq!(set(&again.records), set(&records));
            assert_eq!((again.suppressed, again.residual), (suppressed, residual));
        }
    }
    assert!(folded > 10 && merged > 100, "{folded} {merged}");
}

#[test]
fn who_gets_what_is_stored_gets_it_as_it_is() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let fields = Field::ALL.iter().map(|field| (*field, Transform::Exact)).collect::<Transforms>();
    let records = random_records(&mut random);
    let recipient = recipient(fields.clone(), None);
    let viewed = view(&recipient, &fields, 1).of(&records).records;
    assert!(
        matches!(viewed, Cow::Borrowed(same) if same.as_ptr() == records.as_ptr() && same.len() == records.len())
    );

    let mut coarse = recipient.clone();
    let unit = Duration::from_secs(1);
    coarse.fields.insert(Field::FlowStartMilliseconds, Transform::Coarsened { unit });
    coarse.fields.insert(Field::PacketDeltaCount, Transform::Log2);
    coarse.fields.remove(&Field::OctetDeltaCount);
    let viewed = view(&coarse, &fields, 1).of(&records).records;
    for (viewed, record) in viewed.iter().zip(&records) {
        let start_ms = record.start_ms / 1000 * 1000;
        let packets = 1 << record.packets.ilog2();
        assert_eq!(*viewed, Record { start_ms, packets, octets: 0, ..*record });
    }
}

#[test]
fn pseudonyms_of_two_recipients_have_nothing_in_common() {
    let pseudonyms = Transform::address(AddressTransform::Pseudonym);
    let fields =
        Transforms::from([(Field::SourceIPv4Address, pseudonyms), (Field::SourceIPv6Address, pseudonyms)]);
    let recipient = recipient(fields.clone(), None);
    let exact = fields.keys().map(|field| (*field, Transform::Exact)).collect::<Transforms>();
    let mut random = ChaCha8Rng::seed_from_u64(9);
    let packets = (0..2000).map(|_| random_record(&mut random)).collect::<Vec<_>>();
    let pseudonyms = |collected: &Transforms, number| {
        let stored = packets.iter().map(|packet| minimized(collected, packet, None)).collect::<Vec<_>>();
        let records = view(&recipient, collected, number).of(&stored).records.into_owned();
        records
            .iter()
            .map(|record| (record.tuple.tags().is_ipv6(), record.tuple.addresses))
            .collect::<BTreeSet<_>>()
    };
    let [one, other] = [1, 2].map(|number| pseudonyms(&fields, number));
    assert_eq!(one.len(), other.len());
    assert!(one.len() > 20 && one.is_disjoint(&other));
    assert_eq!(one, pseudonyms(&exact, 1), "another recipient that needs the addresses makes no difference");
    let stored = packets.iter().map(|packet| minimized(&fields, packet, None).tuple.addresses);
    let stored = stored.collect::<BTreeSet<_>>();
    assert!(
        one.iter().all(|(_, addresses)| !stored.contains(addresses)),
        "the kernel's pseudonyms stay here"
    );
}

#[test]
fn of_two_possible_classes_the_recipient_gets_no_more_than_either_gives() {
    use AddressTransform::{Exact, Omitted, Pseudonym, Truncated};
    let address = |foreign, domestic| {
        Transforms::from([(Field::SourceIPv4Address, Transform::Address { foreign, domestic })])
    };
    let source = |collected: &Transforms, wanted: Transforms, octets: [u8; 4]| {
        let mut both = [0; 8];
        both[..4].copy_from_slice(&octets);
        let tuple = Tuple::new([u64::from_ne_bytes(both), 0, 0, 0], (0, 0), Tags::NONE, 0, 0);
        let record = Record { tuple, packets: 1, ..super::threshold::NO_FLOW };
        let records = view(&recipient(wanted, None), collected, 1).of(&[record]).records.into_owned();
        records[0].tuple.ipv4().0
    };
    let [eight, sixteen] = [8, 16].map(|bits| Truncated { bits });
    let collected = address(eight, eight);
    assert_eq!(
        source(&collected, address(eight, Omitted), [10, 0, 0, 0]),
        [0; 4],
        "10.9.0.0/16 is foreign, the rest is not"
    );
    assert_eq!(source(&collected, address(eight, Omitted), [11, 0, 0, 0]), [11, 0, 0, 0]);
    let collected = address(eight, sixteen);
    assert_eq!(
        source(&collected, address(Omitted, sixteen), [10, 7, 0, 0]),
        [10, 7, 0, 0],
        "more than 8 bits: domestic"
    );
    assert_eq!(source(&collected, address(eight, Truncated { bits: 12 }), [10, 0, 0, 0]), [10, 0, 0, 0]);
    let collected = address(Pseudonym, Pseudonym);
    assert_eq!(source(&collected, address(Pseudonym, Omitted), [241, 1, 2, 3]), [0; 4]);
    let collected = address(Exact, Pseudonym);
    assert_eq!(source(&collected, address(Exact, Omitted), [241, 1, 2, 3]), [0; 4], "a pseudonym");
    assert_eq!(source(&collected, address(Exact, Omitted), [11, 1, 2, 3]), [11, 1, 2, 3]);
    assert_eq!(source(&collected, address(Exact, Omitted), [255; 4]), [255; 4], "no pseudonym");
    let seen = source(&collected, address(Exact, Pseudonym), [241, 1, 2, 3]);
    assert!(seen[0] >= 240 && seen != [241, 1, 2, 3]);
    assert_eq!(source(&collected, address(eight, Pseudonym), [241, 1, 2, 3]), seen);
}
