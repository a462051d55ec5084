//! The account of a sink: what it was offered, and what became of each packet in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::delivery::loss::Loss;
use crate::delivery::tally::{Portion, Tally};
use crate::support::clock;

/// Why a sink does not work at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// Since when, in milliseconds since 1970.
    pub since_milliseconds: u64,
    /// The reason under which records that are lost meanwhile are counted.
    pub reason: String,
    /// What failed, and the fix.
    pub message: String,
    #[serde(skip)]
    pub(super) loss: Option<Loss>,
}

/// Whether a sink works, as far as the agent knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// The other end confirmed what it got when the sink was used last.
    Up,
    /// The sink failed when it was used last.
    Down,
    /// The sink was not used yet, or nothing refuses what it sends and nobody confirms it.
    #[default]
    Unknown,
}

impl SinkState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Unknown];

    /// Its name in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of everything that a sink was offered.
///
/// Packets and octets add up: `offered` is the sum of `exported`, `suppressed`, `dropped` and `queued`. Records need not: those
/// that were dropped before the view of the recipient was made are counted as they were collected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Name of the sink.
    pub name: String,
    /// The recipient whose records it gets.
    pub recipient: String,
    /// What kind of sink it is.
    pub kind: String,
    /// Everything that was drained since the sink exists, in records as they were collected.
    pub offered: Tally,
    /// What was handed over, in records with their keys.
    pub exported: Tally,
    /// The part of `exported` that was sent and that nobody confirmed.
    pub sent_unconfirmed: Tally,
    /// What was handed over in sums without keys.
    pub suppressed: Tally,
    /// What waits, and what the sink has taken and can still lose.
    pub queued: Tally,
    /// What was lost, by the name of the reason.
    pub dropped: BTreeMap<String, Tally>,
    /// Memory of the batches that wait, and of the one that is being handed over.
    pub queue_bytes: u64,
    /// Octets that the sink has written.
    pub octets_written: u64,
    /// How often it has failed.
    pub failures: u64,
    /// Whether it works, as far as the agent knows.
    pub state: SinkState,
    /// How often it could not delete a file although the retention of the file was over.
    pub retention_failures: u64,
    /// Why it does not work at the moment; absent when it is not known to fail.
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

    /// Whether every packet that was offered is in exactly one place, and no more is unconfirmed than was handed over.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let parts = [&self.exported, &self.suppressed, &self.queued].into_iter().chain(self.dropped.values());
        let sum =
            parts.fold((0, 0), |(packets, octets), part| (packets + part.packets, octets + part.octets));
        let (unconfirmed, exported) = (self.sent_unconfirmed, self.exported);
        sum == (self.offered.packets, self.offered.octets)
            && unconfirmed.packets <= exported.packets
            && unconfirmed.octets <= exported.octets
    }

    /// The account as it is told outside of the ledger file. What was handed over is one sum, with what was suppressed, so that nobody
    /// finds the exact number of that by subtraction; `suppressed` is a rounded part of it. If something is unconfirmed, all that
    /// was suppressed is, too.
    #[must_use]
    pub fn told(&self) -> Self {
        let with_suppressed = |tally: Tally| Tally {
            records: tally.records,
            packets: tally.packets + self.suppressed.packets,
            octets: tally.octets + self.suppressed.octets,
        };
        let unconfirmed = self.sent_unconfirmed;
        Self {
            exported: with_suppressed(self.exported),
            sent_unconfirmed: if unconfirmed.packets == 0 {
                unconfirmed
            } else {
                with_suppressed(unconfirmed)
            },
            suppressed: self.suppressed.rounded(),
            ..self.clone()
        }
    }

    /// Whether an account as it is told has every packet in exactly one place.
    #[must_use]
    pub fn adds_up_as_told(&self) -> bool {
        let mut sum = self.exported;
        sum.add(self.queued);
        self.dropped.values().for_each(|tally| sum.add(*tally));
        sum.counts() == self.offered.counts()
    }

    /// The reason under which records that give way now are counted.
    pub(super) fn loss(&self) -> Loss {
        self.failing.as_ref().and_then(|failing| failing.loss).unwrap_or(Loss::QueueFull)
    }

    pub(super) fn offer(&mut self, batch: Tally) {
        self.offered.add(batch);
        self.queued.add(batch);
    }

    /// The view of a batch is made: it had `collected` records, and has `viewed` for the recipient.
    pub(super) fn view(&mut self, collected: u64, viewed: u64) {
        self.queued.records = (self.queued.records + viewed).saturating_sub(collected);
    }

    pub(super) fn export(&mut self, portion: Portion) {
        self.unqueue(portion.sum());
        self.exported.add(portion.records);
        self.suppressed.add(portion.suppressed);
    }

    /// Like [`Self::export`], of what nobody confirms.
    pub(super) fn send(&mut self, portion: Portion) {
        self.export(portion);
        self.sent_unconfirmed.add(portion.records);
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
        self.state = SinkState::Down;
        let since_milliseconds = match &self.failing {
            Some(failing) => failing.since_milliseconds,
            None => clock::realtime_ms(),
        };
        let (reason, message) = (loss.name().to_owned(), message.to_owned());
        self.failing = Some(Failing { since_milliseconds, reason, message, loss: Some(loss) });
    }

    /// Notes that the sink does not fail any more; `is_confirmed`: and that the other end says so. Returns whether it failed
    /// before.
    pub(super) fn recover(&mut self, is_confirmed: bool) -> bool {
        let did_fail = self.failing.take().is_some();
        if did_fail {
            self.state = if is_confirmed { SinkState::Up } else { SinkState::Unknown };
        }
        did_fail
    }

    /// Notes that the sink took a batch as a whole; `is_confirmed`: and that the other end says so.
    pub(super) fn succeed(&mut self, is_confirmed: bool) {
        self.state = if is_confirmed { SinkState::Up } else { SinkState::Unknown };
        self.last_success_milliseconds = Some(clock::realtime_ms());
    }
}
