//! `policy risk`: replays a capture, and measures how many records of each recipient single a communication out, and how many find
//! their twin among those of another recipient.
//!
//! The capture is collected as if one more recipient got everything. So it is known which packets are in which record, which no
//! recipient knows. Batches are what the agent would drain at this interval.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use minimizer_common::tuple::Tuple;
use serde::Serialize;

use crate::commands::replay::{ReplayError, intervals};
use crate::policy::compile::CompiledPolicy;
use crate::policy::field::{Field, Kind};
use crate::policy::model::{Policy, Recipient};
use crate::policy::tables::TableError;
use crate::policy::transform::Transform;
use crate::policy::words;
use crate::records::keys::Keys;
use crate::records::merge::Flow as _;
use crate::records::record::Record;
use crate::records::terms::{Keyring, Terms};
use crate::records::view::{Decided, Noise, View};

/// Shares of a recipient's records, from 0 to 1, by what they are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// By addresses, ports and whatever else tells flows apart, among the records of the whole capture.
    pub by_fields: f64,
    /// By these and by counts, times and control bits.
    pub by_counts: f64,
    /// By all of that, among the records of one batch.
    pub in_batch: f64,
}

/// What a recipient's records say of single communications. A communication is a pair of addresses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewRisk {
    /// The recipient.
    pub recipient: String,
    /// Its records.
    pub records: usize,
    /// Records of too few sources or packets, or of flows that nobody answered; the recipient does not get them.
    pub withheld: usize,
    /// Communications with the same fields, of which a record is one: the fewest of any record.
    pub k_least: usize,
    /// The same of the record in the middle.
    pub k_median: usize,
    /// Records that are of one communication only.
    pub single: Shares,
}

/// How many records of one recipient find their twin among those of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairRisk {
    /// Whose records are looked up, and among whose.
    pub recipients: [String; 2],
    /// Records of the first that have one candidate only, which is of the same packets and has no other candidate either.
    pub found: Shares,
}

/// What a capture says of a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Risk {
    /// Name of the policy.
    pub policy: String,
    /// Time between drains, in milliseconds.
    pub interval_ms: u128,
    /// Batches with records.
    pub batches: usize,
    /// Communications in them.
    pub communications: usize,
    /// One for each recipient.
    pub views: Vec<ViewRisk>,
    /// Each two recipients, both ways.
    pub pairs: Vec<PairRisk>,
}

type Key = (Tuple, u64);
/// Packets, octets, begin, end, control bits.
type Values = (u64, u64, u64, u64, u16);

/// A record of a recipient.
struct Told {
    batch: usize,
    key: Key,
    /// Counts and times, still exact.
    exact: Record,
    /// The records of everything that it was made of, by number.
    made_of: Vec<usize>,
}

/// The records of everything, in all batches, with their communications.
struct Everything {
    batches: Vec<Vec<Record>>,
    /// By number: which two addresses.
    communications: Vec<usize>,
}

/// Measures a policy on a capture.
///
/// # Errors
/// When the policy has no tables, or the capture cannot be replayed.
pub fn risk(policy: &Policy, capture: &Path, interval: Duration) -> Result<Risk, RiskError> {
    let recipients = policy.recipients.len();
    let mut whole = policy.clone();
    let mut pairs = Vec::new();
    for (one, first) in policy.recipients.iter().enumerate() {
        for (other, second) in policy.recipients.iter().enumerate().skip(one + 1) {
            pairs.push((one, other, whole.recipients.len()));
            whole.recipients.push(Policy::common(first, second));
        }
    }
    whole.recipients.push(everything(policy));
    let compiled = Arc::new(CompiledPolicy::compile(whole)?);
    let terms = Keyring::new(Keys::load(None).map_err(ReplayError::from)?).terms(&compiled, Timestamp::now());
    let terms = terms.map_err(ReplayError::from)?;
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let all = Everything::of(intervals(capture, &terms, interval_ms)?);
    let told: Vec<_> = (0..recipients).map(|position| all.told(&terms, position)).collect();
    let views = told.iter().zip(&policy.recipients).enumerate();
    let views = views.map(|(position, ((told, withheld), recipient))| {
        all.view_risk(terms.view_at(position), told, *withheld, recipient)
    });
    let mut both_ways = Vec::new();
    for (one, other, common) in pairs {
        let signatures = [one, other].map(|position| all.signatures(&terms, common, &told[position].0));
        for (from, to, of) in [(0, 1, [one, other]), (1, 0, [other, one])] {
            both_ways.push(PairRisk {
                recipients: of.map(|position| policy.recipients[position].name.clone()),
                found: found(&told[of[0]].0, &signatures[from], &told[of[1]].0, &signatures[to]),
            });
        }
    }
    Ok(Risk {
        policy: policy.name.clone(),
        interval_ms: interval.as_millis(),
        batches: all.batches.len(),
        communications: all.communications.iter().collect::<HashSet<_>>().len(),
        views: views.collect(),
        pairs: both_ways,
    })
}

/// Why the risk cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum RiskError {
    /// The policy's prefixes and indicators do not fit into the kernel's tables.
    #[error("the policy is refused: {0}")]
    Tables(#[from] TableError),
    /// The capture cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// A recipient of everything, with times in the unit of the others.
fn everything(policy: &Policy) -> Recipient {
    let collected = policy.collected().fields;
    let unit = collected.values().copied().find(|transform| matches!(transform, Transform::Coarsened { .. }));
    let of = |field: &Field| match field.kind() {
        Kind::Time => unit,
        _ if *field == Field::SelectorId => policy.selectors.as_ref().map(|_| Transform::Exact),
        _ => Some(Transform::Exact),
    };
    let fields = Field::ALL.iter().filter_map(|field| Some((*field, of(field)?))).collect();
    // A name that no recipient of a policy can have.
    Recipient::assumed("*".to_owned(), fields)
}

impl Everything {
    fn of(batches: Vec<Vec<Record>>) -> Self {
        let mut numbers = HashMap::new();
        let communications = batches.iter().flatten().map(|record| {
            let [one, other] = ends(&record.tuple);
            let next = numbers.len();
            *numbers.entry([one.min(other), one.max(other)]).or_insert(next)
        });
        Self { communications: communications.collect(), batches }
    }

    /// The records of the recipient at a position of the policy, and how many are held back from it.
    fn told(&self, terms: &Terms, position: usize) -> (Vec<Told>, usize) {
        let view = terms.view_at(position);
        let (mut all, mut withheld, mut number) = (Vec::new(), 0, 0);
        for (batch, records) in self.batches.iter().enumerate() {
            let mut made_of: Vec<Vec<usize>> = Vec::new();
            let mut each = records.iter();
            let mut unanswered = Vec::new();
            let decided = view.decided(records.iter().copied(), records.len(), &Noise::fresh(), |place| {
                let record = each.next();
                match place {
                    Some(place) => {
                        made_of.resize_with(made_of.len().max(place + 1), Default::default);
                        made_of[place].push(number);
                    }
                    None => unanswered.extend(record),
                }
                number += 1;
            });
            let unanswered = view.keys_of(unanswered.into_iter());
            withheld += unanswered.iter().map(Record::key).collect::<HashSet<_>>().len();
            let Decided { records, is_withheld, .. } = decided;
            for ((exact, made_of), is_withheld) in records.into_iter().zip(made_of).zip(is_withheld) {
                if is_withheld {
                    withheld += 1;
                } else {
                    all.push(Told { batch, key: exact.key(), exact, made_of });
                }
            }
        }
        (all, withheld)
    }

    fn view_risk(&self, view: &View, told: &[Told], withheld: usize, recipient: &Recipient) -> ViewRisk {
        let values = values(view, told);
        let by_fields = self.communications_by(told, |number| told[number].key);
        let by_counts = self.communications_by(told, |number| (told[number].key, values[number]));
        let in_batch =
            self.communications_by(told, |number| (told[number].batch, told[number].key, values[number]));
        let single =
            |of: &[usize]| share(of.iter().filter(|communications| **communications == 1).count(), of.len());
        let mut sorted = by_fields.clone();
        sorted.sort_unstable();
        ViewRisk {
            recipient: recipient.name.clone(),
            records: told.len(),
            withheld,
            k_least: sorted.first().copied().unwrap_or(0),
            k_median: sorted.get(sorted.len() / 2).copied().unwrap_or(0),
            single: Shares {
                by_fields: single(&by_fields),
                by_counts: single(&by_counts),
                in_batch: single(&in_batch),
            },
        }
    }

    /// For each record the number of communications in all records that are alike.
    fn communications_by<K: Eq + std::hash::Hash>(
        &self,
        told: &[Told],
        like: impl Fn(usize) -> K,
    ) -> Vec<usize> {
        let mut groups: HashMap<K, HashSet<usize>> = HashMap::new();
        for (number, record) in told.iter().enumerate() {
            let communications = record.made_of.iter().map(|of| self.communications[*of]);
            groups.entry(like(number)).or_default().extend(communications);
        }
        (0..told.len()).map(|number| groups.get(&like(number)).map_or(0, HashSet::len)).collect()
    }

    /// What each record shows of what both recipients are told, by the view at a position that has just that.
    fn signatures(&self, terms: &Terms, common: usize, told: &[Told]) -> Vec<(Key, Values)> {
        let view = terms.view_at(common);
        let everything: Vec<&Record> = self.batches.iter().flatten().collect();
        // All that a record was made of has the same, or the recipient would be told more than its fields.
        let first = told.iter().filter_map(|told| told.made_of.first()).map(|number| everything[*number]);
        let keys = view.keys_of(first).into_iter().map(|record| record.key());
        keys.zip(values(view, told)).collect()
    }
}

/// Counts, times and control bits as a view has them.
fn values(view: &View, told: &[Told]) -> Vec<Values> {
    let exact: Vec<_> = told.iter().map(|told| told.exact).collect();
    let mut buffer = Vec::new();
    let valued = view.valued(&exact, &Noise::fresh(), &mut buffer).iter();
    valued
        .map(|record| (record.packets, record.octets, record.start_ms, record.end_ms, record.control_bits))
        .collect()
}

/// How many of `one` have one candidate in `other` only, and the right one, which has no other candidate either.
fn found(one: &[Told], signatures: &[(Key, Values)], other: &[Told], others: &[(Key, Values)]) -> Shares {
    Shares {
        by_fields: share_found(one, other, |number| signatures[number].0, |number| others[number].0),
        by_counts: share_found(one, other, |number| signatures[number], |number| others[number]),
        in_batch: share_found(
            one,
            other,
            |number| (one[number].batch, signatures[number]),
            |number| (other[number].batch, others[number]),
        ),
    }
}

fn share_found<K: Eq + std::hash::Hash>(
    one: &[Told],
    other: &[Told],
    of_one: impl Fn(usize) -> K,
    of_other: impl Fn(usize) -> K,
) -> f64 {
    let mut alike: HashMap<K, (usize, Vec<usize>)> = HashMap::new();
    for number in 0..one.len() {
        alike.entry(of_one(number)).or_default().0 += 1;
    }
    for number in 0..other.len() {
        alike.entry(of_other(number)).or_default().1.push(number);
    }
    let is_found = |number: &usize| match alike.get(&of_one(*number)) {
        Some((1, twins)) if twins.len() == 1 => {
            one[*number].made_of.iter().any(|of| other[twins[0]].made_of.contains(of))
        }
        _ => false,
    };
    share((0..one.len()).filter(is_found).count(), one.len())
}

fn share(some: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

/// Source and destination, whatever their version. No IPv4 address is an IPv6 address with 32 bits.
fn ends(tuple: &Tuple) -> [u128; 2] {
    if tuple.tags().is_ipv6() {
        let (source, destination) = tuple.ipv6();
        return [source, destination].map(u128::from_be_bytes);
    }
    let (source, destination) = tuple.ipv4();
    [source, destination].map(|octets| u128::from(u32::from_be_bytes(octets)))
}

impl fmt::Display for Risk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = Duration::from_millis(u64::try_from(self.interval_ms).unwrap_or(u64::MAX));
        writeln!(
            formatter,
            "{}: {} in {} of {}\n",
            self.policy,
            words::count(self.communications, "communication", "communications"),
            words::count(self.batches, "batch", "batches"),
            words::duration(interval)
        )?;
        let widths = |names: BTreeMap<usize, ()>| names.keys().last().copied().unwrap_or(0).max(9);
        let width = widths(self.views.iter().map(|view| (view.recipient.len(), ())).collect());
        let shares = |Shares { by_fields, by_counts, in_batch }: Shares| {
            let [fields, counts, batch] = [by_fields, by_counts, in_batch].map(|share| 100.0 * share);
            format!("{fields:>9.1} % {counts:>9.1} % {batch:>10.1} %")
        };
        writeln!(
            formatter,
            "{:width$}  {:>8} {:>8} {:>7} {:>8}   {:>11} {:>11} {:>12}",
            "recipient", "records", "withheld", "least k", "median k", "by fields", "by counts", "in a batch"
        )?;
        for ViewRisk { recipient, records, withheld, k_least, k_median, single } in &self.views {
            writeln!(
                formatter,
                "{recipient:width$}  {records:>8} {withheld:>8} {k_least:>7} {k_median:>8}   {}",
                shares(*single)
            )?;
        }
        writeln!(
            formatter,
            "\nk: communications (pairs of addresses) that have the same fields in the whole capture. The shares are of records of \
             one\ncommunication only: by their fields, by these and their counts and times, and by all of that in their batch."
        )?;
        if self.pairs.is_empty() {
            return Ok(());
        }
        writeln!(formatter, "\nrecords of … that find their one twin among those of …")?;
        for PairRisk { recipients: [one, other], found } in &self.pairs {
            writeln!(formatter, "{one:width$}  {other:width$}  {}", shares(*found))?;
        }
        Ok(())
    }
}
