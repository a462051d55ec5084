//! The account of a sink: what it was offered and what became of each packet of it.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use minimizer_common::generation::Counts;
use serde::{Deserialize, Serialize};

use crate::delivery::loss::Loss;

/// Records, and the packets and IP octets that are counted in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Packets.
    pub packets: u64,
    /// IP octets.
    pub octets: u64,
}

impl Tally {
    /// So many records, which count this.
    #[must_use]
    pub fn new(records: usize, counts: Counts) -> Self {
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        Self { records, packets: counts.packets, octets: counts.octets }
    }

    /// Packets and octets.
    #[must_use]
    pub const fn counts(self) -> Counts {
        Counts { packets: self.packets, octets: self.octets }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.records += other.records;
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// Why a sink does not work at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when, in milliseconds since 1970.
    pub since_milliseconds: u64,
    /// Under which reason records are lost meanwhile.
    pub reason: String,
    /// What failed, and the fix.
    pub message: String,
    #[serde(skip)]
    pub(super) loss: Option<Loss>,
}

/// What became of what a sink was offered.
///
/// Packets and octets add up: `offered` is `exported`, `suppressed`, `dropped` and `queued` together. Records of a view that was
/// never made are counted as they were collected, so that records need not add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Name of the sink.
    pub name: String,
    /// Whose records it gets.
    pub recipient: String,
    /// What kind of sink it is.
    pub kind: String,
    /// Everything that was drained while there was this sink, in records as they were collected.
    pub offered: Tally,
    /// What is out of the agent's hands.
    pub exported: Tally,
    /// What left the agent in sums without keys.
    pub suppressed: Tally,
    /// What waits, or was taken by the sink and can still be lost.
    pub queued: Tally,
    /// What was lost, by the name of the reason.
    pub dropped: BTreeMap<String, Tally>,
    /// Memory of the records that wait.
    pub queue_bytes: u64,
    /// Octets that the sink wrote.
    pub octets_written: u64,
    /// How often it failed.
    pub failures: u64,
    /// Why it does not work at the moment; absent when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// When it last took a batch as a whole, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_milliseconds: Option<u64>,
}

impl Account {
    /// An empty account.
    #[must_use]
    pub fn new(name: &str, recipient: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            recipient: recipient.to_owned(),
            kind: kind.to_owned(),
            ..Self::default()
        }
    }

    /// Whether every packet that was offered is in one place.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let parts = [&self.exported, &self.suppressed, &self.queued].into_iter().chain(self.dropped.values());
        let sum =
            parts.fold((0, 0), |(packets, octets), part| (packets + part.packets, octets + part.octets));
        sum == (self.offered.packets, self.offered.octets)
    }

    /// The reason under which records are lost now.
    pub(super) fn loss(&self) -> Loss {
        self.failing.as_ref().and_then(|failing| failing.loss).unwrap_or(Loss::QueueFull)
    }

    pub(super) fn offer(&mut self, batch: Tally) {
        self.offered.add(batch);
        self.queued.add(batch);
    }

    /// The collected records of a batch become those of the recipient: as many as these.
    pub(super) fn view(&mut self, collected: u64, viewed: u64) {
        self.queued.records = (self.queued.records + viewed).saturating_sub(collected);
    }

    pub(super) fn export(&mut self, records: Tally, suppressed: Tally) {
        self.unqueue(records);
        self.unqueue(suppressed);
        self.exported.add(records);
        self.suppressed.add(suppressed);
    }

    pub(super) fn lose(&mut self, records: Tally, loss: Loss) {
        if records == Tally::default() {
            return;
        }
        self.unqueue(records);
        self.dropped.entry(loss.name().to_owned()).or_default().add(records);
    }

    fn unqueue(&mut self, records: Tally) {
        self.queued.records = self.queued.records.saturating_sub(records.records);
        self.queued.packets -= records.packets;
        self.queued.octets -= records.octets;
    }

    pub(super) fn fail(&mut self, loss: Loss, message: &str) {
        self.failures += 1;
        let since_milliseconds = match &self.failing {
            Some(failing) => failing.since_milliseconds,
            None => now_milliseconds(),
        };
        let (reason, message) = (loss.name().to_owned(), message.to_owned());
        self.failing = Some(Failing { since_milliseconds, reason, message, loss: Some(loss) });
    }

    /// Notes that the sink works, and returns whether it did not before.
    pub(super) fn recover(&mut self) -> bool {
        self.failing.take().is_some()
    }

    pub(super) fn succeed(&mut self) {
        self.last_success_milliseconds = Some(now_milliseconds());
    }
}

fn now_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
