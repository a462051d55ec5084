//! Sinks that fail at random, and whether everything is accounted for.

mod units;

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use minimizer_common::generation::Counts;
use minimizer_common::outcome::Outcome;
use minimizer_common::slot::{Counted, Wide};
use minimizer_common::tuple::{Tags, Tuple};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::Sender;
use crate::delivery::accounting::Accounting;
use crate::delivery::batch::{Batch, Origin};
use crate::delivery::ending::Ending;
use crate::delivery::ledger::Ledger;
use crate::delivery::loss::Loss;
use crate::delivery::queue::Queue;
use crate::delivery::sink::{CHUNK_RECORDS_MAX, Heading, Losses, Sink, SinkError, Taken};
use crate::delivery::waiting::Bounds;
use crate::kernel::wall_clock::TimeUnits;
use crate::policy::compile::CompiledPolicy;
use crate::policy::field::Fields;
use crate::records::drain::{InterfaceTotals, Totals};
use crate::records::keys::Keys;
use crate::records::packed::{Packed, Packing, SlotDecoder};
use crate::records::record::Record;
use crate::records::terms::{Keyring, Terms};

/// What has reached the other end, and what is on the way there.
#[derive(Debug, Default)]
struct End {
    arrived: Vec<Record>,
    held: Vec<Record>,
}

/// Does what the dice say.
struct Fickle {
    random: ChaCha8Rng,
    /// Of a hundred calls, how many fail.
    failing: u32,
    end: Arc<Mutex<End>>,
}

impl Fickle {
    fn roll(&mut self) -> Result<Taken, SinkError> {
        let mut end = self.end.lock().expect("nobody panics");
        if self.random.random_range(0..100) < self.failing {
            let held_is_lost = self.random.random_bool(0.3);
            if held_is_lost {
                end.held.clear();
            }
            return Err(SinkError { held_is_lost, ..SinkError::new(Loss::Unreachable, "the dice say so") });
        }
        if self.random.random_bool(0.4) {
            return Ok(Taken::Held);
        }
        let End { arrived, held } = &mut *end;
        arrived.append(held);
        Ok(Taken::Delivered)
    }
}

impl Sink for Fickle {
    fn begin(&mut self, _heading: &Heading<'_>) -> Result<(), SinkError> {
        // Nothing is handed on here: what is held stays held.
        if self.random.random_range(0..100) < self.failing {
            return Err(SinkError::new(Loss::Unreachable, "the dice say so"));
        }
        Ok(())
    }

    fn take(&mut self, records: &[Record], _fields: Fields) -> Result<Taken, SinkError> {
        assert!((1..=CHUNK_RECORDS_MAX).contains(&records.len()));
        // When it fails, these were not taken. When it does not, they are among what is handed on.
        if self.random.random_range(0..100) < self.failing {
            return self.roll_failure();
        }
        self.end.lock().expect("nobody panics").held.extend_from_slice(records);
        let failing = std::mem::replace(&mut self.failing, 0);
        let taken = self.roll();
        self.failing = failing;
        taken
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        self.roll()
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        loop {
            let closed = self.roll()?;
            if closed == Taken::Delivered {
                return Ok(closed);
            }
        }
    }

    fn octets_written(&self) -> u64 {
        0
    }
}

impl Fickle {
    fn roll_failure(&mut self) -> Result<Taken, SinkError> {
        let failing = std::mem::replace(&mut self.failing, 100);
        let failure = self.roll();
        self.failing = failing;
        failure
    }
}

fn terms() -> Arc<Terms> {
    let compiled = CompiledPolicy::load("full-record", &[]).expect("is built in");
    let mut keyring = Keyring::new(Keys::load(None).expect("keys"));
    keyring.terms(&compiled, Timestamp::now()).expect("terms")
}

/// Enters records into the ledger as a drain does.
fn entered(accounting: &Accounting, records: &Packed) -> Totals {
    let recorded = super::counts(&records.iter().collect::<Vec<_>>());
    let mut interface = InterfaceTotals {
        seen_packets: recorded.packets,
        octets_counted: recorded.octets,
        ..InterfaceTotals::ZERO
    };
    interface.outcomes[Outcome::Counted as usize] = recorded.packets;
    let totals = Totals { interfaces: vec![interface], recorded, ..Totals::default() };
    let mut ledger = accounting.lock();
    ledger.enter(0, "eth0", crate::interfaces::slot::Unwatched::default());
    ledger.add(&totals);
    totals
}

fn batch(number: u64, records: u32, terms: &Arc<Terms>, accounting: &Accounting) -> Arc<Batch> {
    let mut packing = Packing::default();
    for index in 0..records {
        let tuple = Tuple::new([u64::from(index), number, 0, 0], (1, 2), Tags::NONE, 6, 0);
        let counted = Counted {
            tuple,
            packets: u64::from(index % 7) + 1,
            octets: u64::from(index % 1000) + 40,
            first: 1,
            last: 2,
            ..Counted::default()
        };
        packing.add_wide(&Wide::of_many(&counted).expect("fits"));
    }
    let time = TimeUnits { base: 0, unit_ms: 1 };
    let records = packing.take(SlotDecoder::new(&terms.compiled, time, &[1]));
    let totals = entered(accounting, &records);
    let origin = Origin {
        number,
        interval_ms: (0, 1),
        interfaces: Vec::new(),
        losses: Losses::default(),
        program_tag: "".into(),
    };
    Arc::new(Batch::new(records, totals, Arc::clone(terms), origin, accounting.queues().len()))
}

fn queue(name: &str, bounds: Bounds) -> Arc<Queue> {
    Arc::new(Queue::new(name, None, "test", bounds))
}

/// Sends batches to a sink of whose calls `failing` in a hundred fail. Returns the ledger and what arrived.
fn deliver(
    seed: u64,
    failing: u32,
    batches: &[u32],
    timeout: Duration,
    bounds: Bounds,
) -> (Ledger, Vec<Record>) {
    let (terms, end) = (terms(), Arc::new(Mutex::new(End::default())));
    let queue = queue("fickle", bounds);
    let accounting = Accounting::new(vec![Arc::clone(&queue)]);
    let ending = Ending::default();
    let sink = Fickle { random: ChaCha8Rng::seed_from_u64(seed), failing, end: Arc::clone(&end) };
    let sender =
        Sender::new("fickle", accounting.clone(), queue.clone(), Box::new(sink), ending.clone(), || ());
    let sender = sender.start(()).expect("a thread");
    for (number, records) in (1..).zip(batches) {
        accounting.push(&batch(number, *records, &terms, &accounting));
    }
    queue.close();
    ending.set(Instant::now() + timeout);
    sender.join().expect("the sender ends");
    let arrived = std::mem::take(&mut end.lock().expect("nobody panics").arrived);
    (accounting.ledger(), arrived)
}

fn check(ledger: &Ledger, arrived: &[Record]) {
    let account = &ledger.sinks()[0];
    assert!(ledger.is_balanced(), "{account:?}");
    assert_eq!(account.queued.counts(), Counts::default(), "{account:?}");
    assert_eq!(account.exported.counts(), super::counts(arrived), "{account:?}");
    assert_eq!(ledger.exported(), super::counts(arrived));
    assert_eq!(ledger.queued(), Counts::default());
    let mut tuples: Vec<_> = arrived.iter().map(|record| record.tuple).collect();
    tuples.sort_unstable();
    tuples.dedup();
    assert_eq!(tuples.len(), arrived.len(), "records arrived twice");
}

#[test]
fn nothing_is_lost_on_a_way_that_works() {
    let (ledger, arrived) =
        deliver(1, 0, &[0, 1, 4096, 4097, 10_000], Duration::from_secs(60), Bounds::default());
    check(&ledger, &arrived);
    assert_eq!(arrived.len(), 18_194);
    assert_eq!(ledger.sinks()[0].exported.records, 18_194);
}

#[test]
fn every_record_is_delivered_once_or_counted_as_lost_however_the_sink_fails() {
    for seed in 0..6 {
        let batches: Vec<_> = (0..10_u32).map(|number| number * 7919 % 9000).collect();
        let (ledger, arrived) = deliver(seed, 15, &batches, Duration::from_secs(2), Bounds::default());
        check(&ledger, &arrived);
    }
}

#[test]
fn what_a_dead_sink_was_offered_is_lost_for_its_reason_and_at_the_end() {
    let bounds = Bounds { records: 250, ..Bounds::default() };
    let (ledger, arrived) = deliver(1, 100, &[100; 10], Duration::ZERO, bounds);
    check(&ledger, &arrived);
    assert!(arrived.is_empty());
    let account = &ledger.sinks()[0];
    let lost: u64 = account.dropped.values().map(|tally| tally.records).sum();
    assert_eq!(lost, 1000, "{account:?}");
    assert!(account.dropped.contains_key("shutdown"), "{account:?}");
}

#[test]
fn the_oldest_gives_way_and_one_may_always_wait() {
    let terms = terms();
    let queue = queue("slow", Bounds { records: 250, ..Bounds::default() });
    let accounting = Accounting::new(vec![Arc::clone(&queue)]);
    for number in 1..=5 {
        accounting.push(&batch(number, 100, &terms, &accounting));
    }
    let account = queue.account();
    assert_eq!((account.queued.records, account.dropped["queue_full"].records), (200, 300));
    accounting.push(&batch(6, 1000, &terms, &accounting));
    assert_eq!(queue.account().queued.records, 1000);
    let left = queue.next_batch().expect("one waits");
    assert_eq!(queue.account().queue_bytes, left.octets(), "it is not handed over yet");
    assert_eq!(left.heading(None).expect("has a first recipient").number, 6);
    accounting.exported(&queue, &left, left.records.len(), Counts::default());
    assert_eq!(queue.account().queue_bytes, 0);
    assert!(accounting.ledger().is_balanced());
}

#[test]
fn the_sink_that_took_most_of_a_batch_counts_for_the_ledger() {
    let terms = terms();
    let queues = ["one", "other"].map(|name| queue(name, Bounds::default()));
    let accounting = Accounting::new(queues.to_vec());
    let sent = batch(1, 100, &terms, &accounting);
    accounting.push(&sent);
    assert!(queues.iter().all(|queue| queue.next_batch().is_some()));
    accounting.lost(&queues[0], &sent, Loss::Unreachable);
    let recorded = sent.totals.recorded;
    assert_eq!(accounting.ledger().queued(), recorded);
    accounting.exported(&queues[1], &sent, 100, Counts::default());
    let ledger = accounting.ledger();
    assert_eq!((ledger.exported(), ledger.dropped()), (recorded, Counts::default()));
    assert_eq!(ledger.queued(), Counts::default());
}

/// A sink that takes what it is given, and hangs for ever in the call of this number.
struct Hanging {
    calls: u32,
    hangs_in: u32,
    reached: mpsc::Sender<()>,
    never: mpsc::Receiver<()>,
}

impl Hanging {
    fn call(&mut self) -> Result<Taken, SinkError> {
        self.calls += 1;
        if self.calls == self.hangs_in {
            self.reached.send(()).expect("the test waits");
            // Until the test ends.
            let _ended = self.never.recv();
        }
        Ok(if self.calls < 5 { Taken::Delivered } else { Taken::Held })
    }
}

impl Sink for Hanging {
    fn begin(&mut self, _heading: &Heading<'_>) -> Result<(), SinkError> {
        self.call().map(drop)
    }

    fn take(&mut self, _records: &[Record], _fields: Fields) -> Result<Taken, SinkError> {
        self.call()
    }

    fn end(&mut self) -> Result<Taken, SinkError> {
        self.call()
    }

    fn close(&mut self) -> Result<Taken, SinkError> {
        self.call()
    }

    fn octets_written(&self) -> u64 {
        0
    }
}

#[test]
fn what_a_sink_that_hangs_has_in_hand_is_lost_at_the_end_and_only_that() {
    let terms = terms();
    // Begin, three times take, end; the same again, but what is taken then is held; a third batch waits.
    for (hangs_in, delivered) in
        [(1, 0), (2, 0), (3, 4096), (4, 8192), (5, 9000), (6, 9000), (7, 9000), (9, 9000)]
    {
        let queues = ["hanging", "other"].map(|name| queue(name, Bounds::default()));
        let accounting = Accounting::new(queues.to_vec());
        let (reached, is_reached) = mpsc::channel();
        let (_end, never) = mpsc::channel();
        let sink = Box::new(Hanging { calls: 0, hangs_in, reached, never });
        let ending = Ending::default();
        let sender =
            Sender::new("hanging", accounting.clone(), queues[0].clone(), sink, ending.clone(), || ());
        sender.start(()).expect("a thread");
        (1..=3).for_each(|number| accounting.push(&batch(number, 9000, &terms, &accounting)));
        is_reached.recv_timeout(Duration::from_secs(60)).expect("it hangs");
        assert_eq!(queues[0].look_for_stall(), None, "it has some seconds");
        // The other sink takes the last batch only.
        for number in 1..=3 {
            let batch = queues[1].next_batch().expect("one waits");
            if number < 3 {
                accounting.lost(&queues[1], &batch, Loss::Unreachable);
            } else {
                accounting.exported(&queues[1], &batch, 9000, Counts::default());
            }
        }
        ending.set(Instant::now());
        accounting.abandon();
        let ledger = accounting.ledger();
        let account = &ledger.sinks()[0];
        let case = format!("call {hangs_in}: {account:?}");
        assert!(ledger.is_balanced(), "{case}");
        assert_eq!(account.exported.records, delivered, "{case}");
        assert_eq!(account.dropped["shutdown"].records, 3 * 9000 - delivered, "{case}");
        assert_eq!((account.queued.counts(), ledger.queued()), Default::default(), "{case}");
        let third = ledger.sinks()[1].exported.counts();
        let sum = |one: Counts, other: Counts| one.packets + other.packets;
        assert_eq!(ledger.exported().packets, sum(account.exported.counts(), third), "{case}");
        assert!(queues[0].next_batch().is_none(), "{case}");
    }
}
