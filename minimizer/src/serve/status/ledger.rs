//! The ledger as JSON: one model for the ledger file, for `/status` and the standard error, which tell less, and for those who read
//! either.

use std::borrow::Cow;
use std::collections::BTreeMap;

use indexmap::IndexMap;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use serde::{Deserialize, Serialize, Serializer};

use crate::delivery::account::Account;
use crate::delivery::ledger::{Ledger, Standing, Told};
use crate::interfaces::slot::Unwatched;
use crate::records::drain::InterfaceTotals;

/// Where every packet went. Maps keep the order in which the agent writes them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct LedgerReport {
    /// By name of the interface, in the order of the slots.
    pub interfaces: IndexMap<String, InterfaceLedger>,
    /// In records that were handed over. Outside of the ledger file `suppressed` is a part of it.
    pub exported: CountsReport,
    /// The part of `exported` that was sent and that no sink has confirmed.
    pub sent_unconfirmed: CountsReport,
    /// In records that were lost on the way out.
    pub dropped: CountsReport,
    /// In records that wait to be handed over.
    pub queued: CountsReport,
    /// Handed over in sums without keys, because a threshold or a mitigation held the records back. Outside of the ledger file it is rounded.
    pub suppressed: CountsReport,
    /// In residual counters, because table and spill log were full.
    pub overflow: CountsReport,
    /// Packets in records by the number of the indicator that selected them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selected: BTreeMap<u64, u64>,
    /// The accounts of the sinks, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sinks: BTreeMap<String, Account>,
    /// Whether every packet is accounted for exactly once. If it is known that something is missing, it never is.
    pub balanced: bool,
    /// Whether it has the last drain and what became of its records. While the agent runs it has not, and everything
    /// speaks of the drains so far.
    pub complete: bool,
    /// Why something is missing: the agent has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
}

impl LedgerReport {
    /// What an interface saw: nothing, before the ledger knows the interface.
    #[must_use]
    pub fn interface(&self, name: &str) -> Cow<'_, InterfaceLedger> {
        self.interfaces.get(name).map_or_else(|| Cow::Owned(InterfaceLedger::default()), Cow::Borrowed)
    }

    /// Frames that entered the kernel program, on all interfaces.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.interfaces.values().map(|interface| interface.seen).sum()
    }

    /// Packets with this outcome, on all interfaces.
    #[must_use]
    pub fn outcome(&self, name: &str) -> u64 {
        self.interfaces.values().map(|interface| interface.outcome(name)).sum()
    }

    /// IP octets in records and residual counters, on all interfaces.
    #[must_use]
    pub fn octets_counted(&self) -> u64 {
        self.interfaces.values().map(|interface| interface.octets_counted).sum()
    }

    /// The places where counted packets are, in a ledger as it is told. Each counted packet is in one of them.
    #[must_use]
    pub const fn places(&self) -> [(&'static str, CountsReport); 3] {
        [("exported", self.exported), ("queued", self.queued), ("dropped", self.dropped)]
    }

    /// The ledger as it is told outside of the ledger file: without what single indicators matched, and with the total of what was
    /// suppressed rounded as its recipient gets it. What was handed over is one sum there.
    #[must_use]
    pub fn told(ledger: &Ledger) -> Self {
        let Told { exported, sent_unconfirmed, suppressed } = ledger.told();
        Self {
            exported: exported.into(),
            sent_unconfirmed: sent_unconfirmed.into(),
            suppressed: suppressed.into(),
            selected: BTreeMap::new(),
            sinks: ledger.sinks().iter().map(|sink| (sink.name.clone(), sink.told())).collect(),
            ..Self::from(ledger)
        }
    }
}

impl From<&Ledger> for LedgerReport {
    fn from(ledger: &Ledger) -> Self {
        // Former and unknown interfaces come after those with slots, and are not watched at all.
        let unwatched = ledger.unwatched().map(|(_, unwatched)| unwatched);
        let unwatched = unwatched.chain(std::iter::repeat(Unwatched::default()));
        let interfaces = ledger.interfaces().zip(unwatched);
        Self {
            interfaces: interfaces
                .map(|((name, totals), unwatched)| (name.to_owned(), InterfaceLedger::new(totals, unwatched)))
                .collect(),
            exported: ledger.exported().into(),
            sent_unconfirmed: ledger.sent_unconfirmed().into(),
            dropped: ledger.dropped().into(),
            queued: ledger.queued().into(),
            suppressed: ledger.suppressed().into(),
            overflow: ledger.overflow().into(),
            selected: ledger.selected().clone(),
            sinks: ledger.sinks().iter().map(|sink| (sink.name.clone(), sink.clone())).collect(),
            balanced: ledger.is_balanced(),
            complete: *ledger.standing() == Standing::Complete,
            incomplete: match ledger.standing() {
                Standing::Incomplete(reason) => Some(reason.to_string()),
                Standing::SoFar | Standing::Complete => None,
            },
        }
    }
}

/// A ledger is JSON in one way, wherever it is written.
impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        LedgerReport::from(self).serialize(serializer)
    }
}

/// Packets, and the IP octets in them.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct CountsReport {
    /// Packets.
    pub packets: u64,
    /// Octets, by the length that the IP header declares.
    pub octets: u64,
}

impl From<Counts> for CountsReport {
    fn from(counts: Counts) -> Self {
        Self { packets: counts.packets, octets: counts.octets }
    }
}

/// What the kernel program saw on one interface.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct InterfaceLedger {
    /// Frames that entered the program.
    pub seen: u64,
    /// Their octets, link header included.
    pub seen_octets: u64,
    /// How they ended, by the name of the outcome.
    pub outcomes: IndexMap<String, OutcomePackets>,
    /// IP octets in records and residual counters.
    pub octets_counted: u64,
    /// How often the program was detached after its first attachment; absent when it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwatched_times: Option<u64>,
    /// For how long, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unwatched_seconds: Option<f64>,
}

impl InterfaceLedger {
    fn new(totals: &InterfaceTotals, unwatched: Unwatched) -> Self {
        let was_unwatched = unwatched.times != 0;
        let mut outcomes = IndexMap::new();
        for outcome in Outcome::ALL {
            let packets = totals.outcome(*outcome);
            let name = outcome.name().to_owned();
            let Some(reason) = outcome.reason() else {
                outcomes.insert(name, OutcomePackets::Sum(packets));
                continue;
            };
            let reasons = outcomes.entry(name).or_insert_with(|| OutcomePackets::Reasons(IndexMap::new()));
            if let OutcomePackets::Reasons(reasons) = reasons
                && packets != 0
            {
                reasons.insert(reason.to_owned(), packets);
            }
        }
        Self {
            seen: totals.seen_packets,
            seen_octets: totals.seen_octets,
            outcomes,
            octets_counted: totals.octets_counted,
            unwatched_times: was_unwatched.then_some(unwatched.times),
            unwatched_seconds: was_unwatched.then_some(unwatched.time.as_secs_f64()),
        }
    }

    /// Packets with this outcome, whatever the reason.
    #[must_use]
    pub fn outcome(&self, name: &str) -> u64 {
        self.outcomes.get(name).map_or(0, OutcomePackets::packets)
    }
}

/// Packets with one outcome.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum OutcomePackets {
    /// An outcome without reasons.
    Sum(u64),
    /// An outcome with reasons: packets by the name of each reason that occurred.
    Reasons(IndexMap<String, u64>),
}

impl OutcomePackets {
    /// Packets, whatever the reason.
    #[must_use]
    pub fn packets(&self) -> u64 {
        match self {
            Self::Sum(packets) => *packets,
            Self::Reasons(reasons) => reasons.values().sum(),
        }
    }

    /// Packets by reason; nothing for an outcome without reasons.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, u64)> {
        let reasons = match self {
            Self::Sum(_) => None,
            Self::Reasons(reasons) => Some(reasons),
        };
        reasons.into_iter().flatten().map(|(reason, packets)| (reason.as_str(), *packets))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use minimizer_common::outcome::Outcome;

    use super::{LedgerReport, OutcomePackets};
    use crate::delivery::ledger::{FORMER, Ledger};
    use crate::interfaces::slot::Unwatched;
    use crate::records::drain::Totals;
    use crate::serve::snapshot::example::example;

    #[test]
    fn every_outcome_is_there_and_those_with_reasons_have_them() {
        let report = LedgerReport::from(&example().ledger);
        let interface = &report.interfaces["eth\"0\\"];
        for (outcome, packets) in Outcome::ALL.iter().zip(101..) {
            let of_name = &interface.outcomes[outcome.name()];
            match outcome.reason() {
                None => assert_eq!(*of_name, OutcomePackets::Sum(packets)),
                Some(reason) => assert!(of_name.reasons().any(|it| it == (reason, packets)), "{of_name:?}"),
            }
        }
        assert_eq!(interface.outcomes.values().map(OutcomePackets::packets).sum::<u64>(), interface.seen);
        assert_eq!(report.interfaces["gone"].outcomes["malformed"], OutcomePackets::Reasons([].into()));
    }

    #[test]
    fn only_interfaces_that_were_unwatched_say_so_and_former_ones_are_the_last() {
        let mut ledger = Ledger::new(vec!["eth0".to_owned(), "eth1".to_owned()]);
        ledger.add_outcome(1, Outcome::Counted, 60);
        ledger.retire(1);
        ledger.enter(1, "eth2", Unwatched { times: 2, time: Duration::from_millis(1500) });
        let json = serde_json::to_value(LedgerReport::from(&ledger)).expect("a ledger is JSON");
        assert_eq!(json["interfaces"]["eth2"]["unwatched_times"], 2);
        assert_eq!(json["interfaces"]["eth2"]["unwatched_seconds"], 1.5);
        assert_eq!(json["interfaces"]["eth0"].get("unwatched_times"), None);
        assert_eq!(json["interfaces"][FORMER]["seen"], 1);
        let names = json["interfaces"].as_object().expect("an object").keys();
        assert_eq!(names.collect::<Vec<_>>(), ["eth0", "eth2", FORMER]);
    }

    #[test]
    fn what_was_suppressed_is_exact_in_the_file_alone() {
        let ledger = example().ledger;
        let json = |report| serde_json::to_value::<LedgerReport>(report).expect("JSON");
        let (file, told) = (json(LedgerReport::from(&ledger)), json(LedgerReport::told(&ledger)));
        let (sink, told_sink) = (&file["sinks"]["soc"], &told["sinks"]["soc"]);
        assert_eq!(file["suppressed"], serde_json::json!({"packets": 4, "octets": 300}));
        assert_eq!(told["suppressed"], serde_json::json!({"packets": 4, "octets": 256}));
        assert_eq!(told_sink["suppressed"], serde_json::json!({"records": 1, "packets": 4, "octets": 256}));
        // No subtraction gives the exact number.
        let sum = |of: &serde_json::Value, name: &str| {
            of["exported"][name].as_u64().zip(of["suppressed"][name].as_u64()).map(|(one, other)| one + other)
        };
        for name in ["packets", "octets"] {
            assert_eq!(told["exported"][name].as_u64(), sum(&file, name));
            assert_eq!(told_sink["exported"][name].as_u64(), sum(sink, name));
            for (of, told) in [(&file, &told), (sink, told_sink)] {
                let difference = |of: &serde_json::Value| {
                    of["exported"][name]
                        .as_u64()
                        .zip(of["sent_unconfirmed"][name].as_u64())
                        .map(|(all, some)| all - some)
                };
                assert_eq!(difference(told), difference(of), "nothing of what was suppressed is in it");
            }
        }
        assert_eq!((&told["balanced"], &file["balanced"]), (&true.into(), &true.into()));
    }

    #[test]
    fn indicators_are_numbers_and_absent_where_there_are_none() {
        let mut ledger = Ledger::new(Vec::new());
        let json = |ledger: &Ledger| serde_json::to_value(LedgerReport::from(ledger)).expect("JSON");
        assert_eq!(json(&ledger).get("selected"), None);
        ledger.add(&Totals { selected: [(1001, 8), (1002, 4)].into(), ..Totals::default() });
        assert_eq!(json(&ledger)["selected"], serde_json::json!({"1001": 8, "1002": 4}));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut ledger = example().ledger;
        ledger.add(&Totals { selected: [(1001, 3)].into(), ..Totals::default() });
        let report = LedgerReport::from(&ledger);
        let json = serde_json::to_string(&report).expect("a ledger is JSON");
        let read: LedgerReport = serde_json::from_str(&json).expect("is read back");
        assert_eq!(read, report);
        assert_eq!(serde_json::to_string(&read).expect("a ledger is JSON"), json);
        // An agent of another version may say less.
        let less: LedgerReport =
            serde_json::from_str(r#"{"interfaces": {"eth0": {"seen": 3}}}"#).expect("is read");
        assert_eq!((less.seen(), less.outcome("counted"), less.balanced), (3, 0, false));
    }
}
